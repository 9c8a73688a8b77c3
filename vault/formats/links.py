"""Where the files of a project page lie: their URLs, what the vault calls them, and a table to find them in.

The table has a line for each file of a page (``vault.formats.table``): what must be known to fetch the file is found
by its name, without reading the page again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from vault.artifact import Digest
from vault.formats.simple_json import HASH_ORDER, File, Hashes
from vault.paths import SEGMENT

MARK = re.compile(r"[0-9a-f]{16}|u[0-9a-f]{15}")
"""What ``mark`` makes."""

# What nearly all links are: nothing in them to be escaped, resolved or refused.
_PLAIN = re.compile(r"https?://[a-z0-9-]+(?:\.[a-z0-9-]+)+/(?!\.)(?:[A-Za-z0-9_~%+!-]|\.(?!\.)|/(?!\.))*")
_SLASHES = re.compile(r"[/\\\x00-\x1f\x7f]")


class Link(NamedTuple):
    """One file that a page links to.

    ``url`` is absolute, without a fragment.  ``core_metadata`` are the hashes of its metadata file, or whether there is
    one.  ``uploaded`` is POSIX seconds, None where the page does not say.
    """

    filename: str
    url: str
    hashes: Hashes
    core_metadata: Hashes | bool = False
    gpg_sig: bool = False
    provenance: str | None = None
    uploaded: float | None = None

    @property
    def mark(self) -> str:
        """What tells this file from others of the same name: its hash, or where none is known its URL, shortened."""
        digest = best_digest(self.hashes)
        return mark_of(digest) if digest is not None else "u" + hashlib.sha256(self.url.encode()).hexdigest()[:15]

    def path(self, project: str) -> str:
        """Its path below the vault's route for files; the last segment is just the file's name."""
        return f"{project}/{self.mark}/{quote(self.filename, safe=SEGMENT)}"

    def to_json(self) -> str:
        """A line of the table, but for the name."""
        return json.dumps(self[1:], separators=(",", ":"))

    @classmethod
    def from_json(cls, filename: str, text: str) -> Link:
        """Read what ``to_json`` wrote."""
        return cls(filename, *json.loads(text))


def mark_of(digest: Digest) -> str:
    """The mark of a file with this digest."""
    if digest.algorithm == "sha256":
        return digest.value[:16]
    return hashlib.sha256(str(digest).encode()).hexdigest()[:16]


def absolute(base: str, href: str | None) -> str | None:
    """The URL that a link points at, with what may not stand in a URL escaped; None for what is no link on the web.

    A user name and a password in it are dropped: they would be in logs, and the backend has keys for them.  Dots in its
    path are resolved also where it has a host of its own: clients never send them.
    """
    if href is None or _PLAIN.fullmatch(href):
        return href
    # White space as browsers treat it (URL standard section 4.4), and a percent sign left as it is.
    written = re.sub(r"[\t\n\r]", "", href.strip(" \t\n\r\f"))
    try:
        parts = urlsplit(urljoin(base, quote(written, safe="%/:=&?~#+!$,;'@()*[]")))
        host = parts.netloc.rpartition("@")[2]
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    path = urlsplit(urljoin("http://host/", f"/.{parts.path}")).path if "/." in parts.path else parts.path
    return parts._replace(netloc=host, path=path).geturl() if usable else None


def link_of(file: File, page_url: str) -> Link | None:
    """The link of an entry of the page at ``page_url``; None where nothing can be had by it.

    What a page got by https links to by http must be proved by a hash: anybody on the way could change it.
    """
    url = absolute(page_url, file.url)
    if url is None or not fit(file.filename):
        return None
    hashes = hashes_of(file.hashes, url)
    open_way = page_url.startswith("https:") and url.startswith("http:")
    if open_way and best_digest(hashes) is None:
        return None
    core_metadata = False if file.core_metadata is None else file.core_metadata
    if open_way and best_digest(core_metadata) is None:
        core_metadata = False
    return Link(
        file.filename,
        url.partition("#")[0],
        hashes,
        core_metadata,
        bool(file.gpg_sig),
        absolute(page_url, file.provenance),
        posix_time(file.upload_time),
    )


def hashes_of(hashes: Hashes, url: str) -> Hashes:
    """An entry's hashes, or where none of them is of use those of its URL's fragment, by which clients check too."""
    if "#" not in url or best_digest(hashes) is not None:
        return hashes
    return {**hashes, **url_hashes(url)}


def url_hashes(url: str) -> dict[str, str]:
    """The hashes in a URL's fragment, if one of them can be verified by."""
    if "#" not in url:
        return {}
    hashes = fragment_hashes(url.partition("#")[2].strip())
    return {} if best_digest(hashes) is None else hashes


def fragment_hashes(text: str) -> dict[str, str]:
    """The hashes in ``sha256=...``, of which a fragment may have several among other things."""
    pairs = (part.partition("=") for part in text.split("&"))
    return {
        name: value.lower() for name, _, value in pairs if name in HASH_ORDER and re.fullmatch("[0-9a-fA-F]+", value)
    }


def fit(filename: str) -> bool:
    """True for a name that can be the last segment of a URL and of a path on disk."""
    if filename in ("", ".", "..") or _SLASHES.search(filename):
        return False
    try:
        filename.encode()
    except UnicodeEncodeError:
        return False
    return True


def table_entries(files: Iterable[File], page_url: str) -> Iterator[tuple[str, str]]:
    """What ``table.build`` makes the table of a page of.

    Where a page has several files of one name, the first is found by its name and each by its name and mark.
    """
    seen: set[str] = set()
    for file in files:
        link = link_of(file, page_url)
        if link is None:
            continue
        if file.filename in seen:
            yield f"{link.filename}/{link.mark}", link.to_json()
        else:
            seen.add(file.filename)
            yield link.filename, link.to_json()


def best_digest(hashes: Hashes | bool) -> Digest | None:
    """The digest to verify by: the first in the usual order that is one."""
    if isinstance(hashes, Mapping):
        for algorithm in HASH_ORDER:
            try:
                return Digest(algorithm, hashes.get(algorithm, "").lower())
            except ValueError:
                continue
    return None


def posix_time(text: str | None) -> float | None:
    """The POSIX seconds of an upload time, with its zone (RFC 3339; PEP 700 wants Z); None for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", text, re.ASCII)
    if match is None:
        return None
    try:
        whole = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    except ValueError:
        return None
    return whole.timestamp() + float(match[2] or 0)
