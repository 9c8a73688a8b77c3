"""The HTTP server as a Twisted factory: which connections are taken, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web import http, server
from twisted.web.resource import IResource

from vault import __version__
from vault.clock import steady
from vault.memory import Memory
from vault.web.accesslog import AccessLog
from vault.web.channel import VaultChannel
from vault.web.errors import Fields, Form
from vault.web.limits import ByteRate, Limits, RequestRate
from vault.web.request import VaultRequest
from vault.web.tunnel import Tunnels

SERVER_NAME = b"artifact-vault/" + __version__.encode("ascii")

Networks = tuple[IPv4Network | IPv6Network, ...]


class VaultSite(server.Site):
    """A site of VaultChannels and VaultRequests.

    ``now`` tells the time of day, where the reactor's own seconds are not that.
    ``limits`` and ``access_allow`` (no networks: everyone may ask) hold for all listeners of the site.
    ``tunnels`` are where CONNECT leads.
    ``request_rate`` and ``byte_rate`` are the counters that belong to the limits; a body takes what it may send from
    ``byte_rate``.  ``begun_in_vain`` has what looking ahead has learnt.
    """

    # The protocol itself: Twisted's own wrapper only chooses between HTTP/1.1 and HTTP/2, which is never offered here.
    protocol = VaultChannel  # type: ignore[assignment]  # Twisted declares the wrapper
    requestFactory = VaultRequest
    noisy = False

    def __init__(
        self,
        root: IResource,
        *,
        reactor: IReactorTime,
        now: Callable[[], float] | None = None,
        limits: Limits,
        access_log: AccessLog,
        access_allow: Networks = (),
        server_name: bytes = SERVER_NAME,
        tunnels: Tunnels | None = None,
    ) -> None:
        # No timeout of Twisted's: the channel has its own.  And nothing here takes forms.
        super().__init__(root, timeout=None, reactor=reactor, parsePOSTFormSubmission=False)
        self.now = now or reactor.seconds
        self.limits = limits
        self.access_allow = access_allow
        self.access_log = access_log
        self.server_name = server_name
        self.tunnels = tunnels or Tunnels(reactor)
        self.request_rate = RequestRate(reactor, limits.requests_per_second)
        self.byte_rate = ByteRate(reactor, limits.bytes_per_second)
        self.begun_in_vain = Memory(steady(reactor))
        self.draining = False
        self._channels: set[VaultChannel] = set()
        self._surplus = 0
        self._drained: list[Deferred[None]] = []

    def reconfigure(
        self,
        *,
        root: IResource | None = None,
        limits: Limits | None = None,
        access_allow: Networks | None = None,
        access_log: AccessLog | None = None,
        tunnels: Tunnels | None = None,
    ) -> None:
        """Take what is given from now on; requests under way keep the resource that answers them."""
        if root is not None:
            self.resource = root
        if limits is not None:
            self.limits = limits
            self.request_rate.per_second = limits.requests_per_second
            self.byte_rate.per_second = limits.bytes_per_second
        if access_allow is not None:
            self.access_allow = access_allow
        if access_log is not None:
            self.access_log = access_log
        if tunnels is not None:
            self.tunnels = tunnels

    def form_of(self, target: bytes, status: int, text: str) -> tuple[Form | None, Fields]:
        """The form that clients of a raw target read a refusal in, None for plain text, and fields to go with it."""
        form_of = getattr(self.resource, "form_of", None)  # the root knows whose a target is
        told: tuple[Form, Fields] | None = None if form_of is None else form_of(target, status, text)
        return (None, ()) if told is None else told

    # Connections.

    @property
    def clients(self) -> int:
        """The connections that are open and served."""
        return len(self._channels) - self._surplus

    def admit(self, channel: VaultChannel) -> bool:
        """Count a new connection, as ``surplus`` beyond the limit; False where even those are too many."""
        if len(self._channels) >= 2 * self.limits.max_clients:
            return False
        channel.surplus = self.clients >= self.limits.max_clients
        self._surplus += channel.surplus
        self._channels.add(channel)
        return True

    def departed(self, channel: VaultChannel) -> None:
        """A connection is over."""
        if channel in self._channels:
            self._channels.remove(channel)
            self._surplus -= channel.surplus
        if not self._channels:
            waiting, self._drained = self._drained, []
            for drained in waiting:
                drained.callback(None)

    def drain(self) -> Deferred[None]:
        """Close idle connections now and the others after their response; fires when none is left.

        For an orderly stop, after the ports have stopped listening.
        """
        self.draining = True
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        for channel in list(self._channels):
            channel.close_when_done()
        if not self._channels and self._drained:
            self._drained.remove(drained)
            drained.callback(None)
        return drained

    def abort_all(self) -> None:
        """Reset every connection: the time to finish is over."""
        for channel in list(self._channels):
            channel.abort()

    # What Twisted asks of a factory.

    def acceptableProtocols(self) -> list[bytes]:
        """What ALPN (RFC 7301) offers, the preferred one first; never HTTP/2, whatever is installed beside Twisted."""
        return [b"http/1.1", b"http/1.0"]

    def log(self, request: http.Request) -> None:
        """A response is complete; Twisted's own access log is not used."""
        if isinstance(request, VaultRequest):
            request.log_access()

    def startFactory(self) -> None:
        """Nothing to open; Twisted's would format the time every second."""

    def stopFactory(self) -> None:
        """Nothing to close."""
