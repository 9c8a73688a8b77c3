"""Which stored entries go when space runs short: the pure choice, without any file touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar


class Content(Protocol):
    """What is known of an entry; entries of one ``sha256`` share one file of ``length`` bytes."""

    @property
    def sha256(self) -> str: ...
    @property
    def length(self) -> int: ...


Entry = TypeVar("Entry", bound=Content)


def excess(stored: int, max_size: int, free: int, min_free: int) -> int:
    """How many bytes must go so that at most ``max_size`` are stored and at least ``min_free`` are free on the disk.

    Never more than there is stored.
    """
    return min(stored, max(0, stored - max_size, min_free - free))


def choose(
    oldest: Iterable[Entry], wanted: int, names: Callable[[str], int], in_use: Callable[[Entry], bool]
) -> Iterator[Entry]:
    """The entries to remove, least recently used first, until ``wanted`` bytes are gone; none that is in use.

    ``names`` is how many entries share a content: its bytes go with the last of them.
    """
    left: dict[str, int] = {}
    for entry in oldest:
        if wanted <= 0:
            return
        if in_use(entry):
            continue
        count = left.get(entry.sha256) or names(entry.sha256)
        left[entry.sha256] = count - 1
        if count == 1:
            wanted -= entry.length
        yield entry
