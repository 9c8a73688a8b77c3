"""How the time that something takes grows with what it is given: what strangers send must not take time out of hand."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time_ns
from typing import Any

TIMES = 16
"""How much longer the long input is than the short one."""


def growth(work: Callable[[Any], object], make: Callable[[int], Any], size: int) -> float:
    """How many times as long ``work`` takes for ``make(TIMES * size)`` as for ``make(size)``, by the processor's time.

    About TIMES where the time grows with the length, TIMES squared where it grows with the square.
    """
    return _least(work, make(TIMES * size)) / _least(work, make(size))


def _least(work: Callable[[Any], object], given: Any) -> float:
    """The least of several measurements: whatever else the machine does can only add to it."""
    least = float("inf")
    for _ in range(7):
        rounds, spent = 0, 0
        while spent < 200_000:  # the clock is not fine enough for one
            begun = thread_time_ns()
            work(given)
            spent += thread_time_ns() - begun
            rounds += 1
        least = min(least, spent / rounds)
        if spent > 300_000_000:
            break  # so long that it needs no second look
    return least
