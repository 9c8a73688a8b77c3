"""The store: what is filled can be found, under readable names, once for each content, and only if it is whole."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import stat
from pathlib import Path

from twisted.internet.defer import ensureDeferred

from tests.store.fakes import DATED, Follower, SteppedDisk, StoreCase
from vault.artifact import Digest, Head
from vault.errors import DigestMismatch, StoreError
from vault.paths import safe_name
from vault.store.index import Row

DATA = bytes(range(256)) * 8


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


class CommitTests(StoreCase):
    def test_stored(self) -> None:
        """An entry is a plain file under its own name, with the configured mode and the date the upstream gave."""
        self.options.file_mode = 0o604
        store = self.open()
        self.fill(store, "b/dir/file.bin", DATA)
        self.assertEqual(self.files(), {"b/dir/file.bin": DATA})
        found = (self.root / "b/dir/file.bin").stat()
        self.assertEqual(stat.S_IMODE(found.st_mode), 0o604)
        self.assertEqual(found.st_mtime, 784_111_777)
        body = self.wait(store.find("b/dir/file.bin"))
        assert body is not None
        self.assertEqual((body.head, body.length, body.sha256), (DATED, len(DATA), sha256(DATA)))
        self.assertEqual(self.partial_files(), [])
        self.assertIsNone(self.wait(store.partial("b/dir/file.bin")))

    def test_strange_dates(self) -> None:
        """A modification date that makes no sense does not keep an entry from being stored."""
        store = self.open()
        for number, date in enumerate(("", "yesterday", "0", "Mon, 01 Jan 0001 00:00:00 GMT", "9" * 50, "\x00")):
            self.fill(store, f"b/{number}", b"x", Head(200, (("Last-Modified", date),)))
            self.assertEqual(self.content(store, f"b/{number}"), b"x")

    def test_far_dates(self) -> None:
        """Nor does one that the index cannot keep, be it the upstream's or that of an operator's ``touch``."""
        store = self.open()
        dates = ("Mon, 01 Jan 0001 00:00:00 GMT", "Thu, 01 Jan 2300 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -0100")
        for number, date in enumerate(dates):
            key = f"b/{number}"
            self.fill(store, key, DATA + key.encode(), Head(200, (("Last-Modified", date),)))
            self.assertEqual(self.content(store, key), DATA + key.encode())
        for seconds in (1.1e10, 1.2e10, 4e11):
            os.utime(self.root / "b/0", (seconds, seconds))
            self.assertEqual(self.content(store, "b/0"), DATA + b"b/0")
        self.assertEqual((store.problems(), store.index.totals()[0]), ([], len(dates)))
        self.die(store)
        for path in (self.root / ".vault").glob("index.db*"):
            path.unlink()
        for rebuilt in (False, True):
            store = self.open(rebuilt)
            for number in range(len(dates)):
                self.assertEqual(self.content(store, f"b/{number}"), DATA + f"b/{number}".encode())
            self.assertEqual(store.rebuilding, not rebuilt)
            self.die(store)

    def test_step_behind_the_rename_fails(self) -> None:
        """Whatever fails once the file has its name, none is left that the index does not know."""
        store = self.open()
        for number, error in enumerate((sqlite3.OperationalError("locked"), OverflowError("too large"))):

            def put(row: Row, replace: bool = True, error: Exception = error) -> None:
                raise error

            patch = self.patch(store.index, "put", put)
            self.fill(store, f"b/{number}", DATA)
            patch.restore()
            self.assertEqual(self.files(), {})
        patch = self.patch(os, "fsync", self.fsync_no_directory)
        self.fill(store, "b/synced", DATA)
        patch.restore()
        self.assertEqual(self.files(), {})
        self.assertTrue(store.problems())

    @staticmethod
    def fsync_no_directory(descriptor: int) -> None:
        """A disk that takes files only."""
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) and Path(f"/proc/self/fd/{descriptor}").readlink().name == "b":
            raise OSError(errno.EIO, "no directory can be synced")

    def test_no_more_descriptors(self) -> None:
        """An entry is stored although the process may open nothing more behind the rename."""
        store = self.open()

        def scarce(path: str) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        patch = self.patch(store.layout, "open", scarce)
        self.fill(store, "b/file", DATA)
        patch.restore()
        self.assertEqual((list(self.files()), store.index.totals()[0]), (["b/file"], 1))

    def test_survives_a_restart(self) -> None:
        """What was stored is there after a clean stop, and is not looked for anew."""
        store = self.open()
        self.fill(store, "b/file", DATA)
        self.wait(store.close())
        store = self.open()
        self.assertFalse(store.rebuilding)
        self.assertEqual(self.content(store, "b/file"), DATA)

    def test_not_before_it_is_whole(self) -> None:
        """Until an entry is whole and stored there is no file of its name, and it is not found."""
        store = self.open()
        writer = self.begin(store, "b/file", len(DATA))
        writer.write(DATA)
        self.assertEqual(self.files(), {})
        self.assertIsNone(self.content(store, "b/file"))
        self.end(store, writer)
        self.assertEqual(self.files(), {"b/file": DATA})

    def test_late_commit(self) -> None:
        """While the disk is busy storing, readers are done already and others do not see half of it."""
        store = self.open()
        self.fill(store, "b/file", b"old")
        disk = SteppedDisk()
        writer = self.begin(store, "b/file")
        store.disk = writer._disk = writer.body._disk = disk
        follower = Follower(writer.body)
        writer.write(b"new content")
        finished = ensureDeferred(writer.finish())
        disk.step()
        self.assertTrue(follower.ended)
        self.assertEqual(self.content(store, "b/file"), b"old")
        disk.work()  # stored, but nobody has heard of it
        self.assertEqual(self.content(store, "b/file"), b"new content")
        disk.report()
        self.successResultOf(finished)

    def test_wrong_digest(self) -> None:
        """A body of the wrong digest leaves no entry and nothing to go on with; the right one is then stored."""
        store = self.open()
        digest = Digest("sha256", sha256(DATA))
        writer = self.begin(store, "b/file", len(DATA), digest)
        follower = Follower(writer.body)
        writer.write(DATA[:-1] + b"!")
        self.failureResultOf(ensureDeferred(writer.finish()), DigestMismatch)
        self.wait(store.ended(writer, keep=False))
        self.assertEqual(follower.data, DATA[:-1])
        self.assertEqual((self.files(), self.partial_files()), ({}, []))
        self.assertIsNone(self.content(store, "b/file"))
        writer = self.begin(store, "b/file", len(DATA), digest)
        writer.write(DATA)
        self.end(store, writer)
        self.assertEqual(self.content(store, "b/file"), DATA)

    def test_replaced_while_it_is_read(self) -> None:
        """A new version takes the place of the old one; who reads the old one gets all of it."""
        store = self.open()
        self.fill(store, "b/file", b"old" * 100)
        body = self.wait(store.find("b/file"))
        follower = Follower(body, piece=10)
        follower.pause()
        slow = Follower(body, 150)
        self.fill(store, "b/file", b"newer" * 100)
        self.assertEqual(self.content(store, "b/file"), b"newer" * 100)
        follower.resume()
        self.assertEqual(follower.data, b"old" * 100)
        self.assertEqual(slow.data, b"old" * 50)
        self.assertEqual(store.index.totals(), (1, 500))

    def test_found_while_it_is_replaced(self) -> None:
        """Whoever asks at the very moment a new version is stored gets one version, not the head of one with the
        bytes of another."""
        store = self.open()
        self.fill(store, "b/file", b"old" * 100)
        reading = self.wait(store.find("b/file"))
        index, put, found = store.index, store.index.put, []

        def asked(row: Row, replace: bool = True) -> None:
            put(row, replace)
            found.append(self.wait(store.find("b/file")))

        self.patch(index, "put", asked)
        self.fill(store, "b/file", b"newer" * 100)
        (body,) = found
        if body is not None:
            self.assertEqual(sha256(Follower(body).data), body.sha256)
        self.assertEqual(Follower(reading).data, b"old" * 100)

    def test_renewed_head(self) -> None:
        """The head that came with a confirmation is kept."""
        store = self.open()
        self.fill(store, "b/file", DATA)
        body = self.wait(store.find("b/file"))
        assert body is not None
        head = Head(200, (("ETag", '"2"'),), 5.0, 6.0)
        self.wait(store.renew("b/file", body, head))
        again = self.wait(store.find("b/file"))
        assert again is not None
        self.assertEqual((body.head, again.head), (head, head))

    def test_late_renewal(self) -> None:
        """A confirmation that comes after the next version was stored does not give that the old one's head."""
        store = self.open()
        self.fill(store, "b/file", DATA)
        body = self.wait(store.find("b/file"))
        assert body is not None
        new = Head(200, (("ETag", '"2"'),))
        self.fill(store, "b/file", b"new", new)
        self.wait(store.renew("b/file", body, Head(200, (("ETag", '"1"'),))))
        again = self.wait(store.find("b/file"))
        assert again is not None
        self.assertEqual((again.head, again.size), (new, 3))


