"""The cache directory: its lock, its owner, its modes, and the links that somebody may have planted in it."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from vault.errors import StoreError
from vault.store.layout import Layout

SOMEBODY = 54321


class LayoutCase(SynchronousTestCase):
    """Has a place for a cache directory, and one outside it."""

    def setUp(self) -> None:
        self.above = Path(self.mktemp()).absolute()
        self.above.mkdir()
        self.root = self.above / "cache"
        self.outside = self.above / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_bytes(b"secret")

    def layout(self) -> Layout:
        """A layout of the directory that gives its lock back at the end."""
        layout = Layout(self.root)
        self.addCleanup(layout.release)
        return layout

    def prepared(self) -> Layout:
        """The same, in use."""
        layout = self.layout()
        layout.prepare()
        return layout

    def store(self, layout: Layout, path: str, data: bytes = b"data") -> None:
        """Put a file to its place as a finished fill."""
        descriptor = layout.open_partial("name", fresh=True)
        os.write(descriptor, data)
        os.close(descriptor)
        layout.place("name", path)

    def read(self, layout: Layout, path: str) -> bytes:
        """The content of a stored file."""
        descriptor = layout.open(path)
        try:
            return os.read(descriptor, 1000)
        finally:
            os.close(descriptor)


class PrepareTests(LayoutCase):
    def test_modes(self) -> None:
        """The cache directory and all in it are closed to others, as configured."""
        self.store(self.prepared(), "b/d/f")
        modes = {
            str(path.relative_to(self.above)): stat.S_IMODE(path.stat().st_mode)
            for path in (self.root, self.root / "b", self.root / "b/d", self.root / "b/d/f", self.root / ".vault")
        }
        self.assertEqual(
            modes, {"cache": 0o750, "cache/b": 0o750, "cache/b/d": 0o750, "cache/b/d/f": 0o640, "cache/.vault": 0o750}
        )

    def test_modes_whatever_the_umask(self) -> None:
        """The configured modes hold also where the process was started with a narrow umask, as twistd's daemons are."""
        self.addCleanup(os.umask, os.umask(0o077))
        self.store(self.prepared(), "b/f")
        self.assertEqual(stat.S_IMODE((self.root / "b").stat().st_mode), 0o750)
        self.assertEqual(stat.S_IMODE((self.root / "b/f").stat().st_mode), 0o640)

    def test_second_is_refused(self) -> None:
        """A second vault on the same directory is told who has it and what to do."""
        first = self.prepared()
        error = self.assertRaises(StoreError, self.layout().prepare)
        self.assertIn("in use by another vault", str(error))
        self.assertIn(f"process {os.getpid()}", str(error))
        self.assertIn("cache_dir", str(error))
        self.assertTrue(first.intact())
        first.release()
        self.layout().prepare()

    def test_cannot_be_made(self) -> None:
        """A cache directory that cannot be made is named, with the reason."""
        self.root.write_bytes(b"a file is here")
        error = self.assertRaises(StoreError, self.layout().prepare)
        self.assertIn(str(self.root), str(error))

    def test_intact(self) -> None:
        """It is noticed when the directory was removed, replaced or moved away."""
        layout = self.prepared()
        self.assertTrue(layout.intact())
        self.root.rename(self.above / "elsewhere")
        self.assertFalse(layout.intact())
        self.prepared()
        self.assertFalse(layout.intact())


class OwnerTests(LayoutCase):
    def test_own(self) -> None:
        """Below a directory that everyone may write to, one's own cache directory is used."""
        self.above.chmod(0o1777)
        self.root.mkdir()
        self.prepared()

    def test_of_somebody_else(self) -> None:
        """There, a directory of somebody else is refused, and the sentence says why and what to do."""
        if os.geteuid() != 0:
            raise SkipTest("only root can give a directory away")
        self.above.chmod(0o1777)
        self.root.mkdir()
        os.chown(self.root, SOMEBODY, SOMEBODY)
        error = self.assertRaises(StoreError, self.layout().prepare)
        self.assertIn("does not belong to the user", str(error))
        self.assertIn("cache_dir", str(error))

    def test_below_a_directory_of_somebody_else(self) -> None:
        """The same where the directory of somebody else lies deeper: who owns one above can change all below."""
        if os.geteuid() != 0:
            raise SkipTest("only root can give a directory away")
        self.above.chmod(0o1777)
        self.root = self.above / "theirs" / "cache"
        self.root.mkdir(parents=True)
        for directory in (self.root, self.root.parent):
            os.chown(directory, SOMEBODY, SOMEBODY)
        self.assertRaises(StoreError, self.layout().prepare)

    def test_link(self) -> None:
        """There, a link in the place of the cache directory is refused, also one of our own."""
        self.above.chmod(0o1777)
        self.root.symlink_to(self.outside)
        self.assertRaises(StoreError, self.layout().prepare)
        self.assertEqual([path.name for path in self.outside.iterdir()], ["secret"])

    def test_link_of_the_operator(self) -> None:
        """In a directory that only its owner writes to, the cache directory may be a link."""
        self.root.symlink_to(self.outside)
        self.store(self.prepared(), "b/f")
        self.assertEqual((self.outside / "b/f").read_bytes(), b"data")


