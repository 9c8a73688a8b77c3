"""Who gets the next connection to a host."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from vault.slots import OVERTAKING, Slots


class SlotsTests(SynchronousTestCase):
    """``vault.slots``"""

    def wait(self, slots: Slots, count: int, short: bool) -> list[Deferred[None]]:
        """So many who ask for a connection."""
        return [slots.acquire(short) for _ in range(count)]

    def served(self, waiting: list[Deferred[None]]) -> int:
        """How many of them have one."""
        return sum(waiter.called for waiter in waiting)

    def test_downloads_have_their_turn(self) -> None:
        """However many short answers are asked for, a download waits for a few of them only."""
        slots = Slots(8)
        first = self.wait(slots, 8, short=True)
        downloads = self.wait(slots, 3, short=False)
        flood = self.wait(slots, 100, short=True)
        for count in range(1, 2 * OVERTAKING + 3):
            slots.release(short=True)
            self.assertEqual(self.served(downloads), count // (OVERTAKING + 1))
        self.assertEqual((self.served(first), self.served(flood)), (8, 2 * OVERTAKING))

    def test_downloads_leave_some(self) -> None:
        """A flood lets no download take the connections that are for short answers alone."""
        slots = Slots(16)
        downloads = self.wait(slots, 30, short=False)
        flood = self.wait(slots, 30, short=True)
        for _ in range(28):
            slots.release(short=True)
        self.assertEqual((self.served(downloads), self.served(flood)), (14, 30))

    def test_waiting_for_downloads_counts_nothing(self) -> None:
        """Short answers that went ahead while no download could have begun are not held against later ones."""
        slots = Slots(8)
        downloads = self.wait(slots, 8, short=False)
        flood = self.wait(slots, 50, short=True)
        for _ in range(20):
            slots.release(short=True)
        self.assertEqual((self.served(downloads), self.served(flood)), (7, 21))
        for count in range(1, OVERTAKING + 2):
            slots.release(short=False)
            self.assertEqual(self.served(downloads), 8 if count > OVERTAKING else 7)

    def test_given_up(self) -> None:
        """Who gives up takes no connection, and leaves those who wait their order."""
        slots = Slots(1)
        slots.acquire()
        one, other = slots.acquire(), slots.acquire()
        one.addErrback(lambda failure: None).cancel()
        slots.release()
        self.assertTrue(other.called)
        slots.release()
        self.assertEqual(slots.tokens, 1)
