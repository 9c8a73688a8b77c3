"""Twins: content that is stored already is given a second key, as a hard link, instead of being fetched again."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.internet.defer import DeferredLock

from vault.artifact import Digest, Head
from vault.paths import safe_name
from vault.store.body import StoredBody
from vault.store.disk import Disk
from vault.store.placing import IN_THE_WAY, enter, link, path_of
from vault.urls import plain

if TYPE_CHECKING:
    from vault.store.store import Store


class Twins:
    """The adoptions under way in a store: one at a time for each key."""

    def __init__(self, store: Store, disk: Disk) -> None:
        self._store = store
        self._disk = disk
        self._locks: dict[str, DeferredLock] = {}

    async def adopt(self, key: str, digest: Digest, head: Head | None) -> StoredBody | None:
        """See ``Store.adopt_twin``."""
        store = self._store
        if digest.algorithm != "sha256" or key in store.filling or key in store.beginning:
            return None
        lock = self._locks.setdefault(key, DeferredLock())
        await lock.acquire()
        try:
            found = await store.find(key)
            if head is None and found is not None and found.sha256 == digest.value:
                return found  # another request has just done it
            done = await self._disk.run(_adopt, store, key, digest.value, head)
            return await store.find(key) if done else None
        except (OSError, sqlite3.Error) as error:
            store.report(f"{plain(key)} could not be linked to the same content", error)
            return None
        finally:
            lock.release()
            if not lock.locked:
                self._locks.pop(key, None)


def _adopt(store: Store, key: str, sha256: str, head: Head | None) -> bool:
    """Give stored content a second key, with this head or its own; False where there is no such content.

    The row is written after the file's second name is there, as in ``place``; an entry that had the key is replaced.
    """
    twin = store.index.twin(sha256, key)
    if twin is None or twin.head.status == 0:
        return False
    layout, path = store.layout, path_of(key, head or twin.head)
    before = store.index.path_of(key)
    name = hashlib.sha256(f"twin {key}".encode()).hexdigest()[:40]
    source = link(layout, twin, name)
    if source is None:
        return False
    try:
        path = enter(store, replace(twin, key=key, path=path, head=head or twin.head), source)
    except OSError as error:
        layout.remove_partial(source)
        if error.errno not in IN_THE_WAY:
            raise
        source = link(layout, twin, name)
        if source is None:
            return False
        path = enter(store, replace(twin, key=key, path="/".join(safe_name(key)), head=head or twin.head), source)
    if before not in (None, path):
        with contextlib.suppress(OSError):
            layout.remove(before)
    return True
