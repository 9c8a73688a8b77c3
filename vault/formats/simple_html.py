"""The HTML form of the Simple Repository API: rendered from the JSON form, and read into it.

The HTML form is frozen, so that it says less: no sizes, no upload times, no versions.

Source: packaging.python.org, specification "Simple repository API" (PEP 503, 592, 629, 658, 708, 714, 740, 792).
"""

from __future__ import annotations

import codecs
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from html import escape, unescape
from html.parser import HTMLParser
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from vault.formats.json_window import STEP, Text
from vault.formats.links import absolute, fragment_hashes, hashes_of
from vault.formats.names import is_distribution, is_name, normalise
from vault.formats.simple_json import File, Meta, best_hash, file_steps, meta_steps, project_steps

_ANCHORS = 20
"""How many anchors are rendered between two results: as many as a step of the JSON form has files."""

UNCLOSED = 128 * 1024
"""The most characters of a comment, a script or a tag: what has no end is looked through again with each step."""

LAST_TAG = 1000
"""The most characters of a tag at the end of a page that the end cuts off, which is passed over as browsers do it."""

SECONDS, SLOWEST = 5.0, 100_000
"""How long the reading of a page may take (seconds of one processor): this long, and so many bytes a second."""

LOOKED_AT = 20
"""How many links of a page without an entry are looked at to tell what it is."""

SAID = 2000
"""How many characters of the text outside of links are looked at to tell what a page without an entry is."""

_TITLES = re.compile("links for|index of|directory listing|simple list")
_LISTING = re.compile(f"{_TITLES.pattern}|simple index")
_TROUBLE = re.compile(
    r"not found|no such|not exist|unknown|error|denied|forbidden|unauthori|(log|sign)[ -]?in\b"
    r"|unavailable|maintenance|try again|\b[45]\d\d\b"
)
_OTHER_TAGS = frozenset({"form", "script", "iframe", "frameset"})

_UNCLOSED = "The page is not HTML, or something in it is not closed."

_T = TypeVar("_T")
_Attributes = list[tuple[str, str | None]]


def render(page: Text, about: Meta | None = None) -> Iterator[bytes]:
    """The HTML form of a project page in JSON, in ASCII.

    ``about`` is the page's ``meta``; where it is not given the page is passed over twice, so that its pieces, if it is
    in pieces, must be a list and not an iterator.  Chunks may be empty; each ends a short step.
    Raises ValueError, possibly late, where the page is no project page of version 1: keep nothing of it then.
    """
    return _render(page, about, file_steps(page), _file_anchor)


def render_root(page: Text, about: Meta | None = None) -> Iterator[bytes]:
    """The HTML form of the root index in JSON; its links are relative to the index.  Otherwise as ``render``."""
    return _render(page, about, project_steps(page), _project_anchor)


def read(body: bytes, charset: str | None, page_url: str, project: str) -> bytes:
    """The JSON form of a project page in HTML, as far as the page says what belongs there.

    ``charset`` is the one of its Content-Type, ``page_url`` where it was got in the end, and ``project`` the project's
    name.  URLs come out absolute.  Links to what is no distribution file are left out.  Raises ValueError where the
    page is of another version than 1, and where it is no page of an index, such as one to log in.
    """
    reader = _Reader(page_url, normalise(project))
    entries = (_file_entry(reader.base, *anchor) for anchor in reader.anchors(body, charset))
    return _document("files", entries, lambda found: {"name": normalise(project), **reader.about(found)})


def read_root(body: bytes, charset: str | None, page_url: str) -> bytes:
    """The JSON form of a root index in HTML.  Links to what is no project are left out.  Otherwise as ``read``."""
    reader = _Reader(page_url)
    entries = (_project_entry(reader.base, *anchor) for anchor in reader.anchors(body, charset))
    return _document("projects", entries, reader.about)


def _document(array: str, entries: Iterable[dict[str, Any] | None], about: Callable[[bool], dict[str, Any]]) -> bytes:
    """A page of the JSON form; what it says about itself is known when the last entry is, and told if there is one."""
    parts = [f'{{"{array}": ['.encode()]
    for entry in entries:
        if entry is not None:
            parts.extend((json.dumps(entry).encode(), b", "))
    found = len(parts) > 1
    if found:
        parts.pop()
    parts.append(f"], {json.dumps(about(found))[1:]}".encode())
    return b"".join(parts)


def _render(page: Text, about: Meta | None, items: Iterator[_T | None], anchor: Callable[[_T], str]) -> Iterator[bytes]:
    steps = iter(()) if about else meta_steps(page)
    while about is None:
        about = next(steps)  # the last one is the answer
        yield b""
    yield _ascii(_beginning(about))
    out: list[str] = []
    for item in items:
        if item is not None:
            out.append(anchor(item))
        if item is None or len(out) == _ANCHORS:
            yield _ascii("".join(out))
            out.clear()
    out.append("  </body>\n</html>\n")
    if about.last_serial is not None:
        out.append(f"<!--SERIAL {about.last_serial}-->\n")
    yield _ascii("".join(out))


def _ascii(text: str) -> bytes:
    """HTML that reads the same in every charset."""
    return text.encode("ascii", "xmlcharrefreplace")


