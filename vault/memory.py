"""Memory: what was noticed about keys, for a while: that something is missing, that an upstream wants rest."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

from vault.errors import VaultError

MEMORY = 10_000

ROUNDING = 1e-3
"""Seconds: what was noted this moment may be found to have a little more left than it was noted for."""

LONGEST = 100
"""Characters of the longest key that is kept itself: of a longer one, of which a client may make up any, its digest is.

So memory is bounded as the number of keys is: by some 10 MiB.
"""


class Memory:
    """What was noticed about keys, each for a while: a bounded mapping of key to (until, for how long, what).

    ``now`` gives seconds that never go back, see ``vault.clock.steady``; where it gives the time of day, and that is
    set back, what was noted before is forgotten.
    """

    def __init__(self, now: Callable[[], float], limit: int = MEMORY) -> None:
        self._now = now
        self._limit = limit
        self._notes: OrderedDict[str | bytes, tuple[float, float, VaultError | None]] = OrderedDict()

    def note(self, key: str, seconds: float, what: VaultError | None = None) -> None:
        """Remember for ``seconds``."""
        short = _short(key)
        self._notes.pop(short, None)
        if seconds > 0:
            # A copy: an error that was raised holds, by its traceback, the whole request.
            self._notes[short] = (self._now() + seconds, seconds, copy.copy(what))
        while self._notes:
            oldest = next(iter(self._notes.values()))
            if len(self._notes) <= self._limit and oldest[0] > self._now():
                return
            self._notes.popitem(last=False)

    def forget(self, key: str) -> None:
        """Remember no longer."""
        self._notes.pop(_short(key), None)

    def get(self, key: str) -> tuple[float, VaultError | None] | None:
        """What is remembered, with the seconds it has left."""
        short = _short(key)
        found = self._notes.get(short)
        if found is None:
            return None
        until, seconds, what = found
        left = until - self._now()
        if left <= 0 or left > seconds + ROUNDING:
            del self._notes[short]
            return None
        return left, what


def _short(key: str) -> str | bytes:
    return key if len(key) <= LONGEST else blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).digest()
