"""A vault in memory: real HTTP on both sides, over connections, a clock and a disk that a test moves by hand.

``Net`` is the reactor: its time moves by ``pass_time`` alone, its connections lead to an ``Origin``, which notes each
request and answers as the test says.  ``Rig`` is a vault with one backend in front of ``origin.test``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, ensureDeferred, fail, maybeDeferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IReactorPluggableNameResolver, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from vault.artifact import Artifact
from vault.backends.http import HTTPBackend
from vault.cache import Cache
from vault.config import CacheOptions, Limits, MinFree
from vault.interfaces import IBackend
from vault.kitchen import Kitchen
from vault.options import UpstreamOptions
from vault.sources import Sources
from vault.store.store import Store
from vault.transfer import Transfer
from vault.upstream import Upstream
from vault.web.accesslog import AccessLog
from vault.web.resource import ArtifactResource
from vault.web.root import RootResource
from vault.web.site import VaultSite

START = 1795467600.0
"""Monday, 23 November 2026, 21:00:00 GMT."""
DATE = "Mon, 23 Nov 2026 21:00:00 GMT"
MODIFIED = "Sun, 01 Nov 2026 08:00:00 GMT"
LIMITS = Limits(None, None, 1000, 20.0, 60.0, 60.0)

Field = tuple[str, str]


@dataclass
class Asked:
    """One request as an origin got it; field names are in lower case."""

    method: str
    target: str
    headers: list[Field]
    wire: Wire

    def get(self, name: str) -> str | None:
        """A field's value, its lines joined."""
        return ", ".join(value for key, value in self.headers if key == name.lower()) or None

    def all(self, name: str) -> list[str]:
        """The lines of a field."""
        return [value for key, value in self.headers if key == name.lower()]

    def head(self, status: int = 200, *fields: str, length: int | None = None, version: str = "1.1") -> None:
        """Send a head; ``length`` becomes Content-Length."""
        lines = [f"HTTP/{version} {status} Whatever", *fields]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def answer(self, status: int = 200, *fields: str, body: bytes = b"") -> None:
        """Send a whole answer."""
        self.head(status, *fields, length=None if status in (204, 304) else len(body))
        self.send(body)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.wire.send(data)

    def chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body; an empty one is the last."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def close(self, error: Exception | None = None) -> None:
        """Close the connection."""
        self.wire.close(error)


