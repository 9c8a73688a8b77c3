"""Connections: which addresses may be reached, and tunnels through a proxy."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import HTTPClientParser
from twisted.web.client import URI

from tests.memory import Net
from vault.connect import MAX_HEAD, Endpoints, bound_head, kind_of
from vault.proxy import TunnelRefused


class KindTests(SynchronousTestCase):
    """What kind of address it is."""

    def test_kinds(self) -> None:
        """Loopback, link-local, metadata and unusable addresses are told, also inside IPv6 and with a zone."""
        table = {
            "127.0.0.1": "loopback",
            "127.255.0.1": "loopback",
            "::1": "loopback",
            "::ffff:127.0.0.1": "loopback",
            "169.254.169.254": "link-local",
            "fe80::1": "link-local",
            "fe80::1%eth0": "link-local",
            "::ffff:169.254.0.1": "link-local",
            "0.0.0.0": "unusable",
            "::": "unusable",
            "224.0.0.1": "unusable",
            "ff02::1": "unusable",
            "fd00:ec2::254": "metadata",
            "FD00:0EC2:0::0254": "metadata",
            "fd20:ce::254": "metadata",
            "100.100.100.200": "metadata",
            "::ffff:168.63.129.16": "metadata",
            "64:ff9b::a9fe:a9fe": "link-local",
            "64:ff9b::c000:207": None,
            "2002:7f00:1::": "loopback",
            "::127.0.0.1": "loopback",
            "64:ff9b:1::7f00:1": "loopback",
            "64:ff9b:1:808:8:800::": None,
            "64:ff9b:1:a9fe:a9:fe00::": "link-local",
            "64:ff9b:1:12a9:fe:a9fe::": "link-local",
            "64:ff9b:1:1234:a9:fea9:fe00::": "link-local",
            "::ffff:0:127.0.0.1": "loopback",
            "2001:0:c000:207::80ff:fffe": "loopback",
            "2001:4860:4860::8888": None,
            "fd00:ec2::253": None,
            "10.0.0.1": None,
            "192.0.2.1": None,
            "2001:db8::1": None,
            "localhost": None,
            "": None,
        }
        for address, kind in table.items():
            self.assertEqual(kind_of(address), kind, address)


class HeadTests(SynchronousTestCase):
    """The head of an answer."""

    def test_bound(self) -> None:
        """Of one that is too large nothing more is looked at, however much of it has come at once."""
        transport = StringTransport()
        parser = HTTPClientParser(None, lambda rest: None)
        parser.makeConnection(transport)
        bound_head(parser, transport)
        taken: list[bytes] = []
        parser.headerReceived = lambda name, value: taken.append(value)
        parser.dataReceived(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000)
        self.assertTrue(transport.disconnected)
        self.assertLess(len(taken), MAX_HEAD)
        self.assertEqual(parser.clearLineBuffer(), b"")


class Recorder(Protocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        """Note it."""
        self.lost = True


class EndpointTests(SynchronousTestCase):
    """The way to a host."""

    def setUp(self) -> None:
        self.net = Net()
        self.server = self.net.origin("origin.test", port=443)
        self.proxy = self.net.origin("proxy.test", port=3128)
        self.protocols: list[Recorder] = []

    def endpoints(self, *hosts: str, proxy: str | None = None) -> Endpoints:
        """Endpoints for a backend of these hosts."""
        return Endpoints(self.net, frozenset(hosts), 10.0, proxy, None)

    def connect(self, endpoints: Endpoints, url: bytes) -> Any:
        """Connect to a URL's host."""
        factory = Factory.forProtocol(Recorder)
        connecting = endpoints.endpointForURI(URI.fromBytes(url)).connect(factory)
        self.net.pass_time(1)
        return connecting

    def test_configured_loopback(self) -> None:
        """A host of the configuration may be on this machine."""
        local = self.net.origin("local.test", "127.0.0.1")
        endpoints = self.endpoints("local.test")
        self.successResultOf(self.connect(endpoints, b"http://local.test/"))
        self.assertEqual(local.open_wires, 1)
        self.assertFalse(endpoints.forbidden("127.0.0.1"))
        self.assertTrue(endpoints.forbidden("169.254.1.1"))

    def test_other_loopback(self) -> None:
        """A host that only a redirect named must not be, whatever its name looks like."""
        local = self.net.origin("local.test", "127.0.0.1")
        endpoints = self.endpoints("origin.test")
        self.failureResultOf(self.connect(endpoints, b"http://local.test/"))
        self.assertEqual(local.wires, [])
        self.assertTrue(endpoints.refused("local.test"))
        self.assertFalse(endpoints.refused("local.test"))

    def test_mixed_addresses(self) -> None:
        """Of a host's addresses the allowed ones are used."""
        mixed = self.net.origin("mixed.test", "127.0.0.1", "192.0.2.44")
        self.successResultOf(self.connect(self.endpoints("origin.test"), b"http://mixed.test/"))
        self.assertEqual(mixed.wires[0].getPeer().host, "192.0.2.44")

    def test_second_address(self) -> None:
        """Where a host's first address does not answer, the second is tried."""
        self.net.origin("two.test", "192.0.2.45", "192.0.2.46")
        del self.net.origins["192.0.2.45", 80]
        self.successResultOf(self.connect(self.endpoints("two.test"), b"http://two.test/"))

    def test_large_reads(self) -> None:
        """Much is taken from a socket at a time."""
        self.net.origin("plain.test")
        protocol = self.successResultOf(self.connect(self.endpoints("plain.test"), b"http://plain.test/"))
        self.assertGreater(protocol.transport.bufferSize, 65536)

    def test_tunnel(self) -> None:
        """Bytes that come right behind the proxy's answer belong to the tunnel."""
        endpoints = self.endpoints("origin.test", proxy="http://proxy.test:3128")
        self.proxy.answer = lambda asked: asked.send(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello")
        protocol = self.successResultOf(self.connect(endpoints, b"http://[2001:db8::1]:8443/"))
        self.assertEqual(self.proxy.last.target, "[2001:db8::1]:8443")
        self.assertIsNone(self.proxy.last.get("Proxy-Authorization"))
        self.assertEqual(protocol.data, b"hello")
        protocol.transport.write(b"there")
        self.assertEqual(self.proxy.last.wire.tunnel, b"there")
        self.proxy.last.close()
        self.assertTrue(protocol.lost)

    def test_slow_answer(self) -> None:
        """The proxy's answer may come byte by byte."""
        endpoints = self.endpoints("origin.test", proxy="http://proxy.test:3128")
        connecting = self.connect(endpoints, b"http://origin.test/")
        for byte in b"HTTP/1.0 200 OK\r\n\r\n":
            self.assertNoResult(connecting)
            self.proxy.last.send(bytes([byte]))
        self.successResultOf(connecting)

    def test_abandoned(self) -> None:
        """A tunnel nobody waits for any more is closed, before and after the connection stands."""
        endpoints = self.endpoints("origin.test", proxy="http://proxy.test:3128")
        for silent in (False, True):
            self.proxy.silent = silent
            connecting = self.connect(endpoints, b"http://origin.test/")
            connecting.cancel()
            self.net.pass_time(1)
            self.failureResultOf(connecting)
            self.assertEqual(self.proxy.open_wires, 0)

    def test_endless(self) -> None:
        """A proxy whose answer has no end is cut off."""
        endpoints = self.endpoints("origin.test", proxy="http://proxy.test:3128")
        connecting = self.connect(endpoints, b"http://origin.test/")
        self.proxy.last.send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 4000)
        self.failureResultOf(connecting, TunnelRefused)
        self.net.pass_time()
        self.assertEqual(self.proxy.open_wires, 0)