class LinkTests(LayoutCase):
    def test_reading(self) -> None:
        """A link at any level is not followed for reading."""
        layout = self.prepared()
        (self.root / "b" / "d").mkdir(parents=True)
        (self.root / "link").symlink_to(self.outside)
        (self.root / "b" / "link").symlink_to(self.outside)
        (self.root / "b" / "d" / "link").symlink_to(self.outside / "secret")
        for path in ("link/secret", "b/link/secret", "b/d/link"):
            self.assertRaises(OSError, layout.open, path)

    def test_writing(self) -> None:
        """A link at any level is not followed for writing; one in the very place of the file is replaced."""
        layout = self.prepared()
        (self.root / "b" / "d").mkdir(parents=True)
        (self.root / "link").symlink_to(self.outside)
        (self.root / "b" / "link").symlink_to(self.outside)
        (self.root / "b" / "d" / "link").symlink_to(self.outside / "secret")
        for path in ("link/secret", "link/new/deep", "b/link/secret", "b/link/new"):
            self.assertRaises(OSError, self.store, layout, path)
        self.store(layout, "b/d/link")
        self.assertEqual(self.read(layout, "b/d/link"), b"data")
        self.assertEqual({path.name: path.read_bytes() for path in self.outside.iterdir()}, {"secret": b"secret"})

    def test_removing(self) -> None:
        """A link is removed itself; nothing is removed through one."""
        layout = self.prepared()
        (self.root / "b").mkdir()
        (self.root / "b" / "link").symlink_to(self.outside)
        (self.root / "b" / "last").symlink_to(self.outside / "secret")
        layout.remove("b/link/secret")
        layout.remove("b/last")
        self.assertEqual((self.outside / "secret").read_bytes(), b"secret")
        self.assertFalse(os.path.lexists(self.root / "b" / "last"))

    def test_walking(self) -> None:
        """What a link leads to is not taken for stored files, nor are the vault's own."""
        layout = self.prepared()
        self.store(layout, "b/f")
        (self.root / "b" / "link").symlink_to(self.outside)
        (self.root / "link").symlink_to(self.outside)
        (self.root / "b" / "file").symlink_to(self.outside / "secret")
        (self.root / "stray").write_bytes(b"at the top, where no entry is")
        os.mkfifo(self.root / "b" / "fifo")
        self.assertEqual([path for path, _ in layout.walk()], ["b/f"])

    def test_fill_file(self) -> None:
        """A link in the place of a fill's file is not followed."""
        layout = self.prepared()
        partial = self.root / ".vault" / "partial" / "name"
        partial.symlink_to(self.outside / "secret")
        self.assertIsNone(layout.partial_size("name"))
        with contextlib.suppress(OSError):  # refused, or replaced by a file: both are right
            os.close(layout.open_partial("name", fresh=True))
        self.assertEqual((self.outside / "secret").read_bytes(), b"secret")

    def test_private_directory(self) -> None:
        """A link in the place of the vault's own directories is not followed: nothing is made outside."""
        for name in (".vault", ".vault/partial"):
            self.root = self.above / name.replace("/", "-")
            (self.root / name).parent.mkdir(parents=True)
            (self.root / name).symlink_to(self.outside)
            self.assertRaises(StoreError, self.layout().prepare)
            self.assertEqual([path.name for path in self.outside.iterdir()], ["secret"])

    def test_own_files(self) -> None:
        """A link in the place of one of the vault's own files is refused by its name, and not followed."""
        self.prepared().release()
        before = self.outside / "secret"
        for name in ("index.db", "index.db-wal", "index.db-shm", "index.damaged", "open", "probe", "lock"):
            for target in (before, self.outside / "new"):
                link = self.root / ".vault" / name
                link.unlink(missing_ok=True)
                link.symlink_to(target)
                error = self.assertRaises(StoreError, self.layout().prepare)
                self.assertIn(f"{link} is a symbolic link", str(error))
                link.unlink()
        self.assertEqual({path.name: path.read_bytes() for path in self.outside.iterdir()}, {"secret": b"secret"})

    def test_own_files_later(self) -> None:
        """One that is planted while the vault runs is not followed either."""
        layout = self.prepared()
        for name, use in (("open", layout.mark_open), ("probe", layout.probe), ("index.damaged", layout.condemn_index)):
            for target in (self.outside / "secret", self.outside / "new"):
                link = self.root / ".vault" / name
                link.symlink_to(target)
                with contextlib.suppress(OSError):
                    use()
                link.unlink(missing_ok=True)
        self.assertEqual({path.name: path.read_bytes() for path in self.outside.iterdir()}, {"secret": b"secret"})
        layout.probe()
        layout.mark_open()
        self.assertTrue(layout.left_open())

    def test_special_files(self) -> None:
        """A FIFO or a directory in the place of a file is no entry, and opening it does not hang."""
        layout = self.prepared()
        (self.root / "b" / "d").mkdir(parents=True)
        os.mkfifo(self.root / "b" / "fifo")
        self.assertRaises(OSError, layout.open, "b/fifo")
        self.assertRaises(OSError, layout.open, "b/d")


