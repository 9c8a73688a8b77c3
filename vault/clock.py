"""Clocks: how long something is must not depend on what the time of day is set to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol


class Clock(Protocol):
    """Tells the time in seconds, as a reactor does."""

    def seconds(self) -> float: ...


def steady(clock: Clock) -> Callable[[], float]:
    """The seconds of a clock, for measuring how long something is: they never jump or go back.

    A reactor's own are the time of day, which an operator or a time server may set.
    """
    return time.monotonic if clock.seconds is time.time else clock.seconds


def keep_timers(reactor: Any) -> None:
    """Have a reactor's timers follow the monotonic clock.

    Twisted's follow the time of day: where that is set back by an hour, as on a machine whose clock is found to be
    wrong after the start, nothing times out for an hour.  It is left as it is where timers are set already, whose time
    has been counted by the other clock.
    """
    if reactor.seconds is time.time and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic
