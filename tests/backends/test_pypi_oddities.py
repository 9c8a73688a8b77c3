"""``type: pypi``: what indexes and hosts of files do that they should not."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import zlib
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred

from tests.backends.pypi_case import ASK_JSON, FILES, JSON, PyPICase, entry, page, sha256
from tests.formats.test_codings import StandIn
from tests.memory import Asked, Client
from vault.backends import _pypi_index, _pypi_pages, _pypi_recent
from vault.backends.pypi import PyPIBackend
from vault.formats import codings, simple_html
from vault.interfaces import IBody


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


class ExpiredTests(PyPICase):
    """URLs of files that are good for a while only, as hosts sign them for each reader of a page."""

    def setUp(self) -> None:
        self.content = b"w" * 5000
        self.status = 403
        self.start(hashed=True)

    def start(self, hashed: bool, **settings: Any) -> None:
        """A vault that has a page with the first URL, which has expired meanwhile."""
        self.vault(**settings)
        self.hashed = hashed
        self.sign(1)
        self.target = self.links()["a-1.whl"]
        self.sign(2)
        self.rig_.net.pass_time(1)
        self.asked_before = len(self.rig_.origin.requests)

    def sign(self, number: int) -> None:
        """From now on the page has this URL, and the host knows no other."""
        content = self.content if self.hashed else None
        signed = f"{FILES}/a-1.whl?signature={number}"
        about = {"core-metadata": True, "gpg-sig": True}
        self.put("a", page({**entry("a-1.whl", content, **about), "url": signed}, serial=number))
        good = (f"/packages/a-1.whl?signature={number}", f"/packages/a-1.whl.metadata?signature={number}")
        self.host.answer = lambda asked: (
            asked.answer(200, body=self.content) if asked.target in good else asked.answer(self.status)
        )

    @property
    def pages_read(self) -> int:
        """How often the index was asked since the URL expired."""
        return len(self.rig_.origin.requests) - self.asked_before

    def test_renewed(self) -> None:
        """A file whose URL has expired is had by its new one, which the page is read again for, in the same request."""
        for self.status in (401, 403, 404, 410):
            for method in ("GET", "HEAD"):
                self.start(hashed=True)
                client = self.rig_.request(self.target, method=method)
                self.assertEqual((client.status, client.headers["content-length"]), (200, "5000"), self.status)
                self.assertEqual(client.body, self.content if method == "GET" else b"")
                self.assertEqual(self.pages_read, 1)
                self.assertEqual(
                    [asked.target[-1] for asked in self.host.requests if asked.method == method], ["1", "2"]
                )

    def test_companion(self) -> None:
        """So is what goes with it."""
        self.assertEqual(self.rig_.request(self.target + ".metadata").body, self.content)
        self.assertEqual(self.pages_read, 1)

    def test_without_hash(self) -> None:
        """So is a file without a hash, then and later, by the address that the vault's page had."""
        self.start(hashed=False)
        self.assertEqual(self.rig_.request(self.target).body, self.content)
        self.assertEqual(self.rig_.request(self.target).headers["x-cache"], "HIT")
        self.assertEqual((self.pages_read, len(self.host.requests)), (1, 2))

    def test_many(self) -> None:
        """Many who want the file cause one reading of the page and one transfer, whether at once or one by one."""
        held: list[Asked] = []
        answer, self.rig_.origin.answer = self.rig_.origin.answer, held.append
        refuse, self.host.answer = self.host.answer, held.append
        clients = [self.rig_.request(self.target) for _ in range(20)]
        refuse(held.pop())
        self.host.answer = refuse
        self.rig_.net.pass_time()
        answer(held.pop())
        self.rig_.net.pass_time(1)
        clients.append(self.rig_.request(self.target))
        self.assertEqual([client.body for client in clients], [self.content] * 21)
        self.assertEqual((self.pages_read, len(self.host.requests)), (1, 2))

    def test_nothing_new(self) -> None:
        """Where the page names no other URL clients are told what the host said, and the page is left alone a while."""
        for self.status, told in ((404, 404), (410, 410), (403, 502)):
            self.start(hashed=True)
            self.sign(1)
            self.host.answer = lambda asked: asked.answer(self.status)
            statuses = {self.rig_.request(self.target).status for _ in range(5)}
            self.assertEqual((statuses, self.pages_read), ({told}, 1))
            self.sign(2)
            self.rig_.net.pass_time(11)
            self.assertEqual(self.rig_.request(self.target).body, self.content)

    def test_always_refused(self) -> None:
        """A host that refuses the new URL too is not a reason to read the page with each request."""
        signatures = itertools.count(10)

        def sign_anew(asked: Asked) -> None:
            signed = f"{FILES}/a-1.whl?signature={next(signatures)}"
            asked.answer(200, f"Content-Type: {JSON}", body=page({**entry("a-1.whl", self.content), "url": signed}))

        self.rig_.origin.answer = sign_anew
        self.host.answer = lambda asked: asked.answer(403)
        self.assertEqual([self.rig_.request(self.target).status for _ in range(5)], [502] * 5)
        self.assertEqual(self.pages_read, 1)
        self.rig_.net.pass_time(11)
        self.assertEqual(self.rig_.request(self.target).status, 502)
        self.assertEqual(self.pages_read, 2)

    def test_index_down(self) -> None:
        """So it is where the index cannot be asked."""
        self.rig_.origin.answer = lambda asked: asked.answer(500)
        client = self.rig_.request(self.target)
        self.assertEqual((client.status, b"refuses this vault" in client.body), (502, True))

    def test_broken_off(self) -> None:
        """A file whose URL expires while it comes is gone on with by the new one when a client asks again."""
        self.sign(1)
        self.host.answer = lambda asked: (
            asked.head(200, 'ETag: "1"', length=5000),
            asked.send(self.content[:2000]),
            asked.close(),
            self.sign(2),
        )
        client = self.rig_.request(self.target)
        self.rig_.net.pass_time(30)
        self.assertEqual((client.aborted, client.status, len(client.body) > 1000), (True, 200, True))
        self.host.answer = lambda asked: (
            asked.answer(206, 'ETag: "1"', "Content-Range: bytes 2000-4999/5000", body=self.content[2000:])
            if asked.target.endswith("=2") and asked.get("range") == "bytes=2000-"
            else asked.answer(403)
        )
        client = self.rig_.request(self.target)
        self.assertEqual((client.status, client.body), (200, self.content))

    def test_removed(self) -> None:
        """Where the page no longer links to the file, too."""
        self.status = 404
        self.put("a", page(serial=3))
        self.host.answer = lambda asked: asked.answer(404)
        self.assertEqual(self.rig_.request(self.target).status, 404)

    def test_replaced(self) -> None:
        """Another file of that name is not given in its place."""
        self.put("a", page(entry("a-1.whl", b"another"), serial=3))
        self.files["/packages/a-1.whl"] = b"another"
        self.assertEqual(self.rig_.request(self.target).status, 502)

    def test_outage(self) -> None:
        """An outage of the host is no reason to read the page again."""
        self.host.answer = lambda asked: asked.answer(503)
        self.assertEqual(self.rig_.request(self.target).status, 503)
        self.assertEqual(self.pages_read, 0)

    def test_too_young(self) -> None:
        """What is uploaded anew is hidden until it is old enough."""
        self.vault(min_release_age=3600.0)
        old, new = "2026-11-01T00:00:00Z", "2026-11-23T20:59:00Z"
        self.put("a", page(entry("a-1.whl", b"w", **{"upload-time": old})))
        self.host.answer = lambda asked: asked.answer(404 if asked.target == "/packages/a-1.whl" else 200, body=b"w")
        target = self.links()["a-1.whl"]
        again = {**entry("a-1.whl", b"w", **{"upload-time": new}), "url": f"{FILES}/again/a-1.whl"}
        self.put("a", page(again))
        self.rig_.net.pass_time(1)
        self.assertEqual(self.rig_.request(target).status, 404)


