"""The site: what a client sees of a resource tree, of errors, and of a vault that stops."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from unittest import skipIf

from twisted.internet import reactor
from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.functional.certificates import Authority
from tests.web.test_channel import Edge, TestLimits
from vault import __version__
from vault.errors import BadRequest, Missing, Refused, Unavailable
from vault.web.accesslog import AccessLog
from vault.web.errors import respond, respond_error
from vault.web.health import Healthz, Readyz
from vault.web.request import VaultRequest
from vault.web.site import VaultSite


def raising(error: Exception) -> Callable[[VaultRequest], Any]:
    """An answer that fails."""

    def answer(request: VaultRequest) -> Any:
        request.backend = "apache"
        raise error

    return answer


class ResponseTests(SynchronousTestCase):
    """Responses."""

    def setUp(self) -> None:
        self.edge = Edge()
        self.client = self.edge.connect()

    def test_plain(self) -> None:
        """A response has a length, the server's name, a date, and no type that nobody gave it."""
        answer = self.client.get()
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertIn(b"\r\nServer: artifact-vault/" + __version__.encode() + b"\r\n", answer)
        self.assertIn(b"\r\nDate: Mon, 23 Nov 2026 21:00:00 GMT\r\n", answer)
        self.assertIn(b"\r\nContent-Length: 5\r\n", answer)
        self.assertNotIn(b"Content-Type", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nhello"))

    def test_own_server(self) -> None:
        """A resource may name another server."""
        self.edge.leaf.answer = lambda request: request.setHeader(b"Server", b"other") or b""
        self.assertIn(b"\r\nServer: other\r\n", self.client.get())

    def test_head(self) -> None:
        """HEAD has the fields of GET and no body."""
        answer = self.client.get(method=b"HEAD")
        self.assertIn(b"\r\nContent-Length: 5\r\n", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\n"))

    def test_methods(self) -> None:
        """Other methods are not allowed, and the answer says which are; TRACE echoes nothing."""
        for method in (b"TRACE", b"get", b"FROBNICATE", b"DELETE"):
            answer = self.client.get(b"/x", b"Authorization: Basic c2VjcmV0", method=method)
            self.assertTrue(answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n"), answer)
            self.assertIn(b"\r\nAllow: GET, HEAD", answer)
            self.assertNotIn(b"c2VjcmV0", answer)

    def test_connect(self) -> None:
        """CONNECT is refused in plain text, and the connection is good for another request."""
        self.assertTrue(self.client.get(b"host:443", method=b"CONNECT").startswith(b"HTTP/1.1 403 Forbidden\r\n"))
        self.assertIn(b"hello", self.client.get())
        self.assertIn('"CONNECT host:443 HTTP/1.1" 403 ', self.edge.lines[0])

    def test_star(self) -> None:
        """``OPTIONS *`` says what the server can do."""
        answer = self.client.get(b"*", method=b"OPTIONS")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertIn(b"Allow: GET, HEAD", answer)
        self.assertTrue(self.client.get(b"*").startswith(b"HTTP/1.1 405 "))

    def test_wrong_target(self) -> None:
        """A target that is neither a path nor a URL is refused."""
        self.assertTrue(self.client.get(b"x").startswith(b"HTTP/1.1 400 "))

    def test_short_body(self) -> None:
        """A body shorter than announced ends in a cut connection, never in a response that looks whole."""

        def short(request: VaultRequest) -> int:
            request.setHeader(b"Content-Length", b"10")
            request.write(b"hello")
            request.finish()
            return NOT_DONE_YET

        self.edge.leaf.answer = short
        self.client.get()
        self.assertTrue(self.client.transport.disconnected)
        self.assertTrue(self.edge.lines[0].endswith(" aborted"))

    def test_client_gone(self) -> None:
        """A client that leaves before it is answered is logged with 499."""
        self.edge.leaf.answer = lambda request: NOT_DONE_YET
        self.client.get()
        gone = self.edge.leaf.requests[0].notifyFinish()
        self.edge.clock.advance(1.5)
        self.client.leave()
        self.failureResultOf(gone)
        self.assertIn('"GET /x HTTP/1.1" 499 - ', self.edge.lines[0])
        self.assertTrue(self.edge.lines[0].endswith(" 1.500 aborted"))
        self.assertEqual(len(self.edge.lines), 1)

    def test_after_the_end(self) -> None:
        """Whatever a resource does after its client has gone does no harm."""
        self.edge.leaf.answer = lambda request: NOT_DONE_YET
        self.client.get()
        request = self.edge.leaf.requests[0]
        self.client.leave()
        stopped: list[bool] = []

        class Producer:
            def stopProducing(self) -> None:
                stopped.append(True)

        request.registerProducer(Producer(), True)
        request.unregisterProducer()
        request.abort()
        respond(request, 500, "late")
        self.assertEqual(stopped, [True])
        self.assertEqual(len(self.edge.lines), 1)

    def test_log_fields(self) -> None:
        """The log tells cache result and backend as the resource set them, and the bytes of the body."""

        def hit(request: VaultRequest) -> bytes:
            request.cache_result, request.backend = "HIT", "apache"
            return b"0123456789"

        self.edge.leaf.answer = hit
        self.client.get(b"/x?y", b"User-Agent: wget", b"Referer: http://r/", b"Authorization: Basic c2VjcmV0")
        self.assertEqual(
            self.edge.lines,
            [
                '192.0.2.1 - - [23/Nov/2026:21:00:00 +0000] "GET /x?y HTTP/1.1" 200 10 "http://r/" "wget" '
                "HIT apache 0.000 -"
            ],
        )


class TargetTests(SynchronousTestCase):
    """Request targets as a resource sees them."""

    def seen(self, target: bytes, *fields: bytes) -> VaultRequest:
        edge = Edge()
        edge.connect().get(target, *fields)
        return edge.leaf.requests[0]

    def test_raw(self) -> None:
        """The target is what the client sent."""
        self.assertEqual(self.seen(b"/a%2Fb//c?d=%20+").uri, b"/a%2Fb//c?d=%20+")

    def test_absolute(self) -> None:
        """A URL is taken apart and not changed."""
        self.assertEqual(self.seen(b"HTTP://Host:80/a%2Fb?c=//d").absolute_form(), ("http", "Host:80", "/a%2Fb?c=//d"))
        self.assertEqual(self.seen(b"http://host").absolute_form(), ("http", "host", "/"))
        self.assertEqual(self.seen(b"http://host?q").absolute_form(), ("http", "host", "/?q"))
        self.assertEqual(self.seen(b"http://HTTPS///host/path").absolute_form(), ("http", "HTTPS", "///host/path"))
        self.assertIsNone(self.seen(b"/http://host/").absolute_form())
        self.assertIsNone(self.seen(b"/x").authority_form())

    def test_absolute_is_no_path(self) -> None:
        """A URL on another server never leads to a child of the root."""
        edge = Edge()
        root = Resource()
        root.putChild(b"healthz", Healthz())
        edge.site.reconfigure(root=root)
        self.assertTrue(edge.connect().get(b"/healthz").endswith(b"\r\n\r\nok\n"))
        self.assertTrue(edge.connect().get(b"http://elsewhere/healthz").startswith(b"HTTP/1.1 404 "))

    def test_joined_headers(self) -> None:
        """Several lines of a field are one list."""
        request = self.seen(b"/x", b"Accept: a/b", b"ACCEPT: c/d", b"X-Y: \xe9")
        self.assertEqual(request.joined_headers()["accept"], "a/b, c/d")
        self.assertEqual(request.joined_headers()["x-y"], "\xe9")


class ErrorTests(SynchronousTestCase):
    """What clients are told when something goes wrong."""

    def answer(self, error: Exception) -> bytes:
        self.edge = Edge(raising(error))
        return self.edge.connect().get()

    def test_unexpected(self) -> None:
        """A mistake in the server is a plain 500, without a traceback for the client, and with one in the log."""
        answer = self.answer(ZeroDivisionError("secret detail"))
        self.assertTrue(answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n"))
        self.assertIn(b"\r\nContent-Type: text/plain; charset=utf-8\r\n", answer)
        self.assertNotIn(b"secret", answer)
        self.assertNotIn(b"<", answer)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn('" 500 ', self.edge.lines[0])

    def test_unexpected_later(self) -> None:
        """Where the response has begun, the connection is cut."""

        def answer(request: VaultRequest) -> Any:
            request.write(b"part")
            raise ZeroDivisionError

        edge = Edge(answer)
        client = edge.connect()
        client.get()
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertTrue(client.transport.disconnected)
        self.assertTrue(edge.lines[0].endswith(" aborted"))

    def test_not_bytes(self) -> None:
        """An answer of the wrong kind is a mistake in the server."""
        edge = Edge(lambda request: "text")
        self.assertTrue(edge.connect().get().startswith(b"HTTP/1.1 500 "))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_known(self) -> None:
        """What the vault can explain names the backend and the cause."""
        answer = self.answer(BadRequest("The path has a '..' segment."))
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"))
        self.assertIn(b"\r\nProxy-Status: ArtifactVault; error=http_request_error\r\n", answer)
        self.assertIn(b"\r\nCache-Control: no-store\r\n", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\napache: The path has a '..' segment.\n"))
        self.assertNotIn(b"Retry-After", answer)

    def test_retry_after(self) -> None:
        """What may pass says when to come again: a whole number of seconds from 1 to 60."""
        for given, told in [(None, b"5"), (0.2, b"1"), (12.1, b"13"), (86400, b"60")]:
            self.assertIn(b"\r\nRetry-After: " + told + b"\r\n", self.answer(Unavailable("down", given)))

    def test_missing(self) -> None:
        """404 and 410 are told as the upstream told them."""
        self.assertTrue(self.answer(Missing("no such file")).startswith(b"HTTP/1.1 404 Not Found\r\n"))
        self.assertTrue(self.answer(Missing("gone", 410)).startswith(b"HTTP/1.1 410 Gone\r\n"))

    def test_refused(self) -> None:
        """A client is never asked for a password because the vault was refused."""
        self.assertTrue(self.answer(Refused("401 Unauthorized")).startswith(b"HTTP/1.1 502 Bad Gateway\r\n"))

    def test_no_representation(self) -> None:
        """An error carries nothing that describes what would have been sent."""

        def answer(request: VaultRequest) -> Any:
            for name in (b"ETag", b"Content-Encoding", b"Content-Range", b"Last-Modified"):
                request.setHeader(name, b"x")
            respond_error(request, Unavailable("down"), "apache")
            return NOT_DONE_YET

        head = Edge(answer).connect().get(method=b"HEAD")
        for name in (b"ETag", b"Content-Encoding", b"Content-Range", b"Last-Modified"):
            self.assertNotIn(name, head)
        self.assertIn(b"\r\nContent-Length: 13\r\n", head)
        self.assertTrue(head.endswith(b"\r\n\r\n"))

    def test_health(self) -> None:
        """``/healthz`` is ok while the process answers; ``/readyz`` names what is wrong."""
        problems: list[str] = []
        edge = Edge()
        root = Resource()
        root.putChild(b"healthz", Healthz())
        root.putChild(b"readyz", Readyz(lambda: problems))
        edge.site.reconfigure(root=root)
        client = edge.connect()
        self.assertTrue(client.get(b"/healthz").endswith(b"\r\n\r\nok\n"))
        self.assertTrue(client.get(b"/readyz").endswith(b"\r\n\r\nready\n"))
        problems += ["the disk is full", "the index is read-only"]
        answer = client.get(b"/readyz")
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 "))
        self.assertTrue(answer.endswith(b"\r\n\r\nthe disk is full\nthe index is read-only\n"))


class LimitTests(SynchronousTestCase):
    """Limits as clients meet them."""

    def test_rate(self) -> None:
        """Too many requests get a 429 with a whole number of seconds, and the connection stays."""
        edge = Edge(requests_per_second=0.3)
        client = edge.connect()
        self.assertIn(b" 200 OK", client.get())
        answer = client.get()
        self.assertTrue(answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n"))
        self.assertIn(b"\r\nRetry-After: 4\r\n", answer)
        self.assertIn('" 429 ', edge.lines[1])
        edge.clock.advance(4)
        self.assertIn(b" 200 OK", client.get())

    def test_unix(self) -> None:
        """A client on a unix socket has no address and is always allowed."""
        edge = Edge()
        edge.site.reconfigure(access_allow=(ip_network("192.0.2.0/24"),))
        self.assertIn(b"hello", edge.connect(UNIXAddress(None)).get())
        self.assertTrue(edge.lines[0].startswith("unix - - "))

    def test_mapped(self) -> None:
        """An IPv4 client on an IPv6 socket is an IPv4 client."""
        edge = Edge()
        edge.site.reconfigure(access_allow=(ip_network("192.0.2.0/24"),))
        self.assertIn(b"hello", edge.connect(IPv6Address("TCP", "::ffff:192.0.2.1", 1)).get())
        self.assertIn(b" 403 ", edge.connect(IPv6Address("TCP", "2001:db8::1", 1)).get())

    def test_reconfigured(self) -> None:
        """New limits and a new tree hold for connections that are open already."""
        edge = Edge()
        client = edge.connect()
        client.get()
        edge.site.reconfigure(limits=TestLimits(requests_per_second=1.0, bytes_per_second=7), root=Healthz())
        self.assertTrue(client.get().endswith(b"ok\n"))
        self.assertIn(b" 429 ", client.get())
        self.assertEqual(edge.site.byte_rate.per_second, 7)


class StopTests(SynchronousTestCase):
    """An orderly stop."""

    def test_drain(self) -> None:
        """Idle connections close at once, the others after their response."""
        edge = Edge(lambda request: NOT_DONE_YET)
        idle, busy = edge.connect(), edge.connect()
        busy.get()
        drained = edge.site.drain()
        self.assertTrue(idle.transport.disconnecting)
        self.assertFalse(busy.transport.disconnecting)
        edge.leaf.requests[0].write(b"hello")
        edge.leaf.requests[0].finish()
        self.assertTrue(busy.transport.disconnecting)
        idle.leave()
        self.assertNoResult(drained)
        busy.leave()
        self.successResultOf(drained)

    def test_nothing_to_drain(self) -> None:
        """Without a connection the stop is immediate."""
        self.successResultOf(Edge().site.drain())

    def test_abort_all(self) -> None:
        """What does not finish in time is cut off."""
        edge = Edge(lambda request: NOT_DONE_YET)
        busy = edge.connect()
        busy.get()
        edge.site.abort_all()
        self.assertTrue(busy.transport.disconnected)

    def test_log_of_what_was_cut_off(self) -> None:
        """Of what is cut off the log has the status that was sent, whatever is answered after that."""
        edge = Edge(lambda request: NOT_DONE_YET)
        begun, waiting = edge.connect(), edge.connect()
        begun.get()
        edge.leaf.requests[0].write(b"hello")
        waiting.get()
        edge.site.abort_all()
        for request in edge.leaf.requests:
            respond(request, 503, "The server is stopping.")
        for client in (begun, waiting):
            client.leave()
        self.assertEqual(sorted(line.split('"')[2].split()[0] for line in edge.lines), ["200", "499"])
        self.assertTrue(all(line.endswith(" aborted") for line in edge.lines))
        self.assertNotIn(b"503", waiting.transport.value())

    def test_no_http_2(self) -> None:
        """HTTP/2 is never offered, whatever is installed."""
        self.assertNotIn(b"h2", Edge().site.acceptableProtocols())


class SocketTests(TestCase):
    """Real connections on the loopback interface."""

    timeout = 20

    def setUp(self) -> None:
        self.requests: list[VaultRequest] = []
        self.site = VaultSite(Recorder(self.requests), reactor=reactor, limits=TestLimits(), access_log=AccessLog())
        self.port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.addCleanup(self.site.drain)
        self.addCleanup(self.port.stopListening)

    def talk(self, client: Callable[[socket.socket], bytes]) -> Deferred[bytes]:
        """What ``client`` returns, which runs in a thread with a connected socket."""

        def run() -> bytes:
            with socket.create_connection(("127.0.0.1", self.port.getHost().port), timeout=10) as connection:
                return client(connection)

        return deferToThread(run)

    async def test_abort(self) -> None:
        """An aborted response reaches the client as a reset, not as an end."""

        def client(connection: socket.socket) -> bytes:
            connection.sendall(b"GET /abort HTTP/1.0\r\n\r\n")
            try:
                while connection.recv(65536):
                    pass
            except ConnectionResetError:
                return b"reset"
            return b"end"

        self.assertEqual(await self.talk(client), b"reset")

    async def test_protocol_negotiation(self) -> None:
        """A TLS client that offers HTTP/1.0 alone is served, and one that offers more gets HTTP/1.1."""
        authority = Authority(Path(self.mktemp()))
        pem = authority.server_file
        endpoint = serverFromString(reactor, f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}")
        port: Any = await endpoint.listen(self.site)
        self.addCleanup(port.stopListening)

        def client(*offered: str) -> str | None:
            context = ssl.create_default_context(cafile=authority.ca_file)
            context.set_alpn_protocols(offered)
            plain = socket.create_connection(("127.0.0.1", port.getHost().port), timeout=10)
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                return connection.selected_alpn_protocol()

        self.assertEqual(await deferToThread(client, "http/1.0"), "http/1.0")
        self.assertEqual(await deferToThread(client, "h2", "http/1.0", "http/1.1"), "http/1.1")

    @skipIf(not hasattr(socket, "TCP_CONGESTION"), "the system's congestion control cannot be chosen")
    async def test_no_pacing(self) -> None:
        """A client on this machine is sent to as fast as it takes it, over plain TCP and over TLS."""
        authority = Authority(Path(self.mktemp()))
        pem = authority.server_file
        endpoint = serverFromString(reactor, f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}")
        secure: Any = await endpoint.listen(self.site)
        self.addCleanup(secure.stopListening)

        def client(connection: socket.socket) -> bytes:
            connection.sendall(b"GET /pace HTTP/1.0\r\n\r\n")
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer

        def secure_client() -> bytes:
            context = ssl.create_default_context(cafile=authority.ca_file)
            plain = socket.create_connection(("127.0.0.1", secure.getHost().port), timeout=10)
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                return client(connection)

        self.assertTrue((await self.talk(client)).endswith(b"reno"))
        self.assertTrue((await deferToThread(secure_client)).endswith(b"reno"))

    async def test_refusal_is_read(self) -> None:
        """A refusal arrives even where the client goes on sending what nobody reads."""

        def client(connection: socket.socket) -> bytes:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000000\r\n\r\n" + bytes(1 << 20))
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer

        self.assertTrue((await self.talk(client)).startswith(b"HTTP/1.1 413 "))

    async def test_stalled_reader(self) -> None:
        """A slow reader is served to the end, one that stops reading is cut off."""
        self.site.reconfigure(limits=TestLimits(stall_timeout=0.8))

        def slow(connection: socket.socket) -> bytes:
            connection.sendall(b"GET /large HTTP/1.0\r\n\r\n")
            total = 0
            connection.settimeout(10)
            for _ in range(12):
                total += len(connection.recv(1 << 20))
                time.sleep(0.15)
            while part := connection.recv(1 << 20):
                total += len(part)
            return b"%d" % total

        def stopped(connection: socket.socket) -> bytes:
            connection.sendall(b"GET /large HTTP/1.0\r\n\r\n")
            time.sleep(2.0)
            try:
                while connection.recv(1 << 20):
                    pass
            except ConnectionResetError:
                return b"reset"
            return b"end"

        self.assertGreater(int(await self.talk(slow)), LARGE)
        self.assertEqual(await self.talk(stopped), b"reset")


LARGE = 24 << 20


class Recorder(Resource):
    """Answers ``/abort`` with a part and a reset, ``/large`` with many bytes, ``/pace`` with its congestion control."""

    isLeaf = True

    def __init__(self, requests: list[VaultRequest]) -> None:
        super().__init__()
        self.requests = requests

    def render_GET(self, request: VaultRequest) -> Any:
        """Answer."""
        if request.uri == b"/large":
            return bytes(LARGE)
        if request.uri == b"/pace":
            connection = request.channel.transport.socket  # of TLS too, whose handle is another thing
            return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")
        request.write(b"part")
        reactor.callLater(0.1, request.abort)
        return NOT_DONE_YET
