"""FillWriter: bytes from the upstream become bytes in a file that readers follow, whatever the disk does."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.store.fakes import Follower, InlineDisk, SteppedDisk, Upstream
from vault.artifact import Digest, Head
from vault.store.body import GrowingBody, OpenFile
from vault.store.writer import ALIGNED, BATCH, HIGH_WATER, FillWriter, write_all

PIECE = 64 * 1024


def digest(data: bytes, algorithm: str = "sha256") -> Digest:
    """What the data has."""
    return Digest(algorithm, hashlib.new(algorithm, data).hexdigest())


class WriterCase(SynchronousTestCase):
    """Has a file, a writer of it, and what the writer told."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.disk = InlineDisk()
        self.stored: list[bytes] = []
        self.troubles: list[str] = []
        self.room = 1 << 60
        self.writes: list[int] = []
        self.meanwhile: Callable[[], None] = lambda: None
        self.patch(os, "pwritev", self._pwritev)

    def _pwritev(self, descriptor: int, pieces: list[memoryview], offset: int) -> int:
        data = b"".join(pieces)[: max(0, self.room - offset)]
        if not data:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.writes.append(len(data))
        self.meanwhile()
        return os.pwrite(descriptor, data, offset)

    def writer(
        self, expected: Digest | None = None, start: int = 0, disk: SteppedDisk | None = None,
        make_room: Callable[[int], bool] = lambda wanted: False,
    ) -> FillWriter:  # fmt: skip
        """A writer that stores."""
        file = OpenFile(os.open(self.path, os.O_RDWR | os.O_CREAT))
        running = disk or self.disk
        body = GrowingBody(Head(), None, file, running, Clock())
        return FillWriter(
            "b/k", body, running, expected, start,
            lambda writer: self.stored.append(self.path.read_bytes()), make_room,
            lambda what, error: self.troubles.append(f"{what}: {error}"),
        )  # fmt: skip

    def through(self, expected: Digest | None = None) -> FillWriter:
        """A writer that only hands on."""
        return FillWriter("b/k", GrowingBody(Head(), None, None, self.disk, Clock()), self.disk, expected)

    def finish(self, writer: FillWriter) -> None:
        """The upstream has sent all."""
        self.successResultOf(ensureDeferred(writer.finish()))


class StoringTests(WriterCase):
    def test_stored(self) -> None:
        """What comes in pieces is stored whole, with its sha256."""
        writer = self.writer()
        for piece in (b"one", b"", b"two", b"three"):
            writer.write(piece)
        self.finish(writer)
        self.assertEqual(self.stored, [b"onetwothree"])
        self.assertEqual(writer.body.sha256, hashlib.sha256(b"onetwothree").hexdigest())
        self.assertEqual(writer.body.length, 11)

    def test_empty(self) -> None:
        """An empty body is a body."""
        for expected in (None, digest(b""), digest(b"", "md5")):
            writer = self.writer(expected)
            follower = Follower(writer.body)
            self.finish(writer)
            self.assertTrue(follower.ended)
        self.assertEqual(self.stored, [b"", b"", b""])

    def test_readable_while_it_is_written(self) -> None:
        """A reader sees what is in the file, and no byte that is not."""
        disk = SteppedDisk()
        writer = self.writer(disk=disk)
        follower = Follower(writer.body)
        one, two = bytes(BATCH), b"1" * BATCH
        writer.write(one)
        writer.write(two)
        self.assertEqual(follower.data, b"")
        disk.work()
        self.assertEqual(follower.data, b"")
        disk.report()
        self.assertEqual(follower.data, one + two)
        writer.write(b"three")
        self.assertEqual(follower.data, one + two)
        disk.report()
        disk.step()
        self.assertEqual(follower.data, one + two + b"three")

    def test_disk_is_not_kept_waiting(self) -> None:
        """The disk goes on with what has come meanwhile, without being told to; readers are told of what is done."""
        disk = SteppedDisk()
        writer = self.writer(disk=disk)

        def more() -> None:
            if len(self.writes) < 3:
                writer.write(bytes(BATCH))  # the upstream is faster

        self.meanwhile = more
        writer.write(b"one")
        disk.work()
        self.assertEqual(self.writes, [3, BATCH, BATCH])
        self.assertEqual((disk.waiting, writer.written), ([], 0))
        disk.report()
        self.assertEqual(writer.written, 3 + 2 * BATCH)

    def test_aligned(self) -> None:
        """What others follow at once is written up to a boundary, however it came; the last is written to its end."""
        data = os.urandom(10 * 95_232)
        for size in (95_232, 16_300, 300):
            self.writes.clear()
            disk = SteppedDisk()
            writer = self.writer(disk=disk)
            follower = Follower(writer.body)
            for offset in range(0, len(data), size):
                writer.write(data[offset : offset + size])
            disk.drain()
            self.assertEqual([written % ALIGNED for written in self.writes[:-1]], [0] * (len(self.writes) - 1))
            self.assertGreater(len(self.writes), 4)
            self.assertEqual(follower.data, data)
            self.assertEqual(self.path.read_bytes(), data)

    def test_disk_is_shared(self) -> None:
        """However fast an upstream is, other work has its turn on the disk's threads."""
        disk = SteppedDisk()
        writer = self.writer(disk=disk)
        self.meanwhile = lambda: writer.write(bytes(BATCH))
        writer.write(bytes(BATCH))
        other = disk.run(lambda: None)
        disk.step()
        self.assertGreater(writer.written, 10 * BATCH)
        self.assertNoResult(other)
        disk.step()
        self.successResultOf(other)
        self.assertEqual(len(disk.waiting), 1)

    def test_all_that_comes_is_written(self) -> None:
        """What comes just as the disk finds that there is no more is written, too."""
        disk = SteppedDisk()
        writer = self.writer(disk=disk)
        writer.write(b"one")
        disk.work()
        writer.write(b"two")
        while disk.done:
            disk.report()
        disk.step()
        self.assertEqual(writer.written, 6)

    def test_pieces_are_put_together(self) -> None:
        """What arrives while the disk is busy is one write afterwards."""
        disk = SteppedDisk()
        writer = self.writer(disk=disk)
        for _ in range(50):
            writer.write(b"x")
        self.assertEqual(len(disk.waiting), 1)
        disk.step()
        self.assertEqual(self.writes, [50])

    def test_late_commit(self) -> None:
        """Readers have the last byte before the entry is stored: nobody waits for the medium."""
        disk = SteppedDisk()
        writer = self.writer(disk=disk)
        follower = Follower(writer.body)
        writer.write(b"all")
        finished = ensureDeferred(writer.finish())
        disk.step()
        self.assertTrue(follower.ended)
        self.assertNoResult(finished)
        self.assertEqual(self.stored, [])
        disk.drain()
        self.successResultOf(finished)
        self.assertEqual(self.stored, [b"all"])

    def test_commit_fails(self) -> None:
        """Readers have their whole body though it could not be stored, and the trouble is told."""
        writer = self.writer()

        def commit(writer: FillWriter) -> None:
            raise OSError(errno.EIO, "Input/output error")

        writer._commit = commit
        follower = Follower(writer.body)
        writer.write(b"all")
        self.finish(writer)
        self.assertEqual(follower.data, b"all")
        self.assertFalse(writer.storing)
        self.assertIn("could not be stored", self.troubles[0])

    def test_many_pieces(self) -> None:
        """More pieces than the kernel takes in one call are written all the same, and in order."""
        pieces = [b"%05d" % number for number in range(3000)]
        self.patch(os, "pwritev", lambda fd, parts, offset: os.pwrite(fd, b"".join(parts)[:777], offset))
        file = OpenFile(os.open(self.path, os.O_RDWR | os.O_CREAT))
        write_all(file.descriptor, pieces, 10)
        self.assertEqual(self.path.read_bytes(), bytes(10) + b"".join(pieces))


