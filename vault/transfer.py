"""Transfer: one upstream body into one entry, whoever asks for it meanwhile.

    state      what it means                                     what comes next
    ASKING     request sent; who asks waits for the head         STREAMING, FRESHENED, REFUSED, FAILED
    STREAMING  head known, body growing; readers follow it       COMPLETE, FAILED
               (a body that breaks off is gone on with by Feed)
    COMPLETE   whole and verified; being placed in the store     leaves the table
    FRESHENED  the stored entry stays, its head renewed: 304, or leaves the table
               what its artifact takes for the same
    REFUSED    may not be stored: the first who asked is passed  leaves the table at once
               the body, the others ask for themselves
    FAILED     readers past the end get Truncated; who has no    leaves the table
               head yet gets the error, or the stale entry

It belongs to the cache, not to the client whose request began it: that client may leave and the fill goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from vault.answer import Answer
from vault.artifact import GONE, Artifact, Head
from vault.confirmation import renew
from vault.errors import BrokenAnswer, DigestMismatch, Truncated, Unavailable, Unfit, VaultError
from vault.feed import Changed, Feed, content_range
from vault.first_answer import FirstAnswer
from vault.freshness import freshen, keepable
from vault.rate import Rate
from vault.sources import Sources
from vault.stages import Outcome, State
from vault.store.body import GrowingBody, StoredBody
from vault.store.partials import Partial
from vault.store.store import Store
from vault.store.writer import FillWriter
from vault.urls import plain

EXAMINED = 4 * 1024 * 1024 + 1
"""Bytes of a body that are shown to who can tell that it is not what is wanted: more would take a parser long."""

UNREAD_LIMIT = 10.0
"""Seconds after which a body that is only passed through is given up when nobody has begun to read it."""


class Transfer:
    """See the module's docstring.  ``stored`` is an expired entry to revalidate; ``ended`` is called at the end."""

    log = Logger()

    def __init__(
        self, artifact: Artifact, sources: Sources, store: Store, clock: IReactorTime, bandwidth: Rate | None,
        stored: StoredBody | None = None, private: bool = False,
    ) -> None:  # fmt: skip
        self.artifact = artifact
        self.state = State.ASKING
        self.body: GrowingBody | None = None
        self.feed: Feed | None = None
        self.left = False
        self.running: Deferred[None] | None = None
        self._sources = sources
        self._store = store
        self._clock = clock
        self._bandwidth = bandwidth
        self.stored = stored
        self._private = private
        self._confirmation: Answer | None = None
        self._waiting: list[Deferred[Outcome]] = []
        self._outcome: Outcome | Failure | None = None
        self._first = True
        self._mourners: list[Deferred[None]] = []

    def head(self) -> Deferred[Outcome]:
        """Fires when the head is known; fails with the VaultError that the client is to be told."""
        waiter: Deferred[Outcome] = Deferred(self._leave)
        if isinstance(self._outcome, Failure):
            waiter.errback(self._outcome.value)
        elif self._outcome is not None:
            waiter.callback(self._told(self._outcome, False))
        else:
            self._waiting.append(waiter)
        return waiter

    def _leave(self, waiter: Deferred[Outcome]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    @staticmethod
    def _told(outcome: Outcome, first: bool) -> Outcome:
        body = outcome.body if first or outcome.state is not State.REFUSED else None
        return Outcome(outcome.state, body, first, outcome.delimited, outcome.status, outcome.uncacheable)

    def _tell(self, outcome: Outcome | Failure) -> None:
        self._outcome = outcome
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if isinstance(outcome, Failure):
                waiter.errback(outcome.value)
            else:
                first, self._first = self._first, False
                waiter.callback(self._told(outcome, first))

    @property
    def joinable(self) -> bool:
        """True while another reader can have the whole body from here."""
        return self.state in (State.STREAMING, State.COMPLETE) and self.body is not None and self.body.joinable

    @property
    def failing(self) -> bool:
        """True once it is clear that no whole body will come; it may still hold its place and its partial file."""
        failed = self.state is State.FAILED or (self.body is not None and self.body.failure is not None)
        return failed and not self.left

    def gone(self) -> Deferred[None]:
        """Fires when the transfer has left the table."""
        waiter: Deferred[None] = Deferred()
        self._mourners.append(waiter)
        return waiter

    def ended(self) -> Deferred[None]:
        """Fires when all is over, in the table or out of it."""
        waiter: Deferred[None] = Deferred()
        if self.running is None or self.running.called:
            waiter.callback(None)
        else:
            self.running.addBoth(waiter.callback)
        return waiter

    async def run(self, leave: Callable[[Transfer], None]) -> None:
        """The whole life; never fails.  ``leave`` is called once, when the transfer is to leave the table."""
        try:
            await self._run(leave)
        except VaultError as error:
            self._fail(error)
        except CancelledError:
            self._fail(Unavailable("the vault is stopping"))
        except Exception as error:
            self.log.failure("the transfer of {key} went wrong", key=plain(self.artifact.key))
            self._fail(VaultError(f"the vault made a mistake ({type(error).__name__}); its log says which"))
        finally:
            self._left(leave)

    def _left(self, leave: Callable[[Transfer], None]) -> None:
        if not self.left:
            self.left = True
            leave(self)
            for waiter in self._mourners:
                waiter.callback(None)

    def _fail(self, error: VaultError) -> None:
        self.state = State.FAILED
        if self._outcome is None:
            self._tell(Failure(error))
        if self.body is not None:
            self.body.fail(error if isinstance(error, Truncated) else Truncated(str(error)))

    def stop(self, error: VaultError) -> None:
        """End it here; what has come stays for later.  Who waits for the head is told of ``error``."""
        if self.feed is not None:
            self.feed.stop(str(error))
        elif self.running is not None and (self.body is None or not self.body.complete):
            self._fail(error)
            self.running.cancel()

    async def _run(self, leave: Callable[[Transfer], None]) -> None:
        first = FirstAnswer(self.artifact, self._sources, self._store, self.stored, self._private)
        answer, partial = await first.ask()
        self.stored, self._confirmation = first.stored, first.confirmation
        if answer is None:
            assert partial is not None
            if await self._finish_partial(partial):
                return
            answer, partial = await self._sources.ask(self.artifact, patient=self.stored is None), None
        try:
            await self._take(answer, partial, leave)
        except BaseException:
            answer.abort()  # its connection is given back, whatever it was that went wrong
            raise

    async def _take(self, answer: Answer, partial: Partial | None, leave: Callable[[Transfer], None]) -> None:
        renewed = self._renewed(answer)
        if renewed is not None:
            assert self.stored is not None
            answer.discard()
            await renew(self._store, self.artifact, self.stored, renewed)
            self.state = State.FRESHENED
            self._tell(Outcome(State.FRESHENED, self.stored, status=answer.status))
            return
        if answer.status == 206:
            assert partial is not None
            found = content_range(answer.head)
            length = partial.length if found is None or found[2] is None else found[2]
            # The upstream confirmed with If-Range that this is what it has now.
            head = partial.head.timed_as(answer.head)
            writer = await self._store.create(self.artifact.key, head, length, self.artifact.digest_of(head), partial)
            if writer.received == 0:
                answer.abort()  # what came before is gone, or cannot be had from a failing disk
                await self._store.ended(writer, keep=False)
                await self._begin(await self._sources.ask(self.artifact), leave)
                return
            await self._stream(answer, writer, length, leave)
            return
        await self._begin(answer, leave)

    def _renewed(self, answer: Answer) -> Head | None:
        """The stored entry's head from now on, where the answer means that it stays; None where a new body comes."""
        stored = self.stored
        if stored is None or answer.status == 206:
            return None
        if answer.status == 304 or answer is self._confirmation:
            return freshen(stored.head, answer.head)
        supersedes = self.artifact.supersedes
        if supersedes is None or supersedes(stored.head, answer.head):
            return None
        self.log.warn("{key}: the upstream has an older copy than the stored one", key=plain(self.artifact.key))
        return stored.head.with_headers({GONE: None}).timed_as(answer.head)

    async def _begin(self, answer: Answer, leave: Callable[[Transfer], None]) -> None:
        """A whole body comes: into the store, or past it."""
        try:
            self._check_head(answer)
            if not self._private and await self._kept(answer, leave):
                return
            # It goes at the pace of the client, of which slow ones must not take every connection.
            upstream = self._sources.upstream
            waits = not upstream.paced.tokens
            if waits:
                answer.abort()
            await upstream.enter_paced()
            try:
                if waits:
                    answer = await self._sources.ask(self.artifact)
                    self._check_head(answer)
                digest = self.artifact.digest_of(answer.head)
                writer = self._store.pass_through(self.artifact.key, answer.head, answer.length, digest)
                await self._stream(answer, writer, answer.length, leave)
            finally:
                upstream.paced.release()
        except BaseException:
            answer.abort()  # its connection is given back, whatever it was that went wrong
            raise

    async def _kept(self, answer: Answer, leave: Callable[[Transfer], None]) -> bool:
        """Stream into the store; False where that may not be, or the disk does not take it."""
        if not self._keepable(answer):
            return False
        head = await self.artifact.succeeding(self.stored, answer.head)
        digest = self.artifact.digest_of(answer.head)
        writer = await self._store.create(self.artifact.key, head, answer.length, digest, asked=answer.asked)
        if not writer.storing:
            return False
        await self._stream(answer, writer, answer.length, leave)
        return True

    def _check_head(self, answer: Answer) -> None:
        limit = self.artifact.limit
        if limit is not None and answer.length is not None and answer.length > limit:
            raise BrokenAnswer(f"{answer.host} sent {answer.length} bytes where at most {limit} may come")
        fault = None if self.artifact.fault is None else self.artifact.fault(answer.head, None)
        if fault is not None:
            raise Unfit(f"{answer.host} sent {fault}")

    async def _check_body(self, writer: FillWriter, host: str) -> None:
        """Raise Unfit where a body that has come whole cannot be what is wanted."""
        if self.artifact.fault is not None:
            fault = await writer.seen(partial(self.artifact.fault, writer.body.head), EXAMINED)
            if fault is not None:
                error = Unfit(f"{host} sent {fault}")
                writer.fail(error)
                raise error

    def _keepable(self, answer: Answer) -> bool:
        if answer.status == 206:
            return True  # the rest of what was kept already
        return keepable(answer.head, self.artifact) and (answer.delimited or self.artifact.digest is not None)

    async def _stream(
        self, answer: Answer, writer: FillWriter, length: int | None, leave: Callable[[Transfer], None]
    ) -> None:
        self.body = writer.body
        feed = self.feed = Feed(self.artifact, self._sources, writer, answer, length, self._clock, self._bandwidth)
        if writer.storing:
            self.state = State.STREAMING
        else:
            self.state = State.REFUSED
            self._left(leave)
        writer.body.deserted = lambda: None if writer.storing else feed.leave()
        keep = False
        try:
            uncacheable = not self._keepable(answer)
            self._tell(Outcome(self.state, writer.body, False, answer.delimited, answer.status, uncacheable))
            if not writer.storing:
                self._clock.callLater(UNREAD_LIMIT, self._unread, writer)
            await feed.run()
            await self._check_body(writer, answer.host)
            self.log.debug("{key} has come ({size} bytes)", key=plain(self.artifact.key), size=writer.received)
            self.state = State.COMPLETE if writer.storing else self.state
            await writer.finish()
            if writer.storing:
                self.log.info("stored {key} ({size} bytes)", key=plain(self.artifact.key), size=writer.received)
        except (DigestMismatch, Unfit) as error:
            key = plain(self.artifact.key)
            self.log.error("{key} from {url}: {error}; dropped", key=key, url=feed.url, error=str(error))
            writer.fail(error)
            raise
        except Truncated as error:
            keep = feed.resumable and not isinstance(error, Changed)
            level = LogLevel.info if feed.left else LogLevel.warn
            self.log.emit(level, "{key}: {error}", key=plain(self.artifact.key), error=str(error))
            writer.fail(error)
            raise
        finally:
            answer.abort()
            await self._store.ended(writer, keep)

    def _unread(self, writer: FillWriter) -> None:
        if not writer.body.readers and not writer.body.complete and self.feed is not None:
            self.feed.stop("nobody has begun to read it")

    async def _finish_partial(self, partial: Partial) -> bool:
        """All bytes were there when the vault was stopped: verify and store them; False where they cannot be had."""
        digest = self.artifact.digest_of(partial.head)
        writer = await self._store.create(self.artifact.key, partial.head, partial.size, digest, partial)
        if not writer.storing or writer.written != partial.size:
            # The disk does not take it, or the file has been removed since it was looked at.
            await self._store.ended(writer, keep=False)
            return False
        self.body = writer.body
        self.state = State.STREAMING
        try:
            self._tell(Outcome(State.STREAMING, writer.body))
            await self._check_body(writer, "an upstream")
            await writer.finish()
            self.state = State.COMPLETE
        finally:
            await self._store.ended(writer, keep=not isinstance(writer.body.failure, (DigestMismatch, Unfit)))
        return True
