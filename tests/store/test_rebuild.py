"""A lost or outdated index is made again from the files, while the cache goes on serving."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import ensureDeferred

from tests.store.fakes import DATED, Follower, SteppedDisk, StoreCase
from vault.artifact import Digest, Head
from vault.errors import Truncated
from vault.store import hashes, recovery
from vault.store.body import OpenFile
from vault.store.disk import Disk
from vault.store.recovery import rebuild
from vault.store.store import Store

DATA = bytes(range(256)) * 8
OTHER = b"another version of it" * 50


class LostIndexTests(StoreCase):
    def damage(self, how: Callable[[], None], key: str = "b/dir/file.tar.gz") -> None:
        """Store an entry, stop cleanly, do something to the index, and start: the entry is there at once and later."""
        for rebuilt in (False, True):
            store = self.open()
            self.fill(store, key, DATA)
            self.fill(store, "b/x?q=safe form", DATA)
            self.wait(store.close())
            how()
            store = self.open(rebuilt)
            self.assertEqual(self.content(store, key), DATA)
            self.assertIsNone(self.content(store, "b/unknown"))
            body = self.wait(store.find(key))
            assert body is not None
            self.assertEqual(body.head.last_modified, DATED.last_modified)
            if rebuilt:
                self.assertEqual(list(self.files()), [key], "what can never be asked for again is removed")
                self.assertEqual(store.index.totals(), (1, len(DATA)))
            self.fill(store, "b/new", OTHER)
            self.assertEqual(self.content(store, "b/new"), OTHER)
            self.die(store)
            for name in ("b/new", key):
                (self.root / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the index and all that belongs to it."""
        for path in (self.root / ".vault").glob("index.db*"):
            path.unlink()

    def test_deleted(self) -> None:
        """A deleted index is made again from the files."""
        self.damage(self.remove)

    def test_directory_deleted(self) -> None:
        """So it is when the vault's whole private directory was deleted."""

        def remove() -> None:
            self.remove()
            for path in (self.root / ".vault").iterdir():
                path.rmdir() if path.is_dir() else path.unlink()
            (self.root / ".vault").rmdir()

        self.damage(remove)

    def test_overwritten(self) -> None:
        """So it is when the index holds something else."""
        self.damage(lambda: (self.root / ".vault" / "index.db").write_bytes(b"not a database" * 1000) and None)

    def test_emptied(self) -> None:
        """So it is when the index was cut to nothing, as a crashed machine may leave it."""
        self.damage(lambda: os.truncate(self.root / ".vault" / "index.db", 0))

    def test_cut_off(self) -> None:
        """So it is when the end of the index is missing."""
        self.damage(lambda: os.truncate(self.root / ".vault" / "index.db", 4096))

    def test_damaged_pages(self) -> None:
        """So it is when the index begins like one, but all after its first page is garbage."""

        def change() -> None:
            path = self.root / ".vault" / "index.db"
            content = path.read_bytes()
            path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))

        self.damage(change)

    def test_other_version(self) -> None:
        """So it is when the index was written by another version of the vault."""

        def change() -> None:
            connection = sqlite3.connect(self.root / ".vault" / "index.db")
            connection.execute("PRAGMA user_version = 99")
            connection.close()

        self.damage(change)


