"""Cache: from an artifact that is wanted to a body that can be read, and how that came about.

The table ``{key: Transfer}`` is the lock: whoever asks for what is being fetched reads along.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from vault.artifact import ASKED, GONE, Artifact
from vault.clock import steady
from vault.errors import Missing, NotStored, Offline, Slashed, Unavailable, Unsatisfied, UpstreamError, VaultError
from vault.failures import Failures
from vault.freshness import elapsed, fresh, keepable, lifetime, since, staleness
from vault.outcome import Found, How
from vault.parts import Parts
from vault.rate import Rate
from vault.sources import Sources
from vault.stages import Outcome, State
from vault.store.body import StoredBody
from vault.store.store import Store
from vault.transfer import Transfer
from vault.urls import mark_of, plain
from vault.verified import contradicted

PATIENCE = 5.0
"""Seconds to wait for an upstream's head while there is a stored copy to give instead."""


class _Nobody:
    """A reader that reads nothing: attached and detached, it tells a body that nobody will."""

    offset = 0


_NOBODY = _Nobody()


class Cache:
    """One backend's view of the store.

    ``transfers`` is the table of what is being fetched, one for all backends, which outlives this object when the
    configuration is read again.  ``now`` gives POSIX seconds.  Nothing is begun any more once it is ``stopping``.
    """

    log = Logger()

    def __init__(
        self, sources: Sources, store: Store, clock: IReactorTime, now: Callable[[], float],
        transfers: dict[str, Transfer],
    ) -> None:  # fmt: skip
        self.transfers = transfers
        self.stopping = False
        self._sources = sources
        self._options = sources.options
        self._store = store
        self._clock = clock
        self._now = now
        seconds = steady(clock)
        self._failures = Failures(seconds)
        self._private: set[Transfer] = set()
        bandwidth = self._options.bandwidth
        self._bandwidth = None if bandwidth is None else Rate(bandwidth, seconds)
        self._parts = Parts(sources, store, clock, self._bandwidth, transfers)

    # -- the table --------------------------------------------------------------------------------------------------

    def _begin(self, artifact: Artifact, stored: StoredBody | None = None, private: bool = False) -> Transfer:
        if self.stopping:
            raise Unavailable("the vault is stopping")
        transfer = Transfer(
            artifact, self._sources, self._store, self._clock, self._bandwidth, stored, private
        )  # fmt: skip
        if private:
            self._private.add(transfer)
        else:
            self.transfers[artifact.key] = transfer
        return transfer

    def _run(self, transfer: Transfer) -> None:
        transfer.running = ensureDeferred(transfer.run(self._leave))
        transfer.running.addBoth(lambda ended: self._private.discard(transfer))

    def _leave(self, transfer: Transfer) -> None:
        if self.transfers.get(transfer.artifact.key) is transfer:
            del self.transfers[transfer.artifact.key]
        stored, feed, failure = transfer.stored, transfer.feed, None if transfer.body is None else transfer.body.failure
        if stored is None or failure is None:
            return
        # That its readers left says nothing of the upstream, but a refresh behind has none: it would only fail again.
        if feed is None or not feed.left or self._good(transfer.artifact, stored, no_cache=False):
            self._failures.rest(transfer.artifact, failure)

    @property
    def busy(self) -> bool:
        """True while bodies that are not stored are passed through."""
        return bool(self._private)

    async def stop(self) -> None:
        """End every transfer; what has come stays on disk to be gone on with."""
        transfers = {*self.transfers.values(), *self._private}
        ends = [transfer.ended() for transfer in transfers]
        for transfer in transfers:
            transfer.stop(Unavailable("the vault is stopping"))
        for end in ends:
            await end

    # -- looking up -------------------------------------------------------------------------------------------------

    async def lookup(self, artifact: Artifact, no_cache: bool = False, stored_only: float | None = None) -> Found:
        """The body for an artifact, from the store or being fetched; raises VaultError.

        ``no_cache``: the client asks for validation (RFC 9111 section 5.2.1.4); it is done for what can change.
        ``stored_only``: nobody is asked for this client, see ``Asked``; raises NotStored where that will not do.
        """
        key = artifact.key
        found = self._running(artifact)
        if found is not None and not self._refreshing(artifact):
            return found
        stored = await self._store.find(key)
        if stored is not None and await contradicted(self._store, stored, artifact):
            self.log.warn("the stored {key} is not the {digest} that is wanted", key=plain(key), digest=artifact.digest)
            await self._store.remove(key)
            stored = None
        while (transfer := self.transfers.get(key)) is not None and transfer.failing:
            await transfer.gone()  # it still holds the partial file that the next one goes on with
        found = self._running(artifact)  # another request may have begun a fill while the store was asked
        # The old copy will do until a new one is whole, where it has not expired too long ago.
        if found is not None and not (
            stored is not None and self._refreshing(artifact) and self._good(artifact, stored, no_cache)
        ):
            return found
        if stored is None and artifact.digest is not None and key not in self.transfers:
            stored = await self._store.adopt_twin(key, artifact.digest)
            found = self._running(artifact)
            if found is not None:
                return found
        if stored is not None:
            return await self._stored(artifact, stored, no_cache, stored_only)
        return await self._absent(artifact, stored_only)

    def _running(self, artifact: Artifact) -> Found | None:
        transfer = self.transfers.get(artifact.key)
        if transfer is None or transfer.body is None or not transfer.joinable or self._foreign(artifact):
            return None
        body = transfer.body
        whole = body.complete or body.size == body.length
        fwd = "uri-miss" if transfer.stored is None else self._why(artifact, transfer.stored)
        return Found(
            body, How.HIT if whole else How.JOINED, fwd=None if whole else fwd,
            fwd_status=None if whole else body.head.status, collapsed=not whole,
            stored=not whole, ttl=lifetime(body.head, artifact), ahead=partial(self._parts.ahead, artifact, body),
        )  # fmt: skip

    def _refreshing(self, artifact: Artifact) -> bool:
        """True while something newer than what is stored is on its way, and not yet whole."""
        transfer = self.transfers.get(artifact.key)
        if transfer is None or transfer.body is None:
            return False
        return transfer.stored is not None and not transfer.body.complete

    def _foreign(self, artifact: Artifact) -> bool:
        """True while something else is being fetched under the key: from elsewhere, or with another digest."""
        transfer = self.transfers.get(artifact.key)
        if transfer is None:
            return False
        if artifact.digest is not None:
            # What has the same digest is the same wherever it comes from; what is not checked for it may be another.
            return transfer.artifact.digest != artifact.digest
        return transfer.artifact.urls != artifact.urls

    async def _stored(self, artifact: Artifact, stored: StoredBody, no_cache: bool, stored_only: float | None) -> Found:
        now = self._now()
        ttl = lifetime(stored.head, artifact)
        again = self._again(artifact, stored, no_cache)
        if fresh(stored.head, artifact, now) and not again:
            return Found(stored, How.HIT, ttl=None if ttl is None else ttl - elapsed(stored.head, now))
        if self._options.offline:
            return Found(stored, How.STALE, detail="offline")
        resting = self._failures.resting(artifact)
        if resting is not None:
            return Found(stored, How.STALE, detail=resting)
        if stored_only is not None:
            late = staleness(stored.head, artifact, now)
            if again or late > max(self._options.stale_while_revalidate, stored_only):
                raise NotStored(
                    "the stored copy has expired, and only-if-cached keeps the vault from asking for another"
                )
            return Found(stored, How.STALE, detail="only-if-cached")
        transfer = self.transfers.get(artifact.key)
        if self._good(artifact, stored, no_cache):
            if transfer is None:
                transfer = self._begin(artifact, stored)
                transfer.head().addCallbacks(
                    self._refreshed, self._note_failure, callbackArgs=(artifact,), errbackArgs=(artifact, stored)
                )
                self._run(transfer)
            return Found(stored, How.STALE, detail="refreshing")
        if transfer is not None and (transfer.body is not None or self._foreign(artifact)):
            # The disk failed while a new copy came: its beginning is gone, and the old one is whole.
            return Found(stored, How.STALE, detail="refreshing")
        waiting = (transfer or self._begin(artifact, stored)).head()
        fwd = self._why(artifact, stored)
        if transfer is None:
            self._run(self.transfers[artifact.key])
        try:
            outcome = await waiting.addTimeout(PATIENCE, self._clock)
        except DeferredTimeout:
            self._failures.rest(artifact)
            return Found(stored, How.STALE, detail="timeout")
        except VaultError as error:
            if isinstance(error, Missing) and await self._gone(artifact, stored):
                error.let_go = True
                raise
            if isinstance(error, Slashed):
                if error.permanent:
                    await self._store.remove(artifact.key)  # it is a directory's now, if it was not before
                raise
            self._failures.rest(artifact, error)
            return Found(stored, How.STALE, detail=error.proxy_error)
        return await self._told(artifact, outcome, fwd)

    def _why(self, artifact: Artifact, stored: StoredBody) -> str:
        """Why the upstream is asked of what is stored, as RFC 9211 section 2.2 has it: of a fresh copy at a wish."""
        return "request" if fresh(stored.head, artifact, self._now()) else "stale"

    def _again(self, artifact: Artifact, stored: StoredBody, no_cache: bool) -> bool:
        """True where a stored copy is to be confirmed before it is served, however fresh it is."""
        ttl = lifetime(stored.head, artifact) if no_cache else None
        if ttl is not None and elapsed(stored.head, self._now()) > min(5, ttl):
            return True
        # It came from where nobody is asked any more: what those who are asked have may be something else.
        return artifact.in_order and (stored.head.get(ASKED) or "") not in map(mark_of, artifact.urls)

    def _good(self, artifact: Artifact, stored: StoredBody, no_cache: bool) -> bool:
        """True where a stored copy is served at once, though it may have to be refreshed behind."""
        late = staleness(stored.head, artifact, self._now())
        return late <= self._options.stale_while_revalidate and not self._again(artifact, stored, no_cache)

    async def _gone(self, artifact: Artifact, stored: StoredBody) -> bool:
        """The upstream no longer has it: True once that has been so for the artifact's ``gone_ttl``."""
        if artifact.gone_ttl is None:
            return False
        now = self._now()
        noted = stored.head.get(GONE)
        age = math.inf if noted is None else since(float(noted), now)
        if age == math.inf:
            await self._store.renew(artifact.key, stored, stored.head.with_headers({GONE: f"{now:.0f}"}))
            age = 0.0
        if age < artifact.gone_ttl:
            return False
        await self._store.remove(artifact.key)
        return True

    def _refreshed(self, outcome: Outcome, artifact: Artifact) -> None:
        """A refresh behind a stale copy has its answer; one that may not be stored is of no use to anybody."""
        if outcome.state is State.REFUSED:
            self._failures.rest(artifact)
            if outcome.body is not None:
                outcome.body.attach(_NOBODY)
                outcome.body.detach(_NOBODY)

    def _note_failure(self, failure: object, artifact: Artifact, stored: StoredBody) -> None:
        error = getattr(failure, "value", None)
        if isinstance(error, Slashed):
            if error.permanent:
                ensureDeferred(self._store.remove(artifact.key))
        elif isinstance(error, VaultError):
            self._failures.rest(artifact, error)
        if isinstance(error, Missing):
            ensureDeferred(self._gone(artifact, stored))

    async def _absent(self, artifact: Artifact, stored_only: float | None) -> Found:
        key = artifact.key
        self._failures.recall(artifact)
        if stored_only is not None:
            raise NotStored("nothing is stored, and only-if-cached keeps the vault from asking for it")
        if self._options.offline:
            raise Offline("this backend is offline and has no copy of it")
        transfer = self.transfers.get(key)
        begun = transfer is not None and (transfer.body is not None or self._foreign(artifact))
        if begun or self._failures.passed(artifact):
            # It may not be stored; or it is being passed through since the disk failed, and its beginning is gone.
            return await self._pass(artifact)
        waiting = (transfer or self._begin(artifact)).head()
        if transfer is None:
            self._run(self.transfers[key])
        try:
            outcome = await waiting
        except UpstreamError as error:
            if transfer is not None and transfer.artifact.urls != artifact.urls:
                if not transfer.left:
                    await transfer.gone()
                return await self.lookup(artifact)  # another place was asked, and this one may have it
            self._failures.note(artifact, error, self._options.negative_ttl)
            raise
        return await self._told(artifact, outcome, "uri-miss")

    async def _told(self, artifact: Artifact, outcome: Outcome, fwd: str) -> Found:
        self._failures.answered(artifact)
        if outcome.state is State.REFUSED:
            if outcome.uncacheable:
                self._failures.passes(artifact)
            if outcome.body is None:
                return await self._pass(artifact)
            return Found(outcome.body, How.BYPASS, fwd=fwd, fwd_status=outcome.status, delimited=outcome.delimited)
        assert outcome.body is not None
        head = outcome.body.head
        ttl = lifetime(head, artifact) if keepable(head, artifact) else None  # else it has just been removed
        if outcome.state is State.FRESHENED:
            return Found(outcome.body, How.REVALIDATED, fwd=fwd, fwd_status=outcome.status, ttl=ttl)
        how = How.MISS if outcome.first else How.JOINED
        return Found(
            outcome.body, how, fwd=fwd, fwd_status=outcome.status, collapsed=not outcome.first, stored=True, ttl=ttl,
            ahead=partial(self._parts.ahead, artifact, outcome.body),
        )  # fmt: skip

    async def _pass(self, artifact: Artifact) -> Found:
        """An upstream request for one client alone, for what may not be stored."""
        transfer = self._begin(artifact, private=True)
        waiting = transfer.head()
        self._run(transfer)
        outcome = await waiting
        assert outcome.body is not None
        return Found(outcome.body, How.BYPASS, fwd="bypass", fwd_status=outcome.status, delimited=outcome.delimited)

    # -- without a fill ---------------------------------------------------------------------------------------------

    async def head(self, artifact: Artifact, no_cache: bool = False, stored_only: float | None = None) -> Found:
        """For a HEAD request: what is stored or being fetched, else the upstream's own answer to HEAD."""
        key = artifact.key
        may_ask = stored_only is None and not self._options.offline
        if may_ask and self._running(artifact) is None and key not in self.transfers:
            self._failures.recall(artifact, head=True)
            if not await self._have(artifact) and key not in self.transfers:
                try:
                    answer = await self._sources.ask(artifact, method="HEAD")
                except Missing as error:
                    self._failures.note_head(artifact, error, self._options.negative_ttl)
                    raise
                except UpstreamError as error:
                    if not isinstance(error, Unsatisfied) and error.status != 502:
                        raise
                    return await self.lookup(artifact, no_cache)  # some servers answer GET only
                answer.discard()
                body = self._store.pass_through(key, answer.head, answer.length).body
                return Found(body, How.MISS, fwd="method", fwd_status=answer.status)
        return await self.lookup(artifact, no_cache, stored_only)

    async def _have(self, artifact: Artifact) -> bool:
        if await self._store.find(artifact.key) is not None:
            return True
        return artifact.digest is not None and await self._store.adopt_twin(artifact.key, artifact.digest) is not None
