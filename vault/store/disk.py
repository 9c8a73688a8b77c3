"""Where blocking file operations run: a small pool of threads of the store's own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Disk(Protocol):
    """Runs blocking functions so that the caller does not wait."""

    def run(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call ``function(*arguments)`` elsewhere; fires with its result, on the reactor's thread."""
        ...


class ThreadedDisk:
    """A Disk of ``threads`` threads.

    A pool of its own, because name look-ups share the reactor's, and a slow disk must not hold those up; and the
    standard library's, because handing over costs a third of what it costs in Twisted's, thousands of times a second.
    """

    def __init__(self, reactor: Any, threads: int = 8) -> None:
        self._reactor = reactor
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="disk")

    def stop(self) -> None:
        """Wait for what is under way, and end the threads."""
        self._pool.shutdown()

    def run(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call ``function(*arguments)`` in one of the threads."""
        result: Deferred[T] = Deferred()  # cancelled, it stays silent when the thread has done its work
        fire = self._reactor.callFromThread

        def work() -> None:
            try:
                fire(result.callback, function(*arguments))
            except BaseException:  # whatever it is, whoever waits is told of it
                fire(result.errback, Failure())

        self._pool.submit(work)
        return result
