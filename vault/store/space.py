"""Space: keeps what is stored within its limits, by removing what was not used for longest."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

from vault.eviction import choose, excess
from vault.store.index import PartialRow, Row
from vault.store.partials import drop
from vault.store.removal import forget

if TYPE_CHECKING:
    from vault.store.store import Store

BATCH = 64
BLOCK = 4096
"""Bytes that a file may take on the disk more than it is long."""

ABANDONED = 86400.0
"""Seconds after which a fill that nobody has gone on with goes before anything that is whole."""


class MinFree(Protocol):
    """What must stay free on the cache's disk."""

    def bytes(self, total: int) -> int:
        """In bytes, for a disk of ``total`` bytes."""
        ...


class Options(Protocol):
    """The ``cache`` section of the configuration; sizes in bytes."""

    @property
    def max_size(self) -> int: ...
    @property
    def dir_mode(self) -> int: ...
    @property
    def file_mode(self) -> int: ...
    @property
    def min_free(self) -> MinFree: ...


class Space:
    """The part of a store that makes room; everything here runs on disk threads."""

    log = Logger()

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = threading.Condition()
        self._evicting = False
        self._in_vain: tuple[int, int] | None = None

    def make_room(self, wanted: int) -> bool:
        """Remove entries until ``wanted`` more bytes fit; True if they do, and what is to stay free is free then.

        One thread removes at a time; others wait for it until the disk has room for them, and no longer.  ``max_size``
        may be exceeded meanwhile, and for as long as everything that is stored is being read.  Nothing is removed for
        what does not fit even then.
        """
        self._spare_files()
        if self._excess(wanted) <= 0:
            return self._short(wanted) <= 0
        with self._turn:
            while self._evicting:
                if not wanted or self._short(wanted) <= 0:
                    return self._short(wanted) <= 0
                self._turn.wait()
            self._evicting = True
        try:
            short = self._short(wanted)
            if wanted and short > 0 and short > self._evictable():
                return False
            for _ in range(2):  # the index grows by what is written of a removal, so that the first may not be enough
                too_much = self._excess(wanted)
                if too_much <= 0:
                    break
                if wanted:  # a fill makes room for itself; ``tidy`` does the rest, as after ``max_size`` was lowered
                    too_much = min(too_much, max(wanted, self._short(wanted)))
                with contextlib.suppress(sqlite3.Error):  # on a full disk that can be done again when room was made
                    self._store.flush_used()
                self._evict(too_much)
        finally:
            with self._turn:
                self._evicting = False
                self._turn.notify_all()
        return self._short(wanted) <= 0

    def _spare_files(self) -> None:
        """Remove some entries where the file system has hardly any more files (inodes), however many bytes are free."""
        layout = self._store.layout
        if not layout.lacking_files() or layout.files() == self._in_vain:
            return
        with self._turn:
            if self._evicting:
                return
            self._evicting = True
        try:
            with contextlib.suppress(sqlite3.Error):
                self._store.flush_used()
            self._evict_files()
        finally:
            with self._turn:
                self._evicting = False
                self._turn.notify_all()

    def _evict_files(self) -> None:
        store, index, layout = self._store, self._store.index, self._store.layout
        skip, most = 0, 1  # the first tells whether it is of use
        while (lacking := layout.lacking_files()) and not store.disk.stopping and store.index is index:
            before = layout.files()
            rows = index.oldest(min(most, lacking), skip)
            chosen = [row for row in rows if not self._in_use(row)]
            if not rows or not forget(store, chosen):
                return
            skip += len(rows) - len(chosen)
            if chosen:
                self.log.info("removed {count} entries: the file system has no more inodes", count=len(chosen))
            # Some file systems only pretend to count; but content goes with the last of its names only.
            if layout.files()[0] <= before[0] and any(not index.names(row.sha256) for row in chosen):
                self._in_vain = layout.files()
                return
            most = BATCH

    def _short(self, wanted: int) -> int:
        """How many bytes the disk lacks, so that ``wanted`` more fit beside what is to stay free."""
        free, total = self._store.layout.space()
        return wanted + self._store.options.min_free.bytes(total) - free

    def _evictable(self) -> int:
        """How many bytes would be free, at most, if everything went that may go."""
        store = self._store
        count, stored = store.index.totals()
        in_use = {ref.key for ref in store.reading.valuerefs()}.union(store.filling, store.beginning, store.unlinked)
        stays = dict(filter(None, map(store.index.content_of, in_use)))
        partials = sum(store.layout.partial_size(partial.name) or 0 for partial in self._abandoned())
        return stored - sum(stays.values()) + count * BLOCK + partials

    def _abandoned(self) -> list[PartialRow]:
        store, now = self._store, self._store.now()
        busy = store.filling.keys() | store.beginning
        return [row for row in store.index.partials() if row.key not in busy and now - row.used > ABANDONED]

    def _excess(self, wanted: int) -> int:
        store, options = self._store, self._store.options
        free, total = store.layout.space()
        stored = store.index.totals()[1] - sum(row.length for row in list(store.unlinked.values()))
        return excess(
            stored + self._partials() + wanted, options.max_size, free - wanted, options.min_free.bytes(total)
        )  # fmt: skip

    def _in_use(self, row: Row) -> bool:
        store = self._store
        return any(row.key in keys for keys in (store.reading, store.filling, store.beginning, store.unlinked))

    def _partials(self) -> int:
        layout = self._store.layout
        return sum(layout.partial_size(name) or 0 for name in layout.partial_names())

    def _evict(self, wanted: int) -> None:
        store, index = self._store, self._store.index
        gone = skip = 0
        for partial in self._abandoned():
            if gone < wanted:
                gone += drop(store, partial.key, partial.name)
        while gone < wanted and not store.disk.stopping and store.index is index:  # another one knows other entries
            with self._turn:
                self._turn.notify_all()  # there may be room for others already
            rows = index.oldest(BATCH, skip)
            if not rows:
                return
            chosen = list(choose(rows, wanted - gone, index.names, self._in_use))
            before = index.totals()[1]
            if chosen:
                if not forget(store, chosen):
                    return
                self.log.info("removed {count} entries least recently used", count=len(chosen))
            gone += before - index.totals()[1]
            skip += len(rows) - len(chosen)
