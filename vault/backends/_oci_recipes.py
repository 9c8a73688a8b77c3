"""How registry resources are had: tags as pointers, manifests and blobs by digest, from the registry that has them.

A manifest is only served when its blobs can be had: see ``vault.backends._oci_vouching``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, race
from zope.interface import implementer

from vault.artifact import Artifact, Digest, Head
from vault.backends import _oci_heads as heads
from vault.backends._oci_kept import Kept
from vault.backends._oci_memory import REMEMBERED, Memories
from vault.backends._oci_registry import Registry, manifest_key
from vault.backends._oci_renewal import NEVER, renewed
from vault.backends._oci_vouching import PATIENCE, Voucher
from vault.errors import (
    Abandoned,
    BrokenAnswer,
    DigestMismatch,
    Missing,
    Refused,
    Timeout,
    TLSFailed,
    Unavailable,
    Unfit,
    UpstreamError,
    VaultError,
)
from vault.formats.oci_errors import Unknown
from vault.formats.oci_manifest import (
    EMPTY,
    KNOWN,
    MAX_MANIFEST,
    MEDIA_TYPE,
    is_page,
    plain_type,
    read_manifest,
    signed_payload,
)
from vault.formats.oci_names import Resource
from vault.freshness import elapsed, fresh
from vault.interfaces import IKitchen, IRecipe
from vault.outcome import Asked, Found, How

CODES = {"manifests": "MANIFEST_UNKNOWN", "blobs": "BLOB_UNKNOWN", "referrers": "MANIFEST_UNKNOWN"}

WITHOUT_REFERRERS = (400, 405, 406, 501)
"""What registries without lists of referrers answer beside 404, after which alone clients look for a tag instead."""

HEDGE = 2.0
"""Seconds for a registry to answer for content by digest before the next one is asked too."""

SMALL = 64 * 1024
"""Bytes: what is shorter is waited for, where another registry can be asked if it is wrong."""

TURN = 0.05
"""Seconds in which a request that was given up is gone."""


@implementer(IRecipe)
@dataclass(frozen=True)
class Recipe:
    """A resource of a repository in the first of ``registries`` that has it.

    ``accept`` are the manifest types that the client takes, None for any.
    """

    backend: str
    registries: Sequence[Registry]
    memories: Memories = field(repr=False)
    resource: Resource
    accept: frozenset[str] | None = None

    async def find(self, kitchen: IKitchen, asked: Asked) -> Found:
        """The body to serve; raises Unknown where no registry has it, and the error of one that could not be asked."""
        denied: VaultError | None = None
        failure: UpstreamError | None = None
        others = list(self.registries)
        queue = self._in_order(kitchen.now())
        while queue:
            registry = queue.pop(0)
            others = [other for other in others if other is not registry]
            kept = None if await self._has_kept(kitchen, registry) else await self._kept(kitchen, others, "resting")
            if kept is not None and registry.resting(kitchen.now()):
                return kept
            try:
                finding = ensureDeferred(self._from(kitchen.of(registry.name), registry, asked))
                if kept is not None:
                    found = await kitchen.within(PATIENCE, finding)
                else:
                    result = await self._unless_slow(kitchen, finding, [one for one in queue if one in others])
                    if isinstance(result, Registry):
                        kitchen.abandon(self._by_its_digest(registry))
                        queue = [result, *(one for one in queue if one is not result), registry]
                        self.memories.homes.note(self.resource.name, kitchen.now() + REMEMBERED, result)
                        continue
                    found = result
            except TimeoutError:
                assert kept is not None
                registry.failed(kitchen.now())
                kept.detail = Timeout.proxy_error
                return kept
            except Abandoned:
                queue.append(registry)  # another request asks elsewhere, of which this one may be given too
                await kitchen.sleep(TURN)  # what was given up is not gone at once
                continue
            except VaultError as error:
                if registry.denies(error):
                    self.memories.homes.forget(self.resource.name)
                    denied = error if denied is None or isinstance(error, Refused) else denied
                    continue
                if isinstance(error, (Unavailable, TLSFailed)):
                    registry.failed(kitchen.now())
                if (self._by_digest and isinstance(error, UpstreamError)) or isinstance(error, Unfit):
                    # The next one cannot have anything else under this name; or this one is no registry at all.
                    failure = failure or error
                    continue
                kept = await self._kept(kitchen, others, error.proxy_error)
                if kept is not None:
                    return kept
                raise
            self._note_home(registry, found, kitchen.now())
            if self._by_digest and found.how is How.MISS:
                self.memories.failing.forget(self.resource.name)
            return found
        if isinstance(failure, Unavailable):
            self.memories.failing.note(self.resource.name, kitchen.now() + REMEMBERED)
        if failure is not None:
            raise failure
        assert denied is not None
        if self.resource.kind == "blobs" and isinstance(denied, Refused):
            raise denied  # the repository is there; it may be a storage host that refuses
        status = denied.upstream_status if isinstance(denied, UpstreamError) else None
        what = f"{self.resource.name}/{self.resource.kind}/{self.resource.reference}"
        raise Unknown(CODES.get(self.resource.kind, "NAME_UNKNOWN"), f"{what}: {denied}", status)

    async def _unless_slow(
        self, kitchen: IKitchen, finding: Deferred[Found], others: Sequence[Registry]
    ) -> Found | Registry:
        """What is found; or who else has it, where it is content by digest and that takes long.

        What has its digest is right whoever sends it.
        """
        if not self._by_digest or not others:
            return await finding

        async def settled() -> Found | Exception:
            try:
                return await finding
            except Exception as error:
                return error

        runners: list[Deferred[Any]] = [ensureDeferred(settled()), ensureDeferred(self._who_has(kitchen, others))]
        result: Found | Registry | Exception = (await race(runners))[1]
        if isinstance(result, Exception):
            raise result
        return result

    async def _who_has(self, kitchen: IKitchen, others: Sequence[Registry]) -> Registry:
        """The first of ``others`` that has the content, asked by HEAD after a while; raises LookupError for none."""
        await kitchen.sleep(HEDGE)
        for other in others:
            if other.offline or other.resting(kitchen.now()):
                continue
            artifact, member = self._by_its_digest(other), kitchen.of(other.name)
            asking = kitchen.once(f"hedge {artifact.asked_at}", partial(member.ask, artifact))
            with suppress(VaultError, TimeoutError):
                if not is_page((await kitchen.within(PATIENCE, asking)).get("Content-Type")):
                    return other
        raise LookupError(self.resource.reference)

    def _by_its_digest(self, registry: Registry) -> Artifact:
        return registry.blob(self.resource) if self.resource.kind == "blobs" else registry.manifest(self.resource)

    # -- which registry ---------------------------------------------------------------------------------------------

    def _in_order(self, now: float) -> list[Registry]:
        """The registries to ask: as they are configured.

        Tags and lists are another matter in each registry: what was asked before must not decide who answers.  Content
        by digest is asked first where its tag was found, and last of a registry that could not be asked just now.
        """
        if not self._by_digest:
            return list(self.registries)
        home = self.memories.homes.get(self.resource.name, now)
        return sorted(self.registries, key=lambda registry: (registry.resting(now), registry != home))

    @property
    def _by_digest(self) -> bool:
        """True for content that is the same wherever it comes from."""
        return self.resource.digest is not None and self.resource.kind in ("manifests", "blobs")

    def _note_home(self, registry: Registry, found: Found, now: float) -> None:
        # A copy found by its digest says nothing of the repository.
        homes = self.memories.homes
        known = self._by_digest and (found.how in (How.HIT, How.STALE) or homes.holds(self.resource.name, now))
        if len(self.registries) > 1 and not known:
            homes.note(self.resource.name, now + REMEMBERED, registry)

    async def _has_kept(self, kitchen: IKitchen, registry: Registry) -> bool:
        tag = self.resource.tag is not None
        return tag and await kitchen.stored(registry.tag(self.resource, None).key) is not None

    async def _kept(self, kitchen: IKitchen, registries: Sequence[Registry], why: str) -> Found | None:
        """A tag that is kept from another registry, while one before it cannot be asked."""
        for registry in registries if self.resource.tag is not None else ():
            stored = await kitchen.stored(registry.tag(self.resource, None).key)
            if stored is None or not self._acceptable(stored.head):
                continue
            found: Found | None = Found(stored, How.STALE, detail=why)
            if not registry.answers(kitchen.now()) and not await self._at_hand(kitchen).whole(stored, of_tag=True):
                found = await self._voucher(kitchen, registry).previous(stored)
            if found is not None:
                found.head = heads.for_manifest(found, None, None)
                return found
        return None

    def _at_hand(self, kitchen: IKitchen) -> Kept:
        return Kept(kitchen, self.backend, self.memories.whole)

    def _voucher(self, kitchen: IKitchen, registry: Registry) -> Voucher:
        return Voucher(self._at_hand(kitchen), registry, self.resource, self._acceptable)

    # -- resources --------------------------------------------------------------------------------------------------

    async def _from(self, kitchen: IKitchen, registry: Registry, asked: Asked) -> Found:
        if self.resource.kind == "blobs":
            assert self.resource.digest is not None
            if str(self.resource.digest) == EMPTY:
                await self._keep_empty(kitchen, registry.blob(self.resource).key)
            found = await kitchen.find(registry.blob(self.resource), asked)
            await self._prove(found, asked)
            found.head = heads.for_blob(found, self.resource.digest)
            return found
        if self.resource.kind != "manifests":
            listing = registry.listing(self.resource)
            look = kitchen.find if asked.head_only else partial(renewed, kitchen, self.memories.resting)
            try:
                found = await look(listing, asked)
            except BrokenAnswer as error:
                if self.resource.kind == "referrers" and error.upstream_status in WITHOUT_REFERRERS:
                    raise Missing(str(error), error.upstream_status) from error
                raise
            found.head = heads.for_listing(found)
            return found
        if self.resource.digest is not None:
            artifact = registry.manifest(self.resource)
            found = await self._named_by_digest(kitchen, artifact, asked)
        else:
            artifact = registry.tag(self.resource, None)
            found = await self._tag(kitchen, registry, artifact, asked)
            if not self._acceptable(found.body.head):
                artifact = registry.tag(self.resource, self.accept)
                found = await self._tag(kitchen, registry, artifact, asked)
        doubtful = self.memories.failing.holds(self.resource.name, kitchen.now())
        found = await self._voucher(kitchen, registry).vouched(artifact, found, doubtful)
        kind = await self._type_in_body(kitchen, found)
        found.head = heads.for_manifest(found, self.resource.digest, kind)
        return found

    async def _keep_empty(self, kitchen: IKitchen, key: str) -> None:
        """Have what the empty descriptor stands for, which is known: no registry need be asked for it, or be there."""
        if await kitchen.stored(key) is None:
            head = Head(200, (), kitchen.now(), kitchen.now())
            await kitchen.once(f"keep {key}", lambda: kitchen.put(key, head, b"{}"))

    def _acceptable(self, head: Head) -> bool:
        kind = plain_type(head.get("Content-Type"))
        return self.accept is None or kind in self.accept or kind not in KNOWN

    async def _tag(self, kitchen: IKitchen, registry: Registry, artifact: Artifact, asked: Asked) -> Found:
        now = kitchen.now()
        if registry.short_of_pulls(now):
            stored = await kitchen.stored(artifact.key)
            if stored is not None:
                how = How.HIT if fresh(stored.head, artifact, now) else How.STALE
                left = (artifact.max_age or 0.0) - elapsed(stored.head, now)
                return Found(stored, how, ttl=left, detail="rate-limit")
        artifact = replace(artifact, inherits=self._at_hand(kitchen).history)
        found = await renewed(kitchen, self.memories.resting, artifact, asked)
        digest = heads.digest_of(found.body)
        if found.how is not How.BYPASS and digest is not None:
            await kitchen.once(f"adopt {artifact.key}", lambda: self._adopt(kitchen, artifact.key, digest, found))
        return found

    async def _adopt(self, kitchen: IKitchen, key: str, digest: Digest, found: Found) -> None:
        """Keep a new tag's manifest by its digest too: clients ask for it next, and it stays when the tag moves on."""
        await kitchen.settled(key)
        if await kitchen.stored(manifest_key(self.backend, digest)) is None:
            await kitchen.adopt(manifest_key(self.backend, digest), digest, found.body.head)

    async def _prove(self, found: Found, asked: Asked) -> None:
        """Wait for the end of a blob that may be another thing, where there is another registry to be asked.

        What is small has as good as come with its head, and what comes as a web page is hardly one.
        """
        page = is_page(found.body.head.get("Content-Type"))
        if len(self.registries) == 1 or found.body.complete:
            return
        if asked.head_only and found.how is How.MISS and page:
            raise Unfit("a web page came in place of a blob")
        if not asked.head_only and (page or (found.body.length or SMALL) < SMALL) and found.how is not How.BYPASS:
            await found.body.grown(NEVER)

    async def _whole_manifest(self, kitchen: IKitchen, found: Found) -> Found:
        """The same when its body has come."""
        if found.how is not How.BYPASS and not found.body.complete:
            await kitchen.read(found.body, MAX_MANIFEST)
        if (found.body.length or 0) > MAX_MANIFEST:
            raise BrokenAnswer(f"a manifest of {found.body.length} bytes came; clients take {MAX_MANIFEST} at most")
        return found

    async def _named_by_digest(self, kitchen: IKitchen, artifact: Artifact, asked: Asked) -> Found:
        """A manifest by its digest, which of Docker's old signed ones is that of what is signed: see ``_signed``."""
        signed = replace(artifact, key=f"{artifact.key}?signed", digest=None)
        stored = await kitchen.stored(signed.key)
        if stored is not None:
            return Found(stored, How.HIT)
        found = await kitchen.fetch(artifact, asked.no_cache)
        try:
            return await self._whole_manifest(kitchen, found)
        except DigestMismatch:
            if "vnd.docker.distribution.manifest.v1+" not in (found.body.head.get("Content-Type") or ""):
                raise
            return await self._signed(kitchen, artifact, signed)

    async def _signed(self, kitchen: IKitchen, artifact: Artifact, signed: Artifact) -> Found:
        """A signed manifest, fetched as whatever it is, then checked; kept beside those whose bytes have the digest."""
        found = await self._whole_manifest(kitchen, await kitchen.fetch(signed))
        if found.how is How.BYPASS:
            return found  # it can be read once, and is kept by nobody
        data = await kitchen.read(found.body, MAX_MANIFEST)
        assert artifact.digest is not None
        digest = artifact.digest.new()
        with suppress(ValueError):
            digest.update(signed_payload(data))
            if digest.hexdigest() == artifact.digest.value:
                return found
        await kitchen.settled(signed.key)
        await kitchen.remove(signed.key)
        raise BrokenAnswer(f"the signed manifest that came is not {artifact.digest}")

    async def _type_in_body(self, kitchen: IKitchen, found: Found) -> str | None:
        """The media type that the document has itself, where its head has none of a manifest.

        The same bytes may have been stored first as somebody's plain file.
        """
        kind = plain_type(found.body.head.get("Content-Type"))
        if found.how is How.BYPASS or kind.startswith("application/vnd."):
            return None
        data = await kitchen.read(found.body, MAX_MANIFEST)
        try:
            kind = (await kitchen.work(read_manifest, data)).media_type
        except ValueError:
            return None
        return kind if MEDIA_TYPE.fullmatch(kind) is not None else None
