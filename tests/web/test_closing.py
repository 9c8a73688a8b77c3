"""Bodies whose end only the closing of the connection tells, over real sockets."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet import reactor, task
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import TestCase
from twisted.web.server import NOT_DONE_YET

from tests.store.socket_case import Client
from tests.web.test_channel import Leaf, TestLimits
from vault.sendfile import socket_below
from vault.web.accesslog import AccessLog
from vault.web.request import VaultRequest
from vault.web.site import VaultSite

clock: Any = reactor
BODY = bytes(5_000_000)


class ClosingTests(TestCase):
    """A client that is slow to take such a body."""

    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]
        self.lines: list[str] = []
        log = Logger(namespace="vault.access", observer=LogPublisher(lambda event: self.lines.append(event["line"])))

        def answer(request: VaultRequest) -> Any:
            request.end_by_closing()
            request.write(BODY)
            request.finish()
            return NOT_DONE_YET

        self.leaf = Leaf(answer)
        site = VaultSite(self.leaf, reactor=clock, limits=TestLimits(), access_log=AccessLog("text", log))
        port = clock.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.client = Client()
        clock.connectTCP("127.0.0.1", port.getHost().port, ClientFactory.forProtocol(lambda: self.client))
        await self.client.made
        self.client.transport.pauseProducing()
        self.client.transport.write(b"GET / HTTP/1.0\r\n\r\n")
        await task.deferLater(clock, 0.2)
        (self.request,) = self.leaf.requests

    def reset_at_death(self) -> bool:
        """True where the kernel would reset the connection if this process were killed now."""
        assert self.request.channel is not None
        below = socket_below(self.request.channel.transport)
        option = below.socket.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        return struct.unpack("ii", option) == (1, 0)

    async def test_taken_late(self) -> None:
        """Until the kernel has all of it the response is not over; then it ends in order."""
        self.assertTrue(self.reset_at_death())
        self.assertEqual(self.lines, [])
        self.client.transport.resumeProducing()
        await self.client.lost
        head, _, body = bytes(self.client.data).partition(b"\r\n\r\n")
        self.assertTrue(body == BODY, head)
        await task.deferLater(clock, 0.05)
        self.assertEqual(len(self.lines), 1)
        self.assertFalse(self.lines[0].endswith(" aborted"))

    async def test_left(self) -> None:
        """A client that leaves before ends it, and the log says so."""
        self.client.transport.abortConnection()
        await self.client.lost
        await task.deferLater(clock, 0.3)
        self.assertEqual(len(self.lines), 1)
        self.assertTrue(self.lines[0].endswith(" aborted"), self.lines)
