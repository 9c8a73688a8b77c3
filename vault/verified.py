"""Whether a stored body is the one that a digest names, of whatever algorithm, without reading it on every hit."""

from __future__ import annotations

from vault.artifact import VERIFIED, Artifact
from vault.store.body import StoredBody
from vault.store.store import Store


async def contradicted(store: Store, stored: StoredBody, artifact: Artifact) -> bool:
    """True if a stored body is not the one that the artifact's digest names.

    What was verified by another digest than the store's own is noted in its head; where it is not, the file is read
    once, and what was found noted.
    """
    digest = artifact.digest
    if digest is None:
        return False
    if digest.algorithm == "sha256":
        return stored.sha256 != digest.value
    noted = stored.head.get(VERIFIED) or ""
    if noted.partition(":")[0] == digest.algorithm:
        return noted != str(digest)
    if artifact.size is not None and artifact.size != stored.length:
        return True
    if await stored.hashed(digest.algorithm) != digest.value:
        return True
    await store.renew(artifact.key, stored, stored.head.with_headers({VERIFIED: str(digest)}))
    return False
