"""Tunnels through an HTTP proxy: how a TLS upstream behind one is connected to."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

MAX_TUNNEL_HEAD = 16 * 1024


class TunnelRefused(Exception):
    """The proxy did not open the tunnel it was asked for; ``unknown`` where it wants to know who asks (407)."""

    def __init__(self, message: str, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class _Tunnel(Protocol):
    """Asks a proxy for a tunnel (RFC 9110 section 9.3.6), then hands the connection to the real protocol."""

    def __init__(self, request: bytes, factory: IProtocolFactory, ready: Deferred[IProtocol]) -> None:
        self._request = request
        self._factory = factory
        self._ready: Deferred[IProtocol] | None = ready
        self._head = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > MAX_TUNNEL_HEAD:
                self._refuse("its answer has no end")
            return
        status = head.split(b"\r\n")[0].decode("latin-1")
        if re.match(r"HTTP/1\.[01] 2\d\d\b", status) is None:
            unknown = re.match(r"HTTP/1\.[01] 407\b", status) is not None
            self._refuse(f"it answered {status!r}", unknown)
            return
        transport: Any = self.transport
        protocol = self._factory.buildProtocol(transport.getPeer())
        ready, self._ready = self._ready, None
        if protocol is None or ready is None:
            transport.abortConnection()
            return
        transport.protocol = protocol  # what startTLS and the endpoints' own wrappers do
        protocol.makeConnection(transport)
        ready.callback(protocol)
        if rest:
            protocol.dataReceived(rest)

    def abandon(self) -> None:
        """Nobody waits for the tunnel any more."""
        self._ready = None
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def _refuse(self, why: str, unknown: bool = False) -> None:
        ready, self._ready = self._ready, None
        transport: Any = self.transport
        transport.abortConnection()
        if ready is not None:
            ready.errback(TunnelRefused(f"the proxy refused the tunnel: {why}", unknown))

    def connectionLost(self, reason: Failure | None = None) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.errback(TunnelRefused("the proxy closed the connection instead of opening a tunnel"))


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """Connects to ``authority`` through an HTTP proxy's CONNECT; ``credentials`` is a Proxy-Authorization value."""

    def __init__(self, proxy: IStreamClientEndpoint, authority: str, credentials: str | None) -> None:
        self._proxy = proxy
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if credentials is not None:
            lines.append(f"Proxy-Authorization: {credentials}")
        self._request = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol once the tunnel is open; fails with TunnelRefused."""
        tunnels: list[_Tunnel] = []

        def cancel(cancelled: Deferred[IProtocol]) -> None:
            connecting.cancel()
            for tunnel in tunnels:
                tunnel.abandon()

        def make() -> _Tunnel:
            tunnels.append(_Tunnel(self._request, protocolFactory, ready))
            return tunnels[0]

        ready: Deferred[IProtocol] = Deferred(cancel)
        connecting = self._proxy.connect(Factory.forProtocol(make))
        connecting.addErrback(lambda failure: ready.errback(failure) if not ready.called else None)
        return ready
