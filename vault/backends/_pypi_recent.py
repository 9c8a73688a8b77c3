"""Documents that were made of a page and used just now, held open."""

from __future__ import annotations

import os
from collections import OrderedDict

from vault.artifact import MADE_FROM
from vault.interfaces import IBody, IKitchen

HELD = 64
"""How many documents are held open at most."""

IN_MEMORY = 64 * 1024 * 1024
"""The most bytes of documents that the disk did not take: to make them again for each client costs seconds."""

UNTIL = " until "
"""In the note of what a document was made of: what follows is when a file becomes old enough for it."""

FROM = " from "
"""After that: when the newest of its files was old enough.  Before it is only where the clock was set back."""


class Recent:
    """Documents that were used last, held open: to find one in the store costs as much as to send a small one."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, tuple[IBody, tuple[int, int]]] = OrderedDict()

    @property
    def in_memory(self) -> int:
        """The bytes of the documents that are held and not on disk."""
        return sum(document.size for document, _ in self._held.values() if document.descriptor is None)

    async def find(self, kitchen: IKitchen, key: str) -> IBody | None:
        """What is stored under a key that only ``keep`` is told of."""
        held = self._held.get(key)
        if held is not None and held[1] == _state(held[0]):
            self._held.move_to_end(key)
            return held[0]
        stored = await kitchen.stored(key)
        return None if stored is None else self.keep(key, stored)

    def keep(self, key: str, document: IBody) -> IBody:
        """Hold a document, and let go of those that were used least recently."""
        self._held.pop(key, None)
        if document.descriptor is None and document.size > IN_MEMORY:
            return document
        self._held[key] = document, _state(document)
        if len(self._held) > HELD:
            self._held.popitem(last=False)
        excess = self.in_memory - IN_MEMORY if document.descriptor is None else 0
        for other in list(self._held):
            if excess <= 0:
                break
            if self._held[other][0].descriptor is None:
                excess -= self._held.pop(other)[0].size
        return document


def _state(document: IBody) -> tuple[int, int]:
    """What changes when somebody writes into a document's file, as the store looks at it too."""
    if document.descriptor is None:
        return document.size, 0
    found = os.fstat(document.descriptor)
    return found.st_size, found.st_mtime_ns


def current(document: IBody, base: str, now: float) -> bool:
    """True if a document was made of this, and just the files that are old enough now were so then."""
    made_from, _, times = (document.head.get(MADE_FROM) or "").partition(UNTIL)
    until, _, begin = times.partition(FROM)
    return made_from == base and float(begin or "-inf") <= now < float(until or "inf")


def good_within(last: float | None, following: float | None, least_age: float) -> str:
    """What to add to the note of what a document was made of, by when its newest file and the next one were uploaded.

    Rounded to milliseconds, which must not make it look as if it were not good yet.
    """
    if last is None and following is None:
        return ""
    until = "inf" if following is None else f"{following + least_age:.3f}"
    return f"{UNTIL}{until}" + ("" if last is None else f"{FROM}{last + least_age - 0.001:.3f}")


def alike(document: IBody, base: str) -> bool:
    """True if a document was made of another page in just this way."""
    made_from = (document.head.get(MADE_FROM) or "").partition(UNTIL)[0]
    return made_from.split(" ")[-2:] == base.split(" ")[-2:]
