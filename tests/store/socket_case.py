"""Deliveries over real sockets, where the kernel copies the file's bytes."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.store.fakes import InlineDisk
from vault.artifact import Head
from vault.body import Delivery
from vault.sendfile import plain_transport
from vault.store.body import GrowingBody, OpenFile, StoredBody

clock: Any = reactor
assert IReactorTime.providedBy(reactor)
DATA = random.Random(1).randbytes(3_000_000)


class Client(Protocol):
    """Takes what comes, unless it is paused."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.made: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self._waiting: list[tuple[int, Deferred[None]]] = []

    def connectionMade(self) -> None:
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        ready = [waiter for count, waiter in self._waiting if len(self.data) >= count]
        self._waiting = [(count, waiter) for count, waiter in self._waiting if len(self.data) < count]
        for waiter in ready:
            waiter.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    def has(self, count: int) -> Deferred[None]:
        """Fires when so many bytes have come."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append((count, waiter))
        self.dataReceived(b"")
        return waiter


class SocketRequest:
    """A response that is written straight to a socket."""

    client_host = "127.0.0.1"
    chunked = False

    def __init__(self, transport: Any) -> None:
        self.sentLength = 0
        self.channel = SimpleNamespace(transport=transport)
        self._transport = transport

    def write(self, data: bytes) -> None:
        """To the socket."""
        self.sentLength += len(data)
        self._transport.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """With the socket."""
        self._transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """From the socket."""
        self._transport.unregisterProducer()


class SocketCase(TestCase):
    """A file, and a connection of the reactor to send it on."""

    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]
        self.path = Path(self.mktemp())
        self.path.write_bytes(DATA)
        accepted: Deferred[Any] = Deferred()

        class Server(Protocol):
            def connectionMade(self) -> None:
                accepted.callback(self.transport)

        port = clock.listenTCP(0, Factory.forProtocol(Server), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.client = Client()
        clock.connectTCP("127.0.0.1", port.getHost().port, ClientFactory.forProtocol(lambda: self.client))
        self.server = await accepted
        await self.client.made
        self.request = SocketRequest(self.server)
        self.assertIs(plain_transport(self.request), self.server)

    async def tearDown(self) -> None:  # type: ignore[override]
        self.server.abortConnection()
        self.client.transport.abortConnection()
        await self.client.lost

    def stop_reading(self) -> None:
        """The client takes nothing, and the kernel holds little for it."""
        self.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        self.client.transport.pauseProducing()

    def stored(self) -> StoredBody:
        """A stored entry."""
        return StoredBody(Head(), len(DATA), "", OpenFile(os.open(self.path, os.O_RDONLY)), InlineDisk())

    def growing(self) -> GrowingBody:
        """A body whose bytes are in the file already, but not yet published."""
        return GrowingBody(Head(), None, OpenFile(os.open(self.path, os.O_RDWR)), InlineDisk(), clock)

    def deliver(self, body: Any, *parts: Any, stall: float = 20.0, limit: Any = None) -> Deferred[None]:
        """Begin."""
        self.delivery = Delivery(self.request, body, parts, clock, stall, limit)
        return self.delivery.start()

    async def check(self, expected: bytes) -> None:
        """The client gets exactly this."""
        await self.client.has(len(expected))
        await task.deferLater(clock, 0.01)
        self.assertEqual(self.request.sentLength, len(expected))
        self.assertTrue(self.client.data == expected, "the bytes differ")
