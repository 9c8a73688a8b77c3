"""Files held open: what changed on disk since is not served from them, and they keep no space of what is removed."""

from __future__ import annotations

import os
from pathlib import Path

from tests.store.fakes import StoreCase
from vault.store.body import OpenFile
from vault.store.held import HELD, SHORT
from vault.store.store import Store

DATA = b"some bytes"


class HeldTests(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = self.open()
        self.fill(self.store, "b/k", DATA)
        self.assertEqual(self.content(self.store, "b/k"), DATA)  # from now on it is held

    def held(self, store: Store, key: str) -> bool:
        """Whether the file of an entry is held and as it was."""
        row = store.index.find(key)
        return row is not None and store.held.find(row) is not None

    def descriptors(self) -> int:
        """How many descriptors this process has of files that are no longer there."""
        links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(str(self.root) in link and link.endswith(" (deleted)") for link in links)

    def test_served_again(self) -> None:
        """What is held is found, and counts as being read only while somebody reads it."""
        self.assertTrue(self.held(self.store, "b/k"))
        self.assertEqual(self.content(self.store, "b/k"), DATA)
        self.assertNotIn("b/k", self.store.reading)

    def test_removed_by_hand(self) -> None:
        """A file that somebody deleted is not served from what is held."""
        (self.root / "b/k").unlink()
        self.assertIsNone(self.content(self.store, "b/k"))
        self.assertEqual(self.descriptors(), 0)

    def test_one_of_two_names_removed_by_hand(self) -> None:
        """Nor is one whose content has another name."""
        self.fill(self.store, "b/other", DATA)
        self.assertEqual(self.content(self.store, "b/k"), DATA)
        (self.root / "b/k").unlink()
        self.assertIsNone(self.content(self.store, "b/k"))
        self.assertEqual(self.content(self.store, "b/other"), DATA)

    def test_written_by_hand(self) -> None:
        """A file that somebody wrote into is looked at again."""
        (self.root / "b/k").write_bytes(b"other byte")
        self.assertIsNone(self.content(self.store, "b/k"))

    def test_replaced_and_removed(self) -> None:
        """What a fill replaces or the vault removes is let go of at once, so that its space is free."""
        self.fill(self.store, "b/k", b"new")
        self.assertEqual(self.descriptors(), 0)
        self.assertEqual(self.content(self.store, "b/k"), b"new")
        self.wait(self.store.remove("b/k"))
        self.assertEqual(self.descriptors(), 0)
        self.assertIsNone(self.content(self.store, "b/k"))

    def open_file(self) -> OpenFile:
        """The file of the entry, opened as for a client."""
        return OpenFile(self.store.layout.open("b/k"))

    def test_removed_while_it_is_opened(self) -> None:
        """What is removed between being opened and being held is not held: nobody would let go of it."""
        row = self.store.index.find("b/k")
        assert row is not None
        file = self.open_file()
        found = os.fstat(file.descriptor)
        self.wait(self.store.remove("b/k"))
        self.store.held.keep(row, file, found)
        del file
        self.assertEqual(self.descriptors(), 0)

    def test_opened_while_it_is_removed(self) -> None:
        """Nor is what is opened and held just before its name goes."""
        row = self.store.index.find("b/k")
        assert row is not None
        remove = self.store.layout.remove

        def opened_before(path: str) -> None:
            file = self.open_file()
            self.store.held.keep(row, file, os.fstat(file.descriptor))
            remove(path)

        self.patch(self.store.layout, "remove", opened_before)
        self.wait(self.store.remove("b/k"))
        self.assertEqual(self.descriptors(), 0)

    def test_bound(self) -> None:
        """Few files are held, those used last, and no long ones."""
        self.fill(self.store, "b/long", bytes(SHORT + 1))
        self.content(self.store, "b/long")
        self.assertFalse(self.held(self.store, "b/long"))
        for number in range(HELD):
            self.fill(self.store, f"b/{number}", b"%d" % number)
            self.content(self.store, f"b/{number}")
        self.assertFalse(self.held(self.store, "b/k"))
        self.assertTrue(self.held(self.store, "b/0"))
