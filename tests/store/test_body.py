"""Bodies: growing ones that readers follow, stored ones, and their files."""

from __future__ import annotations

import os
from pathlib import Path
from weakref import WeakValueDictionary

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.store.fakes import Follower, InlineDisk, SteppedDisk
from vault.artifact import Head
from vault.errors import Truncated
from vault.store.body import JUST_WRITTEN, GrowingBody, OpenFile, StoredBody

DATA = bytes(range(48))


class BodyCase(SynchronousTestCase):
    """Has a file and a clock."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"")
        self.clock = Clock()

    def file(self) -> OpenFile:
        """The file, opened."""
        return OpenFile(os.open(self.path, os.O_RDWR))

    def body(self, file: bool = True, floor: int = 0) -> GrowingBody:
        """A body that nothing has come of yet."""
        return GrowingBody(Head(), None, self.file() if file else None, InlineDisk(), self.clock, floor)

    def grow(self, body: GrowingBody, data: bytes) -> None:
        """More of the body arrives in the file."""
        assert body.file is not None
        os.pwrite(body.file.descriptor, data, body.size)
        body.publish(body.size + len(data))


class GrowingTests(BodyCase):
    def test_join_at_each_byte(self) -> None:
        """Whoever comes at whatever moment of a fill gets every byte from the first."""
        body = self.body()
        followers = [Follower(body)]
        for offset in range(len(DATA)):
            self.grow(body, DATA[offset : offset + 1])
            followers.append(Follower(body))
        body.finish()
        followers.append(Follower(body))
        self.clock.advance(1)
        self.assertEqual({follower.data for follower in followers}, {DATA})
        self.assertTrue(all(follower.ended for follower in followers))

    def test_ranges_at_each_byte(self) -> None:
        """A range is read from wherever it begins, before its bytes are there and after, and ends at its end."""
        body = self.body()
        followers = [(start, Follower(body, start, start + 5)) for start in range(40)]
        for offset in range(0, len(DATA), 3):
            self.grow(body, DATA[offset : offset + 3])
        self.clock.advance(1)
        for start, follower in followers:
            self.assertEqual(follower.data, DATA[start : start + 5])
            self.assertTrue(follower.ended)

    def test_failure_at_each_byte(self) -> None:
        """Where a fill breaks, its readers get what was there, and then hear that it is not whole."""
        for offset in range(len(DATA)):
            body = self.body()
            follower = Follower(body)
            self.grow(body, DATA[:offset])
            late = Follower(body, piece=7)
            body.fail(Truncated("the upstream broke off"))
            after = Follower(body, piece=5)
            for each in (follower, late, after):
                self.assertEqual(each.data, DATA[:offset])
                self.assertIsInstance(each.failure, Truncated)

    def test_whole_is_for_ever(self) -> None:
        """What is whole does not fail any more, and what failed does not fail otherwise."""
        body = self.body()
        body.finish()
        body.fail(Truncated("late"))
        self.assertIsNone(body.failure)
        other = self.body()
        other.fail(Truncated("first"))
        other.fail(Truncated("second"))
        self.assertEqual(str(other.failure), "first")

    def test_unknown_length(self) -> None:
        """A length that was not announced is known at the end."""
        body = self.body()
        ended = body.ended()
        self.grow(body, DATA)
        self.assertNoResult(ended)
        self.assertIsNone(body.length)
        body.finish()
        self.successResultOf(ended)
        self.assertEqual(body.length, len(DATA))

    def test_waiting_is_given_up(self) -> None:
        """A reader that stops waiting is not woken, and costs nothing."""
        body = self.body()
        waiter = body.grown(0)
        waiter.cancel()
        self.failureResultOf(waiter)
        self.assertEqual(body._waiters, {})
        self.grow(body, DATA)

    def test_a_reaction_takes_another_away(self) -> None:
        """A reader that, when woken, makes another one leave does no harm."""
        body = self.body()
        first, second = body.grown(0), body.grown(0)
        first.addCallback(lambda woken: second.cancel())
        self.grow(body, DATA)
        self.successResultOf(first)
        self.failureResultOf(second)


class WakingTests(BodyCase):
    def test_together(self) -> None:
        """Many readers who have caught up are woken together, once for several arrivals, and soon."""
        body = self.body()
        self.grow(body, b"x")
        followers = [Follower(body) for _ in range(100)]
        before = [follower.reads for follower in followers]
        for _ in range(10):
            self.grow(body, DATA)
        self.assertEqual([follower.reads for follower in followers], before)
        self.clock.advance(0.05)
        self.assertEqual({follower.reads for follower in followers}, {2})
        self.assertEqual({follower.data for follower in followers}, {b"x" + 10 * DATA})

    def test_one_is_woken_at_once(self) -> None:
        """One reader alone waits for nothing but the bytes."""
        body = self.body()
        follower = Follower(body)
        for _ in range(3):
            self.grow(body, DATA)
            self.assertEqual(len(follower.data), body.size)

    def test_first_byte_and_end_are_told_at_once(self) -> None:
        """However many wait, the first bytes and the end are not kept back."""
        body = self.body()
        followers = [Follower(body) for _ in range(100)]
        self.grow(body, DATA)
        self.assertEqual({follower.data for follower in followers}, {DATA})
        self.grow(body, DATA)
        body.finish()
        self.assertTrue(all(follower.ended and follower.data == DATA + DATA for follower in followers))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WindowTests(BodyCase):
    def test_order(self) -> None:
        """Bytes in memory follow those in the file without a gap, wherever a reader is."""
        body = self.body()
        behind = Follower(body)
        behind.pause()
        self.grow(body, DATA)
        body.spill(b"one", b"", b"two")
        ahead = Follower(body, piece=2)
        body.spill(b"three")
        behind.resume()
        body.finish()
        self.assertEqual(behind.data, DATA + b"onetwothree")
        self.assertEqual(ahead.data, DATA + b"onetwothree")

    def test_let_go(self) -> None:
        """Bytes in memory stay until the slowest reader is past them, and no longer."""
        told: list[int] = []
        body = self.body(file=False)
        body.drained = lambda: told.append(body.windowed)
        slow = Follower(body)
        slow.pause()
        quick = Follower(body)
        body.spill(b"12345678", b"90")
        self.assertEqual(quick.data, b"1234567890")
        self.assertEqual(body.windowed, 10)
        slow.leave()
        self.assertEqual(body.windowed, 0)
        self.assertEqual(told[-1], 0)

    def test_joinable(self) -> None:
        """A body that is only passed through takes new readers until its first bytes are gone."""
        body = self.body(file=False)
        self.assertTrue(body.joinable)
        first = Follower(body)
        first.pause()
        body.spill(DATA)
        self.assertTrue(body.joinable)
        first.resume()
        self.assertFalse(body.joinable)

    def test_deserted(self) -> None:
        """When the last reader leaves, and only then, it is told; leaving twice is harmless."""
        body = self.body(file=False)
        gone: list[str] = []
        body.deserted = lambda: gone.append("gone")
        one, other = Follower(body), Follower(body)
        one.leave()
        one.leave()
        self.assertEqual(gone, [])
        other.leave()
        other.leave()
        self.assertEqual(gone, ["gone"])

    def test_floor(self) -> None:
        """A range that is only passed through begins at its own first byte."""
        body = self.body(file=False, floor=1000)
        follower = Follower(body, 1000, 1006)
        self.assertFalse(body.joinable)
        body.spill(b"abc", b"defg")
        self.assertEqual(follower.data, b"abcdef")

    def test_too_late(self) -> None:
        """Bytes that were passed on and let go cannot be had, and that is said."""
        body = self.body(file=False)
        Follower(body)
        body.spill(DATA)
        self.assertRaises(Truncated, body.read, 0, 10)
        slow = Follower(body, len(DATA))
        slow.pause()
        body.spill(b"what comes next")
        for offset in (0, len(DATA) - 1):
            self.assertRaises(Truncated, body.read, offset, 10)
        self.assertEqual(body.read(len(DATA), 4), b"what")


class FileTests(BodyCase):
    def test_not_found(self) -> None:
        """When a file is closed nobody can get it any more: its descriptor may be another's at once."""
        files = WeakValueDictionary[str, OpenFile]()
        file = files["a"] = self.file()
        found: list[OpenFile | None] = []
        close = os.close

        def closing(descriptor: int) -> None:
            found.append(files.get("a"))
            close(descriptor)

        self.patch(os, "close", closing)
        self.assertIs(files.get("a"), file)
        descriptor = file.descriptor
        del file
        self.assertEqual(found, [None])
        self.assertRaises(OSError, os.fstat, descriptor)

    def test_closed_when_unused(self) -> None:
        """A file is closed when nobody holds it any more."""
        file = self.file()
        descriptor = file.descriptor
        stored = StoredBody(Head(), 0, "", file, InlineDisk())
        del file
        os.fstat(descriptor)
        del stored
        self.assertRaises(OSError, os.fstat, descriptor)

    def test_stored(self) -> None:
        """A stored entry is read from any offset, never past its length."""
        self.path.write_bytes(DATA + b"later additions")
        body = StoredBody(Head(), len(DATA), "", self.file(), InlineDisk())
        self.assertEqual(Follower(body, piece=5).data, DATA)
        self.assertEqual(Follower(body, 40).data, DATA[40:])
        self.successResultOf(body.grown(0))

    def test_waits_for_the_medium(self) -> None:
        """Bytes the kernel does not hold are read by the disk's threads, not by the one that serves everybody."""

        class Cold(OpenFile):
            def cached(self, offset: int, limit: int) -> bytes | None:
                return None

        self.path.write_bytes(DATA)
        disk = SteppedDisk()
        body = StoredBody(Head(), len(DATA), "", Cold(os.open(self.path, os.O_RDONLY)), disk)
        follower = Follower(body)
        self.assertEqual(follower.data, b"")
        disk.drain()
        self.assertEqual(follower.data, DATA)

    def test_just_written(self) -> None:
        """The kernel is not asked whether it holds what was just written; it is for what an earlier fill left."""

        class Cold(OpenFile):
            def in_memory(self, offset: int) -> bool:
                return False

        body = GrowingBody(Head(), None, Cold(os.open(self.path, os.O_RDWR)), InlineDisk(), self.clock)
        body.resumed_at = 16
        body.publish(32)
        self.assertTrue(body.ready(16, 16))
        self.assertFalse(body.ready(15, 16))
        body.publish(32 + JUST_WRITTEN)
        self.assertFalse(body.ready(31, 1))
        self.assertTrue(body.ready(32, 1))
