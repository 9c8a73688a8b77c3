"""Bodies that readers follow: StoredBody has stopped growing, GrowingBody is being filled.

A growing body is a prefix in a file and, only where the disk cannot or must not take the rest, a short window of bytes
in memory behind it.  The window holds bytes until every attached reader is past them; it is the one place where a
reader's pace reaches the upstream.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from vault.artifact import Head
from vault.errors import Truncated
from vault.interfaces import IBody, Reader
from vault.store.disk import Disk
from vault.store.hashes import digest_of

JUST_WRITTEN = 8 * 1024 * 1024
"""So many of the bytes that a fill wrote last are still in the kernel's memory: it need not be asked for them."""

STEP = 1024 * 1024
"""Bytes of a file of which the last one tells whether all are in the kernel's memory."""

_NOWAIT = getattr(os, "RWF_NOWAIT", None)


class _Descriptor:
    """A file descriptor that is closed when nobody holds this object any more."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class OpenFile:
    """A file that is closed when nobody holds this object any more.

    It must not close the file by a ``__del__`` of its own: weak references still lead to an object while that runs, so
    that another thread could get a file by one whose descriptor has just been closed, or is another file's already.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._held = _Descriptor(descriptor)

    def read(self, offset: int, limit: int) -> bytes:
        """Bytes at an offset, waiting for the medium if need be."""
        return os.pread(self.descriptor, limit, offset)

    def cached(self, offset: int, limit: int) -> bytes | None:
        """The same without waiting: None where the kernel would have to ask the medium."""
        if _NOWAIT is None:
            return None
        buffer = bytearray(limit)
        try:
            count = os.preadv(self.descriptor, [buffer], offset, _NOWAIT)
        except BlockingIOError:
            return None
        except OSError:  # a file system that does not know the flag; those keep their files in memory
            return self.read(offset, limit)
        return bytes(memoryview(buffer)[:count])

    def in_memory(self, offset: int) -> bool:
        """True if the byte at an offset can be had without waiting for the medium."""
        return self.cached(offset, 1) is not None

    def ready(self, offset: int, count: int) -> int:
        """How many of ``count`` bytes can be had without waiting for the medium."""
        at, end = offset, offset + count
        # The medium is read in order and ahead, so the last byte of each step tells.
        while at < end and self.in_memory(min(at + STEP, end) - 1):
            at = min(at + STEP, end)
        return at - offset

    def warm(self, offset: int, limit: int) -> None:
        """Bring bytes into the kernel's memory, waiting for the medium."""
        self.read(offset, limit)


def read_file(file: OpenFile, disk: Disk, offset: int, limit: int) -> bytes | Deferred[bytes]:
    """Bytes of a file: at once where they are in memory, else when the disk has read them."""
    found = file.cached(offset, limit)
    return found if found else disk.run(file.read, offset, limit)


@implementer(IBody)
class StoredBody:
    """A stored entry, opened for reading."""

    complete = True
    joinable = True
    floor = 0

    def __init__(self, head: Head, length: int, sha256: str, file: OpenFile, disk: Disk) -> None:
        self.head = head
        self.length: int | None = length
        self.size = length
        self.on_disk = length
        self.sha256: str | None = sha256
        self.file = file
        self.descriptor: int | None = file.descriptor
        self._disk = disk

    def grown(self, offset: int) -> Deferred[None]:
        """It has grown already."""
        return succeed(None)

    def read(self, offset: int, limit: int) -> bytes | Deferred[bytes]:
        """Bytes of the file."""
        return read_file(self.file, self._disk, offset, min(limit, self.size - offset))

    def ready(self, offset: int, count: int) -> int:
        """How many of the file's bytes can be sent without waiting for the medium."""
        return self.file.ready(offset, count)

    def at_hand(self, offset: int, count: int) -> bytes | None:
        """Bytes of the file that are in memory."""
        return self.file.cached(offset, count)

    def warm(self, offset: int, count: int) -> Deferred[None]:
        """Fires when the file's bytes are in memory."""
        return self._disk.run(self.file.warm, offset, count)

    def hashed(self, algorithm: str) -> Deferred[str]:
        """The whole file's digest of another algorithm, in hexadecimal."""
        return self._disk.run(digest_of, self.file, algorithm, self._disk)

    def attach(self, reader: Reader) -> None:
        """The open file keeps the bytes; nothing else is needed."""

    def advance(self) -> None:
        """Nothing is let go."""

    def detach(self, reader: Reader) -> None:
        """Nothing was kept for the reader."""


