"""Stored files that are there and cannot be opened: they stay, and it is said until they can be opened again."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vault.store.body import OpenFile
from vault.store.index import Row
from vault.store.removal import forget
from vault.urls import plain

if TYPE_CHECKING:
    from vault.store.store import Store

SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What the process or the machine has run out of: that says nothing of a file."""

GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG)
"""What shows that there is no file of ours: nothing, or a link, a socket, or what is no directory on the way."""

DENIED = (errno.EACCES, errno.EPERM)

NOTED = 16
"""So many are remembered: with a directory that cannot be entered, all that is below it could be asked for."""


class Unreadable:
    """The files of a store that could not be opened; ``note`` and ``look`` run on disk threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._noted: dict[str, tuple[Row, str]] = {}

    def note(self, row: Row, error: OSError) -> None:
        """The file of an entry could not be opened: forget the entry only where the file itself is not there.

        Any other reason may pass, such as wrong permissions or a file server that does not answer.
        """
        store = self._store
        if error.errno in SCARCE:
            store.report(f"the file of {plain(row.key)} could not be opened", error)
        elif error.errno in GONE:
            store.log.info("the file of {key} is gone ({error}); forgotten", key=plain(row.key), error=error.strerror)
            forget(store, [row])
        elif row.path not in self._noted and len(self._noted) < NOTED:
            problem = f"the stored file {store.layout.root / row.path} cannot be opened: {error.strerror or error}"
            if error.errno in DENIED:
                problem += "; let the vault's user read it, and enter and read the directories above it"
            self._noted[row.path] = row, problem
            store.log.error("{problem}", problem=problem)

    def look(self) -> None:
        """See which of them can be opened again, or are there no more; raises sqlite3.Error."""
        for path, (row, _) in list(self._noted.items()):
            if self._store.index.path_of(row.key) == path:
                try:
                    OpenFile(self._store.layout.open(path))
                except OSError as error:
                    if error.errno not in GONE:
                        continue
                else:
                    self._store.log.info("{path} can be opened again", path=str(self._store.layout.root / path))
            self._noted.pop(path, None)

    def problems(self) -> list[str]:
        """A sentence for the operator on the first of them, if there is one."""
        problems = [problem for _, problem in list(self._noted.values())]
        return problems[:1]
