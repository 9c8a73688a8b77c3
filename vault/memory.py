"""Memory: what was noticed about keys, for a while: that something is missing, that an upstream wants rest."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

from vault.errors import VaultError

MEMORY = 10_000


class Memory:
    """What was noticed about keys, each for a while: a bounded mapping of key to (until, what).

    ``now`` gives seconds that never go back, see ``vault.rate.steady``.
    """

    def __init__(self, now: Callable[[], float], limit: int = MEMORY) -> None:
        self._now = now
        self._limit = limit
        self._notes: OrderedDict[str, tuple[float, VaultError | None]] = OrderedDict()

    def note(self, key: str, seconds: float, what: VaultError | None = None) -> None:
        """Remember for ``seconds``."""
        self._notes.pop(key, None)
        if seconds > 0:
            # A copy: an error that was raised holds, by its traceback, the whole request.
            self._notes[key] = (self._now() + seconds, copy.copy(what))
        while self._notes:
            oldest = next(iter(self._notes.values()))
            if len(self._notes) <= self._limit and oldest[0] > self._now():
                return
            self._notes.popitem(last=False)

    def forget(self, key: str) -> None:
        """Remember no longer."""
        self._notes.pop(key, None)

    def get(self, key: str) -> tuple[float, VaultError | None] | None:
        """What is remembered, with the seconds it has left."""
        found = self._notes.get(key)
        if found is None:
            return None
        left = found[0] - self._now()
        if left <= 0:
            del self._notes[key]
            return None
        return left, found[1]
