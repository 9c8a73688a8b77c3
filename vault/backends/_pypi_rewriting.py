"""From the page of an index to the page of the vault: pure functions of bytes, which run on another thread."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from email.message import Message

from vault.formats import simple_html, simple_json
from vault.formats.codings import decode
from vault.formats.links import link_of, url_hashes

PIECE = 256 * 1024
_LAST_TAG = re.compile(rb"</html\s*>\s*(?:<!--[^>]*-->\s*)*$", re.IGNORECASE)
_HTML = ("text/html", "application/vnd.pypi.simple.v1+html")


def unpacked(data: bytes, content_encoding: str | None, limit: int) -> bytes:
    """A page without the content coding that an index gave it though it was asked for none; raises ValueError.

    Some name a coding that they have not applied: what is plainly a page is taken as it is.
    """
    try:
        return decode(content_encoding, data, limit)
    except ValueError:
        if _first(data) in (b"{", b"<"):
            return data
        raise


def shows_its_end(data: bytes, content_encoding: str | None, limit: int) -> bool:
    """True for a page that cannot have been cut off: JSON that is whole, or HTML with its last tag."""
    try:
        page = unpacked(data, content_encoding, limit)
        if _first(page) != b"{":
            return _LAST_TAG.search(page[-1000:]) is not None
        simple_json.meta(page)
    except (ValueError, RecursionError):
        return False
    return True


def json_form(data: bytes, content_type: str | None, page_url: str, project: str | None) -> bytes:
    """The JSON form of a page, of a project or with None of the list of all; raises ValueError for what is no page."""
    said = Message()
    said["Content-Type"] = content_type or ""
    kind = said.get_content_type() if content_type else ""
    first = _first(data)
    if kind.endswith("json") or first == b"{":
        return data  # HTML does not begin so, whatever the index calls it
    if kind not in _HTML and first != b"<":
        raise ValueError(f"It is neither HTML nor JSON but {kind or 'of no type'}.")
    charset = said.get_content_charset()
    if project is None:
        return simple_html.read_root(data, charset, page_url)
    return simple_html.read(data, charset, page_url, project)


def _first(data: bytes) -> bytes:
    return data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


class Rewriting:
    """The rewriting of one page: ``files`` is what links begin with; files uploaded after ``cutoff`` are left out.

    Afterwards ``next`` is when the oldest of those was uploaded, ``last`` when the newest of the others was.  Files of
    an unknown age are left out too, as clients with a limit of their own do it.
    """

    def __init__(self, files: str, project: str | None, page_url: str, cutoff: float | None) -> None:
        self.next: float | None = None
        self.last: float | None = None
        self._files = files
        self._project = project
        self._page_url = page_url
        self._cutoff = cutoff

    def run(self, page: bytes) -> list[bytes]:
        """The page with the vault's links, in pieces; raises ValueError."""
        if self._project is None:
            simple_json.meta(page)  # that it is a page at all
            return [page]
        return joined(simple_json.rewrite(page, self._url))

    def _url(self, file: simple_json.File) -> str | None:
        link = link_of(file, self._page_url)
        if link is None or self._project is None:
            return None
        if self._cutoff is not None:
            if link.uploaded is None:
                return None
            if link.uploaded > self._cutoff:
                self.next = link.uploaded if self.next is None else min(self.next, link.uploaded)
                return None
            self.last = link.uploaded if self.last is None else max(self.last, link.uploaded)
        fragment = "&".join("=".join(item) for item in url_hashes(file.url).items())
        return self._files + link.path(self._project) + (fragment and f"#{fragment}")


def joined(pieces: Iterable[bytes]) -> list[bytes]:
    """The same bytes in fewer pieces: each costs the store some work."""
    return list(_joined(pieces))


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= PIECE:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    yield b"".join(waiting)
