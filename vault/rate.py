"""Rate: a token bucket that may go into debt, for producers that can be paused only after they have produced."""

from __future__ import annotations

from collections.abc import Callable

BURST = 0.25
"""Seconds' worth that may come at once."""


class Rate:
    """Bytes a second; ``seconds`` gives the time, see ``vault.clock.steady``."""

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