@implementer(IBody)
class MemoryBody:
    """A short document that could not be stored."""

    complete = True
    joinable = True
    floor = on_disk = 0
    descriptor: int | None = None

    def __init__(self, head: Head, data: bytes) -> None:
        self.head = head
        self.length: int | None = len(data)
        self.size = len(data)
        self.sha256: str | None = hashlib.sha256(data).hexdigest()
        self._data = data

    def grown(self, offset: int) -> Deferred[None]:
        """It has grown already."""
        return succeed(None)

    def read(self, offset: int, limit: int) -> bytes | Deferred[bytes]:
        """Some of the bytes."""
        return self._data[offset : offset + limit]

    def ready(self, offset: int, count: int) -> int:
        """None is in a file."""
        return 0

    def at_hand(self, offset: int, count: int) -> bytes | None:
        """All of them are."""
        return self._data[offset : offset + count]

    def attach(self, reader: Reader) -> None:
        """Nothing is needed."""

    def advance(self) -> None:
        """Nothing is let go."""

    def detach(self, reader: Reader) -> None:
        """Nothing was kept for the reader."""


@implementer(IBody)
class GrowingBody:
    """A body that is being filled: FillWriter publishes, readers follow.

    ``file`` is None for a body that is only passed through.  ``length`` is the length the upstream announced, None
    while unknown.  ``drained`` is called when the window has room again, ``deserted`` when the last reader has gone.
    """

    def __init__(
        self, head: Head, length: int | None, file: OpenFile | None, disk: Disk, clock: IReactorTime, floor: int = 0
    ) -> None:
        self.head = head
        self.length = length
        self.file = file
        self.descriptor = None if file is None else file.descriptor
        self.floor = floor
        self.size = floor
        self.on_disk = 0
        self.resumed_at = 0  # what is before it was in the file when the fill began
        self.complete = False
        self.sha256: str | None = None
        self.failure: Truncated | None = None
        self.drained: Callable[[], None] = _nothing
        self.deserted: Callable[[], None] = _nothing
        self.readers: set[Reader] = set()
        self._disk = disk
        self._clock = clock
        self._waiters: dict[Deferred[None], int] = {}
        self._wake_call: IDelayedCall | None = None
        self._window: deque[bytes] = deque()
        self._window_start = floor
        self._closing = False

    @property
    def joinable(self) -> bool:
        """True while a new reader can have every byte from the first."""
        return self.floor == 0 and self._window_start <= self.on_disk and self.failure is None

    @property
    def windowed(self) -> int:
        """The bytes that wait in memory for readers."""
        return self.size - self._window_start if self._window else 0

    def publish(self, size: int) -> None:
        """The file now has ``size`` bytes that may be read."""
        first = self.size == 0
        self.size = self.on_disk = size
        self._window_start = size
        self._wake(at_once=first)

    def spill(self, *pieces: bytes) -> None:
        """Append bytes that the file does not take."""
        for piece in pieces:
            if self._window and len(piece) < 4096 and len(self._window[-1]) < 4096:
                self._window[-1] += piece  # tiny pieces each cost far more than their bytes
            else:
                self._window.append(piece)
            self.size += len(piece)
        if self.readers:
            self.advance()  # a reader that waits for what comes much later needs none of these
        self._wake(at_once=True)

    def release(self) -> None:
        """The writer has gone: nobody is to be told of readers any more, and nothing of it is held."""
        self.drained = self.deserted = _nothing

    def close(self) -> None:
        """Nothing is written any more: the file of a body that failed is closed when its last reader has gone.

        Not left to the collector of cycles: what was raised may hold this body for long, and the file its space.
        """
        self._closing = True
        if self.failure is not None and not self.readers:
            self.file, self.descriptor, self.on_disk = None, None, 0

    def finish(self) -> None:
        """The body is whole."""
        self.complete = True
        self.length = self.size
        self._wake(at_once=True)

    def fail(self, reason: Truncated) -> None:
        """The body will not be whole: readers get what is there, and then ``reason``."""
        if self.complete or self.failure is not None:
            return
        self.failure = copy.copy(reason)  # what was raised holds the frames it passed, and they hold this body
        self._wake(at_once=True)

    def grown(self, offset: int) -> Deferred[None]:
        """Fires when the byte at ``offset`` is there or the body is whole; fails with Truncated."""
        if offset < self.size or self.complete:
            return succeed(None)
        if self.failure is not None:
            return fail(copy.copy(self.failure))
        waiter: Deferred[None] = Deferred(self._forget)
        self._waiters[waiter] = offset
        return waiter

    def ended(self) -> Deferred[None]:
        """Fires when the body is whole, which is when an unknown length is known; fails with Truncated."""
        return self.grown(2**63)

    def _forget(self, waiter: Deferred[None]) -> None:
        self._waiters.pop(waiter, None)

    def _wake(self, at_once: bool = False) -> None:
        # Readers that have caught up are woken together and, when there are many, less often: each then moves one
        # large piece instead of many small ones, and the cost of a wake-up does not eat the fill's own time.
        if not self._waiters:
            return
        delay = 0.0 if at_once else min(0.05, 0.0005 * (len(self._waiters) - 2))
        if delay <= 0:
            self._wake_now()
        elif self._wake_call is None:
            self._wake_call = self._clock.callLater(delay, self._wake_now)

    def _wake_now(self) -> None:
        if self._wake_call is not None and self._wake_call.active():
            self._wake_call.cancel()
        self._wake_call = None
        for waiter, offset in list(self._waiters.items()):
            if waiter not in self._waiters:
                continue  # an earlier one's reaction took it away
            if offset < self.size or self.complete:
                del self._waiters[waiter]
                waiter.callback(None)
            elif self.failure is not None:
                del self._waiters[waiter]
                waiter.errback(copy.copy(self.failure))

    def read(self, offset: int, limit: int) -> bytes | Deferred[bytes]:
        """Bytes from the file, or from the window."""
        if offset < self.on_disk:
            assert self.file is not None
            return read_file(self.file, self._disk, offset, min(limit, self.on_disk - offset))
        start = self._window_start
        if offset < start:
            raise Truncated("these bytes were passed through and are gone")
        for piece in self._window:
            if offset < start + len(piece):
                return piece[offset - start : offset - start + limit]
            start += len(piece)
        raise Truncated("these bytes were passed through and are gone")

    def at_hand(self, offset: int, count: int) -> bytes | None:
        """Bytes of the file that are in memory; the window is for those who follow it."""
        return self.file.cached(offset, count) if self.file is not None and offset + count <= self.on_disk else None

    def ready(self, offset: int, count: int) -> int:
        """How many of the file's bytes can be sent without waiting for the medium."""
        assert self.file is not None
        just_written = offset >= max(self.resumed_at, self.on_disk - JUST_WRITTEN)
        return count if just_written else self.file.ready(offset, count)

    def warm(self, offset: int, count: int) -> Deferred[None]:
        """Fires when the file's bytes are in memory."""
        assert self.file is not None
        return self._disk.run(self.file.warm, offset, count)

    def attach(self, reader: Reader) -> None:
        """Bytes from ``reader.offset`` on stay readable for this reader."""
        self.readers.add(reader)

    def detach(self, reader: Reader) -> None:
        """The reader needs no more."""
        if reader in self.readers:
            self.readers.discard(reader)
            self.advance()
            if not self.readers:
                self.deserted()
                if self._closing:
                    self.close()

    def advance(self) -> None:
        """Let go of what every reader is past; readers call it when their offset has moved."""
        if not self._window:
            return
        needed = min((reader.offset for reader in self.readers), default=self.size)
        while self._window and self._window_start + len(self._window[0]) <= needed:
            self._window_start += len(self._window.popleft())
        self.drained()


def _nothing(*arguments: Any) -> None:
    pass
