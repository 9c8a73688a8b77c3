"""Suite: which generations of a suite's metadata there are, the one that is served first; kept over a restart.

A generation is one Release file (InRelease, or Release with Release.gpg) and the index files that it lists by digest.
What is served is named by one small stored document, the suite's record, so that it changes in one step, whatever
happens to the vault.  The Release files of a generation are stored under keys of its own; the ``#`` in them can come
from no client.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from twisted.internet.defer import CancelledError

from vault.artifact import Head
from vault.errors import VaultError
from vault.formats import apt_index
from vault.formats.apt_paths import by_hash, join
from vault.formats.apt_release import Listed, Release, parse
from vault.freshness import parse_date, since
from vault.interfaces import IBody, IKitchen
from vault.urls import mark_of

MAX_RELEASE = 32 * 1024 * 1024
"""Bytes of a Release file at most; those of large archives have a few hundred thousand."""

KEPT = 100
"""Generations kept at most, beside the one that is served: a day of one that is published each quarter of an hour."""

UPDATING = 120.0
"""Seconds that an update takes at most.

For so long a superseded generation is kept in any case, and it is known over the end of a connection which one the
client was given a Release file of: debootstrap has a connection for each file.
"""

ASKED_FOR = 7 * 86400.0
"""Seconds for which an index file that a client asked for counts as needed in new generations."""

IN_USE = 14 * 86400.0
"""Seconds for which a suite is kept fresh after a client asked for it."""

USED_STEP = 86400.0
"""Seconds within which it is noted once that clients use a suite, so that the record is not written each time."""

SAVE_DELAY = 0.25
"""Seconds for which what changes in the record is gathered: what a client asks for at once comes within them."""


@dataclass(eq=False)
class Generation:
    """One state of a suite.

    ``id`` is a digest of its Release files, of which ``bodies`` and ``heads`` have those there are by name; ``kind`` is
    the name of the one that was read.  ``tables`` has the index files that describe packages, key to name, noted when
    it is ``retired`` (POSIX seconds).
    """

    id: str
    kind: str
    bodies: dict[str, IBody]
    heads: dict[str, Head]
    release: Release | None = None
    retired: float | None = None
    tables: dict[str, str] = field(default_factory=dict)

    async def read(self, kitchen: IKitchen) -> Release:
        """What its Release file says; kept in memory only while it is served."""
        if self.release is not None:
            return self.release
        data = await kitchen.read(self.bodies[self.kind], MAX_RELEASE)
        return await kitchen.work(parse, data, self.kind == "InRelease")

    def age_date(self, release: Release) -> float | None:
        """When it was made, by its Date, else by Last-Modified; None where neither says."""
        modified = parse_date(self.heads[self.kind].last_modified)
        return release.date if release.date is not None else modified


class Suite:
    """A directory with Release files.  ``name`` is the backend's.

    ``asked`` has the index files that clients have asked for, with the time; ``missing`` the Release files that the
    upstream said it does not have; ``used`` is about when a client last asked for one.  ``checked`` is when the
    upstream last said what it has, ``tried`` when it was last asked (POSIX seconds), ``failure`` why it did not say.
    ``waiting`` is true while a newer generation is not whole; ``seen_since`` says since when what it wants has been
    waited for.  ``upstreams`` has the marks of those that what is served came from; it is empty where that is not
    known.
    """

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self.current: Generation | None = None
        self.kept: list[Generation] = []
        self.asked: dict[str, float] = {}
        self.missing: set[str] = set()
        self.used = 0.0
        self.upstreams: frozenset[str] = frozenset()
        self.checked = float("-inf")
        self.tried = float("-inf")
        self.failure: VaultError | None = None
        self.waiting = False
        self.refreshing = False
        self.seen_since: dict[str, float] = {}
        self.loaded = False
        self._next: tuple[Generation, list[Generation]] | None = None

    def key(self, file: str) -> str:
        """The key of a file of the suite."""
        return f"{self.name}/{join(self.path, file)}"

    @property
    def record_key(self) -> str:
        """The key of the document that says what is served."""
        return self.key("#record")

    @property
    def idle(self) -> bool:
        """True where nothing is served, and nobody is just finding out whether there is something."""
        return self.current is None and self.loaded and not self.refreshing

    def expired(self, now: float) -> bool:
        """True where clients no longer take what is served, by its ``Valid-Until``."""
        release = self.current.release if self.current is not None else None
        return release is not None and release.valid_until is not None and release.valid_until < now

    def find(self, identity: str) -> Generation | None:
        """The generation of an id, if it is kept."""
        found = [self.current, *self.kept]
        return next((one for one in found if one is not None and one.id == identity), None)

    # -- over a restart ---------------------------------------------------------------------------------------------

    async def load(self, kitchen: IKitchen) -> None:
        """Read the record, once."""
        if self.loaded:
            return
        body = await kitchen.stored(self.record_key)
        if body is not None:
            try:
                record = json.loads(await kitchen.read(body, MAX_RELEASE))
                await self._take(kitchen, record)
            except (ValueError, KeyError, TypeError, AttributeError, VaultError):
                self.current, self.kept = None, []  # as if nothing had been served yet
        self.loaded = True

    async def _take(self, kitchen: IKitchen, record: Mapping[str, Any]) -> None:
        self.asked = {str(name): float(when) for name, when in record["asked"].items()}
        self.missing = set(map(str, record["missing"]))
        self.used = float(record.get("used", kitchen.now()))  # earlier records do not say
        self.upstreams = frozenset(map(str, record.get("upstreams", ())))  # earlier records have none
        for kept in record["generations"]:
            bodies = {name: await kitchen.stored(self.key(f"{name}#{kept['id']}")) for name in kept["names"]}
            whole = {name: body for name, body in bodies.items() if body is not None}
            generation = Generation(
                kept["id"], kept["kind"], whole, {name: body.head for name, body in whole.items()},
                retired=kept["retired"], tables=dict(kept["tables"]),
            )  # fmt: skip
            if len(whole) < len(bodies):
                continue  # some of it was evicted
            if generation.retired is None:
                generation.release = await generation.read(kitchen)
                self.current = generation
            else:
                self.kept.append(generation)

    async def save(self, kitchen: IKitchen, current: Generation | None, kept: list[Generation]) -> None:
        """Write the record: from then on ``current`` is what a restarted vault serves."""
        generations = ([current] if current is not None else []) + kept
        record = {
            "generations": [
                {
                    "id": one.id,
                    "kind": one.kind,
                    "names": sorted(one.bodies),
                    "retired": one.retired,
                    "tables": one.tables,
                }
                for one in generations
            ],
            "asked": self.asked,
            "missing": sorted(self.missing),
            "used": self.used,
            "upstreams": sorted(self.upstreams),
        }
        data = json.dumps(record, separators=(",", ":")).encode()
        await kitchen.make(self.record_key, sha256(data).hexdigest(), lambda: [data])

    def save_soon(self, kitchen: IKitchen) -> None:
        """Write the record behind, with what else comes about in the next moments."""

        async def save() -> None:
            with contextlib.suppress(CancelledError):  # at the vault's end it is written at once
                await kitchen.sleep(SAVE_DELAY)
            await self.save_now(kitchen)

        kitchen.behind(f"record {self.path}", save)

    async def save_now(self, kitchen: IKitchen) -> None:
        """Write the record as all is now; cancelling does not end it."""
        current, kept = self._next or (self.current, self.kept)
        if current is None and not kept and not self.asked:
            return  # whoever asks for what is not there must not fill the disk with records of it
        try:
            await self.save(kitchen, current, kept)
        except CancelledError:
            await self.save(kitchen, current, kept)  # whoever stops the vault waits for it

    # -- where it comes from ----------------------------------------------------------------------------------------

    def moved(self, upstreams: Iterable[str]) -> bool:
        """True where what is served came from none of these: dates of another repository say nothing of this one."""
        return bool(self.upstreams) and self.upstreams.isdisjoint(map(mark_of, upstreams))

    def note_upstreams(self, kitchen: IKitchen, upstreams: Iterable[str]) -> None:
        """What is served is what these have; the record is written where that is news."""
        marks = frozenset(map(mark_of, upstreams))
        if marks != self.upstreams:
            self.upstreams = marks
            self.save_soon(kitchen)

    # -- what is served ---------------------------------------------------------------------------------------------

    def note_asked(self, kitchen: IKitchen, name: str) -> None:
        """A client asked for an index file: new generations need it too."""
        if not self.asked_lately(kitchen, name):
            self.asked[name] = kitchen.now()
            self.save_soon(kitchen)

    def asked_lately(self, kitchen: IKitchen, name: str) -> bool:
        """True where nothing need be noted if a client asks for an index file."""
        return since(self.asked.get(name, float("-inf")), kitchen.now()) <= ASKED_FOR / 8

    def note_used(self, kitchen: IKitchen) -> None:
        """A client asked for a Release file."""
        now = kitchen.now()
        if since(self.used, now) >= USED_STEP:
            self.used = now
            self.save_soon(kitchen)

    def in_use(self, now: float) -> bool:
        """True while clients use it; where the clock was set back since the last one did, that counts from now on."""
        self.used = min(self.used, now)
        return now - self.used < IN_USE

    def waited(self, kitchen: IKitchen, name: str) -> float:
        """Seconds for which an index file could not be had as new generations list it; 0 after the clock's going back.

        ``name`` may stand for something else that is waited for.
        """
        now = kitchen.now()
        self.seen_since[name] = min(self.seen_since.get(name, now), now)
        return now - self.seen_since[name]

    def give_up(self, kitchen: IKitchen, name: str) -> None:
        """New generations do not need an index file any more, until a client gets it again."""
        if self.asked.pop(name, None) is not None:
            self.save_soon(kitchen)

    def needed(self, now: float) -> list[str]:
        """The index files that clients use, by the names they have in a Release file."""
        self.asked = {name: min(when, now) for name, when in self.asked.items()}  # the clock may have been set back
        return [name for name, when in self.asked.items() if now - when < ASKED_FOR]

    def tables(self) -> dict[str, str]:
        """The index files in use that describe packages in the current generation: key to name."""
        release = self.current.release if self.current is not None else None
        if release is None:
            return {}
        return {
            self.index_key(name, release.files[name]): name
            for name in self.asked
            if name in release.files and apt_index.kind(name) in ("Packages", "Sources") and apt_index.readable(name)
        }

    def index_key(self, name: str, listed: Listed) -> str:
        """The key of an index file: its digest is in it, so that generations share what did not change."""
        digest = listed.digest
        return self.key(by_hash(name, digest.algorithm, digest.value))

    async def switch(
        self, kitchen: IKitchen, generation: Generation, generation_ttl: float, upstreams: Iterable[str]
    ) -> None:
        """Serve another generation, of these upstreams, from now on; the one before stays for a while."""
        now = kitchen.now()
        old = self.current
        kept = list(self.kept)
        if old is not None and old.id != generation.id:
            tables = self.tables()
            retired = Generation(old.id, old.kind, old.bodies, old.heads, retired=now, tables=tables)
            kept.insert(0, retired)
        gone = [one for one in kept[KEPT:] if one.id != generation.id]
        kept = [one for one in kept[:KEPT] if one.id != generation.id]
        for one in kept:
            one.retired = min(one.retired or now, now)  # later only where the clock was set back
        gone += [one for one in kept if now - (one.retired or now) >= max(generation_ttl, UPDATING)]
        kept = [one for one in kept if one not in gone]
        self._next = generation, kept
        before, self.upstreams = self.upstreams, frozenset(map(mark_of, upstreams))
        try:
            await self.save(kitchen, generation, kept)
            self.current, self.kept = generation, kept
        except BaseException:
            self.upstreams = before
            raise
        finally:
            self._next = None
        for one in gone:
            for name in one.bodies:
                await kitchen.remove(self.key(f"{name}#{one.id}"))
