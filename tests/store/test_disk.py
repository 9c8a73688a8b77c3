"""ThreadedDisk: blocking work leaves the reactor's thread and comes back to it."""

from __future__ import annotations

import threading
import time

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.trial.unittest import TestCase

from vault.store.disk import ThreadedDisk


class ThreadedDiskTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.disk = ThreadedDisk(reactor, threads=2)
        self.addCleanup(self.disk.stop)

    async def test_elsewhere_and_back(self) -> None:
        """Work is done in another thread, and its result told in this one."""
        told: list[int] = []
        work = self.disk.run(threading.get_ident)
        work.addCallback(lambda ident: told.append(threading.get_ident()) or ident)
        self.assertNotEqual(await work, threading.get_ident())
        self.assertEqual(told, [threading.get_ident()])

    async def test_failure(self) -> None:
        """What the work raises is told as it is."""
        with self.assertRaises(ZeroDivisionError):
            await self.disk.run(divmod, 1, 0)

    async def test_before_the_start(self) -> None:
        """Work that is given before the threads run is done when they do."""
        work = self.disk.run(divmod, 7, 3)
        self.assertEqual(await work, (2, 1))

    async def test_not_waited_for(self) -> None:
        """Who no longer waits for a result is not told of it."""
        release = threading.Event()
        work = self.disk.run(release.wait, 10)
        work.cancel()
        release.set()
        with self.assertRaises(CancelledError):
            await work

    async def test_more_than_threads(self) -> None:
        """What no thread is free for waits for one, and is done in its turn."""
        self.assertEqual(await gatherResults([self.disk.run(abs, -n) for n in range(10)]), list(range(10)))

    async def test_same_thread(self) -> None:
        """One thing after the other is done by one thread."""
        await gatherResults([self.disk.run(threading.get_ident) for _ in range(2)])
        self.assertEqual(len({await self.disk.run(threading.get_ident) for _ in range(10)}), 1)

    def test_stop(self) -> None:
        """Who stops the disk waits for all that was asked of it."""
        disk = ThreadedDisk(reactor, threads=1)
        release = threading.Event()
        done: list[int] = []
        disk.run(release.wait, 10)
        for number in range(5):
            disk.run(done.append, number)
        release.set()
        disk.stop()
        self.assertEqual(done, list(range(5)))

    def test_stop_busy(self) -> None:
        """Who stops it with a grace does not wait longer for what is being done, and nothing more is begun."""
        disk = ThreadedDisk(reactor, threads=1)
        release = threading.Event()
        done: list[int] = []
        disk.run(release.wait, 10)
        disk.run(done.append, 1)
        began = time.monotonic()
        disk.stop(grace=0.05)
        self.assertLess(time.monotonic() - began, 5)
        release.set()
        disk.stop()
        self.assertEqual(done, [])
