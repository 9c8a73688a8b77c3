"""The values all else speaks of: what is wanted (Artifact), how it is proved (Digest), what came with it (Head)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hashlib import _Hash

    from vault.interfaces import IBody

HEX = re.compile(r"[0-9a-f]+")
DIGEST_BYTES = {"sha256": 32, "sha384": 48, "sha512": 64, "sha1": 20, "md5": 16, "blake2b": 64}


@dataclass(frozen=True, slots=True)
class Digest:
    """The digest of a body: ``algorithm`` as hashlib names it, ``value`` in lower-case hexadecimal."""

    algorithm: str
    value: str

    def __post_init__(self) -> None:
        size = DIGEST_BYTES.get(self.algorithm)
        if size is None or len(self.value) != 2 * size or not HEX.fullmatch(self.value):
            raise ValueError(f"not a digest: {self.algorithm}:{self.value}")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``algorithm:hex``; raises ValueError for anything else."""
        algorithm, _, value = text.partition(":")
        return cls(algorithm, value.lower())

    def new(self) -> _Hash:
        """A fresh hash object of this algorithm."""
        return hashlib.new(self.algorithm)


Headers = tuple[tuple[str, str], ...]

PRIVATE_NOTE = "x-vault-"
"""What the names of fields begin with (in lower case) that the vault keeps in stored heads and sends to nobody."""

NOTED_URL = "X-Vault-Url"
"""See ``Artifact.note_url``."""

ASKED = "X-Vault-Asked"
"""In a stored head: the mark (``vault.urls.mark_of``) of the URL that the body was asked at, before redirects."""

MADE_FROM = "X-Vault-Made-From"
"""In the stored head of a document that was made of others: what it was made of."""


GONE = "X-Vault-Gone"
"""In a stored head: since when (POSIX seconds) the upstream has said that there is no such thing any more."""

TAKEN_UP = "X-Vault-Taken-Up"
"""In a stored head that was made from the file alone, its row being lost: when that was (POSIX seconds)."""

VERIFIED = "X-Vault-Digest"
"""In the stored head of a body that was verified by another digest than sha256: that digest, as its string."""


@lru_cache(256)  # a dozen fields of the same head are looked up for each request
def _joined(headers: Headers) -> Mapping[str, str]:
    """The fields by lower-case name, the lines of each joined."""
    found: dict[str, str] = {}
    for key, value in headers:
        name = key.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