class DamagedInUseTests(StoreCase):
    def damaged(self, key: str) -> Store:
        """A store with an entry, whose index somebody overwrites while it is open."""
        store = self.open()
        self.fill(store, key, DATA)
        self.fill(store, "b/" + "other" * 40, OTHER)
        self.wait(store.close())
        store = self.open()
        path = self.root / ".vault" / "index.db"
        path.write_bytes(path.read_bytes()[:4096] + b"\xa5" * (path.stat().st_size - 4096))
        return store

    def test_made_again(self) -> None:
        """An index that is damaged while the vault runs is made again from the files, without a restart."""
        store = self.damaged("b/file")
        self.assertIsNone(self.content(store, "b/file"))
        self.assertIn("malformed", store.problems()[0])
        store.tidy()
        self.assertEqual((store.problems(), store.rebuilding), ([], True))
        self.assertEqual(self.content(store, "b/file"), DATA, "before its turn")
        self.wait(rebuild(store, self.disk))
        self.assertEqual((store.rebuilding, store.index.totals()), (False, (2, len(DATA) + len(OTHER))))
        self.wait(store.close())
        store = self.open(rebuilt=False)
        self.assertFalse(store.rebuilding)
        self.assertEqual(self.content(store, "b/file"), DATA)

    def test_noticed_by_housekeeping(self) -> None:
        """So it is where nobody but the housekeeping notices."""
        store = self.damaged("b/file")
        store.report("a write", OSError(errno.EIO, "Input/output error"))
        for _ in range(2):
            store.tidy()
        self.assertTrue(store.rebuilding)

    def test_running_fills(self) -> None:
        """Fills that run meanwhile are stored, or gone on with where they break off."""
        store = self.open()
        writers = [self.begin(store, key, len(DATA)) for key in ("b/whole", "b/broken")]
        for writer in writers:
            writer.write(DATA[:700])
        self.patch(store.index, "sound", lambda: False)
        store.report("a question", sqlite3.DatabaseError("database disk image is malformed"))
        store.tidy()
        self.wait(rebuild(store, self.disk))
        writers[0].write(DATA[700:])
        self.end(store, writers[0])
        self.assertEqual(self.content(store, "b/whole"), DATA)
        writers[1].fail(Truncated("it broke off"))
        self.wait(store.ended(writers[1], keep=True))
        partial = self.wait(store.partial("b/broken"))
        assert partial is not None
        self.assertEqual((partial.size, partial.head), (700, DATED))

    def test_of_another(self) -> None:
        """What is said late of an index that has been replaced makes no other one, now or by the next start."""
        store = self.open()
        self.fill(store, "b/file", DATA)
        index = store.index
        store.report("a question", sqlite3.DatabaseError("database disk image is malformed"))
        store.tidy()
        self.assertEqual((store.index, store.rebuilding), (index, False))
        self.wait(store.close())
        self.assertFalse(self.open(rebuilt=False).rebuilding)

    def test_left_fills(self) -> None:
        """What fills left that do not run goes: nothing is known of it any more, and it would count for ever."""
        store = self.open()
        for key in ("b/left", "b/runs"):
            writer = self.begin(store, key, len(DATA))
            writer.write(DATA[:700])
            if key == "b/left":
                writer.fail(Truncated("it broke off"))
                self.wait(store.ended(writer, keep=True))
        self.patch(store.index, "sound", lambda: False)
        store.report("a question", sqlite3.DatabaseError("database disk image is malformed"))
        store.tidy()
        self.assertEqual(len(self.partial_files()), 1)
        writer.write(DATA[700:])
        self.end(store, writer)
        self.assertEqual(self.content(store, "b/runs"), DATA)

    def test_left_fills_unreadable(self) -> None:
        """An index of which only the part on fills is damaged is no reason not to start."""
        store = self.open()
        self.fill(store, "b/file", DATA)
        self.wait(store.close())
        database = sqlite3.connect(self.root / ".vault" / "index.db")
        page = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'partials'").fetchone()[0]
        size = database.execute("PRAGMA page_size").fetchone()[0]
        database.close()
        with (self.root / ".vault" / "index.db").open("r+b") as file:
            file.seek((page - 1) * size)
            file.write(b"\xa5" * size)
        self.assertEqual(self.content(self.open(), "b/file"), DATA)

    def test_while_it_is_made_again(self) -> None:
        """Damage in the middle of that begins it anew: no file is passed over."""
        disk = self.disk = SteppedDisk()
        store = Store(self.root, self.options, disk, self.clock, self.now)
        store.open()
        self.addCleanup(self.die, store)
        self.patch(recovery, "BATCH", 2)
        for number in range(7):
            path = self.root / "b" / str(number)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"%d" % number)
        made = ensureDeferred(rebuild(store, disk))
        disk.step()
        disk.step()
        self.patch(store.index, "sound", lambda: False)
        store.report("a question", sqlite3.DatabaseError("database disk image is malformed"))
        store.tidy()
        disk.drain()
        self.successResultOf(made)
        self.assertEqual((store.rebuilding, store.index.totals()[0]), (False, 7))

    def test_cannot_be_written(self) -> None:
        """Where it cannot be written this is said, and tried again later."""
        self.wait(self.open().close())
        (self.root / "b").mkdir()
        (self.root / "b/file").write_bytes(DATA)
        (self.root / ".vault" / "index.db").unlink()
        store = self.open(rebuilt=False)

        def full(*arguments: object, **named: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        patcher = self.patch(store.index, "put", full)
        self.wait(rebuild(store, self.disk))
        self.assertIn("disk is full", store.problems()[0])
        patcher.restore()
        self.wait(rebuild(store, self.disk))
        self.assertEqual((store.rebuilding, store.index.totals()[0]), (False, 1))


class RebuildTests(StoreCase):
    def test_content_encoding(self) -> None:
        """What is stored in a coding is fetched again when the index was lost: without its header it would be wrong."""
        encoded = Head(200, (("Content-Type", "text/plain"), ("Content-Encoding", "gzip")))
        store = self.open()
        self.fill(store, "b/x.txt", DATA, encoded)
        self.fill(store, "b/plain.txt", DATA)
        self.fill(store, "b/told.tar.gz", OTHER, Head(200, (("Content-Encoding", "x-gzip"),)))
        self.wait(store.adopt_twin("b/y.txt", Digest("sha256", hashlib.sha256(DATA).hexdigest()), encoded))
        for key in ("b/x.txt", "b/y.txt"):
            body = self.wait(store.find(key))
            assert body is not None
            self.assertEqual((body.head, body.size), (encoded, len(DATA)))
        self.wait(store.close())
        (self.root / ".vault" / "index.db").unlink()
        store = self.open(rebuilt=False)
        self.assertIsNone(self.wait(store.find("b/x.txt")), "asked for before its turn")
        self.wait(rebuild(store, self.disk))
        self.assertEqual(self.content(store, "b/plain.txt"), DATA)
        self.assertEqual(sorted(self.files()), ["b/plain.txt", "b/told.tar.gz"])
        self.assertEqual(self.content(store, "b/told.tar.gz"), OTHER)
        self.assertIsNone(self.content(store, "b/x.txt"))

    def test_coding_comes_and_goes(self) -> None:
        """A new version in another coding leaves no file of the old one behind."""
        encoded = Head(200, (("Content-Encoding", "gzip"),))
        store = self.open()
        for head in (DATED, encoded, DATED):
            self.fill(store, "b/x.txt", DATA + repr(head).encode(), head)
            self.assertEqual(len(self.files()), 1)
        self.assertEqual(list(self.files()), ["b/x.txt"])

    def test_after_a_kill(self) -> None:
        """A vault that was killed looks for files that were placed but not yet known, and knows all others still."""
        store = self.open()
        self.fill(store, "b/known", DATA, Head(200, (("ETag", '"1"'),)))
        self.die(store)
        (self.root / "b" / "placed").write_bytes(OTHER)
        store = self.open(rebuilt=False)
        self.assertTrue(store.rebuilding)
        self.wait(rebuild(store, self.disk))
        self.assertFalse(store.rebuilding)
        self.assertEqual(self.content(store, "b/placed"), OTHER)
        body = self.wait(store.find("b/known"))
        assert body is not None
        self.assertEqual(body.head.etag, '"1"')
        self.wait(store.close())
        self.assertFalse(self.open(rebuilt=False).rebuilding)

    def test_many(self) -> None:
        """However many files there are, all are found."""
        self.wait(self.open().close())
        for number in range(200):
            path = self.root / "b" / str(number % 7) / str(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(str(number).encode())
        (self.root / ".vault" / "index.db").unlink()
        store = self.open()
        self.assertEqual(store.index.totals()[0], 200)
        self.assertEqual(self.content(store, "b/3/143"), b"143")

    def test_interrupted(self) -> None:
        """Closing the store ends the work without a complaint, and the next start goes on with it."""
        self.wait(self.open().close())
        (self.root / "b").mkdir()
        for number in range(100):
            (self.root / "b" / str(number)).write_bytes(b"%d" % number)
        (self.root / ".vault" / "index.db").unlink()
        store = self.open(rebuilt=False)
        disk = SteppedDisk()
        rebuilding = ensureDeferred(rebuild(store, disk))
        disk.step()
        self.wait(store.close())
        disk.drain()
        self.successResultOf(rebuilding)
        store = self.open(rebuilt=False)
        self.assertTrue(store.rebuilding)
        self.wait(rebuild(store, self.disk))
        self.assertEqual(store.index.totals()[0], 100)

    def test_strange_names(self) -> None:
        """Files that cannot be entries, whatever their names, are left alone and hide no other."""
        self.wait(self.open().close())
        (self.root / "b").mkdir()
        names = [b"\xff\xfe.bin", b"with\nnewline", b"good", b"back\\slash", b"zz", b"caf\xc3\xa9"]
        for name in names:
            (self.root / "b" / os.fsdecode(name)).write_bytes(DATA)
        (self.root / ".vault" / "index.db").unlink()
        store = self.open()
        self.assertFalse(store.rebuilding)
        for key in ("b/good", "b/zz", "b/caf%C3%A9"):
            self.assertEqual(self.content(store, key), DATA)
        self.assertEqual(set(names), {os.fsencode(path.name) for path in (self.root / "b").iterdir()})

    def test_placed_while_it_runs(self) -> None:
        """What is being stored while the index is made again is not disturbed, whatever its file is called."""
        for key in ("b/plain", "b/with?query"):
            self.root = self.root.with_name(self.root.name + "x")
            store = self.open(rebuilt=False)
            place = store.layout.place

            def placed(name: str, path: str, place: Any = place, store: Store = store) -> None:
                place(name, path)
                self.wait(rebuild(store, self.disk))

            self.patch(store.layout, "place", placed)
            self.fill(store, key, DATA)
            body = self.wait(store.find(key))
            assert body is not None, key
            self.assertEqual(body.head, DATED)
            self.assertEqual(Follower(body).data, DATA)

    def test_damaged_rows(self) -> None:
        """Rows that make no sense keep the vault neither from starting nor from evicting."""
        store = self.open()
        self.fill(store, "b/file", DATA)
        self.begin(store, "b/fill", len(DATA)).write(DATA[:10])
        store.index._writer.execute("UPDATE entries SET head = 'junk'")
        store.index._writer.execute("UPDATE partials SET head = 'junk'")
        self.die(store)
        store = self.open()
        self.assertIsNone(self.content(store, "b/file"))
        self.assertIsNone(self.wait(store.partial("b/fill")))
        self.options.max_size = 1
        store.tidy()

    def test_file_beside_an_unfinished_fill(self) -> None:
        """A file that is taken up leaves no part of an unfinished fill behind that nobody knows."""
        store = self.open()
        writer = self.begin(store, "b/file", len(DATA))
        writer.write(DATA[:10])
        writer.fail(Truncated("it broke off"))
        self.wait(store.ended(writer, keep=True))
        self.die(store)
        (self.root / "b").mkdir()
        (self.root / "b" / "file").write_bytes(OTHER)
        store = self.open()
        self.assertEqual(self.content(store, "b/file"), OTHER)
        self.assertEqual([partial.key for partial in store.index.partials()], ["b/file"])
        self.assertEqual(len(self.partial_files()), 1)

    def test_one_bad_file(self) -> None:
        """A file that cannot be taken up, for whatever reason, costs no other one its turn."""
        store = self.open()
        self.fill(store, "b/bad", DATA)
        self.fill(store, "b/good", OTHER)
        self.die(store)
        for path in (self.root / ".vault").glob("index.db*"):
            path.unlink()
        for error in (OverflowError("too large"), ValueError("no text"), OSError("unreadable")):

            def sha256_of(file: OpenFile, disk: Disk, error: Exception = error) -> str:
                if os.fstat(file.descriptor).st_size == len(DATA):
                    raise error
                return hashes.sha256_of(file, disk)

            self.patch(recovery, "sha256_of", sha256_of)
            store = self.open(rebuilt=False)
            self.assertIsNone(self.content(store, "b/bad"))
            self.wait(rebuild(store, self.disk))
            self.assertFalse(store.rebuilding)
            self.assertEqual(self.content(store, "b/good"), OTHER)
            self.assertIsNone(self.content(store, "b/bad"))
            self.die(store)

    def test_orphans(self) -> None:
        """Files of fills that nobody knows, and fills whose file is gone, are forgotten at the start."""
        store = self.open()
        self.begin(store, "b/one", len(DATA)).write(DATA[:10])
        self.begin(store, "b/two", len(DATA)).write(DATA[:10])
        row = store.index.partial("b/two")
        assert row is not None
        self.die(store)
        partials = self.root / ".vault" / "partial"
        (partials / row.name).unlink()
        (partials / "unknown").write_bytes(b"x")
        store = self.open()
        self.assertEqual([partial.key for partial in store.index.partials()], ["b/one"])
        self.assertEqual(len(self.partial_files()), 1)
