"""Files of entries that were used just now, held open: to open one costs more than to send a short one."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from vault.store.body import OpenFile
from vault.store.index import Row

HELD = 64
"""How many files are held open at most."""

SHORT = 4 * 1024 * 1024
"""Longer files are not held: what somebody else removes keeps its space for as long as it is open."""


class HeldFiles:
    """The files used last, by key, each as its entry's row and its own status describe it.

    To be held is not to be read: each reader gets a descriptor of its own, and what is removed is let go of by
    ``drop``, which may be called by any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, tuple[OpenFile, tuple[int, int]]] = OrderedDict()

    def find(self, row: Row) -> OpenFile | None:
        """The file of an entry, where it is held and nobody has written, replaced, linked or removed it since."""
        with self._lock:
            held = self._files.get(row.key)
            if held is None:
                return None
            file, state = held
            found = os.fstat(file.descriptor)
            if _state(found) != state or not row.describes(found):
                del self._files[row.key]
                return None
            self._files.move_to_end(row.key)
            return _again(file)

    def keep(self, row: Row, file: OpenFile, found: os.stat_result) -> None:
        """Hold a file that was just opened and has this status, in the place of the one used least recently."""
        held = _again(file) if row.length <= SHORT else None
        if held is None:
            return
        with self._lock:
            # Removed or replaced since: ``drop`` was here already, and nobody would ask for it again.
            if _state(os.fstat(held.descriptor)) != _state(found):
                return
            self._files[row.key] = held, _state(found)
            if len(self._files) > HELD:
                self._files.popitem(last=False)

    def drop(self, key: str) -> None:
        """Let go of the file of an entry; to be called after it was removed or replaced, which ``keep`` sees then."""
        with self._lock:
            self._files.pop(key, None)


def _state(found: os.stat_result) -> tuple[int, int]:
    """What changes with a file or its name; two changes may fall on one tick of the clock."""
    return found.st_ctime_ns, found.st_nlink


def _again(file: OpenFile) -> OpenFile | None:
    """The same file under a descriptor of its own; None where the process may open nothing more."""
    try:
        return OpenFile(os.dup(file.descriptor))
    except OSError:
        return None