@dataclass(frozen=True, slots=True)
class Head:
    """The status and end-to-end header fields an upstream sent, and when they were received.

    ``headers`` keep the order and spelling they came in, without hop-by-hop fields, framing fields and ``Set-Cookie``.
    ``requested_at`` and ``received_at`` are POSIX seconds: when the request (or its last revalidation) was sent and
    when its head arrived, which is what RFC 9111 section 4.2.3 computes the age from.
    """

    status: int = 200
    headers: Headers = ()
    requested_at: float = 0.0
    received_at: float = 0.0

    def get(self, name: str) -> str | None:
        """The field's value, its lines joined by ``", "`` (RFC 9110 section 5.3); None where it is absent."""
        return _joined(self.headers).get(name.lower())

    @property
    def etag(self) -> str | None:
        """The entity tag as sent, weak prefix and quotes included."""
        return self.get("ETag")

    @property
    def last_modified(self) -> str | None:
        """The modification date as sent."""
        return self.get("Last-Modified")

    def with_headers(self, changes: Mapping[str, str | None]) -> Head:
        """This head with some fields set, or removed where the value is None; others keep their place."""
        lowered = {name.lower() for name in changes}
        kept = [pair for pair in self.headers if pair[0].lower() not in lowered]
        kept.extend((name, value) for name, value in changes.items() if value is not None)
        return replace(self, headers=tuple(kept))

    def timed_as(self, answer: Head) -> Head:
        """This head with the times of an answer that confirms it (RFC 9111 section 4.2.3)."""
        return replace(self, requested_at=answer.requested_at, received_at=answer.received_at)

    def to_json(self) -> str:
        """A compact form for the index."""
        return json.dumps([self.status, self.headers, self.requested_at, self.received_at], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Head:
        """Read what ``to_json`` wrote; raises ValueError for anything else."""
        try:
            status, headers, requested_at, received_at = json.loads(text)
            pairs: Iterable[Any] = headers
            fields = tuple((str(name), str(value)) for name, value in pairs)
            return cls(int(status), fields, float(requested_at), float(received_at))
        except (TypeError, ValueError) as error:
            raise ValueError(f"not a stored head: {text[:80]!r}") from error


# RFC 8941: a comma and a member of a dictionary that is a byte sequence, with parameters, which mean nothing here.
_KEY = r"[a-z*][a-z0-9_.*-]*"
_MEMBER = re.compile(
    rf"[ \t]*,[ \t]*({_KEY})=:([A-Za-z0-9+/]*={{0,2}}):"
    rf"""(?:; *{_KEY}(?:=(?:"[^"\\]*"|[^\s",;]+))?)*"""
)
DIGEST_FIELDS = {"sha-256": "sha256", "sha-512": "sha512"}
"""The algorithms of RFC 9530 that prove something, by preference, as hashlib names them."""


def announced_digest(head: Head) -> Digest | None:
    """What ``Repr-Digest`` (RFC 9530) of a 200 says of the body; None where it says nothing that can be read.

    It holds for the representation as it is sent, with its content coding; a 203 was changed on the way.
    """
    if head.status != 200:
        return None
    field = ", " + (head.get("Repr-Digest") or "").strip()
    members: dict[str, str] = {}
    at = 0
    while at < len(field):
        member = _MEMBER.match(field, at)
        if member is None:
            return None
        members[member[1]] = member[2]
        at = member.end()
    for name, algorithm in DIGEST_FIELDS.items():
        text = members.get(name, "").rstrip("=")
        try:
            return Digest(algorithm, base64.b64decode(text + "=" * (-len(text) % 4), validate=True).hex())
        except ValueError:
            continue  # it is not given, or is no digest
    return None


@dataclass(frozen=True, slots=True)
class Artifact:
    """One thing a client can ask a backend for.

    ``key`` names it in the cache: ``<backend name>/<normalised raw path>[?query]``.  ``urls`` are where it can be had,
    in the order to try.  ``headers`` go with the upstream request.  ``max_age`` is how long (seconds) a stored copy is
    fresh; None means that it never changes.  ``volatile_max_age`` is used instead when the upstream's answer itself
    shows that it changes (an HTML page, ``no-cache``); None means that the answer is not asked.  ``digest`` is what
    the body must have, when that is known before; content that is stored under another key is then not fetched again.
    ``size``: its length in bytes, likewise; an answer of another length is not taken, and the next URL asked.

    ``in_order``: a URL is only asked once those before it have said 404; otherwise whichever answers will do.  Each may
    have another thing under that name: no part or validator of one's is ever shown to another, and with a ``gone_ttl``
    none is asked after the one that the stored copy came from.
    ``confirmed_by(stored, answer)``: an expired copy is revalidated by HEAD, and this says from the two heads whether
    it is still what the upstream has; where not, content that is stored anywhere with the digest that the answer names
    (``promised``) takes its place, else a GET follows.  ``kin``: what the keys of others begin with that may well have
    the same content: where one is stored, what is not is asked for by HEAD first, likewise.
    ``inherits(stored)``: private fields that a new body's stored head gets from the stored copy whose place it takes.
    ``supersedes(stored, answer)``: False where a 200 shows itself to be older than the stored copy, which is then kept.
    ``gone_ttl``: for how long (seconds) a stored copy is still served once the upstream says 404 or 410; None means for
    ever.  ``may_appear``: it may be there at any moment, such as content by its digest, so that a 404 or 410 is not
    remembered.  ``note_url``: the stored head keeps the URL that the body came from, after redirects, in the field
    ``NOTED_URL``; links in a page are relative to it.
    ``promised(head)``: the digest that the answer itself names; the body is checked as if it had been known before;
    without it ``Repr-Digest`` is looked at.  ``limit``: an answer that announces more bytes is refused.
    ``counted_as``: what the upstream counts a GET of it as, where it limits some requests apart from others: a 429 with
    ``Retry-After`` to one then holds for those that are counted alike, else for everything at that host.
    ``fault(head, body)``: what an answer is that cannot be what is wanted, such as "a web page"; None for a good one.
    It is asked of the head alone (``body`` is None), then, on another thread, of the beginning of a body that has come
    whole, before that counts as stored; a body that cannot be stored is not shown to it.
    ``kept_anyway``: the answer's Cache-Control does not keep it from being stored; for protocols whose own rules say
    what may be.
    ``slash_told``: a redirect that only adds a slash to the path is told to the client (``Slashed``): links in the page
    that it leads to are relative to that address.
    ``short``: it is soon over and others wait for what it says, such as a list, a page or a manifest: upstreams are
    asked for it before they are asked for files.
    """

    key: str
    urls: tuple[str, ...]
    headers: Headers = ()
    max_age: float | None = None
    volatile_max_age: float | None = None
    digest: Digest | None = None
    size: int | None = None
    backend: str = field(default="")
    in_order: bool = False
    confirmed_by: Callable[[Head, Head], bool] | None = field(default=None, compare=False)
    kin: str | None = None
    inherits: Callable[[IBody], Awaitable[Headers]] | None = field(default=None, compare=False)
    supersedes: Callable[[Head, Head], bool] | None = field(default=None, compare=False)
    gone_ttl: float | None = None
    may_appear: bool = False
    note_url: bool = False
    promised: Callable[[Head], Digest | None] | None = field(default=None, compare=False)
    limit: int | None = None
    counted_as: str = ""
    fault: Callable[[Head, bytes | None], str | None] | None = field(default=None, compare=False)
    kept_anyway: bool = False
    slash_told: bool = False
    short: bool = False

    @property
    def asked_at(self) -> str:
        """Key and first URL: what is missing in one place may be had under the same key from another."""
        return " ".join((self.key, *self.urls[:1]))

    def digest_of(self, head: Head) -> Digest | None:
        """The digest that a body with this head must have; None where nobody knows."""
        return self.digest or (None if self.promised is None else self.promised(head)) or announced_digest(head)

    async def succeeding(self, stored: IBody | None, head: Head) -> Head:
        """The head of a new body with what it is to keep of the stored copy whose place it takes."""
        if stored is None or self.inherits is None:
            return head
        return head.with_headers(dict(await self.inherits(stored)))

    def missing_for(self, negative_ttl: float) -> float:
        """For how long (seconds) it is remembered that it is missing, where that is ``negative_ttl`` for others."""
        return 0.0 if self.may_appear else negative_ttl

    @property
    def immutable(self) -> bool:
        """True where a stored copy is never rechecked, whatever the upstream's headers say."""
        return self.max_age is None and self.volatile_max_age is None
