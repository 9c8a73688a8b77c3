"""What changes behind the store's back, and what a fill leaves that did not come to its end."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

from twisted.internet.defer import Deferred, ensureDeferred

from tests.store.fakes import DATED, Follower, SteppedDisk, StoreCase
from vault.artifact import Digest
from vault.errors import Truncated
from vault.store.store import Store
from vault.store.writer import FillWriter

DATA = bytes(range(256)) * 8


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


class ChangedFileTests(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = self.open()
        self.fill(self.store, "b/file", DATA)
        self.path = self.root / "b" / "file"

    def test_touched(self) -> None:
        """A file that was only touched is still the entry, and is looked through only once."""
        os.utime(self.path, (1, 1))
        self.assertEqual(self.content(self.store, "b/file"), DATA)
        row = self.store.index.find("b/file")
        assert row is not None
        self.assertTrue(row.describes(self.path.stat()))

    def test_copied_back(self) -> None:
        """A file that was put back from a copy is still the entry."""
        self.path.unlink()
        self.path.write_bytes(DATA)
        self.assertEqual(self.content(self.store, "b/file"), DATA)

    def test_damaged(self) -> None:
        """A file that was changed, made shorter or longer, or removed, is no entry any more."""
        for damaged in (DATA[:-1], DATA + b"!", b"!" + DATA[1:], b"", None):
            self.fill(self.store, "b/file", DATA)
            if damaged is None:
                self.path.unlink()
            else:
                self.path.write_bytes(damaged)
            self.assertIsNone(self.content(self.store, "b/file"))
            self.assertEqual(self.files(), {})
            self.assertEqual(self.store.index.totals(), (0, 0))

    def test_no_descriptor(self) -> None:
        """A file that cannot be opened because the process has too many open is the entry all the same."""
        self.store.held.drop("b/file")
        self.store.reading.clear()

        def full(path: str) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        patcher = self.patch(self.store.layout, "open", full)
        self.assertIsNone(self.content(self.store, "b/file"))
        patcher.restore()
        self.assertEqual(self.content(self.store, "b/file"), DATA)

    def test_directory(self) -> None:
        """A directory in the place of the file is no entry; the entry can be stored again."""
        self.path.unlink()
        self.path.mkdir()
        (self.path / "inside").write_bytes(b"x")
        self.assertIsNone(self.content(self.store, "b/file"))
        self.fill(self.store, "b/file", DATA)
        self.assertEqual(self.content(self.store, "b/file"), DATA)

    def test_removed_by_the_vault(self) -> None:
        """A removed entry is gone; who reads it reads on."""
        body = self.wait(self.store.find("b/file"))
        follower = Follower(body, piece=7)
        follower.pause()
        self.wait(self.store.remove("b/file"))
        self.wait(self.store.remove("b/file"))
        self.assertIsNone(self.content(self.store, "b/file"))
        follower.resume()
        self.assertEqual(follower.data, DATA)


class PartialTests(StoreCase):
    def leave(self, store: Store, data: bytes, length: int | None = len(DATA), keep: bool = True) -> None:
        """A fill that breaks off."""
        writer = self.begin(store, "b/file", length)
        writer.write(data)
        writer.fail(Truncated("it broke off"))
        self.wait(store.ended(writer, keep))

    def test_gone_on_with(self) -> None:
        """A fill that broke off is gone on with where it stopped."""
        store = self.open()
        self.leave(store, DATA[:1000])
        partial = self.wait(store.partial("b/file"))
        assert partial is not None
        self.assertEqual((partial.size, partial.length, partial.head), (1000, len(DATA), DATED))
        writer = self.begin(store, "b/file", len(DATA), Digest("sha256", sha256(DATA)), resume=partial)
        self.assertEqual(writer.received, 1000)
        follower = Follower(writer.body)
        writer.write(DATA[1000:])
        self.end(store, writer)
        self.assertEqual((follower.data, self.content(store, "b/file")), (DATA, DATA))
        self.assertEqual(self.partial_files(), [])

    def test_not_kept(self) -> None:
        """A fill that cannot be gone on with leaves nothing."""
        store = self.open()
        self.leave(store, DATA[:1000], keep=False)
        self.assertIsNone(self.wait(store.partial("b/file")))
        self.assertEqual(self.partial_files(), [])

    def test_not_while_it_runs(self) -> None:
        """A fill that is running is nobody else's to go on with."""
        store = self.open()
        self.begin(store, "b/file").write(b"some")
        self.assertIsNone(self.wait(store.partial("b/file")))

    def test_longer_than_the_whole(self) -> None:
        """A file that is longer than the body was to be is not gone on with."""
        store = self.open()
        self.leave(store, DATA, length=10)
        self.assertIsNone(self.wait(store.partial("b/file")))

    def test_vanished_meanwhile(self) -> None:
        """Where the file has gone or shrunk since it was looked at, no made-up bytes take the place of the old ones."""
        for damage in (lambda path: path.unlink(), lambda path: os.truncate(path, 10)):
            store = self.open()
            self.leave(store, DATA[:1000])
            partial = self.wait(store.partial("b/file"))
            damage(self.partial_files()[0])
            writer = self.begin(store, "b/file", len(DATA), resume=partial)
            self.assertEqual((writer.received, writer.body.size), (0, 0))
            writer.write(DATA)
            self.end(store, writer)
            self.assertEqual(self.content(store, "b/file"), DATA)
            self.wait(store.remove("b/file"))
            self.die(store)

    def test_changed_by_others(self) -> None:
        """A partial file that others shortened, lengthened or replaced while it was filled does not become an entry."""
        damages = (
            lambda path: os.truncate(path, 10),
            lambda path: os.truncate(path, len(DATA) + 1),
            lambda path: path.rename(path.with_name("moved")),
            lambda path: (path.unlink(), path.write_bytes(DATA)),
        )
        for damage in damages:
            store = self.open()
            writer = self.begin(store, "b/file", len(DATA))
            writer.write(DATA)
            self.wait(writer.flushed())
            damage(self.partial_files()[0])
            self.end(store, writer)
            self.assertIsNone(self.wait(store.find("b/file")))
            self.assertEqual(len(store.problems()), 1)
            self.die(store)

    def test_shortened_in_mid_fill(self) -> None:
        """A fill whose partial file others shorten is passed through from there, not stored with a hole."""
        for size in (0, 999):
            store = self.open()
            writer = self.begin(store, "b/file", len(DATA))
            follower = Follower(writer.body)
            writer.write(DATA[:1000])
            self.wait(writer.flushed())
            os.truncate(self.partial_files()[0], size)
            writer.write(DATA[1000:])
            self.end(store, writer)
            self.assertEqual((follower.data, follower.ended), (DATA, True))
            self.assertIsNone(self.content(store, "b/file"))
            self.assertEqual((self.files(), self.partial_files()), ({}, []))
            self.assertIn("shortened by somebody else", store.problems()[0])
            self.die(store)

    def test_begun_anew_while_it_is_read(self) -> None:
        """Who still reads a broken fill gets its own bytes, even if another one has begun from the first byte."""
        store = self.open()
        writer = self.begin(store, "b/file", len(DATA))
        follower = Follower(writer.body, 0, 900, piece=10)
        follower.pause()
        slow = Follower(writer.body, 100, 900)
        slow.pause()
        writer.write(DATA[:1000])
        writer.fail(Truncated("it broke off"))
        self.wait(store.ended(writer, keep=True))
        other = self.begin(store, "b/file", len(DATA))
        other.write(b"!" * len(DATA))
        slow.resume()
        follower.resume()
        self.assertEqual(slow.data, DATA[100:900])
        self.assertEqual(follower.data, DATA[:900])

    def test_links_planted(self) -> None:
        """A link in the place of a broken fill's file is neither read nor written through."""
        outside = Path(self.mktemp()).absolute()
        outside.write_bytes(b"secret")
        store = self.open()
        self.leave(store, DATA[:1000])
        (path,) = self.partial_files()
        path.unlink()
        path.symlink_to(outside)
        self.assertIsNone(self.wait(store.partial("b/file")))
        self.begin(store, "b/file", len(DATA)).write(DATA)
        self.assertEqual(outside.read_bytes(), b"secret")


