"""Connections to upstreams: straight or through a proxy, in plain text or TLS, and only to addresses that are allowed.

A host named in a backend's configuration may be anywhere.  A host that only a redirect or a token challenge named must
not be this machine or this link (loopback, link-local), nor one of the addresses at which clouds give a machine its own
credentials (METADATA), unless the backend itself lives there: else an upstream could make the vault read what only the
vault can reach.  Private networks are allowed: mirrors redirect within them.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import URI, BrowserLikePolicyForHTTPS
from twisted.web.http import _DataLoss
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import directlyProvides, implementer

from vault.errors import BrokenAnswer
from vault.handover import TLSEndpoint
from vault.proxy import TunnelEndpoint
from vault.values import pem_certificates

RECEIVE_SIZE = 448 * 1024
"""Bytes taken from a socket at a time: seven times Twisted's default, because each time costs a pass through Python.

With what the writer lets wait before it pauses the upstream it stays below 1 MiB.
"""

MAX_HEAD = 64 * 1024

STAND_IN = b"upstream.invalid"

METADATA = frozenset(
    map(
        ipaddress.ip_address,
        (
            "fd00:ec2::254",  # AWS
            "fd00:ec2::23",  # AWS, for pods
            "fd20:ce::254",  # Google Cloud
            "100.100.100.200",  # Alibaba Cloud
            "168.63.129.16",  # Azure's wire server
        ),
    )
)
"""Metadata services that are not link-local; 169.254.169.254 and most others are."""

TRANSLATED = (
    ipaddress.ip_network("64:ff9b::/96"),  # RFC 6052 section 2.1
    ipaddress.ip_network("::ffff:0:0:0/96"),  # RFC 2765 section 2.1
    ipaddress.ip_network("::/96"),  # RFC 4291 section 2.5.5.1; ::1 and :: are in it, and are no IPv4 addresses
)


LOCAL = ipaddress.ip_network("64:ff9b:1::/48")  # RFC 8215: of this a network may use any part, of any length


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to."""
    if address.teredo is not None:
        return address.teredo[1]  # RFC 4380 section 4
    value = int(address)
    if address in LOCAL:
        # RFC 6052 section 2.2: the octet behind bit 64 is passed over, and what is behind the address is 0.
        behind = (value >> 64 & 0xFFFF) << 56 | value & (1 << 56) - 1
        shift = next((rest for rest in (40, 32, 24) if not behind & (1 << rest) - 1), 0)
        return ipaddress.IPv4Address(behind >> shift & 0xFFFFFFFF)
    embedded = any(address in network for network in TRANSLATED) and value > 1
    return ipaddress.IPv4Address(value & 0xFFFFFFFF) if embedded else None


def kind_of(address: str) -> str | None:
    """``"loopback"``, ``"link-local"``, ``"metadata"`` or ``"unusable"`` for an address of that kind, else None."""
    host = address.partition("%")[0].rstrip(".")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        # The other spellings of an IPv4 address that resolvers take: 127.1, 2130706433, 0x7f.1
        if re.fullmatch(r"[0-9a-fA-FxX.]+", host) is None:
            return None
        try:
            found = ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return None
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or _translated(found) or found
    if found.is_loopback:
        return "loopback"
    if found.is_link_local:
        return "link-local"
    if found in METADATA:
        return "metadata"
    return "unusable" if found.is_unspecified or found.is_multicast else None


@implementer(IHostnameResolver)
class _Resolver:
    """Another resolver, which may be asked for another name, or told to someone else."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Resolve by the other one."""
        found: IHostResolution = self._inner.resolveHostName(
            self._receiver(resolutionReceiver, hostName),
            self._name(hostName),
            portNumber,
            addressTypes,
            transportSemantics,
        )
        return found

    def _receiver(self, outer: IResolutionReceiver, name: str) -> IResolutionReceiver:
        return outer

    def _name(self, name: str) -> str:
        return name


