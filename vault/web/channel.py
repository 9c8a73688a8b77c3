"""One client connection: heads of a bounded size in a bounded time, and an end to clients that take nothing.

A connection is in one of four states, and each but the last has one deadline::

    IDLE      no byte of a request yet      idle_timeout, then closed
    HEAD      from its first byte on        header_timeout in all, then 408
    BODY      from the end of the head on   idle_timeout in all, then 408
    HANDLING  the request is answered       none; what follows waits

Beside it, whenever bytes wait to be sent, the client must take some of them every ``stall_timeout`` seconds.  What is
wrong with a message itself is answered here by ``refuse``, after which nothing more is read from the connection.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress, IHalfCloseableDescriptor
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.http_headers import Headers

from vault.sendfile import socket_below, unsent_bytes, without_pacing
from vault.web.ahead import Ahead
from vault.web.errors import plain_text, reason_phrase
from vault.web.headers import date_of
from vault.web.limits import Deadline, StallWatch
from vault.web.request import LONGEST_NUMBER, MAX_BODY, VaultRequest, is_long_length

if TYPE_CHECKING:
    from vault.web.site import VaultSite
    from vault.web.tunnel import Tunnel

MAX_HEAD = 32 * 1024
MOST_EMPTY = 8
"""Empty lines before a request line that are taken for none (RFC 9112 section 2.2)."""

TOO_LARGE = "The request body is larger than 1 MiB."

LINGER = 2.0
"""Seconds that a client has to read a refusal before the connection is closed."""

log = Logger()

TLS_HANDSHAKE = b"\x16"  # RFC 8446 section 5.1: the content type of a record that carries a ClientHello
_NOT_ASCII = re.compile(rb"[\x80-\xff]")


class State(Enum):
    """What the connection is waiting for."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    HANDLING = auto()


