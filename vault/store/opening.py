"""How a store is opened: the directory, the index, and what a full disk or a damaged index make of that."""

from __future__ import annotations

import errno
import sqlite3
from typing import TYPE_CHECKING

from twisted.logger import Logger

from vault.errors import StoreError
from vault.store.index import Index
from vault.store.layout import MEND, NOT_WRITABLE, Layout
from vault.store.partials import partial_name

if TYPE_CHECKING:
    from vault.store.store import Store

NEEDED = 4 * 1024 * 1024
"""Free bytes with which SQLite can work."""

MOST = 256 * 1024 * 1024
"""No more than so many bytes go before the index is open, which is when entries are removed in order."""

MOST_FILES = 16
"""Nor more than so many files, where it is files (inodes) that there is no room for: the index is three."""

log = Logger()


def open_store(store: Store) -> Index:
    """Prepare the directory, open the index, see what the last vault left; raises StoreError.

    It is the StoreError of a full disk where ``full`` says so.
    """
    layout = store.layout
    layout.prepare()
    try:
        try:
            index = _open_index(layout)
        except (sqlite3.Error, OSError):
            if not _give_room(layout):
                raise
            index = _open_index(layout)
    except (sqlite3.Error, OSError) as error:
        layout.release()
        raise StoreError(f"cannot use the cache directory {layout.root}: {_why(layout, error)}") from error
    return index


def open_late(store: Store) -> Index:
    """Open a store whose disk was too full for that before; raises OSError."""
    try:
        index = open_store(store)
    except StoreError as error:
        raise OSError(errno.ENOSPC, str(error)) from error
    store.rebuilding = index.incomplete
    return index


def _why(layout: Layout, error: sqlite3.Error | OSError) -> str:
    """What an error says, and of which file, since SQLite names none; with what to do where it is simple."""
    if isinstance(error, sqlite3.Error):
        reason = f"{layout.index}: {error}"
        denied = any(words in reason for words in ("unable to open", "readonly"))
    else:
        reason, denied = str(error), error.errno in NOT_WRITABLE
    return reason + (MEND if denied and not _scarce(layout) else "")


def reopen(store: Store) -> Index:
    """Begin an empty cache directory where the one that was opened has vanished; raises OSError.

    The old index is not closed: another thread may be using it.  SQLite leaves files alone that are no longer its own.
    """
    layout = store.layout
    try:
        layout.prepare()
        layout.make_index()
        index = Index(layout.index)
        layout.mark_open()
    except StoreError as error:
        raise OSError(errno.ENOENT, str(error)) from error
    log.error("the cache directory {root} had vanished; an empty one is begun", root=str(layout.root))
    return index


def renew_index(store: Store) -> Index:
    """Begin an empty index in the place of one that was damaged while it is in use; raises OSError, sqlite3.Error.

    Where it proves to be sound it stays: what was said was said of another, which it has replaced.
    As above the old one is not closed.  The fills that run are noted again, so that they can be gone on with; of what
    others left nothing is known any more, and it goes.
    """
    layout = store.layout
    if store.index.sound():
        layout.pardon_index()
        return store.index
    log.warn("the cache's index was damaged while it was in use; it is rebuilt from the files")
    layout.condemn_index()  # where it does not come to the next line
    layout.remove_index()
    layout.make_index()
    index = Index(layout.index)
    for writer in list(store.filling.values()):
        if writer.row is not None and writer.storing:
            index.put_partial(writer.row)
    left = set(layout.partial_names())
    for name in left.difference(map(partial_name, (*store.filling, *store.beginning))):
        layout.remove_partial(name)
    return index


def full(layout: Layout, error: StoreError) -> bool:
    """True where a store could not be opened because its disk is full."""
    if getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    # SQLite has many words for it, such as "disk I/O error" and "unable to open database file".
    return isinstance(error.__cause__, sqlite3.OperationalError) and _scarce(layout)


def _scarce(layout: Layout) -> bool:
    try:
        return layout.space()[0] < NEEDED or layout.lacking_files() > 0
    except OSError:
        return False


def _open_index(layout: Layout) -> Index:
    layout.remove_condemned_index()
    try:
        return _look_through(layout)
    except sqlite3.OperationalError:
        raise  # a full or read-only disk: the index itself may be sound
    except sqlite3.DatabaseError as error:
        log.warn("the cache's index is damaged ({error}); it is rebuilt from the files", error=error)
        layout.condemn_index()
        layout.remove_index()
        return _look_through(layout)


def _look_through(layout: Layout) -> Index:
    layout.make_index()
    index = Index(layout.index)
    try:
        index.incomplete = index.fresh or layout.left_open()
        layout.mark_open()
        _drop_orphans(layout, index)
    except BaseException:
        index.close()
        raise
    return index


def _drop_orphans(layout: Layout, index: Index) -> None:
    known = {row.name: row for row in index.partials()}
    present = set(layout.partial_names())
    for name in present - known.keys():
        layout.remove_partial(name)
    for name in known.keys() - present:
        index.remove_partial(known[name].key)


def _give_room(layout: Layout) -> bool:
    """On a full disk: remove what was not used for longest, so that the index can be opened; False where none went.

    The index can be read then, if nothing is to be written beside it; it will find that the files are gone.
    """
    if not _scarce(layout) or not layout.index.exists():
        return False
    removed = gone = 0
    try:
        index = sqlite3.connect(f"{layout.index.absolute().as_uri()}?immutable=1", uri=True)
        try:
            for path, length in index.execute("SELECT path, length FROM entries ORDER BY used"):
                enough_bytes = layout.space()[0] >= NEEDED
                if gone > MOST or not _scarce(layout) or (enough_bytes and removed >= MOST_FILES):
                    break
                layout.remove(path)
                removed, gone = removed + 1, gone + length
        finally:
            index.close()
    except (sqlite3.Error, OSError):
        return False
    log.warn("the disk is full: removed {count} entries least recently used to open the index", count=removed)
    return removed > 0
