"""What the index files in use say of packages and sources, found by a few reads each; none is held in memory."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import NamedTuple

from twisted.logger import Logger

from vault.artifact import Digest
from vault.backends._apt_fetch import END
from vault.backends._apt_suite import Suite
from vault.formats import apt_index, table
from vault.formats.apt_paths import relative, roots
from vault.interfaces import IBody, IKitchen

FORM = "1"
"""The version of the tables' form; tables of another are made again."""

PIECE = 256 * 1024
PATIENCE = 3.0
"""Seconds that a package waits for the index file that describes it to be read."""

REMEMBERED = 4096
OPEN = 256
"""Tables kept open: four suites with four components for four architectures have 64, all asked for each file."""


class Described(NamedTuple):
    """What an index file says of a file: bytes and digest."""

    size: int
    digest: Digest


class Packages:
    """The tables of one backend.  ``suites`` are those that are known."""

    log = Logger()

    def __init__(self, suites: Callable[[], Iterable[Suite]]) -> None:
        self._suites = suites
        self._open: OrderedDict[str, IBody] = OrderedDict()
        self._answers: OrderedDict[str, tuple[Described, ...]] = OrderedDict()
        self._changes = 0
        self._read: set[str] = set()
        self._coming: dict[str, IBody] = {}

    def changed(self) -> None:
        """Another generation is served, or a table was made: what was found may not be so any more."""
        self._answers.clear()
        self._changes += 1

    def describe(self, kitchen: IKitchen, name: str, key: str, body: IBody) -> None:
        """An index file has come, or is coming: read it behind, once."""
        if key in self._open or key in self._coming or apt_index.kind(name) is None or not apt_index.readable(name):
            return
        self._coming[key] = body

        async def read() -> None:
            try:
                await kitchen.once(f"read {key}", lambda: self._table(kitchen, name, key, body))
            finally:
                del self._coming[key]

        kitchen.behind(f"read {key}", read)

    async def _table(self, kitchen: IKitchen, name: str, key: str, body: IBody) -> IBody | None:
        await body.grown(END)
        if body.descriptor is None or body.sha256 is None or body.on_disk < body.size:
            return None  # it went past the store
        try:
            made = await kitchen.make(
                f"{key}#files", f"{body.sha256} {FORM}", lambda: table.build(apt_index.entries(name, pieces(body)))
            )
        except ValueError as error:
            self.log.warn("{key} cannot be read: {error}", key=key, error=str(error))
            return None
        if key not in self._read:  # one that is opened again says what it said before
            self.changed()
            if len(self._read) >= REMEMBERED:
                self._read = set(self._open)
            self._read.add(key)
        self._open[key] = made
        while len(self._open) > OPEN:
            self._open.popitem(last=False)
        return made

    async def _opened(self, kitchen: IKitchen, name: str, key: str) -> IBody | None:
        """The table of the index file stored under ``key``; None where it is not there or takes too long."""
        known = self._open.get(key)
        if known is not None:
            self._open.move_to_end(key)
            return known
        body = self._coming.get(key) or await kitchen.stored(key)
        if body is None:
            return None
        try:
            made = kitchen.once(f"read {key}", lambda: self._table(kitchen, name, key, body))
            return await kitchen.within(PATIENCE, made)
        except TimeoutError:
            return None

    async def look_up(self, kitchen: IKitchen, name: str, key: str, paths: Iterable[str]) -> Described | None:
        """What one index file, stored under ``key``, says of a file by one of its paths."""
        opened = await self._opened(kitchen, name, key)
        for path in paths if opened is not None else ():
            assert opened is not None
            value = await table.look_up(opened, path)
            if value is not None:
                return Described(*apt_index.described(value))
        return None

    async def find(self, kitchen: IKitchen, path: str) -> tuple[Described, ...]:
        """What the generations served say of a file, newest first; else what one kept says; nothing if none does."""
        known = self._answers.get(path)
        if known is not None:
            self._answers.move_to_end(path)
            return known
        changes = self._changes
        suites = sorted(self._suites(), key=_date, reverse=True)
        served = [(suite.path, suite.tables()) for suite in suites]
        kept = [(suite.path, one.tables) for suite in suites for one in suite.kept]
        answer: tuple[Described, ...] = ()
        for tables in (served, kept):
            answer = answer or tuple(dict.fromkeys([found async for found in self._said(kitchen, path, tables)]))
        if changes == self._changes:
            self._answers[path] = answer
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        return answer

    async def _said(
        self, kitchen: IKitchen, path: str, tables: Iterable[tuple[str, dict[str, str]]]
    ) -> AsyncIterator[Described]:
        for suite, keys in tables:
            paths = [inner for root in roots(suite) if (inner := relative(path, root))]
            for key, name in keys.items() if paths else ():
                found = await self.look_up(kitchen, name, key, paths)
                if found is not None:
                    yield found


def pieces(body: IBody) -> Iterator[bytes]:
    """A file's content, read on a thread that may wait."""
    offset = 0
    assert body.descriptor is not None
    while data := os.pread(body.descriptor, PIECE, offset):
        yield data
        offset += len(data)


def _date(suite: Suite) -> float:
    release = suite.current.release if suite.current is not None else None
    return (release.date if release is not None else None) or 0.0
