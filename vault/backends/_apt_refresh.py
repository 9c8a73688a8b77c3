"""How a suite comes to a new generation: what the upstream has is seen, compared, completed, and only then served.

the upstream has             what is done
the Release files served     nothing; they are good for another while
an older Release             it is not taken, unless it is another upstream than the one before, or the one served is
                             dated in the future
half of a pair               waited for: one of Release and Release.gpg has changed, the other has not
a newer Release              the index files that clients use are fetched by its digests; where one cannot be had,
                             that is waited for too
no InRelease                 Release and Release.gpg instead
no answer                    what is served is served on
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from vault.artifact import Head
from vault.backends._apt_fetch import END, fetch_index, let_go
from vault.backends._apt_suite import MAX_RELEASE, Generation, Suite
from vault.errors import BrokenAnswer, Missing, Unavailable, VaultError
from vault.formats import apt_index
from vault.formats.apt_paths import RELEASE_FILES
from vault.formats.apt_release import Release, parse, same_text
from vault.freshness import parse_date
from vault.interfaces import IBody, IKitchen
from vault.outcome import How

if TYPE_CHECKING:
    from vault.backends.apt import AptBackend

TORN_PATIENCE = 600.0
"""Seconds after which half of a pair, or a listed file that cannot be had, counts as meant so."""

NEW_PATIENCE = 60.0
"""Seconds for which a file is waited for in each generation, however long earlier ones have been without it."""

PAUSES = (1.0, 2.0, 4.0, 6.0, 8.0, 15.0, 30.0, 30.0, 60.0, 60.0)
"""Seconds between looks while a new generation is not whole."""

FIRST_PAUSES = (0.3, 0.6, 1.0)
"""The same while there is nothing to serve."""

FUTURE = 10.0
"""Seconds by which the date of a Release may be ahead for clients to take it: apt's ``Acquire::Max-FutureTime``."""

LIKELY_FILES, LIKELY_SIZE, PACKED = 40, 1024 * 1024, ("xz", "gz", "bz2", "zst", "lzma")

AT_ONCE = 4
"""Index files fetched at the same time."""

log = Logger()


@dataclass(frozen=True, slots=True)
class Seen:
    """A Release file as the upstream has it; not ``sure`` where it could not be asked now."""

    data: bytes
    head: Head
    sure: bool

    @property
    def digest(self) -> str:
        """The file's SHA256."""
        return sha256(self.data).hexdigest()


