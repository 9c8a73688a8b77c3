"""Content codings."""

from __future__ import annotations

import gzip
import importlib.util
import sys
import zlib
from types import ModuleType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from vault.formats import codings
from vault.formats.codings import CODINGS, decode, encode


class StandIn:
    """What Python 3.14 has of zstd (PEP 784), with a coding of its own that can be told from others."""

    MARK = b"(zstd)"

    class ZstdCompressor:
        """A compressor that is told its level by name."""

        def __init__(self, *, level: int) -> None:
            self._packed = zlib.compressobj(level)
            self._begun = False

        def compress(self, data: bytes) -> bytes:
            """A part of the result."""
            mark, self._begun = b"" if self._begun else StandIn.MARK, True
            return mark + self._packed.compress(data)

        def flush(self) -> bytes:
            """The rest of it."""
            return self._packed.flush()

    @classmethod
    def decompress(cls, data: bytes) -> bytes:
        """The inverse; raises ValueError."""
        if not data.startswith(cls.MARK):
            raise ValueError("not made here")
        return zlib.decompress(data.removeprefix(cls.MARK))


def loaded(zstd: ModuleType | None) -> Any:
    """The module as it is where this is ``compression.zstd``, or with None where Python has none."""
    names = ("compression", "compression.zstd")
    before = {name: sys.modules.get(name) for name in names}
    spec = importlib.util.spec_from_file_location("codings_elsewhere", codings.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        for name in names:
            sys.modules[name] = zstd  # type: ignore[assignment]  # None there makes the import fail
        spec.loader.exec_module(module)
    finally:
        for name, known in before.items():
            if known is None:
                del sys.modules[name]
            else:
                sys.modules[name] = known
    return module


class EncodeTests(SynchronousTestCase):
    """The codings that pages are sent in."""

    def test_round_trip(self) -> None:
        """What is encoded, in pieces, is the document again when it is decoded, and the same bytes each time."""
        pieces = [b"one " * 1000, b"", b"two " * 1000]
        packed = b"".join(encode("gzip", pieces))
        self.assertEqual(gzip.decompress(packed), b"".join(pieces))
        self.assertEqual(packed, b"".join(encode("gzip", pieces)))

    def test_offered(self) -> None:
        """zstd is offered, before gzip, just where this Python has it."""
        self.assertEqual(CODINGS, ("zstd", "gzip") if sys.version_info >= (3, 14) else ("gzip",))

    def test_without_zstd(self) -> None:
        """Where Python has no zstd there is gzip alone."""
        module = loaded(None)
        self.assertEqual(module.CODINGS, ("gzip",))
        self.assertEqual(gzip.decompress(b"".join(module.encode("gzip", [b"a", b"b"]))), b"ab")

    def test_with_zstd(self) -> None:
        """Where Python has it, both can be had, each as it is."""
        module = loaded(StandIn)  # type: ignore[arg-type]  # it has what is used of the module
        self.assertEqual(module.CODINGS, ("zstd", "gzip"))
        self.assertEqual(StandIn.decompress(b"".join(module.encode("zstd", [b"a", b"b"]))), b"ab")
        self.assertEqual(gzip.decompress(b"".join(module.encode("gzip", [b"a", b"b"]))), b"ab")


class DecodeTests(SynchronousTestCase):
    """The codings that servers use unasked."""

    def test_none(self) -> None:
        """No coding, or one that means none, changes nothing."""
        for field in (None, "", "identity", " , Identity,"):
            self.assertEqual(decode(field, b"{}", 10), b"{}")

    def test_limit(self) -> None:
        """The limit is one of bytes that come out: just as many may."""
        for packed, field in ((gzip.compress(bytes(1000)), "gzip"), (zlib.compress(bytes(1000)), "deflate")):
            self.assertEqual(len(decode(field, packed, 1000)), 1000)
            self.assertRaises(ValueError, decode, field, packed, 999)
        parts = gzip.compress(bytes(500)) * 2
        self.assertEqual(len(decode("gzip", parts, 1000)), 1000)
        self.assertRaises(ValueError, decode, "gzip", parts, 999)

    def test_cut(self) -> None:
        """What is cut off anywhere is no document."""
        packed = gzip.compress(b'{"files": []}')
        for end in range(len(packed)):
            self.assertRaises(ValueError, decode, "gzip", packed[:end], 1000)

    def test_trailing(self) -> None:
        """What follows a whole body in gzip is left alone, as other clients do it."""
        self.assertEqual(decode("gzip", gzip.compress(b"a") + b"\0\0", 10), b"a")