class UnprovedTests(PyPICase):
    """Files without a hash on their page."""

    def setUp(self) -> None:
        self.vault()
        self.put("a", page(entry("a-1.zip")))

    def have(self, body: bytes, *fields: str) -> None:
        """What the host has from now on."""
        tag = f'ETag: "{len(body)}"'
        self.host.answer = lambda asked: (
            asked.answer(304, tag, *fields)
            if asked.get("if-none-match") == tag.partition(" ")[2]
            else asked.answer(200, tag, *fields, body=body)
        )

    def test_page_instead(self) -> None:
        """A page for browsers in place of a file, such as one to log in, is not kept for ever."""
        self.have(b"<html>Log in</html>", "Content-Type: text/html; charset=utf-8")
        for _ in range(2):
            self.assertEqual(self.follow("a-1.zip").body, b"<html>Log in</html>")
        self.assertEqual(len(self.host.requests), 1)
        self.have(b"PK", "Content-Type: application/zip")
        self.rig_.net.pass_time(700)
        self.assertEqual(self.follow("a-1.zip").body, b"PK")
        self.host.answer = lambda asked: asked.answer(503)
        self.rig_.net.pass_time(10**6)
        client = self.follow("a-1.zip")
        self.assertEqual((client.body, client.headers["x-cache"]), (b"PK", "HIT"))

    def test_changing(self) -> None:
        """What its host says to change is asked for again after ``ttl``, and served on while the host fails."""
        self.have(b"one", "Cache-Control: no-cache")
        self.assertEqual(self.follow("a-1.zip").body, b"one")
        self.rig_.net.pass_time(700)
        self.assertEqual(self.follow("a-1.zip").headers["x-cache"], "REVALIDATED")
        answer, self.host.answer = self.host.answer, lambda asked: asked.answer(503)
        self.rig_.net.pass_time(700)
        self.assertEqual(self.follow("a-1.zip").headers["x-cache"], "STALE")
        self.rig_.origin.answer = lambda asked: asked.answer(503)
        self.rig_.net.pass_time(700)
        self.assertEqual(self.follow("a-1.zip").headers["x-cache"], "STALE")
        self.host.answer = answer
        self.have(b"three", "Cache-Control: no-cache")
        self.rig_.net.pass_time(700)
        self.assertEqual(self.follow("a-1.zip").body, b"three")

    def test_proved(self) -> None:
        """A hash proves a file whatever its host says of it: nobody is asked again."""
        self.put("a", page(entry("a-1.zip", b"one")))
        self.have(b"one", "Cache-Control: no-cache", "Content-Type: text/html")
        self.assertEqual(self.follow("a-1.zip").body, b"one")
        self.rig_.net.pass_time(10**6)
        self.assertEqual(self.follow("a-1.zip").headers["x-cache"], "HIT")
        self.assertEqual(len(self.host.requests), 1)


