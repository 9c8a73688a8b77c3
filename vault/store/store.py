"""The Store: entries on disk, found by key, filled through a FillWriter, removed when space runs short.

``vault.store.placing`` says how an entry becomes stored, ``vault.store.space`` what goes, ``vault.store.recovery`` how
the index is made again.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from vault.artifact import ASKED, Digest, Head
from vault.errors import StoreError
from vault.paths import file_name
from vault.store.body import GrowingBody, OpenFile, StoredBody
from vault.store.checks import Checks
from vault.store.disk import Disk, to_its_end
from vault.store.held import HeldFiles
from vault.store.index import Index, PartialRow, Row
from vault.store.layout import Layout
from vault.store.opening import full, open_late, open_store, renew_index, reopen
from vault.store.partials import Partial, begin, boot_id, partial_name, remove, sync
from vault.store.placing import place
from vault.store.recovery import adopt
from vault.store.removal import forget, forget_unlinked
from vault.store.space import Options, Space
from vault.store.twins import Twins
from vault.store.unreadable import Unreadable
from vault.store.writer import FillWriter
from vault.urls import mark_of, plain

DAMAGED = ("malformed", "not a database")
"""In what SQLite says of a file that it cannot read (SQLITE_CORRUPT, SQLITE_NOTADB)."""

UNSYNCED = 16 * 1024 * 1024
YOUNG = 30.0
"""What a crash of the machine may cost a running fill: its first seconds, and this many bytes after a checkpoint.

