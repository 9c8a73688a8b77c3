"""A vault that is being stopped: what takes long is given up, and nothing is lost by that."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.trial.unittest import TestCase

from tests.store.fakes import DATED, Follower, InlineDisk, Options, SteppedDisk, StoreCase
from vault.artifact import Digest
from vault.errors import Stopping, Truncated
from vault.store.body import OpenFile
from vault.store.disk import ThreadedDisk
from vault.store.hashes import STEP, Hashes, digest_of
from vault.store.partials import Partial
from vault.store.recovery import rebuild
from vault.store.store import Store

DATA = bytes(range(256)) * 8


class Gate(OpenFile):
    """A file of which each read waits for the test."""

    def __init__(self, path: Path) -> None:
        super().__init__(os.open(path, os.O_RDONLY))
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.reads = 0

    def read(self, offset: int, limit: int) -> bytes:
        """Say that the read has begun, and wait."""
        self.reads += 1
        self.begun.release()
        assert self.go_on.acquire(timeout=10)
        return super().read(offset, limit)


class LongReadTests(TestCase):
    """Real threads, and a file of some MiB that stands for one of many GiB."""

    timeout = 30

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(bytes(5 * STEP))

    async def test_given_up(self) -> None:
        """A file that is being read through is read no further than where the reader is when the vault is stopped."""
        disk = ThreadedDisk(reactor, threads=1)
        self.addCleanup(disk.stop)
        for read in (
            lambda file: disk.run(digest_of, file, "sha256", disk),
            lambda file: disk.run(Hashes(None).read_prefix, file, 4 * STEP, disk),
        ):
            disk.stopping, file = False, Gate(self.path)
            reading: Deferred[object] = read(file)
            self.assertTrue(file.begun.acquire(timeout=10))
            file.go_on.release()
            self.assertTrue(file.begun.acquire(timeout=10))
            disk.stopping = True
            file.go_on.release()
            with self.assertRaises(Stopping):
                await reading
            self.assertEqual(file.reads, 2)


class StoppingTests(StoreCase):
    """The store's files stand for ones that take long: they are not even begun to be read."""

    def stopped(self) -> Store:
        """A store that is open on the directory, and whose vault is being stopped."""
        store = self.open(rebuilt=False)
        self.disk.stopping = True
        return store

    def again(self, store: Store) -> Store:
        """The store of the next start."""
        self.wait(store.close())
        self.disk.stopping = False
        return self.open()

    def test_taken_up_later(self) -> None:
        """Files that were to be taken up are taken up after the next start; who asks for one is told why not now."""
        (self.root / "b").mkdir(parents=True)
        (self.root / "b" / "file").write_bytes(DATA)
        store = self.stopped()
        self.assertTrue(store.rebuilding)
        self.wait(rebuild(store, self.disk))
        self.failureResultOf(ensureDeferred(store.find("b/file")), Stopping)
        self.assertEqual(store.index.totals(), (0, 0))
        store = self.again(store)
        self.assertEqual(self.content(store, "b/file"), DATA)

    def test_checked_later(self) -> None:
        """An entry whose file was touched is neither served nor removed; all who ask for it are told why."""
        store = self.open()
        self.fill(store, "b/file", DATA)
        os.utime(self.root / "b" / "file", (1, 1))
        self.wait(store.close())
        self.disk = stepped = SteppedDisk()
        stepped.stopping = True
        store = self.open()
        asking = [ensureDeferred(store.find("b/file")) for _ in range(3)]
        stepped.drain()
        for asked in asking:
            self.failureResultOf(asked, Stopping)
        self.wait(store.close())
        self.disk = InlineDisk()
        self.assertEqual(self.content(self.open(), "b/file"), DATA)

    def test_eviction(self) -> None:
        """Entries that are too many stay."""
        store = self.open()
        for number in range(10):
            self.fill(store, f"b/{number}", bytes([number]) * 100)
        store.reading.clear()
        store.reconfigure(Options(max_size=200))
        self.disk.stopping = True
        store.tidy()
        self.assertEqual(len(self.files()), 10)
        self.disk.stopping = False
        store.tidy()
        self.assertEqual(len(self.files()), 2)

    def leave(self) -> tuple[Store, Partial]:
        """What an earlier fill left, as a vault sees it that is being stopped."""
        store = self.open()
        self.begin(store, "b/file", len(DATA)).write(DATA[:1000])
        self.die(store)
        store = self.stopped()
        partial = self.wait(store.partial("b/file"))
        assert partial is not None
        return store, partial

    def test_partial(self) -> None:
        """What an earlier fill left is gone on with after the next start, where it could not be read to its end now.

        What has come behind it meanwhile is not lost either, and who reads along is not told that it is whole.
        """
        for digest in (None, Digest("sha256", hashlib.sha256(DATA).hexdigest())):
            store, partial = self.leave()
            writer = self.begin(store, "b/file", len(DATA), digest, resume=partial)
            follower = Follower(writer.body)
            writer.write(DATA[1000:1500])
            writer.write(DATA[1500:])
            self.failureResultOf(ensureDeferred(writer.finish()), Truncated)
            self.assertIsInstance(follower.failure, Truncated)
            self.assertTrue(writer.storing)
            self.wait(store.ended(writer, keep=True))
            self.assertEqual((self.files(), store.problems()), ({}, []))
            store = self.again(store)
            partial = self.wait(store.partial("b/file"))
            assert partial is not None
            self.assertEqual(partial.size, len(DATA))
            writer = self.begin(store, "b/file", len(DATA), digest, resume=partial)
            self.end(store, writer)
            self.assertEqual(self.content(store, "b/file"), DATA)
            self.wait(store.remove("b/file"))
            self.die(store)

    def test_given_up_while_stored(self) -> None:
        """Who gives up while a body becomes an entry lets nobody at its file before that is done."""
        store = self.open()
        disk = store.disk = SteppedDisk()
        creating = ensureDeferred(store.create("b/file", DATED, len(DATA), None))
        creating.cancel()
        self.assertIn("b/file", store.beginning)
        disk.drain()
        self.failureResultOf(creating, CancelledError)
        creating = ensureDeferred(store.create("b/file", DATED, len(DATA), None))
        disk.drain()
        writer = self.successResultOf(creating)
        writer.write(DATA)
        disk.drain()
        finishing = ensureDeferred(writer.finish())
        for _ in range(2):
            finishing.cancel()
        self.assertIs(store.filling["b/file"], writer)
        self.assertNoResult(finishing)
        disk.drain()
        self.failureResultOf(finishing, CancelledError)
        self.wait(store.ended(writer, keep=True))
        self.assertEqual(self.content(store, "b/file"), DATA)

    def test_partial_with_pieces_waiting(self) -> None:
        """Pieces that came while an earlier fill's were read are written behind them."""
        store, partial = self.leave()
        self.disk.stopping = False
        disk = store.disk = SteppedDisk()
        creating = ensureDeferred(store.create("b/file", DATED, len(DATA), None, partial))
        disk.step()
        writer = self.successResultOf(creating)
        writer.write(DATA[1000:1500])
        disk.stopping = True
        ending = ensureDeferred(store.ended(writer, keep=True))
        disk.drain()
        self.successResultOf(ending)
        (left,) = self.partial_files()
        self.assertEqual(left.read_bytes(), DATA[:1500])
