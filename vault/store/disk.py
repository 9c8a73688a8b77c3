"""Where blocking file operations run: a small pool of threads of the store's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")


class Disk(Protocol):
    """Runs blocking functions so that the caller does not wait."""

    def run(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call ``function(*arguments)`` elsewhere; fires with its result, on the reactor's thread."""
        ...


class ThreadedDisk:
    """A Disk of ``threads`` threads.

    A pool of its own, because name look-ups share the reactor's, and a slow disk must not hold those up.
    """

    def __init__(self, reactor: Any, threads: int = 8) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=threads, name="disk")

    def start(self) -> None:
        """Let the threads begin."""
        self._pool.start()

    def stop(self) -> None:
        """Wait for what is under way, and end the threads."""
        self._pool.stop()

    def run(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call ``function(*arguments)`` in one of the threads."""
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)
