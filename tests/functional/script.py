"""What the scripted origin has and how it misbehaves: plain values, no I/O."""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.functional.content import Content, Literal

RANGE = re.compile(r"bytes=(\d*)-(\d*)")
OLD_DATE = "Wed, 01 Jan 2020 00:00:00 GMT"
MIB = 1 << 20


@dataclass
class Answer:
    """How one GET is answered; the default is an honest server.

    Delays are in seconds, ``rate`` in bytes per second, ``drop_after`` and ``stall_after`` in bytes of this answer's
    body.  A stall ends when ``release`` is set; without one it lasts until the peer leaves or the origin stops.
    ``claim`` is added to the true Content-Length.  ``raw`` replaces everything: these bytes are sent, then the
    connection is closed.
    """

    delay: float = 0.0
    body_delay: float = 0.0
    rate: float | None = None
    drop_after: int | None = None
    reset: bool = False
    stall_after: int | None = None
    release: threading.Event | None = None
    hang: bool = False
    claim: int = 0
    framing: str = "length"  # or "chunked", "broken-chunked" (no last chunk), "close" (ends with the connection)
    ignore_range: bool = False
    content_range: str | None = None
    status: int | None = None
    redirect: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Content | None = None
    etag: str | None = None
    raw: bytes | None = None


@dataclass
class Resource:
    """One object of the origin: ``script`` has the answers to its first GETs, ``default`` is every later one's."""

    content: Content
    etag: str | None = '"1"'
    last_modified: str | None = OLD_DATE
    content_type: str | None = "application/octet-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    default: Answer = field(default_factory=Answer)
    script: list[Answer] = field(default_factory=list)
    login: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        self.script = list(self.script)  # answers are taken from it as they are given


@dataclass
class Record:
    """A request that the origin saw: header names are in lower case, ``sent`` counts body bytes given to the kernel."""

    method: str
    target: str
    headers: dict[str, str]
    lines: list[tuple[str, str]]
    peer: tuple[str, int]
    time: float = field(default_factory=time.monotonic)
    sent: int = 0
    status: int = 0

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


def content_of(path: str, content: Content | bytes | None, size: int) -> Content:
    """The body of ``path``: as given, or ``size`` bytes that are different for each path."""
    if isinstance(content, Content):
        return content
    if content is not None:
        return Literal(content)
    return Content(zlib.crc32(path.encode()), size)


def requested_range(record: Record, resource: Resource, size: int, etag: str | None) -> tuple[int, int] | str | None:
    """The ``(start, stop)`` that a request's Range asks for, "unsatisfiable", or None for the whole body."""
    match = RANGE.fullmatch(record.headers.get("range", ""))
    if match is None or match.group(0) == "bytes=-":
        return None
    condition = record.headers.get("if-range")
    if condition is not None and (condition.startswith("W/") or condition not in (etag, resource.last_modified)):
        return None
    first, last = match.groups()
    if not first:
        length = int(last)
        return (max(0, size - length), size) if length and size else "unsatisfiable"
    start, stop = int(first), min(int(last) + 1 if last else size, size)
    if start >= size:
        return "unsatisfiable"
    return start, stop


def unchanged(record: Record, resource: Resource, etag: str | None) -> bool:
    """True where the request's conditions call for 304 (RFC 9110 section 13.2.2)."""
    tags = record.headers.get("if-none-match")
    if tags is not None:
        listed = [tag.strip().removeprefix("W/") for tag in tags.split(",")]
        return etag is not None and (etag.removeprefix("W/") in listed or "*" in listed)
    since = record.headers.get("if-modified-since")
    return since is not None and since == resource.last_modified
