"""Upstream: asks one backend's hosts, and gives the answer's head with a body that can be streamed or aborted.

Requests go through treq over the agent below it, which sends just what is asked for and keeps the answer as it came:
treq would otherwise ask for gzip and decode it.  Redirects are followed here, credentials stay with the hosts of the
configuration, connections are counted per host, and every library's exception becomes one of ``vault.errors``.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.logger import Logger
from twisted.web.client import Agent, HTTPConnectionPool, ProxyAgent
from twisted.web.http_headers import Headers as RawHeaders
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from vault import __version__
from vault.answer import Answer, transport_of
from vault.artifact import Head, Headers
from vault.clock import steady
from vault.connect import Endpoints
from vault.errors import BrokenAnswer, Crowded, ForbiddenTarget, LeftAlone, Timeout, Unavailable, UpstreamError
from vault.explanation import explained, unknown_to
from vault.freshness import end_to_end
from vault.hosts import Hosts
from vault.options import UpstreamOptions
from vault.redirects import REDIRECTS, adds_slash, target_of
from vault.urls import origin_of

MAX_REDIRECTS = 5
CREDENTIALS = frozenset({"authorization", "cookie"})
KEEP_ALIVE = 4  # seconds; below the 5 s after which common servers close an idle connection

LONGEST_QUEUE = 300.0
"""Seconds to wait for a free connection: whole downloads may have to end before."""

MAX_LENGTH = 2**63 - 1
"""The bytes that a file can have."""

STAND_IN = "http://upstream.invalid/"


@dataclass(frozen=True, slots=True)
class Manner:
    """How a request is made.

    ``limit``: for how long (seconds) each host is waited for, where the options allow longer.
    ``counted_as``: see ``Artifact.counted_as``; a host that has refused that is asked for anything else.
    ``spare``: it fails where all connections to the host are in use, instead of waiting for one.
    ``short``: the answer is soon over, as every one to HEAD: it is asked for before others.
    ``confide``: credentials in its headers go to the host of the URL even if it is none of the configured ones.
    ``slash_told``: a redirect that only adds a slash to the path is not followed: it is the answer.
    """

    limit: float | None = None
    counted_as: str = ""
    spare: bool = False
    short: bool = False
    confide: bool = False
    slash_told: bool = False


PLAIN = Manner()


@implementer(IAgent)
class VerbatimAgent:
    """The innermost agent of one request: sends exactly ``url`` and ``headers``, keeps the raw response.

    It stands below treq, which adds ``Accept-Encoding: gzip`` and would decode what carries a Content-Encoding: here
    that field is taken out of treq's sight.
    """

    def __init__(self, agent: IAgent, url: str, headers: Headers) -> None:
        self._agent = agent
        self._url = url.encode("ascii")
        self._headers = headers
        self.response: Any = None
        self.fields: list[tuple[bytes, Sequence[bytes]]] = []

    def request(
        self, method: bytes, uri: bytes, headers: RawHeaders | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """Issue the request."""
        verbatim = RawHeaders()
        for name, value in self._headers:
            verbatim.addRawHeader(name.encode("ascii"), value.encode("latin-1"))

        def keep(response: Any) -> IResponse:
            self.response = response
            self.fields = list(response.headers.getAllRawHeaders())
            response.headers.removeHeader(b"Content-Encoding")
            kept: IResponse = response
            return kept

        return self._agent.request(method, self._url, verbatim, bodyProducer).addCallback(keep)


class Upstream:
    """The hosts of one backend.  ``urls`` are its base URLs, ``now`` gives POSIX seconds."""

    log = Logger()

    def __init__(
        self, reactor: Any, options: UpstreamOptions, urls: Sequence[str], now: Callable[[], float], instance: str = ""
    ) -> None:
        self.options = options
        self._reactor = reactor
        self._now = now
        self._seconds = steady(reactor)
        self._via = f"1.1 artifact-vault{'-' if instance else ''}{instance}"
        self._origins = frozenset(origin_of(url) for url in urls)
        hosts = frozenset(host for url in urls if (host := urlsplit(url).hostname) is not None)
        self._endpoints = Endpoints(reactor, hosts, options.connect_timeout, options.proxy, options.ca_file)
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = 8
        self._pool.cachedConnectionTimeout = KEEP_ALIVE
        self._agent = Agent.usingEndpointFactory(reactor, self._endpoints, self._pool)
        self._proxy_agent: Any = None
        if options.proxy:
            self._proxy_agent = ProxyAgent(self._endpoints.proxy_endpoint(), reactor, self._pool)
        self._hosts = Hosts(options.max_connections)
        # Bodies that go at a client's pace: slow clients must not take every connection from the fills.
        self.paced = DeferredSemaphore(max(1, options.max_connections // 2))

    async def close(self) -> None:
        """Close idle connections."""
        await self._pool.closeCachedConnections()

    async def ask(self, method: str, url: str, headers: Headers = (), manner: Manner = PLAIN) -> Answer:
        """Send a request and wait for the head of the answer, following redirects.

        Raises UpstreamError; a status code, whatever it is, is an answer.
        """
        trusted: bool | None = None if manner.confide and origin_of(url) not in self._origins else True
        asked = url
        for hop in range(MAX_REDIRECTS + 1):
            if trusted is not None or hop:
                trusted = bool(trusted) and origin_of(url) in self._origins
            try:
                answer = await self._ask_once(method, url, headers, trusted, manner)
            except UpstreamError as error:
                error.redirected = hop > 0
                raise
            location = answer.head.get("Location") if answer.status in REDIRECTS else None
            if location is None or (manner.slash_told and adds_slash(asked, url, location)):
                answer.asked = asked
                return answer
            answer.discard()
            url = self._redirected(url, location)
        raise BrokenAnswer(f"{urlsplit(url).netloc} redirects more than {MAX_REDIRECTS} times")

    def configured(self, url: str) -> bool:
        """True for a URL at one of the hosts of the configuration, which alone get the backend's credentials."""
        return origin_of(url) in self._origins

    @property
    def confides(self) -> bool:
        """True where the configuration has credentials that go with every request to its hosts."""
        named = {name.lower() for name, _ in self.options.headers}
        return self.options.username is not None or bool(named & CREDENTIALS)

    def check_named(self, named_by: str, url: str) -> None:
        """Raise ForbiddenTarget or BrokenAnswer for a URL, named by an answer, that must not be asked."""
        self._redirected(named_by, url)

    def _redirected(self, url: str, location: str) -> str:
        target = urlsplit(target_of(url, location))
        host = target.hostname
        if target.scheme not in ("http", "https") or not host or target.username is not None:
            raise ForbiddenTarget("the upstream redirects to something that is not a plain http or https URL")
        if urlsplit(url).scheme == "https" and target.scheme == "http":
            raise ForbiddenTarget(f"{urlsplit(url).hostname} redirects from https to http ({host})")
        name = host.rstrip(".")
        local = name == "localhost" or name.endswith(".localhost")
        if origin_of(target.geturl()) not in self._origins and (
            self._endpoints.forbidden(host) or (local and self._endpoints.forbidden("127.0.0.1"))
        ):
            raise ForbiddenTarget(f"{urlsplit(url).hostname} redirects to {host}, which the vault must not contact")
        return target._replace(fragment="").geturl()

    async def _ask_once(self, method: str, url: str, headers: Headers, trusted: bool | None, manner: Manner) -> Answer:
        timeout = min(manner.limit or math.inf, self.options.first_byte_timeout)
        counted_as = manner.counted_as
        authority = urlsplit(url).netloc
        host = self._hosts.of(authority)
        rest, from_everything = host.rest(counted_as, self._seconds())
        if rest > 0:
            wish = "asked to be left alone" if from_everything else f"wants to be asked for no {counted_as}"
            raise LeftAlone(f"{authority} {wish} for a while", rest)
        if manner.spare and host.slots.tokens <= self.options.max_connections // 2:
            raise Unavailable(f"all connections to {authority} are in use")
        short = manner.short or method == "HEAD"
        slot = host.slots.acquire(short)
        await self._within(slot, LONGEST_QUEUE, Crowded(f"all connections to {authority} are in use"))
        release = partial(host.slots.release, short)
        try:
            answer = await self._send(method, url, self._fields(url, headers, trusted), timeout, release)
        except BaseException:
            release()
            raise
        proxy = self._endpoints.proxy_name
        if proxy is not None and answer.status == 407 and url.startswith("http:"):
            answer.discard()
            raise unknown_to(proxy)
        host.heard(url, counted_as, answer.head, self._seconds(), self._now())
        return answer

    def _fields(self, url: str, headers: Headers, trusted: bool | None) -> Headers:
        """The fields to send; ``trusted`` is None for a host that gets what ``headers`` has but nothing configured."""
        fields = list(headers)
        names = {name.lower() for name, _ in fields}
        if trusted:
            fields.extend(field for field in self.options.headers if field[0].lower() not in names)
            if self.options.username is not None and "authorization" not in names:
                pair = f"{self.options.username}:{self.options.password or ''}"
                fields.append(("Authorization", "Basic " + base64.b64encode(pair.encode()).decode("ascii")))
        elif trusted is not None:
            fields = [field for field in fields if field[0].lower() not in CREDENTIALS]
        names = {name.lower() for name, _ in fields}
        if "user-agent" not in names:
            fields.append(("User-Agent", f"artifact-vault/{__version__}"))
        if "accept" not in names:
            fields.append(("Accept", "*/*"))
        fields += [("Accept-Encoding", "identity"), ("Via", self._via)]
        credentials = self._endpoints.proxy_credentials
        if credentials is not None and url.startswith("http:"):
            fields.append(("Proxy-Authorization", credentials))
        return tuple(fields)

    async def _send(
        self, method: str, url: str, headers: Headers, timeout: float, release: Callable[[], None]
    ) -> Answer:
        agent = self._proxy_agent if self._proxy_agent is not None and url.startswith("http:") else self._agent
        verbatim = VerbatimAgent(agent, url, headers)
        host, authority = urlsplit(url).hostname or "", urlsplit(url).netloc
        requested_at = self._now()
        try:
            # A client of its own for each request: treq's clients keep cookies.
            # It gets a stand-in for the URL: it would misread an IPv6 address, and the agent below knows the real one.
            sending = HTTPClient(verbatim).request(
                method, STAND_IN, unbuffered=True, allow_redirects=False, reactor=self._reactor
            )
            late = Timeout(f"{authority} did not answer within {timeout:g} s")
            response = await self._within(sending, timeout, late)
        except CancelledError:
            raise
        except Exception as error:
            if self._endpoints.refused(host):
                raise ForbiddenTarget(f"{host} has only addresses that the vault must not contact") from error
            raise explained(error, authority, self._endpoints.proxy_name) from error
        raw = verbatim.response
        length = None if raw.length is UNKNOWN_LENGTH else int(raw.length)
        if method == "HEAD":
            length = _content_length(verbatim.fields)
        if length is not None and length > MAX_LENGTH:
            transport = transport_of(raw)
            if transport is not None:
                transport.abortConnection()
            raise BrokenAnswer(f"{authority} announces more bytes than any file can have").named(
                "http_response_body_size"
            )
        fields = [*verbatim.fields, (b"Connection", self._connection_options(raw))]
        head = Head(raw.code, end_to_end(fields), requested_at, self._now())
        delimited = length is not None or not self._ends_by_closing(raw)
        return Answer(
            head, length, delimited, url, response, raw, self._reactor, self.options.idle_timeout, release
        )  # fmt: skip

    def _connection_options(self, raw: Any) -> list[bytes]:
        framing = self._endpoints.framings.get(raw)
        return [] if framing is None else list(framing.options)

    def _ends_by_closing(self, raw: Any) -> bool:
        if tuple(raw.version)[1:] == (1, 0):
            return True
        framing = self._endpoints.framings.get(raw)
        return framing is not None and framing.by_closing

    async def enter_paced(self) -> None:
        """Wait for leave to pass a body through at a client's pace; ``paced.release`` gives it back."""
        crowded = Crowded("too many bodies that cannot be kept are on their way")
        await self._within(self.paced.acquire(), LONGEST_QUEUE, crowded)

    async def _within(self, waited: Deferred[Any], seconds: float, late: Timeout) -> Any:
        """What ``waited`` gives; raises ``late`` after so many seconds, and CancelledError where it is cancelled.

        What fails because of that may call it something else: a name that was being looked up, that there is no such.
        """
        reason: Exception | None = None

        def expire() -> None:
            nonlocal reason
            reason = late
            waited.cancel()

        def cancel(waiting: Deferred[Any]) -> None:
            nonlocal reason
            reason = CancelledError()
            waited.cancel()

        waiting: Deferred[Any] = Deferred(cancel)
        waited.addBoth(lambda result: None if waiting.called else waiting.callback(result))
        timer = self._reactor.callLater(seconds, expire)
        try:
            return await waiting
        except Exception as error:
            if reason is not None:
                raise reason from error
            raise
        finally:
            if timer.active():
                timer.cancel()


def _content_length(fields: Sequence[tuple[bytes, Sequence[bytes]]]) -> int | None:
    for name, values in fields:
        if name.lower() == b"content-length" and values[0].isdigit():
            digits = values[0].lstrip(b"0") or b"0"
            return int(digits) if len(digits) < 20 else MAX_LENGTH + 1  # int() refuses thousands of digits
    return None