class Torn(Unavailable):
    """The upstream is just publishing: what it has does not belong together yet."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 5.0)


async def refresh(backend: AptBackend, kitchen: IKitchen, suite: Suite) -> None:
    """See what the upstream has; raises the reason where there is nothing to serve."""
    suite.tried = kitchen.now()
    suite.refreshing = True
    try:
        sure = (
            await _first(backend, kitchen, suite) if suite.current is None else await _refresh(backend, kitchen, suite)
        )
    except Torn as error:
        suite.failure = None
        suite.waiting = True
        log.info("{suite}: {error}", suite=suite.key(""), error=str(error))
        if suite.current is None:
            raise
        suite.checked = kitchen.now()
        kitchen.behind(f"wait for {suite.path}", lambda: _watch(backend, kitchen, suite))
    except VaultError as error:
        suite.failure = error
        if suite.current is None:
            raise
        log.info("{suite}: {error}; the kept one is served", suite=suite.key(""), error=str(error))
    else:
        suite.waiting = False
        if sure:
            suite.failure = None
            suite.checked = kitchen.now()
        else:
            suite.failure = Unavailable("the upstream could not be asked")
    finally:
        suite.refreshing = False


async def _first(backend: AptBackend, kitchen: IKitchen, suite: Suite) -> bool:
    """``_refresh`` where nothing is served yet: a few looks, in case the upstream is just publishing."""
    for pause in FIRST_PAUSES:
        try:
            return await _refresh(backend, kitchen, suite, careful=True)
        except Torn as error:
            log.info("{suite}: {error}", suite=suite.key(""), error=str(error))
            await kitchen.sleep(pause)
            for name in RELEASE_FILES:
                await kitchen.remove(suite.key(name))  # to be had anew, however fresh
    return await _refresh(backend, kitchen, suite)


async def _watch(backend: AptBackend, kitchen: IKitchen, suite: Suite) -> None:
    """Look again and again while a new generation is being published."""
    for pause in PAUSES:
        await kitchen.sleep(pause)
        await kitchen.once(f"refresh {suite.path}", lambda: refresh(backend, kitchen, suite))
        if not suite.waiting:
            return


async def see(backend: AptBackend, kitchen: IKitchen, suite: Suite, name: str) -> Seen | None:
    """One Release file as the upstream has it, None where it says that it has none; raises a VaultError."""
    artifact = backend.release_artifact(suite.path, name)
    try:
        if name in suite.missing:
            # HEAD, asked once: while the upstream is down nobody waits for it.
            try:
                await kitchen.ask(artifact)
            except BrokenAnswer as error:
                log.debug("{suite}: {error}", suite=suite.key(name), error=str(error))
        found = await kitchen.fetch(artifact, no_cache=True)
    except Missing:
        if name not in suite.missing:
            suite.missing.add(name)
            suite.save_soon(kitchen)
        return None
    if name in suite.missing and found.how is not How.STALE:
        suite.missing.discard(name)
        suite.save_soon(kitchen)
    data = await kitchen.read(found.body, MAX_RELEASE)
    # What is just being refreshed is a few seconds old at most: that is not an upstream which cannot be asked.
    return Seen(data, found.body.head, found.how is not How.STALE or found.detail == "refreshing")


async def _refresh(backend: AptBackend, kitchen: IKitchen, suite: Suite, careful: bool = False) -> bool:
    """True where the upstream said what it has, and it was taken or need not be; ``careful`` as in ``_consider``."""
    if suite.moved(backend.upstreams):
        for name in RELEASE_FILES:
            await kitchen.remove(suite.key(name))  # another repository says 304 to whoever names a later date
    signed = await see(backend, kitchen, suite, "InRelease")
    if signed is not None:
        await _consider(backend, kitchen, suite, "InRelease", {"InRelease": signed}, careful)
        return signed.sure
    pair = await _pair(backend, kitchen, suite)
    if not pair:
        if suite.current is not None and suite.current.kind == "InRelease":
            raise Missing("the upstream no longer has this suite")
        suite.checked = kitchen.now()
        raise Missing("the upstream has neither InRelease nor Release here")
    await _consider(backend, kitchen, suite, "Release", pair, careful)
    return all(one.sure for one in pair.values())


async def _pair(backend: AptBackend, kitchen: IKitchen, suite: Suite) -> dict[str, Seen]:
    """Release, and Release.gpg if there is one, of the same instant; raises Torn."""
    release = await see(backend, kitchen, suite, "Release")
    if release is None:
        return {}
    signature = await see(backend, kitchen, suite, "Release.gpg")
    if signature is None:
        return {"Release": release}
    known = suite.current
    if known is not None and "Release.gpg" in known.bodies:
        _check_pair(kitchen, suite, known, release, signature)
    elif _doubtful(kitchen, suite, release, signature):
        raise Torn("Release.gpg is older than Release")
    pair = {"Release": release, "Release.gpg": signature}
    served = {} if known is None else {name: body.sha256 for name, body in known.bodies.items()}
    if any(served.get(name) != one.digest for name, one in pair.items()):
        await _confirm_pair(backend, kitchen, suite, pair)
    return pair


async def _confirm_pair(backend: AptBackend, kitchen: IKitchen, suite: Suite, pair: dict[str, Seen]) -> None:
    """Look at both halves of a new pair once more, in the other order; raises Torn where one of them is another now.

    One may lie in the cache for some seconds, or two generations may have been published between the two.
    """
    if not all(one.sure for one in pair.values()):
        return
    for name in reversed(pair):
        await kitchen.remove(suite.key(name))
        again = await see(backend, kitchen, suite, name)
        if again is None or again.digest != pair[name].digest:
            raise Torn(f"{name} has just changed")


def _lag(release: Head, signature: Head) -> float:
    """Seconds by which a signature is older than what it is to sign; 0 where it is not, as far as can be seen."""
    made, signed = parse_date(release.last_modified), parse_date(signature.last_modified)
    return 0 if made is None or signed is None else max(0, made - signed)


def _doubtful(kitchen: IKitchen, suite: Suite, release: Seen, signature: Seen) -> bool:
    """True where a signature was made before what it is to sign, so that it is most likely that of another Release.

    Some repositories publish the signature shortly before: such a pair is taken when it has been there for a while.
    """
    lag = _lag(release.head, signature.head)
    standing = kitchen.now() - (parse_date(release.head.last_modified) or 0)
    if not lag or (lag < TORN_PATIENCE <= standing):
        return False
    return suite.waited(kitchen, f"{release.digest} {signature.digest}") < TORN_PATIENCE


def _check_pair(kitchen: IKitchen, suite: Suite, known: Generation, release: Seen, signature: Seen) -> None:
    if not (release.sure and signature.sure):
        return
    changed = [
        name for name, seen in (("Release", release), ("Release.gpg", signature))
        if known.bodies[name].sha256 != seen.digest
    ]  # fmt: skip
    if changed == ["Release"]:
        raise Torn("Release is new and Release.gpg is not yet")
    lag = _lag(known.heads["Release"], known.heads["Release.gpg"])
    if changed == ["Release.gpg"] and not lag and suite.waited(kitchen, signature.digest) < TORN_PATIENCE:
        raise Torn("Release.gpg is new and Release is not yet")  # after that it was just signed again


async def _consider(
    backend: AptBackend, kitchen: IKitchen, suite: Suite, kind: str, seen: dict[str, Seen], careful: bool
) -> None:
    """Serve these Release files from now on, if they are newer and their generation can be had; raises Torn.

    What clients will ask of a suite's first generation is not known.  Where ``careful``, and where it could not be had
    by its digest any more once the next one is there, the likeliest is fetched before, if it is not much.
    """
    identity = sha256("".join(one.digest for one in seen.values()).encode()).hexdigest()
    current = suite.current
    if current is not None and current.id == identity:
        if all(one.sure for one in seen.values()):
            current.heads.update({name: one.head for name, one in seen.items()})
            suite.note_upstreams(kitchen, backend.upstreams)
        return
    if current is not None and not all(one.sure for one in seen.values()):
        return  # an old copy that lies in the cache is no news
    try:
        release = await kitchen.work(parse, seen[kind].data, kind == "InRelease")
    except ValueError as error:
        await kitchen.remove(suite.key(kind))
        if current is None:
            raise BrokenAnswer(f"the upstream's {kind} is none: {error}") from error
        raise Torn(f"{kind} is not one: {error}") from error
    generation = Generation(identity, kind, {}, {name: one.head for name, one in seen.items()}, release)
    if current is not None:
        new, old = generation.age_date(release), current.age_date(await current.read(kitchen))
        # One that is dated in the future clients refuse: what comes after it is the correction.
        valid = old is not None and old <= kitchen.now() + FUTURE
        if new is not None and old is not None and new < old and valid and not suite.moved(backend.upstreams):
            log.warn("{suite}: the upstream has an older Release than the one served; not taken", suite=suite.key(""))
            return
        await _complete(backend, kitchen, suite, release, suite.needed(kitchen.now()))
    elif careful and not release.by_hash and all(one.sure for one in seen.values()):
        await _complete(backend, kitchen, suite, release, likely(release), lenient=True)
    for name, one in seen.items():
        generation.bodies[name] = await _keep(kitchen, suite, name, identity, one)
    await suite.switch(kitchen, generation, backend.generation_ttl, backend.upstreams)
    suite.seen_since.clear()
    await backend.changed(kitchen, suite)
    log.info("{suite}: serving the generation {id}", suite=suite.key(""), id=identity[:12])


async def _keep(kitchen: IKitchen, suite: Suite, name: str, identity: str, seen: Seen) -> IBody:
    key = suite.key(f"{name}#{identity}")
    return await kitchen.make(key, seen.digest, lambda: [seen.data], seen.head.headers)


def likely(release: Release) -> list[str]:
    """The index files that clients of a small suite will most likely ask for; none where they are not small."""
    names = []
    for name in release.files:
        base = name.rpartition("/")[2]
        wanted = apt_index.kind(name) == "Packages" or base.startswith("Translation-en")
        if wanted and "debian-installer/" not in name and not any(f"{name}.{end}" in release.files for end in PACKED):
            names.append(name)
    small = len(names) <= LIKELY_FILES and sum(release.files[name].size for name in names) <= LIKELY_SIZE
    return names if small else []


async def _complete(
    backend: AptBackend, kitchen: IKitchen, suite: Suite, release: Release, names: list[str], lenient: bool = False
) -> None:
    """Have these index files as a new generation lists them; raises Torn where one cannot be had.

    One that was waited for long enough is given up.  Where ``lenient``, those that are not there at all may be missing.
    """
    wanted = [name for name in names if name in release.files]

    async def work() -> None:
        while wanted:
            name = wanted.pop()
            try:
                found = await fetch_index(backend, kitchen, suite, release, name)
                if found.how is How.BYPASS:
                    let_go(found.body)  # it cannot be stored, but it can be had
                else:
                    await found.body.grown(END)
                suite.seen_since.pop(name, None)
            except VaultError as error:
                if lenient and isinstance(error, Missing):
                    continue
                # An outage says nothing of the file.
                if isinstance(error, Unavailable) or not _waited_for(kitchen, suite, release, name):
                    raise Torn(f"{name} cannot be had as the new Release lists it: {error}") from error
                log.warn("{suite}: gone on without {name}: {error}", suite=suite.key(""), name=name, error=str(error))
                suite.give_up(kitchen, name)

    workers = [ensureDeferred(work()) for _ in range(min(AT_ONCE, len(wanted)))]
    try:
        for worker in workers:
            await worker
    finally:
        wanted.clear()
        for worker in workers:
            worker.addErrback(lambda failure: None)


def _waited_for(kitchen: IKitchen, suite: Suite, release: Release, name: str) -> bool:
    """True where an index file was waited for long enough: also in this generation, earlier ones say little of it."""
    in_all = suite.waited(kitchen, name)
    here = suite.waited(kitchen, f"{name} {release.files[name].digest}")
    return in_all >= TORN_PATIENCE and here >= NEW_PATIENCE


async def pair_of(backend: AptBackend, kitchen: IKitchen, suite: Suite, generation: Generation) -> None:
    """Give a generation with an InRelease the Release and Release.gpg that go with it; raises a VaultError."""
    release = await see(backend, kitchen, suite, "Release")
    if release is None:
        raise Missing("the upstream has no Release beside InRelease")
    signed = await kitchen.read(generation.bodies["InRelease"], MAX_RELEASE)
    if not same_text(signed, release.data):
        raise Unavailable("the upstream's Release is not of the same generation as the InRelease served", 5.0)
    signature = await see(backend, kitchen, suite, "Release.gpg")
    if signature is not None:
        before = [one.bodies["Release.gpg"].sha256 for one in suite.kept if "Release.gpg" in one.bodies]
        if signature.digest in before or _doubtful(kitchen, suite, release, signature):
            raise Unavailable("the upstream's Release.gpg is that of an earlier Release", 5.0)
    for name, seen in (("Release", release), ("Release.gpg", signature)):
        if seen is not None and name not in generation.bodies:
            generation.heads[name] = seen.head
            generation.bodies[name] = await _keep(kitchen, suite, name, generation.id, seen)
    suite.save_soon(kitchen)
