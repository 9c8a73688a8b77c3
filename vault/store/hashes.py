"""Hashes: the digests of files and of bodies that come, and how a file is read through for them.

To read GiBs takes long, and whoever stops the vault does not want to wait for it: what is read here is given up then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vault.artifact import Digest
from vault.errors import Stopping
from vault.store.disk import Disk

if TYPE_CHECKING:
    from hashlib import _Hash

    from vault.store.body import OpenFile

Piece = bytes | bytearray | memoryview

STEP = 1024 * 1024
"""Bytes that are read at a time: between two of them it is seen that the vault is being stopped."""


def pieces_of(file: OpenFile, disk: Disk, length: int | None = None) -> Iterator[bytes]:
    """On a thread of ``disk``: a file's bytes in order, to its end or to ``length``; raises Stopping, OSError."""
    offset = 0
    while length is None or offset < length:
        if disk.stopping:
            raise Stopping("the vault is stopping")
        data = file.read(offset, STEP if length is None else min(STEP, length - offset))
        if not data:
            return
        yield data
        offset += len(data)


def digest_of(file: OpenFile, algorithm: str, disk: Disk) -> str:
    """The digest of a whole file, in hexadecimal; raises Stopping, OSError."""
    digest = hashlib.new(algorithm)
    for data in pieces_of(file, disk):
        digest.update(data)
    return digest.hexdigest()


def sha256_of(file: OpenFile, disk: Disk) -> str:
    """The digest by which the index knows a file; raises Stopping, OSError."""
    return digest_of(file, "sha256", disk)


class Hashes:
    """The sha256 of a body and, where another kind of digest is expected, that one too.

    Used by one thread at a time; ``broken`` when some bytes could not be taken in, so that nothing can be said.
    """

    def __init__(self, expected: Digest | None) -> None:
        self.expected = expected
        self.broken = False
        self.sha256 = hashlib.sha256()
        self._other: _Hash | None = None
        if expected is not None and expected.algorithm != "sha256":
            self._other = expected.new()

    def update(self, data: Piece) -> None:
        """Take in the next bytes."""
        self.sha256.update(data)
        if self._other is not None:
            self._other.update(data)

    def read_prefix(self, file: OpenFile, length: int, disk: Disk) -> None:
        """Take in the bytes that an earlier fill left in the file; raises Stopping, OSError."""
        self.broken = True
        count = 0
        for data in pieces_of(file, disk, length):
            self.update(data)
            count += len(data)
        if count < length:
            raise OSError("the partial file became shorter while it was read")
        self.broken = False

    def agree(self) -> bool:
        """True unless another digest was expected."""
        if self.expected is None:
            return True
        if self.broken:
            return False
        found = self.sha256 if self._other is None else self._other
        return found.hexdigest() == self.expected.value
