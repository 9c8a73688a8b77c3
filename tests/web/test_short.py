"""Short bodies: which are given at once, and which are left to Delivery."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.store.fakes import InlineDisk
from tests.store.socket_case import DATA as FILE
from tests.store.socket_case import SocketCase, clock
from vault.artifact import Head
from vault.body import TOGETHER
from vault.store.body import GrowingBody, MemoryBody, OpenFile, StoredBody
from vault.web.short import AT_ONCE, at_hand, send

DATA = bytes(range(256)) * 1024


class ShortTests(SynchronousTestCase):
    def setUp(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(DATA)
        self.file = OpenFile(os.open(path, os.O_RDONLY))

    def stored(self, length: int = len(DATA)) -> StoredBody:
        """The file as a stored entry that should have so many bytes."""
        return StoredBody(Head(), length, "", self.file, InlineDisk())

    def test_parts(self) -> None:
        """Spans and what is between them come in their order; nothing is an answer too."""
        body = self.stored()
        self.assertEqual(at_hand(body, [(0, 10)]), DATA[:10])
        self.assertEqual(at_hand(body, [b"a", (5, 7), b"b", (3, 4), b"c"]), b"a" + DATA[5:7] + b"b" + DATA[3:4] + b"c")
        self.assertEqual(at_hand(body, [(len(DATA) - 2, None)]), DATA[-2:])
        self.assertEqual(at_hand(body, [(4, 4)]), b"")
        self.assertEqual(at_hand(MemoryBody(Head(), b"0123"), [(0, None)]), b"0123")

    def test_long(self) -> None:
        """Long bodies are for Delivery, at the client's pace."""
        body = self.stored()
        self.assertEqual(at_hand(body, [(0, TOGETHER)]), DATA[:TOGETHER])
        self.assertIsNone(at_hand(body, [(0, TOGETHER + 1)]))
        self.assertIsNone(at_hand(body, [(0, None)]))
        self.assertIsNone(at_hand(body, [(0, TOGETHER), (9, 10)]))

    def test_cut(self) -> None:
        """So is a file that became shorter: it is known there what to do."""
        self.assertIsNone(at_hand(self.stored(len(DATA) + 1), [(len(DATA) - 1, None)]))

    def test_growing(self) -> None:
        """And a body that grows, or of which some is not in the file."""
        body = GrowingBody(Head(), 4, self.file, InlineDisk(), Clock())
        body.publish(3)
        self.assertIsNone(at_hand(body, [(0, 3)]))
        body.spill(b"x")
        body.finish()
        self.assertIsNone(at_hand(body, [(0, None)]))
        self.assertEqual(at_hand(body, [(0, 3)]), DATA[:3])


class SendTests(SocketCase):
    """What the kernel is given at once, and what is left over for Delivery."""

    async def give(self, body: Any, *parts: Any) -> Any:
        """What is left of the parts, and the client has had before."""
        self.client.data.clear()
        self.request.sentLength = 0
        left = send(self.request, body, parts)  # type: ignore[arg-type]  # as much of a request as is needed
        await deferLater(clock, 0.02)
        self.assertFalse(self.server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))
        self.assertEqual(len(self.client.data), self.request.sentLength)
        return left, bytes(self.client.data)

    async def test_whole(self) -> None:
        """A body that the socket takes is gone; one after the other on a connection."""
        for start, stop in ((0, 200_000), (7, 100_000), (len(FILE) - 70_000, None)):
            left, data = await self.give(self.stored(), (start, stop))
            self.assertEqual(len(left), 0)
            self.assertTrue(data == FILE[start:stop])

    async def test_rest(self) -> None:
        """Of what it does not take the rest is left, and nothing is sent twice."""
        self.stop_reading()
        left = send(self.request, self.stored(), [(5, None)])  # type: ignore[arg-type]
        ((start, stop),) = left
        assert isinstance(start, int)
        self.assertEqual((start, stop), (5 + self.request.sentLength, len(FILE)))
        self.assertTrue(5 < start < len(FILE))
        self.client.transport.resumeProducing()
        await self.deliver(self.stored(), *left)
        await self.check(FILE[5:])

    async def test_left(self) -> None:
        """What is not in the file, not whole, long or in several parts is left alone, as is what waits for others."""
        growing = self.growing()
        growing.publish(100_000)
        spilled = self.growing()
        spilled.publish(100_000)
        spilled.spill(FILE[100_000:])
        spilled.finish()
        for body, parts in (
            (growing, [(0, 100_000)]),
            (spilled, [(0, None)]),
            (MemoryBody(Head(), FILE), [(0, None)]),
            (self.stored(), [b"x", (0, 100_000)]),
            (self.stored(), [(0, 100_000), (0, 100_000)]),
            (StoredBody(Head(), AT_ONCE + 1, "", self.stored().file, InlineDisk()), [(0, None)]),
        ):
            left, data = await self.give(body, *parts)
            self.assertEqual((list(left), data), (parts, b""))
        self.stop_reading()
        self.server.write(b"x" * 10_000_000)
        self.assertEqual(list(send(self.request, self.stored(), [(0, None)])), [(0, None)])  # type: ignore[arg-type]

    async def test_cut(self) -> None:
        """Of a file that is too short what it has not is left over."""
        cut = StoredBody(Head(), len(FILE) + 1, "", self.stored().file, InlineDisk())
        left, data = await self.give(cut, (2_000_000, None))
        self.assertEqual(left, [(len(FILE), len(FILE) + 1)])
        self.assertTrue(data == FILE[2_000_000:])

    async def test_gone(self) -> None:
        """A client that has gone is for Delivery to notice."""
        self.client.transport.abortConnection()
        await self.client.lost
        left = send(self.request, self.stored(), [(0, len(FILE))])  # type: ignore[arg-type]
        self.assertEqual(list(left), [(0, len(FILE))])
