"""Clocks: the monotonic one is what times are measured by."""

from __future__ import annotations

import time

from twisted.internet import reactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from vault.clock import keep_timers, steady


class ClockTests(SynchronousTestCase):
    def test_steady(self) -> None:
        """Times are measured by a clock that nobody sets; a test's clock is used as it is."""
        clock = Clock()
        self.assertIs(steady(reactor), time.monotonic)  # type: ignore[arg-type]  # Twisted declares it a module
        self.assertEqual(steady(clock), clock.seconds)

    def test_timers(self) -> None:
        """A reactor's timers follow it too, unless there are some already; a test's clock is left alone."""
        for delayed, expected in ((False, time.monotonic), (True, time.time)):
            fresh = EPollReactor()
            if delayed:
                fresh.callLater(1, int)
            keep_timers(fresh)
            self.assertIs(fresh.seconds, expected)
            self.assertLess(abs(fresh.callLater(5, int).getTime() - expected() - 5), 1)
            fresh._uninstallHandler()
            for reader in fresh.removeAll():
                reader.connectionLost(None)
        clock = Clock()
        keep_timers(clock)
        self.assertEqual(clock.seconds(), 0)
