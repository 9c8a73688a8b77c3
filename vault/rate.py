"""Rate: a token bucket that may go into debt, for producers that can be paused only after they have produced."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

BURST = 0.25
"""Seconds' worth that may come at once."""


class Clock(Protocol):
    """Tells the time in seconds, as a reactor does."""

    def seconds(self) -> float: ...


def steady(clock: Clock) -> Callable[[], float]:
    """The seconds of a clock, for measuring how long something is: they never jump or go back.

    A reactor's own are the time of day, which an operator or a time server may set.
    """
    return time.monotonic if clock.seconds is time.time else clock.seconds


class Rate:
    """Bytes a second; ``seconds`` gives the time, see ``steady``."""

    def __init__(self, per_second: float, seconds: Callable[[], float]) -> None:
        self.per_second = per_second
        self._seconds = seconds
        self._level = per_second * BURST
        self._at = seconds()

    def spend(self, count: int) -> float:
        """Take ``count`` bytes; how many seconds to produce nothing, so that the rate is kept."""
        now = self._seconds()
        self._level = min(self.per_second * BURST, self._level + (now - self._at) * self.per_second) - count
        self._at = now
        return max(0.0, -self._level / self.per_second)
