"""How entries go: everything here runs on disk threads."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from vault.store.body import OpenFile
from vault.store.index import Row

if TYPE_CHECKING:
    from vault.store.store import Store

FULL = "disk is full"
"""In what SQLite says where the file system has no room (SQLITE_FULL)."""


def forget(store: Store, rows: list[Row]) -> bool:
    """Remove entries, the row first, so that no row is without its file for longer.

    What has taken an entry's place meanwhile stays.  On a full disk, where SQLite cannot write either, the files go
    first; rows that even then cannot be removed are noted in ``store.unlinked`` and go another time.  False where the
    index cannot be written.
    """
    for row in rows:
        with store.place_lock(row.path):
            try:
                if store.index.remove(row):
                    _unlink(store, row)
            except sqlite3.Error as error:
                if FULL not in str(error):
                    store.report("entries could not be removed", error)
                    return False
                store.unlinked[row.key] = row
                if _there(store, row):
                    _unlink(store, row)
    return forget_unlinked(store)


def forget_unlinked(store: Store) -> bool:
    """Remove the rows of files that went before them; False where the index cannot be written."""
    for row in list(store.unlinked.values()):
        with store.place_lock(row.path):
            try:
                store.index.remove(row)
            except sqlite3.Error as error:
                store.report("entries could not be removed", error)
                return False
            store.unlinked.pop(row.key, None)
    return True


def _there(store: Store, row: Row) -> bool:
    try:
        file = OpenFile(store.layout.open(row.path))
    except OSError:
        return False
    return row.describes(os.fstat(file.descriptor))


def _unlink(store: Store, row: Row) -> None:
    store.reading.pop(row.key, None)
    try:
        store.layout.remove(row.path)
    except OSError as error:
        store.log.error("{path} could not be removed: {error}", path=row.path, error=error.strerror)
    store.held.drop(row.key)  # not before: the reactor's thread may just be opening it, to hold it
