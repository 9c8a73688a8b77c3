"""Slots: the connections to one host that may be open at a time, and who gets the next one that is free."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred

KEPT_FREE = 8
"""Of so many connections one is kept for short answers: whole downloads may hold the others for minutes."""

OVERTAKING = 4
"""So many short answers go before a download that waits; then it has its turn, however many more there are."""


class Slots:
    """At most ``limit`` connections.

    What has a short answer (a manifest, a page, a HEAD) goes before what has not: everybody's next step waits for it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._most_long = limit - limit // KEPT_FREE
        self._short = _Kind()
        self._long = _Kind()
        self._overtaken = 0

    @property
    def tokens(self) -> int:
        """The connections that are free."""
        return self.limit - self._short.in_use - self._long.in_use

    def acquire(self, short: bool = False) -> Deferred[None]:
        """Fires when a connection may be made; cancelling it gives up the wait."""
        queue = self._kind(short).waiting
        waiter: Deferred[None] = Deferred(queue.remove)
        queue.append(waiter)
        self._serve()
        return waiter

    def release(self, short: bool = False) -> None:
        """A connection is free again, of those that were acquired with the same ``short``."""
        self._kind(short).in_use -= 1
        self._serve()

    def _kind(self, short: bool) -> _Kind:
        return self._short if short else self._long

    def _serve(self) -> None:
        while self.tokens and (kind := self._next()) is not None:
            kind.in_use += 1
            kind.waiting.popleft().callback(None)

    def _next(self) -> _Kind | None:
        """Whose turn it is; None where nobody waits who may have a connection."""
        long_may = bool(self._long.waiting) and self._long.in_use < self._most_long
        if self._short.waiting and not (long_may and self._overtaken >= OVERTAKING):
            self._overtaken += long_may
            return self._short
        self._overtaken = 0
        return self._long if long_may else None


class _Kind:
    """The connections that short answers or downloads have, and who waits for one."""

    def __init__(self) -> None:
        self.in_use = 0
        self.waiting: deque[Deferred[None]] = deque()
