"""One request at the edge: who may ask, how often, and that every request ends in exactly one access log line.

What a target means is the business of the resource tree; it finds the target raw in ``uri``.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.error import UnsupportedMethod
from twisted.web.http import NO_BODY_CODES
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from vault.errors import VaultError
from vault.sendfile import reset_at_death, socket_below, unwritten_bytes
from vault.web.accesslog import CLIENT_GONE, AccessEntry, redact
from vault.web.errors import respond, respond_error
from vault.web.headers import date_of
from vault.web.limits import client_ip

if TYPE_CHECKING:
    from vault.web.channel import VaultChannel
    from vault.web.site import VaultSite

log = Logger()

MAX_BODY = 1024 * 1024
LAST_PORT = 65535
LONGEST_NUMBER = 100
"""Digits."""

LONGEST_LOOK = 0.1
"""Seconds between two looks at whether the kernel has taken the end of a body."""

# RFC 9110 section 9 and RFC 5789; without TRACE, which would echo credentials back.
KNOWN_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT"})
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)
# RFC 9110 section 7.2 with RFC 3986 section 3.2: a name, which may be empty, or an address in brackets, and a port.
_HOST = re.compile(
    rb"(?:\[[A-Za-z0-9:._~%!$&'()*+,;=-]+\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::0*([0-9]{0,5}))?"
)


class VaultRequest(server.Request):
    """A request, with what the access log wants to know of it.

    The resource that answers sets ``cache_result`` and ``backend``; ``body_bytes`` is counted by ``write``.
    """

    defaultContentType = None  # Twisted's text/html would be a lie about an artifact without a type.
    # Twisted deletes the instance's own when the response is finished, and sets None when the client has gone.
    channel: VaultChannel | None = None  # type: ignore[assignment]  # Twisted declares HTTPChannel alone
    content: BytesIO
    site: VaultSite

    cache_result: str = "-"
    backend: str = "-"
    aborted: bool = False
    """True once the connection was cut by ``abort``, this request's or the channel's."""

    _logged = False
    _ends_by_closing = False
    _look_again = 0.001  # seconds

    def __init__(self, channel: VaultChannel, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)
        self.site = channel.site
        self.started = self.site.now()
        self._since = self.site.reactor.seconds()

    # Who asks for what.

    @property
    def client_host(self) -> str:
        """The IP address of the peer as text; empty for a unix socket."""
        return str(getattr(self.client, "host", None) or "")

    @property
    def body_bytes(self) -> int:
        """The bytes of the response body handed to the connection so far."""
        return int(self.sentLength)

    def authority_form(self) -> str | None:
        """``host:port`` as the target of a CONNECT names it (RFC 9112 section 3.2.3); None for other requests."""
        return _text(self.uri) if self.method == b"CONNECT" else None

    def absolute_form(self) -> tuple[str, str, str] | None:
        """Scheme, authority, and path with its query, of a target in absolute form (RFC 9112 section 3.2.2).

        The scheme is in lower case; authority and path are as they were sent, with ``/`` for an empty path.  None for a
        target of another form.
        """
        match = None if self.method == b"CONNECT" else _ABSOLUTE.fullmatch(self.uri)
        if match is None:
            return None
        scheme, authority, path = (_text(part) for part in match.groups())
        return scheme.lower(), authority, path if path.startswith("/") else "/" + path

    def joined_headers(self) -> dict[str, str]:
        """The request's fields by lower-case name, the lines of each joined by ``", "`` (RFC 9110 section 5.3)."""
        return {
            name.decode("latin-1").lower(): b", ".join(lines).decode("latin-1")
            for name, lines in self.requestHeaders.getAllRawHeaders()
        }

    # What the channel calls.

    def gotLength(self, length: int | None) -> None:
        """Keep the body in memory; the channel has seen to it that it is small, or counts as it comes."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Take a part of the body; more than ``MAX_BODY`` bytes in all are refused."""
        if self.channel is None or self.channel.closing:
            return
        if self.content.tell() + len(data) > MAX_BODY:
            self.channel.refuse(413, "The request body is larger than 1 MiB.")
            return
        self.content.write(data)

    def connectionLost(self, reason: Failure) -> None:
        """The client has gone, or was cut off."""
        super().connectionLost(reason)
        self.log_access(aborted=True)

    def process(self) -> None:
        """Answer: the edge's own refusals first, then the resource tree."""
        self.setHeader(b"Server", self.site.server_name)
        self.setHeader(b"Date", date_of(int(self.site.now())))
        try:
            if not self._refused():
                self.render(self.site.getResourceFor(self))
        except Exception:  # whatever a resource raises, its client gets an answer and the others are served on
            self.processingFailed(Failure())

    def _refused(self) -> bool:
        """Answer what never reaches the resource tree; True if that was done.  Sets the path for the others."""
        assert self.channel is not None
        if self.channel.surplus:
            self.channel.refuse(503, "Too many clients are connected; try again soon.", retry_after=5.0)
            return True
        if not self.allowed():
            self._say(403, "This client address is not allowed to use this server.")
            return True
        wait = self.site.request_rate.take(self.client_host)
        if wait:
            self._say(429, "Too many requests from this client address.", wait)
            return True
        # RFC 9112 section 3.2: a server MUST refuse these; two servers could read them in two ways.
        hosts = self.requestHeaders.getRawHeaders(b"Host", [])
        if len(hosts) != 1 and self.clientproto != b"HTTP/1.0":
            self.channel.refuse(400, "The request must have exactly one Host field.")
            return True
        if not all(map(_is_host, hosts)):
            self.channel.refuse(400, "The Host field must be a host with an optional port.")
            return True
        if self.method not in KNOWN_METHODS:
            self._refuse_method([b"GET", b"HEAD"])
            return True
        if self.method == b"CONNECT":
            self.site.tunnels.open(self)
            return True
        self.prepath = []
        if self.uri == b"*":
            self._answer_star()
            return True
        if self.absolute_form() is None:
            if not self.uri.startswith(b"/"):
                self.channel.refuse(400, "The request target must be a path that starts with '/', or a URL.")
                return True
            self.postpath = [unquote_to_bytes(segment) for segment in self.path[1:].split(b"/")]
        else:
            # One opaque segment: a child of the root is never taken for a path on another server.
            self.postpath = [self.uri]
        return False

    def _say(self, status: int, text: str, retry_after: float | None = None) -> None:
        """Refuse in the form that clients of this target read."""
        form, fields = self.site.form_of(self.uri, status, text)
        for name, value in fields:
            self.setHeader(name, value)
        respond(self, status, text, retry_after, form)

    def allowed(self) -> bool:
        """True if clients of this address may use this server."""
        networks = self.site.access_allow
        if not networks or not self.client_host:
            return True
        address = client_ip(self.client_host)
        return address is not None and any(address in network for network in networks)

    def _answer_star(self) -> None:
        """``*`` means the server as a whole, which has OPTIONS alone (RFC 9110 section 9.3.7)."""
        if self.method != b"OPTIONS":
            self._refuse_method([b"OPTIONS"])
            return
        self.setHeader(b"Allow", b"GET, HEAD, OPTIONS")
        self.setHeader(b"Content-Length", b"0")
        self.finish()

    def _refuse_method(self, allowed: list[bytes]) -> None:
        self.setHeader(b"Allow", b", ".join(allowed))
        self._say(405, "This method is not allowed here.")

    # What a resource calls.

    def render(self, resrc: IResource) -> None:
        """Let ``resrc`` answer: bytes are the whole body, ``NOT_DONE_YET`` says that it answers by itself."""
        try:
            body = resrc.render(self)
        except UnsupportedMethod as error:
            names: list[str | bytes] = list(error.allowedMethods)
            self._refuse_method(sorted(map(_token, names)))
            return
        if body == NOT_DONE_YET:
            return
        if not isinstance(body, bytes):
            raise TypeError(f"{resrc!r} answered with {type(body).__name__}, not with bytes")
        if self.code not in NO_BODY_CODES:
            self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def processingFailed(self, reason: Failure) -> None:
        """Answer for what went wrong: as a VaultError says, else with a plain 500 and a traceback in the log."""
        if reason.check(VaultError):
            error = reason.value
            assert isinstance(error, VaultError)
            respond_error(self, error, "" if self.backend == "-" else self.backend)
            return
        target = redact(_text(self.path), _text(self.method))
        log.failure("answering {method} {target} failed", reason, method=_text(self.method), target=target)
        self._say(500, "The server failed to answer this request; its log says why.")

    def end_by_closing(self) -> None:
        """The body has no length, and nobody can say that its end is the true one: only closing may tell it.

        Any other end is a reset, so that no client takes what it has for the whole; ``kill -9`` is one of them.
        """
        assert self.channel is not None
        self.clientproto = b"HTTP/1.0"  # else it would be chunked
        self.channel.persistent = False
        self._ends_by_closing = True
        reset_at_death(socket_below(self.channel.transport), True)

    def write(self, data: bytes) -> None:
        """Send a part of the body; nothing after ``abort``."""
        if not self.aborted:
            super().write(data)

    def finish(self) -> None:
        """End the response, or abort the connection where the body is not as long as its Content-Length said.

        A wrong length would make the client take the next response for a part of this one.  Nothing after ``abort``.
        """
        if self.aborted:
            return
        if self.startedWriting and self.channel is not None and not self._length_kept():
            log.error(
                "the body of {target} has {sent} bytes, not as many as announced",
                target=redact(_text(self.path)),
                sent=self.sentLength,
            )
            if self.producer is not None:
                self.unregisterProducer()
            self.abort()
            return
        if self._ends_by_closing and self.channel is not None:
            below = socket_below(self.channel.transport)
            if unwritten_bytes(below):
                # Until the kernel has all of it, the end that it would tell at our death is not the true one.
                self.channel.stall.watch(True)
                self.site.reactor.callLater(self._look_again, self._finish_later)
                self._look_again = min(2 * self._look_again, LONGEST_LOOK)
                return
            reset_at_death(below, False)
        super().finish()

    def _finish_later(self) -> None:
        if self.channel is not None:
            self.finish()

    def _length_kept(self) -> bool:
        if self.method == b"HEAD" or self.code in NO_BODY_CODES:
            return True
        announced = self.responseHeaders.getRawHeaders(b"Content-Length")
        return announced is None or announced[-1] == b"%d" % self.sentLength

    def abort(self) -> None:
        """Reset the connection, so that no client takes what it has for the whole; harmless when it is over."""
        if self.aborted or self.finished or self.channel is None:
            return
        self.cut()
        self.channel.abort()

    def cut(self) -> None:
        """The connection is reset: whatever is answered from now on is not sent, and not logged as if it were."""
        if not self.finished:
            self.aborted = True
            self.log_access(aborted=True)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Let ``producer`` write the body; it is stopped at once where the client has gone."""
        if self.aborted or self.channel is None:
            producer.stopProducing()
            return
        super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """The producer has written all; harmless when the client has gone."""
        if self.channel is None:
            self.producer = None
            return
        super().unregisterProducer()

    # The access log.

    def log_access(self, *, aborted: bool = False) -> None:
        """Write the access log line, once; there is none for a request that never was complete."""
        if self._logged or self.clientproto == server.Request.clientproto:
            return
        self._logged = True
        self.site.access_log.write(
            AccessEntry(
                time=self.started,
                client=self.client_host or "unix",
                method=self.method.decode("latin-1"),
                target=self.uri.decode("latin-1"),
                protocol=self.clientproto.decode("latin-1"),
                status=self.code if self.startedWriting else CLIENT_GONE,
                bytes=self.body_bytes,
                referer=(self.getHeader(b"referer") or b"").decode("latin-1"),
                user_agent=(self.getHeader(b"user-agent") or b"").decode("latin-1"),
                cache=self.cache_result,
                backend=self.backend,
                seconds=self.site.reactor.seconds() - self._since,
                aborted=aborted,
            )
        )


def _is_host(value: bytes) -> bool:
    match = _HOST.fullmatch(value)
    return match is not None and int(match[1] or 0) <= LAST_PORT


def _text(raw: bytes) -> str:
    """Text that gives the same bytes back when encoded as UTF-8 with surrogate escapes."""
    return raw.decode("utf-8", "surrogateescape")


def _token(name: str | bytes) -> bytes:
    return name.encode("ascii") if isinstance(name, str) else name


def is_long_length(line: bytes) -> bool:
    """True for a Content-Length of so many digits that Python refuses to read it as a number, as Twisted would."""
    name, _, value = line.partition(b":")
    digits = value.strip()
    return name.lower() == b"content-length" and digits.isdigit() and len(digits) > LONGEST_NUMBER
