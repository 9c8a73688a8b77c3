"""How far a transfer is, and what those are told who wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from vault.store.body import GrowingBody, StoredBody


class State(Enum):
    """The stages of a transfer: what each means and what comes next is told by ``vault.transfer``."""

    ASKING = auto()
    STREAMING = auto()
    COMPLETE = auto()
    FRESHENED = auto()
    REFUSED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What those who wait for the head are told.

    ``body`` is None only for those who must ask for themselves.  ``first`` is true for whoever began the transfer.
    ``delimited`` is False where only closing the connection can end the body (RFC 9112 section 6.3), ``uncacheable``
    is True where the answer itself may not be stored, whatever the disk could do.
    """

    state: State
    body: GrowingBody | StoredBody | None
    first: bool = False
    delimited: bool = True
    status: int = 200
    uncacheable: bool = False