class _AllowedOnly(_Resolver):
    """A resolver that passes over addresses of forbidden kinds, and says so to ``refused``."""

    def __init__(self, inner: Any, forbidden: Callable[[str], bool], refused: Callable[[str], None]) -> None:
        super().__init__(inner)
        self._forbidden = forbidden
        self._refused = refused

    def _receiver(self, outer: IResolutionReceiver, name: str) -> IResolutionReceiver:
        forbidden, refused = self._forbidden, self._refused

        @implementer(IResolutionReceiver)
        class Receiver:
            kinds: set[bool]

            def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
                self.kinds = set()
                outer.resolutionBegan(resolutionInProgress)

            def addressResolved(self, address: IAddress) -> None:
                away = forbidden(getattr(address, "host", ""))
                self.kinds.add(away)
                if not away:
                    outer.addressResolved(address)

            def resolutionComplete(self) -> None:
                if self.kinds == {True}:
                    refused(name)
                outer.resolutionComplete()

        return Receiver()


class _Named(_Resolver):
    """A resolver that looks up one name, whatever it is asked for."""

    def __init__(self, inner: Any, wanted: str) -> None:
        super().__init__(inner)
        self._wanted = wanted

    def _name(self, name: str) -> str:
        return self._wanted


class _ReactorView:
    """The reactor with another name resolver, for HostnameEndpoint, which takes its resolver from the reactor."""

    def __init__(self, reactor: Any, resolver: IHostnameResolver) -> None:
        self._reactor = reactor
        self.nameResolver = resolver
        directlyProvides(self, IReactorPluggableNameResolver)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IStreamClientEndpoint)