class TwinTests(StoreCase):
    def test_replaced_while_it_is_linked(self) -> None:
        """A second name is not given to the version that takes the place of the content at the same moment."""
        store = self.open()
        self.fill(store, "b/one", DATA)
        link = store.layout.link

        def late(twin: str, name: str) -> str:
            (self.root / "new").write_bytes(bytes(len(DATA)))
            (self.root / "new").rename(self.root / twin)
            return link(twin, name)

        self.patch(store.layout, "link", late)
        self.fill(store, "b/two", DATA)
        self.assertIsNone(self.wait(store.adopt_twin("b/three", Digest("sha256", sha256(DATA)))))
        self.assertEqual((self.root / "b/two").read_bytes(), DATA)
        self.assertEqual(self.content(store, "b/two"), DATA)
        self.assertEqual(list((self.root / ".vault" / "partial").iterdir()), [])

    def inode(self, path: str) -> int:
        """Which file it is."""
        return (self.root / path).stat().st_ino

    def test_one_file(self) -> None:
        """The same content under two names is one file on the disk, counted once."""
        store = self.open()
        self.fill(store, "b/one", DATA)
        self.fill(store, "c/two", DATA)
        self.assertEqual(self.inode("b/one"), self.inode("c/two"))
        self.assertEqual(store.index.totals(), (2, len(DATA)))
        self.assertEqual(self.partial_files(), [])
        for key in ("b/one", "c/two"):
            self.assertEqual(self.content(store, key), DATA)

    def test_fetched_again(self) -> None:
        """The same content again, under the same name or another, leaves nothing over."""
        store = self.open()
        for key in ("b/one", "b/one", "b/two", "b/two", "b/one"):
            self.fill(store, key, DATA)
            self.assertEqual(self.partial_files(), [])
            self.assertEqual(self.content(store, key), DATA)
        self.assertEqual(self.inode("b/one"), self.inode("b/two"))

    def test_other_name_changes(self) -> None:
        """When one of the names gets new content, the other keeps its own."""
        store = self.open()
        self.fill(store, "b/one", DATA)
        self.fill(store, "b/two", DATA)
        self.fill(store, "b/two", b"new")
        self.assertEqual((self.content(store, "b/one"), self.content(store, "b/two")), (DATA, b"new"))
        self.assertEqual(store.index.totals(), (2, len(DATA) + 3))

    def test_removed(self) -> None:
        """When one of the names is removed, the other keeps its content."""
        store = self.open()
        self.fill(store, "b/one", DATA)
        self.fill(store, "b/two", DATA)
        self.wait(store.remove("b/one"))
        self.assertEqual(self.files(), {"b/two": DATA})
        self.assertEqual(self.content(store, "b/two"), DATA)

    def test_damaged_twin(self) -> None:
        """A file that was changed by hand is not used for a second name."""
        for damage in (b"short", b"!" * len(DATA)):
            store = self.open()
            self.fill(store, "b/one", DATA)
            (self.root / "b/one").write_bytes(damage)
            self.fill(store, "b/two", DATA)
            self.assertEqual(self.content(store, "b/two"), DATA)
            self.wait(store.remove("b/two"))
            self.wait(store.remove("b/one"))
            self.die(store)

    def test_reader_of_the_fill(self) -> None:
        """Who reads the fill whose file was replaced by a second name of another gets all of it."""
        store = self.open()
        self.fill(store, "b/one", DATA)
        writer = self.begin(store, "b/two")
        follower = Follower(writer.body, piece=3)
        follower.pause()
        writer.write(DATA)
        self.end(store, writer)
        follower.resume()
        self.assertEqual(follower.data, DATA)


