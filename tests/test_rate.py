"""Rate: so many bytes a second, from a producer that can be paused only after it has produced."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from vault.rate import BURST, Rate


class RateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rate = Rate(1000, self.clock.seconds)

    def test_burst(self) -> None:
        """A little may come at once, and what is more has to be waited for."""
        self.assertEqual(self.rate.spend(int(1000 * BURST)), 0)
        self.assertEqual(self.rate.spend(100), 0.1)

    def test_kept(self) -> None:
        """Whatever the pieces, a producer that waits as long as it is told keeps the rate."""
        for piece in (1, 10, 333, 5000):
            rate, begun, sent = Rate(1000, self.clock.seconds), self.clock.seconds(), 0
            while sent < 20_000:
                self.clock.advance(rate.spend(piece))
                sent += piece
            self.assertAlmostEqual(self.clock.seconds() - begun, sent / 1000 - BURST, delta=0.01)

    def test_debt(self) -> None:
        """A producer that goes on although it was told to wait is told to wait longer."""
        waits = [self.rate.spend(1000) for _ in range(3)]
        self.assertEqual(waits, [1 - BURST, 2 - BURST, 3 - BURST])

    def test_rest_is_not_saved_up(self) -> None:
        """A long pause allows no more at once than a short one."""
        self.rate.spend(250)
        self.clock.advance(3600)
        self.assertEqual(self.rate.spend(250), 0)
        self.assertAlmostEqual(self.rate.spend(500), 0.5)

    def test_nothing(self) -> None:
        """Nothing costs nothing."""
        self.assertEqual(self.rate.spend(0), 0)
