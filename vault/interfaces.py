"""The places where parts plug in: read this first.

A backend says what a path means and where its bytes come from; a store keeps entries; an entry is a body that may
still be growing.  Readers follow an entry at their own offset, whether it is complete or not: that is the whole idea.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from vault.artifact import Artifact, Head, Headers


class IBackend(Interface):
    """What a URL prefix means.  A backend does no I/O but in ``authorize``."""

    name: str = Attribute("The backend's name: its directory in the cache, its name in logs.")
    prefix: str = Attribute("The URL path prefix it serves; starts and ends with a slash.")
    upstreams: Sequence[str] = Attribute("The base URLs it fetches from, in order; without credentials.")

    def resolve(path: str, headers: Mapping[str, str]) -> Artifact:
        """What ``path`` stands for.

        ``path`` is what follows the prefix in the request target, still percent-encoded, its query included; dot
        segments, encoded slashes, backslashes and NUL have been refused before.  ``headers`` are the request's fields
        with lower-case names, the lines of each joined.  Raises a VaultError for a path that means nothing here.
        """

    def authorize(artifact: Artifact, challenge: str) -> Deferred[Headers]:
        """The header fields that answer an upstream's ``WWW-Authenticate`` challenge (RFC 9110 section 11.6.1).

        Fires with no fields when there is no answer to it.
        """


class Reader(Protocol):
    """Somebody who reads a body; ``offset`` is the lowest byte still needed."""

    @property
    def offset(self) -> int:
        """A byte offset in the body."""
        ...


class IBody(Interface):
    """A body that grows, or has stopped growing, with the head that came with it.

    The bytes ``[floor, size)`` can be read now.  ``floor`` is 0 but for a body that is only passed through.
    """

    head: Head = Attribute("Status and header fields.")
    length: int | None = Attribute("The length of the whole body in bytes; None while it is not known.")
    size: int = Attribute("The offset after the last byte that can be read now.")
    complete: bool = Attribute("True when the body has stopped growing and is whole.")
    on_disk: int = Attribute("The bytes below this offset are in ``descriptor``, for sendfile.")
    descriptor: int | None = Attribute("The file's descriptor, open as long as the body is held; None without a file.")
    sha256: str | None = Attribute("The digest of the whole body in hexadecimal; None while it is not known.")

    def grown(offset: int) -> Deferred[None]:
        """Fires when the byte at ``offset`` is there or the body is complete; fails with Truncated."""

    def read(offset: int, limit: int) -> bytes | Deferred[bytes]:
        """At least one and at most ``limit`` bytes from ``offset``, which is below ``size``."""

    def attach(reader: Reader) -> None:
        """Keep the bytes from ``reader.offset`` on readable until ``detach``."""

    def advance() -> None:
        """A reader's offset has moved: what every reader is past may be let go."""

    def detach(reader: Reader) -> None:
        """The reader needs no more.  Detaching twice is harmless."""
