"""Space: keeps what is stored within its limits, by removing what was not used for longest."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

from vault.eviction import choose, excess
from vault.store.index import Row
from vault.store.removal import forget

if TYPE_CHECKING:
    from vault.store.store import Store

BATCH = 64
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
        self._lock = threading.Lock()

    def make_room(self, wanted: int) -> bool:
        """Remove entries until ``wanted`` more bytes fit; True if they do, and what is to stay free is free then.

        ``max_size`` may be exceeded for as long as everything that is stored is being read.
        """
        store = self._store
        with self._lock:
            for _ in range(2):  # the index grows by what is written of a removal, so that the first may not be enough
                too_much = self._excess(wanted)
                if too_much <= 0:
                    break
                with contextlib.suppress(sqlite3.Error):  # on a full disk that can be done again when room was made
                    store.flush_used()
                self._evict(too_much)
            free, total = store.layout.space()
            return free - wanted >= store.options.min_free.bytes(total)

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
        store = self._store
        index, now = store.index, store.now()
        gone = skip = 0
        for partial in index.partials():
            busy = partial.key in store.filling or partial.key in store.beginning
            if gone < wanted and not busy and now - partial.used > ABANDONED:
                gone += store.layout.partial_size(partial.name) or 0
                store.layout.remove_partial(partial.name)
                index.remove_partial(partial.key)
        while gone < wanted:
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
