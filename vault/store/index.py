"""The index: what is known about each stored file, in one SQLite database.

Start-up, eviction and listing ask it rather than the directory tree, so that they do not depend on how much is cached.
It may be lost: ``vault.store.recovery`` makes it again from the files.  Each row names its file by
size, inode and modification time, so that a row which survived a power failure its file did not, or the reverse, is
noticed when it is used.

Reads happen on the caller's thread; writes take a lock and may come from any thread.  Nobody else writes to the file,
so a row that was just read is not read again before something changes.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from vault.artifact import Head

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, path TEXT NOT NULL UNIQUE, head TEXT NOT NULL, length INTEGER NOT NULL,
    sha256 TEXT NOT NULL, inode INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_used ON entries (used);
CREATE INDEX IF NOT EXISTS entries_sha256 ON entries (sha256);
CREATE TABLE IF NOT EXISTS partials (
    key TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, head TEXT NOT NULL, length INTEGER,
    durable INTEGER NOT NULL, boot TEXT NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (
    id INTEGER PRIMARY KEY CHECK (id = 0), entries INTEGER NOT NULL, bytes INTEGER NOT NULL
);
INSERT OR IGNORE INTO totals VALUES (0, 0, 0);
CREATE TRIGGER IF NOT EXISTS count_in AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + CASE WHEN EXISTS
        (SELECT 1 FROM entries WHERE sha256 = NEW.sha256 AND key <> NEW.key) THEN 0 ELSE NEW.length END;
END;
CREATE TRIGGER IF NOT EXISTS count_out AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - CASE WHEN EXISTS
        (SELECT 1 FROM entries WHERE sha256 = OLD.sha256) THEN 0 ELSE OLD.length END;
END;
"""

_REPLACE = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_ADD = "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


STEP = 10_000
"""Rows that are brought back to the present at once."""

RECENT = 256
"""How many answers are remembered until the next change."""

DAMAGED = Head(status=0)
"""Stands for a head that cannot be read: its entry is never found, but can be removed."""


LARGEST = 2**63 - 1
"""What SQLite can keep: a file system may have dates after the year 2262, and numbers of files above this."""


def mark_of_file(found: os.stat_result) -> tuple[int, int]:
    """What tells a file from the next one of its name: its inode and its time of modification, as they can be kept."""
    return found.st_ino & LARGEST, max(-LARGEST, min(found.st_mtime_ns, LARGEST))


@dataclass(frozen=True, slots=True)
class Row:
    """A stored entry: ``path`` is relative to the cache directory, ``used`` POSIX seconds of the last use."""

    key: str
    path: str
    head: Head
    length: int
    sha256: str
    inode: int
    mtime_ns: int
    used: float

    def describes(self, found: os.stat_result) -> bool:
        """True if a file is, by its status, the one this row was written for."""
        return (found.st_size, *mark_of_file(found)) == (self.length, self.inode, self.mtime_ns)

    def of(self, found: os.stat_result) -> Row:
        """This row, written for the file of that status."""
        inode, mtime_ns = mark_of_file(found)
        return replace(self, inode=inode, mtime_ns=mtime_ns)


@dataclass(frozen=True, slots=True)
class PartialRow:
    """A fill that has not ended.

    ``durable`` bytes are known to be on the medium; what was written after them survives a killed process, but not a
    crashed machine, which the kernel's ``boot`` identifier tells apart.
    """

    key: str
    name: str
    head: Head
    length: int | None
    durable: int
    boot: str
    used: float


