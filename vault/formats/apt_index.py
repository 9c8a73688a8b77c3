"""Index files of APT repositories: which files they describe, read as a stream, however large and however compressed.

``entries`` gives what a table (``vault.formats.table``) of them holds: canonical path, size and digest of each file.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vault.artifact import DIGEST_BYTES, Digest
from vault.formats.apt_paths import canonical, is_size, join

STEP = 16 * 1024
LONGEST_LINE = 16 * 1024 * 1024

_SECTIONS = {
    "checksums-sha256": "sha256",
    "sha256-download": "sha256",
    "checksums-sha1": "sha1",
    "sha1-download": "sha1",
    "files": "md5",
}
"""The fields of Sources and of ``*.diff/Index`` whose lines are digest, size and name of one file each."""

_DIGESTS = {"sha256": "sha256", "sha512": "sha512", "sha1": "sha1", "md5sum": "md5"}
"""The fields of Packages that hold a digest."""

_RANK = ("sha256", "sha512", "sha1", "md5")
_WANTED = {*_SECTIONS, *_DIGESTS, "filename", "size", "directory", "package"}


def kind(name: str) -> str | None:
    """``Packages``, ``Sources`` or ``Index`` for an index file that describes files; None for others."""
    base = name.rpartition("/")[2].partition(".")[0]
    if base in ("Packages", "Sources"):
        return base
    return "Index" if name.endswith(".diff/Index") else None


def readable(name: str) -> bool:
    """True where this Python can decompress a file of this name."""
    return _decompressor(name) is not None


def _decompressor(name: str) -> Callable[[], Any] | None:
    suffix = name.rpartition("/")[2].partition(".")[2].rpartition(".")[2]
    if suffix == "zst":
        try:
            return getattr(importlib.import_module("compression.zstd"), "ZstdDecompressor", None)
        except ImportError:  # before Python 3.14
            return None
    known: dict[str, Callable[[], Any]] = {
        "gz": lambda: zlib.decompressobj(wbits=31),
        "xz": lzma.LZMADecompressor,
        "lzma": lzma.LZMADecompressor,
        "bz2": bz2.BZ2Decompressor,
    }
    return known.get(suffix, _Plain if suffix in ("", "diff/Index") else None)


class _Plain:
    """Passes on what is not compressed."""

    eof = False
    unused_data = b""

    def decompress(self, data: bytes) -> bytes:
        """The same bytes."""
        return data


def lines(name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines, without line feeds, of a file of this name that comes in pieces; raises ValueError where it cannot."""
    make = _decompressor(name)
    if make is None:
        raise ValueError(f"{name} is compressed in a way that is not known here")
    decompressor, rest = make(), b""
    try:
        for piece in pieces:
            waiting = piece
            while waiting:
                if decompressor.eof:  # several compressed streams one after another are one file
                    decompressor = make()
                # In small steps: what comes out may be ten times as much.
                block = rest + decompressor.decompress(waiting[:STEP])
                waiting = (decompressor.unused_data if decompressor.eof else b"") + waiting[STEP:]
                whole, feed, rest = block.rpartition(b"\n")
                if feed:
                    yield from whole.split(b"\n")
                elif len(rest) > LONGEST_LINE:
                    raise ValueError(f"{name} has a line that does not end")
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise ValueError(f"{name} cannot be decompressed: {error}") from error
    if rest:
        yield rest


def _stanzas(raw: Iterable[bytes]) -> Iterator[dict[str, list[bytes]]]:
    """The stanzas, of each only the fields that are wanted: the lines of each by lower-case name."""
    stanza: dict[str, list[bytes]] = {}
    current: list[bytes] | None = None
    for line in raw:
        if not line.strip():
            if stanza:
                yield stanza
            stanza, current = {}, None
        elif line[:1] in (b" ", b"\t"):
            if current is not None:
                current.append(line)
        else:
            field, _, value = line.partition(b":")
            name = field.decode("ascii", "replace").lower()
            current = stanza.setdefault(name, [value]) if name in _WANTED else None
    if stanza:
        yield stanza


def entries(name: str, pieces: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Path and description of every file that the index file ``name`` tells of, for a table.

    Paths are relative to the repository's root, those of an ``Index`` to its own directory.  Raises ValueError.
    """
    for stanza in _stanzas(lines(name, pieces)):
        if "filename" in stanza:
            found = {
                algorithm: _text(stanza[field][0]) for field, algorithm in _DIGESTS.items() if field in stanza
            }  # fmt: skip
            yield from _described(_text(stanza["filename"][0]), _text(stanza.get("size", [b""])[0]), found)
            continue
        directory = _text(stanza["directory"][0]) if "directory" in stanza else ""
        files: dict[str, tuple[str, dict[str, str]]] = {}
        for field, algorithm in _SECTIONS.items():
            for line in stanza.get(field, []):
                words = _text(line).split()
                if len(words) == 3:
                    files.setdefault(words[2], (words[1], {}))[1][algorithm] = words[0]
        for file, (size, digests) in files.items():
            yield from _described(join(directory, file), size, digests)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").strip()


def _described(file: str, size: str, digests: dict[str, str]) -> Iterator[tuple[str, str]]:
    path = canonical(file)
    for algorithm in _RANK:
        value = digests.get(algorithm, "").lower()
        if path is not None and is_size(size) and len(value) == 2 * DIGEST_BYTES[algorithm]:
            yield path, f"{size} {algorithm}:{value}"
            return


def described(value: str) -> tuple[int, Digest]:
    """Size and digest from a table's value; raises ValueError."""
    size, _, digest = value.partition(" ")
    return int(size), Digest.parse(digest)
