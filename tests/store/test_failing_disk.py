"""A disk that is full or fails: readers do not notice, the operator does."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from typing import Any

from tests.store.fakes import DATED, Follower
from tests.store.test_space import SIZE, SpaceCase, data
from vault.artifact import Digest, Head
from vault.errors import Truncated


class FailingDiskTests(SpaceCase):
    def fail_writes(self, after: int) -> None:
        """The disk takes so many bytes of each file more, and then says that it is full."""
        write = os.pwritev

        def pwritev(descriptor: int, pieces: list[Any], offset: int) -> int:
            joined = b"".join(pieces)[: max(0, after - offset)]
            if not joined:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, [joined], offset)

        self.patch(os, "pwritev", pwritev)

    def test_full_in_mid_fill(self) -> None:
        """A disk that fills up in the middle costs no reader a byte; the entry is not stored, which is said once."""
        self.fail_writes(300)
        for digest in (None, Digest("sha256", hashlib.sha256(data(7)).hexdigest())):
            writer = self.begin(self.store, "b/7", SIZE, digest)
            early, ranged, later = Follower(writer.body), Follower(writer.body, 290, 310), None
            behind = Follower(writer.body, 10, piece=7)
            behind.pause()
            for offset in range(0, SIZE, 50):
                if offset == 500:
                    later = Follower(writer.body)
                writer.write(data(7)[offset : offset + 50])
            self.assertIn("No space left", self.store.problems()[0])
            behind.resume()
            self.end(self.store, writer)
            assert later is not None
            self.assertEqual((early.data, later.data), (data(7), data(7)))
            self.assertEqual((ranged.data, behind.data), (data(7)[290:310], data(7)[10:]))
            self.assertIsNone(self.content(self.store, "b/7"))
            self.assertEqual((self.files(), self.partial_files()), ({}, []))

    def test_room_is_made_in_mid_fill(self) -> None:
        """A disk that fills up in the middle is made room on, and the entry is stored after all."""
        self.fill_all(0, 1, 2)
        full = [True]
        write = os.pwritev

        def pwritev(descriptor: int, pieces: list[Any], offset: int) -> int:
            if full and len(self.files()) == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, pieces, offset)

        self.patch(os, "pwritev", pwritev)
        self.patch(self.store.layout, "space", lambda: (0 if len(self.files()) == 3 else 10 * SIZE, 10 * SIZE))
        writer = self.begin(self.store, "b/3")
        writer.write(data(3))
        self.end(self.store, writer)
        self.assertEqual(self.left(), [1, 2, 3])
        self.assertEqual(self.store.problems(), [])

    def test_files_go_before_rows(self) -> None:
        """On a disk so full that the index cannot be written, files are removed until it can; the rest stays."""
        self.fill_all(*range(8))
        size, stored = 8 * SIZE, self.store.index

        def space() -> tuple[int, int]:
            return size - sum(map(len, self.files().values())), size

        def full(do: Any) -> Any:
            def guarded(*arguments: Any) -> Any:
                if space()[0] < 2 * SIZE:
                    raise sqlite3.OperationalError("database or disk is full")
                return do(*arguments)

            return guarded

        self.content(self.store, "b/0")
        self.patch(self.store.layout, "space", space)
        for name in ("remove", "used", "put"):
            self.patch(stored, name, full(getattr(stored, name)))
        self.options.min_free.size = SIZE
        self.store.tidy()
        self.assertEqual(len(self.files()), 7)
        self.assertEqual(stored.totals()[0], 8)
        self.store.tidy()
        self.assertEqual(len(self.files()), 7, "only as much goes as is needed")
        self.options.min_free.size = 3 * SIZE
        self.store.tidy()
        self.assertEqual(len(self.files()), 5)
        self.store.tidy()
        self.assertEqual(self.store.problems(), [])
        self.assertEqual(len(self.left()), 5)
        for number in range(8):
            self.assertIn(self.content(self.store, f"b/{number}"), (data(number), None))

    def test_no_entry_can_be_removed(self) -> None:
        """Where the index cannot be written although files were removed, the search for room ends."""
        self.fill_all(0, 1, 2)
        tries: list[int] = []

        def remove(keys: object) -> None:
            tries.append(1)
            if len(tries) > 10:
                raise ZeroDivisionError("it is tried again and again")
            raise sqlite3.OperationalError("database or disk is full")

        self.patch(self.store.index, "remove", remove)
        self.options.max_size = SIZE
        self.store.tidy()
        self.assertLess(len(tries), 10)
        self.assertIn("disk is full", self.store.problems()[0])

    def test_one_file_cannot_be_removed(self) -> None:
        """One entry whose file cannot be removed leaves no file of another one behind."""
        self.fill_all(*range(5))
        (self.root / "b/1").unlink()
        (self.root / "b/1").mkdir()
        (self.root / "b/1/somebody's").write_bytes(b"x")
        self.options.max_size = SIZE
        self.store.tidy()
        self.assertEqual(sorted(self.files()), ["b/1/somebody's", "b/4"])

    def test_touched_file_on_a_failing_disk(self) -> None:
        """A file that was touched and can then not be read, or its row not be written, is not there for a reader."""

        def failing(*arguments: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        def locked(row: object) -> None:
            raise sqlite3.OperationalError("attempt to write a readonly database")

        self.fill_all(0)
        for owner, name, function in ((os, "pread", failing), (self.store.index, "touch", locked)):
            os.utime(self.root / "b/0")
            patcher = self.patch(owner, name, function)
            self.assertIsNone(self.wait(self.store.find("b/0")))
            self.assertRegex(self.store.problems()[0], "Input/output error|readonly")
            patcher.restore()
            self.assertEqual(self.content(self.store, "b/0"), data(0))
            self.store.tidy()

    def test_index_that_cannot_be_read(self) -> None:
        """With an index that cannot be read, what is asked of the store is reported and does no harm."""
        self.fill_all(0)
        writer = self.begin(self.store, "b/1", SIZE)
        writer.write(data(1)[:500])
        self.clock.advance(60)
        self.patch(self.store.index, "find", self.unreadable)
        self.patch(self.store.index, "partial", self.unreadable)
        self.assertIsNone(self.wait(self.store.find("b/0")))
        self.wait(self.store.remove("b/0"))
        self.wait(self.store.checkpoint())
        writer.fail(Truncated("it broke off"))
        self.wait(self.store.ended(writer, keep=True))
        self.assertEqual(self.store.filling, {})
        self.assertIn("disk I/O error", self.store.problems()[0])

    def unreadable(self, key: str) -> None:
        """Stands for any question."""
        raise sqlite3.OperationalError("disk I/O error")

    def test_directory_removed_meanwhile(self) -> None:
        """An entry is stored although the last other file of its directory is removed at the same moment."""
        self.fill(self.store, "b/d/e/old", b"old")
        rename = os.rename
        removed: list[bool] = []

        def renamed(*arguments: Any, **named: Any) -> None:
            if not removed:
                removed.append(True)
                self.store.layout.remove("b/d/e/old")
            rename(*arguments, **named)

        self.patch(os, "rename", renamed)
        self.fill(self.store, "b/d/e/new", b"new")
        self.assertEqual(self.content(self.store, "b/d/e/new"), b"new")

    def test_trouble_passes(self) -> None:
        """A trouble is told until the disk takes writes again, and no longer."""
        self.store.report("a write", OSError(errno.EIO, "Input/output error"))
        self.assertIn("Input/output error", self.store.problems()[0])
        self.store.tidy()
        self.assertEqual(self.store.problems(), [])

    def test_no_room_for_a_new_version(self) -> None:
        """Where there is no room to begin a new version, the part of the older one is not taken for part of it."""
        writer = self.begin(self.store, "b/7", SIZE)
        writer.write(data(7)[:500])
        writer.fail(Truncated("it broke off"))
        self.wait(self.store.ended(writer, keep=True))
        patcher = self.patch(self.store.layout, "space", lambda: (10, 100))
        new = Head(200, (("ETag", '"new"'),))
        writer = self.begin(self.store, "b/7", SIZE, head=new)
        self.assertFalse(writer.storing)
        patcher.restore()
        partial = self.wait(self.store.partial("b/7"))
        if partial is not None:
            self.assertEqual((partial.head, partial.size), (DATED, 500))
