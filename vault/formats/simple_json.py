"""The JSON form of the Simple Repository API, read and rewritten piece by piece.

A large project's page has 10,000 files and 10 MB, and the root index has more.  No page is decoded as a whole, and
every step of the iterators here takes well under a millisecond.  What is not understood is passed through as it was
written.  A page is given whole or in pieces; what comes of it may be cut anywhere, and chunks may be empty.

Source: packaging.python.org, specification "Simple repository API" (PEP 691, 700, 708, 714, 740, 792).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from vault.formats.json_window import STEP, Cursor, Member, Text

HASH_ORDER = ("sha256", "sha512", "sha384", "sha224", "sha1", "md5")
"""The algorithms to name where there is room for one hash: the usual one, then those pip knows in its order."""

Hashes = Mapping[str, str]

_NOTED = frozenset({"meta", "name", "project-status", "alternate-locations"})


class File(NamedTuple):
    """One entry of ``files``; what has another type than the specification says counts as absent.

    ``url`` is as written, so it may be relative to the page's.  ``core_metadata`` are the hashes of the file's metadata
    file, or whether there is one; the older spellings of the key are read too (PEP 714).  ``yanked`` is the reason, or
    True where none is given (PEP 592).  ``size`` is in bytes; ``upload_time`` is ISO 8601 as written (PEP 700).
    """

    filename: str
    url: str
    hashes: Hashes
    core_metadata: Hashes | bool | None = None
    requires_python: str | None = None
    yanked: str | bool = False
    gpg_sig: bool | None = None
    size: int | None = None
    upload_time: str | None = None
    provenance: str | None = None


class Meta(NamedTuple):
    """What a page says about itself; ``name`` is None in the root index, ``status`` where none is given (PEP 792)."""

    name: str | None = None
    api_version: str = "1.0"
    last_serial: int | None = None
    status: str | None = None
    status_reason: str | None = None
    tracks: tuple[str, ...] = ()
    alternate_locations: tuple[str, ...] = ()


def rewrite(page: Text, url_of: Callable[[File], str | None]) -> Iterator[bytes]:
    """The project page with each file's ``url`` replaced by what ``url_of`` returns; None leaves the file out.

    Everything else keeps its value, spelling and order.  Raises ValueError, possibly late, where this is no project
    page of version 1: keep nothing of it then.
    """
    out: list[str] = []
    done = 0
    separator = ""
    for piece in _Scan(page, "files").pieces():
        if isinstance(piece, str):
            out.append(piece)
            separator = ""
            done += len(piece)
        else:
            url = url_of(piece.file())
            if url is not None:
                out.append(separator)
                out.append(piece.with_url(url))
                separator = ","
            done += len(piece.text)
        if done >= STEP:
            yield "".join(out).encode()
            out.clear()
            done = 0
    yield "".join(out).encode()


def files(page: Text) -> Iterator[File]:
    """The files of a project page; raises ValueError, possibly late, where it is none of version 1."""
    return (file for file in file_steps(page) if file is not None)


def file_steps(page: Text) -> Iterator[File | None]:
    """The same in short steps: None ends one without a file."""
    for piece in _Scan(page, "files").pieces():
        yield None if isinstance(piece, str) else piece.file()


def projects(page: Text) -> Iterator[str]:
    """The names in the root index, as written; raises ValueError, possibly late, where it is none of version 1."""
    return (name for name in project_steps(page) if name is not None)


def project_steps(page: Text) -> Iterator[str | None]:
    """The same in short steps: None ends one without a name."""
    for piece in _Scan(page, "projects").pieces():
        yield None if isinstance(piece, str) else piece.string("name")


def meta(page: Text) -> Meta:
    """What a project page or the root index says about itself; raises ValueError where it is neither of version 1."""
    scan = _Scan(page, None)
    for _ in scan.pieces():
        pass
    return scan.meta()


def meta_steps(page: Text) -> Iterator[Meta | None]:
    """The same in short steps: None after each, and the answer in the end."""
    scan = _Scan(page, None)
    for _ in scan.pieces():
        yield None
    yield scan.meta()


def best_hash(hashes: Hashes) -> tuple[str, str] | None:
    """The algorithm and value to name where there is room for one hash."""
    return next(((name, hashes[name]) for name in HASH_ORDER if name in hashes), None)


class _Entry:
    """An object of ``files`` or ``projects``: its text and its members, of which the last one of a name counts."""

    __slots__ = ("_places", "_values", "text")

    def __init__(self, text: str, members: list[Member]) -> None:
        self.text = text
        self._values = {name: value for name, _, _, value in members}
        self._places = [(start, end) for name, start, end, _ in members if name == "url"]

    def with_url(self, url: str) -> str:
        """Its text with another URL."""
        literal = json.dumps(url)
        text = self.text
        for start, end in reversed(self._places):
            text = text[:start] + literal + text[end:]
        return text

    def string(self, name: str) -> str:
        """The value of a member that must be there."""
        value = self._values.get(name)
        if not isinstance(value, str):
            raise ValueError(f"The page has an entry without {name!r}.")
        return value

    def file(self) -> File:
        """What it says about a file."""
        get = self._values.get
        core_metadata = None
        for key in ("core-metadata", "dist-info-metadata", "data-dist-info-metadata"):
            core_metadata = _hashes_or_flag(get(key))
            if core_metadata is not None:
                break
        hashes = _hashes_or_flag(get("hashes"))
        yanked = get("yanked")
        size = get("size")
        return File(
            filename=self.string("filename"),
            url=self.string("url"),
            hashes={} if hashes is None or isinstance(hashes, bool) else hashes,
            core_metadata=core_metadata,
            requires_python=_string(get("requires-python")),
            yanked=yanked if isinstance(yanked, (str, bool)) else False,
            gpg_sig=_flag(get("gpg-sig")),
            size=size if isinstance(size, int) and not isinstance(size, bool) else None,
            upload_time=_string(get("upload-time")),
            provenance=_string(get("provenance")),
        )


class _Scan:
    """One pass over a page: the entries of its list ``array``, and the text between them."""

    def __init__(self, page: Text, array: str | None) -> None:
        self._cursor = Cursor(page)
        self._array = array
        self._found = array is None
        self._noted: dict[str, Any] = {}

    def pieces(self) -> Iterator[str | _Entry]:
        """Text as it is written, and entries; the commas between entries belong to neither.

        There is text, at least a bracket, before the first entry and after the last.
        """
        cursor = self._cursor
        if cursor.peek() != "{":
            raise ValueError("The page is not a JSON object.")
        cursor.skip("{")
        more = cursor.peek() != "}" or cursor.skip("}") != "}"
        while more:
            key = cursor.key()
            if key == self._array:
                self._found = True
                yield from self._entries()
            elif key in _NOTED:
                self._noted[key] = cursor.value()
                self._check_version()
            else:
                for _ in cursor.walk():
                    yield cursor.taken()
            more = cursor.skip(",}") == ","
        if cursor.peek():
            raise ValueError("The page is not JSON: something follows its end.")
        if not self._found:
            raise ValueError(f"The page has no list of {self._array}.")
        yield cursor.taken()

    def _entries(self) -> Iterator[str | _Entry]:
        cursor = self._cursor
        if cursor.peek() != "[":
            raise ValueError(f"The page's {self._array} are not a list.")
        cursor.skip("[")
        yield cursor.taken()
        more = cursor.peek() != "]" or cursor.skip("]") != "]"
        while more:
            yield _Entry(*cursor.members())
            more = cursor.skip(",]") == ","
            cursor.drop(but=0 if more else 1)

    def _check_version(self) -> None:
        version = self._member("meta", "api-version", "1.0")
        if not isinstance(version, str) or version.partition(".")[0] != "1":
            raise ValueError(f"The page is of version {version!r} of the Simple Repository API, not of version 1.")

    def _member(self, noted: str, name: str, default: Any = None) -> Any:
        """A member of an object noted, if there is such an object with such a member."""
        value = self._noted.get(noted)
        return value.get(name, default) if isinstance(value, dict) else default

    def meta(self) -> Meta:
        """What the page says about itself, once all of it has been passed."""
        serial = self._member("meta", "_last-serial")
        return Meta(
            name=_string(self._noted.get("name")),
            api_version=self._member("meta", "api-version", "1.0"),
            last_serial=serial if isinstance(serial, int) and not isinstance(serial, bool) else None,
            status=_string(self._member("project-status", "status")),
            status_reason=_string(self._member("project-status", "reason")),
            tracks=_strings(self._member("meta", "tracks")),
            alternate_locations=_strings(self._noted.get("alternate-locations")),
        )


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _hashes_or_flag(value: Any) -> Hashes | bool | None:
    if isinstance(value, dict):
        return {name: digest for name, digest in value.items() if isinstance(digest, str)}
    return _flag(value)
