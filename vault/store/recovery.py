"""Makes the index again from the files, in the background, after it was lost or the vault did not stop cleanly.

The cache serves meanwhile: an entry that is asked for before its turn is taken up at once (``Store.find``).
"""

from __future__ import annotations

import mimetypes
import os
import sqlite3
from collections.abc import Iterator
from email.utils import formatdate
from itertools import islice
from typing import TYPE_CHECKING

from twisted.logger import Logger

from vault.artifact import TAKEN_UP, Head
from vault.errors import Stopping
from vault.paths import key_of, safe_name
from vault.store.body import OpenFile
from vault.store.disk import Disk
from vault.store.hashes import sha256_of
from vault.store.index import Row, mark_of_file
from vault.store.layout import PRIVATE

if TYPE_CHECKING:
    from vault.store.store import Store

BATCH = 32
log = Logger()


async def rebuild(store: Store, disk: Disk) -> None:
    """Take up every file that the index does not know; remove those that nothing can be known of.

    Where the index cannot be written that is reported, and ``store.rebuilding`` stays True.
    """
    index, files = store.index, store.layout.walk()
    seen = adopted = removed = 0

    def step(paths: Iterator[str]) -> tuple[int, int, int]:
        count = known = dropped = 0
        for path in paths:
            count += 1
            try:
                if store.index.has_path(path):
                    continue
                if adopt(store, path):
                    known += 1
                elif f"/{PRIVATE}" in path and path not in {"/".join(safe_name(key)) for key in list(store.filling)}:
                    # A safe form does not tell its key, so without its row the file can never be asked for.
                    store.layout.remove(path)
                    dropped += 1
            except (OSError, ValueError, OverflowError) as error:
                log.warn("{path} could not be read: {error}", path=path, error=error)
        return count, known, dropped

    while store.rebuilding:
        try:
            count, known, dropped = await disk.run(step, (path for path, _ in islice(files, BATCH)))
        except Stopping:
            return  # the next start begins again
        except sqlite3.Error as error:
            if index is store.index:
                store.look_for_damage(error)
                if store.rebuilding and not store.problems():  # else closed meanwhile, so that the next start does it
                    store.report("the index could not be made again", error)
                return
        if index is not store.index:  # it was damaged meanwhile, and a new one knows none of the files
            index, files = store.index, store.layout.walk()
            continue
        seen, adopted, removed = seen + count, adopted + known, removed + dropped
        if count < BATCH and store.rebuilt(index):
            break
    else:
        return  # closed between two steps
    if adopted or removed:
        log.info(
            "the index was made again from {seen} files: {adopted} taken up, {removed} without a name removed",
            seen=seen,
            adopted=adopted,
            removed=removed,
        )


def adopt(store: Store, path: str) -> bool:
    """On a disk thread: take a file that the index does not know for an entry; False where it cannot be one.

    What the upstream sent with it is lost, so its head is made from the file.  Raises OSError, Stopping.
    """
    if store.index.has_path(path):
        return True
    key = key_of(tuple(path.split("/")))
    if key is None:
        return False
    file = OpenFile(store.layout.open(path))
    found = os.fstat(file.descriptor)
    sha256 = sha256_of(file, store.disk)
    if key in store.filling:
        return False  # the fill that is placing this very file knows more of it
    now = store.now()
    row = Row(key, path, head_of(path, found, now), found.st_size, sha256, 0, 0, now)
    store.index.put(row.of(found), replace=False)
    return True


def head_of(path: str, found: os.stat_result, now: float) -> Head:
    """What can be said of a file without its upstream; as old as can be, so that what may change is asked for.

    Whether it may change its upstream alone can tell: that it is to be asked is noted (``vault.confirmation``).
    """
    kind, encoding = mimetypes.guess_type(path)
    if kind is None or encoding is not None:
        kind = "application/octet-stream"
    seconds = mark_of_file(found)[1] // 10**9
    date = formatdate(seconds, usegmt=True)
    return Head(200, (("Content-Type", kind), ("Last-Modified", date), (TAKEN_UP, f"{now:.0f}")))
