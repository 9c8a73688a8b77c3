"""Where an artifact's bytes can be had: its URLs, asked in order, again where that may help.

What an upstream's status means for the client (SPEC: errors) is decided here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from vault.answer import Answer
from vault.artifact import ASKED, NOTED_URL, Artifact, Head, Headers
from vault.clock import steady
from vault.errors import (
    BrokenAnswer,
    ConnectionRefused,
    CutAnswer,
    Missing,
    NameNotFound,
    OtherVersion,
    Overloaded,
    Refused,
    Slashed,
    Timeout,
    Unavailable,
    Unsatisfied,
    UpstreamError,
)
from vault.freshness import retry_after
from vault.interfaces import IBackend
from vault.memory import Memory
from vault.redirects import REDIRECTS, with_slash
from vault.upstream import Manner, Upstream
from vault.urls import mark_of, plain

PAUSES = (0.1, 0.3, 1.0, 2.0)
"""Seconds before each further round through the URLs while no client has got a byte: short, since they all wait."""

BEGINS = 5.0
"""Seconds for which a host is waited for that does not begin to answer, while another one may have the same.

apt and others leave after 30 s of silence, and the other one may be silent too.
"""

STALLS = 10.0
"""The same for the next byte of a body that another host can go on with, since its digest is known."""

SILENT = 60.0
"""Seconds for which a host that did not begin to answer is asked after the others."""

MAX_NAMED = 1024 * 1024
"""The most bytes of an answer that is read whole, such as a token server's."""


