"""FillWriter: takes an upstream's bytes, hashes and writes them off the reactor's thread, publishes them to readers.

Two water marks bound what waits in memory: above HIGH_WATER bytes the producer is paused, below LOW_WATER it goes on.
A disk that fails or fills up does not end the fill: what it has not taken, and all that follows, goes through the
body's window in memory, and the entry is not stored.
"""

from __future__ import annotations

import copy
import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from vault.artifact import Digest
from vault.errors import DigestMismatch, Stopping, Truncated
from vault.store.body import GrowingBody
from vault.store.disk import Disk, to_its_end
from vault.store.hashes import Hashes, Piece
from vault.store.index import PartialRow
from vault.urls import plain

T = TypeVar("T")

HIGH_WATER = 576 * 1024
LOW_WATER = 512 * 1024
"""Above and below which the upstream is paused and goes on: while the disk's thread has one large piece the next comes.

With more and smaller ones the two threads get in each other's way: a fast fill costs a third more of the processor.
"""

SMALL = 4096
JOINED = 64 * 1024
BATCH = 128 * 1024
"""Pieces are hashed and written together up to so much: the processor's cache still has it when it is written."""

ALIGNED = 64 * 1024
"""Batches that others follow end at multiples of it.

The kernel then holds the file in larger pieces: to write them, and to send them to clients, costs a twentieth less.
"""

TURN = 4 * 1024 * 1024
"""After so much the disk's thread is given back, so that fast fills do not keep all threads from whoever else waits."""

ROOM = 16 * 1024 * 1024
"""After so many bytes each, room is made anew for a body whose length is not known."""


