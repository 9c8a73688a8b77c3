"""Tunnels through an HTTP proxy: how a TLS upstream behind one is connected to."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure

from vault.handover import Late, Stage, StagedEndpoint

MAX_TUNNEL_HEAD = 16 * 1024


class TunnelRefused(Exception):
    """The proxy did not open the tunnel it was asked for; ``unknown`` where it wants to know who asks (407)."""

    def __init__(self, message: str, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class TunnelLate(Late):
    """The proxy did not answer."""


class _Tunnel(Stage):
    """Asks a proxy for a tunnel (RFC 9110 section 9.3.6), then hands the connection over."""

    def __init__(self, request: bytes, factory: IProtocolFactory, ready: Deferred[IProtocol]) -> None:
        super().__init__(factory, ready)
        self._request = request
        self._head = b""

    def connectionMade(self) -> None:
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
        protocol = self.hand_over()
        if protocol is not None and rest:
            protocol.dataReceived(rest)

    def _refuse(self, why: str, unknown: bool = False) -> None:
        self.fail(TunnelRefused(f"the proxy refused the tunnel: {why}", unknown))

    def lost(self, reason: Failure) -> Exception | Failure:
        """It is the proxy's doing."""
        return TunnelRefused("the proxy closed the connection instead of opening a tunnel")


class TunnelEndpoint(StagedEndpoint):
    """Connects to ``authority`` through an HTTP proxy's CONNECT; ``credentials`` is a Proxy-Authorization value.

    Fails with TunnelRefused, or with TunnelLate where the proxy has not answered in ``seconds``.
    """

    late = TunnelLate

    def __init__(
        self, reactor: Any, proxy: IStreamClientEndpoint, seconds: float, authority: str, credentials: str | None
    ) -> None:
        super().__init__(reactor, proxy, seconds)
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if credentials is not None:
            lines.append(f"Proxy-Authorization: {credentials}")
        self._request = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def stage(self, factory: IProtocolFactory, ready: Deferred[IProtocol]) -> Stage:
        """The question for a tunnel."""
        return _Tunnel(self._request, factory, ready)
