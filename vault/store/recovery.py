"""Makes the index again from the files, in the background, after it was lost or the vault did not stop cleanly.

The cache serves meanwhile: an entry that is asked for before its turn is taken up at once (``Store.find``).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from twisted.logger import Logger

from vault.store.disk import Disk
from vault.store.layout import PRIVATE
from vault.store.store import Store

BATCH = 32
log = Logger()


async def rebuild(store: Store, disk: Disk) -> None:
    """Take up every file that the index does not know; remove those that nothing can be known of."""
    files = store.layout.walk()
    seen = adopted = removed = 0

    def step(paths: Iterator[str]) -> tuple[int, int, int]:
        count = known = dropped = 0
        for path in paths:
            count += 1
            try:
                if store.index.has_path(path):
                    continue
                if store.adopt(path):
                    known += 1
                elif f"/{PRIVATE}" in path:
                    # A safe form does not tell its key, so without its row the file can never be asked for.
                    store.layout.remove(path)
                    dropped += 1
            except OSError as error:
                log.warn("{path} could not be read: {error}", path=path, error=error)
        return count, known, dropped

    while store.rebuilding:
        count, known, dropped = await disk.run(step, (path for path, _ in islice(files, BATCH)))
        seen, adopted, removed = seen + count, adopted + known, removed + dropped
        if count < BATCH:
            break
    store.rebuilding = False
    if adopted or removed:
        log.info(
            "the index was made again from {seen} files: {adopted} taken up, {removed} without a name removed",
            seen=seen,
            adopted=adopted,
            removed=removed,
        )
