"""Checks: whether a file that is not as its row describes it still is what was stored, or has to go."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from vault.errors import Stopping
from vault.store.body import OpenFile
from vault.store.hashes import sha256_of
from vault.store.index import Row
from vault.store.removal import forget
from vault.urls import plain

if TYPE_CHECKING:
    from vault.store.store import Store


class Checks:
    """The checks under way in a store: one at a time for each key, since it reads the whole file."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, list[Deferred[bool]]] = {}

    async def passes(self, row: Row, file: OpenFile, found: os.stat_result) -> bool:
        """True if the content is what it was; where not, the entry has been removed.  Raises Stopping."""
        if row.key in self._waiting:
            waiter: Deferred[bool] = Deferred()
            self._waiting[row.key].append(waiter)
            return await waiter
        self._waiting[row.key] = []
        result: bool | Failure = False
        try:
            result = passed = await self._store.disk.run(_check, self._store, row, file, found)
            return passed
        except Stopping:
            result = Failure()
            raise
        finally:
            for other in self._waiting.pop(row.key):
                other.callback(result)


def _check(store: Store, row: Row, file: OpenFile, found: os.stat_result) -> bool:
    """On a disk thread: see ``Checks.passes``; the file was touched, copied back or damaged."""
    try:
        if found.st_size == row.length and sha256_of(file, store.disk) == row.sha256:
            store.index.touch(row.of(found))
            return True
    except (OSError, ValueError, OverflowError, sqlite3.Error) as error:
        store.report(f"the file of {plain(row.key)} could not be checked", error)
        return False
    store.log.warn("the file of {key} is not what was stored; removed", key=plain(row.key))
    forget(store, [row])
    return False
