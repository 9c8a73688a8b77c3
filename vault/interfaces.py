"""The places where parts plug in: read this first.

A backend says what a path means and where its bytes come from; a store keeps entries; an entry is a body that may
still be growing.  Readers follow an entry at their own offset, whether it is complete or not: that is the whole idea.
What takes more than one upstream request, or is made of what others are (an index page with its links changed), is a
recipe, which a backend gives in place of an artifact.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from vault.artifact import Artifact, Digest, Head, Headers
from vault.errors import VaultError

if TYPE_CHECKING:
    from vault.outcome import Asked, Found

T = TypeVar("T")

Ask = Callable[[str, Headers], Awaitable[tuple[Head, bytes]]]
"""Asks a URL that the upstream named, such as a token server's, with these fields; gives head and (small) body."""


class IBackend(Interface):
    """What a URL prefix means.  A backend does no I/O but in ``authorize``."""

    name: str = Attribute("The backend's name: its directory in the cache, its name in logs.")
    prefix: str = Attribute("The URL path prefix it serves; starts and ends with a slash.")
    upstreams: Sequence[str] = Attribute("The base URLs it fetches from, in order; without credentials.")
    members: Sequence[Member] = Attribute("Backends behind this one, each with an upstream side of its own.")

    def resolve(path: str, headers: Mapping[str, str]) -> Artifact | IRecipe:
        """What ``path`` stands for.

        ``path`` is what follows the prefix in the request target, still percent-encoded, its query included; dot
        segments, encoded slashes, backslashes and NUL have been refused before.  ``headers`` are the request's fields
        with lower-case names, the lines of each joined.  Raises a VaultError for a path that means nothing here.
        """

    def credentials(artifact: Artifact, url: str) -> Headers:
        """The header fields to send at once to a configured host, from what earlier challenges have taught."""

    def authorize(artifact: Artifact, challenge: str, ask: Ask) -> Deferred[Headers]:
        """The header fields that answer an upstream's ``WWW-Authenticate`` challenge (RFC 9110 section 11.6.1).

        ``ask`` is for a token server that the challenge names, which is empty where a 401 came without one.  Fires
        with no fields when there is no answer to it.
        """

    def heard(artifact: Artifact, head: Head) -> None:
        """An upstream has answered, with whatever status: what it says of its limits can be noted."""

    def refusal(status: int, error: VaultError) -> tuple[str, bytes] | None:
        """Content type and body of an answer that tells of ``error``; None for the vault's own plain text."""

    def figures() -> Iterable[Figure]:
        """What monitoring may want to know of this backend now, beside what is counted for every one."""


class IStartedBackend(IBackend):
    """A backend that does something before anybody asks."""

    def started(kitchen: IKitchen) -> None:
        """The vault has taken it up, with this kitchen: at its start, or when the configuration was read again."""


class IRegistryBackend(IBackend):
    """A backend whose resources clients also ask for at the root's ``/v2/``, as container registries are asked."""

    namespaces: Sequence[str] = Attribute("The registry names that clients may send as ``?ns=``, in lower case.")

    def resolve_in(namespace: str | None, path: str, headers: Mapping[str, str]) -> Artifact | IRecipe:
        """What ``path`` stands for in the registry that the client names; None where it names none."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure for monitoring: ``name`` and ``labels`` as Prometheus has them, without the vault's own prefix."""

    name: str
    help: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Member:
    """One of several backends behind one prefix; ``options`` are its UpstreamOptions."""

    backend: IBackend
    options: Any


class IRecipe(Interface):
    """How to have something that one upstream request does not give."""

    def find(kitchen: IKitchen, asked: Asked) -> Awaitable[Found]:
        """The body to serve; raises a VaultError."""


class IKitchen(Interface):
    """What recipes work with: one backend's part of the cache.  Every method that waits raises VaultErrors."""

    def now() -> float:
        """POSIX seconds."""

    def of(member: str) -> IKitchen:
        """The kitchen of the member backend of this name."""

    def ready() -> Awaitable[None]:
        """Wait until the kitchen that this one takes the place of, as the configuration was read again, has ended."""

    def find(artifact: Artifact, asked: Asked) -> Awaitable[Found]:
        """What to serve for a request that wants just this artifact; a HEAD may be answered by the upstream's HEAD."""

    def fetch(artifact: Artifact, no_cache: bool = False) -> Awaitable[Found]:
        """The artifact's body, from the store or being fetched."""

    def stored(key: str) -> Awaitable[IBody | None]:
        """What is stored under ``key``, however old; the upstream is not asked."""

    def settled(key: str) -> Awaitable[None]:
        """Wait until a body that has come whole under ``key`` is stored, which takes a moment more, or cannot be."""

    def read(body: IBody, limit: int) -> Awaitable[bytes]:
        """A whole body in memory, when it has come; raises BrokenAnswer for one of more than ``limit`` bytes."""

    def ask(artifact: Artifact, method: str = "HEAD", headers: Headers = ()) -> Awaitable[Head]:
        """The head of the upstream's answer (200, 203 or 304), its body left alone; nothing is stored."""

    def abandon(artifact: Artifact) -> None:
        """Give up a fetch of an artifact, by its URLs, that had no answer yet; who waits for it is told Abandoned."""

    def make(key: str, made_from: str, build: Callable[[], Iterable[bytes]], headers: Headers = ()) -> Awaitable[IBody]:
        """The document stored under ``key``, made of what ``made_from`` names (a digest, with a version of the form).

        Where what is stored was made of something else, ``build`` is called on another thread, once for all who wait,
        and what it yields is stored.  Its exceptions are raised here.
        """

    def put(key: str, head: Head, data: bytes) -> Awaitable[None]:
        """Store a whole body that was read elsewhere, with this head; nothing where the disk does not take it."""

    def adopt(key: str, digest: Digest, head: Head | None = None) -> Awaitable[IBody | None]:
        """Give content that is stored under any key this key too, with this head or its own; None if there is none."""

    def remove(key: str) -> Awaitable[None]:
        """Remove what is stored under ``key``."""

    def work(function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Compute ``function(*arguments)`` on another thread."""

    def sleep(seconds: float) -> Deferred[None]:
        """Fires after a while; can be cancelled."""

    def within(seconds: float, waiting: Deferred[T]) -> Awaitable[T]:
        """What ``waiting`` gives; raises TimeoutError where that takes longer, and cancels it."""

    def in_time(seconds: float, begin: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """The result of ``begin()``; raises TimeoutError where that takes longer, and it goes on."""

    def once(name: str, begin: Callable[[], Awaitable[T]]) -> Deferred[T]:
        """The result of ``begin()``, begun once for all who wait under this name; it goes on if they leave."""

    def behind(name: str, begin: Callable[[], Awaitable[Any]]) -> None:
        """Do something that nobody waits for, unless it is being done; a failure is logged, stopping cancels it.

        What must not be lost by that can be saved when it is cancelled: the store is still there for a moment.
        Nothing is begun once the kitchen was stopped.
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

    def ready(offset: int, count: int) -> int:
        """How many of ``count`` bytes of the file can be sent without waiting for the medium."""

    def at_hand(offset: int, count: int) -> bytes | None:
        """``count`` bytes where they can be had without waiting, fewer where the file is too short, or None."""

    def attach(reader: Reader) -> None:
        """Keep the bytes from ``reader.offset`` on readable until ``detach``."""

    def advance() -> None:
        """A reader's offset has moved: what every reader is past may be let go."""

    def detach(reader: Reader) -> None:
        """The reader needs no more.  Detaching twice is harmless."""
