"""Which stored entries go when space runs short: the pure choice, without any file touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Entry = TypeVar("Entry")


def excess(stored: int, max_size: int, free: int, min_free: int) -> int:
    """How many bytes must go so that at most ``max_size`` are stored and at least ``min_free`` are free on the disk.

    Never more than there is stored.
    """
    return min(stored, max(0, stored - max_size, min_free - free))


def choose(
    oldest: Iterable[Entry], wanted: int, size: Callable[[Entry], int], in_use: Callable[[Entry], bool]
) -> Iterator[Entry]:
    """The entries to remove, least recently used first, until ``wanted`` bytes are gone; none that is in use."""
    for entry in oldest:
        if wanted <= 0:
            return
        if not in_use(entry):
            wanted -= size(entry)
            yield entry
