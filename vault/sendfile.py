"""The client's socket as the kernel sees it: where its bytes may come from, when it has room, and how they go out."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
from typing import Any, Protocol

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReactorTime, ISSLTransport
from twisted.python.failure import Failure

_CORK: int | None = getattr(socket, "TCP_CORK", None)  # Linux has it
_CONGESTION: int | None = getattr(socket, "TCP_CONGESTION", None)  # so have Linux and FreeBSD


class Sender(Protocol):
    """What sends through a SendfileSocket."""

    def send_on(self) -> bool:
        """The socket has room; False where ``pump`` is to be called."""
        ...

    def pump(self) -> None:
        """The socket has room, and what is to be sent must be found out."""
        ...

    def broken(self) -> None:
        """The connection is broken."""
        ...


class SendfileSocket(FileDescriptor):
    """A second descriptor of a client's socket, which the kernel fills from a file.

    The socket's own transport keeps reading from it and keeps its buffer empty meanwhile.
    """

    def __init__(self, reactor: Any, client: socket.socket, sender: Sender) -> None:
        super().__init__(reactor)
        self._clock: IReactorTime = reactor
        self._socket = client.dup()
        self._sender = sender
        self.connected = 1

    def fileno(self) -> int:
        """The descriptor the reactor watches."""
        return self._socket.fileno()

    def doWrite(self) -> None:
        """The socket has room."""
        if not self._sender.send_on():
            self._sender.pump()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the connection broken."""
        self._sender.broken()

    def close(self) -> None:
        """Let go of the descriptor."""
        self.stopWriting()
        # Not now: the reactor may hold an event of this descriptor that it has yet to deal with, and the number,
        # free again, could by then be another client's.
        self._clock.callLater(0, self._socket.close)


class Cork:
    """Has the kernel send full segments only, from now on until it is drawn.

    For a head and what follows it without a break: the client has less to deal with than where each call ends with a
    short segment.
    """

    def __init__(self, client: socket.socket) -> None:
        self._socket = client
        self._set(1)

    def draw(self) -> None:
        """Have what is held back sent."""
        self._set(0)

    def _set(self, value: int) -> None:
        if _CORK is not None:
            with contextlib.suppress(OSError):  # the connection is broken, or a Unix socket, which has no segments
                self._socket.setsockopt(socket.IPPROTO_TCP, _CORK, value)


def without_pacing(transport: Any) -> None:
    """Have the kernel send to a client on this machine without a pace of its own; no other client is touched.

    Where the machine's congestion control is BBR, the kernel spreads out what it sends, by a timer, at the rate that it
    takes the path to have.  Between two sockets of one machine there is no path, only the work: a fifth of the time in
    which a crowd is served.  Reno (RFC 5681) paces nothing, and any process may choose it (tcp(7)).
    """
    if _CONGESTION is None or not isinstance(transport, tcp.Server):
        return
    here, peer = transport.getHost(), transport.getPeer()
    if getattr(here, "host", None) == getattr(peer, "host", ""):  # no Unix socket has one
        with contextlib.suppress(OSError):  # the connection is broken, or the kernel has no choice
            transport.socket.setsockopt(socket.IPPROTO_TCP, _CONGESTION, b"reno")


def reset_at_death(transport: Any, wanted: bool) -> None:
    """Have the kernel reset the connection where this process is killed, instead of ending it in order (socket(7)).

    Unix sockets are never reset.  It must not be ``wanted`` any more when the connection is closed.
    """
    if isinstance(transport, tcp.Server):
        with contextlib.suppress(OSError):  # the connection is broken
            transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", wanted, 0))


def plain_transport(request: Any) -> Any:
    """The transport of a response whose bytes go to a socket as they are; None for TLS and for chunked coding."""
    transport = getattr(request.channel, "transport", None)
    # Not by its attributes: a TLS wrapper passes on those of the socket below it.
    if request.chunked or not isinstance(transport, tcp.Server) or getattr(transport, "TLS", False):
        return None
    return transport if hasattr(transport, "_tempDataBuffer") else None


def socket_below(transport: Any) -> Any:
    """The transport of the socket itself, where TLS may lie between."""
    if ISSLTransport.providedBy(transport):
        return getattr(transport, "transport", transport)
    return transport


def unwritten_bytes(transport: Any) -> int:
    """The bytes that a socket's transport has yet to give to the kernel, which are lost where this process ends."""
    if not isinstance(transport, tcp.Server):
        return 0
    return len(transport.dataBuffer) - int(transport.offset) + int(transport._tempDataLen)


def unsent_bytes(transport: Any) -> int:
    """The bytes a socket transport still holds, its kernel buffer included (tcp(7), SIOCOUTQ); 0 if not known."""
    try:
        descriptor = transport.getHandle().fileno()
        (queued,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
        return int(queued) + len(transport.dataBuffer) - int(transport.offset)
    except (AttributeError, OSError, ValueError):
        return 0
