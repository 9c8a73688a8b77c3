"""Parts: a range that a fill is still far from, straight from the upstream, while the fill goes on."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from vault.answer import Answer
from vault.artifact import Artifact, Headers
from vault.errors import Slashed, UpstreamError
from vault.feed import Feed, content_range, contradicts
from vault.freshness import resume_validator
from vault.rate import Rate
from vault.sources import Sources
from vault.store.body import GrowingBody, StoredBody
from vault.store.store import Store
from vault.transfer import Transfer
from vault.urls import plain

NEAR_SECONDS = 2.0
NEAR_BYTES = 1024 * 1024


class Parts:
    """What is given of a body before its fill comes to it; ``transfers`` are the fills by key."""

    log = Logger()

    def __init__(
        self, sources: Sources, store: Store, clock: IReactorTime, bandwidth: Rate | None,
        transfers: Mapping[str, Transfer],
    ) -> None:  # fmt: skip
        self._sources = sources
        self._store = store
        self._clock = clock
        self._bandwidth = bandwidth
        self._transfers = transfers

    async def ahead(
        self, artifact: Artifact, body: GrowingBody | StoredBody, start: int, stop: int
    ) -> GrowingBody | None:
        """See ``Found.ahead``."""
        return None if self._near(artifact, body, start) else await self._fetch_range(artifact, body, start, stop)

    def _near(self, artifact: Artifact, body: GrowingBody | StoredBody, offset: int) -> bool:
        """True if a growing body will soon have the byte at ``offset``."""
        if body.complete:
            return True
        transfer = self._transfers.get(artifact.key)
        rate = transfer.feed.rate if transfer is not None and transfer.feed is not None else 0.0
        return offset - body.size <= max(NEAR_BYTES, rate * NEAR_SECONDS)

    async def _fetch_range(
        self, artifact: Artifact, known: GrowingBody | StoredBody, start: int, stop: int
    ) -> GrowingBody | None:
        """The bytes from ``start`` to ``stop`` of a body that is still far from them, straight from the upstream.

        None where the upstream does not give them at once, or not certainly of the same representation: what has a
        digest is always the same, and needs no validator.
        """
        validator = resume_validator(known.head)
        paced = self._sources.upstream.paced
        if (validator is None and artifact.digest is None) or known.length is None or not paced.tokens:
            return None
        await paced.acquire()
        try:
            answer = await self._range_answer(artifact, known, validator, start, stop)
        except BaseException:
            paced.release()
            raise
        if answer is None:
            paced.release()
            return None
        writer = self._store.pass_through(artifact.key, known.head, known.length, floor=start)
        feed = Feed(artifact, self._sources, writer, answer, stop, self._clock, self._bandwidth)
        writer.body.deserted = feed.leave
        running: Deferred[None] = ensureDeferred(feed.run())
        running.addCallbacks(lambda done: None, lambda failure: writer.fail(failure.value))

        def over(ended: object) -> None:
            writer.body.release()
            paced.release()

        running.addBoth(over)
        return writer.body

    async def _range_answer(
        self, artifact: Artifact, known: GrowingBody | StoredBody, validator: str | None, start: int, stop: int
    ) -> Answer | None:
        headers: Headers = (("Range", f"bytes={start}-{stop - 1}"),)
        if validator is not None:
            headers += (("If-Range", validator),)
        try:
            answer = await self._sources.ask(artifact, headers, accept=(206,), patient=False, spare=True)
        except (UpstreamError, Slashed) as error:
            self.log.info("{key}: no range from upstream: {error}", key=plain(artifact.key), error=str(error))
            return None
        elsewhere = answer.asked != artifact.urls[0]
        if content_range(answer.head) != (start, stop, known.length) or contradicts(known.head, answer.head, elsewhere):
            answer.abort()
            return None
        return answer
