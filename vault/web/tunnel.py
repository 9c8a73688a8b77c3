"""CONNECT: a client's connection becomes a tunnel to one of the hosts that the configuration allows (RFC 9110 9.3.6).

    CONNECTING  the target is being reached; what the client sends waits in the channel
    OPEN        bytes go both ways; who does not take them holds up the other side, and only that
    CLOSED      one side has gone, or no byte came for ``idle_timeout``; the other gets what is on its way, and its end

A side that takes nothing of that is cut off: the target ``idle_timeout`` after the client's end, the client as with any
answer, by its channel's ``stall_timeout``.

A tunnel counts as the one request and the one client that it is, and its bytes towards the client as any others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import URI
from zope.interface import implementer

from vault.connect import Endpoints, kind_of
from vault.web.errors import respond

if TYPE_CHECKING:
    from vault.web.request import VaultRequest

CONNECT_TIMEOUT = 10.0

LONGEST_PORT = 20
"""Digits, leading zeros among them."""

Target = tuple[str, int]
"""A host, without brackets, and a port."""

log = Logger()


class Tunnels:
    """Opens tunnels to ``allowed`` targets and to no others."""

    def __init__(self, reactor: Any, allowed: Iterable[Target] = ()) -> None:
        self.reactor = reactor
        self._allowed = frozenset((host.lower(), port) for host, port in allowed)
        # This machine and this link are reached only where they are named as what they are.
        local = {host for host, _ in self._allowed if host == "localhost" or kind_of(host) is not None}
        self._endpoints = Endpoints(reactor, frozenset(local), CONNECT_TIMEOUT, None, None)
        self._local = local

    def open(self, request: VaultRequest) -> None:
        """Answer a CONNECT request."""
        target = parse(request.authority_form() or "")
        if target is None:
            respond(request, 400, "The target of CONNECT is a host and a port, such as host.example:443.")
        elif target not in self._allowed:
            # No status that apt would ask again after.
            respond(request, 403, "This server does not open tunnels (CONNECT) to there; connect_allow lists where to.")
        else:
            ensureDeferred(self._open(request, *target)).addErrback(request.processingFailed)

    async def _open(self, request: VaultRequest, host: str, port: int) -> None:
        tunnel = Tunnel(request, self.reactor)
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        endpoint = self._endpoints.endpointForURI(URI.fromBytes(f"http://{authority}/".encode("ascii")))
        try:
            await endpoint.connect(Factory.forProtocol(lambda: tunnel))
        except Exception as error:  # whatever resolving and connecting may raise
            log.info("no tunnel to {authority}: {error}", authority=authority, error=str(error))
            if self._endpoints.refused(host):
                respond(request, 403, f"{host} is this machine or this link, where tunnels do not lead by a name.")
            else:
                respond(request, 502, f"{authority} cannot be reached.")


def parse(authority: str) -> Target | None:
    """Host and port of an authority; None for anything else."""
    host, colon, port = authority.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    # Python refuses to read thousands of digits as a number.
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= LONGEST_PORT else 0
    usable = host and colon and 0 < number < 65536
    if not usable or (":" in host and not bracketed) or any(char in host for char in "@/[] "):
        return None
    return host.lower(), number


@implementer(IPushProducer)
class Tunnel(Protocol):
    """The connection to the target; as a producer it is the client's side, which the target can hold up."""

    def __init__(self, request: VaultRequest, reactor: Any) -> None:
        assert request.channel is not None
        self._request = request
        self._channel = request.channel
        self._reactor = reactor
        self._timer: IDelayedCall | None = None
        self._held: IDelayedCall | None = None
        self._over = False

    # The target's side.

    def connectionMade(self) -> None:
        """The target is reached: tell the client, and pass on what it has sent already."""
        transport: Any = self.transport
        if self._channel.closing or self._request.channel is None:
            transport.abortConnection()  # the client has gone meanwhile
            return
        self._request.code = 200
        self._request.startedWriting = 1
        self._channel.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._channel.registerProducer(transport, True)
        transport.registerProducer(self, True)
        self._touch()
        self._channel.become(self)

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the target."""
        if self._over:
            return  # nobody is there any more who wants them
        self._touch()
        self._channel.transport.write(data)
        self._request.sentLength += len(data)
        rate = self._request.site.byte_rate
        if rate.per_second:
            granted, _ = rate.allowance(self._request.client_host, len(data))
            if granted < len(data) and self._held is None:
                transport: Any = self.transport
                transport.pauseProducing()
                self._held = self._reactor.callLater((len(data) - granted) / rate.per_second, self._go_on)

    def _go_on(self) -> None:
        self._held = None
        transport: Any = self.transport
        if not self._over:
            transport.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The target has gone."""
        self._rest()
        if self._end():
            self._channel.unregisterProducer()
            self._channel.loseConnection()

    # The client's side.

    def from_client(self, data: bytes) -> None:
        """Bytes from the client."""
        self._touch()
        transport: Any = self.transport
        transport.write(data)

    def client_gone(self) -> None:
        """The client has gone."""
        if self._end():
            transport: Any = self.transport
            transport.unregisterProducer()
            transport.loseConnection()
            # That waits until the target has taken what was sent before, which it need never do.
            self._touch()

    def pauseProducing(self) -> None:
        """The target takes nothing for now: nor is anything taken from the client."""
        self._channel.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The target takes more."""
        if not self._over:
            self._channel.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The target will take no more; ``connectionLost`` follows."""

    # Both.

    def _touch(self) -> None:
        limit = self._request.site.limits.idle_timeout
        if self._timer is not None and self._timer.active():
            self._timer.reset(limit)
        else:
            self._timer = self._reactor.callLater(limit, self._idle)

    def _idle(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def _end(self) -> bool:
        if self._over:
            return False
        self._over = True
        self._rest()
        self._request.log_access()
        return True

    def _rest(self) -> None:
        for call in (self._timer, self._held):
            if call is not None and call.active():
                call.cancel()
