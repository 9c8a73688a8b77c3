"""A page as the index sent it."""

from __future__ import annotations

from dataclasses import dataclass

from vault.artifact import NOTED_URL, Head
from vault.outcome import Found


@dataclass(frozen=True, slots=True)
class Source:
    """A whole page as the index sent it: how it was had, its digest, and its bytes where they are at hand.

    ``older``: the index has another now, which cannot be read.
    """

    found: Found
    sha256: str
    data: bytes | None
    older: bool = False

    @property
    def head(self) -> Head:
        """What came with it."""
        return self.found.body.head

    @property
    def url(self) -> str:
        """Where it came from in the end."""
        return self.head.get(NOTED_URL) or ""
