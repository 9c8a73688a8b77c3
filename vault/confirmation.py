"""Confirmation: whether what is stored is what the upstream has, asked by HEAD.

Registries do not count it; and of an entry that was taken up from its file alone it tells what no 304 could: a file's
date is no validator, since it may be that of its arrival.
"""

from __future__ import annotations

from vault.answer import Answer
from vault.artifact import VERIFIED, Artifact, Head
from vault.errors import (
    BrokenAnswer,
    ConnectionRefused,
    LeftAlone,
    Missing,
    NameNotFound,
    Overloaded,
    Refused,
    Timeout,
    UpstreamError,
)
from vault.freshness import keepable, parse_date, unconfirmed
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
    if stored is not None and unconfirmed(stored.head, artifact):
        return await _taken_up(sources, artifact, stored)
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


async def renew(store: Store, artifact: Artifact, stored: StoredBody, head: Head) -> None:
    """Give an entry that stays the head it has from now on; where that says so (``no-store``), it stays no longer.

    Who waits for it is served it all the same: it was asked for before that was known (RFC 9111 section 5.2.2.5).
    """
    if keepable(head, artifact):
        await store.renew(artifact.key, stored, head)
    else:
        stored.head = head
        await store.remove(artifact.key)


async def _taken_up(sources: Sources, artifact: Artifact, stored: StoredBody) -> tuple[Answer, StoredBody] | None:
    """The same for an entry of which only the file is known: where it is confirmed its head is what the upstream says.

    Whatever else HEAD says, GET tells: there are servers that know no HEAD, and say so in many ways.
    """
    try:
        answer = await sources.ask(artifact, method="HEAD", patient=False)
    except (ConnectionRefused, NameNotFound, Timeout, LeftAlone):
        raise
    except UpstreamError:
        return None
    try:
        head = await _head_of_file(artifact, stored, answer)
    except BaseException:
        answer.abort()
        raise
    if head is None:
        answer.discard()
        return None
    stored.head = head
    return answer, stored


async def _head_of_file(artifact: Artifact, stored: StoredBody, answer: Answer) -> Head | None:
    """The answer's head as that of the stored file, where both have the same digest, or else the same date and length.

    None where that is not so, or where it could not have been stored under a readable name as it was.
    """
    head = answer.head
    if not keepable(head, artifact) or head.get("Content-Encoding") is not None:
        return None
    if artifact.fault is not None and artifact.fault(head, None) is not None:
        return None
    if answer.length is not None and answer.length != stored.length:
        return None
    digest = artifact.digest_of(head)
    if digest is None:
        date = parse_date(head.last_modified)
        same = date is not None and date == parse_date(stored.head.last_modified)
        return head if same and answer.length is not None else None
    if digest.algorithm == "sha256":
        return head if digest.value == stored.sha256 else None
    same = await stored.hashed(digest.algorithm) == digest.value
    return head.with_headers({VERIFIED: str(digest)}) if same else None