class _Noted:
    """An endpoint whose connections are noted once they stand."""

    def __init__(self, inner: IStreamClientEndpoint, note: Callable[[Any], None]) -> None:
        self._inner = inner
        self._note = note

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, note the connection, and fire with the protocol."""

        def connected(protocol: IProtocol) -> IProtocol:
            self._note(protocol)
            return protocol

        return self._inner.connect(protocolFactory).addCallback(connected)


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Endpoints for one backend's agent.  ``hosts`` are the host names its configuration names."""

    def __init__(
        self, reactor: Any, hosts: frozenset[str], connect_timeout: float, proxy: str | None, ca_file: Path | None
    ) -> None:
        self._reactor = reactor
        self._hosts = hosts
        self._timeout = connect_timeout
        self._proxy = urlsplit(proxy) if proxy else None
        self._policy = tls_policy(ca_file)
        self._lives_on = {kind for host in hosts if (kind := kind_of(host)) is not None}
        self._refused: set[str] = set()
        # A Response itself tells neither its framing nor its Connection field.
        self.framings: WeakKeyDictionary[Any, Framing] = WeakKeyDictionary()

    @property
    def proxy_credentials(self) -> str | None:
        """The Proxy-Authorization value for the configured proxy."""
        if self._proxy is None or self._proxy.username is None:
            return None
        pair = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return "Basic " + base64.b64encode(pair.encode()).decode("ascii")

    @property
    def proxy_name(self) -> str | None:
        """What to call the configured proxy where it is to blame."""
        return None if self._proxy is None else f"the proxy {self._proxy.netloc.rpartition('@')[2]}"

    def proxy_endpoint(self) -> IStreamClientEndpoint:
        """The proxy's own address."""
        assert self._proxy is not None
        host, port = self._proxy.hostname or "", self._proxy.port or 80
        return _Noted(self._straight(self._reactor, host, port), self._note)

    def _straight(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
        name = host.encode()
        if "_" in host:
            # No host is named so by RFC 952, and Twisted looks none up; container networks have them all the same.
            reactor, name = _ReactorView(reactor, _Named(reactor.nameResolver, host)), STAND_IN
        return HostnameEndpoint(reactor, name, port, timeout=self._timeout)

    def forbidden(self, address: str) -> bool:
        """True for an address that only a redirect named and that the vault must not contact."""
        kind = kind_of(address)
        return kind is not None and kind not in self._lives_on

    def refused(self, host: str) -> bool:
        """True, once, when the last look-up of ``host`` found only forbidden addresses."""
        found = host in self._refused
        self._refused.discard(host)
        return found

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """The way to the host of a URI."""
        host = uri.host.decode("ascii")
        if self._proxy is not None:
            authority = f"[{host}]:{uri.port}" if ":" in host else f"{host}:{uri.port}"
            inner: IStreamClientEndpoint = TunnelEndpoint(
                self._reactor, self.proxy_endpoint(), self._timeout, authority, self.proxy_credentials
            )
        else:
            reactor = self._reactor
            if host not in self._hosts:
                reactor = _ReactorView(reactor, _AllowedOnly(reactor.nameResolver, self.forbidden, self._refused.add))
            inner = self._straight(reactor, host, uri.port)
        if uri.scheme == b"https":
            try:
                creator = self._policy.creatorForNetloc(uri.host, uri.port)
            except UnicodeError as error:
                raise BrokenAnswer(
                    f"{host} cannot be reached by https: its name is none that a certificate is checked for here"
                ) from error
            inner = TLSEndpoint(self._reactor, inner, self._timeout, creator)
        return _Noted(inner, lambda protocol: self._note(protocol, host))

    def _note(self, protocol: Any, host: str | None = None) -> None:
        transport = protocol.transport
        request = getattr(protocol, "request", None)

        def remembering(parameters: Any) -> Deferred[Any]:
            assert request is not None
            asked: Deferred[Any] = request(parameters)
            parser = getattr(protocol, "_parser", None)
            bound_head(parser, transport)
            tell_breaks(parser)

            def remember(response: Any) -> Any:
                self.framings[response] = Framing.of(parser)
                return response

            return asked.addCallback(remember)

        if request is not None:
            protocol.request = remembering
        if isinstance(getattr(transport, "bufferSize", None), int):
            transport.bufferSize = RECEIVE_SIZE
        if host in self._hosts and self._proxy is None:
            kind = kind_of(getattr(transport.getPeer(), "host", ""))
            if kind is not None:
                self._lives_on.add(kind)


@dataclass(frozen=True, slots=True)
class Framing:
    """What Twisted's parser knows of a response and does not tell: its Connection field, and how its body ends."""

    options: tuple[bytes, ...] = ()
    by_closing: bool = False

    @classmethod
    def of(cls, parser: Any) -> Framing:
        """Read it off the parser, while it still has the response."""
        fields = getattr(parser, "connHeaders", None)
        decoder = getattr(parser, "bodyDecoder", None)
        return cls(
            () if fields is None else tuple(fields.getRawHeaders(b"Connection", [])),
            decoder is not None and getattr(decoder, "contentLength", 0) is None,
        )


def bound_head(parser: Any, transport: Any) -> None:
    """Break the connection when a response's head becomes larger than MAX_HEAD: Twisted limits single lines only."""
    receive = getattr(parser, "lineReceived", None)
    if receive is None:
        return
    taken = 0

    def counted(line: bytes) -> None:
        nonlocal taken
        taken += len(line) + 2
        if taken > MAX_HEAD:
            parser.clearLineBuffer()  # to take what else came line by line would be slow work for nothing
            transport.abortConnection()
        else:
            receive(line)

    parser.lineReceived = counted


def tell_breaks(parser: Any) -> None:
    """Have a body that only the closing of its connection ends fail where that was no orderly close.

    Twisted takes a reset, and TLS that ends without close_notify, for its end as well (RFC 9112 sections 8 and 9.8).
    """
    lost = getattr(parser, "connectionLost", None)
    if lost is None:
        return

    def ended(reason: Any = None) -> None:
        by_closing = getattr(getattr(parser, "bodyDecoder", None), "contentLength", 0) is None
        if by_closing and isinstance(reason, Failure) and not reason.check(ConnectionDone):
            parser.bodyDecoder = _BrokenOff()
        lost(reason)

    parser.connectionLost = ended


class _BrokenOff:
    """Stands for the decoder of a body that broke off."""

    def noMoreData(self) -> None:
        """What a decoder says in the middle of a body whose length it knows."""
        raise _DataLoss("the connection broke before the end of the body")


def tls_policy(ca_file: Path | None) -> IPolicyForHTTPS:
    """How certificates are verified: against the system's authorities, or only those in ``ca_file`` (PEM)."""
    if ca_file is None:
        return BrowserLikePolicyForHTTPS()
    from twisted.internet.ssl import Certificate

    authorities = [Certificate.loadPEM(piece) for piece in pem_certificates(ca_file.read_bytes())]
    return BrowserLikePolicyForHTTPS(trustRoot=trustRootFromCertificates(authorities))
