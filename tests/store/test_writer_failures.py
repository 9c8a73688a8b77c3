"""FillWriter when the disk is full, the digest is wrong, or a fill goes on where an earlier one stopped."""

from __future__ import annotations

import errno
import hashlib
import os

from twisted.internet.defer import ensureDeferred

from tests.store.fakes import Follower, SteppedDisk, Upstream
from tests.store.test_writer import PIECE, WriterCase, digest
from vault.artifact import Digest
from vault.errors import DigestMismatch, Truncated
from vault.store.writer import BATCH, HIGH_WATER


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
        for room in range(60):
            self.check(None, data, 0, room)

    def test_full_at_each_byte_with_digest(self) -> None:
        """The same where the body's digest is known, and the last bytes still wait for the check."""
        data = bytes(range(60))
        for algorithm in ("sha256", "md5"):
            for room in range(60):
                self.check(digest(data, algorithm), data, 0, room)

    def test_full_in_large_pieces(self) -> None:
        """The same where much waits for the disk, which writes it in other pieces than it came in."""
        data = os.urandom(8 * 95_232)
        for expected, size in ((None, 95_232), (digest(data), 16_300), (digest(data, "md5"), 95_232)):
            for room in range(0, len(data), 61_003):
                self.room = room
                disk = SteppedDisk()
                writer = self.writer(expected, disk=disk)
                follower = Follower(writer.body)
                for offset in range(0, len(data), size):
                    writer.write(data[offset : offset + size])
                disk.drain()
                self.finish(writer)
                self.assertEqual(bytes(follower.data), data)
                self.assertEqual(self.stored, [])

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
            writer.write(b"aaa")
            disk.step()
            writer.write(b"bbb")
            disk.work()  # it fails, and nobody has heard of it
            writer.write(b"cc")
            while disk.done:
                disk.report()
            writer.write(b"c")
            finished = ensureDeferred(writer.finish())
            disk.drain()
            self.successResultOf(finished)
            self.assertEqual(follower.data, b"aaabbbccc")
            self.assertEqual(writer._pending_bytes, 0)

    def test_full_with_more_at_once(self) -> None:
        """Nor is anything lost or hashed twice where the upstream goes on while the failure is being told."""
        data = bytes(number % 251 for number in range(10 * BATCH))
        self.room = 4 * BATCH
        disk, upstream = SteppedDisk(), Upstream()
        writer = self.writer(digest(data), disk=disk)
        follower = Follower(writer.body)
        sent = 0

        def send() -> None:
            nonlocal sent
            upstream.paused = False
            while not upstream.paused and sent < len(data):
                sent += BATCH
                writer.write(data[sent - BATCH : sent])

        upstream.resumeProducing = send  # type: ignore[method-assign]  # one that has bytes at hand
        writer.registerProducer(upstream, True)
        send()
        disk.step()
        finished = ensureDeferred(writer.finish())
        disk.drain()
        self.successResultOf(finished)
        self.assertEqual(sent, len(data))
        self.assertTrue(follower.data == data)

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

    def test_all_old_bytes_cannot_be_read(self) -> None:
        """Where all bytes were there but cannot be checked, no reader gets the last one."""
        self.path.write_bytes(self.DATA)
        disk = SteppedDisk()
        writer = self.writer(digest(self.DATA), len(self.DATA), disk)
        follower = Follower(writer.body, 0, len(self.DATA))
        writer.hashes.broken = True
        disk.waiting = [(deferred, self.unreadable, arguments) for deferred, _, arguments in disk.waiting]
        finished = ensureDeferred(writer.finish())
        disk.drain()
        self.failureResultOf(finished, Truncated)
        self.assertLess(len(follower.data), len(self.DATA))
        self.assertIsInstance(follower.failure, Truncated)

    def unreadable(self, *arguments: object) -> None:
        """What a failing disk answers."""
        raise OSError(errno.EIO, "Input/output error")
