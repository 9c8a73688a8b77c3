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
from vault.errors import DigestMismatch, Truncated
from vault.store.body import GrowingBody, OpenFile
from vault.store.writer import HIGH_WATER, LOW_WATER, FillWriter, write_all

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
        self.patch(os, "pwritev", self._pwritev)

    def _pwritev(self, descriptor: int, pieces: list[memoryview], offset: int) -> int:
        data = b"".join(pieces)[: max(0, self.room - offset)]
        if not data:
            raise OSError(errno.ENOSPC, "No space left on device")
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
        writer.write(b"one")
        writer.write(b"two")
        self.assertEqual(follower.data, b"")
        disk.work()
        self.assertEqual(follower.data, b"")
        disk.report()
        self.assertEqual(follower.data, b"one")
        disk.step()
        self.assertEqual(follower.data, b"onetwo")

    def test_pieces_are_put_together(self) -> None:
        """What arrives while the disk is busy is one write afterwards."""
        disk = SteppedDisk()
        writer = self.writer(disk=disk)
        for _ in range(50):
            writer.write(b"x")
        self.assertEqual(len(disk.waiting), 1)
        disk.step()
        disk.step()
        self.assertEqual(disk.waiting, [])
        self.assertEqual(writer.written, 50)

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
        disk.step()  # the first piece alone
        self.assertEqual(upstream.paused, sent - PIECE >= LOW_WATER)
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


