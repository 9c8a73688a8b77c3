"""JSON texts too long to decode at once: a cursor with a window that slides over them (RFC 8259).

Every call takes time in proportion to the window at most, except where one single value is larger than it.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

Text = bytes | Iterable[bytes]
"""A text whole or in pieces of any size; UTF-8, a byte order mark is passed over."""

STEP = 16 * 1024
"""How much of a text (characters) is worked on between two results."""

WINDOW = 64 * 1024
"""How much of a text (bytes) is decoded at once."""

LARGEST = 1024 * 1024
"""The largest value (characters) that must be decoded as a whole."""

DEEPEST = 128
"""How deep lists and objects may be nested: as deep as the strictest client reads."""

_TOO_DEEP = "The page has lists and objects within each other too deeply."
_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN_KEY = re.compile(r'[ \t\n\r]*"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
_AFTER_MEMBER = re.compile(r"[ \t\n\r]*([,}])")
# Only so many at once, so that one call stays short.
_PLAIN_ITEMS = re.compile(r'(?:[ \t\n\r]*"[^"\\\x00-\x1f]*"[ \t\n\r]*,){1,200}')
_EMPTY = re.compile(r"\{[ \t\n\r]*\}")


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


# json.loads would accept NaN and Infinity, which other readers refuse.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


class Member(NamedTuple):
    """A member of an object: where its value is in the object's text, and what it is."""

    name: str
    start: int
    end: int
    value: Any


class Cursor:
    """A place in a JSON text.

    What has been passed since ``taken`` or ``drop`` is kept for the next ``taken``.  Every method raises ValueError,
    with a sentence about "the page", where the text is not JSON.
    """

    def __init__(self, text: Text) -> None:
        self._pieces = _cut(text)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._ended = False
        self._kept: list[str] = []
        self._window = ""
        self._mark = 0
        self._at = 0

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the text."""
        while True:
            space = _SPACE.match(self._window, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._window):
                return self._window[self._at]
            if not self._more():
                return ""

    def skip(self, expected: str) -> str:
        """Pass the next character that is not white space, which must be one of these; returns it."""
        character = self.peek()
        if not character:
            raise ValueError("The page ends too early.")
        if character not in expected:
            raise ValueError(f"The page is not JSON: {character!r} where one of {expected!r} should be.")
        self._at += 1
        return character

    def key(self) -> str:
        """Pass the name of a member and its colon; returns the name."""
        if self.peek() != '"':
            raise ValueError("The page is not JSON: a member has no name.")
        name: str = self.value()
        self.skip(":")
        return name

    def value(self) -> Any:
        """Pass a value of at most ``LARGEST`` characters; returns it decoded."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._at)
            except (ValueError, RecursionError) as error:
                if self._more():
                    continue
                raise _not_json(error) from error
            # A number may go on beyond the window; cut within "1e+5" it seems to end two characters before.
            if end + 3 > len(self._window) and self._more():
                continue
            self._at = end
            return value

    def members(self) -> tuple[str, list[Member]]:
        """Pass an object of at most ``LARGEST`` characters; returns its text and its members."""
        if self.peek() != "{":
            raise ValueError("The page has something else where an object should be.")
        while True:
            try:
                members, end = _members(self._window, self._at)
            except (ValueError, RecursionError) as error:
                if self._more():
                    continue
                raise _not_json(error) from error
            text = self._window[self._at : end]
            self._at = end
            return text, members

    def walk(self) -> Iterator[None]:
        """Pass a value of any size, in short steps."""
        closing: list[str] = []
        start = self._at
        while True:
            if not start <= self._at < start + STEP:
                start = self._at
                yield
            opening = self.peek()
            if opening == '"' and closing and closing[-1] == "]":
                plain = _PLAIN_ITEMS.match(self._window, self._at)
                if plain:
                    self._at = plain.end()
                    continue
            if opening not in ("{", "["):
                self.value()
            elif not self._pass_whole():
                closing.append(self._enter())
                if len(closing) > DEEPEST:
                    raise ValueError(_TOO_DEEP)
                if self.peek() != closing[-1]:
                    if opening == "{":
                        self.key()
                    continue
            while closing and self.skip("," + closing[-1]) != ",":
                closing.pop()
            if not closing:
                return
            if closing[-1] == "}":
                self.key()

    def taken(self) -> str:
        """The text passed since the last time."""
        text = "".join((*self._kept, self._window[self._mark : self._at]))
        self.drop()
        return text

    def drop(self, but: int = 0) -> None:
        """Forget the text passed, except for its last ``but`` characters."""
        self._kept.clear()
        self._mark = self._at - but

    def _enter(self) -> str:
        """Pass the beginning of a list or object; returns what ends it."""
        return "}" if self.skip("{[") == "{" else "]"

    def _pass_whole(self) -> bool:
        """Pass a list or object at once if it ends within the window."""
        try:
            self._at = _DECODER.raw_decode(self._window, self._at)[1]
        except (ValueError, RecursionError):
            return False
        return True

    def _more(self) -> bool:
        """Widen the window; False at the end of the text.

        Its growth by doubling keeps it cheap to start again with a value that did not end within it.
        """
        if self._ended:
            return False
        rest = len(self._window) - self._at
        if rest > LARGEST:
            raise ValueError(f"The page is not JSON, or has a value of more than {LARGEST} characters.")
        if self._mark < self._at:
            self._kept.append(self._window[self._mark : self._at])
        parts = [self._window[self._at :]]
        missing = max(WINDOW, rest)
        try:
            while missing > 0 and not self._ended:
                piece = next(self._pieces, b"")
                self._ended = not piece
                parts.append(self._decoder.decode(piece, self._ended))
                missing -= len(piece)
        except UnicodeDecodeError as error:
            raise ValueError("The page is not UTF-8.") from error
        self._window = "".join(parts)
        self._at = self._mark = 0
        return True


def _cut(text: Text) -> Iterator[bytes]:
    """The text in pieces that are neither empty nor larger than the window."""
    for piece in (text,) if isinstance(text, bytes) else text:
        for start in range(0, len(piece), WINDOW):
            yield piece[start : start + WINDOW]


def _members(window: str, start: int) -> tuple[list[Member], int]:
    """The members of the object that begins at ``start``, placed relative to it, and where it ends."""
    empty = _EMPTY.match(window, start)
    if empty:
        return [], empty.end()
    members: list[Member] = []
    at = start + 1
    while True:
        plain = _PLAIN_KEY.match(window, at)
        if plain:
            name, at = plain[1], plain.end()
        else:
            name, at = _escaped_key(window, at)
        value, end = _DECODER.raw_decode(window, at)
        members.append(Member(name, at - start, end - start, value))
        after = _AFTER_MEMBER.match(window, end)
        if not after:
            raise ValueError("a member ends neither with a comma nor with a brace")
        at = after.end()
        if after[1] == "}":
            return members, at


def _escaped_key(window: str, at: int) -> tuple[str, int]:
    """A member's name that is not written plainly, and where its value begins."""
    name, at = _DECODER.raw_decode(window, _after_space(window, at))
    at = _after_space(window, at)
    if not isinstance(name, str) or window[at : at + 1] != ":":
        raise ValueError("a member has no name")
    return name, _after_space(window, at + 1)


def _after_space(window: str, at: int) -> int:
    space = _SPACE.match(window, at)
    return space.end() if space else at


def _not_json(error: Exception) -> ValueError:
    """The same error in a sentence; the position it names would be the window's."""
    if isinstance(error, RecursionError):
        return ValueError(_TOO_DEEP)
    return ValueError(f"The page is not JSON: {getattr(error, 'msg', error)}.")
