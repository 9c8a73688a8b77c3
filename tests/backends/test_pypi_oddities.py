"""``type: pypi``: what indexes and hosts of files do that they should not."""

from __future__ import annotations

import gzip
import hashlib
import zlib

from tests.backends.pypi_case import ASK_JSON, JSON, PyPICase, entry, page
from tests.memory import Asked
from vault.backends import _pypi_index


class CodedTests(PyPICase):
    """Pages that come compressed although the vault asks for them as they are."""

    def coded(self, coding: str, body: bytes, kind: str = JSON) -> None:
        """What the index answers from now on."""
        fields = (f"Content-Type: {kind}", f"Content-Encoding: {coding}", f'ETag: "{len(body)}"')
        self.rig_.origin.answer = lambda asked: asked.answer(200, *fields, body=body)

    def test_inflated(self) -> None:
        """A page in gzip or deflate is read as the page it is, and its files can be had."""
        body = page(entry("a-1.zip", b"x" * 10))
        raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        halves = gzip.compress(body[:20]) + gzip.compress(body[20:])
        for coding, sent in {
            "gzip": gzip.compress(body),
            "x-gzip": halves,
            "deflate": zlib.compress(body),
            "Deflate": raw.compress(body) + raw.flush(),
            "deflate, gzip": gzip.compress(zlib.compress(body)),
        }.items():
            self.vault()
            self.coded(coding, sent)
            self.files["/packages/a-1.zip"] = b"x" * 10
            client = self.get("simple/a/", ASK_JSON)
            self.assertEqual((client.status, client.headers.get("content-encoding")), (200, None), coding)
            self.assertEqual(self.follow("a-1.zip").body, b"x" * 10)
            self.assertEqual(self.get("simple/a/").body.count(b"<a "), 1)
            self.assertEqual(self.rig_.origin.last.get("accept-encoding"), "identity")

    def test_html(self) -> None:
        """So is one in HTML."""
        self.vault()
        self.coded("gzip", gzip.compress(b'<!DOCTYPE html><a href="/x/a-1.zip">a-1.zip</a>'), "text/html")
        self.assertEqual(list(self.links()), ["a-1.zip"])

    def test_misnamed(self) -> None:
        """A page that only claims to be compressed is read as it is."""
        self.vault()
        for coding in ("gzip", "deflate", "br", "identity", "utf-8"):
            self.coded(coding, page(entry("a-1.zip", b"x")))
            self.assertEqual(list(self.links()), ["a-1.zip"], coding)
            self.rig_.net.pass_time(700)

    def test_broken(self) -> None:
        """What breaks off, or is in a coding that nobody asked for, is 502 with the reason."""
        self.vault()
        packed = gzip.compress(page(entry("a-1.zip", b"x")))
        for coding, sent, reason in (
            ("gzip", packed[:-20], b"breaks off"),
            ("gzip", b"\x1f\x8b" + bytes(40), b"cannot be read"),
            ("gzip", gzip.compress(b" ") * 101, b"more than 100 parts"),
            ("br", b"\x0b\x02\x80", b"coding br"),
            ("gzip, gzip, gzip, gzip", packed, b"4 content codings"),
        ):
            self.coded(coding, sent)
            client = self.get("simple/a/", ASK_JSON)
            self.assertEqual(client.status, 502)
            self.assertIn(reason, client.body)
            self.rig_.net.pass_time(20)

    def test_bomb(self) -> None:
        """A page may have no more bytes than the limit after it is unpacked, and the kept one is served instead."""
        self.patch(_pypi_index, "LARGEST", 100_000)
        self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        self.assertEqual(list(self.links()), ["a-1.zip"])
        self.coded("gzip", gzip.compress(page(entry("a-2.zip", b"y"), filler="x" * 200_000)))
        self.rig_.net.pass_time(700)
        self.assertEqual(list(self.links()), ["a-1.zip"])
        client = self.get("simple/b/", ASK_JSON)
        self.assertEqual(client.status, 502)
        self.assertIn(b"more than 100000 bytes", client.body)

    def test_files(self) -> None:
        """Files are never unpacked: what the hash is over is the bytes as they are."""
        self.vault()
        packed = gzip.compress(b"a source distribution")
        self.put("a", page(entry("a-1.tar.gz", packed)))
        self.files["/packages/a-1.tar.gz"] = packed
        client = self.follow("a-1.tar.gz")
        self.assertEqual((client.body, client.headers.get("content-encoding")), (packed, None))


class FieldTests(PyPICase):
    """The fields of files, whatever the host of the files sends."""

    def answer(self, *fields: str, body: bytes = b"w" * 5000) -> None:
        """What the host answers for every file from now on."""
        self.host.answer = lambda asked: asked.answer(200, *fields, body=body)

    def test_vary(self) -> None:
        """A file is the same for all who ask the vault: no ``Vary`` says otherwise, at first or later."""
        for vary in ("*", "Accept-Encoding", "Authorization, Cookie"):
            self.vault()
            self.put("a", page(entry("a-1.whl", b"w" * 5000, **{"core-metadata": True}), entry("a-2.zip")))
            self.answer(f"Vary: {vary}", 'ETag: "1"')
            for name in ("a-1.whl", "a-2.zip"):
                for how in ("MISS", "HIT"):
                    client = self.follow(name)
                    self.assertEqual((client.status, client.headers["x-cache"]), (200, how))
                    self.assertNotIn("vary", client.headers)
                    again = self.follow(name, f"If-None-Match: {client.headers['etag']}")
                    self.assertEqual((again.status, again.headers.get("vary")), (304, None))
            self.assertNotIn("vary", self.follow("a-1.whl", more=".metadata").headers)
            self.assertNotIn("vary", self.follow("a-1.whl", method="HEAD").headers)

    def streamed(self, **hashes: str) -> tuple[str | None, str | None]:
        """The tags of a file, while it comes and when it is stored."""
        self.vault()
        self.put("a", page({**entry("a-1.zip"), "hashes": hashes}))
        held: list[Asked] = []
        self.host.answer = held.append
        client = self.follow("a-1.zip")
        held[0].head(200, "Content-Type: application/zip", length=5000)
        held[0].send(b"w" * 2000)
        self.rig_.net.pass_time(1)
        self.assertEqual(client.status, 200)
        first = client.headers.get("etag")
        held[0].send(b"w" * 3000)
        self.rig_.net.pass_time(1)
        self.assertEqual(client.body, b"w" * 5000)
        later = self.follow("a-1.zip")
        self.assertEqual(later.headers["x-cache"], "HIT")
        rest = self.follow("a-1.zip", "Range: bytes=2000-", f"If-Range: {first}")
        self.assertEqual((rest.status, rest.headers.get("etag")), (206, first))
        return first, later.headers.get("etag")

    def test_tags(self) -> None:
        """Whatever hash the page gives, a file has one strong tag from its first byte on, by which it is resumed."""
        for algorithm in ("sha256", "sha384", "sha512", "sha1", "md5"):
            value = hashlib.new(algorithm, b"w" * 5000).hexdigest()
            first, later = self.streamed(**{algorithm: value})
            self.assertEqual((first, later), (f'"{algorithm}-{value}"',) * 2)
