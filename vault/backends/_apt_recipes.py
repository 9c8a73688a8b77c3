"""What requests are answered with: Release files, index files by name or digest, packages, patches, other files."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from vault.artifact import Digest, Head
from vault.backends._apt_fetch import END, PATIENT_HOLD, Hold, fetch, fetch_index
from vault.backends._apt_freshness import REST, freshen, refresh_behind
from vault.backends._apt_packages import Described
from vault.backends._apt_refresh import Torn, pair_of
from vault.backends._apt_suite import UPDATING, Generation, Suite
from vault.errors import DigestMismatch, Missing, OtherVersion, Truncated, Unavailable, VaultError
from vault.formats.apt_paths import join, relative
from vault.formats.apt_release import Release, named
from vault.freshness import parse_date, since
from vault.interfaces import IKitchen, IRecipe
from vault.outcome import Asked, Found, How

if TYPE_CHECKING:
    from vault.backends.apt import AptBackend

FILE_TTL = 7 * 86400.0
"""Seconds after which a file that no index file describes is asked for again."""

HANDED = 600.0
"""Seconds within which a client that asks again for a file which no index file describes wants another one."""


def given(backend: AptBackend, kitchen: IKitchen, notes: dict[str, Any], suite: Suite) -> Generation | None:
    """The generation that the client was given the Release file of, while it is kept: this connection, else before."""
    identity = notes.get(f"apt {suite.key('')}")
    if identity is not None:
        return suite.find(identity)
    shown, client = backend.shown(kitchen), notes.get("client")
    generations = [suite.current, *suite.kept] if client is not None else []
    return next((one for one in generations if one and shown.get(f"{client} {suite.key('')} {one.id}")), None)


def note_given(backend: AptBackend, kitchen: IKitchen, notes: dict[str, Any], suite: Suite, identity: str) -> None:
    """The client is given a Release file of this generation."""
    notes[f"apt {suite.key('')}"] = identity
    client = notes.get("client")
    if client is not None:
        backend.shown(kitchen).note(f"{client} {suite.key('')} {identity}", UPDATING)


@implementer(IRecipe)
@dataclass(frozen=True)
class ReleaseRecipe:
    """InRelease, Release or Release.gpg of a suite."""

    backend: AptBackend
    directory: str
    name: str

    async def find(self, kitchen: IKitchen, asked: Asked) -> Found:
        """That of the generation which is served; of the same one for each connection."""
        suite = await self.backend.suite(kitchen, self.directory)
        suite.note_used(kitchen)
        generation = given(self.backend, kitchen, asked.notes, suite) if self.name == "Release.gpg" else None
        how, detail = How.HIT, None
        if generation is None or self.name not in generation.bodies:
            try:
                how, detail = await freshen(self.backend, kitchen, suite, asked.no_cache)
            except Missing:
                pass
            except VaultError:
                if self.name not in suite.missing:
                    raise
            generation = suite.current
        if generation is None or (self.name == "InRelease" and generation.kind == "Release"):
            raise Missing(f"{self.name} is not there")
        if self.name not in generation.bodies and generation.kind == "InRelease":
            await kitchen.once(f"pair {suite.path}", lambda: pair_of(self.backend, kitchen, suite, generation))
        body = generation.bodies.get(self.name)
        if body is None:
            raise Missing(f"{self.name} is not there")
        await kitchen.stored(suite.key(f"{self.name}#{generation.id}"))  # it is in use
        note_given(self.backend, kitchen, asked.notes, suite, generation.id)
        head = self._head(suite, generation)
        left = self.backend.ttl - since(suite.checked, kitchen.now())
        ttl = left if math.isfinite(left) else None  # not checked yet since a restart, or nobody knows when
        return Found(body, how, head=head, detail=detail, ttl=ttl, fwd=_forwarded(how), exact_date=True)

    def _head(self, suite: Suite, generation: Generation) -> Head:
        """Without its date where that would tell a client that what it has from before is newer, or the same."""
        head = generation.heads[self.name]
        before = max((_time(one.heads.get(self.name)) for one in suite.kept if one is not generation), default=0)
        return head.with_headers({"Last-Modified": None}) if _time(head) <= before else head


def _time(head: Head | None) -> int:
    return parse_date(head.last_modified if head is not None else None) or 0


def _forwarded(how: How) -> str | None:
    return {How.MISS: "uri-miss", How.REVALIDATED: "stale"}.get(how)


@implementer(IRecipe)
@dataclass(frozen=True)
class IndexRecipe:
    """An index file by its plain name."""

    backend: AptBackend
    path: str

    async def find(self, kitchen: IKitchen, asked: Asked) -> Found:
        """As the generation lists it that the client has."""
        suite = await self.backend.suite_of(kitchen, self.path)
        if suite.current is None and (suite.failure is None or since(suite.tried, kitchen.now()) >= REST):
            try:
                await freshen(self.backend, kitchen, suite, False)
            except Torn:
                raise
            except VaultError:
                pass  # some repositories have no Release files, and what is kept of them is served as well
        generation = given(self.backend, kitchen, asked.notes, suite) or suite.current
        name = relative(self.path, suite.path)
        release = await generation.read(kitchen) if generation is not None else None
        if name is None or release is None or name not in release.files:
            found = await kitchen.find(self.backend.artifact(self.path, max_age=self.backend.ttl), asked)
            if generation is None and name is not None and found.how is not How.BYPASS and not asked.head_only:
                found.body.grown(END).addCallbacks(lambda grown: suite.note_asked(kitchen, name), lambda failure: None)
            return found
        try:
            return await _asked_for(self.backend, kitchen, suite, release, name)
        except (OtherVersion, Truncated) as error:
            refresh_behind(self.backend, kitchen, suite)
            raise Unavailable(f"{error}; the upstream may just be publishing", 5.0) from error


async def _asked_for(backend: AptBackend, kitchen: IKitchen, suite: Suite, release: Release, name: str) -> Found:
    """An index file for a client: once it was had whole, new generations need it too."""
    if suite.asked_lately(kitchen, name):
        return await fetch_index(backend, kitchen, suite, release, name)
    hold, whole = Hold(PATIENT_HOLD), Deferred[bool]()
    kitchen.behind(f"note {suite.path} {name}", lambda: _note(kitchen, suite, name, hold, whole))
    try:
        found = await fetch_index(backend, kitchen, suite, release, name, hold)
    except BaseException:
        whole.callback(False)
        raise
    if found.how is How.BYPASS:
        whole.callback(True)
    else:
        found.body.grown(END).addCallbacks(lambda grown: whole.callback(True), lambda failure: whole.callback(False))
    return found


async def _note(kitchen: IKitchen, suite: Suite, name: str, hold: Hold, whole: Deferred[bool]) -> None:
    try:
        if await whole:
            suite.note_asked(kitchen, name)
    except CancelledError:
        # The vault ends, or its configuration was read again: what has begun to come goes on, most likely to its end.
        if hold.begun:
            suite.note_asked(kitchen, name)
            await suite.save_now(kitchen)


@implementer(IRecipe)
@dataclass(frozen=True)
class HashRecipe:
    """An index file by its digest, in any of the four spellings."""

    backend: AptBackend
    directory: str
    algorithm: str
    value: str
    path: str

    async def find(self, kitchen: IKitchen, asked: Asked) -> Found:
        """The file of that digest; where it cannot be had, 404, after which apt asks for the plain name at once."""
        try:
            return await self._find(kitchen, asked)
        except Missing:
            raise
        except VaultError as error:
            raise Missing(f"{error}; ask for it by its name") from error

    async def _find(self, kitchen: IKitchen, asked: Asked) -> Found:
        suite = await self.backend.suite_of(kitchen, self.path)
        for generation in [suite.current, *suite.kept]:
            release = await generation.read(kitchen) if generation is not None else None
            for name in self._names(suite, release):
                assert release is not None
                have = _asked_for if generation is suite.current else fetch_index
                return await have(self.backend, kitchen, suite, release, name)
            if self.algorithm == "sha256":
                break  # it is found by its own key, in whatever generation it was
        try:
            digest = Digest(self.algorithm, self.value)
        except ValueError as error:
            raise Missing(f"{self.value} is no digest") from error
        artifact = self.backend.artifact(self.path, digest=digest)
        return await fetch(self.backend, kitchen, artifact)

    def _names(self, suite: Suite, release: Release | None) -> list[str]:
        inner = "" if self.directory == suite.path else relative(self.directory, suite.path)
        if release is None or inner is None:
            return []
        return list(named(release.files, inner, self.algorithm, self.value))


@implementer(IRecipe)
@dataclass(frozen=True)
class FileRecipe:
    """A package, a source file, a patch of an index file (in ``patches``, its directory), or anything else."""

    backend: AptBackend
    path: str
    patches: str | None

    async def find(self, kitchen: IKitchen, asked: Asked) -> Found:
        """The file as the index files in use describe it; one that they do not know is asked for again now and then."""
        known = await self._described(kitchen)
        if not known:
            artifact = self.backend.artifact(self.path, max_age=FILE_TTL)
            return await kitchen.find(artifact, self._insisting(kitchen, asked))
        artifacts = [self.backend.artifact(self.path, digest=one.digest, size=one.size) for one in known]
        if len(artifacts) > 1:
            # Suites that were made at different times: what is stored will do if one of them has it so.
            stored = await kitchen.stored(artifacts[0].key)
            artifacts.sort(key=lambda one: stored is None or one.digest != _digest(stored.sha256))
        if asked.head_only:
            return await kitchen.find(artifacts[0], asked)
        hold = Hold()
        for artifact in artifacts[:-1]:
            with contextlib.suppress(OtherVersion, DigestMismatch):
                return await fetch(self.backend, kitchen, artifact, hold)
        return await fetch(self.backend, kitchen, artifacts[-1], hold)

    async def _described(self, kitchen: IKitchen) -> tuple[Described, ...]:
        await self.backend.begin(kitchen)
        if self.patches is None:
            return await self.backend.state.packages.find(kitchen, self.path)
        suite = await self.backend.suite_of(kitchen, self.path)
        release = suite.current.release if suite.current is not None else None
        index = relative(join(self.patches, "Index"), suite.path)
        if release is None or index is None or index not in release.files:
            return ()
        key = suite.index_key(index, release.files[index])
        found = await self.backend.state.packages.look_up(kitchen, index, key, [self.path.rpartition("/")[2]])
        return (found,) if found is not None else ()

    def _insisting(self, kitchen: IKitchen, asked: Asked) -> Asked:
        """A client that soon asks for the same again did not like what it got: apt that was run once more, say.

        What it got may have been broken, or replaced under the same name; only the client's own index file knows.
        """
        client = asked.notes.get("client")
        if client is None:
            return asked
        handed = self.backend.handed(kitchen)
        again = handed.get(f"{client} {self.path}") is not None
        handed.note(f"{client} {self.path}", HANDED)
        return replace(asked, no_cache=again)


def _digest(sha256: str | None) -> Digest | None:
    return None if sha256 is None else Digest("sha256", sha256)
