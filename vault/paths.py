"""Request paths made canonical and safe, and the file names that cache keys are stored under.

``normalise`` gives one spelling to the paths that every server takes for the same, and refuses those that could mean
something else to the disk or the upstream.  ``file_name`` is injective: two different keys never share a file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote, unquote, unquote_to_bytes

from vault.errors import BadRequest

SAFE_DIRECTORY = ".vault-safe"
RESERVED_PREFIX = ".vault"
MAX_COMPONENT = 255
MAX_PATH = 3500
MAX_SLUG = 80

# RFC 3986 section 3.3: what a path segment may hold as it is, besides letters, digits and "-._~" (never quoted).
SEGMENT = "!$&'()*+,;=:@"

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PIECE = re.compile(rb"%([0-9A-Fa-f]{2})|[^%]+|%")
# What is its own canonical spelling: segments of unreserved characters, none of them "." or "..".
_ALREADY = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]*)+")
_NOT_IN_QUERY = re.compile(rb"[^\x21-\x7e]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def split(target: str) -> tuple[str, str | None]:
    """The path and the query of a target, at the first question mark; the query is None where there is none."""
    path, mark, query = target.partition("?")
    return path, query if mark else None


@lru_cache(256)  # the same ones are asked for again and again
def normalise(target: str | bytes, *, drop_single_dots: bool = False) -> str:
    """The canonical spelling of a raw request path with its optional query; the same again for its own result.

    Percent-encoded unreserved characters are decoded, hexadecimal digits are upper-cased (RFC 3986 section 6.2.2), and
    bytes that a path cannot hold are encoded.  Everything else, the case included, stays as it was sent; so does the
    query.  Text is taken as UTF-8; a request target should be given as the bytes it came in.

    ``.`` segments are refused, or left out with ``drop_single_dots`` (APT asks flat repositories for ``/./InRelease``).
    Raises BadRequest for a ``..`` segment, an encoded slash, a backslash or a control character, in any encoding, for a
    malformed percent-encoding in the path, and for a fragment.
    """
    if isinstance(target, str):
        try:
            target = target.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise BadRequest("The path is not valid text.") from error
    if b"#" in target:
        raise BadRequest("A request target has no fragment: encode '#' as %23.")
    if _ALREADY.fullmatch(target):
        return target.decode("ascii")
    raw_path, mark, query = target.partition(b"?")
    segments = "".join(_canonical(match) for match in _PIECE.finditer(raw_path)).split("/")
    if ".." in segments:
        raise BadRequest("The path has a '..' segment.")
    if "." in segments:
        if not drop_single_dots:
            raise BadRequest("The path has a '.' segment.")
        last = [""] if segments[-1] == "." else []  # "a/." is the directory "a/"
        segments = [segment for segment in segments if segment != "."] + last
    path = "/".join(segments)
    if not mark:
        return path
    return path + "?" + _NOT_IN_QUERY.sub(lambda match: b"%%%02X" % match[0][0], query).decode("ascii")


def _canonical(piece: re.Match[bytes]) -> str:
    """One run of plain bytes, or one percent-encoding, of a path."""
    text, digits = piece[0], piece[1]
    if digits is None:
        if text == b"%":
            raise BadRequest("The path has a malformed percent-encoding.")
        if b"\\" in text:
            raise BadRequest("The path has a backslash.")
        if any(byte < 0x20 or byte == 0x7F for byte in text):
            raise BadRequest("The path has a control character.")
        return quote(text, safe="/" + SEGMENT)
    byte = int(digits, 16)
    if byte == 0x2F:
        raise BadRequest("The path has an encoded slash.")
    if byte == 0x5C:
        raise BadRequest("The path has an encoded backslash.")
    if byte < 0x20 or byte == 0x7F:
        raise BadRequest("The path has an encoded control character.")
    return chr(byte) if byte in _UNRESERVED else f"%{byte:02X}"


def file_name(key: str) -> tuple[str, ...]:
    """Where the entry of a key ``<backend>/<path>[?query]`` is stored: path components below the cache directory.

    The percent-decoded path where that can be turned back into the key and a file system can hold it; else
    ``safe_name``.  Total, deterministic and injective, whatever the key.
    """
    backend, slash, path = key.partition("/")
    if not slash or "?" in path or not _fit(backend):
        return safe_name(key)
    components = [backend]
    for segment in path.split("/"):
        decoded = _decoded(segment)
        if decoded is None:
            return safe_name(key)
        components.append(decoded)
    if sum(len(component.encode()) + 1 for component in components) > MAX_PATH:
        return safe_name(key)
    return tuple(components)


def safe_name(key: str) -> tuple[str, ...]:
    """The form for keys that have no readable file name: found by hash, with a slug for people.

    Also for a key whose readable name cannot be made because a file is where it needs a directory, or the reverse
    (``a`` and ``a/b``).  It lies below the backend's directory, or at the top where the backend's name cannot be one.
    The query is left out of the slug: it may carry a token.
    """
    # surrogatepass: any text has a hash of its own, even what UTF-8 proper cannot hold
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    backend, _, rest = key.partition("/")
    top = (backend,) if _fit(backend) else ()
    readable = unquote(split(rest)[0], errors="replace")
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", readable)[-MAX_SLUG:].strip("-.") or "index"
    return (*top, SAFE_DIRECTORY, digest[:2], f"{digest}-{slug}")


def key_of(components: Sequence[str]) -> str | None:
    """The key that ``file_name`` stores under these components; None for a safe form and for anything not its own."""
    if len(components) < 2:
        return None
    try:
        key = "/".join([components[0], *(quote(component, safe=SEGMENT) for component in components[1:])])
    except UnicodeEncodeError:  # a name on disk that is not UTF-8, read with surrogateescape
        return None
    return key if file_name(key) == tuple(components) else None


def _decoded(segment: str) -> str | None:
    """The file name for one path segment; None where it would not lead back to the segment, or is not fit."""
    try:
        decoded = unquote_to_bytes(segment).decode("utf-8")
    except UnicodeError:
        return None
    return decoded if _fit(decoded) and quote(decoded, safe=SEGMENT) == segment else None


def _fit(name: str) -> bool:
    """True where every file system we run on can hold this name, and it is not one of the vault's own."""
    if name in ("", ".", "..") or name.startswith(RESERVED_PREFIX):
        return False
    if "/" in name or "\\" in name or _CONTROL.search(name):
        return False
    try:
        return len(name.encode("utf-8")) <= MAX_COMPONENT
    except UnicodeEncodeError:
        return False
