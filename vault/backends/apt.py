"""``type: apt``: repositories for apt and debootstrap, of which no client sees two generations mixed.

What a Release file lists is served as that file lists it; ``_apt_refresh`` says how a suite comes to a new generation,
``_apt_recipes`` what a request is answered with.  Packages and sources are checked against the index files in use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from zope.interface import implementer

from vault.artifact import Artifact, Digest
from vault.backend import Backend
from vault.backends._apt_freshness import keep_fresh
from vault.backends._apt_packages import Packages
from vault.backends._apt_recipes import FileRecipe, HashRecipe, IndexRecipe, ReleaseRecipe
from vault.backends._apt_suite import MAX_RELEASE, Suite
from vault.errors import VaultError
from vault.formats.apt_paths import Kind, ancestors, as_sent, by_hash, classify, guessed_suite, join, one_spelling
from vault.formats.apt_release import Listed
from vault.interfaces import IKitchen, IRecipe, IStartedBackend
from vault.memory import Memory
from vault.options import Options

TTL = 30.0
GENERATION_TTL = 86400.0
REFRESH_INTERVAL = 3600.0

MOST_SUITES = 1000


class State:
    """What a backend has learnt: it lasts as long as the backend, and over a change of the rest of the configuration.

    ``suspects`` has the keys under which something else came than was wanted, ``handed`` the files that no index file
    describes, each with the client it was given to, ``shown`` the generations that clients were given a Release file of
    (``client suite id``).  ``late`` is when a client last did not wait for a refresh any
    longer (POSIX seconds).
    """

    def __init__(self) -> None:
        self.suites: dict[str, Suite] = {}
        self.packages = Packages(self.suites.values)
        self.suspects: Memory | None = None
        self.handed: Memory | None = None
        self.shown: Memory | None = None
        self.late = float("-inf")
        self.loaded = False


@implementer(IStartedBackend)
@dataclass(frozen=True)
class AptBackend(Backend):
    """Paths below ``prefix`` are paths below each of ``upstreams``, mirrors of one another.  Times are seconds.

    ``refresh_interval`` is 0 where suites are not refreshed unasked.
    """

    name: str
    prefix: str
    upstreams: tuple[str, ...]
    ttl: float = TTL
    stale_while_revalidate: float = 60.0
    negative_ttl: float = 10.0
    generation_ttl: float = GENERATION_TTL
    refresh_interval: float = REFRESH_INTERVAL
    state: State = field(default_factory=State, compare=False, repr=False)

    # -- what a path means ------------------------------------------------------------------------------------------

    def resolve(self, path: str, headers: Mapping[str, str]) -> Artifact | IRecipe:
        """A recipe, or the artifact of what is no part of a repository's structure."""
        if "?" in path:
            return self.artifact(path, max_age=self.ttl)
        path = one_spelling(path)
        place = classify(path)
        if place.kind is Kind.LISTING:
            return self.artifact(path, max_age=self.ttl, short=True)
        if place.kind is Kind.RELEASE:
            return ReleaseRecipe(self, place.directory, place.name)
        if place.kind is Kind.BY_HASH:
            return HashRecipe(self, place.directory, place.algorithm, place.name, path)
        if place.kind is Kind.INDEX:
            return IndexRecipe(self, path)
        return FileRecipe(self, path, place.directory if place.kind is Kind.PATCH else None)

    def artifact(
        self, path: str, max_age: float | None = None, digest: Digest | None = None, size: int | None = None,
        short: bool = False,
    ) -> Artifact:  # fmt: skip
        """The file of a path."""
        return Artifact(
            key=f"{self.name}/{path}",
            urls=tuple(base + as_sent(path) for base in self.upstreams),
            max_age=max_age,
            digest=digest,
            size=size,
            backend=self.name,
            short=short,
        )

    def release_artifact(self, suite: str, name: str) -> Artifact:
        """A Release file as the upstream has it now."""
        return self.artifact(join(suite, name), max_age=self.ttl, short=True)

    def index_artifact(self, suite: Suite, name: str, listed: Listed, hashed: bool) -> Artifact:
        """An index file as a Release lists it: by its digest where it is published so, else by its name."""
        digest = listed.digest
        paths = [join(suite.path, by_hash(name, digest.algorithm, digest.value))] if hashed else []
        paths.append(join(suite.path, name))
        artifact = self.artifact(paths[-1], digest=digest, size=listed.size)
        urls = tuple(base + as_sent(path) for base in self.upstreams for path in paths)
        return replace(artifact, key=suite.index_key(name, listed), urls=urls)

    # -- suites -----------------------------------------------------------------------------------------------------

    @property
    def _suites_key(self) -> str:
        return f"{self.name}/#suites"

    def started(self, kitchen: IKitchen) -> None:
        """Keep the suites fresh that clients use."""
        if self.refresh_interval:
            kitchen.behind("keep suites fresh", lambda: keep_fresh(self, kitchen))

    async def begin(self, kitchen: IKitchen) -> None:
        """Know the suites that were served before a restart."""
        self.started(kitchen)
        if not self.state.loaded:
            await kitchen.once("load suites", lambda: self._load(kitchen))

    async def _load(self, kitchen: IKitchen) -> None:
        await kitchen.ready()
        body = None if self.state.loaded else await kitchen.stored(self._suites_key)
        paths: Iterable[str] = []
        if body is not None:
            try:
                paths = [str(path) for path in json.loads(await kitchen.read(body, MAX_RELEASE))]
            except (ValueError, TypeError, VaultError):
                paths = []
        for path in paths:
            suite = self.state.suites.setdefault(path, Suite(self.name, path))
            await suite.load(kitchen)
        self.state.loaded = True

    async def suite(self, kitchen: IKitchen, path: str) -> Suite:
        """The suite in a directory."""
        await self.begin(kitchen)
        known = self.state.suites.get(path)
        if known is None:
            if len(self.state.suites) >= MOST_SUITES:
                for other in [one for one in self.state.suites.values() if one.idle]:
                    del self.state.suites[other.path]
            known = self.state.suites[path] = Suite(self.name, path)
        if not known.loaded:
            await kitchen.once(f"load {path}", lambda: known.load(kitchen))
        return known

    async def suite_of(self, kitchen: IKitchen, path: str) -> Suite:
        """The suite that an index file belongs to: the nearest above it that is known, else the likeliest."""
        await self.begin(kitchen)
        directory = path.rpartition("/")[0]
        for above in ancestors(directory):
            suite = self.state.suites.get(above)
            if suite is not None and suite.current is not None:
                return suite
        return await self.suite(kitchen, guessed_suite(directory))

    async def changed(self, kitchen: IKitchen, suite: Suite) -> None:
        """A suite has another generation."""
        self.state.packages.changed()
        data = json.dumps(sorted(one.path for one in self.state.suites.values() if one.current is not None)).encode()
        await kitchen.make(self._suites_key, sha256(data).hexdigest(), lambda: [data])

    def suspects(self, kitchen: IKitchen) -> Memory:
        """The keys under which something else came lately than was wanted."""
        if self.state.suspects is None:
            self.state.suspects = Memory(kitchen.now)
        return self.state.suspects

    def handed(self, kitchen: IKitchen) -> Memory:
        """The clients that lately got a file which no index file describes: ``client path``."""
        if self.state.handed is None:
            self.state.handed = Memory(kitchen.now)
        return self.state.handed

    def shown(self, kitchen: IKitchen) -> Memory:
        """The generations that clients were lately given a Release file of: ``client suite id``."""
        if self.state.shown is None:
            self.state.shown = Memory(kitchen.now)
        return self.state.shown


def make_backend(name: str, options: Options) -> AptBackend:
    """Read ``mirror_url`` or ``mirror_urls``, ``generation_ttl`` and ``refresh_interval``."""
    upstream = options.upstream
    refresh_interval = options.seconds("refresh_interval", REFRESH_INTERVAL)
    return AptBackend(
        name,
        options.prefix,
        options.urls("mirror_url", "mirror_urls"),
        TTL if upstream.ttl is None else upstream.ttl,
        upstream.stale_while_revalidate,
        upstream.negative_ttl,
        options.seconds("generation_ttl", GENERATION_TTL),
        0.0 if upstream.offline else refresh_interval,
    )
