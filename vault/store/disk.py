"""Where blocking file operations run: a small pool of threads of the store's own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

T = TypeVar("T")
Work = Callable[["_DiskThread"], None]


class Disk(Protocol):
    """Runs blocking functions so that the caller does not wait.

    ``stopping`` becomes True when what takes long is to be given up: what is run looks at it from time to time.
    """

    stopping: bool

    def run(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call ``function(*arguments)`` elsewhere; fires with its result, on the reactor's thread."""
        ...

    def tell(self, function: Callable[[], None]) -> None:
        """From what ``run`` called: have ``function`` called on the reactor's thread, before the result is there."""
        ...


class ThreadedDisk:
    """A Disk of ``threads`` threads.

    A pool of its own, because name look-ups share the reactor's, and a slow disk must not hold those up; and a plain
    one, because a fast fill hands over thousands of times a second: Twisted's pool and the standard library's, with
    their locks for each piece of work, take several times as long.
    """

    def __init__(self, reactor: Any, threads: int = 8) -> None:
        self.stopping = False
        self._reactor = reactor
        self._limit = threads
        self._backlog: deque[Work] = deque()
        self._threads: list[_DiskThread] = []  # begun when needed: a daemon's process is forked before it works
        self._idle: list[_DiskThread] = []  # the last is the next: a thread that has just run is still warm

    def stop(self, grace: float | None = None) -> None:
        """Do what has been asked for, and end the threads.

        With ``grace`` nothing more is begun, and a thread that is busy for longer (seconds) ends with the process.
        """
        if grace is not None:
            self._backlog.clear()
        for thread in self._threads:
            while self._backlog:
                thread.work.put(self._backlog.popleft())
            thread.work.put(None)
        end = None if grace is None else time.monotonic() + grace
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))

    def run(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call ``function(*arguments)`` in one of the threads."""
        result: Deferred[T] = Deferred()  # cancelled, it stays silent when the thread has done its work

        def work(thread: _DiskThread) -> None:
            try:
                found = function(*arguments)
            except BaseException:  # whatever it is, whoever waits is told of it
                self._reactor.callFromThread(self._done, thread, result.errback, Failure())
            else:
                self._reactor.callFromThread(self._done, thread, result.callback, found)

        if not self._idle and len(self._threads) < self._limit:
            thread = _DiskThread(f"disk {len(self._threads)}")
            self._threads.append(thread)
            self._idle.append(thread)
        if self._idle:
            self._idle.pop().work.put(work)
        else:
            self._backlog.append(work)
        return result

    def tell(self, function: Callable[[], None]) -> None:
        """Have the reactor's thread call ``function``."""
        self._reactor.callFromThread(function)

    def _done(self, thread: _DiskThread, fire: Callable[[Any], None], result: Any) -> None:
        if self._backlog:
            thread.work.put(self._backlog.popleft())
        else:
            self._idle.append(thread)
        fire(result)


class _DiskThread(Thread):
    """Does one piece of work after the other."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.work: SimpleQueue[Work | None] = SimpleQueue()
        self.start()

    def run(self) -> None:
        """Until there is None to do."""
        while (work := self.work.get()) is not None:
            work(self)
            del work  # what it held is not kept while there is nothing to do


async def to_its_end(job: Deferred[T]) -> T:
    """What a disk's job gives.  Its thread cannot be stopped: a cancellation is raised only when it has ended.

    For jobs that change files: nobody may take them for nobody's while a thread is still at them.
    """
    ended: list[T | Failure] = []
    waiter: Deferred[None] = Deferred()

    def keep(result: T | Failure) -> None:
        ended.append(result)
        if not waiter.called:
            waiter.callback(None)

    job.addBoth(keep)
    left: CancelledError | None = None
    while not ended:
        try:
            await waiter
        except CancelledError as error:
            left, waiter = error, Deferred()
    try:
        if left is not None:
            raise left
        result = ended.pop()
        if isinstance(result, Failure):
            result.raiseException()
        return result
    finally:
        left = None  # what is raised holds this frame: it must not hold that, nor what the job gave
        ended.clear()