class PlusTests(PyPICase):
    """Local versions: file names with a plus sign, which some hosts read as a space."""

    def test_spellings(self) -> None:
        """A file is had whichever spelling of the sign its host knows, and the one of the page is asked for first."""
        for known in ("/packages/a-1+cpu.zip", "/packages/a-1%2Bcpu.zip"):
            for status in (404, 403):
                self.vault()
                self.put("a", page(entry("a-1+cpu.zip", b"x")))
                self.host.answer = lambda asked, known=known, status=status: asked.answer(
                    200 if asked.target == known else status, body=b"x"
                )
                client = self.follow("a-1+cpu.zip")
                self.assertEqual((client.status, client.body), (200, b"x"), (known, status))
                self.assertEqual(self.host.requests[0].target, "/packages/a-1+cpu.zip")
                self.assertEqual(self.host.last.target, known)
                self.assertEqual(self.follow("a-1+cpu.zip").headers["x-cache"], "HIT")

    def test_one_spelling(self) -> None:
        """Where the page escapes it, or only the path to the file has one, there is but one spelling."""
        for name, path in (("a-1+cpu.zip", "a-1%2Bcpu.zip?x=1+1"), ("a-1.zip", "+f/a-1.zip")):
            self.vault()
            self.put("a", page({**entry(name, b"x"), "url": f"{FILES}/{path}"}))
            self.assertEqual(self.follow(name).status, 404)
            self.assertEqual([asked.target for asked in self.host.requests], [f"/packages/{path}"])


