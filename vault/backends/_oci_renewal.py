"""What may have changed, tags and lists, renewed: whole, since it may turn out not to be what it should."""

from __future__ import annotations

from vault.artifact import Artifact
from vault.backends._oci_memory import Noted
from vault.backends._oci_registry import REST
from vault.backends._oci_vouching import PATIENCE
from vault.errors import Truncated
from vault.freshness import fresh
from vault.interfaces import IKitchen
from vault.outcome import Asked, Found, How

NEVER = 2**63
"""The offset of a byte that no body has: it is waited for until the body is whole."""

TOO_LATE, WAITING = "timeout", "waiting"
"""Why an expired copy is served: its successor takes too long to come whole, or did so just now."""


async def renewed(kitchen: IKitchen, resting: Noted[str], artifact: Artifact, asked: Asked) -> Found:
    """The body that has come whole, or else the copy that is kept.

    Where there is one, head and body together are waited for as long as elsewhere the head alone, and where they do not
    come so, nobody is asked for some seconds: ``resting`` has why.
    """
    begun = kitchen.now()
    why = resting.get(artifact.key, begun)
    kept = None if why is None else await kitchen.stored(artifact.key)
    if kept is not None and not fresh(kept.head, artifact, begun):
        return Found(kept, How.STALE, detail=why)
    try:
        found = await kitchen.fetch(artifact, asked.no_cache)
        if found.how is How.BYPASS or found.body.complete:
            return found
        kept = await kitchen.stored(artifact.key)
        if kept is None:
            await found.body.grown(NEVER)
            return found
        left = PATIENCE - max(0.0, kitchen.now() - begun)
        try:
            await kitchen.within(max(0.0, left), found.body.grown(NEVER))
        except TimeoutError:
            resting.note(artifact.key, kitchen.now() + REST, WAITING)
            return Found(kept, How.STALE, detail=TOO_LATE)
        return found
    except Truncated as error:
        kept = await kitchen.stored(artifact.key)
        if kept is None:
            raise
        resting.note(artifact.key, kitchen.now() + REST, error.proxy_error)
        return Found(kept, How.STALE, detail=error.proxy_error)
