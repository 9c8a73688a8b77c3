"""Feed: moves one upstream body into a writer, to its end, going on where a broken transfer stopped.

It goes on with a range request for the rest, at the same URL first and then at the next, and only where the new answer
is shown to be of the same representation: by a strong validator, or by a digest that is checked at the end.
"""

from __future__ import annotations

import re
from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from vault.answer import Answer
from vault.artifact import Artifact, Head, Headers
from vault.errors import BrokenAnswer, Missing, Timeout, Truncated, UpstreamError
from vault.freshness import resume_validator, same_representation, same_tag, strong_date, strong_tag
from vault.rate import Rate
from vault.sources import Sources
from vault.store.writer import FillWriter
from vault.urls import origin_of, plain

PAUSES = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
LONGEST_REST = 30.0
"""Seconds for which a URL that asks for rest (``Retry-After``) is waited for in the middle of a body."""

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,19})")


class Changed(Truncated):
    """The upstream's copy is no longer the one that the transfer began with."""


def content_range(head: Head) -> tuple[int, int, int | None] | None:
    """First byte, stop and total length of a 206 (RFC 9110 section 14.4); None where it does not say."""
    match = _CONTENT_RANGE.fullmatch((head.get("Content-Range") or "").strip())
    if match is None:
        return None
    first, last, total = match.groups()
    return int(first), int(last) + 1, None if total == "*" else int(total)


def total_of(head: Head) -> int | None:
    """The length of the whole body by a 416's Content-Range (RFC 9110 section 15.5.17)."""
    match = _UNSATISFIED.fullmatch((head.get("Content-Range") or "").strip())
    return None if match is None else int(match[1])


def same_elsewhere(known: Head, answer: Head) -> bool:
    """True if another mirror's answer is shown to be of the same file: by a strong date, or else by a strong tag."""
    tag, date = strong_tag(known), strong_date(known)
    if date is not None:
        return date == strong_date(answer)
    return tag is not None and tag == strong_tag(answer)


def contradicts(known: Head, answer: Head, elsewhere: bool) -> bool:
    """True if an answer's validators show that it is of another representation than ``known``.

    Mirrors of one file give it tags of their own but the same date: ``elsewhere``, equal strong dates outweigh unequal
    tags; without either, nothing shows that it is the same.  The caller compares the lengths.
    """
    if elsewhere:
        return not same_elsewhere(known, answer)
    if known.etag is not None and answer.etag is not None:
        return not same_tag(known.etag, answer.etag)
    dates = known.last_modified, answer.last_modified
    return None not in dates and dates[0] != dates[1]


