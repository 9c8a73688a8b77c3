"""What the cache did for a request, in the words that clients, logs and metrics use."""

from __future__ import annotations

from enum import Enum


class How(Enum):
    """How an answer came about; the value is what ``X-Cache`` says."""

    HIT = "HIT"
    """Served from a fresh stored copy."""

    MISS = "MISS"
    """Nothing usable was stored: this request started the fill."""

    JOINED = "JOINED"
    """A fill was already under way: this request reads along."""

    REVALIDATED = "REVALIDATED"
    """The stored copy had expired and the upstream confirmed it."""

    STALE = "STALE"
    """Served from an expired copy, because it is refreshed behind or the upstream failed."""

    BYPASS = "BYPASS"
    """Passed through from the upstream without being kept."""

    @property
    def x_cache(self) -> str:
        """The value of the ``X-Cache`` response field."""
        return self.value
