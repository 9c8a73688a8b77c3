"""Where the store cannot be opened, or begun anew: what the operator is told of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher

from tests.store.fakes import StoreCase
from vault.errors import StoreError


class RefusedTests(StoreCase):
    def test_index_is_no_file(self) -> None:
        """An index that cannot be opened is named, with what to do."""
        index = self.root / ".vault" / "index.db"
        index.mkdir(parents=True)
        error = self.assertRaises(StoreError, self.open)
        self.assertIn(f"{index}: unable to open database file; give the vault's user that directory", str(error))

    def test_denied(self) -> None:
        """A directory that may not be written is refused with what to do."""
        self.wait(self.open().close())

        def denied(*arguments: object, **named: object) -> int:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

        patcher = self.patch(os, "open", denied)
        error = self.assertRaises(StoreError, self.open)
        patcher.restore()
        self.assertTrue(
            str(error).endswith(
                ": Permission denied; give the vault's user that directory, or set cache_dir to another place"
            ),
            str(error),
        )

    def test_index_is_a_link(self) -> None:
        """An index that is a link is refused, and what it leads to stays as it is."""
        self.wait(self.open().close())
        index, other = self.root / ".vault" / "index.db", Path(self.mktemp()).absolute()
        other.write_bytes(b"somebody's")
        index.unlink()
        index.symlink_to(other)
        self.assertIn(f"{index} is a symbolic link", str(self.assertRaises(StoreError, self.open)))
        self.assertEqual(other.read_bytes(), b"somebody's")


class BegunAnewTests(StoreCase):
    def test_told_once(self) -> None:
        """Where the directory has vanished and no other can be made this is said once, not each few seconds."""
        store = self.open()
        self.root.rename(self.mktemp())
        self.root.write_bytes(b"in its place")
        lines: list[str] = []

        def note(event: Any) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        for _ in range(3):
            store.tidy()
        self.assertEqual(len(lines), 1)
        self.assertIn("is not a directory", lines[0])
        self.root.unlink()
        store.tidy()
        self.assertEqual([line for line in lines if "an empty one is begun" in line], lines[1:2])
        self.assertEqual(store.problems(), [])
