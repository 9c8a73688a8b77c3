"""Stored files that cannot be opened for now: the copy is kept, and served again when it can be."""

from __future__ import annotations

import errno
import os
from typing import Any

from tests.store.fakes import StoreCase

DATA = b"an intact copy" * 100


class UnreadableTests(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = self.open()
        self.failing: dict[str, int] = {}
        opened = os.open

        def fail(path: Any, *arguments: Any, **named: Any) -> int:
            if str(path) in self.failing:
                raise OSError(self.failing[str(path)], os.strerror(self.failing[str(path)]))
            return opened(path, *arguments, **named)

        self.patch(os, "open", fail)

    def test_kept(self) -> None:
        """A file that cannot be opened, whatever the reason, is neither forgotten nor removed, and it is said why."""
        for place in ("file", "b"):
            for number in (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE):
                self.fill(self.store, "b/file", DATA)
                self.store.held.drop("b/file")
                self.failing = {place: number}
                self.assertIsNone(self.content(self.store, "b/file"))
                for _ in range(2):
                    self.store.tidy()
                    (problem,) = self.store.problems()
                    self.assertIn(f"{self.root}/b/file cannot be opened: {os.strerror(number)}", problem)
                    self.assertEqual("let the vault's user read" in problem, number in (errno.EACCES, errno.EPERM))
                self.failing = {}
                self.assertEqual(self.content(self.store, "b/file"), DATA)
                self.store.tidy()
                self.assertEqual(self.store.problems(), [])

    def test_filled_meanwhile(self) -> None:
        """A new copy takes the place of a file that cannot be opened, or is passed through where that cannot be."""
        self.fill(self.store, "b/file", DATA)
        self.failing = {"file": errno.EACCES}
        self.assertIsNone(self.content(self.store, "b/file"))
        self.fill(self.store, "b/file", DATA[::-1])
        self.failing = {}
        self.assertEqual(self.content(self.store, "b/file"), DATA[::-1])
        self.store.held.drop("b/file")
        self.failing = {"b": errno.EACCES}
        self.assertIsNone(self.content(self.store, "b/file"))
        writer = self.fill(self.store, "b/file", DATA)
        self.assertEqual((writer.body.complete, writer.storing, self.partial_files()), (True, False, []))
        self.failing = {}
        self.assertEqual(self.content(self.store, "b/file"), DATA[::-1])

    def test_gone(self) -> None:
        """What is no regular file any more is forgotten."""
        for number in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            self.fill(self.store, "b/file", DATA)
            self.failing = {"file": number}
            self.assertIsNone(self.content(self.store, "b/file"))
            self.failing = {}
            self.assertEqual((self.store.index.totals(), self.store.problems()), ((0, 0), []))

    def test_many(self) -> None:
        """A directory that cannot be entered is one problem, not one for each file."""
        for number in range(40):
            self.fill(self.store, f"b/{number}", DATA)
        self.failing = {"b": errno.EACCES}
        for number in range(40):
            self.assertIsNone(self.content(self.store, f"b/{number}"))
        self.assertEqual(len(self.store.problems()), 1)
        self.assertLess(len(self.store._unreadable._noted), 20)