def _beginning(about: Meta) -> str:
    metas = [("pypi:repository-version", about.api_version)]
    if about.status is not None:
        metas.append(("pypi:project-status", about.status))
    if about.status_reason is not None:
        metas.append(("pypi:project-status-reason", about.status_reason))
    metas.extend(("pypi:tracks", url) for url in about.tracks)
    metas.extend(("pypi:alternate-locations", url) for url in about.alternate_locations)
    title = "Simple index" if about.name is None else f"Links for {escape(about.name)}"
    heading = "" if about.name is None else f"    <h1>{title}</h1>\n"
    tags = "".join(f'    <meta name="{name}" content="{escape(content)}">\n' for name, content in metas)
    return f"<!DOCTYPE html>\n<html>\n  <head>\n{tags}    <title>{title}</title>\n  </head>\n  <body>\n{heading}"


def _project_anchor(name: str) -> str:
    return f'    <a href="{quote(normalise(name), safe="")}/">{escape(name)}</a><br>\n'


def _file_anchor(file: File) -> str:
    url = file.url.partition("#")[0]
    fragment = best_hash(hashes_of(file.hashes, file.url))
    attributes = [("href", f"{url}#{fragment[0]}={fragment[1]}" if fragment else url)]
    if file.requires_python is not None:
        attributes.append(("data-requires-python", file.requires_python))
    if file.core_metadata is not None and file.core_metadata is not False:
        known = None if file.core_metadata is True else best_hash(file.core_metadata)
        value = f"{known[0]}={known[1]}" if known else "true"
        attributes.extend((("data-core-metadata", value), ("data-dist-info-metadata", value)))
    if file.yanked is not False:
        attributes.append(("data-yanked", "" if file.yanked is True else file.yanked))
    if file.gpg_sig is not None:
        attributes.append(("data-gpg-sig", "true" if file.gpg_sig else "false"))
    if file.provenance is not None:
        attributes.append(("data-provenance", file.provenance))
    written = " ".join(f'{name}="{escape(value)}"' for name, value in attributes)
    return f"    <a {written}>{escape(file.filename)}</a><br>\n"