class VersionTests(PyPICase):
    """A page that changes while it is read."""

    def test_own_version(self) -> None:
        """Whoever gets a newer page while an older one is still being read is given the newer one."""
        rig = self.vault(ttl=3.0)
        whole = page(entry("a-1.zip", b"x"))
        reading = rig.kitchen.read
        held: list[Deferred[None]] = []

        async def slowly(body: IBody, limit: int) -> bytes:
            data = await reading(body, limit)
            held.append(Deferred())
            await held[-1]
            return data

        rig.kitchen.read = slowly  # type: ignore[method-assign]  # as when the disk is slow
        asked: list[Asked] = []
        rig.origin.answer = asked.append
        older = self.get("simple/a/", ASK_JSON)
        asked[0].head(200, f"Content-Type: {JSON}", 'ETag: "1"', length=len(whole))
        asked[0].send(whole)
        rig.net.pass_time(4)
        newest = page(entry("a-2.zip", b"y"), serial=8)
        newer = self.get("simple/a/", ASK_JSON)
        asked[1].head(200, f"Content-Type: {JSON}", 'ETag: "2"', length=len(newest))
        rig.net.pass_time()
        asked[1].send(newest)
        for _ in range(5):
            while held:
                held.pop().callback(None)
            rig.net.pass_time(1)
        for client, name in ((older, "a-1.zip"), (newer, "a-2.zip")):
            self.assertEqual([file["filename"] for file in json.loads(client.body)["files"]], [name])