class ConflictTests(StoreCase):
    def test_file_and_directory(self) -> None:
        """A file and a directory of the same name are both kept, in either order, and both found."""
        for keys in (("b/a", "b/a/b", "b/a/b/c"), ("c/a/b/c", "c/a/b", "c/a")):
            store = self.open()
            for key in keys:
                self.fill(store, key, key.encode())
            self.wait(store.close())
            store = self.open()
            for key in keys:
                self.assertEqual(self.content(store, key), key.encode())
            self.wait(store.close())

    def test_safe_form(self) -> None:
        """Names that no file system can hold, or that would be confused with others, are stored all the same."""
        store = self.open()
        keys = ["b/", "b/x?y=1", "b/x?y=2", "b/x", "b/dir/", "b/" + "n" * 300, "b/%ff", "b/a//b"]
        for key in keys:
            self.fill(store, key, key.encode())
        for key in keys:
            self.assertEqual(self.content(store, key), key.encode())

    def test_nothing_is_left_when_it_moves(self) -> None:
        """An entry that moves to its readable name, when that has become free, leaves no other file behind."""
        store = self.open()
        self.fill(store, "b/a", b"in the way")
        self.fill(store, "b/a/b", b"first")
        self.assertIn("/".join(safe_name("b/a/b")), self.files())
        self.wait(store.remove("b/a"))
        self.fill(store, "b/a/b", b"second")
        self.assertEqual(self.content(store, "b/a/b"), b"second")
        self.assertEqual(self.files(), {"b/a/b": b"second"})

    def test_links_planted(self) -> None:
        """A link in the cache directory is followed neither for storing nor for finding."""
        outside = Path(self.mktemp()).absolute()
        outside.mkdir()
        (outside / "f").write_bytes(DATA)
        store = self.open()
        self.fill(store, "b/d/f", DATA)
        for place in ("b/d/f", "b/d", "b"):
            path = self.root / place
            path.rename(self.mktemp())
            path.symlink_to(outside / "f" if place.endswith("f") else outside)
            self.assertIsNone(self.content(store, "b/d/f"))
            self.fill(store, "b/d/f", DATA)
            path.unlink()
            self.assertEqual({name.name: name.read_bytes() for name in outside.iterdir()}, {"f": DATA})


