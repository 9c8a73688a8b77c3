"""Backend: what the backends have in common, so that each says only what is its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.internet.defer import Deferred, succeed

from vault.artifact import Artifact, Head, Headers
from vault.errors import VaultError
from vault.interfaces import Ask, Figure, Member


class Backend:
    """The parts of IBackend that most backends need nothing of."""

    members: Sequence[Member] = ()

    def credentials(self, artifact: Artifact, url: str) -> Headers:
        """Nothing: a configured user name and password go with every request."""
        return ()

    def authorize(self, artifact: Artifact, challenge: str, ask: Ask) -> Deferred[Headers]:
        """Nothing to add to what was sent already."""
        return succeed(())

    def heard(self, artifact: Artifact, head: Head) -> None:
        """Nothing is noted."""

    def figures(self) -> Iterable[Figure]:
        """None of its own."""
        return ()

    def refusal(self, status: int, error: VaultError) -> tuple[str, bytes] | None:
        """Plain text, as the vault's own."""
        return None