class WaterTests(WriterCase):
    def test_marks(self) -> None:
        """The upstream is paused when much waits for the disk, and goes on when little does."""
        disk, upstream = SteppedDisk(), Upstream()
        writer = self.writer(disk=disk)
        writer.registerProducer(upstream, True)
        sent = 0
        while not upstream.paused:
            writer.write(bytes(PIECE))
            sent += PIECE
        self.assertGreater(sent, HIGH_WATER)
        self.assertLessEqual(sent, HIGH_WATER + PIECE)
        disk.step()
        self.assertFalse(upstream.paused)
        self.assertEqual(upstream.calls, ["pause", "resume"])

    def test_bytes_after_the_pause(self) -> None:
        """An upstream that still delivers after it was paused loses nothing, and is not paused again and again."""
        disk, upstream = SteppedDisk(), Upstream()
        writer = self.writer(disk=disk)
        writer.registerProducer(upstream, True)
        for _ in range(2 * HIGH_WATER // PIECE):
            writer.write(bytes(PIECE))
        self.assertEqual(upstream.calls, ["pause"])
        finished = ensureDeferred(writer.finish())
        disk.drain()
        self.successResultOf(finished)
        self.assertEqual(len(self.stored[0]), 2 * HIGH_WATER)

    def test_pause_inside_write(self) -> None:
        """The upstream is paused from inside the very write that is too much."""
        writer = self.writer(disk=SteppedDisk())
        upstream = Upstream()
        writer.registerProducer(upstream, True)
        writer.write(bytes(HIGH_WATER))
        self.assertFalse(upstream.paused)
        writer.write(b"x")
        self.assertTrue(upstream.paused)

    def test_next_upstream(self) -> None:
        """An upstream that takes over from a broken one is paused at once if the disk is still behind."""
        disk = SteppedDisk()
        writer = self.writer(disk=disk)
        writer.registerProducer(Upstream(), True)
        writer.write(bytes(HIGH_WATER + 1))
        writer.unregisterProducer()
        upstream = Upstream()
        writer.registerProducer(upstream, True)
        self.assertTrue(upstream.paused)
        disk.drain()
        self.assertFalse(upstream.paused)

    def test_slow_reader_does_not_pause(self) -> None:
        """A reader that takes nothing does not hold up a body that is being stored."""
        writer = self.writer()
        upstream = Upstream()
        writer.registerProducer(upstream, True)
        Follower(writer.body).pause()
        for _ in range(100):
            writer.write(bytes(PIECE))
        self.assertEqual(upstream.calls, [])

    def test_memory_when_passing_through(self) -> None:
        """What is only passed through waits in memory for its reader, but never more than a MiB of it."""
        writer = self.through()
        upstream = Upstream()
        writer.registerProducer(upstream, True)
        follower = Follower(writer.body)
        follower.pause()
        most = sent = 0
        while sent < 10 * 1024 * 1024:
            while not upstream.paused:
                writer.write(bytes(PIECE))
                sent += PIECE
                most = max(most, writer.body.windowed)
            follower.resume()
            follower.pause()
        self.assertLess(most, 1024 * 1024)
        follower.resume()
        self.finish(writer)
        self.assertEqual(len(follower.data), sent)
