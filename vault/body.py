"""Delivery: gives spans of a body, growing or complete, to one client at the client's own pace.

It holds no bytes.  On a plain TCP or unix socket the kernel copies them from the file to the socket (sendfile);
elsewhere (TLS, chunked coding, bytes that are only in memory) they are read piece by piece and written to the request,
whose transport says when it wants more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from vault.errors import Truncated
from vault.sendfile import Cork, SendfileSocket, plain_transport, socket_below, unsent_bytes

PIECE = 128 * 1024
SENDFILE_PIECE = 1024 * 1024
"""What is sent of a growing body at a time, and what is brought into memory of a file that lies on the medium."""

LOOK_AHEAD = 4 * 1024 * 1024
"""How far it is looked ahead whether the bytes are in memory."""

TOGETHER = 64 * 1024
"""A body of so little goes out with its head: to set up a sendfile for it would cost more."""

TURN = 16 * 1024 * 1024
"""What one client may be sent of a complete body before the others have their turn: some 5 ms.

A client that takes it as fast as it comes is sent until its socket is full: to sleep and be woken for each piece costs
a tenth of the rate.  Of a growing body, which a crowd may be reading, each is sent a piece in turn.
"""

NO_DESCRIPTOR = 0.1
"""Seconds until it is tried again where the process may open nothing more."""

Span = tuple[int, int | None]
Part = bytes | Span


class ClientGone(Exception):
    """The client closed its connection, or was cut off because it took nothing for too long."""


class Allowance(Protocol):
    """How much a client may be sent now."""

    def allowance(self, address: str, wanted: int) -> tuple[int, float]:
        """Bytes that may go now, and where that is none, the seconds to wait."""
        ...


@implementer(IPushProducer)
class Delivery:
    """Sends ``parts`` (literal bytes, or spans of ``body``) as the body of ``request``.

    A span's stop is None for "to the end".  ``done`` fires with nothing when all has been handed to the connection;
    it fails with ClientGone, or with Truncated when the body turns out not to be whole.
    """

    log = Logger()

    def __init__(
        self, request: Any, body: Any, parts: Sequence[Part], reactor: Any, stall_timeout: float,
        limit: Allowance | None = None,
    ) -> None:  # fmt: skip
        self.done: Deferred[None] = Deferred()
        self._request = request
        self._body = body
        self._parts = list(parts)
        self._reactor = reactor
        self._stall_timeout = stall_timeout
        self._limit = limit
        self._at = min((part[0] for part in parts if isinstance(part, tuple)), default=0)
        self._stop: int | None = None
        self._paused = False
        self._waiting: Deferred[Any] | None = None
        self._transport: Any = None
        self._socket: SendfileSocket | None = None
        self._cork: Cork | None = None
        self.wants_room = False
        self._credit = 0
        self._sure_until = 0
        self._turn = 0
        self._flush_delay = 0.0
        self._later: Any = None
        self._ended = False
        self._pumping = False
        self._progress = reactor.seconds()
        self._unsent = 0
        self._watch: Any = None

    def start(self) -> Deferred[None]:
        """Begin; the response's head has been set up."""
        self._body.attach(self)
        self._watch = self._reactor.callLater(self._stall_timeout / 4, self._look)
        # The body's head goes out now, even if the first byte is yet to come.
        self._request.write(b"")
        self._request.registerProducer(self, True)
        if not self._ended:
            self._transport = plain_transport(self._request) if self._body.descriptor is not None else None
            self._next_part()
            self.pump()
        return self.done

    @property
    def offset(self) -> int:
        """The lowest byte still needed that is not in the file: what is there needs nobody to keep it."""
        on_disk = self._body.on_disk
        later = (part for part in self._parts if isinstance(part, tuple))
        return min([self._at, *(start for start, stop in later if stop is None or stop > on_disk)])

    # -- the parts --------------------------------------------------------------------------------------------------

    def _next_part(self) -> None:
        while self._parts:
            part = self._parts.pop(0)
            if isinstance(part, tuple):
                self._at, self._stop = part
                self._sure_until = 0  # what held for the part before says nothing about this one
                self._sent(0)
                return
            self._write(part)
        self._finish(None)

    def pump(self) -> None:
        """Send what is there, until the client has enough or the body has no more for now."""
        if self._pumping:
            return
        self._pumping = True
        self._turn = TURN if self._body.complete else 0
        self.wants_room = False
        try:
            while not (self._ended or self._paused or self._waiting is not None or self._later is not None):
                stop = self._stop if self._stop is not None else (self._body.length if self._body.complete else None)
                if stop is not None and self._at >= stop:
                    self._next_part()
                    continue
                available = (self._body.size if stop is None else min(stop, self._body.size)) - self._at
                if available <= 0:
                    if self._body.complete:
                        raise Truncated("the stored file is shorter than was announced")
                    self._await(self._body.grown(self._at))
                elif self._transport is not None and self._at < self._body.on_disk and not self._small(available):
                    if not self._send_file(min(available, self._body.on_disk - self._at)):
                        break
                else:
                    self._read(available)
        except Exception:  # a file that cannot be read, bytes that are gone: this client is told by being cut off
            self._finish(Failure())
        finally:
            self._pumping = False
            if not self._ended:
                self._watch_socket()

    def _watch_socket(self) -> None:
        if self.wants_room:
            if self._socket is None:  # most of what is short never needs it
                try:
                    self._socket = SendfileSocket(self._reactor, self._transport.socket, self)
                except OSError:  # the process has no descriptor left for it
                    self._later = self._reactor.callLater(NO_DESCRIPTOR, self._flush_again)
                    return
                self._put_cork()
            self._socket.startWriting()
        elif self._socket is not None:
            self._socket.stopWriting()

    def _small(self, available: int) -> bool:
        return self._body.complete and available <= TOGETHER and self._socket is None

    def _await(self, waited: Deferred[Any]) -> None:
        """Go on when ``waited`` fires."""
        self._waiting = waited

        def over(result: Any) -> Any:
            self._waiting = None
            self._progress = self._reactor.seconds()
            return result

        waited.addBoth(over)
        waited.addCallbacks(lambda result: self.pump(), self._failed)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._finish(failure)

    # -- reading and writing ----------------------------------------------------------------------------------------

    def _read(self, available: int) -> None:
        wanted = self._allowed(min(available, PIECE))
        if not wanted:
            return
        found = self._body.read(self._at, wanted)
        if isinstance(found, Deferred):
            found.addCallback(self._took)
            self._await(found)
        else:
            self._took(found)

    def _took(self, data: bytes) -> None:
        if self._ended:
            return
        if not data:
            self._finish(Failure(Truncated("the stored file became shorter")))
            return
        self._sent(len(data))
        self._write(data)
        self._body.advance()
        if self._transport is not None and not self._ended and self._transport._tempDataBuffer:
            self._transport.doWrite()  # now, and not when the reactor has asked whether the socket takes it

    def _write(self, data: bytes) -> None:
        self._progress = self._reactor.seconds()
        self._request.write(data)

    def _sent(self, count: int) -> None:
        self._progress = self._reactor.seconds()
        self._credit -= count
        self._at += count

    def _allowed(self, wanted: int) -> int:
        """How many of ``wanted`` bytes the client may be sent now; where none, the pump is called again later."""
        if self._limit is None:
            return wanted
        if self._credit <= 0:
            self._credit, wait = self._limit.allowance(self._request.client_host, min(wanted, PIECE))
            if self._credit <= 0:
                self._later = self._reactor.callLater(wait, self._go_on)
        return min(wanted, max(0, self._credit))

    def _go_on(self) -> None:
        self._later = None
        self._progress = self._reactor.seconds()
        self.pump()

    # -- sendfile ---------------------------------------------------------------------------------------------------

    def _send_file(self, available: int) -> bool:
        """Let the kernel send from the file; False when the pump is to stop here and will be called again."""
        if not self._flushed():
            return False
        wanted = self._allowed(available)
        if not wanted:
            return False
        begun = self._at
        if begun >= self._sure_until:
            ready = self._body.ready(begun, min(available, LOOK_AHEAD))
            # What had to be brought into memory is sent then, wherever it is by that time.
            self._sure_until = begun + (ready or min(available, SENDFILE_PIECE))
            if not ready:
                self._await(self._body.warm(begun, self._sure_until - begun))
                return True
        full = self._push(min(self._sure_until, begun + wanted))
        self._turn -= self._at - begun
        self.wants_room = not self._ended and (full or (self._turn <= 0 and self._at < begun + available))
        return not (self._ended or self.wants_room)

    def send_on(self) -> bool:
        """Go on with what the pump began, without its questions; False when it is to ask them again.

        A crowd of fast clients is served here most of the time, so it is as short as it can be.
        """
        if self._socket is None or self._limit is not None or self._at >= self._sure_until:
            return False
        return self._push(self._sure_until) or self._at < self._sure_until

    def _push(self, until: int) -> bool:
        """Have the kernel send: all of a complete body, one piece of a growing one.  True where the socket is full."""
        socket = self._transport if self._socket is None else self._socket
        while self._at < until:
            wanted = until - self._at if self._body.complete else min(until - self._at, SENDFILE_PIECE)
            try:
                sent = os.sendfile(socket.fileno(), self._body.descriptor, self._at, wanted)
            except BlockingIOError:
                return True
            except OSError:
                self.broken()
                return False
            if not sent:
                self._finish(Failure(Truncated("the stored file became shorter")))
                return False
            self._request.sentLength += sent  # what Request.write would count
            self._sent(sent)
            if not self._body.complete:
                break
        return False

    def _flushed(self) -> bool:
        """True when what was written to the transport is on its way, so that the file's bytes come after it."""
        transport = self._transport
        if transport.dataBuffer or transport._tempDataBuffer:
            self._put_cork()
            transport.doWrite()
        if transport.dataBuffer or transport._tempDataBuffer:
            # Nothing tells when a little has drained; a client that does not take even that is looked at ever less.
            self._flush_delay = min(0.1, 2 * self._flush_delay or 0.001)
            self._later = self._reactor.callLater(self._flush_delay, self._flush_again)
            return False
        self._flush_delay = 0.0
        return True

    def _put_cork(self) -> None:
        wanted = self._cork is None and self._body.complete and self._limit is None
        if wanted and self._body.ready(self._at, 1):  # else what is held back would wait for the medium
            self._cork = Cork(self._transport.socket)

    def _flush_again(self) -> None:
        self._later = None
        self.pump()

    def broken(self) -> None:
        """The connection is broken."""
        self._finish(Failure(ClientGone("the connection broke")))

    # -- the client's pace ------------------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The client's socket is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The client's socket has room."""
        self._paused = False
        self._progress = self._reactor.seconds()
        self.pump()

    def stopProducing(self) -> None:
        """The client has gone."""
        self._finish(Failure(ClientGone("the client closed the connection")))

    def _look(self) -> None:
        # For a client that takes nothing, not for an upstream that sends nothing.  One that takes a little all the time
        # is seen by what waits for it: the kernel reports room only when a third of its buffer, some MiB, is empty.
        self._watch = None
        now, before = self._reactor.seconds(), self._unsent
        self._unsent = unsent_bytes(socket_below(getattr(self._request.channel, "transport", None)))
        if self._unsent < before:
            self._progress = now
        waits_for_client = self._waiting is None and (self._later is None or self._flush_delay > 0)
        idle = now - self._progress if waits_for_client else 0.0
        if idle >= self._stall_timeout:
            client = self._request.client_host or "unix"
            self.log.info("cutting off {client}: it took nothing for {seconds} s", client=client, seconds=round(idle))
            self._finish(Failure(ClientGone(f"the client took nothing for {self._stall_timeout:g} s")))
        else:
            wait = min(self._stall_timeout / 4, self._stall_timeout - idle)
            self._watch = self._reactor.callLater(max(0.01, wait), self._look)

    def _finish(self, failure: Failure | None) -> None:
        if self._ended:
            return
        self._ended = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._cork is not None:
            self._cork.draw()
        if self._waiting is not None:
            self._waiting.cancel()
        self._request.unregisterProducer()
        self._body.detach(self)
        if failure is None:
            self.done.callback(None)
        else:
            self.done.errback(failure)