class BeginningTests(StoreCase):
    """Fills of which the disk has not told yet that they have begun."""

    def setUp(self) -> None:
        super().setUp()
        self.store = self.open()
        self.stepped = self.store.disk = SteppedDisk()

    def create(self, key: str, length: int) -> Deferred[FillWriter]:
        """Have a fill begin."""
        return ensureDeferred(self.store.create(key, DATED, length, None))

    def test_not_removed(self) -> None:
        """What an earlier fill left is to go, but another fill has just taken its place: that one is stored."""
        creating = self.create("b/file", len(DATA))
        self.stepped.work()
        removing = ensureDeferred(self.store.discard("b/file"))
        self.stepped.work()
        self.stepped.report()
        self.stepped.report()
        self.successResultOf(removing)
        writer = self.successResultOf(creating)
        writer.write(DATA)
        ending = ensureDeferred(writer.finish())
        self.stepped.drain()
        self.successResultOf(ending)
        self.successResultOf(ensureDeferred(self.store.ended(writer, keep=False)))
        self.assertEqual((self.files(), self.store.problems()), ({"b/file": DATA}, []))

    def test_room_for_one(self) -> None:
        """Of two that begin at the same time and are too large for the disk together, the first is stored."""
        self.patch(self.store.layout, "space", lambda: (15_000, 100_000))
        creating = [self.create(f"b/{number}", 10_000) for number in range(2)]
        for _ in creating:
            self.stepped.work()
        for _ in creating:
            self.stepped.report()
        self.assertEqual([self.successResultOf(created).storing for created in creating], [True, False])
        (row,) = self.store.index.partials()
        self.assertEqual(row.key, "b/0")
