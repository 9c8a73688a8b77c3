"""Kitchen: what recipes work with, over one backend's cache: whole bodies, and documents made of others once."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from vault.artifact import MADE_FROM, Artifact, Digest, Head, Headers
from vault.cache import Cache
from vault.errors import Abandoned, BrokenAnswer, Truncated, VaultError
from vault.interfaces import IBody, IKitchen
from vault.outcome import Asked, Found
from vault.sources import Sources
from vault.store.body import MemoryBody
from vault.store.disk import Disk
from vault.store.store import Store

T = TypeVar("T")

SAVING = 2.0
"""Seconds within which a kitchen that was stopped must have saved what it knew."""

PIECE = 256 * 1024
TURN = 8
"""So many pieces of a document are read before others have their turn: some 10 ms."""


@implementer(IKitchen)
class Kitchen:
    """See IKitchen.  ``workers`` computes; ``members`` are the kitchens of the backend's members by name."""

    log = Logger()

    def __init__(
        self, cache: Cache, sources: Sources, store: Store, workers: Disk, now: Callable[[], float],
        members: Mapping[str, Kitchen] | None = None,
    ) -> None:  # fmt: skip
        self.cache = cache
        self.now = now
        self._sources = sources
        self._store = store
        self._workers = workers
        self._members = members or {}
        self._under_way: dict[str, list[Deferred[Any]]] = {}
        self._behind: dict[str, Deferred[None]] = {}
        self._stopped = False
        self._before: Deferred[None] | None = None

    def of(self, member: str) -> Kitchen:
        """The kitchen of a member."""
        return self._members[member]

    @property
    def caches(self) -> list[Cache]:
        """This backend's cache and those of its members."""
        return [self.cache, *(cache for member in self._members.values() for cache in member.caches)]

    def stop(self) -> Deferred[None]:
        """End what goes on behind, and begin nothing more; fires when it has ended: some of it may have to be saved."""
        self._stopped = True
        running = list(self._behind.values())
        for one in running:
            one.cancel()
        # Who comes next waits also for the one before this one, which may still be saving.
        before = [] if self._before is None or self._before.called else [self._before]
        ended = [*before, *running, *(member.stop() for member in self._members.values())]
        return DeferredList(ended, consumeErrors=True).addCallback(lambda results: None)

    def follow(self, ended: Deferred[None]) -> None:
        """Take the place of a kitchen that was stopped, once it has ended."""
        self._before = ended

    async def ready(self) -> None:
        """Wait until the kitchen that this one takes the place of has saved what it knew."""
        if self._before is not None:
            over: Deferred[None] = Deferred()
            self._before.addBoth(lambda ended: over.callback(None))
            with contextlib.suppress(TimeoutError):
                await self.within(SAVING, over)
            self._before = None

    # -- artifacts --------------------------------------------------------------------------------------------------

    async def find(self, artifact: Artifact, asked: Asked) -> Found:
        """What to serve for a request that wants just this artifact."""
        look = self.cache.head if asked.head_only else self.cache.lookup
        found = await look(artifact, asked.no_cache, asked.stored_only)
        if asked.stored_only is not None:
            found.ahead = None  # that would ask the upstream
        return found

    async def fetch(self, artifact: Artifact, no_cache: bool = False) -> Found:
        """The artifact's body."""
        return await self.cache.lookup(artifact, no_cache)

    async def stored(self, key: str) -> IBody | None:
        """What is stored under a key."""
        return await self._store.find(key)

    async def settled(self, key: str) -> None:
        """Wait until a body that has come whole is stored."""
        transfer = self.cache.transfers.get(key)
        if transfer is not None and transfer.body is not None and transfer.body.complete:
            await transfer.gone()

    async def read(self, body: IBody, limit: int) -> bytes:
        """A whole body in memory; the body is attached to meanwhile, so that one passed through stays readable."""
        reader = _Whole()
        body.attach(reader)
        pieces: list[bytes] = []
        try:
            while True:
                await body.grown(reader.offset)
                if reader.offset >= body.size:
                    return b"".join(pieces) if len(pieces) <= TURN else await self.work(b"".join, pieces)
                if max(body.size, body.length or 0) > limit:
                    raise BrokenAnswer(f"a document of at most {limit} bytes was expected, and more came")
                piece = body.read(reader.offset, PIECE)
                data = piece if isinstance(piece, bytes) else await piece
                if not data:
                    raise Truncated("a stored file is shorter than it was")
                pieces.append(data)
                reader.offset += len(data)
                body.advance()
                if len(pieces) % TURN == 0:
                    await self.sleep(0)  # others have their turn
        finally:
            body.detach(reader)

    async def ask(self, artifact: Artifact, method: str = "HEAD", headers: Headers = ()) -> Head:
        """The head of the upstream's answer."""
        answer = await self._sources.ask(artifact, headers, method, accept=(200, 203, 304), patient=False)
        answer.discard()
        return answer.head

    def abandon(self, artifact: Artifact) -> None:
        """Give up a fetch that had no answer yet."""
        key = artifact.key
        transfer = self.cache.transfers.get(key)
        if transfer is None or transfer.artifact.urls != artifact.urls:
            return  # it is fetched from elsewhere
        if transfer.body is None and key not in self._store.beginning:
            transfer.stop(Abandoned("another upstream is asked instead"))

    async def put(self, key: str, head: Head, data: bytes) -> None:
        """Store a whole body that was read elsewhere."""
        await self._write(key, head, [data])

    async def adopt(self, key: str, digest: Digest, head: Head | None = None) -> IBody | None:
        """Give stored content this key too."""
        return await self._store.adopt_twin(key, digest, head)

    async def remove(self, key: str) -> None:
        """Remove what is stored under a key."""
        await self._store.remove(key)

    # -- documents made of others -----------------------------------------------------------------------------------

    async def make(
        self, key: str, made_from: str, build: Callable[[], Iterable[bytes]], headers: Headers = ()
    ) -> IBody:
        """The document of a key, made anew where it was made of something else."""
        known = await self._store.find(key)
        if known is not None and known.head.get(MADE_FROM) == made_from:
            return known
        # The name holds what it is made of: who wants another version is not given this one.
        return await self.once(f"make {key} {made_from}", lambda: self._make(key, made_from, build, headers))

    async def _make(self, key: str, made_from: str, build: Callable[[], Iterable[bytes]], headers: Headers) -> IBody:
        pieces = await self.work(lambda: list(build()))
        now = self.now()
        head = Head(200, (*headers, (MADE_FROM, made_from)), now, now)
        return await self._keep(key, head, pieces)

    async def _keep(self, key: str, head: Head, pieces: list[bytes]) -> IBody:
        stored = await self._store.find(key) if await self._write(key, head, pieces) else None
        if stored is None or stored.head.get(MADE_FROM) != head.get(MADE_FROM):
            return await self.work(lambda: MemoryBody(head, b"".join(pieces)))  # 200 ms for the largest
        return stored

    async def _write(self, key: str, head: Head, pieces: list[bytes]) -> bool:
        """Store a body; False where the disk does not take it."""
        while key in self._store.filling or key in self._store.beginning:
            await self._sources.sleep(0.05)  # another version is just being written
        writer = await self._store.create(key, head, sum(map(len, pieces)), None)
        try:
            for piece in pieces if writer.storing else ():
                writer.write(piece)
            if writer.storing:
                await writer.finish()
        finally:
            await self._store.ended(writer, keep=False)
        return writer.storing

    # -- work -------------------------------------------------------------------------------------------------------

    def work(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Compute on another thread."""
        return self._workers.run(function, *arguments)

    def sleep(self, seconds: float) -> Deferred[None]:
        """Fires after a while."""
        return self._sources.sleep(seconds)

    async def within(self, seconds: float, waiting: Deferred[T]) -> T:
        """What ``waiting`` gives, if it does in time."""
        late = False

        def give_up(slept: None) -> None:
            nonlocal late
            late = True
            waiting.cancel()

        timer = self.sleep(seconds).addCallbacks(give_up, lambda failure: failure.trap(CancelledError) and None)
        try:
            return await waiting
        except CancelledError:
            if late:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()

    async def in_time(self, seconds: float, begin: Callable[[], Awaitable[T]]) -> T:
        """The result of ``begin()`` if it comes in time; it goes on to its end in any case."""
        running = ensureDeferred(_awaited(begin))
        if running.called:
            return await running
        waiter: Deferred[T] = Deferred()

        def told(result: Any) -> None:
            if waiter.called and isinstance(result, Failure) and not result.check(VaultError):
                self.log.failure("what nobody waited for any more went wrong", result)
            waiter.callback(result)  # nothing happens where it was cancelled

        running.addBoth(told)
        return await self.within(seconds, waiter)

    def once(self, name: str, begin: Callable[[], Awaitable[T]]) -> Deferred[T]:
        """The result of ``begin()``, shared by all who wait under this name."""
        waiter: Deferred[T] = Deferred(lambda leaving: self._leave(name, leaving))
        waiting = self._under_way.get(name)
        if waiting is not None:
            waiting.append(waiter)
            return waiter
        self._under_way[name] = [waiter]

        def told(result: Any) -> None:
            for other in self._under_way.pop(name):
                if not other.called:  # what one does when it is told may make another leave
                    other.callback(result)

        ensureDeferred(_awaited(begin)).addBoth(told)
        return waiter

    def _leave(self, name: str, waiter: Deferred[Any]) -> None:
        waiting = self._under_way.get(name, [])
        if waiter in waiting:
            waiting.remove(waiter)

    def behind(self, name: str, begin: Callable[[], Awaitable[Any]]) -> None:
        """Do something that nobody waits for."""
        if name in self._behind or self._stopped:
            return

        async def run() -> None:
            try:
                await self._sources.sleep(0)  # so that it is in the table before it can end
                await begin()
            except CancelledError:
                pass
            except VaultError as error:
                self.log.info("{name}: {error}", name=name, error=str(error))
            except Exception:
                self.log.failure("{name} went wrong", name=name)
            finally:
                self._behind.pop(name, None)

        self._behind[name] = ensureDeferred(run())


class _Whole:
    """Reads a body from its beginning."""

    offset = 0


async def _awaited(begin: Callable[[], Awaitable[T]]) -> T:
    return await begin()
