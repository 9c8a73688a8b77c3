"""Connections: heads of bounded size and time, refusals, pipelining, and clients that take nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from vault.web.accesslog import AccessLog
from vault.web.channel import MAX_HEAD, VaultChannel
from vault.web.request import VaultRequest
from vault.web.site import VaultSite


@dataclass(frozen=True)
class TestLimits:
    """Limits without rates."""

    __test__ = False
    requests_per_second: float | None = None
    bytes_per_second: int | None = None
    max_clients: int = 10
    header_timeout: float = 10.0
    idle_timeout: float = 60.0
    stall_timeout: float = 40.0


class Leaf(Resource):
    """Answers with what ``answer`` returns, and remembers its requests."""

    isLeaf = True

    def __init__(self, answer: Callable[[VaultRequest], Any]) -> None:
        super().__init__()
        self.answer = answer
        self.requests: list[VaultRequest] = []

    def render_GET(self, request: VaultRequest) -> Any:
        """Answer a GET or HEAD."""
        self.requests.append(request)
        return self.answer(request)

    def render_POST(self, request: VaultRequest) -> Any:
        """Answer a POST."""
        return self.render_GET(request)


@implementer(IHalfCloseableDescriptor)
class HalfCloseTransport(StringTransport):
    """A transport that can close one direction, as a socket can."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        """No more is written."""
        self.half_closed = True

    def readConnectionLost(self, reason: Failure) -> None:
        """Not called here."""

    def writeConnectionLost(self, reason: Failure) -> None:
        """Not called here."""


@implementer(ISSLTransport)
class TLSTransport(StringTransport):
    """A transport that is taken for TLS over something that is no socket."""

    transport = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no socket."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """There is no socket."""


class Edge:
    """A site with a leaf for a root, in memory; ``lines`` is its access log."""

    def __init__(self, answer: Callable[[VaultRequest], Any] = lambda request: b"hello", **limits: Any) -> None:
        self.clock = Clock()
        self.clock.advance(1795467600.0)
        self.lines: list[str] = []
        log = Logger(namespace="vault.access", observer=LogPublisher(lambda event: self.lines.append(event["line"])))
        self.leaf = Leaf(answer)
        self.site = VaultSite(
            self.leaf, reactor=self.clock, limits=replace(TestLimits(), **limits), access_log=AccessLog("text", log)
        )

    def connect(self, host: Any = "192.0.2.1", transport: StringTransport | None = None) -> Connection:
        """A new client connection."""
        peer = IPv4Address("TCP", host, 40000) if isinstance(host, str) else host
        return Connection(self.site, peer, StringTransport(lenient=True) if transport is None else transport)


class Connection:
    """The server's end of a client connection."""

    def __init__(self, site: VaultSite, peer: Any, transport: StringTransport) -> None:
        channel = site.buildProtocol(peer)
        assert isinstance(channel, VaultChannel)
        self.channel = channel
        self.transport = transport
        transport.peerAddr = peer
        channel.makeConnection(transport)

    def send(self, data: bytes) -> bytes:
        """What the server sends for ``data``."""
        self.transport.clear()
        self.channel.dataReceived(data)
        return self.transport.value()

    def get(self, target: bytes = b"/x", *fields: bytes, method: bytes = b"GET") -> bytes:
        """What the server sends for a simple request."""
        return self.send(b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: vault", *fields, b"", b""]))

    def leave(self) -> None:
        """The client closes."""
        self.channel.connectionLost(Failure(ConnectionDone()))


GET = b"GET /x HTTP/1.1\r\nHost: vault\r\n\r\n"


class HeadTests(SynchronousTestCase):
    """Request heads that are too large, wrong or late."""

    def setUp(self) -> None:
        self.edge = Edge()
        self.client = self.edge.connect()

    def assertRefused(self, answer: bytes, status: bytes, line: str) -> None:
        """The answer is plain text with ``status``, the connection closes, and there is one log line with ``line``."""
        self.assertTrue(answer.startswith(b"HTTP/1.1 " + status), answer)
        self.assertIn(b"\r\nConnection: close\r\n", answer)
        self.assertIn(b"\r\nContent-Type: text/plain; charset=utf-8\r\n", answer)
        self.assertTrue(answer.endswith(b".\n"))
        self.assertTrue(self.client.transport.disconnecting)
        self.assertEqual(len(self.edge.lines), 1)
        self.assertIn(line, self.edge.lines[0])
        self.assertTrue(self.edge.lines[0].endswith(" -"))
        self.assertEqual(self.edge.leaf.requests, [])

    def test_large(self) -> None:
        """A head of nearly 32 KiB is taken."""
        field = b"X-Large: " + b"a" * (MAX_HEAD - 100)
        self.assertIn(b"hello", self.client.get(b"/x", field))

    def test_too_large(self) -> None:
        """A head of more than 32 KiB in all is refused with 431."""
        fields = [b"X-%d: " % number + b"a" * 1000 for number in range(40)]
        answer = self.client.get(b"/x", *fields)
        self.assertRefused(answer, b"431 Request Header Fields Too Large\r\n", '"GET /x HTTP/1.1" 431 ')

    def test_too_long_line(self) -> None:
        """A line without an end is refused with 431."""
        answer = self.client.send(b"GET /" + b"a" * 40000)
        self.assertRefused(answer, b"431 ", '"-" 431 ')

    def test_too_many(self) -> None:
        """More than 500 fields are refused with 431."""
        answer = self.client.get(b"/x", *[b"A: b"] * 600)
        self.assertRefused(answer, b"431 ", '"GET /x HTTP/1.1" 431 ')

    def test_malformed(self) -> None:
        """What is not HTTP gets one readable sentence."""
        answer = self.client.send(b"HELO there\r\n\r\n")
        self.assertRefused(answer, b"400 Bad Request\r\n", '"HELO there" 400 ')
        self.assertIn(b"\r\n\r\nThe request is not valid HTTP/1.1.\n", answer)

    def test_malformed_field(self) -> None:
        """A field without a colon is refused, and nothing behind it is read."""
        answer = self.client.get(b"/x", b"no colon", b"A: b")
        self.assertRefused(answer, b"400 ", '"GET /x HTTP/1.1" 400 ')

    def test_two_framings(self) -> None:
        """Two ways to tell the length of a body are refused: they serve to smuggle requests."""
        answer = self.client.get(b"/x", b"Content-Length: 3", b"Transfer-Encoding: chunked", method=b"POST")
        self.assertRefused(answer, b"400 ", '"POST /x HTTP/1.1" 400 ')

    def test_no_host(self) -> None:
        """HTTP/1.1 without Host is refused, as the standard demands."""
        answer = self.client.send(b"GET /x HTTP/1.1\r\n\r\n")
        self.assertRefused(answer, b"400 ", '"GET /x HTTP/1.1" 400 ')

    def test_no_such_host(self) -> None:
        """So is a Host that is no host with an optional port, whatever the version."""
        self.edge = Edge(max_clients=100)
        for version in (b"1.1", b"1.0"):
            for host in (
                b"a b/c?d", b"user@host", b"host:port", b"[::1", b"a[::1]", b"%zz", b"host/", b"h\xc3\xa4",
                b"a:65536", b"a:99999", b"[::1]:070000", b"a:" + b"9" * 5000,
            ):  # fmt: skip
                client = self.edge.connect()
                answer = client.send(b"GET /x HTTP/%b\r\nHost: %b\r\n\r\n" % (version, host))
                self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), (host, answer))
        for host in (
            b"",
            b"vault",
            b"Vault.example:8080",
            b"192.0.2.1:",
            b"vault:65535",
            b"vault:00080",
            b"[2001:db8::1]:80",
            b"[fe80::1%25a]",
            b"%2Frun",
        ):
            answer = self.edge.connect().send(b"GET /x HTTP/1.1\r\nHost: %b \r\n\r\n" % host)
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), (host, answer))

    def test_http_1_0(self) -> None:
        """HTTP/1.0 needs no Host; its connection is closed after the answer."""
        self.assertTrue(self.client.send(b"GET /x HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 OK\r\n"))
        self.assertTrue(self.client.transport.disconnecting)

    def test_empty_lines(self) -> None:
        """A few empty lines before a request are passed over; a client that sends many is refused."""
        self.assertRefused(self.client.send(b"\r\n" * 20 + GET), b"400 ", '"-" 400 ')
        for count in range(9):
            client = self.edge.connect()
            self.assertIn(b"hello", client.send(b"\r\n" * count + GET), count)
            self.assertIn(b"hello", client.send(b"\r\n" * count + GET), count)
            client.leave()
        self.assertEqual(len(self.edge.leaf.requests), 18)

    def test_empty_lines_alone(self) -> None:
        """They begin no head: the connection stays idle, and is closed in silence, also by a stop."""
        for stop in (False, True):
            client = self.edge.connect()
            for piece in (b"\r", b"\n", b"\r\n"):
                client.send(piece)
                self.edge.clock.advance(9)
            self.edge.clock.advance(2)
            if stop:
                client.channel.close_when_done()
            else:
                self.edge.clock.advance(60)
            self.assertEqual((client.transport.value(), client.transport.disconnecting), (b"", True))

    def test_raw_utf_8(self) -> None:
        """A target with raw UTF-8 is taken as if it were percent-encoded."""
        self.client.get("/\u00e4\u00ff".encode())
        self.assertEqual(self.edge.leaf.requests[0].uri, b"/%C3%A4%C3%BF")

    def test_slow(self) -> None:
        """A client that sends its head byte by byte has no more time than others."""
        for byte in GET[:20]:
            self.assertEqual(self.client.send(bytes([byte])), b"")
            self.edge.clock.advance(0.49)
        self.edge.clock.advance(0.2)
        self.assertRefused(self.client.transport.value(), b"408 Request Timeout\r\n", '"GET /x HTTP/1.1" 408 ')

    def test_slow_pipelined(self) -> None:
        """The time for a head runs also when its first byte came behind the request before."""
        self.client.send(GET + b"G")
        self.client.transport.clear()
        self.edge.clock.advance(0)  # the turn in which it is looked at
        self.edge.clock.advance(10)
        self.assertTrue(self.client.transport.value().startswith(b"HTTP/1.1 408 "))

    def test_idle(self) -> None:
        """A connection kept open without a request is closed without a word."""
        self.client.get()
        self.client.transport.clear()
        self.edge.clock.advance(59)
        self.assertFalse(self.client.transport.disconnecting)
        self.edge.clock.advance(1)
        self.assertTrue(self.client.transport.disconnecting)
        self.assertEqual(self.client.transport.value(), b"")

    def test_patience_with_answers(self) -> None:
        """However long an answer takes, the connection waits for it."""
        self.edge.leaf.answer = lambda request: NOT_DONE_YET
        self.client.get()
        self.edge.clock.advance(100_000)
        self.assertFalse(self.client.transport.disconnecting)
        self.assertEqual(self.edge.clock.getDelayedCalls(), [])

    def test_tls(self) -> None:
        """TLS on a plain port is answered at once, in plain HTTP, before the handshake is complete."""
        answer = self.client.send(b"\x16\x03\x01\x02")
        self.assertRefused(answer, b"400 Bad Request\r\n", '"-" 400 ')
        self.assertIn(b"plain HTTP", answer)

    def test_tls_later(self) -> None:
        """A TLS port takes no first byte for a mistake."""
        self.assertEqual(self.edge.connect(transport=TLSTransport(lenient=True)).send(b"\x16\x03\x01"), b"")

    def test_linger(self) -> None:
        """A refusal is followed by an end of file; what the client still sends is read, so that no reset kills it."""
        transport = HalfCloseTransport(lenient=True)
        client = self.edge.connect(transport=transport)
        self.assertTrue(client.send(b"nonsense\r\n").startswith(b"HTTP/1.1 400 "))
        self.assertTrue(transport.half_closed)
        self.assertFalse(transport.disconnecting)
        self.assertEqual(client.send(GET), b"")
        self.edge.clock.advance(2)
        self.assertTrue(transport.disconnecting)

    def test_left_early(self) -> None:
        """A client that leaves within its head leaves no line and no timer."""
        self.client.send(b"GET /x HTTP/1.1\r\n")
        self.client.leave()
        self.assertEqual(self.edge.lines, [])
        self.assertEqual(self.edge.clock.getDelayedCalls(), [])