class OpenTests(StoreCase):
    def test_second_is_refused(self) -> None:
        """A second vault on the same directory refuses to start, and the first one goes on."""
        store = self.open()
        error = self.assertRaises(StoreError, self.open)
        self.assertIn("in use by another vault", str(error))
        self.fill(store, "b/file", DATA)
        self.assertEqual(self.content(store, "b/file"), DATA)

    def test_directory_among_the_fills(self) -> None:
        """A directory that somebody made among the fills is left alone, and the store opens."""
        self.wait(self.open().close())
        junk = self.root / ".vault" / "partial" / "junk"
        (junk / "inner").mkdir(parents=True)
        junk.with_name("file").touch()
        store = self.open()
        self.fill(store, "b/file", DATA)
        self.assertEqual(self.content(store, "b/file"), DATA)
        self.assertEqual([path.name for path in junk.parent.iterdir()], ["junk"])

    def test_mode_of_the_index(self) -> None:
        """The index has the mode of all other files, whatever the umask, also one that was made before."""
        for umask, mode in ((0o022, 0o640), (0o077, 0o664), (0o022, 0o600)):
            self.addCleanup(os.umask, os.umask(umask))
            self.options.file_mode = mode
            store = self.open()
            self.fill(store, "b/file", DATA)
            files = sorted((self.root / ".vault").glob("index.db*"))
            self.assertEqual([file.name for file in files], ["index.db", "index.db-shm", "index.db-wal"])
            self.assertEqual([stat.S_IMODE(file.stat().st_mode) for file in files], [mode] * 3)
            self.die(store)

    def test_vanished(self) -> None:
        """When the directory is removed under a running vault, it says so, serves on, and begins an empty one."""
        for length in (len(DATA), None):
            store = self.open()
            self.fill(store, "b/file", DATA)
            self.assertEqual(store.problems(), [])
            self.root.rename(self.mktemp())
            self.assertIn("vanished", store.problems()[0])
            self.assertIsNone(self.content(store, "b/file"))
            writer = self.begin(store, "b/file", length)
            writer.write(DATA)
            self.end(store, writer)
            self.assertEqual(self.content(store, "b/file"), DATA)
            self.assertEqual(store.problems(), [])
            self.wait(store.close())
            store = self.open()
            self.assertEqual(self.content(store, "b/file"), DATA)
            self.wait(store.remove("b/file"))
            self.wait(store.close())