class FullDiskTests(WriterCase):
    def check(self, expected: Digest | None, data: bytes, start: int, room: int) -> None:
        """Fill with room for a part; readers that joined at different offsets get exact bytes."""
        self.path.write_bytes(data[:start])
        self.stored.clear()
        self.troubles.clear()
        self.room = room
        writer = self.writer(expected, start)
        followers = [Follower(writer.body), Follower(writer.body, room), Follower(writer.body, len(data) - 3)]
        behind = Follower(writer.body, 1, piece=3)
        behind.pause()
        for offset in range(start, len(data), 7):
            writer.write(data[offset : offset + 7])
        behind.resume()
        if expected is not None:
            self.assertTrue(all(len(data) > each.offset for each in followers), "the end waits for the digest")
        self.finish(writer)
        self.assertEqual([each.data for each in followers], [data, data[room:], data[-3:]])
        self.assertEqual(behind.data, data[1:])
        self.assertEqual(self.stored, [])
        self.assertFalse(writer.storing)
        self.assertEqual(len(self.troubles), 1)
        self.assertIn("No space left", self.troubles[0])

    def test_full_at_each_byte(self) -> None:
        """A disk that fills up at whatever byte costs the entry, but no reader a byte."""
        data = bytes(range(60))
        for room in range(0, 60):
            self.check(None, data, 0, room)

    def test_full_at_each_byte_with_digest(self) -> None:
        """The same where the body's digest is known, and the last bytes still wait for the check."""
        data = bytes(range(60))
        for algorithm in ("sha256", "md5"):
            for room in range(0, 60):
                self.check(digest(data, algorithm), data, 0, room)

    def test_full_after_resume(self) -> None:
        """The same where a part was there from an earlier fill."""
        data = bytes(range(60))
        for start in (1, 7, 20):
            for room in range(start, 60, 5):
                self.check(None, data, start, room)
                self.check(digest(data), data, start, room)

    def test_full_with_more_at_hand(self) -> None:
        """What came in while the disk was failing is handed on in its order."""
        for expected in (None, digest(b"aaabbbccc")):
            self.room = 4
            disk = SteppedDisk()
            writer = self.writer(expected, disk=disk)
            follower = Follower(writer.body)
            for piece in (b"aaa", b"bbb"):
                writer.write(piece)
            disk.step()
            writer.write(b"cc")
            disk.step()
            writer.write(b"c")
            finished = ensureDeferred(writer.finish())
            disk.drain()
            self.successResultOf(finished)
            self.assertEqual(follower.data, b"aaabbbccc")
            self.assertEqual(writer._pending_bytes, 0)

    def test_room_is_made(self) -> None:
        """Where room can be made the fill goes on and is stored."""
        self.room = 10

        def make_room(wanted: int) -> bool:
            self.room = 1 << 60
            return True

        writer = self.writer(digest(bytes(range(60))), make_room=make_room)
        for number in range(60):
            writer.write(bytes([number]))
        self.finish(writer)
        self.assertEqual(self.stored, [bytes(range(60))])
        self.assertEqual(self.troubles, [])

    def test_wrong_digest_on_a_full_disk(self) -> None:
        """A wrong body is cut before its end also where it is not stored."""
        self.room = 5
        writer = self.writer(digest(b"something else"))
        follower = Follower(writer.body)
        for number in range(20):
            writer.write(bytes([number]))
        self.failureResultOf(ensureDeferred(writer.finish()), DigestMismatch)
        self.assertIsInstance(follower.failure, DigestMismatch)
        self.assertEqual(follower.data, bytes(range(19)))

    def test_upstream_follows_the_reader(self) -> None:
        """On a full disk the reader's pace becomes the upstream's, and memory stays bounded."""
        self.room = PIECE
        writer = self.writer()
        upstream = Upstream()
        writer.registerProducer(upstream, True)
        follower = Follower(writer.body)
        follower.pause()
        for _ in range(HIGH_WATER // PIECE + 2):
            writer.write(bytes(PIECE))
        self.assertTrue(upstream.paused)
        follower.resume()
        self.assertFalse(upstream.paused)

    def test_nobody_reads_on_a_full_disk(self) -> None:
        """A fill that can no longer be stored and that nobody reads is told so, rather than waiting for ever."""
        self.room = PIECE
        writer = self.writer()
        gone: list[bool] = []
        writer.body.deserted = lambda: gone.append(writer.storing)
        for _ in range(4):
            writer.write(bytes(PIECE))
        self.assertEqual(gone[-1:], [False])


class DigestTests(WriterCase):
    DATA = bytes(range(100))

    def test_last_byte_waits(self) -> None:
        """Where a digest is known, the last byte is readable only after the check."""
        for algorithm in ("sha256", "sha1", "md5", "sha512"):
            writer = self.writer(digest(self.DATA, algorithm))
            follower = Follower(writer.body)
            writer.write(self.DATA[:50])
            writer.write(self.DATA[50:])
            self.assertEqual(follower.data, self.DATA[:-1])
            self.finish(writer)
            self.assertEqual(follower.data, self.DATA)
            self.assertEqual(self.stored.pop(), self.DATA)

    def test_wrong(self) -> None:
        """A body of another digest is cut before its last byte, for everybody, and not stored."""
        for make in (self.writer, self.through):
            writer = make(digest(b"something else"))
            early = Follower(writer.body)
            for offset in range(0, 100, 10):
                writer.write(self.DATA[offset : offset + 10])
            end = Follower(writer.body, 95)
            self.failureResultOf(ensureDeferred(writer.finish()), DigestMismatch)
            for follower in (early, end):
                self.assertIsInstance(follower.failure, DigestMismatch)
                self.assertLess(follower.offset, 100)
            self.assertEqual(self.stored, [])

    def test_failed_before(self) -> None:
        """A fill that has failed cannot be finished."""
        writer = self.writer()
        writer.write(b"some")
        writer.fail(Truncated("it broke off"))
        self.failureResultOf(ensureDeferred(writer.finish()), Truncated)
        self.assertEqual(self.stored, [])


class ResumeTests(WriterCase):
    DATA = bytes(range(100))

    def test_each_byte(self) -> None:
        """A fill that goes on from any byte is stored whole, its digest taken over the old bytes too."""
        for expected in (None, digest(self.DATA), digest(self.DATA, "sha1")):
            for start in range(1, 101):
                self.path.write_bytes(self.DATA[:start])
                writer = self.writer(expected, start)
                follower = Follower(writer.body)
                if start < 100:
                    writer.write(self.DATA[start:])
                self.finish(writer)
                self.assertEqual(follower.data, self.DATA)
                self.assertEqual(self.stored.pop(), self.DATA)
                self.assertEqual(writer.body.sha256, hashlib.sha256(self.DATA).hexdigest())

    def test_old_bytes_are_wrong(self) -> None:
        """Old bytes that do not belong to the body are found out at the end."""
        self.path.write_bytes(b"x" * 50)
        writer = self.writer(digest(self.DATA), 50)
        writer.write(self.DATA[50:])
        self.failureResultOf(ensureDeferred(writer.finish()), DigestMismatch)

    def test_old_bytes_are_readable_at_once(self) -> None:
        """Readers get the old bytes before these are hashed."""
        self.path.write_bytes(self.DATA[:50])
        disk = SteppedDisk()
        writer = self.writer(disk=disk, start=50)
        self.assertEqual(Follower(writer.body).data, self.DATA[:50])
        self.assertEqual(len(disk.waiting), 1)

    def test_old_bytes_cannot_be_read(self) -> None:
        """Where the old bytes cannot be read back, no reader gets a byte at a place that is not its own."""
        for expected in (None, digest(self.DATA)):
            self.path.write_bytes(self.DATA[:50])
            disk = SteppedDisk()
            writer = self.writer(expected, 50, disk)
            whole, part = Follower(writer.body), Follower(writer.body, 49, 60)
            os.truncate(self.path, 20)  # as a failing disk would: the hash of the prefix breaks off
            for offset in range(50, 100, 10):
                writer.write(self.DATA[offset : offset + 10])
            disk.step()
            finished = ensureDeferred(writer.finish())
            finished.addErrback(lambda failure: failure.trap(Truncated))
            disk.drain()
            self.successResultOf(finished)
            self.assertEqual(whole.data, self.DATA[: len(whole.data)])
            self.assertEqual(part.data, self.DATA[49:][: len(part.data)])
            self.assertEqual(self.stored, [])
