"""Range requests (RFC 9110 section 14): which bytes are asked for, and how several parts are put into one answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_RANGES = 64
# More digits than any length has: enough to know that a position is past the end, without converting a long number.
MAX_DIGITS = 18

_SPEC = re.compile(r"(\d*)-(\d*)", re.ASCII)
_BOUNDARY = re.compile(r"[A-Za-z0-9_-]{1,70}")

Span = tuple[int, int]
"""Half-open: the offsets ``[start, stop)``."""


class Unsatisfiable(Exception):
    """None of the ranges asked for has a byte in this body: the answer is 416."""


def parse(value: str, length: int) -> list[Span] | None:
    """The spans that a ``Range`` value asks for in a body of ``length`` bytes, in the order they were asked for.

    None means that the field is ignored and the whole body served: it is malformed, has an unknown unit, more than 64
    ranges or more than two that overlap (RFC 9110 section 14.2), or asks for the end of an empty body, which no
    ``Content-Range`` can express.  Raises Unsatisfiable when no range begins inside the body.
    """
    specs = _specs(value)
    if specs is None:
        return None
    spans = []
    for first, last in specs:
        if first is None:
            assert last is not None
            if last and not length:
                return None
            start, stop = max(0, length - last), length
        else:
            start, stop = first, length if last is None else min(last + 1, length)
        if start < stop:
            spans.append((start, stop))
    if not spans:
        raise Unsatisfiable(value[:80])
    return None if _overlapping(spans) > 2 else spans


def first_offset(value: str) -> int | None:
    """The lowest start that a ``Range`` value names, where the length is not known yet; None if it names none."""
    starts = [first for first, _ in _specs(value) or () if first is not None]
    return min(starts, default=None)


def closed(value: str) -> Span | None:
    """The span of a ``Range`` value that names just one, with both its ends; None for any other."""
    specs = _specs(value)
    if specs is None or len(specs) != 1:
        return None
    first, last = specs[0]
    return None if first is None or last is None else (first, last + 1)


def content_range(start: int, stop: int, length: int | None) -> str:
    """The ``Content-Range`` of one part; ``length`` is None while the whole is not known."""
    return f"bytes {start}-{stop - 1}/{'*' if length is None else length}"


def unsatisfied_range(length: int) -> str:
    """The ``Content-Range`` of a 416 (RFC 9110 section 15.5.17)."""
    return f"bytes */{length}"


@dataclass(frozen=True, slots=True)
class Multipart:
    """The bytes around the parts of a ``multipart/byteranges`` body (RFC 9110 section 14.6).

    ``boundary`` is up to 70 letters, digits, ``-`` or ``_``, chosen so that the body does not contain it; ValueError
    otherwise.  ``content_type`` is the whole body's, None where the upstream gave none.
    """

    parts: Sequence[Span]
    length: int
    content_type: str | None
    boundary: str

    def __post_init__(self) -> None:
        if not _BOUNDARY.fullmatch(self.boundary):
            raise ValueError(f"not a boundary: {self.boundary!r}")

    @property
    def preambles(self) -> list[bytes]:
        """What goes before each part's bytes, in order."""
        typed = f"Content-Type: {self.content_type}\r\n" if self.content_type else ""
        texts = [
            f"--{self.boundary}\r\n{typed}Content-Range: {content_range(start, stop, self.length)}\r\n\r\n"
            for start, stop in self.parts
        ]
        return [(text if index == 0 else "\r\n" + text).encode("latin-1") for index, text in enumerate(texts)]

    @property
    def closing(self) -> bytes:
        """What goes after the last part."""
        return f"\r\n--{self.boundary}--\r\n".encode("ascii")

    @property
    def content_length(self) -> int:
        """The length of the answer in bytes: every preamble, every part and the closing delimiter."""
        parts = sum(stop - start for start, stop in self.parts)
        return sum(map(len, self.preambles)) + parts + len(self.closing)

    @property
    def header(self) -> bytes:
        """The answer's ``Content-Type``."""
        return b"multipart/byteranges; boundary=" + self.boundary.encode("ascii")


def _specs(value: str) -> list[tuple[int | None, int | None]] | None:
    """First and last position of each range as sent, or (None, n) for the last n bytes; None if malformed."""
    unit, equals, text = value.strip().partition("=")
    if unit.lower() != "bytes" or not equals:
        return None
    members = [member.strip(" \t") for member in text.split(",")]
    members = [member for member in members if member]
    if not 1 <= len(members) <= MAX_RANGES:
        return None
    specs = []
    for member in members:
        match = _SPEC.fullmatch(member)
        if match is None:
            return None
        first, last = _position(match[1]), _position(match[2])
        if first is None and last is None:
            return None
        if first is not None and last is not None and last < first:
            return None
        specs.append((first, last))
    return specs


def _position(digits: str) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= MAX_DIGITS else 10**MAX_DIGITS


def _overlapping(spans: list[Span]) -> int:
    """How many of the spans share a byte with another one."""
    ordered = sorted(spans)
    shared = [False] * len(ordered)
    furthest = 0
    for index in range(1, len(ordered)):
        if ordered[index][0] < ordered[furthest][1]:
            shared[furthest] = shared[index] = True
        if ordered[index][1] > ordered[furthest][1]:
            furthest = index
    return sum(shared)
