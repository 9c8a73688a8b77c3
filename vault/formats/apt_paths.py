"""What a path of an APT repository is: a Release file, an index file below one, a file named by its hash, or another.

Paths are canonical, as ``vault.paths`` makes them: percent-encoded, without ``.`` segments.  A *suite* is a directory
with a Release file: ``dists/noble``, or any directory of a flat repository, the empty one included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import quote, unquote, unquote_to_bytes

RELEASE_FILES = ("InRelease", "Release", "Release.gpg")
SAFE = "/!$&'()*+,;=:@"
"""What stays unencoded in a canonical path, beside letters, digits and ``-._~`` (RFC 3986 section 3.3)."""

ALGORITHMS = {"SHA256": "sha256", "SHA512": "sha512", "MD5Sum": "md5", "SHA1": "sha1"}
"""The names of the digests in Release files and in ``by-hash``, and hashlib's."""

SPELLINGS = {algorithm: spelling for spelling, algorithm in ALGORITHMS.items()}

_INDEX = re.compile(r"(Packages|Sources)(\.[a-z0-9]+)?|(Contents|Translation|Commands|Components|icons|dep11)-.*")
_BY_HASH = re.compile(r"(?:(.*)/)?by-hash/(SHA256|SHA512|MD5Sum|SHA1)/([0-9a-fA-F]+)")
_PATCH = re.compile(r"(.*\.diff)/(?!Index$)[^/]+")
# Below a suite there are Release files too, of one architecture each, which the suite's own one lists.
_INNER_RELEASE = re.compile(r"(.*/)?(binary-[^/]+|source)/Release")


class Kind(Enum):
    """What a path is."""

    RELEASE = auto()
    INDEX = auto()
    BY_HASH = auto()
    PATCH = auto()
    LISTING = auto()
    FILE = auto()


@dataclass(frozen=True, slots=True)
class Place:
    """A classified path.

    ``directory`` and ``name`` are its parts; for BY_HASH they are the index file's directory and the hexadecimal
    digest, of which ``algorithm`` is hashlib's name.
    """

    kind: Kind
    directory: str
    name: str
    algorithm: str = ""


def classify(path: str) -> Place:
    """What a canonical path without its query is."""
    directory, _, name = path.rpartition("/")
    if not name:
        return Place(Kind.LISTING, directory, name)
    if (match := _BY_HASH.fullmatch(path)) is not None:
        return Place(Kind.BY_HASH, match[1] or "", match[3].lower(), ALGORITHMS[match[2]])
    if name in RELEASE_FILES and not _INNER_RELEASE.fullmatch(path):
        return Place(Kind.RELEASE, directory, name)
    if (match := _PATCH.fullmatch(path)) is not None:
        return Place(Kind.PATCH, directory, name)
    if in_dists(path) or _INDEX.fullmatch(unquote(name)) or name == "Index":
        return Place(Kind.INDEX, directory, name)
    return Place(Kind.FILE, directory, name)


def one_spelling(path: str) -> str:
    """A canonical path with every character unencoded that can be: apt encodes ``+``, others do not."""
    return quote(unquote_to_bytes(path), safe=SAFE)


def as_sent(path: str) -> str:
    """How such a path is asked for: with ``+`` encoded, as apt does, since some stores take it for a space."""
    raw, mark, query = path.partition("?")
    return raw.replace("+", "%2B") + mark + query


def in_dists(path: str) -> bool:
    """True for what lies below ``dists/``, where everything belongs to a suite."""
    return path.startswith("dists/") or "/dists/" in path


def join(directory: str, name: str) -> str:
    """The path of something in a directory, which may be the empty one."""
    return f"{directory}/{name}" if directory and name else directory or name


def relative(path: str, directory: str) -> str | None:
    """The path below a directory; None where it is not in there."""
    if not directory:
        return path
    return path[len(directory) + 1 :] if path.startswith(directory + "/") else None


def ancestors(directory: str) -> Iterator[str]:
    """A directory and all above it, the empty one last."""
    while directory:
        yield directory
        directory = directory.rpartition("/")[0]
    yield ""


def guessed_suite(directory: str) -> str:
    """The suite that an index file in ``directory`` most likely belongs to, when no Release file was seen yet."""
    parts = directory.split("/")
    if "dists" in parts[:-1]:
        return "/".join(parts[: parts.index("dists") + 2])
    return directory


def roots(suite: str) -> tuple[str, ...]:
    """The directories that the ``Filename`` of a suite's packages may be relative to.

    That is the one above ``dists``; for a flat repository the base URL of the client's source is not known.
    """
    parts = suite.split("/")
    if "dists" in parts[:-1]:
        return ("/".join(parts[: parts.index("dists")]),)
    return tuple(ancestors(suite))


def canonical(name: str) -> str | None:
    """The canonical path of a file name as index files have it: not encoded; None for one that leads elsewhere."""
    segments = [segment for segment in name.split("/") if segment not in ("", ".")]
    if not segments or ".." in segments:
        return None
    return quote("/".join(segments), safe=SAFE)


def by_hash(name: str, algorithm: str, value: str) -> str:
    """The path, relative like ``name``, under which a file of that name is published by its digest."""
    return join(name.rpartition("/")[0], f"by-hash/{SPELLINGS[algorithm]}/{value}")


def is_size(text: str) -> bool:
    """True for a number of bytes that a file can have; Python refuses to read thousands of digits as a number."""
    return text.isascii() and text.isdigit() and len(text) < 20
