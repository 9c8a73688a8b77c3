"""Files whose digest is known: from the upstream by whatever name it has them, again where something else came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from twisted.logger import Logger

from vault.artifact import Artifact, Headers
from vault.backends._apt_suite import Suite
from vault.errors import DigestMismatch, OtherVersion
from vault.formats.apt_release import Release
from vault.freshness import parse_date
from vault.interfaces import IBody, IKitchen
from vault.outcome import Found, How

if TYPE_CHECKING:
    from vault.backends.apt import AptBackend

HOLD = 0.5
"""Seconds for which the first byte of a file waits for the last one, so that a wrong file is not begun to be sent."""

PATIENT_HOLD = 8.0
"""The same for index files, which clients cannot use in part, and for what will be whole by then at the rate so far.

apt waits 30 s for the next byte.  What it would get meanwhile it can use no earlier, and the vault is near.
"""

LOOK = 0.25
"""Seconds between looks at that rate."""

SUSPICIOUS = 120.0
"""Seconds for which a path is sent whole after something else than its digest says was sent under it.

APT asks for the rest of what it has then, which would be put together with the wrong beginning.
"""

ANEW: Headers = (("Cache-Control", "no-cache"), ("Pragma", "no-cache"))

END = 2**63


@dataclass(slots=True)
class Hold:
    """How long one request is held: ``least`` seconds for each body, ``left`` for all that are tried one after another.

    Each is given HOLD in any case.  ``begun`` is True once one has begun to come.
    """

    least: float = HOLD
    left: float = PATIENT_HOLD
    begun: bool = False


log = Logger()


def attempts(artifact: Artifact, mirrors: int) -> Sequence[Artifact]:
    """An artifact, and the same from the next mirror first, past every cache on the way."""
    each = len(artifact.urls) // max(1, mirrors)
    turned = artifact.urls[each:] + artifact.urls[:each] if mirrors > 1 else artifact.urls
    return (artifact, replace(artifact, urls=turned, headers=artifact.headers + ANEW))


async def fetch(backend: AptBackend, kitchen: IKitchen, artifact: Artifact, hold: Hold | None = None) -> Found:
    """The body of an artifact whose digest is known, asked for twice if need be; raises a VaultError.

    A mismatch that shows while the first byte is held, see ``_wait``, costs the client nothing; a later one cuts it
    off, and for a while the path is suspicious: whoever asks for the rest of it gets all of it.
    """
    hold = hold or Hold()
    suspects = backend.suspects(kitchen)
    suspicious = suspects.get(artifact.key) is not None
    found: Found | None = None
    wanted = attempts(artifact, len(backend.upstreams))
    for number, attempt in enumerate(wanted):
        try:
            found = await kitchen.fetch(attempt)
            hold.begun = True
            await _wait(kitchen, found, artifact.size, hold)
            break
        except (OtherVersion, DigestMismatch) as error:
            suspects.note(artifact.key, SUSPICIOUS)
            log.warn("{key}: {error}", key=artifact.key, error=str(error))
            if number + 1 == len(wanted):
                raise
    assert found is not None
    found.exact_date = True
    head = found.head or found.body.head
    if parse_date(head.last_modified) is None:
        found.head = head.with_headers({"Last-Modified": None})  # apt takes no answer with a date that it cannot read
    if suspicious:
        found.ranges = False
    if not found.body.complete and found.how is not How.BYPASS:

        def noted(failure: object) -> None:
            if isinstance(getattr(failure, "value", None), DigestMismatch):
                suspects.note(artifact.key, SUSPICIOUS)

        found.body.grown(END).addErrback(noted)
    return found


async def _wait(kitchen: IKitchen, found: Found, size: int | None, hold: Hold) -> None:
    """Until the body is whole; not longer than ``hold`` says, unless its end is in sight.  Raises DigestMismatch."""
    body = found.body
    if body.complete or found.how is How.BYPASS:
        return
    size = body.length if size is None else size
    first = body.size
    held, most = 0.0, max(HOLD, hold.left)
    reader = _Glance()
    body.attach(reader)  # where the disk fails meanwhile, what no longer goes there is kept for the client
    try:
        while True:
            hold.left -= LOOK
            try:
                await kitchen.within(LOOK, body.grown(END))
                return
            except TimeoutError:
                held += LOOK
            if held >= most:
                return
            late = size is None or held * (size - first) > most * (body.size - first)
            if late and held >= hold.least:
                return
    finally:
        kitchen.sleep(0).addBoth(lambda slept: body.detach(reader))  # when the client has attached to it


async def fetch_index(
    backend: AptBackend, kitchen: IKitchen, suite: Suite, release: Release, name: str, hold: Hold | None = None
) -> Found:
    """An index file as a Release lists it; raises a VaultError."""
    artifact = backend.index_artifact(suite, name, release.files[name], release.by_hash)
    found = await fetch(backend, kitchen, artifact, hold or Hold(PATIENT_HOLD))
    if found.how is not How.BYPASS:
        backend.state.packages.describe(kitchen, name, artifact.key, found.body)
    return found


class _Glance:
    """A reader that only looks."""

    offset = 0


def let_go(body: IBody) -> None:
    """Tell a body that nobody will read it."""
    body.attach(_GLANCE)
    body.detach(_GLANCE)


_GLANCE = _Glance()
