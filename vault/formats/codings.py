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


def encode(coding: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces in one of ``CODINGS``; the same bytes give the same result."""
    compressor: Any = zlib.compressobj(6, zlib.DEFLATED, GZIP) if coding == "gzip" else _zstd.ZstdCompressor(level=6)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()
