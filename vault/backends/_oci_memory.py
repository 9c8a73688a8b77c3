"""What an oci backend remembers: which registry has a repository, and which manifests have all that they need kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vault.artifact import Digest
from vault.backends._oci_registry import Registry, blob_key, manifest_key
from vault.formats.oci_manifest import MAX_MANIFEST, read_manifest
from vault.interfaces import IBody, IKitchen

REMEMBERED = 60.0
"""Seconds for which it is remembered which registry has a repository."""

LOOKED = 5.0
"""Seconds for which it is remembered that all blobs of a manifest are kept: short, since one may be evicted."""

MOST_CHILDREN = 200
"""So many of an index's manifests are looked at; no image is for more platforms."""


class Noted:
    """What a backend remembers for a while: a bounded mapping whose entries end."""

    def __init__(self, limit: int = 2048) -> None:
        self._limit = limit
        self._notes: OrderedDict[str, tuple[float, Registry | None]] = OrderedDict()

    def note(self, key: str, until: float, what: Registry | None = None) -> None:
        """Remember until (POSIX seconds)."""
        self._notes.pop(key, None)
        self._notes[key] = (until, what)
        if len(self._notes) > self._limit:
            self._notes.popitem(last=False)

    def get(self, key: str, now: float) -> Registry | None:
        """What is remembered."""
        until, what = self._notes.get(key, (0.0, None))
        return what if now < until else None

    def holds(self, key: str, now: float) -> bool:
        """True if something is remembered."""
        return now < self._notes.get(key, (0.0, None))[0]

    def forget(self, key: str) -> None:
        """Remember no longer."""
        self._notes.pop(key, None)


@dataclass
class Memories:
    """What an oci backend remembers: ``homes`` of repositories, and manifests that are ``whole``."""

    homes: Noted = field(default_factory=Noted)
    whole: Noted = field(default_factory=Noted)


async def is_whole(kitchen: IKitchen, backend: str, body: IBody, memory: Noted) -> bool:
    """True if everything that a manifest needs is kept: its blobs, or those of one manifest of an index."""
    now = kitchen.now()
    if memory.holds(str(body.sha256), now):
        return True
    data = await kitchen.read(body, MAX_MANIFEST)
    try:
        manifest = await kitchen.work(read_manifest, data)
    except ValueError:
        return True
    for blob in manifest.blobs:
        if await _stored(kitchen, backend, blob_key, blob) is None:
            return False
    if manifest.children and not await _any_whole(kitchen, backend, manifest.children, memory):
        return False
    memory.note(str(body.sha256), now + LOOKED)
    return True


async def _any_whole(kitchen: IKitchen, backend: str, children: Sequence[str], memory: Noted) -> bool:
    for child in children[:MOST_CHILDREN]:
        body = await _stored(kitchen, backend, manifest_key, child)
        if body is not None and await is_whole(kitchen, backend, body, memory):
            return True
    return False


async def _stored(kitchen: IKitchen, backend: str, key: Callable[[str, Digest], str], text: str) -> IBody | None:
    try:
        digest = Digest.parse(text)
    except ValueError:
        return None
    await kitchen.settled(key(backend, digest))
    body = await kitchen.stored(key(backend, digest))
    # What another backend has of the same digest is as good; it gets this key when it is asked for anyway.
    return body if body is not None else await kitchen.adopt(key(backend, digest), digest)