class PlaceTests(LayoutCase):
    def test_replaced_in_one_step(self) -> None:
        """A file that is replaced goes on for who has it open; no fill's file is left."""
        layout = self.prepared()
        self.store(layout, "b/f", b"old")
        descriptor = layout.open("b/f")
        self.addCleanup(os.close, descriptor)
        self.store(layout, "b/f", b"new")
        self.assertEqual(os.read(descriptor, 10), b"old")
        self.assertEqual(self.read(layout, "b/f"), b"new")
        self.assertEqual(layout.partial_names(), [])

    def test_in_the_way(self) -> None:
        """A file where a directory must be, or the reverse, is an error and stays."""
        layout = self.prepared()
        self.store(layout, "b/a", b"file")
        self.assertRaises(NotADirectoryError, self.store, layout, "b/a/b")
        self.store(layout, "b/c/d", b"deep")
        self.assertRaises(IsADirectoryError, self.store, layout, "b/c")
        self.assertEqual(self.read(layout, "b/a") + self.read(layout, "b/c/d"), b"filedeep")

    def test_second_name(self) -> None:
        """Linking gives a fill the bytes of a stored file without copying; placing it again leaves nothing over."""
        layout = self.prepared()
        self.store(layout, "b/one", b"same")
        for _ in range(2):
            os.close(layout.open_partial("name", fresh=True))
            layout.place(layout.link("b/one", "name"), "b/two")
            self.assertEqual(layout.partial_names(), ["name"])
        self.assertEqual((self.root / "b/one").stat().st_ino, (self.root / "b/two").stat().st_ino)
        self.assertEqual((self.root / "b/one").stat().st_nlink, 2)

    def test_begun_anew(self) -> None:
        """A fill that begins anew touches no other name of its old file, and nobody who still reads that one."""
        layout = self.prepared()
        self.store(layout, "b/one", b"stored")
        os.close(layout.open_partial("name", fresh=True))
        layout.link("b/one", "name")  # and here the process was killed
        os.close(layout.open_partial("name", fresh=True))
        self.assertEqual(self.read(layout, "b/one"), b"stored")
        self.assertEqual(layout.partial_size("name"), 0)

    def test_empty_directories_go(self) -> None:
        """With the last file of a directory the directory goes, but not the backend's own."""
        layout = self.prepared()
        self.store(layout, "b/x/y/one")
        self.store(layout, "b/x/two")
        layout.remove("b/x/y/one")
        self.assertEqual(sorted(path.name for path in (self.root / "b/x").iterdir()), ["two"])
        layout.remove("b/x/two")
        layout.remove("b/x/two")
        self.assertEqual(list((self.root / "b").iterdir()), [])

    def test_walk_while_files_go(self) -> None:
        """A file that is removed during a walk does not hide the others of its directory."""
        layout = self.prepared()
        for number in range(20):
            self.store(layout, f"b/{number}")
        walk = layout.walk()
        seen = {next(walk)[0]}
        unseen = sorted({f"b/{number}" for number in range(20)} - seen)
        gone = unseen[::3]
        for path in gone:
            (self.root / path).unlink()
        seen |= {path for path, _ in walk}
        self.assertEqual(sorted(set(unseen) - set(gone) - seen), [])
