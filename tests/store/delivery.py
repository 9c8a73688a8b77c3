"""A client that a Delivery is tested with, in memory."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.store.fakes import InlineDisk
from vault.artifact import Head
from vault.body import Delivery
from vault.store.body import GrowingBody, OpenFile, StoredBody

STALL = 30.0
DATA = bytes(range(256)) * 4


class FakeRequest:
    """A response: what was written, and a transport that is full after ``room`` bytes."""

    client_host = "192.0.2.1"
    chunked = False
    sentLength = 0

    def __init__(self) -> None:
        self.data = b""
        self.writes: list[int] = []
        self.producer: Any = None
        self.room = 1 << 60
        self.gone = False
        self.channel = SimpleNamespace(transport=None)

    def write(self, data: bytes) -> None:
        """Take bytes; pause the producer when that was too much."""
        self.data += data
        self.writes.append(len(data))
        self.room -= len(data)
        if self.room <= 0 and self.producer is not None:
            self.producer.pauseProducing()

    def take(self, count: int) -> None:
        """The client has taken bytes."""
        self.room += count
        if self.room > 0 and self.producer is not None:
            self.producer.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """As a request does."""
        assert streaming and self.producer is None
        if self.gone:
            producer.stopProducing()
        else:
            self.producer = producer

    def unregisterProducer(self) -> None:
        """As a request does."""
        self.producer = None


class Allowed:
    """A limit: so many bytes now, and then a wait."""

    def __init__(self, *grants: tuple[int, float]) -> None:
        self.grants = list(grants)
        self.asked: list[tuple[str, int]] = []

    def allowance(self, address: str, wanted: int) -> tuple[int, float]:
        """The next grant."""
        self.asked.append((address, wanted))
        granted, wait = self.grants.pop(0)
        return min(granted, wanted), wait


class DeliveryCase(SynchronousTestCase):
    """Has a client, a clock and bodies."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.request = FakeRequest()
        self.path = Path(self.mktemp())
        self.path.write_bytes(DATA)

    def stored(self, disk: Any = None) -> StoredBody:
        """A stored entry."""
        file = OpenFile(os.open(self.path, os.O_RDONLY))
        return StoredBody(Head(), len(DATA), "", file, disk or InlineDisk())

    def growing(self, file: bool = True, floor: int = 0) -> GrowingBody:
        """A body nothing of which has come."""
        opened = OpenFile(os.open(self.path, os.O_RDWR)) if file else None
        return GrowingBody(Head(), None, opened, InlineDisk(), self.clock, floor)

    def deliver(self, body: Any, *parts: Any, limit: Allowed | None = None) -> Deferred[None]:
        """Begin."""
        self.delivery = Delivery(self.request, body, parts, self.clock, STALL, limit)
        return self.delivery.start()

    def over(self) -> None:
        """Nothing is left behind when it is over."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.request.producer)