@implementer(ITCPTransport)
class Wire:
    """One connection to an origin: the transport of the client's protocol, and the origin's hand on it."""

    disconnecting = False

    def __init__(self, net: Net, origin: Origin, address: str) -> None:
        self.open = True
        self.paused = False
        self.aborted = False
        self.tunnel: bytes | None = None
        self.protocol: Any = None
        self.bufferSize = 65536
        self._net = net
        self._origin = origin
        self._address = address
        self._received = b""
        self._waiting = b""
        self._ending: Failure | None = None

    # What the origin does.

    def send(self, data: bytes) -> None:
        """Deliver bytes, unless and until the client does not read."""
        self._waiting += data
        self._flush()

    def close(self, error: Exception | None = None) -> None:
        """End the connection, after what has been sent."""
        self._ending = Failure(error or ConnectionDone())
        self._flush()

    def _flush(self) -> None:
        if self.open and not self.paused and self._waiting:
            data, self._waiting = self._waiting, b""
            self.protocol.dataReceived(data)
        if self.open and not self.paused and not self._waiting and self._ending is not None:
            self._lose(self._ending)

    def _lose(self, reason: Failure) -> None:
        if self.open:
            self.open = False
            self.protocol.connectionLost(reason)

    # What the client's protocol does.

    def write(self, data: bytes) -> None:
        """Take bytes of requests."""
        if self.tunnel is not None:
            self.tunnel += data
            return
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").split("\r\n")
            method, target, _ = line.split(" ")
            pairs = [(name.strip().lower(), value.strip()) for name, _, value in (f.partition(":") for f in fields)]
            if method == "CONNECT":
                self.tunnel, self._received = self._received, b""
            # Not at once: a server's answer is never there before the request is on its way.
            self._net.callLater(0, self._origin.asked, Asked(method, target, pairs, self))

    def writeSequence(self, pieces: Sequence[bytes]) -> None:
        """Take bytes of requests."""
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        """The client closes."""
        self._net.callLater(0, self._lose, Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        """The client resets."""
        self.aborted = True
        self._net.callLater(0, self._lose, Failure(ConnectionAborted()))

    stopProducing = loseConnection

    def pauseProducing(self) -> None:
        """The client reads nothing."""
        self.paused = True

    def resumeProducing(self) -> None:
        """The client reads again."""
        self.paused = False
        self._net.callLater(0, self._flush)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Everything is taken at once."""

    def unregisterProducer(self) -> None:
        """Everything was taken."""

    def getPeer(self) -> Any:
        """The origin's address."""
        return IPv4Address("TCP", self._address, 80)

    def getHost(self) -> Any:
        """Some address."""
        return IPv4Address("TCP", "192.0.2.99", 50000)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no socket."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """There is no socket."""

    getTcpNoDelay = getTcpKeepAlive = lambda self: True
    loseWriteConnection = loseConnection


class Origin:
    """A server: ``answer`` is called with each request, or the test takes them from ``requests``.

    ``refuse`` is an error to fail every new connection with; ``silent`` ones are neither made nor refused.  What comes
    on ``opaque`` ones is no request: it is in the wire's ``tunnel``.
    """

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.wires: list[Wire] = []
        self.answer: Callable[[Asked], object] = lambda asked: None
        self.refuse: Exception | None = None
        self.silent = False
        self.opaque = False

    def asked(self, asked: Asked) -> None:
        """A request has come."""
        self.requests.append(asked)
        self.answer(asked)

    @property
    def last(self) -> Asked:
        """The newest request."""
        return self.requests[-1]

    @property
    def open_wires(self) -> int:
        """The connections that stand."""
        return sum(wire.open for wire in self.wires)


@implementer(IReactorPluggableNameResolver)
class Net(Clock):
    """The reactor.  ``names`` has the addresses of each host, ``origins`` the server of each address and port."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = START
        self.names: dict[str, list[str]] = {"localhost": ["127.0.0.1"]}
        self.origins: dict[tuple[str, int], Origin] = {}
        self.slow_names: set[str] = set()  # they are being looked up for ever
        self.nameResolver = self

    def origin(self, name: str, *addresses: str, port: int = 80) -> Origin:
        """A new server of a name, at its addresses (by default one of its own)."""
        origin = Origin()
        self.names.setdefault(name, list(addresses) or [f"192.0.2.{len(self.names)}"])
        for address in self.names[name]:
            self.origins[address, port] = origin
        return origin

    def installNameResolver(self, resolver: Any) -> Any:
        """Not needed."""
        raise NotImplementedError

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, addressTypes: Any = None, transportSemantics: Any = ""
    ) -> Any:
        """Look a name up at once; an address is its own name."""
        receiver.resolutionBegan(self)
        if hostName in self.slow_names:
            return
        literal = re.fullmatch(r"\d+\.\d+\.\d+\.\d+|[0-9a-f:.]*:[0-9a-f:.]*", hostName)
        for address in [hostName] if literal else self.names.get(hostName, []):
            kind = IPv6Address if ":" in address else IPv4Address
            receiver.addressResolved(kind("TCP", address, portNumber))
        receiver.resolutionComplete()

    def cancel(self) -> None:
        """A name is no longer to be looked up."""

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        """Connect at once."""
        origin = self.origins.get((host, port))
        connector = Connector(self, factory, timeout)
        factory.doStart()
        factory.startedConnecting(connector)
        if origin is None or origin.refuse is not None:
            error = ConnectionRefusedError(string="refused") if origin is None else origin.refuse
            factory.clientConnectionFailed(connector, Failure(error))
        elif not origin.silent:
            connector.made()
            wire = Wire(self, origin, host)
            wire.tunnel = b"" if origin.opaque else None
            origin.wires.append(wire)
            protocol = factory.buildProtocol(wire.getPeer())
            wire.protocol = protocol
            protocol.makeConnection(wire)
        return connector

    def pass_time(self, seconds: float = 0) -> None:
        """Let time pass in small steps, and whatever is due happen."""
        end = self.seconds() + seconds
        self._turn()
        while (due := [call.getTime() for call in self.getDelayedCalls() if call.getTime() <= end]) != []:
            self.advance(max(0.0, min(due) - self.seconds()))
            self._turn()
        self.advance(max(0.0, end - self.seconds()))
        self._turn()

    def _turn(self) -> None:
        for _ in range(100):
            if not any(call.getTime() <= self.seconds() for call in self.getDelayedCalls()):
                return
            self.advance(0)
        raise AssertionError("something goes on for ever without time passing")


