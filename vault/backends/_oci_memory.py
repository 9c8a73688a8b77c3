"""What an oci backend remembers for a while: which registry has a repository, what was whole, what was refused."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from vault.backends._oci_registry import Registry
from vault.memory import ROUNDING

T = TypeVar("T")

REMEMBERED = 60.0
"""Seconds for which it is remembered which registry has a repository, and which one refuses parts of its images."""


class Noted(Generic[T]):
    """What a backend remembers for REMEMBERED seconds at most: a bounded mapping whose entries end.

    What has longer to go was noted before the clock was set back, and counts as forgotten.
    """

    def __init__(self, limit: int = 2048) -> None:
        self._limit = limit
        self._notes: OrderedDict[str, tuple[float, T | None]] = OrderedDict()

    def note(self, key: str, until: float, what: T | None = None) -> None:
        """Remember until (POSIX seconds)."""
        self._notes.pop(key, None)
        self._notes[key] = (until, what)
        if len(self._notes) > self._limit:
            self._notes.popitem(last=False)

    def get(self, key: str, now: float) -> T | None:
        """What is remembered."""
        until, what = self._notes.get(key, (0.0, None))
        return what if 0 < until - now <= REMEMBERED + ROUNDING else None

    def holds(self, key: str, now: float) -> bool:
        """True if something is remembered."""
        return 0 < self._notes.get(key, (0.0, None))[0] - now <= REMEMBERED + ROUNDING

    def forget(self, key: str) -> None:
        """Remember no longer."""
        self._notes.pop(key, None)


@dataclass
class Memories:
    """What an oci backend remembers: ``homes`` of repositories, and manifests that are ``whole``.

    ``failing`` has the repositories of which some content by digest could not be had just now, ``resting`` the keys of
    tags and lists whose new bodies did not come whole, or not in time, and why they are served as they are kept.
    """

    homes: Noted[Registry] = field(default_factory=Noted)
    whole: Noted[None] = field(default_factory=Noted)
    failing: Noted[None] = field(default_factory=Noted)
    resting: Noted[str] = field(default_factory=Noted)
