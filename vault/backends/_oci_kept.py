"""What is kept of images: which manifests have all that they need, and what a tag named before it moved.

A tag may move to an image that then does not come whole, since its registry limits or fails while it is pulled.  The
stored head of a tag therefore names those that had it before, back to the last one that was whole: that one can still
be pulled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from vault.artifact import Digest, Head, Headers
from vault.backends._oci_heads import digest_of
from vault.backends._oci_memory import Noted
from vault.backends._oci_registry import blob_key, fault_in_tag, manifest_key
from vault.errors import VaultError
from vault.formats.oci_manifest import MAX_MANIFEST, read_manifest
from vault.interfaces import IBody, IKitchen

LOOKED = 5.0
"""Seconds for which it is remembered that all blobs of a manifest are kept: short, since one may be evicted."""

MOST_CHILDREN = 200
"""So many of an index's manifests are looked at; no image is for more platforms."""

BEFORE = "X-Vault-Before"
"""In the stored head of a tag: the digests of what it named before, the last one first."""

MOST_BEFORE = 8
"""So many of them are named: they are looked at one by one while the registry is away."""


@dataclass(frozen=True)
class Kept:
    """What ``backend`` keeps of images; ``memory`` has the manifests that were whole just now."""

    kitchen: IKitchen
    backend: str
    memory: Noted[None]

    async def whole(self, body: IBody, of_tag: bool = False) -> bool:
        """True if everything that a manifest needs is kept: its blobs, or those of one manifest of an index.

        What a tag names (``of_tag``) must be a manifest; what is named by its digest is proved, whatever it is.
        """
        now = self.kitchen.now()
        name = f"{'tag' if of_tag else 'digest'} {body.sha256}"
        if self.memory.holds(name, now):
            return True
        data = await self.kitchen.read(body, MAX_MANIFEST)
        if of_tag and await self.kitchen.work(fault_in_tag, body.head, data) is not None:
            return False  # kept by an earlier vault, which did not look
        try:
            manifest = await self.kitchen.work(read_manifest, data)
        except ValueError:
            return True
        for blob in manifest.blobs:
            if await self._stored(blob_key, blob) is None:
                return False
        if manifest.children and not await self._any_whole(manifest.children):
            return False
        self.memory.note(name, now + LOOKED)
        return True

    async def _any_whole(self, children: Sequence[str]) -> bool:
        for child in children[:MOST_CHILDREN]:
            body = await self._stored(manifest_key, child)
            if body is not None and await self.whole(body):
                return True
        return False

    async def _stored(self, key: Callable[[str, Digest], str], text: str) -> IBody | None:
        try:
            digest = Digest.parse(text)
        except ValueError:
            return None
        await self.kitchen.settled(key(self.backend, digest))
        body = await self.kitchen.stored(key(self.backend, digest))
        if body is not None:
            return body
        # What another backend has of the same digest is as good; it gets this key when it is asked for anyway.
        return await self.kitchen.adopt(key(self.backend, digest), digest)

    # -- what a tag named before ------------------------------------------------------------------------------------

    async def history(self, stored: IBody) -> Headers:
        """What the head of a tag's new manifest notes of the one whose place it takes.

        Those that are not whole are named too, as far as there is room: some of their blobs may just be coming.
        """
        digests = list(dict.fromkeys([str(digest_of(stored) or ""), *_before(stored.head)]))
        for place, digest in enumerate(digests):
            if await self._had_whole(digest) is not None:
                digests = digests[: place + 1]
                break
        if len(digests) > MOST_BEFORE:
            digests = [*digests[: MOST_BEFORE - 1], digests[-1]]
        return ((BEFORE, " ".join(filter(None, digests))),)

    async def before(self, body: IBody) -> IBody | None:
        """The last manifest that a tag named before ``body`` and of which everything is kept; None if there is none."""
        present = str(digest_of(body))
        for digest in _before(body.head):
            if digest != present and (kept := await self._had_whole(digest)) is not None:
                return kept
        return None

    async def _had_whole(self, digest: str) -> IBody | None:
        with suppress(VaultError):  # a file that cannot be read is not kept
            body = await self._stored(manifest_key, digest)
            if body is not None and await self.whole(body, of_tag=True):
                return body
        return None


def _before(head: Head) -> list[str]:
    return (head.get(BEFORE) or "").split()