class VaultChannel(HTTPChannel):
    """An HTTP/1.1 server connection (RFC 9112); ``factory`` and ``site`` are the VaultSite that made it."""

    MAX_LENGTH = MAX_HEAD
    totalHeadersSize = MAX_HEAD
    transport: Any  # TCP, TLS or unix; no one interface of Twisted's has all that is used here
    requests: list[VaultRequest]
    site: VaultSite
    stall: StallWatch

    state = State.IDLE
    closing = False
    """True once nothing more is read from the client."""
    surplus = False
    """True for a connection beyond the allowed number: its first request is answered with 503."""

    _tunnel: Tunnel | None = None
    _fresh = True
    _head_size = 0
    _fields = 0
    _request_line = b""
    _head_timed = False

    # The connection.

    def connectionMade(self) -> None:
        """Begin to wait for a request."""
        # They stay as they are, and each request wants to know them.
        self._peer: IAddress = super().getPeer()
        self._host: IAddress = super().getHost()
        super().connectionMade()
        # What recipes note about this client's connection; they may ask whose it is.
        self.notes: dict[str, Any] = {"client": str(getattr(self.getPeer(), "host", ""))}
        self._ahead = Ahead(self)
        self._deadline = Deadline(self.site.reactor)
        socket = socket_below(self.transport)
        without_pacing(socket)
        self.stall = StallWatch(
            self.site.reactor, lambda: unsent_bytes(socket), lambda: self.site.limits.stall_timeout, self._stalled
        )
        if not self.site.admit(self):
            self.abort()
            return
        self._idle()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is over: so are its requests."""
        self.closing = True
        self._deadline.stop()
        self.stall.stop()
        self.site.departed(self)
        if self._tunnel is not None:
            self._tunnel.client_gone()
        super().connectionLost(reason)

    def getPeer(self) -> IAddress:
        """Who is at the other end."""
        return self._peer

    def getHost(self) -> IAddress:
        """The address that the client has connected to."""
        return self._host

    def abort(self) -> None:
        """Reset the connection; its request, if any, hears of it by ``connectionLost``, and is answered no more."""
        self.closing = True
        self._deadline.stop()
        for request in self.requests:
            request.cut()
        self.transport.abortConnection()

    def loseConnection(self) -> None:
        """Close when all is sent; a client that does not take it is cut off."""
        self.closing = True
        self._deadline.stop()
        super().loseConnection()
        self.stall.watch(True)

    def close_when_done(self) -> None:
        """Close now, or after the response under way."""
        self.persistent = False
        if self.state is State.IDLE and not self.closing:
            self.loseConnection()

    # What arrives.

    def dataReceived(self, data: bytes) -> None:
        """Parse; the time for a head runs from its first byte, however slowly the others follow."""
        if self.closing:
            return
        if self.paused:
            self._buffer += data
            return
        if self._fresh:
            self._fresh = False
            if data.startswith(TLS_HANDSHAKE) and not self.isSecure():
                self.refuse(400, "This port speaks plain HTTP, not HTTPS: use an http:// address.")
                return
        if self.state is State.IDLE:
            self._head_begins()
        super().dataReceived(data)
        if self.state is State.IDLE and not self.closing and self._buffer and not self.paused:
            self._head_begins()  # the beginning of a pipelined request came together with the one just answered
        if self.state is State.HEAD and not self._head_timed and not self.closing:
            self._head_timed = True  # only now: most heads come whole, and need no deadline
            self._deadline.set(self.site.limits.header_timeout, self._head_late)

    def lineReceived(self, line: bytes) -> None:
        """One line of a head."""
        if self.closing:
            return
        if self.state is State.IDLE:
            self._head_begins()
        self._head_size += len(line) + len(self.delimiter)
        if self._head_size > MAX_HEAD:
            self.lineLengthExceeded(line)
            return
        if not self._request_line:
            if not line and self._head_size <= MOST_EMPTY * len(self.delimiter):
                self._idle()  # some send one behind a body: no head has begun by that
                return
            # Clients that send raw UTF-8 in a target mean it percent-encoded (RFC 3986 section 2.5).
            line = self._request_line = _NOT_ASCII.sub(lambda match: b"%%%02X" % ord(match[0]), line)
        super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """The head is too long (RFC 6585 section 5)."""
        self.refuse(431, "The request head is larger than 32 KiB.", line=line)

    def headerReceived(self, line: bytes) -> bool:
        """One field of a head; too many are as bad as too long ones."""
        if self.closing:
            return False
        self._fields += 1
        if self._fields > self.maxHeaders:
            self.refuse(431, f"The request has more than {self.maxHeaders} header fields.")
            return False
        if len(line) > LONGEST_NUMBER and is_long_length(line):
            self.refuse(413, TOO_LARGE)
            return False
        return bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        """The head is complete; a body that is too large is refused before the client is told to go on."""
        if self.closing:
            return
        if self.length is not None and self.length > MAX_BODY:
            self.refuse(413, TOO_LARGE)
            return
        self.state = State.BODY
        if self.length != 0:
            self._deadline.set(self.site.limits.idle_timeout, self._body_late)
        super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        """A part of a body, or what came behind the request that is being answered."""
        if self._tunnel is not None:
            self._tunnel.from_client(data)
        elif not self.closing:
            super().rawDataReceived(data)
            # Behind a CONNECT it may be meant for another server.
            handling = self.state is State.HANDLING and self.requests  # none, where a last one is answered already
            if handling and self._dataBuffer and self.requests[0].method == b"GET":
                self._ahead.look(self._dataBuffer)

    def become(self, tunnel: Tunnel) -> None:
        """From now on everything that arrives is ``tunnel``'s, beginning with what waits."""
        self._tunnel = tunnel
        waiting, self._dataBuffer = b"".join(self._dataBuffer), []
        if waiting:
            tunnel.from_client(waiting)
        self.transport.resumeProducing()

    def allContentReceived(self) -> None:
        """The request is complete."""
        if self.closing:
            return
        self.state = State.HANDLING
        self._deadline.lift()
        self._head_size = self._fields = 0
        self._request_line = b""
        super().allContentReceived()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Whether the connection outlives the response (RFC 9112 section 9.3)."""
        lines = request.requestHeaders.getRawHeaders(b"Connection", [])
        options = {option.strip().lower() for line in lines for option in line.split(b",")}
        if self.site.draining or b"close" in options:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            return False
        return version == b"HTTP/1.1"

    def requestDone(self, request: Request) -> None:
        """The response is complete: on to the next request, or close."""
        if self.closing:
            return
        if self.persistent:
            self._idle()
            self.paused = bool(self._buffer) or any(self._dataBuffer)  # nothing is parsed meanwhile
        super().requestDone(request)
        if self.paused and not self.closing:
            # Thousands may have come together: others have their turn between two, and who has left gets no more.
            self._networkProducer.pauseProducing()
            self.site.reactor.callLater(0, self._go_on)

    def _go_on(self) -> None:
        """Answer the next of the requests that came together, unless the answers are not being taken."""
        if self.paused and not self.closing and not self._waitingForTransport:
            self.paused = False
            self._networkProducer.resumeProducing()
            self.dataReceived(b"")

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Write a response's head, in one piece: each of its sixty costs the transport as much as the whole."""
        lines = [b"%b %b %b" % (version, code, reason)]
        lines += [b"%b: %b" % (name, value) for name, values in headers.getAllRawHeaders() for value in values]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")

    # Refusals.

    def refuse(self, status: int, text: str, retry_after: float | None = None, line: bytes = b"") -> None:
        """Answer with one sentence, write the access log line, and close without losing the answer on the way.

        ``line`` is what there is of a request line that cannot be taken.
        """
        if self.closing:
            return
        self.closing = True
        self._deadline.stop()
        self.clearLineBuffer()
        request = self._refused_request()
        form, fields = self.site.form_of(self._target(request, line), status, text)
        body, headers = plain_text(text, retry_after, form)
        for name, value in fields:
            headers.setRawHeaders(name, [value])
        headers.setRawHeaders(b"Server", [self.site.server_name])
        headers.setRawHeaders(b"Date", [date_of(int(self.site.now()))])
        headers.setRawHeaders(b"Connection", [b"close"])
        self.writeHeaders(b"HTTP/1.1", b"%d" % status, reason_phrase(status), headers)
        request.code = status
        request.startedWriting = 1
        if request.method != b"HEAD":
            self.write(body)
            request.sentLength = len(body)
        request.log_access()
        self._linger()

    def _refused_request(self) -> VaultRequest:
        """The request that is refused, with as much of its request line as there is, for the access log."""
        request = self.requests[-1] if self.requests else VaultRequest(self)
        if self.state is not State.HANDLING:
            parts = self._request_line.split(b" ")
            if len(parts) == 3:
                request.method, request.uri, request.clientproto = parts
            else:
                request.method, request.uri, request.clientproto = b"", self._request_line, b""
        return request

    def _target(self, request: VaultRequest, line: bytes) -> bytes:
        """Whatever stands in the target's place, of a request line that may be no such thing."""
        if self.state is State.HANDLING:
            return request.uri
        words = (self._request_line or line).split(b" ", 2)
        return words[1] if len(words) > 1 else b""

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted calls this for every message it cannot parse, and has no public name for it.
        self.refuse(400, "The request is not valid HTTP/1.1.")

    def _linger(self) -> None:
        """Send an end of file but go on reading for a while.

        Closing a socket with unread bytes resets it, and a reset can destroy the answer before the client has read it
        (RFC 9112 section 9.6).
        """
        half_closeable = IHalfCloseableDescriptor.providedBy(self.transport)
        if self.isSecure() or not half_closeable:
            self.loseConnection()  # TLS waits for the client's closing alert by itself
            return
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()
        self._deadline.set(LINGER, self._linger_over)

    def _linger_over(self) -> None:
        self.transport.loseConnection()
        self.stall.watch(True)

    # Deadlines.

    def _idle(self) -> None:
        self.state = State.IDLE
        limits = self.site.limits
        self._deadline.set(limits.header_timeout if self.surplus else limits.idle_timeout, self._idle_over)

    def _idle_over(self) -> None:
        if self.surplus:
            self.refuse(503, "Too many clients are connected; try again soon.", retry_after=5.0)
        elif self.stall.unsent():
            self.stall.watch(False)  # the last response is still being taken; that has its own limit
            self._idle()
        else:
            self.loseConnection()

    def _head_begins(self) -> None:
        self.state = State.HEAD
        self._head_timed = False

    def _head_late(self) -> None:
        self.refuse(408, "The request head was not complete in time.")

    def _body_late(self) -> None:
        self.refuse(408, "The request body was not complete in time.")

    # Clients that do not take what they asked for.

    def pauseProducing(self) -> None:
        """The send buffer is full."""
        super().pauseProducing()
        self.stall.watch(True)

    def resumeProducing(self) -> None:
        """The send buffer is empty."""
        self.stall.stop()
        super().resumeProducing()
        self._go_on()

    def _stalled(self, seconds: float) -> None:
        log.info(
            "cutting off {client}: it took nothing for {seconds} s",
            client=getattr(self.getPeer(), "host", "unix"),
            seconds=round(seconds),
        )
        self.abort()
