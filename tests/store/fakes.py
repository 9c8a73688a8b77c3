"""Stand-ins for the disk's threads, the upstream and the readers, and a test case that has a store in a directory."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from vault.artifact import Digest, Head
from vault.store.partials import Partial
from vault.store.recovery import rebuild
from vault.store.store import Store
from vault.store.writer import FillWriter

T = TypeVar("T")
DATED = Head(200, (("Content-Type", "application/x-test"), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")))


class Killed(BaseException):
    """The process dies here: nothing after this is done, nothing is tidied up."""


class InlineDisk:
    """A Disk that does everything at once."""

    stopping = False

    def run(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call the function here and now."""
        try:
            return succeed(function(*arguments))
        except Exception:
            return fail(Failure())

    def tell(self, function: Callable[[], None]) -> None:
        """Call the function here and now."""
        function()


class SteppedDisk:
    """A Disk that works when it is told to: ``work`` does the next job, ``report`` tells of the oldest done one."""

    stopping = False

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self.done: list[tuple[Deferred[Any], Any]] = []

    def run(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Put the job at the end of the queue."""
        deferred: Deferred[T] = Deferred()
        self.waiting.append((deferred, function, arguments))
        return deferred

    def tell(self, function: Callable[[], None]) -> None:
        """Put it before the result of the job that is being done."""
        told: Deferred[None] = Deferred()
        told.addCallback(lambda unused: function())
        self.done.append((told, None))

    def work(self) -> None:
        """Do the oldest job; nobody hears of it yet."""
        deferred, function, arguments = self.waiting.pop(0)
        try:
            self.done.append((deferred, function(*arguments)))
        except Exception:
            self.done.append((deferred, Failure()))

    def report(self) -> None:
        """Tell what the oldest done job gave."""
        deferred, result = self.done.pop(0)
        if not deferred.called:
            deferred.callback(result)

    def step(self) -> None:
        """Do the oldest job and tell of it."""
        self.work()
        while self.done:
            self.report()

    def drain(self) -> None:
        """Step until nothing is left."""
        while self.waiting:
            self.step()


@dataclass
class MinFree:
    """So many bytes are to stay free, however large the disk is."""

    size: int = 0

    def bytes(self, total: int) -> int:
        """The size."""
        return self.size


@dataclass
class Options:
    """A ``cache`` section."""

    max_size: int = 1 << 40
    min_free: MinFree = field(default_factory=MinFree)
    dir_mode: int = 0o750
    file_mode: int = 0o640


@implementer(IPushProducer)
class Upstream:
    """A push producer that notes what it is told."""

    def __init__(self) -> None:
        self.paused = False
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        """Send no more for now."""
        self.paused = True
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        """Go on."""
        self.paused = False
        self.calls.append("resume")

    def stopProducing(self) -> None:
        """Send nothing more."""
        self.calls.append("stop")


class Follower:
    """A reader that takes what there is from ``offset`` to ``stop`` and waits for the rest; ``pause`` holds it."""

    def __init__(self, body: Any, offset: int = 0, stop: int | None = None, piece: int = 65536) -> None:
        self.offset = offset
        self.data = b""
        self.reads = 0
        self.ended = False
        self.failure: BaseException | None = None
        self._body = body
        self._stop = stop
        self._piece = piece
        self._paused = False
        body.attach(self)
        self._go()

    def pause(self) -> None:
        """Take nothing more for now."""
        self._paused = True

    def resume(self) -> None:
        """Take what has come."""
        self._paused = False
        self._go()

    def leave(self) -> None:
        """Read no more."""
        self._paused = True
        self._body.detach(self)

    def _go(self, unused: object = None) -> None:
        while not (self._paused or self.ended or self.failure):
            stop = self._body.size if self._stop is None else min(self._stop, self._body.size)
            if self.offset == self._stop or (self._body.complete and self.offset >= self._body.size):
                self.ended = True
                self._body.detach(self)
            elif self.offset < stop:
                found = self._body.read(self.offset, min(self._piece, stop - self.offset))
                if isinstance(found, Deferred):
                    found.addCallback(self._took).addCallbacks(self._go, self._failed)
                    return
                self._took(found)
            else:
                self._body.grown(self.offset).addCallbacks(self._go, self._failed)
                return

    def _took(self, data: bytes) -> None:
        assert data, "a read of bytes that are there gives at least one"
        self.reads += 1
        self.data += data
        self.offset += len(data)
        self._body.advance()

    def _failed(self, failure: Failure) -> None:
        self.failure = failure.value
        self._body.detach(self)


class StoreCase(SynchronousTestCase):
    """Has a directory, and a store in it that lives as long as the test wants."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.clock = Clock()
        self.time = 1_000_000.0
        self.disk: InlineDisk | SteppedDisk = InlineDisk()
        self.options = Options()
        self._stores: list[Store] = []
        self.addCleanup(self._release)

    def _release(self) -> None:
        for store in self._stores:
            self.die(store)
        self.flushLoggedErrors()

    def now(self) -> float:
        """POSIX seconds; each call is a little later than the one before."""
        self.time += 0.001
        return self.time

    def open(self, rebuilt: bool = True) -> Store:
        """A store on the directory, its index made again from the files where that is due."""
        store = Store(self.root, self.options, self.disk, self.clock, self.now)
        self._stores.append(store)
        store.open()
        if rebuilt and store.rebuilding:
            self.wait(rebuild(store, self.disk))
        return store

    def die(self, store: Store) -> None:
        """End a store as a killed process ends: the kernel closes what it had open, and that is all."""
        if store._index is not None:
            store._index._reader.close()
            store._index._writer.close()
        store.layout.release()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives that has nothing to wait for."""
        return self.successResultOf(ensureDeferred(work))

    def begin(
        self, store: Store, key: str, length: int | None = None, digest: Digest | None = None, head: Head = DATED,
        resume: Partial | None = None,
    ) -> FillWriter:  # fmt: skip
        """A writer of a new body."""
        return self.wait(store.create(key, head, length, digest, resume))

    def end(self, store: Store, writer: FillWriter) -> None:
        """The upstream has sent everything."""
        self.wait(writer.finish())
        self.wait(store.ended(writer, keep=False))

    def fill(self, store: Store, key: str, data: bytes, head: Head = DATED) -> FillWriter:
        """Store an entry."""
        writer = self.begin(store, key, len(data), head=head)
        writer.write(data)
        self.end(store, writer)
        return writer

    def content(self, store: Store, key: str) -> bytes | None:
        """The bytes a reader gets of a stored entry; None where there is none."""
        body = self.wait(store.find(key))
        if body is None:
            return None
        follower = Follower(body)
        assert follower.failure is None
        return follower.data

    def files(self) -> dict[str, bytes]:
        """Every file that a person would find in the cache directory, by its path, with its content."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and path.relative_to(self.root).parts[0] != ".vault"
        }

    def partial_files(self) -> list[Path]:
        """The files of unfinished fills."""
        return sorted((self.root / ".vault" / "partial").iterdir())