@implementer(IPushProducer)
class Feed:
    """One body on its way: ``answer`` goes into ``writer`` until byte ``end`` (None: until the upstream says so)."""

    log = Logger()

    def __init__(
        self, artifact: Artifact, sources: Sources, writer: FillWriter, answer: Answer, end: int | None,
        clock: IReactorTime, bandwidth: Rate | None = None,
    ) -> None:  # fmt: skip
        self.artifact = artifact
        self.writer = writer
        self.started_at = clock.seconds()
        self.start = writer.received
        self.left = False  # ended because nobody read it
        self._head = replace(writer.body.head)
        self._sources = sources
        self._answer = answer
        self._end = end
        self._stops = end is not None and end != writer.body.length  # before the body's own end: no more is wanted
        self._clock = clock
        self._bandwidth = bandwidth
        self._skip = 0
        self._delimited = answer.delimited
        self._partly = _leaves_total_open(answer)
        self._held: set[str] = set()
        self._stopped: Truncated | None = None
        self._sleeping: Deferred[None] | None = None
        self._asking: Deferred[Answer | None] | None = None
        self._origin = answer.asked
        self._came_from = answer.url
        self._direct = answer.url != answer.asked  # behind a redirect: the host that it led to is asked first
        # Where each may have something else under that name, only the one that began can go on.
        self._urls = (self._origin,) if artifact.in_order else artifact.urls
        self._url = self._urls.index(answer.asked) if answer.asked in self._urls else 0
        self._failed: set[str] = set()  # since something came
        self._rests: dict[str, float] = {}  # until when each wants to be left alone

    @property
    def rate(self) -> float:
        """Bytes a second since the feed began; what comes at first, out of buffers on the way, tells little."""
        return (self.writer.received - self.start) / max(1.0, self._clock.seconds() - self.started_at)

    @property
    def url(self) -> str:
        """Where the body comes from now, without a query."""
        return plain(self._answer.url)

    @property
    def resumable(self) -> bool:
        """True if a later request could go on with what has come."""
        return resume_validator(self._head) is not None or self.artifact.digest is not None

    async def run(self) -> None:
        """Move the body; raises Truncated (also Changed) where its end cannot be had."""
        failures = 0
        while True:
            if self._stopped is not None:
                raise self._stopped
            before = self.writer.received
            error = await self._move()
            if self._stopped is not None:
                raise self._stopped
            if error is None and self._whole():
                return
            if error is None:
                error = BrokenAnswer(f"{self._answer.host} ended the body early")
            if self.writer.received > before:
                failures = 0
                self._failed.clear()
            if failures or (isinstance(error, Timeout) and self.writer.hashes.expected is not None):
                self._url += 1  # nothing new came, or it stands still: another one can go on as well
            answer: Answer | None = None
            while answer is None:
                if not self.resumable or failures >= self._sources.options.retries:
                    raise Truncated(f"{error}; given up after {self.writer.received} bytes") from error
                self.log.info(
                    "{key} broke off after {size} bytes ({error}); going on",
                    key=plain(self.artifact.key),
                    size=self.writer.received,
                    error=str(error),
                )
                direct, self._direct = self._direct, False
                url, rest = (self._came_from, 0.0) if direct else self._next(error)
                await self._pause(max(rest, PAUSES[min(failures, len(PAUSES) - 1)]))
                failures += 1
                hurried = failures <= len(self.artifact.urls)
                self._asking = ensureDeferred(self._ask_rest(url, direct, hurried))
                try:
                    answer = await self._asking
                    if answer is None:
                        return
                except CancelledError:
                    assert self._stopped is not None
                    raise self._stopped from None
                except Truncated:
                    raise
                except UpstreamError as failed:
                    error = failed
                    if not direct:
                        self._url += 1
                        self._failed.add(url)
                        if failed.retry_after is not None and not failed.redirected:
                            self._rests[url] = self._clock.seconds() + failed.retry_after
                if self._stopped is not None:
                    if answer is not None:
                        answer.abort()
                    raise self._stopped
            self._answer = answer

    def _next(self, error: UpstreamError) -> tuple[str, float]:
        """The URL to be asked next, and the seconds for which it is left alone before; raises Truncated for too many.

        First those that have not failed since something came, then the one whose rest ends first.
        """
        now, count = self._clock.seconds(), len(self._urls)
        turn = [self._urls[(self._url + number) % count] for number in range(count)]
        rests = {url: until - now for url in turn if (until := self._rests.get(url, now)) > now}
        awake = [url for url in turn if url not in rests]
        for url in awake:
            if url not in self._failed:
                return url, 0.0
        first = min(rests, key=rests.__getitem__, default=None)
        if first is not None and rests[first] <= LONGEST_REST:
            return first, rests[first]
        if first is not None and not awake:
            raise Truncated(f"{error}; given up after {self.writer.received} bytes", rests[first]) from error
        return awake[0], 0.0

    def stop(self, reason: str) -> None:
        """End the transfer here; ``run`` raises Truncated."""
        if self._stopped is None:
            self._stopped = Truncated(reason)
            self._answer.end(UpstreamError(reason))
            for waiting in (self._sleeping, self._asking):
                if waiting is not None:
                    waiting.cancel()

    def leave(self) -> None:
        """Nobody reads the body, and it is not stored: end the transfer unless it is at its end."""
        if self._end is None or self.writer.received < self._end:
            self.left = True
            self.stop("nobody reads it any more")

    def _whole(self) -> bool:
        if self._end is not None:
            return self.writer.received == self._end
        # Where the end of a part is not said to be that of the whole, only asking for more tells.
        return self._skip == 0 and not self._partly

    async def _pause(self, seconds: float) -> None:
        if self._stopped is not None:
            raise self._stopped
        self._sleeping = self._sources.sleep(seconds)
        try:
            await self._sleeping
        except CancelledError:
            assert self._stopped is not None
            raise self._stopped from None
        finally:
            self._sleeping = None

    async def _move(self) -> UpstreamError | None:
        ended: Deferred[UpstreamError | None] = Deferred()
        self._held.clear()
        self.writer.registerProducer(self, True)
        self._answer.deliver(self._take, ended.callback)
        if "writer" in self._held:
            self._answer.pauseProducing()
        error = await ended
        self.writer.unregisterProducer()
        return error

    def _take(self, data: bytes) -> None:
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
        surplus = 0 if self._end is None else self.writer.received + len(data) - self._end
        if surplus > 0 and not self._stops:
            self._answer.end(BrokenAnswer(f"{self._answer.host} sent more than it announced"))
            return
        if surplus > 0:
            data = data[:-surplus]
        limit = self.artifact.limit
        if limit is not None and self.writer.received + len(data) > limit:
            self._stopped = Changed(f"{self._answer.host} sent more than the {limit} bytes that may come")
            self._answer.end(BrokenAnswer(str(self._stopped)))
            return
        if data:
            self.writer.write(data)
        if self._stops and (surplus > 0 or (surplus == 0 and self._answer.status != 206)):
            self._answer.end(None)
            return
        if self._bandwidth is not None:
            wait = self._bandwidth.spend(len(data))
            if wait > 0:
                self._hold("rate")
                self._clock.callLater(wait, self._let_go, "rate")

    # Two may hold the upstream back, the writer and the bandwidth: it goes on when neither does.

    def _hold(self, who: str) -> None:
        if not self._held:
            self._answer.pauseProducing()
        self._held.add(who)

    def _let_go(self, who: str) -> None:
        if who in self._held:
            self._held.discard(who)
            if not self._held:
                self._answer.resumeProducing()

    def pauseProducing(self) -> None:
        """The writer has enough for now."""
        self._hold("writer")

    def resumeProducing(self) -> None:
        """The writer takes more."""
        self._let_go("writer")

    def stopProducing(self) -> None:
        """The writer wants no more."""
        self.stop("the body is not wanted any more")

    async def _ask_rest(self, url: str, direct: bool, hurried: bool) -> Answer | None:
        """An answer that goes on where the writer is, None where nothing is left to come; raises Truncated.

        ``direct`` is a URL that a redirect led to.  Where ``hurried``, there is another to be asked after a silent one.
        """
        offset = self.writer.received
        proved = self.artifact.digest is not None  # the digest tells at the end, whoever sends the rest
        hurried = hurried and len({origin_of(one) for one in self._urls}) > 1
        last = "" if self._end is None or self._end == self.writer.body.length else str(self._end - 1)
        headers: Headers = (("Range", f"bytes={offset}-{last}"),)
        elsewhere = url not in (self._origin, self._came_from)
        validator = resume_validator(self._head)
        if elsewhere:
            dated = strong_date(self._head) is not None
            validator = self._head.last_modified if dated else strong_tag(self._head)
            if not proved and (validator is None or self.writer.body.length is None):
                raise BrokenAnswer(f"nothing could show that {plain(url)} is the same file")
        if validator is not None and not (proved and elsewhere):
            headers += (("If-Range", validator),)
        try:
            accept = (200, 203, 206, 416)
            answer = await self._sources.ask_at(url, self.artifact, headers, accept=accept, hurried=hurried)
        except Missing as error:
            if len(self._urls) == 1 and not direct:
                raise Changed(f"{plain(url)} is no longer there") from error
            raise
        self._skip = 0
        # A redirect may lead to another mirror than before.
        elsewhere = elsewhere or origin_of(answer.url) != origin_of(self._came_from)
        if answer.status == 206 and (self._proves(answer) or not contradicts(self._head, answer.head, elsewhere)):
            found = content_range(answer.head)
            length = self.writer.body.length
            same_length = found is not None and (found[2] == length or (not elsewhere and None in (length, found[2])))
            if found is not None and found[0] == offset and same_length:
                self._end = found[2] if self._end is None else self._end
                self._moved_to(answer, elsewhere)
                return answer
        elif (
            answer.status in (200, 203)
            and self._same(answer, elsewhere)
            and (answer.length == self.writer.body.length or (not elsewhere and None in (answer.length, self._end)))
        ):
            # It does not know ranges: what is there already is read once more and dropped.
            self._skip = offset
            self._moved_to(answer, elsewhere)
            return answer
        answer.abort()
        if answer.status == 416 and self.writer.body.length is None and total_of(answer.head) == offset:
            return None  # only the sign of the end was missing
        if answer.status == 416:
            raise Changed(f"{answer.host} announced more bytes than it has")
        if elsewhere or direct:
            raise BrokenAnswer(f"{answer.host} has another version")
        raise Changed(f"the copy at {answer.host} changed during the transfer")

    def _moved_to(self, answer: Answer, elsewhere: bool) -> None:
        """The rest comes from ``answer``: if that breaks off too, its host is asked first."""
        self._partly = _leaves_total_open(answer)
        self._direct = answer.url != answer.asked
        if not elsewhere:
            self._came_from = answer.url

    def _same(self, answer: Answer, elsewhere: bool) -> bool:
        if self._proves(answer):
            return True
        if self._end is None and self._delimited and not answer.delimited:
            return False  # nothing would tell its end from a break
        if elsewhere:
            return same_elsewhere(self._head, answer.head)
        return same_representation(self._head, answer.head)

    def _proves(self, answer: Answer) -> bool:
        """True where the digest will tell whether the rest belongs to what has come.

        It was known in advance, or this answer has it too: one that only the first answer named says nothing about
        an answer that names another.
        """
        expected = self.writer.hashes.expected
        return expected is not None and self.artifact.digest_of(answer.head) == expected


def _leaves_total_open(answer: Answer) -> bool:
    """True for a part of a body whose length it does not know (RFC 9110 section 14.4)."""
    found = content_range(answer.head) if answer.status == 206 else None
    return found is not None and found[2] is None
