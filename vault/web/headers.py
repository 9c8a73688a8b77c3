"""The header fields of the vault's own answers, as pure functions."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache

from vault.artifact import PRIVATE_NOTE, Head, Headers
from vault.freshness import FRAMING, HOP_BY_HOP, PRIVATE_TO_UPSTREAM, end_to_end
from vault.outcome import How

__all__ = [
    "NOT_MODIFIED_FIELDS",
    "Fields",
    "cache_status",
    "date_of",
    "end_to_end",
    "not_modified_fields",
    "repr_digest",
    "response_fields",
    "retry_after_value",
]

CACHE_NAME = "ArtifactVault"
DEFAULT_RETRY = 5
MAX_RETRY = 60

NOT_MODIFIED_FIELDS = frozenset(
    {
        b"accept-ranges",
        b"age",
        b"cache-control",
        b"content-location",
        b"date",
        b"etag",
        b"expires",
        b"last-modified",
        b"vary",
    }
)
"""Lower-case names of the fields that a 304 repeats (RFC 9110 section 15.4.5); clients such as uv need the ETag."""

Fields = list[tuple[bytes, bytes]]

# What the vault says itself; of what is whole a Content-Range would be wrong (RFC 9110 section 14.4).
_DROPPED = FRAMING | HOP_BY_HOP | PRIVATE_TO_UPSTREAM | {"content-range", "age", "accept-ranges"}

_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")
_FORWARDED = {How.MISS: "uri-miss", How.JOINED: "uri-miss", How.REVALIDATED: "stale", How.BYPASS: "bypass"}


@lru_cache(4)
def date_of(second: int) -> bytes:
    """The HTTP-date (RFC 9110 section 5.6.7) of POSIX seconds; many answers are given in the same one."""
    return formatdate(second, usegmt=True).encode("ascii")


def response_fields(head: Head, *, age: float | None, accept_ranges: bool) -> Fields:
    """The fields of an answer made from ``head``, in the upstream's order and spelling.

    Content-Length and other framing are left to the caller.  ``age`` (seconds) becomes a whole ``Age``; with None there
    is no Age at all.  ``accept_ranges`` says what the vault does with ranges, whatever the upstream does.  An answer
    that came without Date is given the time of its receipt (RFC 9110 section 6.6.1).
    """
    fields = [*_passed_on(head.headers)]
    if head.get("Date") is None and head.received_at:
        fields.append((b"Date", date_of(int(head.received_at))))
    if age is not None:
        fields.append((b"Age", b"%d" % max(0, int(age))))
    if accept_ranges:
        fields.append((b"Accept-Ranges", b"bytes"))
    return fields


@lru_cache(256)
def _passed_on(headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(
        (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in headers
        if name.lower() not in _DROPPED and not name.lower().startswith(PRIVATE_NOTE)
    )


def not_modified_fields(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Those of a 200's fields that its 304 repeats."""
    return [(name, value) for name, value in fields if name.lower() in NOT_MODIFIED_FIELDS]


def cache_status(
    how: How,
    *,
    existing: str | None = None,
    fwd: str | None = None,
    fwd_status: int | None = None,
    stored: bool = False,
    collapsed: bool = False,
    ttl: int | None = None,
    detail: str | None = None,
) -> str:
    """The ``Cache-Status`` value (RFC 9211), added after the ``existing`` one of the caches before us.

    ``fwd`` says why the upstream was asked; where it is None it follows from ``how``, and HIT and STALE are hits.
    ``fwd_status``, ``stored`` and ``collapsed`` are said only of a forwarded request, as section 2 wants.  ``ttl`` is
    in seconds, negative once expired.  Raises ValueError if ``fwd`` is not a token.
    """
    reason = fwd if fwd is not None else _FORWARDED.get(how)
    member = [CACHE_NAME]
    if reason is None:
        member.append("hit")
    else:
        if not _TOKEN.fullmatch(reason):
            raise ValueError(f"not a token: {reason!r}")
        member.append(f"fwd={reason}")
        if fwd_status is not None:
            member.append(f"fwd-status={fwd_status}")
        if stored:
            member.append("stored")
        if collapsed:
            member.append("collapsed")
    if ttl is not None:
        member.append(f"ttl={ttl}")
    if detail:
        member.append(f"detail={detail if _TOKEN.fullmatch(detail) else _string(detail)}")
    ours = "; ".join(member)
    return f"{existing}, {ours}" if existing and existing.strip() else ours


def _string(text: str) -> str:
    """A structured field string (RFC 8941 section 3.3.3); what it cannot hold becomes a question mark."""
    printable = re.sub(r"[^\x20-\x7e]", "?", text)
    return '"' + re.sub(r'(["\\])', r"\\\1", printable) + '"'


def retry_after_value(seconds: float | None) -> bytes:
    """The ``Retry-After`` value: a whole number from 1 to 60, since some clients cannot read a date; 5 if unknown."""
    if seconds is None or math.isnan(seconds):
        return b"%d" % DEFAULT_RETRY
    return b"%d" % math.ceil(min(max(seconds, 1), MAX_RETRY))


def repr_digest(sha256_hex: str) -> bytes:
    """The ``Repr-Digest`` value (RFC 9530 section 3) for a sha256 in hexadecimal; ValueError if it is not one."""
    return b"sha-256=:" + base64.b64encode(bytes.fromhex(sha256_hex)) + b":"
