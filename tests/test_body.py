"""Delivery: spans of a body go to a client in order and at its pace, or the client learns that they do not."""

from __future__ import annotations

import os

from twisted.logger import Logger, formatEvent

import vault.body
from tests.store.delivery import DATA, STALL, Allowed, DeliveryCase, FakeRequest
from tests.store.fakes import InlineDisk, SteppedDisk
from vault.artifact import Head
from vault.body import PIECE, ClientGone, Delivery
from vault.errors import Truncated
from vault.store.body import OpenFile, StoredBody


class SpanTests(DeliveryCase):
    def test_whole(self) -> None:
        """The whole body, with its end given or not."""
        for stop in (None, len(DATA)):
            self.request = FakeRequest()
            self.successResultOf(self.deliver(self.stored(), (0, stop)))
            self.assertEqual(self.request.data, DATA)
            self.over()

    def test_spans(self) -> None:
        """A span has exactly its bytes."""
        for start, stop in ((0, 1), (5, 500), (1023, 1024), (1000, None), (7, 7), (1024, None)):
            self.request = FakeRequest()
            self.successResultOf(self.deliver(self.stored(), (start, stop)))
            self.assertEqual(self.request.data, DATA[start:stop])

    def test_several_parts(self) -> None:
        """Several parts come in their order, whatever order the spans are in, between their literal bytes."""
        self.successResultOf(self.deliver(self.stored(), b"<", (900, 910), b"|", (0, 5), b"|", (5, 5), b">", b"."))
        self.assertEqual(self.request.data, b"<" + DATA[900:910] + b"|" + DATA[:5] + b"|>.")

    def test_no_parts(self) -> None:
        """An empty body is over at once."""
        self.successResultOf(self.deliver(self.stored()))
        self.over()

    def test_head_goes_first(self) -> None:
        """The response's head goes out before the body's first byte is there."""
        done = self.deliver(self.growing(), (0, None))
        self.assertEqual(self.request.writes, [0])
        self.assertNoResult(done)

    def test_pieces(self) -> None:
        """A large body is read in pieces, so that no client holds much memory."""
        size = 10 * PIECE + 1
        self.path.write_bytes(bytes(size))
        body = StoredBody(Head(), size, "", OpenFile(os.open(self.path, os.O_RDONLY)), InlineDisk())
        self.successResultOf(self.deliver(body, (0, None)))
        self.assertEqual(sum(self.request.writes), size)
        self.assertLessEqual(max(self.request.writes), PIECE)


class GrowingTests(DeliveryCase):
    def test_each_byte(self) -> None:
        """A body that grows byte by byte arrives byte by byte, and ends when it is whole."""
        body = self.growing()
        done = self.deliver(body, (0, None))
        for size in range(1, len(DATA) + 1):
            body.publish(size)
            self.assertEqual(self.request.data, DATA[:size])
        self.assertNoResult(done)
        body.finish()
        self.successResultOf(done)
        self.over()

    def test_range_ends_before_the_body(self) -> None:
        """A range is over when its bytes have come, however much of the body is missing."""
        body = self.growing()
        done = self.deliver(body, (10, 20))
        body.publish(15)
        self.assertEqual(self.request.data, DATA[10:15])
        body.publish(30)
        self.successResultOf(done)
        self.assertEqual(self.request.data, DATA[10:20])

    def test_breaks_off(self) -> None:
        """A body that breaks off gives what was there, and then the failure, not an end."""
        body = self.growing()
        done = self.deliver(body, (0, None))
        body.publish(100)
        body.fail(Truncated("the upstream broke off"))
        self.failureResultOf(done, Truncated)
        self.assertEqual(self.request.data, DATA[:100])
        self.over()

    def test_window_after_file(self) -> None:
        """Bytes that are only in memory follow those in the file, and are let go when they are sent."""
        body = self.growing()
        done = self.deliver(body, (0, None))
        body.publish(100)
        body.spill(b"in ", b"memory")
        self.assertEqual(body.windowed, 0)
        body.finish()
        self.successResultOf(done)
        self.assertEqual(self.request.data, DATA[:100] + b"in memory")

    def test_bytes_are_kept_for_later_parts(self) -> None:
        """Bytes in memory are kept for a span that comes later but begins earlier."""
        body = self.growing(file=False)
        self.request.room = 1
        done = self.deliver(body, (6, 9), b"|", (0, 3))
        body.spill(b"012", b"345", b"678", b"9")
        body.finish()
        for _ in range(10):
            self.request.take(10)
        self.successResultOf(done)
        self.assertEqual(self.request.data, b"678|012")

    def test_too_late(self) -> None:
        """A client that comes when the first bytes are gone is cut off, not left waiting."""
        body = self.growing(file=False)
        body.spill(b"gone")
        body.advance()
        body.spill(b"here")
        done = self.deliver(body, (0, None))
        self.failureResultOf(done, Truncated)
        self.over()

    def test_reader_is_counted(self) -> None:
        """The body knows its reader as long as there is one."""
        body = self.growing()
        self.deliver(body, (0, 10))
        self.assertEqual(body.readers, {self.delivery})
        body.publish(10)
        self.assertEqual(body.readers, set())