Syncing holds up the writes to the same file, so fills that are soon over are not synced before their end.
"""


class Store:
    """The cache on disk.  ``now`` gives POSIX seconds; ``disk`` runs what blocks."""

    log = Logger()

    def __init__(self, root: Path, options: Options, disk: Disk, clock: IReactorTime, now: Callable[[], float]) -> None:
        self.options = options
        self.layout = Layout(root, options.dir_mode, options.file_mode)
        self.rebuilding = False
        self.disk = disk
        self._clock = clock
        self.now = now
        self._index: Index | None = None
        self.boot = boot_id()
        self._used: dict[str, float] = {}
        self.reading: WeakValueDictionary[str, OpenFile] = WeakValueDictionary()
        self.held = HeldFiles()
        self.beginning: dict[str, int] = {}  # in order, with the bytes that are to come
        self.filling: dict[str, FillWriter] = {}
        self.unlinked: dict[str, Row] = {}  # entries whose files went although their rows could not be removed
        self._opening = threading.Lock()
        self._places = [threading.Lock() for _ in range(64)]
        self._trouble: str | None = None
        self._damaged = False  # the index, while it was in use
        self.space = Space(self)
        self._twins = Twins(self, disk)
        self._checks = Checks(self)
        self._unreadable = Unreadable(self)

    def reconfigure(self, options: Options) -> None:
        """Take these options from now on."""
        self.options = options
        self.layout.dir_mode, self.layout.file_mode = options.dir_mode, options.file_mode

    # -- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Prepare the directory and open the index; raises StoreError.

        Where the disk is too full for that, everything is passed through until ``tidy`` can do it.
        """
        try:
            self._index = open_store(self)
            self.rebuilding = self._index.incomplete
        except StoreError as error:
            if not full(self.layout, error):
                raise
            self.report("nothing is kept until the disk has room", error)

    @property
    def index(self) -> Index:
        """The index of the opened store; raises sqlite3.OperationalError while the disk is too full to open it."""
        if self._index is None:
            raise sqlite3.OperationalError("no room on the disk for the index")
        return self._index

    async def close(self) -> None:
        """Leave everything so that the next start finds it; fills have ended before."""
        interrupted, self.rebuilding = self.rebuilding or self._damaged, False
        if self._index is None:
            return
        try:
            self.flush_used()
            if self.layout.intact() and not interrupted:
                self.layout.mark_closed()
        except sqlite3.Error as error:
            self.log.warn("the index could not be written at the end: {error}", error=error)
        self.index.close()
        self.layout.release()

    def flush_used(self) -> None:
        """Write the times of use that are kept in memory; see that none is in the future."""
        times, self._used = self._used, {}
        if times:
            try:
                self.index.used(dict(times))  # a copy: the reactor's thread may just be writing to it
            except sqlite3.Error:
                self._used = {**times, **self._used}
                raise
        self.index.bring_back(self.now())

    async def checkpoint(self) -> None:
        """Bring what running fills have written to the medium, where it has become much, and note it."""
        for key, writer in list(self.filling.items()):
            if writer.storing and self._clock.seconds() - writer.begun_at > YOUNG:
                row = self._partial_row(key)
                if row is not None and writer.written - row.durable > UNSYNCED:
                    await self.disk.run(sync, self, writer, row, writer.written)

    # -- reading ----------------------------------------------------------------------------------------------------

    async def find(self, key: str) -> StoredBody | None:
        """The entry stored under ``key``, opened; None where there is none that is whole.  Raises Stopping."""
        try:
            row = self.index.find(key)
        except (sqlite3.Error, ValueError) as error:
            self.report(f"the index could not be read for {plain(key)}", error)
            return None
        if row is None:
            return await self._adopt(key) if self.rebuilding else None
        file = self.reading.get(key)
        if file is not None and not row.describes(os.fstat(file.descriptor)):
            file = None  # a fill is just taking the file's place
        file = file or self.held.find(row)
        if file is None:
            try:
                file = OpenFile(self.layout.open(row.path))
            except OSError as error:
                await self.disk.run(self._unreadable.note, row, error)
                return None
            found = os.fstat(file.descriptor)
            # A fill that is just taking the file's place has not written its row yet.
            if not row.describes(found) and (key in self.filling or not await self._checks.passes(row, file, found)):
                return None
            self.held.keep(row, file, found)
        self.reading[key] = file
        self._used[key] = self.now()
        return StoredBody(row.head, row.length, row.sha256, file, self.disk)

    async def _adopt(self, key: str) -> StoredBody | None:
        """While the index is being rebuilt, an entry is looked for where its file would be."""
        try:
            if key in self.filling or not await self.disk.run(adopt, self, "/".join(file_name(key))):
                return None
            row = self.index.find(key)
            if row is None:
                return None
            file = OpenFile(self.layout.open(row.path))
        except (OSError, ValueError, OverflowError, sqlite3.Error):
            return None
        self.reading[key] = file
        return StoredBody(row.head, row.length, row.sha256, file, self.disk)

    async def adopt_twin(self, key: str, digest: Digest, head: Head | None = None) -> StoredBody | None:
        """Content stored under another key, made the entry of this key too; None where there is none.

        Only sha256 digests are known to the index.  ``head`` is the new entry's, else it has the other one's.
        """
        return await self._twins.adopt(key, digest, head)

    def begins(self, prefix: str) -> bool:
        """True if something is stored under a key that begins so."""
        try:
            return self.index.begins(prefix)
        except sqlite3.Error:
            return False

    async def renew(self, key: str, body: StoredBody, head: Head) -> None:
        """The upstream confirmed an entry: keep the head it sent with that."""
        body.head = head
        try:
            await self.disk.run(self.index.renew, key, body.sha256, head)
        except sqlite3.Error as error:
            self.report(f"the new head of {plain(key)} could not be written", error)

    async def remove(self, key: str) -> None:
        """Remove an entry; who reads it now reads on."""
        try:
            row = self.index.find(key)
        except (sqlite3.Error, ValueError) as error:
            self.report(f"{plain(key)} could not be removed", error)
            return
        if row is not None:
            await self.disk.run(forget, self, [row])

    def place_lock(self, path: str) -> threading.Lock:
        """Held while a file and its row change together."""
        return self._places[hash(path) % len(self._places)]

    # -- filling ----------------------------------------------------------------------------------------------------

    async def partial(self, key: str) -> Partial | None:
        """What an earlier fill of ``key`` left and can be gone on with."""
        row = self._partial_row(key)
        if row is None or key in self.filling:
            return None
        size = self.layout.partial_size(row.name) or 0
        if not self.boot or row.boot != self.boot:
            size = min(size, row.durable)  # what was not synced may be anything after a crash of the machine
        if size <= 0 or (row.length is not None and size > row.length):
            return None
        durable = size if row.boot != self.boot else row.durable
        return Partial(row.head, row.length, size, row.name, durable)

    def _partial_row(self, key: str) -> PartialRow | None:
        try:
            return self.index.partial(key)
        except (sqlite3.Error, ValueError) as error:
            self.report(f"the index could not be read for {plain(key)}", error)
            return None

    async def create(
        self, key: str, head: Head, length: int | None, digest: Digest | None, resume: Partial | None = None,
        asked: str = "",
    ) -> FillWriter:  # fmt: skip
        """A writer for a new body of ``key``, going on after ``resume`` if given; ``asked`` is the URL it comes from.

        Where the disk cannot take it the writer passes the body through in memory; its ``storing`` is then False.
        Its ``received`` says where to go on, which is 0 where ``resume`` has gone meanwhile.
        """
        name = resume.name if resume is not None else partial_name(key)
        start = 0 if resume is None else resume.size
        if length is not None and length > self.options.max_size:
            self.log.warn(
                "{key} ({size} bytes) is larger than the whole cache may be; not stored", key=plain(key), size=length
            )
            return self.pass_through(key, head, length, digest)
        durable = 0 if resume is None else resume.durable
        noted = head.with_headers({ASKED: mark_of(asked)}) if asked and resume is None else head
        row = PartialRow(key, name, noted, length, durable, self.boot, self.now())

        def commit(writer: FillWriter) -> None:
            place(self, writer, name)
            self._trouble = None
            try:
                self.space.make_room(0)
            except (OSError, sqlite3.Error) as error:
                self.report("no room could be made", error)

        self.beginning[key] = 0 if length is None else length - start
        try:
            file, start = await to_its_end(self.disk.run(begin, self, row, start))
            body = GrowingBody(head, length, file, self.disk, self._clock)
            writer = FillWriter(
                key, body, self.disk, digest, start, commit, self.space.make_room, self.report, self.options.max_size
            )
            writer.begun_at, writer.row = self._clock.seconds(), replace(row, durable=min(durable, start))
            self.filling[key] = writer
            return writer
        except (OSError, sqlite3.Error) as error:
            self.report(f"{plain(key)} is passed through, not stored", error)
            return self.pass_through(key, head, length, digest)
        finally:
            self.beginning.pop(key, None)  # not before it is filling: at no time is its partial file nobody's

    def pass_through(
        self, key: str, head: Head, length: int | None, digest: Digest | None = None, floor: int = 0
    ) -> FillWriter:
        """A writer whose body is only handed on; its first byte is the one at ``floor``."""
        return FillWriter(key, GrowingBody(head, length, None, self.disk, self._clock, floor), self.disk, digest)

    def reopen(self) -> None:
        """The cache directory was removed under a running vault: begin an empty one.  Or it could not be opened yet."""
        with self._opening:
            if self._index is None:
                self._index = open_late(self)
            elif not self.layout.intact():  # else another thread was faster
                self._index = reopen(self)

    async def ended(self, writer: FillWriter, keep: bool) -> None:
        """A fill is over; ``keep`` leaves its partial file for the next one to go on with."""
        key = writer.key
        writer.body.release()
        if self.filling.get(key) is not writer:
            writer.body.close()
            return
        keep = keep and writer.storing and not writer.body.complete
        try:
            if writer.body.complete and writer.storing:
                return
            await writer.flushed()
            row = self._partial_row(key) if keep else None
            keep = row is not None
            if row is not None:
                await self.disk.run(sync, self, writer, row, writer.written)
                keep = not writer.lost
        finally:
            del self.filling[key]
            writer.body.close()
        if not keep:
            await self.discard(key)

    async def discard(self, key: str) -> None:
        """Remove what an earlier fill left."""
        await self.disk.run(remove, self, key)

    # -- health -----------------------------------------------------------------------------------------------------

    def report(self, what: str, error: BaseException) -> None:
        """A disk operation failed: say so once, and in ``problems`` until an entry is stored again."""
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if getattr(error, "errno", None) == errno.EFBIG:
            self.log.warn("{what}: {reason}", what=what, reason=reason)  # the disk is well
            return
        self.look_for_damage(error)
        if getattr(error, "errno", None) == errno.ENOSPC and self.layout.lacking_files():
            reason = "its file system has no room for more files (inodes)"
        self._trouble = f"the cache directory {self.layout.root} fails: {reason}"
        self.log.error("{what}: {reason}", what=what, reason=reason)

    def look_for_damage(self, error: BaseException) -> None:
        """Note an error that means that the index is damaged: ``tidy`` makes it again, or else the next start."""
        if isinstance(error, sqlite3.DatabaseError) and any(words in str(error) for words in DAMAGED):
            self._damaged = True
            self.layout.condemn_index()

    def _mend_index(self) -> None:
        self._damaged = False  # first: what is reported from now on counts again
        try:
            index = renew_index(self)
        except BaseException:
            self._damaged = True
            raise
        with self._opening:
            self.rebuilding = self.rebuilding or index is not self._index
            self._index = index

    def rebuilt(self, index: Index) -> bool:
        """An index was made again from the files; False where another one has taken its place meanwhile."""
        with self._opening:
            self.rebuilding = self._index is not index
        return not self.rebuilding

    def tidy(self) -> None:
        """On a disk thread, now and then: write times of use, make room, see whether what was wrong has passed."""
        before, self._trouble = self._trouble, None
        try:
            if self._index is None or not self.layout.intact():
                self.reopen()
            elif self._damaged:
                self._mend_index()
            self.space.make_room(0)  # first: on a full disk nothing else can be written
            forget_unlinked(self)
            self.flush_used()
            self._unreadable.look()
            if before is not None and self._trouble is None:
                self._trouble = before
                self.layout.probe()
                self._trouble = None
                self.log.info("the cache directory {root} can be written again", root=str(self.layout.root))
        except (OSError, sqlite3.Error) as error:
            if before is None:
                self.report("the cache directory could not be looked after", error)
            self.look_for_damage(error)
            self._trouble = self._trouble or before

    def totals(self) -> tuple[int, int]:
        """How many entries are stored, and the bytes of their contents, each counted once; 0 where unknown."""
        try:
            return (0, 0) if self._index is None else self._index.totals()
        except sqlite3.Error:
            return 0, 0

    def problems(self) -> list[str]:
        """What keeps the store from storing, a sentence each."""
        problems = self._unreadable.problems() if self._trouble is None else [self._trouble]
        if self._index is not None and not self.layout.intact():
            problems.append(f"the cache directory {self.layout.root} has vanished")
        return problems
