"""Confirmation: whether what is stored is what the upstream has, asked by HEAD, which registries do not count."""

from __future__ import annotations

from vault.answer import Answer
from vault.artifact import Artifact
from vault.errors import BrokenAnswer, Missing, Overloaded, Refused, Timeout, UpstreamError
from vault.sources import Sources
from vault.store.body import StoredBody
from vault.store.store import Store


async def confirmed(
    sources: Sources, store: Store, artifact: Artifact, stored: StoredBody | None
) -> tuple[Answer, StoredBody] | None:
    """The upstream's answer to HEAD and the entry that is what it has; None where GET has to tell.

    The entry is ``stored``, which has expired, or content that is stored under another key with the digest that the
    answer names: it is then the artifact's too.
    """
    if artifact.confirmed_by is None:
        return None
    try:
        answer = await sources.ask(artifact, method="HEAD", patient=False)
    except BrokenAnswer:
        return None  # it may not know HEAD
    except UpstreamError as error:
        # What a server says of a HEAD need not be so of a GET; a token server's refusal is of both.
        of_head = isinstance(error, Missing) or type(error) is Refused
        if not of_head and (stored is not None or isinstance(error, (Overloaded, Timeout))):
            raise
        return None  # nothing is lost by asking again, in earnest
    if stored is not None and artifact.confirmed_by(stored.head, answer.head):
        return answer, stored
    digest = None if artifact.promised is None else artifact.promised(answer.head)
    try:
        head = await artifact.succeeding(stored, answer.head)
        twin = None if digest is None else await store.adopt_twin(artifact.key, digest, head)
    except BaseException:
        answer.abort()
        raise
    if twin is not None:
        return answer, twin
    answer.discard()
    return None
