"""What the cache did for a request, in the words that clients, logs and metrics use, and the body it found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from vault.artifact import Head
from vault.interfaces import IBody


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


@dataclass(slots=True)
class Found:
    """A body to serve.  ``fwd``, ``fwd_status``, ``detail`` and ``ttl`` are for Cache-Status (RFC 9211).

    ``head`` is answered with where it is given, else the body's own.  ``ranges`` is False where a Range is to be
    ignored (RFC 9110 section 14.2 allows it).  Where ``exact_date``, only who names the very Last-Modified has it
    already: what comes later under the name may have an earlier one.  ``ahead(start, stop)`` gives these bytes straight
    from the upstream where the growing body is still far from them, and None where waiting for it is as good.
    """

    body: IBody
    how: How
    fwd: str | None = None
    fwd_status: int | None = None
    collapsed: bool = False
    stored: bool = False
    delimited: bool = True
    ttl: float | None = None
    detail: str | None = None
    head: Head | None = None
    ranges: bool = True
    exact_date: bool = False
    ahead: Callable[[int, int], Awaitable[IBody | None]] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a recipe may know of the request it answers.

    ``head_only``: it is a HEAD.  ``no_cache``: the client asks for validation (RFC 9111 section 5.2.1.4).  ``notes``
    belongs to the client's connection and lives as long: what an earlier request on it was given can be noted there.
    ``client`` in it is the client's address, where a client asks.  ``stored_only``: the client wants nothing but what
    is stored, as long as that has not expired more than these seconds ago; None: the upstream may be asked.
    """

    head_only: bool = False
    no_cache: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    stored_only: float | None = None