@implementer(IConsumer)
class FillWriter:
    """The writing side of a GrowingBody.

    ``commit`` is called on a disk thread when the body is whole and verified; what it raises is given to ``trouble``,
    and so is a write that fails.  ``make_room(bytes)`` is asked on a disk thread: once when the disk is full, and for a
    body of unknown length, now and then.
    """

    log = Logger()

    def __init__(
        self,
        key: str,
        body: GrowingBody,
        disk: Disk,
        expected: Digest | None = None,
        start: int = 0,
        commit: Callable[[FillWriter], None] | None = None,
        make_room: Callable[[int], bool] = lambda wanted: False,
        trouble: Callable[[str, BaseException], None] = lambda what, why: None,
        limit: int | None = None,
    ) -> None:
        self.key = key
        self.body = body
        self.storing = body.file is not None and commit is not None
        self.written = start  # bytes in the file
        self.received = body.floor or start
        self.hashes = Hashes(expected)
        self.begun_at = 0.0
        self.row: PartialRow | None = None  # what the index knows of it from the beginning
        self._disk = disk
        self._commit = commit
        self._limit = limit
        self.lost = False  # the medium has lost some of what was written, as a failed sync said
        self._make_room = make_room
        self._trouble = trouble
        self._producer: IPushProducer | None = None
        self._paused = False
        # The reactor's thread puts pieces in at one end, the disk's takes them from the other: each by an atomic call.
        self._pending: deque[Piece] = deque()
        self._pending_bytes = 0
        self._taken: list[Piece] = []  # what the disk thread is working on, hashed before it is written
        self._reached = start  # how far the disk thread has come
        self._told = False
        self._held: list[bytes] = []
        self._busy = False
        self._idle: list[Deferred[None]] = []
        body.drained = self._balance
        body.resumed_at = start
        if start:
            if expected is None:
                body.publish(start)
            else:
                body.publish(max(0, start - 1))  # see _visible
            self._run(disk.run(self.hashes.read_prefix, body.file, start, disk))

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Take bytes from this push producer from now on."""
        assert streaming, "an upstream body is a push producer"
        self._producer = cast(IPushProducer, producer)
        self._paused = False
        self._balance()

    def unregisterProducer(self) -> None:
        """The producer has no more."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """The next bytes of the body."""
        self.received += len(data)
        if self.storing:
            self._append(data)
            self._pending_bytes += len(data)
            self._flush()
        else:
            if self.hashes.expected is not None:
                self.hashes.update(data)
            self._spill([data])
        self._balance()

    def _append(self, data: bytes | bytearray) -> None:
        # Tiny pieces are put together: each costs far more than its bytes.  The last one is taken out meanwhile, or the
        # disk thread might be writing what grows.
        if len(data) < SMALL:
            try:
                last = self._pending.pop()
            except IndexError:
                last = None
            if isinstance(last, bytearray) and len(last) < JOINED:
                last += data
                self._pending.append(last)
                return
            if last is not None:
                self._pending.append(last)
            data = bytearray(data)
        self._pending.append(data)

    def _spill(self, pieces: list[bytes]) -> None:
        # With a digest to check, the last piece is held back until the check, as the last byte is in the file.
        if self.hashes.expected is not None:
            pieces = self._held + pieces
            self._held = pieces[-1:]
            pieces = pieces[:-1]
        self.body.spill(*pieces)

    def _balance(self) -> None:
        producer = self._producer
        if producer is None:
            return
        waiting = self._pending_bytes + self.body.windowed
        if not self._paused and waiting > HIGH_WATER:
            self._paused = True
            producer.pauseProducing()
        elif self._paused and waiting < LOW_WATER:
            self._paused = False
            producer.resumeProducing()

    def _flush(self) -> None:
        if not self._busy and self._pending:
            self._run(self._disk.run(self._drain))

    def _drain(self) -> None:
        """On a disk thread: hash and append what there is, also what comes meanwhile: nobody need hand it on."""
        began = self._reached
        while self._reached - began < TURN:
            pieces, size = self._taken, 0
            try:
                while size < BATCH:
                    pieces.append(self._pending.popleft())
                    size += len(pieces[-1])
            except IndexError:
                if not pieces:
                    return
            size -= self._leave(pieces, size)
            self._put(pieces, self._reached)
            self._taken = []
            self._reached += size
            if not self._told:
                self._told = True
                self._disk.tell(self._progress)

    def _leave(self, pieces: list[Piece], size: int) -> int:
        """Leave what is past the last boundary for the next batch, where there is one: how many bytes that is."""
        beyond = (self._reached + size) % ALIGNED
        if beyond >= size or not self._pending:
            return 0
        left = beyond
        while left >= len(pieces[-1]):
            left -= len(pieces[-1])
            self._pending.appendleft(pieces.pop())
        if left:
            last = memoryview(pieces.pop())
            pieces.append(last[:-left])
            self._pending.appendleft(bytes(last[-left:]))
        return beyond

    def _progress(self) -> None:
        """What the disk thread has written since can be read."""
        self._told = False
        count = self._reached - self.written
        if count:
            self._pending_bytes -= count
            self.written += count
            self.body.publish(self._visible(self.written))
            self._balance()

    def _put(self, pieces: list[Piece], offset: int) -> None:
        """On a disk thread: hash and append."""
        for piece in pieces:
            self.hashes.update(piece)
        assert self.body.file is not None
        end = offset + sum(map(len, pieces))
        if self.body.length is None and end // ROOM > offset // ROOM and not self._make_room(0):
            raise OSError(errno.ENOSPC, "no room for more of a body of unknown length")
        if self._limit is not None and end > self._limit:
            raise OSError(errno.EFBIG, "it is larger than the whole cache may be (max_size)")
        if os.fstat(self.body.file.descriptor).st_size < offset:  # to write on would leave a hole that reads as zeros
            raise OSError(errno.EIO, "its partial file was shortened by somebody else")
        try:
            write_all(self.body.file.descriptor, pieces, offset)
        except OSError:
            if not self._make_room(sum(map(len, pieces))):
                raise
            write_all(self.body.file.descriptor, pieces, offset)

    def _run(self, job: Deferred[None]) -> None:
        self._busy = True

        def done(result: None) -> None:
            self._busy = False
            self._flush()  # the disk goes on before the readers are woken, so that it works while they are served
            self._progress()

        def failed(failure: object) -> None:
            self._progress()  # while it counts as busy: nothing is begun by what this may bring in
            self._busy = False
            error = getattr(failure, "value", None)
            assert isinstance(error, BaseException)
            if isinstance(error, Stopping):
                # What an earlier fill left was not read to its end.  It stays, with what has come since behind it.
                self.body.fail(Truncated(str(error)))
                self._flush()
            else:
                self._stop_storing(error)

        def after(result: None) -> None:
            if not self._busy and self._idle:
                waiting, self._idle = self._idle, []
                for deferred in waiting:
                    deferred.callback(None)
            self._balance()

        job.addCallbacks(done, failed)
        job.addBoth(after)
        job.addErrback(lambda failure: self.log.failure("a fill of {key} went wrong", failure, key=plain(self.key)))

    def _visible(self, written: int) -> int:
        # With a digest to check, the last byte is held back until the check: nobody gets a complete but wrong body.
        return written if self.hashes.expected is None else max(self.body.size, written - 1)

    def _stop_storing(self, error: BaseException) -> None:
        self.storing = False
        self._trouble(f"{plain(self.key)} is passed through, not stored", error)
        if self.hashes.expected is not None and self.hashes.broken:
            self._pending_bytes = 0
            self._pending.clear()
            self.body.fail(Truncated("the disk failed, and the body cannot be verified any more"))
            self.body.deserted()
            return
        if self.hashes.expected is not None:
            for piece in self._pending:  # the pieces at hand were hashed before they were to be written
                self.hashes.update(piece)
            if self.body.size < self.written:
                self.body.publish(self.written)
        self._pending_bytes = 0
        rest = [*self._taken, *self._pending]
        self._taken = []
        self._pending.clear()
        self._spill([bytes(piece) for piece in rest])
        if not self.body.readers:
            self.body.deserted()  # nobody reads, nothing is stored: there is no more use in it

    async def flushed(self) -> None:
        """Wait until all that was written is in the file, or has failed to be."""
        while self._busy:
            waiter: Deferred[None] = Deferred()
            self._idle.append(waiter)
            await waiter

    async def seen(self, look: Callable[[bytes], T], limit: int) -> T | None:
        """What ``look`` says, on a disk thread, of the first bytes that have come; None where they are in no file."""
        await self.flushed()
        file = self.body.file
        if file is None or not self.storing:
            return None
        return await self._disk.run(lambda: look(file.read(0, limit)))

    async def finish(self) -> None:
        """The upstream has sent everything: verify, publish the end, store.

        Raises DigestMismatch; the readers have then been told, and the caller drops the partial file.
        """
        self.unregisterProducer()
        await self.flushed()
        if self.body.failure is not None:
            raise copy.copy(self.body.failure)
        if not self.hashes.agree():
            error = DigestMismatch(f"the body does not have the digest {self.hashes.expected}")
            self.body.fail(error)
            raise error
        if self.storing:
            self.body.sha256 = self.hashes.sha256.hexdigest()
            if self.body.size < self.written:
                self.body.publish(self.written)
        if self._held:
            self.body.spill(*self._held)
        self.body.finish()
        if self.storing and self._commit is not None:
            try:
                await to_its_end(self._disk.run(self._commit, self))
            except CancelledError:
                raise
            except Exception as error:
                self.storing = False
                self._trouble(f"{plain(self.key)} could not be stored", error)

    def fail(self, reason: Truncated) -> None:
        """The body will not be whole."""
        self.unregisterProducer()
        self.body.fail(reason)


def write_all(descriptor: int, pieces: Sequence[Piece], offset: int) -> None:
    """Write all pieces at an offset; raises OSError, with what was written before it left in the file."""
    remaining = [memoryview(piece) for piece in pieces if piece]
    first = 0
    while first < len(remaining):
        count = os.pwritev(descriptor, remaining[first : first + 512], offset)
        offset += count
        while first < len(remaining) and count >= len(remaining[first]):
            count -= len(remaining[first])
            first += 1
        if count:
            remaining[first] = remaining[first][count:]