class Sources:
    """The upstream side of one backend: ``ask`` gives an answer that can be used, or raises what the client is told."""

    log = Logger()

    def __init__(self, backend: IBackend, upstream: Upstream, clock: IReactorTime, now: Callable[[], float]) -> None:
        self.backend = backend
        self.upstream = upstream
        self.options = upstream.options
        self._clock = clock
        self._now = now
        self._silent = Memory(steady(clock))

    def sleep(self, seconds: float) -> Deferred[None]:
        """Fires after a while; can be cancelled."""
        return cast("Deferred[None]", deferLater(cast(Any, self._clock), seconds, lambda: None))

    async def ask(
        self, artifact: Artifact, headers: Headers = (), method: str = "GET", accept: tuple[int, ...] = (200, 203),
        patient: bool = True, spare: bool = False, known: Head | None = None,
    ) -> Answer:  # fmt: skip
        """The first answer with one of the statuses ``accept``, from the first URL that gives one.

        ``headers`` are conditions on what is ``known``, where that is given: of URLs that may have different things
        (``in_order``) only the one it came from is sent them; with a ``gone_ttl`` none is asked after that one.

        A connection that fails is tried again after short pauses if ``patient``; with ``spare`` only a connection that
        is free right now is used.  A host that says nothing is given its full time once no other has what is wanted.
        Raises Missing where every URL says
        404 or 410, else the error of the URL that failed worst: a thing is not missing while somebody could not say;
        and Slashed where one says that the address ends with a slash, for an artifact that wants it told.
        """
        rounds = 1 + (min(self.options.retries, len(PAUSES)) if patient else 0)
        for attempt in range(rounds):
            if attempt:
                await self.sleep(PAUSES[attempt - 1])
            missing: Missing | None = None
            failure: UpstreamError | None = None
            again = False
            for url, hurried in self._in_turn(artifact):
                try:
                    if known is None or not artifact.in_order or known.get(ASKED) == mark_of(url):
                        told = artifact.slash_told
                        return await self.ask_at(url, artifact, headers, method, accept, spare, hurried, told)
                    return await self.ask_at(url, artifact, (), method, spare=spare)
                except Missing as error:
                    missing = missing or error
                    if known is not None and artifact.gone_ttl is not None and known.get(ASKED) == mark_of(url):
                        break  # it may be back: the next one does not take its place until it counts as gone
                except UpstreamError as error:
                    self.log.info("{url}: {error}", url=plain(url), error=str(error))
                    failure = failure or error
                    # What is refused or cut off at once may be a restart; what timed out has had its time.
                    again = again or (may_pass(error) and not isinstance(error, Timeout) and error.retry_after is None)
                    if artifact.in_order:
                        break  # the next one may have another thing under that name
            if failure is None and missing is not None:
                raise missing
            if not again:
                break
        assert failure is not None
        raise failure

    def _in_turn(self, artifact: Artifact) -> Iterator[tuple[str, bool]]:
        """The URLs in the order in which they are asked, with True for those that are not waited for as long as else.

        Where all may have the same, hosts that have said nothing lately, or just now, come last, with their full time.
        """
        hosts = [urlsplit(url).netloc for url in artifact.urls]
        silent: list[str] = []
        for number, (url, host) in enumerate(zip(artifact.urls, hosts, strict=True)):
            last = artifact.in_order or all(one == host or self._silent.get(one) for one in hosts[number + 1 :])
            if last or self._silent.get(host) is None:
                yield url, not last
            if not last and self._silent.get(host) is not None:
                silent.append(url)
        yield from ((url, False) for url in silent)

    async def ask_at(
        self, url: str, artifact: Artifact, headers: Headers = (), method: str = "GET",
        accept: tuple[int, ...] = (200, 203), spare: bool = False, hurried: bool = False, slash_told: bool = False,
    ) -> Answer:  # fmt: skip
        """The answer of one URL; raises UpstreamError for a status that is not in ``accept``.

        With ``slash_told`` it raises Slashed for a redirect that only adds a slash to the path.

        Where ``hurried``, another host may have the same: this one is not waited for as long as the options say.
        Only a host of the configuration is given credentials when it asks for some: one that it redirects to could name
        whatever token server it likes.
        """
        fields = artifact.headers + headers
        counted_as = artifact.counted_as if method == "GET" else ""
        manner = Manner(counted_as=counted_as, short=artifact.short, slash_told=slash_told)
        credentials = self.backend.credentials(artifact, url)
        try:
            first = replace(manner, limit=BEGINS if hurried else None, spare=spare)
            answer = await self.upstream.ask(method, url, fields + credentials, first)
        except Timeout:
            self._silent.note(urlsplit(url).netloc, SILENT)
            raise
        self._silent.forget(urlsplit(url).netloc)
        if answer.status == 401 and self.upstream.configured(answer.url):
            challenge = answer.head.get("WWW-Authenticate") or ""
            answer.discard()
            credentials = await self.backend.authorize(artifact, challenge, partial(self._ask_named, answer.url))
            if not credentials:
                raise self._error(answer)
            answer = await self.upstream.ask(method, url, fields + credentials, manner)
        if answer.status == 401 and not self.upstream.configured(answer.url):
            answer.discard()
            raise self._error(answer)
        self.backend.heard(artifact, answer.head)
        if answer.status in accept:
            if artifact.note_url and answer.status in (200, 203):
                answer.head = answer.head.with_headers({NOTED_URL: answer.url})
            if artifact.in_order and answer.status in (200, 203):
                answer.head = answer.head.with_headers({ASKED: mark_of(url)})
            size = answer.length if answer.status in (200, 203) and method == "GET" else None
            if None not in (size, artifact.size) and size != artifact.size:
                answer.abort()
                raise OtherVersion(f"{answer.host} has another version: {size} bytes, not {artifact.size}")
            digest = artifact.digest_of(answer.head) if size == 0 else None
            if digest is not None and digest.new().hexdigest() != digest.value:
                # There is no last byte to hold back: once its head is passed on it would look whole.
                answer.abort()
                raise OtherVersion(f"{answer.host} sent nothing, which does not have the digest {digest}")
            if hurried and artifact.digest is not None:
                answer.hurry(STALLS)
            return answer
        answer.discard()
        location = answer.head.get("Location")
        if slash_told and answer.status in REDIRECTS and location is not None:
            raise Slashed(*with_slash(url, answer.url, location), answer.status)
        given = bool(credentials) or self.upstream.confides
        raise self._error(answer, given and self.upstream.configured(answer.url))

    async def _ask_named(self, named_by: str, url: str, headers: Headers) -> tuple[Head, bytes]:
        """Ask a URL that an answer from ``named_by`` named; ``headers`` may hold credentials for its host."""
        self.upstream.check_named(named_by, url)
        answer = await self.upstream.ask("GET", url, headers, Manner(confide=True, short=True))
        return answer.head, await whole_body(answer, MAX_NAMED)

    def _error(self, answer: Answer, with_credentials: bool = False) -> UpstreamError:
        error = self._meant(answer, with_credentials)
        error.upstream_status = answer.status
        return error

    def _meant(self, answer: Answer, with_credentials: bool) -> UpstreamError:
        status, host = answer.status, answer.host
        said = f"{host} answered {status}"
        if status in (404, 410):
            return Missing(f"{host} has no such thing ({status})", status)
        if status in (401, 403):
            return Refused(f"{said}: it refuses this vault; check the backend's credentials", with_credentials)
        if status == 429 or (status >= 500 and status not in (501, 505, 508)):  # those will not pass
            overloaded = Overloaded(said, retry_after(answer.head, self._now()))
            overloaded.redirected = answer.url != answer.asked
            return overloaded
        if status == 416:
            return Unsatisfied(said, answer.head.get("Content-Range"))
        if status == 508:
            return BrokenAnswer(f"{said}: it leads back to where the request came from").named("proxy_loop_detected")
        return BrokenAnswer(f"{said}, which the vault did not expect")


async def whole_body(answer: Answer, limit: int) -> bytes:
    """A short body in memory; raises BrokenAnswer for one of more than ``limit`` bytes."""
    pieces: list[bytes] = []
    size = 0
    ended: Deferred[UpstreamError | None] = Deferred()

    def take(data: bytes) -> None:
        nonlocal size
        pieces.append(data)
        size += len(data)
        if size > limit:
            answer.end(BrokenAnswer(f"{answer.host} sent more than {limit} bytes where a short answer was expected"))

    answer.deliver(take, ended.callback)
    error = await ended
    if error is not None:
        raise error
    return b"".join(pieces)


def may_pass(error: UpstreamError) -> bool:
    """True for failures of a connection, before any answer, which a restart or a moment's congestion would explain."""
    return isinstance(error, (ConnectionRefused, NameNotFound, CutAnswer)) or type(error) is Unavailable