class Connector:
    """A connection that is being made, which times out or is given up."""

    def __init__(self, net: Net, factory: Any, timeout: float) -> None:
        self._factory = factory
        self._timer: Any = net.callLater(timeout, self._failed, "timeout")

    def made(self) -> None:
        """The connection stands."""
        self._timer.cancel()

    def _failed(self, why: str) -> None:
        from twisted.internet.error import TimeoutError, UserError

        self._factory.clientConnectionFailed(self, Failure(TimeoutError() if why == "timeout" else UserError()))

    def getDestination(self) -> IPv4Address:
        """Where to."""
        return IPv4Address("TCP", "192.0.2.98", 80)

    def stopConnecting(self) -> None:
        """Give it up."""
        if self._timer.active():
            self._timer.cancel()
            self._failed("stopped")

    disconnect = stopConnecting


class InlineDisk:
    """A Disk that does everything at once, or, while ``held``, when the test releases it.

    ``error`` is what every attempt to write a body then fails with.
    """

    stopping = False

    def __init__(self) -> None:
        self.held = False
        self.error: OSError | None = None
        self._jobs: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call the function, or fail with ``error``."""
        if self.error is not None and function.__name__ in ("begin", "_drain"):
            return fail(self.error)
        if not self.held:
            return maybeDeferred(function, *arguments)
        done: Deferred[Any] = Deferred()
        self._jobs.append((done, lambda: function(*arguments)))
        return done

    def tell(self, function: Callable[[], None]) -> None:
        """Call the function."""
        function()

    def release(self) -> None:
        """Do what has been held."""
        self.held = False
        while self._jobs:
            self.do_one()

    def do_one(self) -> None:
        """Do the first of what has been held."""
        done, job = self._jobs.pop(0)
        maybeDeferred(job).chainDeferred(done)


class ClientTransport(StringTransport):
    """A client's end as the server sees it; what is sent goes to ``client``."""

    client: Client

    def write(self, data: bytes) -> None:
        """Take what the server sends."""
        self.client.raw += data

    def writeSequence(self, data: Any) -> None:
        """Take what the server sends."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """The server closes."""
        self.disconnecting = True
        self.client.closed = True
        self.client.net.callLater(0, self.client.lose, ConnectionDone())

    def abortConnection(self) -> None:
        """The server resets."""
        self.client.aborted = True
        self.client.net.callLater(0, self.client.lose, ConnectionLost())


class Client:
    """A client with one request on a connection of its own; the answer is in ``status``, ``headers`` and ``body``."""

    PEER: IPv4Address | UNIXAddress = IPv4Address("TCP", "192.0.2.50", 40000)
    VERSION = "1.1"

    def __init__(self, net: Net, site: VaultSite, method: str, target: str, fields: Sequence[str], slow: bool) -> None:
        self.net = net
        self.raw = b""
        self.method = method
        self.aborted = False
        self.closed = False
        self._gone = False
        self.channel: Any = site.buildProtocol(self.PEER)
        self.transport = ClientTransport(hostAddress=IPv4Address("TCP", "127.0.0.1", 8080), peerAddress=self.PEER)
        self.transport.client = self
        self.channel.makeConnection(self.transport)
        host = () if any(field.lower().startswith("host:") for field in fields) else ("Host: vault.test:8080",)
        self.channel.dataReceived(
            "\r\n".join([f"{method} {target} HTTP/{self.VERSION}", *host, *fields, "", ""]).encode()
        )
        if slow:
            self.pause()

    def lose(self, error: Exception) -> None:
        """The connection is over."""
        if not self._gone:
            self._gone = True
            if self.transport.producer is not None:
                self.transport.producer.stopProducing()  # as a socket's transport does
            self.channel.connectionLost(Failure(error))

    def leave(self) -> None:
        """Close the connection before the answer's end."""
        self.lose(ConnectionLost())

    def pause(self) -> None:
        """Take nothing for now."""
        if self.transport.producer is not None:
            self.transport.producer.pauseProducing()

    def resume(self) -> None:
        """Take what comes."""
        if self.transport.producer is not None:
            self.transport.producer.resumeProducing()

    @property
    def answered(self) -> bool:
        """True when a whole head has come."""
        return b"\r\n\r\n" in self.raw

    @property
    def status(self) -> int:
        """The status code; 0 before there is one."""
        return int(self.raw.split(b" ", 2)[1]) if self.answered else 0

    @property
    def headers(self) -> dict[str, str]:
        """The answer's fields by lower-case name, lines joined."""
        found: dict[str, str] = {}
        for line in self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]:
            name, _, value = line.partition(": ")
            key = name.lower()
            found[key] = f"{found[key]}, {value}" if key in found else value
        return found

    def _content(self) -> tuple[bytes, bool]:
        raw = self.raw.partition(b"\r\n\r\n")[2]
        if self.method == "HEAD" or self.status in (204, 304):
            return raw, self.answered
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while b"\r\n" in raw:
                size, _, raw = raw.partition(b"\r\n")
                count = int(size, 16)
                if not count:
                    return body, True
                body, raw = body + raw[:count], raw[count + 2 :]
            return body, False
        length = self.headers.get("content-length")
        return raw, (self.closed and not self.aborted) if length is None else len(raw) == int(length)

    @property
    def body(self) -> bytes:
        """What has come of the body."""
        return self._content()[0]

    @property
    def whole(self) -> bool:
        """True when the body has come to its proper end."""
        return self.answered and self._content()[1]