class MetadataTests(PyPICase):
    """``.metadata`` files: uv relies on them without checking them, so the vault checks them by the page."""

    ABOUT = b"Metadata-Version: 2.1\nName: a\nVersion: 1\n"

    def setUp(self) -> None:
        self.vault()
        self.say({"sha256": sha256(self.ABOUT)})
        self.target = self.links()["a-1.whl"] + ".metadata"
        self.files["/packages/a-1.whl"] = b"w"
        self.have(self.ABOUT)

    def say(self, core_metadata: object) -> None:
        """What the page says of the metadata from now on."""
        self.put("a", page(entry("a-1.whl", b"w", **{"core-metadata": core_metadata})))

    def have(self, about: bytes) -> None:
        """What the host has for metadata from now on."""
        self.files["/packages/a-1.whl.metadata"] = lambda asked: (
            asked.answer(304, 'ETag: "m"')
            if asked.get("if-none-match") == '"m"' and about == self.ABOUT
            else asked.answer(200, f'ETag: "{"m" if about == self.ABOUT else "other"}"', body=about)
        )

    def ask(self) -> Client:
        """Ask for the metadata."""
        return self.rig_.request(self.target)

    def test_not_kept(self) -> None:
        """What does not match is neither served whole nor kept: the host is asked each time, until it is well."""
        self.have(b"Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
        for count in (1, 2):
            client = self.ask()
            self.assertTrue(client.aborted)
            self.assertNotEqual(len(client.body), int(client.headers["content-length"]))
            self.assertEqual(len(self.host.requests), count)
            (found,) = self.run_([self.rig_.store.find(f"pypi{self.target.removeprefix('/pypi')}")])
            self.assertIsNone(found)
        self.have(self.ABOUT)
        self.assertEqual(self.ask().body, self.ABOUT)
        self.assertEqual(self.ask().headers["x-cache"], "HIT")

    def run_(self, waiting: list[Any]) -> list[Any]:
        """The results of some Deferreds."""
        return [self.successResultOf(self.rig_.run(each)) for each in waiting]

    def test_hash_changes(self) -> None:
        """When the page gives another hash, what is kept is fetched anew, and the old one is not served any more."""
        self.assertEqual(self.ask().body, self.ABOUT)
        self.rig_.net.pass_time(700)
        newer = self.ABOUT + b"Summary: corrected\n"
        self.say({"sha256": sha256(newer)})
        self.assertTrue(self.ask().aborted)  # the host has the old one still
        self.have(newer)
        client = self.ask()
        self.assertEqual((client.status, client.body, client.headers["x-cache"]), (200, newer, "MISS"))
        self.assertEqual(self.ask().headers["x-cache"], "HIT")

    def test_no_longer(self) -> None:
        """When the page has none any more there is none, though it is kept."""
        self.ask()
        self.say(False)
        self.rig_.net.pass_time(700)
        self.assertEqual(self.ask().status, 404)

    def test_for_ever(self) -> None:
        """What a hash proves is not asked for again; the index being down or silent changes nothing."""
        self.ask()
        self.rig_.origin.answer = lambda asked: asked.answer(500)
        self.rig_.net.pass_time(10**6)
        client = self.ask()
        self.assertEqual((client.body, client.headers["x-cache"]), (self.ABOUT, "HIT"))
        self.assertIn("immutable", client.headers["cache-control"])
        self.assertEqual(len(self.host.requests), 1)

    def test_unproved(self) -> None:
        """What the page gives no hash for is checked with the host after ``ttl``, and never called immutable."""
        self.say(True)
        self.rig_.net.pass_time(700)
        for how in ("MISS", "HIT"):
            client = self.ask()
            self.assertEqual((client.body, client.headers["x-cache"]), (self.ABOUT, how))
            self.assertNotIn("cache-control", client.headers)
        self.rig_.net.pass_time(700)
        self.assertEqual(self.ask().headers["x-cache"], "REVALIDATED")
        newer = self.ABOUT + b"Summary: corrected\n"
        self.have(newer)
        self.rig_.net.pass_time(500)
        self.assertEqual(self.ask().body, self.ABOUT)
        self.rig_.net.pass_time(200)
        self.assertEqual(self.ask().body, newer)

    def test_proved_later(self) -> None:
        """What was kept without a hash is kept on where the page's hash proves it, and dropped where it does not."""
        for about, how in ((self.ABOUT, "HIT"), (self.ABOUT + b"Summary: corrected\n", "MISS")):
            self.say(True)
            self.have(self.ABOUT)
            self.rig_.net.pass_time(700)
            self.assertEqual(self.ask().body, self.ABOUT)
            self.say({"sha256": sha256(about)})
            self.have(about)
            self.rig_.net.pass_time(700)
            client = self.ask()
            self.assertEqual((client.body, client.headers["x-cache"]), (about, how))

    def test_other_hashes(self) -> None:
        """Another kind of hash proves it as well; one that is none leaves it unproved."""
        for algorithm, proved in (("sha512", True), ("md5", True), ("crc32", False)):
            self.setUp()
            self.say({algorithm: hashlib.new(algorithm, self.ABOUT).hexdigest() if proved else "00"})
            self.rig_.net.pass_time(700)
            self.assertEqual("immutable" in self.ask().headers.get("cache-control", ""), proved, algorithm)
            self.assertEqual(self.ask().body, self.ABOUT)
            self.say({algorithm: hashlib.new(algorithm, b"another").hexdigest() if proved else "11"})
            self.rig_.net.pass_time(700)
            self.assertEqual(self.ask().aborted, proved)


class FullDiskTests(PyPICase):
    """Pages while the disk takes nothing."""

    def setUp(self) -> None:
        self.vault()
        self.rendered = 0
        render = simple_html.render

        def counting(data: bytes) -> Iterator[bytes]:
            self.rendered += 1
            return render(data)

        self.patch(simple_html, "render", counting)
        self.rig_.disk.error = OSError(28, "No space left on device")

    def fill(self, project: str, note: str) -> None:
        """A page of some 3 MB."""
        self.put(project, page(*(entry(f"{project}-{number}.zip", b"x", yanked=note * 1000) for number in range(1000))))

    def test_made_once(self) -> None:
        """A large page that cannot be stored is not made again for each client, in whatever form and coding."""
        self.fill("a", "bad")
        for accept in (f"Accept: {JSON}", "Accept: text/html"):
            first = self.get("simple/a/", accept)
            self.assertEqual((first.status, len(first.body) > 3 * 1024 * 1024), (200, True))
            for _ in range(3):
                self.assertEqual(self.get("simple/a/", accept).body, first.body)
            self.assertEqual(gzip.decompress(self.get("simple/a/", accept, "Accept-Encoding: gzip").body), first.body)
        self.assertEqual(self.rendered, 1)
        self.fill("a", "worse")
        self.assertIn(b"worse", self.get("simple/a/").body)
        self.assertEqual(self.rendered, 2)

    def test_bounded(self) -> None:
        """What is held so has an upper bound; the page used last is the one that stays."""
        self.patch(_pypi_recent, "IN_MEMORY", 16 * 1024 * 1024)
        for project in ("a", "b", "c", "d"):
            self.fill(project, "bad")
            self.get(f"simple/{project}/")
        self.get("simple/d/")
        self.assertEqual(self.rendered, 4)
        self.get("simple/a/")
        self.assertEqual(self.rendered, 5)
        backend = self.rig_.resource.backend
        assert isinstance(backend, PyPIBackend)
        self.assertLessEqual(backend.index.recent.in_memory, 16 * 1024 * 1024)

    def test_too_large(self) -> None:
        """A page that is larger than that bound is made for each client, and served all the same."""
        self.patch(_pypi_recent, "IN_MEMORY", 1024 * 1024)
        self.fill("a", "bad")
        bodies = {self.get("simple/a/").body for _ in range(2)}
        self.assertEqual((len(bodies), self.rendered), (1, 2))


class ZstdTests(PyPICase):
    """Pages in zstd, which only Python 3.14 has."""

    UV = "Accept-Encoding: gzip, deflate, zstd"

    def setUp(self) -> None:
        self.vault()
        self.put("a", page(*(entry(f"a-{number}.zip", b"x") for number in range(50))))
        self.plain = self.get("simple/a/", ASK_JSON).body

    def test_without(self) -> None:
        """A vault on a Python without zstd gives gzip to those who take both, else what is not packed."""
        self.patch(_pypi_pages, "CODINGS", ("gzip",))
        client = self.get("simple/a/", ASK_JSON, self.UV)
        self.assertEqual((client.headers["content-encoding"], gzip.decompress(client.body)), ("gzip", self.plain))
        client = self.get("simple/a/", ASK_JSON, "Accept-Encoding: zstd")
        self.assertEqual((client.headers.get("content-encoding"), client.body), (None, self.plain))

    def test_with(self) -> None:
        """With it uv gets zstd, pip gzip as before, each with a tag of its own, from the store the second time."""
        self.patch(codings, "_zstd", StandIn)
        self.patch(_pypi_pages, "CODINGS", ("zstd", "gzip"))
        tags = set()
        for accepted, coding, unpack in (
            (self.UV, "zstd", StandIn.decompress),
            ("Accept-Encoding: gzip, deflate", "gzip", gzip.decompress),
            ("Accept-Encoding: zstd;q=0.1, gzip", "gzip", gzip.decompress),
        ):
            for _ in range(2):
                client = self.get("simple/a/", ASK_JSON, accepted)
                self.assertEqual(client.headers["content-encoding"], coding)
                self.assertEqual(unpack(client.body), self.plain)
                tags.add(client.headers["etag"])
        self.assertEqual(len(tags), 2)

    def test_other_python(self) -> None:
        """A vault that goes back to a Python without zstd serves gzip of what it has, and asks nobody."""
        self.patch(codings, "_zstd", StandIn)
        self.patch(_pypi_pages, "CODINGS", ("zstd", "gzip"))
        self.get("simple/a/", ASK_JSON, self.UV)
        self.rig_.again()
        self.test_without()
        self.assertEqual(len(self.rig_.origin.requests), 1)
