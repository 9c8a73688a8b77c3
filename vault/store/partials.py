"""Partial files: where a fill writes until its body is whole, and what later fills go on with.

Everything here that is a function runs on disk threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vault.artifact import ASKED, Head
from vault.store.body import OpenFile
from vault.store.index import PartialRow
from vault.store.writer import FillWriter

if TYPE_CHECKING:
    from vault.store.store import Store


@dataclass(frozen=True, slots=True)
class Partial:
    """What an earlier fill left: its head, the length it was to have, and the ``size`` bytes that can be relied on."""

    head: Head
    length: int | None
    size: int
    name: str
    durable: int

    @property
    def asked(self) -> str:
        """The mark of the URL it was asked at: a validator of one URL says nothing of another's."""
        return self.head.get(ASKED) or ""

    @property
    def whole(self) -> bool:
        """True where nothing is missing but the proof, and its place among the entries."""
        return self.size == self.length


def begin(store: Store, row: PartialRow, start: int) -> tuple[OpenFile, int]:
    """On a disk thread: make room, note the fill, open its file; the bytes in it that can be gone on with."""
    try:
        return _open(store, row, start)
    except FileNotFoundError:
        if store.layout.intact():
            raise
        store.reopen()
        return _open(store, row, 0)


def _open(store: Store, row: PartialRow, start: int) -> tuple[OpenFile, int]:
    # A body of unknown length asks for more while it comes, see FillWriter.
    if not store.space.make_room((0 if row.length is None else row.length - start) + _promised(store, row.key)):
        raise OSError(errno.ENOSPC, "no room" if row.length is None else f"no room for {row.length} bytes")
    with store.place_lock(row.name):  # who removes it meanwhile does so before it is opened, or not at all
        file = OpenFile(store.layout.open_partial(row.name, fresh=start == 0))
        if os.fstat(file.descriptor).st_size < start:
            start, row = 0, replace(row, durable=0)  # it has gone since it was looked at
        # Cut before it is noted: once the row has this boot's name, the size of the file is believed.
        os.ftruncate(file.descriptor, start)
        store.index.put_partial(row)
    return file, start


def _promised(store: Store, key: str) -> int:
    """The bytes that are still to come for other fills: those that run, and those that began before this one."""
    promised: dict[str, int] = {}
    for other, size in list(store.beginning.items()):
        if other == key:
            break
        promised[other] = size
    for writer in list(store.filling.values()):
        if writer.storing and writer.body.length is not None:
            promised[writer.key] = max(0, writer.body.length - writer.written)
    return sum(promised.values())


def sync(store: Store, writer: FillWriter, row: PartialRow, written: int) -> None:
    """Bring what a fill has written to the medium, and note that."""
    try:
        assert writer.body.file is not None
        _sync_data(writer.body.file.descriptor)
        if store.filling.get(writer.key) is writer and not writer.body.complete:
            store.index.put_partial(
                PartialRow(row.key, row.name, row.head, row.length, written, store.boot, store.now())
            )
    except OSError as error:
        writer.lost = True  # the system tells of lost writes once: the sync before the end would not know of them
        store.report("a fill could not be synced", error)
    except sqlite3.Error as error:
        store.report("a fill could not be noted", error)


def _sync_data(descriptor: int) -> None:
    getattr(os, "fdatasync", os.fsync)(descriptor)  # macOS has only the one that also brings the file's times along


def remove(store: Store, key: str) -> None:
    """Remove what an earlier fill left, unless a fill is using it."""
    try:
        name = store.index.partial_name(key)
        if name is not None:
            drop(store, key, name)
    except (OSError, sqlite3.Error) as error:
        store.report("a partial file could not be removed", error)


def drop(store: Store, key: str, name: str) -> int:
    """Remove the partial file ``name`` of a key, unless a fill is using it: the bytes that this frees.

    Raises OSError, sqlite3.Error.
    """
    with store.place_lock(name):
        if key in store.filling or key in store.beginning:
            return 0
        size = store.layout.partial_size(name) or 0
        store.layout.remove_partial(name)
        store.index.remove_partial(key)
        return size


def partial_name(key: str) -> str:
    """The name of the partial file of a key."""
    return hashlib.sha256(key.encode()).hexdigest()[:40]


def boot_id() -> str:
    """What the kernel calls this run of the machine; empty where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""  # unknown: then only synced bytes are relied on, see partial