class _Reader(HTMLParser):
    """Collects the anchors of a page, and what its head says about the page."""

    rawdata: str  # the parser's own: what it has not been able to read yet
    cdata_elem: str | None  # likewise: the script or the like that it is in

    def __init__(self, page_url: str, project: str | None = None) -> None:
        super().__init__(convert_charrefs=True)
        self._project = project
        self.base = page_url
        self._page_url = page_url
        self._based = False
        self._tagged = self._other = self._versioned = False
        self._text = ""
        self._first: list[str] = []
        self._meta: dict[str, Any] = {"api-version": "1.0"}
        self._said: dict[str, Any] = {"meta": self._meta}
        self._done: list[tuple[_Attributes, str]] = []
        self._open: tuple[_Attributes, list[str]] | None = None

    def anchors(self, body: bytes, charset: str | None) -> Iterator[tuple[_Attributes, str]]:
        """The attributes and text of each anchor, read in short steps."""
        decoder = _decoder(charset)
        end = time.thread_time() + SECONDS + len(body) / SLOWEST
        try:
            for start in range(0, len(body), STEP):
                self.feed(decoder.decode(body[start : start + STEP]))
                yield from self._done
                self._done.clear()
                # What is not closed is read again with each piece.
                if len(self.rawdata) > UNCLOSED:
                    raise ValueError(_UNCLOSED)
                if time.thread_time() > end:
                    raise ValueError("The page takes too long to read.")
            self.feed(decoder.decode(b"", True))
            self._end()
        except AssertionError as error:  # what the parser says of some malformed declarations
            raise ValueError("The page is not HTML that can be read.") from error
        self._end_anchor()
        yield from self._done

    def _end(self) -> None:
        """Read the rest as far as it is text.

        The parser's own ``close`` looks for the end of each thing that has none in all that follows.
        """
        text, _, tag = self.rawdata.partition("<")
        if self.cdata_elem or tag.startswith(("!--", "![")) or len(tag) > LAST_TAG:
            raise ValueError(_UNCLOSED)
        self.rawdata = ""
        self.handle_data(unescape(text))

    def about(self, found: bool) -> dict[str, Any]:
        """``meta`` and what else a page says about itself, once it has been read; ``found``: it has an entry."""
        if not found and not self._versioned and not self._is_listing():
            raise ValueError("The page has none of an index's links and is no list of them: is it one to log in?")
        version = self._meta["api-version"]
        if version.partition(".")[0] != "1":
            raise ValueError(f"The page is of version {version!r} of the Simple Repository API, not of version 1.")
        return self._said

    def handle_starttag(self, tag: str, attrs: _Attributes) -> None:
        """Note what the tag says."""
        self._tagged = True
        if tag == "a":
            self._end_anchor()
            self._open = (attrs, [])
            if len(self._first) < LOOKED_AT:
                self._first += [href for name, href in attrs if name == "href" and href is not None]
        elif tag in _OTHER_TAGS:
            self._other = True
        elif tag == "base" and not self._based:
            href = dict(attrs).get("href")
            if href is not None:
                self._based = True
                self.base = absolute(self.base, href) or self.base
        elif tag == "meta":
            self._note(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        """End an anchor; one without its own end is ended by the next, as browsers do it."""
        if tag == "a":
            self._end_anchor()

    def handle_data(self, data: str) -> None:
        """Collect the anchor's text, and the beginning of all other."""
        if self._open:
            self._open[1].append(data)
        elif len(self._text) < SAID:
            self._text += data[:SAID]

    def handle_comment(self, data: str) -> None:
        """Read the serial that the public index's software appends."""
        serial = re.fullmatch(r"SERIAL (\d{1,18})", data.strip())
        if serial:
            self._meta["_last-serial"] = int(serial[1])

    def _end_anchor(self) -> None:
        if self._open:
            attributes, text = self._open
            self._done.append((attributes, "".join(text).strip()))
            self._open = None

    def _is_listing(self) -> bool:
        """True for a page without entries that looks like an empty list: not to log in, nor of some error."""
        text = normalise(self._text.strip())
        name = re.escape(self._project or "")
        named = re.search(rf"(?<![a-z0-9]){name}(?![a-z0-9])", text) is not None if name else True
        if named and _TITLES.search(text):
            return True  # devpi has a form on it, lighttpd a script, and many directories have other things in them
        if self._other or not self._tagged or any(map(self._leads_away, self._first)):
            return False
        return not text or bool(_LISTING.search(text) or (name and named and not _TROUBLE.search(text)))

    def _leads_away(self, href: str) -> bool:
        """True for a link that leads neither up nor to the page itself, as those of directory listings do."""
        page, link = urlsplit(self._page_url), urlsplit(absolute(self.base, href) or "")
        up = link.path == page.path or (link.path.endswith("/") and page.path.startswith(link.path))
        return link.netloc != page.netloc or not up

    def _note(self, attributes: dict[str, str | None]) -> None:
        content = (attributes.get("content") or "").strip()
        name = (attributes.get("name") or "").lower()
        if (attributes.get("http-equiv") or "").lower() == "refresh":
            self._other = True  # it leads to the page that is meant
        if name == "pypi:repository-version" and content:
            self._meta["api-version"] = content
            self._versioned = True
        elif name == "pypi:project-status" and content:
            self._said.setdefault("project-status", {})["status"] = content
        elif name == "pypi:project-status-reason" and content:
            self._said.setdefault("project-status", {})["reason"] = content
        elif name == "pypi:tracks" and content:
            self._meta.setdefault("tracks", []).append(content)
        elif name == "pypi:alternate-locations" and content:
            self._said.setdefault("alternate-locations", []).append(content)


def _decoder(charset: str | None) -> codecs.IncrementalDecoder:
    """A decoder for the page; one that is not known is taken for UTF-8, as clients do it."""
    name = (charset or "").strip("\"' ").lower()
    try:
        bytes(4).decode(name, "replace")  # refuses codecs that are not of text
        name = codecs.lookup(name).name
    except (LookupError, ValueError):
        name = "utf-8"
    return codecs.getincrementaldecoder("utf-8-sig" if name == "utf-8" else name)(errors="replace")


def _project_entry(base: str, attributes: _Attributes, text: str) -> dict[str, Any] | None:
    """An entry of ``projects``; None where the anchor is no project's."""
    url = absolute(base, dict(attributes).get("href")) or ""
    path = urlsplit(url).path
    last = unquote(path.rstrip("/").rpartition("/")[2])
    if path.endswith("/"):  # lists of directories have the slash in the text too, and cut off what is long
        text = last if text.endswith("..>") and last.startswith(text[:-3]) else text.removesuffix("/")
    return {"name": text} if is_name(text) and normalise(text) == normalise(last) else None


def _file_entry(base: str, attributes: _Attributes, text: str) -> dict[str, Any] | None:
    """An entry of ``files``; None where the anchor is no distribution file's."""
    given = dict(reversed(attributes))  # of an attribute written twice the first counts
    url, _, fragment = (absolute(base, given.get("href")) or "").partition("#")
    # Clients go by the URL; where that is a script's the text names the file.
    last = unquote(urlsplit(url).path.rpartition("/")[2])
    filename = next((name for name in (last, text) if is_distribution(name)), None)
    if not url or filename is None:
        return None
    entry: dict[str, Any] = {"filename": filename, "url": url, "hashes": fragment_hashes(fragment)}
    if given.get("data-requires-python"):
        entry["requires-python"] = given["data-requires-python"]
    core_metadata = given.get("data-core-metadata", given.get("data-dist-info-metadata"))
    if core_metadata:
        entry["core-metadata"] = fragment_hashes(core_metadata) or core_metadata.lower() == "true"
    if "data-yanked" in given:
        entry["yanked"] = given["data-yanked"] or True
    signed = (given.get("data-gpg-sig") or "").lower()
    if signed in ("true", "false"):
        entry["gpg-sig"] = signed == "true"
    if given.get("data-provenance"):
        entry["provenance"] = given["data-provenance"]
    return entry
