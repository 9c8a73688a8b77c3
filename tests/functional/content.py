"""Bodies for tests: bytes that follow from a seed alone, any part of which can be had without making the rest."""

from __future__ import annotations

import functools
import hashlib
import random
import struct
from collections.abc import Iterator
from pathlib import Path

BLOCK = 64 * 1024
STAMP = struct.Struct(">QQ")


@functools.lru_cache(maxsize=64)
def _pattern(seed: int) -> bytes:
    return random.Random(seed).randbytes(BLOCK - STAMP.size)


class Content:
    """``size`` bytes that ``seed`` decides.

    Each block opens with the seed and its own number, so bytes that were shifted, repeated or taken from another
    object never compare equal.  A body of several gigabytes costs no memory.
    """

    def __init__(self, seed: int, size: int) -> None:
        self.seed = seed
        self.size = size

    def read(self, start: int, stop: int) -> bytes:
        """The bytes ``[start, stop)``, as far as they exist."""
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        first = start // BLOCK
        pattern = _pattern(self.seed)
        blocks = [STAMP.pack(self.seed, number) + pattern for number in range(first, (stop - 1) // BLOCK + 1)]
        offset = first * BLOCK
        return b"".join(blocks)[start - offset : stop - offset]

    def pieces(self, start: int, stop: int, step: int = BLOCK) -> Iterator[bytes]:
        """The same bytes in pieces of at most ``step``."""
        for offset in range(start, min(stop, self.size), step):
            yield self.read(offset, min(offset + step, stop))

    def whole(self) -> bytes:
        """All of it; for small bodies."""
        return self.read(0, self.size)

    def sha256(self) -> str:
        """The digest of all of it, in hexadecimal."""
        digest = hashlib.sha256()
        for piece in self.pieces(0, self.size, 1 << 20):
            digest.update(piece)
        return digest.hexdigest()


class Literal(Content):
    """A body that is spelled out."""

    def __init__(self, body: bytes) -> None:
        super().__init__(0, len(body))
        self._body = body

    def read(self, start: int, stop: int) -> bytes:
        return self._body[start:stop]


def sha256_of_file(path: Path) -> str:
    """The digest of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
