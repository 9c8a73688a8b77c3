"""Whether what a manifest needs can be had: a manifest is only served when its blobs can be.

podman chooses a mirror by the manifest and does not fall back for the blobs.  A manifest from the store is therefore
served where its registry has answered within ten seconds, or else where all its blobs (of an index: all that one of
its manifests needs) are kept; otherwise the registry is asked for the manifest's head, and the client is told of a
failure.  So it is with a tag that the registry denies, whose manifest is asked for by its digest.

Where a tag's manifest cannot be vouched for, the last one is served that the tag named before and that is whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from vault.artifact import Artifact, Head
from vault.backends._oci_heads import digest_of
from vault.backends._oci_kept import Kept
from vault.backends._oci_registry import Registry
from vault.errors import BrokenAnswer, Missing, Refused, Unavailable, UpstreamError
from vault.formats.oci_manifest import is_page
from vault.formats.oci_names import Resource
from vault.interfaces import IBody
from vault.outcome import Found, How

PATIENCE = 5.0
"""Seconds for a registry to answer whether it can be asked, or for a tag that is kept from another registry."""

PREVIOUS = "previous-image"
"""Why an expired copy is served that is not even the last one: see the module."""

NOT_ASKED = ("refreshing", "rate-limit")
"""Why an expired copy may be served though nothing failed."""

DENIED = (Missing.proxy_error, Refused.proxy_error)
"""Why an expired copy may be served though its registry answers."""


@dataclass(frozen=True)
class Voucher:
    """Vouches for manifests from ``registry``; ``acceptable`` says of a head whether the client takes such a one."""

    kept: Kept
    registry: Registry
    resource: Resource
    acceptable: Callable[[Head], bool]

    async def vouched(self, artifact: Artifact, found: Found, doubtful: bool) -> Found:
        """What can be served where this was found; raises an UpstreamError where nothing can.

        ``doubtful``: parts of the repository's images could not be had just now.
        """
        if self.resource.tag is None or found.how is How.BYPASS:  # that can be read once
            await self._vouch(artifact, found)
            return found
        if doubtful and not await self.kept.whole(found.body, of_tag=True):
            previous = await self.previous(found.body)
            if previous is not None:
                return previous
        try:
            await self._vouch(artifact, found)
        except UpstreamError:
            previous = await self.previous(found.body)
            if previous is None:
                raise
            return previous
        return found

    async def previous(self, body: IBody) -> Found | None:
        """The last image that a tag named before this one and that is whole."""
        before = await self.kept.before(body)
        if before is None or not self.acceptable(before.head):
            return None
        return Found(before, How.STALE, detail=PREVIOUS)

    async def _vouch(self, artifact: Artifact, found: Found) -> None:
        """Raise an UpstreamError where what a manifest needs is neither kept nor to be had."""
        if found.how not in (How.HIT, How.STALE):
            return
        kitchen, registry = self.kept.kitchen, self.registry
        denied = found.how is How.STALE and found.detail in DENIED
        failed = found.how is How.STALE and not denied and found.detail not in NOT_ASKED
        if failed:
            registry.failed(kitchen.now())
        elif not denied and registry.answers(kitchen.now()):
            return
        if await self.kept.whole(found.body, of_tag=self.resource.tag is not None):
            return
        if not failed and not registry.offline:
            digest = digest_of(found.body) if denied else None
            if digest is not None:  # the tag has gone; the manifest and its blobs may be there all the same
                artifact = registry.manifest(replace(self.resource, tag=None, digest=digest))
            probe = kitchen.once(f"probe {artifact.asked_at}", lambda: kitchen.ask(artifact))
            try:
                if not is_page((await kitchen.within(PATIENCE, probe)).get("Content-Type")):
                    return
                registry.failed(kitchen.now())
            except BrokenAnswer as error:
                if error.upstream_status is None:
                    raise
                return  # such as 405: whatever it thinks of HEAD, it answers
            except TimeoutError:
                registry.failed(kitchen.now())
        raise Unavailable(
            f"{registry.namespace} cannot be asked, and not all blobs of {self.resource.name} are kept", retry_after=5.0
        )