class Index:
    """The database file and the questions asked of it; raises sqlite3.DatabaseError where the file is not usable.

    ``fresh`` is True where there was no index, so that what is stored is not known.
    """

    incomplete = False
    """True where there may be files that it does not know."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._changes = 0
        self._find = lru_cache(RECENT)(self._read)
        self._writer = self._connect(path)
        try:
            version = self._writer.execute("PRAGMA user_version").fetchone()[0]
            self.fresh = version == 0
            if version not in (0, SCHEMA_VERSION):
                raise sqlite3.DatabaseError(f"the index has version {version}, this vault writes {SCHEMA_VERSION}")
            self._writer.executescript(SCHEMA)
            if self.fresh:
                self._writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._reader = self._connect(path)
        except BaseException:
            self._writer.close()
            raise

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        # Autocommit; several statements that belong together open their own transaction.
        connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        # NORMAL loses at most the last rows in a power failure, never the database; see the module's docstring.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA recursive_triggers = ON")  # REPLACE fires the delete trigger, which keeps the totals
        return connection

    def close(self) -> None:
        """Close both connections; the write-ahead log is folded into the database."""
        with self._lock:
            self._reader.close()
            self._writer.close()

    def find(self, key: str) -> Row | None:
        """The entry stored under ``key``."""
        return self._find(key, self._changes)

    def _read(self, key: str, changes: int) -> Row | None:
        """``find`` as of so many ``changes``, which are counted when they can be read: no old row is taken for new."""
        row = _row(self._reader.execute("SELECT * FROM entries WHERE key = ?", (key,)).fetchone())
        return None if row is None or row.head is DAMAGED else row

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """The connection to change entries by; one statement, or a transaction that is begun and left open."""
        with self._lock:
            try:
                with self._writer:
                    yield self._writer
            finally:
                self._changes += 1

    def twin(self, sha256: str, key: str) -> Row | None:
        """Another entry with the same content, for a second name to be linked to."""
        query = "SELECT * FROM entries WHERE sha256 = ? AND key <> ? LIMIT 1"
        with self._lock:
            return _row(self._writer.execute(query, (sha256, key)).fetchone())

    def begins(self, prefix: str) -> bool:
        """True if some entry's key begins so, and goes on."""
        query = "SELECT 1 FROM entries WHERE key > ? AND key < ? LIMIT 1"
        return self._reader.execute(query, (prefix, prefix + "\U0010ffff")).fetchone() is not None

    def put(self, row: Row, replace: bool = True) -> None:
        """Write an entry's row; an older row of that key or that file goes, and its partial's, or they stay."""
        values = (
            row.key, row.path, row.head.to_json(), row.length, row.sha256, row.inode, row.mtime_ns, row.used,
        )  # fmt: skip
        statement = _REPLACE if replace else _ADD
        with self._change() as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            transaction.execute(statement, values)
            if replace:
                transaction.execute("DELETE FROM partials WHERE key = ?", (row.key,))

    def renew(self, key: str, sha256: str, head: Head) -> None:
        """Replace an entry's head, as after a 304, unless it has other content meanwhile."""
        values = (head.to_json(), key, sha256)
        with self._change() as entries:
            entries.execute("UPDATE entries SET head = ? WHERE key = ? AND sha256 = ?", values)

    def touch(self, row: Row) -> None:
        """Take over the file's status, after its content was found to be what the row says."""
        values = (row.inode, row.mtime_ns, row.key)
        with self._change() as entries:
            entries.execute("UPDATE entries SET inode = ?, mtime_ns = ? WHERE key = ?", values)

    def remove(self, row: Row) -> bool:
        """Forget an entry; False where another has taken its place meanwhile."""
        statement = "DELETE FROM entries WHERE key = ? AND inode = ? AND mtime_ns = ?"
        with self._change() as entries:
            return entries.execute(statement, (row.key, row.inode, row.mtime_ns)).rowcount > 0

    def used(self, times: dict[str, float]) -> None:
        """Note when entries were last used."""
        if not times:
            return
        with self._change() as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            transaction.executemany(
                "UPDATE entries SET used = ? WHERE key = ?", [(used, key) for key, used in times.items()]
            )

    def sound(self) -> bool:
        """Look through the whole of it, as this object has it and as another one would find it: False where damaged."""
        check = "PRAGMA quick_check(1)"
        try:
            with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=rw", uri=True)) as other, self._lock:
                found = [database.execute(check).fetchone()[0] for database in (other, self._writer)]
        except sqlite3.DatabaseError:
            return False
        return found == ["ok", "ok"]

    def bring_back(self, now: float) -> None:
        """After the clock was set back: make of times of use in the future times just before ``now``, in their order.

        Else what was used before that would count as used last for as long as the clock was set back.  Some at a time.
        """
        query = "SELECT key FROM entries WHERE used > ? ORDER BY used LIMIT ?"
        with self._lock:
            keys = [key for (key,) in self._writer.execute(query, (now, STEP))]
            self._writer.execute("UPDATE partials SET used = ?1 WHERE used > ?1", (now,))
        # A microsecond is about what a number that is good for seconds since 1970 can tell apart.
        self.used({key: now - (len(keys) - place) * 1e-6 for place, key in enumerate(keys)})

    def oldest(self, limit: int, skip: int = 0) -> list[Row]:
        """The entries that were not used for longest, oldest first, without the first ``skip`` of them."""
        query = "SELECT * FROM entries ORDER BY used LIMIT ? OFFSET ?"
        with self._lock:
            rows = self._writer.execute(query, (limit, skip)).fetchall()
        return [row for row in map(_row, rows) if row is not None]

    def names(self, sha256: str) -> int:
        """How many entries have this content."""
        with self._lock:
            found = self._writer.execute("SELECT COUNT(*) FROM entries WHERE sha256 = ?", (sha256,)).fetchone()
        return int(found[0])

    def content_of(self, key: str) -> tuple[str, int] | None:
        """The sha256 and the length of an entry, for any thread."""
        with self._lock:
            found = self._writer.execute("SELECT sha256, length FROM entries WHERE key = ?", (key,)).fetchone()
        return None if found is None else (str(found[0]), int(found[1]))

    def path_of(self, key: str) -> str | None:
        """Where the entry of a key is stored."""
        with self._lock:
            found = self._writer.execute("SELECT path FROM entries WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def has_path(self, path: str) -> bool:
        """True if some entry's file is ``path``."""
        with self._lock:
            return self._writer.execute("SELECT 1 FROM entries WHERE path = ?", (path,)).fetchone() is not None

    def totals(self) -> tuple[int, int]:
        """How many entries there are, and the bytes of their contents, each counted once."""
        with self._lock:
            count, size = self._writer.execute("SELECT entries, bytes FROM totals").fetchone()
        return int(count), int(size)

    def put_partial(self, row: PartialRow) -> None:
        """Note a fill before its first byte, or how much of it is on the medium."""
        values = (row.key, row.name, row.head.to_json(), row.length, row.durable, row.boot, row.used)
        with self._lock:
            self._writer.execute("INSERT OR REPLACE INTO partials VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def partial(self, key: str) -> PartialRow | None:
        """The unfinished fill of ``key``."""
        row = _partial(self._reader.execute("SELECT * FROM partials WHERE key = ?", (key,)).fetchone())
        return None if row is None or row.head is DAMAGED else row

    def partial_name(self, key: str) -> str | None:
        """The file of an unfinished fill, for any thread."""
        with self._lock:
            found = self._writer.execute("SELECT name FROM partials WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def partials(self) -> list[PartialRow]:
        """All unfinished fills, the longest unused first."""
        with self._lock:
            rows = self._writer.execute("SELECT * FROM partials ORDER BY used").fetchall()
        return [row for row in map(_partial, rows) if row is not None]

    def remove_partial(self, key: str) -> None:
        """Forget an unfinished fill."""
        with self._lock:
            self._writer.execute("DELETE FROM partials WHERE key = ?", (key,))


@lru_cache(256)  # what is asked for often is read again and again; it is frozen
def _head(text: str) -> Head:
    try:
        return Head.from_json(text)
    except ValueError:
        return DAMAGED


def _row(found: tuple[str, str, str, int, str, int, int, float] | None) -> Row | None:
    if found is None:
        return None
    key, path, head, length, sha256, inode, mtime_ns, used = found
    return Row(key, path, _head(head), length, sha256, inode, mtime_ns, used)


def _partial(found: tuple[str, str, str, int | None, int, str, float] | None) -> PartialRow | None:
    if found is None:
        return None
    key, name, head, length, durable, boot, used = found
    return PartialRow(key, name, _head(head), length, durable, boot, used)
