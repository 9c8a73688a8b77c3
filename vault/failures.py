"""Failures: what a cache remembers of artifacts that could not be had, so that upstreams are not asked in vain."""

from __future__ import annotations

import copy
from collections.abc import Callable

from vault.artifact import Artifact
from vault.errors import Missing, UpstreamError, VaultError
from vault.memory import Memory

REST = 10.0
"""Seconds for which a stored copy is served without asking, after the upstream failed to say if it is still good."""

PASS_MEMORY = 60.0
"""Seconds for which it is remembered that a body may not be stored, so that nobody waits for another's answer."""

LONGEST = 3600.0
"""The most seconds for which an upstream's wish not to be asked is passed on while nothing is stored."""


class Failures:
    """What was noticed of each artifact, for a while.  ``now`` gives seconds that never go back."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._missing = Memory(now)
        self._resting = Memory(now)
        self._passed = Memory(now)

    # -- of what is stored ------------------------------------------------------------------------------------------

    def rest(self, artifact: Artifact, error: VaultError | None = None) -> None:
        """For a while what is stored is served as it is: the upstream failed, or has not answered yet (None)."""
        asked_for = 0.0 if error is None else error.retry_after or 0.0
        self._resting.note(artifact.key, max(REST, asked_for), error)

    def resting(self, artifact: Artifact) -> str | None:
        """Why nobody is asked whether the stored copy is still good, in a word; None where somebody may be."""
        found = self._resting.get(artifact.key)
        if found is None:
            return None
        return found[1].proxy_error if found[1] is not None else "waiting"

    # -- of what is not ---------------------------------------------------------------------------------------------

    def note(self, artifact: Artifact, error: UpstreamError, negative_ttl: float) -> None:
        """Nothing is stored, and this is what the upstream said."""
        if isinstance(error, Missing):
            self._missing.note(artifact.asked_at, artifact.missing_for(negative_ttl), error)
        elif error.retry_after is not None:
            self._missing.note(artifact.asked_at, min(error.retry_after, LONGEST), error)

    def note_head(self, artifact: Artifact, error: Missing, negative_ttl: float) -> None:
        """The same of a HEAD request: some servers know nothing of what they have when they are asked so."""
        self._missing.note(f"HEAD {artifact.asked_at}", artifact.missing_for(negative_ttl), error)

    def recall(self, artifact: Artifact, head: bool = False) -> None:
        """Raise what was said of the artifact, where that still holds; ``head``: also what was said of a HEAD."""
        note = self._missing.get(artifact.asked_at)
        if note is None and head:
            note = self._missing.get(f"HEAD {artifact.asked_at}")
        if note is not None and note[1] is not None:
            error = copy.copy(note[1])
            error.remembered = True
            error.retry_after = None if error.retry_after is None else note[0]
            raise error

    # -- of both ----------------------------------------------------------------------------------------------------

    def passes(self, artifact: Artifact) -> None:
        """The upstream's answer may not be stored."""
        self._passed.note(artifact.key, PASS_MEMORY)

    def passed(self, artifact: Artifact) -> bool:
        """True while it is remembered that what comes may not be stored."""
        return self._passed.get(artifact.key) is not None

    def answered(self, artifact: Artifact) -> None:
        """The upstream has it after all."""
        self._missing.forget(artifact.asked_at)
        self._resting.forget(artifact.key)