class PaceTests(DeliveryCase):
    def test_paused(self) -> None:
        """A client that is full is sent no more until it has room."""
        self.request.room = 10
        body = self.growing()
        done = self.deliver(body, (0, None))
        body.publish(100)
        self.assertEqual(self.request.data, DATA[:100])
        body.publish(200)
        self.assertEqual(self.request.data, DATA[:100])
        self.request.take(95)
        self.assertEqual(self.request.data, DATA[:200])
        body.finish()
        self.request.take(1000)
        self.successResultOf(done)

    def test_paused_in_the_last_write(self) -> None:
        """A client that is full after the last byte has nevertheless been given all."""
        self.request.room = 1
        done = self.deliver(self.stored(), (0, None))
        self.request.take(10_000)
        self.successResultOf(done)
        self.assertEqual(self.request.data, DATA)

    def test_stalled(self) -> None:
        """A client that takes nothing for too long is cut off."""
        self.request.room = 1
        body = self.growing()
        done = self.deliver(body, (0, None))
        body.publish(100)
        self.clock.pump([STALL / 4] * 3)
        self.assertNoResult(done)
        self.clock.pump([STALL / 4] * 2)
        self.failureResultOf(done, ClientGone)
        self.assertEqual(body.readers, set())
        self.over()

    def test_takes_what_waits(self) -> None:
        """A client that takes of what waits in its socket is not, until it takes no more; the log tells of that."""
        waiting = 1000
        self.patch(vault.body, "unsent_bytes", lambda transport: waiting)
        logged: list[str] = []
        self.patch(Delivery, "log", Logger(observer=lambda event: logged.append(formatEvent(event))))
        self.request.room = 1
        body = self.growing()
        done = self.deliver(body, (0, None))
        body.publish(100)
        for _ in range(40):
            waiting -= 1
            self.clock.advance(STALL / 2)
        self.assertNoResult(done)
        self.assertEqual(logged, [])
        waiting += 1  # what was written meanwhile was not taken
        self.clock.pump([STALL / 8] * 7)
        self.assertNoResult(done)
        self.clock.pump([STALL / 8] * 2)
        self.failureResultOf(done, ClientGone)
        self.assertEqual(logged, ["cutting off 192.0.2.1: it took nothing for 30 s"])
        self.over()

    def test_slow_but_alive(self) -> None:
        """A client that takes a little now and then is not cut off."""
        self.request.room = 1
        body = self.growing()
        done = self.deliver(body, (0, None))
        for size in range(1, 20):
            body.publish(size)
            self.clock.advance(STALL * 0.9)
            self.request.take(1)
        self.assertNoResult(done)

    def test_upstream_is_slow(self) -> None:
        """A client is not cut off because the upstream sends nothing."""
        body = self.growing()
        done = self.deliver(body, (0, None))
        body.publish(10)
        self.clock.pump([STALL / 2] * 20)
        self.assertNoResult(done)
        body.publish(20)
        self.assertEqual(self.request.data, DATA[:20])
        body.finish()
        self.successResultOf(done)

    def test_limit_is_not_a_stall(self) -> None:
        """Nor because its own limit makes it wait."""
        done = self.deliver(self.stored(), (0, None), limit=Allowed((10, 0), (0, 10 * STALL), (5000, 0)))
        self.clock.pump([STALL / 2] * 30)
        self.successResultOf(done)
        self.assertEqual(self.request.data, DATA)