class Rig:
    """A vault with one ``type: http`` backend of the prefix ``/files/``; ``options`` are its UpstreamOptions.

    ``ttl`` makes everything expire.  ``lines`` is the access log, ``now`` the clock's POSIX seconds; that is set by
    ``ahead``, seconds by which it is ahead of the net's, which measures how long something is.
    """

    def __init__(
        self, directory: str, urls: tuple[str, ...] = ("http://origin.test/",), backend: IBackend | None = None,
        ttl: float | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.net = Net()
        self.ahead = 0.0
        self.origin = self.net.origin("origin.test")
        self.disk = InlineDisk()
        self.workers = InlineDisk()
        cache_options = CacheOptions(10**12, MinFree(size=0), 0o750, 0o640)
        self.store = Store(Path(directory), cache_options, self.disk, self.net, self.now)
        self.store.open()
        self.options = replace(UpstreamOptions(), **options)
        self.backend = HTTPBackend("files", "/files/", urls, ttl) if backend is None else backend
        self.upstream = Upstream(self.net, self.options, urls, self.now)
        self.sources = Sources(self.backend, self.upstream, self.net, self.now)
        self.transfers: dict[str, Transfer] = {}
        self.kitchen = self._kitchen()
        self.resource = ArtifactResource(self.backend, self.kitchen, self.net, self.now, instance="me")
        self.lines: list[str] = []
        log = Logger(namespace="vault.access", observer=LogPublisher(lambda event: self.lines.append(event["line"])))
        self.site = VaultSite(
            RootResource([self.resource], self.store.problems),
            reactor=self.net,
            limits=LIMITS,
            access_log=AccessLog("text", log),
        )

    def now(self) -> float:
        """The time of day in POSIX seconds."""
        return self.net.seconds() + self.ahead

    def again(self) -> None:
        """Begin a new cache on the same store, as a vault does that was started or configured again."""
        ended = self.kitchen.stop()
        self.kitchen = self.resource.kitchen = self._kitchen()
        self.kitchen.follow(ended)

    def _kitchen(self) -> Kitchen:
        cache = Cache(self.sources, self.store, self.net, self.now, self.transfers)
        return Kitchen(cache, self.sources, self.store, self.workers, self.now)

    @property
    def cache(self) -> Cache:
        """The backend's cache."""
        return self.kitchen.cache

    def stop(self) -> None:
        """End every transfer, as a vault that stops does."""
        self.kitchen.stop()
        stopping: Any = self.cache.stop()
        if stopping is not None:
            ensureDeferred(stopping)
        self.net.pass_time()

    def artifact(self, path: str = "a", **changes: Any) -> Artifact:
        """What the backend resolves a path to."""
        wanted = self.backend.resolve(path, {})
        assert isinstance(wanted, Artifact)
        return replace(wanted, **changes)

    def run(self, coroutine: Any) -> Deferred[Any]:
        """Start a coroutine, and let what is due happen."""
        running = ensureDeferred(coroutine)
        self.net.pass_time()
        return running

    def request(self, path: str = "a", *fields: str, method: str = "GET", slow: bool = False) -> Client:
        """A client's request for a path below the prefix, or for a target that begins with a slash or a scheme."""
        target = path if path.startswith(("/", "http:", "https:")) else f"/files/{path}"
        client = Client(self.net, self.site, method, target, fields, slow)
        self.net.pass_time()
        return client

    def fill(self, path: str = "a", body: bytes = b"0123456789", *fields: str) -> None:
        """Let an artifact be fetched and stored; by default it has a strong tag."""
        before = self.origin.answer
        fields = fields or ('ETag: "1"', f"Date: {DATE}")
        self.origin.answer = lambda asked: asked.answer(200, *fields, body=body)
        client = self.request(path)
        assert client.status == 200, client.raw
        self.origin.answer = before

    def complete_partial(self, body: bytes, path: str = "a") -> None:
        """All bytes of a fill that was cut off are on the disk, as after a kill before they had their place."""
        row = self.store.index.partial(f"files/{path}")
        assert row is not None
        (file,) = self.store.layout.root.rglob(f"{row.name}*")
        file.write_bytes(body)

    @property
    def stored(self) -> int:
        """The entries in the store."""
        return int(self.store.index.totals()[0])

    def free_slots(self, authority: str = "origin.test") -> int:
        """How many more connections to a host may be made."""
        host = self.upstream._hosts.known.get(authority)
        return self.options.max_connections if host is None else host.slots.tokens


class RigCase(SynchronousTestCase):
    """A test with a vault in memory; at its end no connection slot is lost and nothing goes on by itself."""

    def rig(self, *arguments: Any, **options: Any) -> Rig:
        """A vault in a directory of its own."""
        rig = Rig(self.mktemp(), *arguments, **options)
        self.addCleanup(self._check, rig)
        return rig

    def _check(self, rig: Rig) -> None:
        rig.disk.error = None
        rig.disk.release()
        rig.stop()
        rig.net.pass_time(300)
        rig.run(rig.store.close())
        for authority in list(rig.upstream._hosts.known):
            self.assertEqual(rig.free_slots(authority), rig.options.max_connections, f"a slot of {authority} is lost")
        self.assertEqual(rig.transfers, {}, "a transfer never ended")
