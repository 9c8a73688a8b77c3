"""Slots: the connections to one host that may be open at a time, and who gets the next one that is free."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred

KEPT_FREE = 8
"""Of so many connections one is kept for short answers: whole downloads may hold the others for minutes."""


class Slots:
    """At most ``limit`` connections; ``tokens`` are free now.

    What has a short answer (a manifest, a page, a HEAD) goes before what has not: everybody's next step waits for it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = self.tokens = limit
        self._reserve = limit // KEPT_FREE
        self._waiting: tuple[deque[Deferred[None]], deque[Deferred[None]]] = (deque(), deque())

    def acquire(self, short: bool = False) -> Deferred[None]:
        """Fires when a connection may be made; cancelling it gives up the wait."""
        queue = self._waiting[0 if short else 1]
        waiter: Deferred[None] = Deferred(queue.remove)
        queue.append(waiter)
        self._serve()
        return waiter

    def release(self) -> None:
        """A connection is free again."""
        self.tokens += 1
        self._serve()

    def _serve(self) -> None:
        for queue, least in zip(self._waiting, (0, self._reserve), strict=True):
            while queue and self.tokens > least:
                self.tokens -= 1
                queue.popleft().callback(None)
