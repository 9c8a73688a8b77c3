"""Content codings that documents can be had in (RFC 9110 section 8.4.1): those of the standard library."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

try:
    _zstd: Any = importlib.import_module("compression.zstd")  # since Python 3.14 (PEP 784)
except ImportError:
    _zstd = None

CODINGS: tuple[str, ...] = ("gzip",) if _zstd is None else ("zstd", "gzip")
"""The codings there are, best first."""

GZIP = 16 + zlib.MAX_WBITS

MOST_LAYERS = 3
"""How many codings, one over the other, are undone."""

MOST_MEMBERS = 100
"""How many parts a body in gzip may have (RFC 1952 section 2.2): after each the rest is copied."""


def encode(coding: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces in one of ``CODINGS``; the same bytes give the same result."""
    compressor: Any = zlib.compressobj(6, zlib.DEFLATED, GZIP) if coding == "gzip" else _zstd.ZstdCompressor(level=6)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def decode(field: str | None, data: bytes, limit: int) -> bytes:
    """``data`` without the codings that a ``Content-Encoding`` field names: gzip and deflate, which any server may use.

    Raises ValueError for another coding, for what is none or breaks off, and for more than ``limit`` bytes.
    """
    names = [name.strip().lower() for name in (field or "").split(",")]
    layers = [name for name in names if name not in ("", "identity")]
    if len(layers) > MOST_LAYERS:
        raise ValueError(f"It has {len(layers)} content codings.")
    for name in reversed(layers):
        try:
            data = _decoded(name.removeprefix("x-"), data, limit)
        except zlib.error as error:
            raise ValueError(f"It is not in the content coding {name} that it is said to have: {error}.") from error
    return data


def _decoded(name: str, data: bytes, limit: int) -> bytes:
    if name == "gzip":
        return _inflated(data, GZIP, limit)
    if name != "deflate":
        raise ValueError(f"It has the content coding {name}, which nobody asked for.")
    try:
        return _inflated(data, zlib.MAX_WBITS, limit)
    except zlib.error:
        return _inflated(data, -zlib.MAX_WBITS, limit)  # without the zlib format around it, as some servers send it


def _inflated(data: bytes, window: int, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    for _ in range(MOST_MEMBERS):
        inflater = zlib.decompressobj(window)
        pieces.append(inflater.decompress(data, limit - size + 1))
        size += len(pieces[-1])
        if size > limit:
            raise ValueError(f"Unpacked it has more than {limit} bytes.")
        if not inflater.eof:
            raise ValueError("It breaks off in the middle of its content coding.")
        data = inflater.unused_data
        if window != GZIP or not data.startswith(b"\x1f\x8b"):
            return b"".join(pieces)
    raise ValueError(f"It has more than {MOST_MEMBERS} parts in gzip.")