class GoneTests(DeliveryCase):
    def test_while_it_waits(self) -> None:
        """A client that leaves while it waits for bytes is not waited for any more."""
        body = self.growing()
        done = self.deliver(body, (0, None))
        self.request.producer.stopProducing()
        self.failureResultOf(done, ClientGone)
        self.assertEqual((body.readers, body._waiters), (set(), {}))
        self.over()
        body.publish(10)
        self.assertEqual(self.request.data, b"")

    def test_while_the_disk_reads(self) -> None:
        """A client that leaves while the disk reads for it is sent nothing more."""

        class Cold(OpenFile):
            def cached(self, offset: int, limit: int) -> bytes | None:
                return None

        disk = SteppedDisk()
        body = StoredBody(Head(), len(DATA), "", Cold(os.open(self.path, os.O_RDONLY)), disk)
        done = self.deliver(body, (0, None))
        self.request.producer.stopProducing()
        self.failureResultOf(done, ClientGone)
        disk.drain()
        self.assertEqual(self.request.data, b"")
        self.over()

    def test_before_it_begins(self) -> None:
        """A client that has left before the first byte is noticed at once."""
        self.request.gone = True
        self.failureResultOf(self.deliver(self.stored(), (0, None)), ClientGone)
        self.assertEqual(self.request.data, b"")
        self.over()

    def test_while_it_waits_for_its_limit(self) -> None:
        """A client that leaves while its limit makes it wait leaves nothing behind."""
        done = self.deliver(self.stored(), (0, None), limit=Allowed((0, 100.0)))
        self.request.producer.stopProducing()
        self.failureResultOf(done, ClientGone)
        self.over()

    def test_short_file(self) -> None:
        """A stored file that has become shorter cuts the client off."""
        body = self.stored()
        os.truncate(self.path, 100)
        self.failureResultOf(self.deliver(body, (0, None)), Truncated)
        self.assertEqual(self.request.data, DATA[:100])


class LimitTests(DeliveryCase):
    def test_allowance(self) -> None:
        """A limited client gets what it is allowed, waits as long as it must, and gets every byte."""
        limit = Allowed((100, 0), (0, 2.0), (200, 0), (0, 1.0), (5000, 0))
        done = self.deliver(self.stored(), (0, None), limit=limit)
        self.assertEqual(self.request.data, DATA[:100])
        self.clock.advance(1.9)
        self.assertEqual(self.request.data, DATA[:100])
        self.clock.advance(0.1)
        self.assertEqual(self.request.data, DATA[:300])
        self.clock.advance(1)
        self.successResultOf(done)
        self.assertEqual(self.request.data, DATA)
        self.assertEqual({address for address, _ in limit.asked}, {"192.0.2.1"})

    def test_more_than_asked_is_not_sent(self) -> None:
        """What was granted but not used, because the body had no more, is used for what comes next."""
        body = self.growing()
        limit = Allowed((PIECE, 0), (0, 1.0), (PIECE, 0))
        done = self.deliver(body, (0, None), limit=limit)
        body.publish(100)
        body.publish(1000)
        self.clock.advance(5)
        self.assertEqual(self.request.data, DATA[:1000])
        body.finish()
        self.successResultOf(done)