class BodyTests(SynchronousTestCase):
    """Request bodies."""

    def setUp(self) -> None:
        self.edge = Edge(lambda request: b"%d" % len(request.content.read()))
        self.client = self.edge.connect()

    def test_small(self) -> None:
        """A body of up to 1 MiB is kept in memory for the resource."""
        head = b"POST /x HTTP/1.1\r\nHost: vault\r\nContent-Length: 1048576\r\n\r\n"
        self.assertTrue(self.client.send(head + bytes(1 << 20)).endswith(b"\r\n\r\n1048576"))

    def test_announced(self) -> None:
        """A larger one is refused before it is sent: the client is not told to continue."""
        answer = self.client.get(b"/x", b"Content-Length: 1048577", b"Expect: 100-continue", method=b"POST")
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "))
        self.assertTrue(self.client.transport.disconnecting)
        self.assertIn('"POST /x HTTP/1.1" 413 ', self.edge.lines[0])

    def test_announced_at_length(self) -> None:
        """So is one whose length has more digits than Python reads as a number."""
        answer = self.client.get(b"/x", b"content-length:  " + 5000 * b"9" + b" ", method=b"POST")
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer)
        self.assertTrue(self.client.transport.disconnecting)
        self.assertIn('"POST /x HTTP/1.1" 413 ', self.edge.lines[0])

    def test_chunked(self) -> None:
        """One of unknown length is refused when it becomes too large, and not read any further."""
        self.client.get(b"/x", b"Transfer-Encoding: chunked", method=b"POST")
        chunk = b"80000\r\n" + bytes(0x80000) + b"\r\n"
        self.assertEqual(self.client.send(chunk + chunk), b"")
        self.assertTrue(self.client.send(b"1\r\nx\r\n0\r\n\r\n" + GET).startswith(b"HTTP/1.1 413 "))
        self.assertEqual(self.edge.leaf.requests, [])
        self.assertEqual(len(self.edge.lines), 1)

    def test_slow(self) -> None:
        """A body must be complete in time, however steadily it trickles."""
        self.client.get(b"/x", b"Content-Length: 100", method=b"POST")
        for _ in range(60):
            self.client.send(b"x")
            self.edge.clock.advance(1)
        self.assertTrue(self.client.transport.value().startswith(b"HTTP/1.1 408 "))
        self.assertIn('"POST /x HTTP/1.1" 408 ', self.edge.lines[0])

    def test_idle_behind_it(self) -> None:
        """Behind a body the connection is idle as behind any request: it may stay so, and a stop closes it."""
        for head, body in ((b"Content-Length: 3", b"abc"), (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n")):
            client = self.edge.connect()
            client.send(b"POST /x HTTP/1.1\r\nHost: vault\r\n" + head + b"\r\n\r\n" + body)
            self.edge.clock.pump([0, 11])
            self.assertTrue(client.transport.value().endswith(b"\r\n\r\n3"), client.transport.value())
            client.channel.close_when_done()
            self.assertTrue(client.transport.disconnecting)


class PipelineTests(SynchronousTestCase):
    """Several requests on one connection."""

    def test_together(self) -> None:
        """Requests sent together are answered in their order."""
        edge = Edge(lambda request: request.uri)
        client = edge.connect()
        client.send(b"".join(GET.replace(b"/x", b"/%d" % number) for number in range(20)))
        edge.clock.pump([0] * 20)
        self.assertEqual(client.transport.value().count(b"HTTP/1.1 200 OK"), 20)
        self.assertEqual([f"/{number} " in line for number, line in enumerate(edge.lines)], [True] * 20)

    def test_waiting(self) -> None:
        """A request waits for the answer before it, and a wrong one behind it is refused only then."""
        edge = Edge(lambda request: NOT_DONE_YET)
        client = edge.connect()
        self.assertEqual(client.send(GET + GET + b"wrong\r\n"), b"")
        for _ in range(2):
            edge.leaf.requests[-1].write(b"a")
            edge.leaf.requests[-1].finish()
            edge.clock.advance(0)
        self.assertEqual(len(edge.leaf.requests), 2)
        self.assertEqual(client.transport.value().count(b"HTTP/1.1 200 OK"), 2)
        self.assertIn(b"HTTP/1.1 400 ", client.transport.value())
        self.assertEqual(["200" in line for line in edge.lines], [True, True, False])

    def test_in_turns(self) -> None:
        """Others have their turn between two that came together, and for a client that has left no more is done."""
        edge = Edge()
        client = edge.connect()
        client.send(GET * 100)
        client.send(GET * 100)
        self.assertEqual(len(edge.lines), 1)
        client.leave()
        edge.clock.pump([0] * 200)
        self.assertEqual(len(edge.lines), 1)

    def test_answers_not_taken(self) -> None:
        """While a client does not take its answers it gets no more of them, and its wait is no fault."""
        edge = Edge()
        client = edge.connect()
        client.send(GET * 3)
        client.channel.pauseProducing()
        edge.clock.pump([1] * 30)
        self.assertEqual(len(edge.lines), 1)
        client.channel.resumeProducing()
        edge.clock.pump([0] * 5)
        self.assertEqual(len(edge.lines), 3)

    def test_aborted(self) -> None:
        """After an aborted response nothing more is read, not even what has come already."""
        edge = Edge(lambda request: NOT_DONE_YET)
        client = edge.connect()
        client.send(GET + GET)
        edge.leaf.requests[0].write(b"part")
        edge.leaf.requests[0].abort()
        client.send(GET)
        self.assertTrue(client.transport.disconnected)
        self.assertEqual(len(edge.leaf.requests), 1)
        client.leave()
        self.assertEqual(len(edge.lines), 1)
        self.assertTrue(edge.lines[0].endswith(" aborted"))

    def test_close(self) -> None:
        """``close`` among other connection options closes too."""
        client = Edge().connect()
        self.assertIn(b"\r\nConnection: close\r\n", client.get(b"/x", b"Connection: TE, close"))
        self.assertTrue(client.transport.disconnecting)


class StallTests(SynchronousTestCase):
    """Clients that take nothing of the response."""

    def setUp(self) -> None:
        self.edge = Edge(lambda request: NOT_DONE_YET)
        self.client = self.edge.connect()
        self.client.get()
        self.edge.leaf.requests[0].write(b"a" * 100)

    def test_stalled(self) -> None:
        """A client that does not read is cut off, and its request ends in the log."""
        self.client.channel.pauseProducing()
        self.edge.clock.pump([1] * 39)
        self.assertFalse(self.client.transport.disconnected)
        self.edge.clock.pump([1])
        self.assertTrue(self.client.transport.disconnected)
        self.client.leave()
        self.assertTrue(self.edge.lines[0].endswith(" aborted"))
        self.assertEqual(self.edge.clock.getDelayedCalls(), [])

    def test_resumed(self) -> None:
        """One that reads again in time goes on."""
        self.client.channel.pauseProducing()
        self.edge.clock.pump([1] * 30)
        self.client.channel.resumeProducing()
        self.edge.clock.pump([1] * 100)
        self.assertFalse(self.client.transport.disconnecting)

    def test_last_bytes(self) -> None:
        """The idle time does not cut off a client that still takes the last bytes of a response."""
        waiting = [10_000]
        self.client.channel.stall.unsent = lambda: waiting[0]
        self.edge.leaf.requests[0].finish()
        for _ in range(100):
            waiting[0] -= 100
            self.edge.clock.advance(5)
        self.assertFalse(self.client.transport.disconnecting)
        self.edge.clock.pump([5] * 20)
        self.assertTrue(self.client.transport.disconnecting)

    def test_close_without_reader(self) -> None:
        """A connection that is to be closed does not wait for ever for a client that does not read."""
        self.client.channel.loseConnection()
        self.edge.clock.pump([5] * 8)
        self.assertTrue(self.client.transport.disconnected)


class AllowTests(SynchronousTestCase):
    """Who may connect, and how many."""

    def test_too_many(self) -> None:
        """One client more than allowed gets a 503 for its request, and the others are served on."""
        edge = Edge(max_clients=2)
        first, _, third = edge.connect(), edge.connect(), edge.connect()
        answer = third.get()
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"))
        self.assertIn(b"\r\nRetry-After: 5\r\n", answer)
        self.assertIn(b"\r\nConnection: close\r\n", answer)
        self.assertTrue(third.transport.disconnecting)
        self.assertFalse(third.transport.disconnected)
        self.assertIn('"GET /x HTTP/1.1" 503 ', edge.lines[0])
        self.assertIn(b"hello", first.get())

    def test_room_again(self) -> None:
        """When one leaves, the next is served."""
        edge = Edge(max_clients=1)
        edge.connect().leave()
        self.assertIn(b"hello", edge.connect().get())
        self.assertEqual(edge.site.clients, 1)

    def test_silent(self) -> None:
        """A surplus client that sends nothing is told after a while, and closed."""
        edge = Edge(max_clients=1)
        edge.connect()
        silent = edge.connect()
        edge.clock.advance(10)
        self.assertTrue(silent.transport.value().startswith(b"HTTP/1.1 503 "))

    def test_flood(self) -> None:
        """Beyond twice the number connections are cut off at once."""
        edge = Edge(max_clients=1)
        edge.connect(), edge.connect()
        flood = edge.connect()
        self.assertTrue(flood.transport.disconnected)
        flood.leave()
        self.assertEqual(edge.site.clients, 1)

    def test_networks(self) -> None:
        """Only clients in an allowed network are served."""
        edge = Edge()
        edge.site.reconfigure(access_allow=(ip_network("192.0.2.0/24"),))
        self.assertIn(b"hello", edge.connect("192.0.2.200").get())
        answer = edge.connect("198.51.100.1").get()
        self.assertTrue(answer.startswith(b"HTTP/1.1 403 Forbidden\r\n"))
        self.assertEqual(len(edge.leaf.requests), 1)
