"""``type: pypi``: pages and files through a vault in memory."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.formats.pages import FULL, OLD, PLAIN, SDIST, WHEEL
from tests.memory import DATE, START, Asked, Client, Rig, RigCase
from vault.backends._pypi_files import FileRecipe
from vault.backends._pypi_index import Index
from vault.backends._pypi_pages import PageRecipe
from vault.backends.pypi import PyPIBackend, public_index
from vault.config import Config, load
from vault.errors import ConfigError, Missing, Moved
from vault.formats.negotiation import Choice
from vault.interfaces import IBackend, IRecipe

JSON = "application/vnd.pypi.simple.v1+json"
ASK_JSON = f"Accept: {JSON}"
FILES = "http://files.test/packages"


def backend(*urls: str, **settings: Any) -> PyPIBackend:
    """A backend in front of ``origin.test``, or of these."""
    return PyPIBackend("pypi", "/pypi/", Index("pypi", urls or ("http://origin.test/simple/",), **settings))


def sha256(data: bytes) -> str:
    """A digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def entry(filename: str, content: bytes | None = None, **more: Any) -> dict[str, Any]:
    """A file on a page."""
    hashes = {} if content is None else {"sha256": sha256(content)}
    return {"filename": filename, "url": f"{FILES}/{filename}", "hashes": hashes, **more}


def page(*files: dict[str, Any], serial: int = 7, **more: Any) -> bytes:
    """A project's page."""
    return json.dumps(
        {"meta": {"api-version": "1.4", "_last-serial": serial}, "name": "a", "files": files, **more}
    ).encode()


class ResolveTests(SynchronousTestCase):
    """What paths mean."""

    def setUp(self) -> None:
        self.backend = backend()

    def test_interface(self) -> None:
        """It is a backend, and gives recipes."""
        self.assertTrue(verifyObject(IBackend, self.backend))
        for path in ("simple/a/", "files/a-1.zip"):
            self.assertTrue(verifyObject(IRecipe, self.backend.resolve(path, {})))

    def test_projects(self) -> None:
        """A project has one page, however its name is written, with or without ``simple``, and with double slashes."""
        table = {
            "simple/": None,
            "": None,
            "simple//": None,
            "simple/a-b/": "a-b",
            "simple/A_.b/": "a-b",
            "simple//a-b/": "a-b",
            "a.B/": "a-b",
            "simple/files/": "files",
            "simple/simple/": "simple",
            "simple/a/?x=1": "a",
        }
        for path, project in table.items():
            recipe = self.backend.resolve(path, {})
            assert isinstance(recipe, PageRecipe), path
            self.assertEqual(recipe.page.project, project, path)
            name = "index" if project is None else f"simple/{project}"
            url = "http://origin.test/simple/" + (f"{project}/" if project else "")
            self.assertEqual((recipe.page.artifact.key, recipe.page.artifact.urls), (f"pypi/{name}/source", (url,)))

    def test_slash(self) -> None:
        """A page asked for without its last slash has the address with it, its name in the usual spelling."""
        table = {"simple": "simple/", "simple/A.b": "a-b/", "a": "a/", "simple/a?format=x": "a/?format=x"}
        for path, location in table.items():
            self.assertEqual(self.assertRaises(Moved, self.backend.resolve, path, {}).location, location, path)

    def test_files(self) -> None:
        """What follows ``files/`` is a file's path, its query without a meaning."""
        table = {
            "files/a/0123456789abcdef/a-1.zip?x=y": ("a", "0123456789abcdef", "a-1.zip"),
            "files/a-1%2Bb.zip": ("a-1+b.zip",),
            "simple/files/a/0123456789abcdef/a-1.zip": ("a", "0123456789abcdef", "a-1.zip"),
            "files//a//b": ("a", "b"),
        }
        for path, expected in table.items():
            recipe = self.backend.resolve(path, {})
            assert isinstance(recipe, FileRecipe), path
            self.assertEqual(recipe.path, expected)

    def test_nothing(self) -> None:
        """What can be no project is not asked for upstream."""
        for path in ("simple/-a/", "simple/a/b/", "a/json", "simple/a b/", "simple/%25/", "files/", "x/y/z"):
            if path == "files/":
                self.assertIsInstance(self.backend.resolve(path, {}), PageRecipe)  # the short address of a project
            else:
                self.assertRaises(Missing, self.backend.resolve, path, {})

    def test_forms(self) -> None:
        """``?format=`` is stronger than Accept."""
        table = [
            ("simple/a/", {"accept": JSON}, Choice.JSON),
            ("simple/a/", {}, Choice.HTML),
            (f"simple/a/?format={JSON}", {"accept": "text/html"}, Choice.JSON),
            ("simple/a/?format=text/html", {"accept": JSON}, Choice.HTML),
        ]
        for path, headers, expected in table:
            recipe = self.backend.resolve(path, headers)
            assert isinstance(recipe, PageRecipe)
            self.assertIs(recipe.choice, expected)


class PyPICase(RigCase):
    """A vault in front of an index and of a host with files; ``pages`` and ``files`` are what they have."""

    def vault(self, *urls: str, upstream: dict[str, Any] | None = None, **settings: Any) -> Rig:
        """The vault."""
        made = backend(*urls, **settings)
        self.rig_ = self.rig(made.upstreams, made, **(upstream or {"stale_while_revalidate": 0.0}))
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.files: dict[str, bytes | Callable[[Asked], object]] = {}
        self.serials: dict[str, int] = {}
        self.rig_.origin.answer = self._answer_page
        self.host = self.rig_.net.origin("files.test")
        self.host.answer = self._answer_file
        return self.rig_

    def put(self, project: str, body: bytes, kind: str = JSON, serial: int | None = None) -> None:
        """A project's page."""
        self.pages[f"/simple/{project}/"] = (kind, body)
        if serial is not None:
            self.serials[f"/simple/{project}/"] = serial

    def _answer_page(self, asked: Asked) -> None:
        kind, body = self.pages.get(asked.target, ("", b""))
        if not kind:
            asked.answer(404, body=b"no such project")
            return
        tag = f'"{sha256(body)[:8]}"'
        if asked.get("if-none-match") == tag:
            asked.answer(304, f"ETag: {tag}", f"Date: {DATE}")
            return
        fields = [f"Content-Type: {kind}", f"ETag: {tag}", "Cache-Control: max-age=600, public", f"Date: {DATE}"]
        if asked.target in self.serials:
            fields.append(f"X-PyPI-Last-Serial: {self.serials[asked.target]}")
        asked.answer(200, *fields, body=body)

    def _answer_file(self, asked: Asked) -> None:
        found = self.files.get(asked.target)
        if found is None:
            asked.answer(404)
        elif callable(found):
            found(asked)
        else:
            asked.answer(200, 'ETag: "f"', "Content-Encoding: gzip", f"Date: {DATE}", body=found)

    def get(self, path: str, *fields: str, method: str = "GET") -> Client:
        """A client's request below the prefix."""
        return self.rig_.request(f"/pypi/{path}", *fields, method=method)

    def links(self, path: str = "simple/a/") -> dict[str, str]:
        """The targets that the files of a page have here, by name."""
        listed = json.loads(self.get(path, ASK_JSON).body)["files"]
        return {file["filename"]: urljoin(f"/pypi/{path}", file["url"]) for file in listed}

    def follow(self, filename: str, *fields: str, method: str = "GET", more: str = "") -> Client:
        """Ask for a file that the page of ``a`` links to."""
        return self.rig_.request(self.links()[filename] + more, *fields, method=method)


class PageTests(PyPICase):
    """Pages."""

    def test_lossless(self) -> None:
        """Of a page in JSON only the URLs of its files change; everything unknown, and the order, stays."""
        self.vault()
        self.put("sample-project", FULL)
        client = self.get("simple/Sample.Project/", ASK_JSON)
        self.assertEqual((client.status, client.headers["content-type"]), (200, JSON))
        got, sent = json.loads(client.body), json.loads(FULL)
        self.assertEqual([file["filename"] for file in got["files"]], [WHEEL, SDIST, OLD, PLAIN])
        for mine, theirs in zip(got["files"], sent["files"], strict=True):
            self.assertRegex(mine.pop("url"), r"^\.\./\.\./files/sample-project/[0-9a-fu]+/" + mine["filename"] + "$")
            theirs.pop("url")
        self.assertEqual(json.dumps(got), json.dumps(sent))

    def test_forms(self) -> None:
        """Each form has its exact type, a strong tag of its own, Vary, and is revalidated by that tag."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x"), entry("a-2.zip", b"y" * 3000, yanked="bad" * 600)))
        tags = set()
        for accept, kind in {
            JSON: JSON,
            "text/html": "text/html; charset=utf-8",
            "*/*": "text/html; charset=utf-8",
            "application/vnd.pypi.simple.v1+html": "application/vnd.pypi.simple.v1+html",
            "application/vnd.pypi.simple.latest+json": JSON,
        }.items():
            for encoding in ("identity", "gzip, deflate"):
                fields = (f"Accept: {accept}", f"Accept-Encoding: {encoding}")
                client = self.get("simple/a/", *fields)
                self.assertEqual(client.headers["content-type"], kind)
                self.assertEqual(client.headers["vary"], "Accept, Accept-Encoding")
                self.assertEqual(client.headers.get("content-encoding"), None if encoding == "identity" else "gzip")
                tag = client.headers["etag"]
                self.assertRegex(tag, '^"[^"]+"$')
                tags.add((kind, encoding, tag))
                again = self.get("simple/a/", *fields, f"If-None-Match: {tag}")
                self.assertEqual((again.status, again.body), (304, b""))
                for name in ("etag", "vary", "cache-control", "date"):
                    self.assertEqual(again.headers[name], client.headers[name])
        self.assertEqual(len({tag for _, _, tag in tags}), 6)
        self.assertEqual(len(rig.origin.requests), 1)
        self.assertIn(JSON, rig.origin.last.get("accept") or "")

    def test_gzip(self) -> None:
        """A compressed page is the page."""
        self.vault()
        self.put("a", page(*(entry(f"a-{number}.zip", b"x") for number in range(50))))
        plain = self.get("simple/a/", ASK_JSON).body
        packed = self.get("simple/a/", ASK_JSON, "Accept-Encoding: gzip").body
        self.assertEqual(gzip.decompress(packed), plain)
        self.assertLess(len(packed), len(plain) / 3)

    def test_html(self) -> None:
        """HTML has the hash, what Python is needed, why a file is yanked, and metadata."""
        self.vault()
        self.put("sample-project", FULL)
        text = self.get("simple/sample-project/").body.decode()
        self.assertIn("#sha256=bb22", text)
        self.assertIn('data-requires-python="&gt;=3.8', text)
        self.assertIn('data-core-metadata="sha256=aa11"', text)
        self.assertIn("data-yanked=", text)
        self.assertIn('data-gpg-sig="true"', text)
        self.assertIn('content="archived"', text)

    def test_short(self) -> None:
        """The links of a page lead to the same files at its short address, and after a double slash."""
        self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        self.files["/packages/a-1.zip"] = b"x"
        long, short = self.links("simple/a/"), self.links("a/")
        self.assertEqual(long, short)
        self.assertEqual(self.rig_.request(long["a-1.zip"]).body, b"x")
        self.assertEqual(self.rig_.request(long["a-1.zip"].replace("/pypi/", "/pypi/simple/")).body, b"x")

    def test_hit(self) -> None:
        """A page that is fresh is served without the index being asked and without anything being computed."""
        rig = self.vault()
        self.put("a", page(*(entry(f"a-{number}.zip", b"x") for number in range(50))))
        for accept in (ASK_JSON, "Accept: text/html"):
            self.get("simple/a/", accept, "Accept-Encoding: gzip")
            rig.workers.held = True
            client = self.get("simple/a/", accept, "Accept-Encoding: gzip")
            self.assertEqual((client.status, client.headers["x-cache"]), (200, "HIT"))
            rig.workers.release()
        self.assertEqual(len(rig.origin.requests), 1)

    def test_many(self) -> None:
        """A hundred clients that ask for a new page cause one request, and the page is made once."""
        rig = self.vault()
        held: list[Asked] = []
        rig.origin.answer = held.append
        clients = [self.get("simple/a/", ASK_JSON) for _ in range(100)]
        self.put("a", page(entry("a-1.zip", b"x")))
        self._answer_page(held[0])
        rig.net.pass_time(1)
        self.assertEqual({client.status for client in clients}, {200})
        self.assertEqual(len(held), 1)

    def test_fields(self) -> None:
        """Clients are told how long the page is good from the date that the index gave, and its serial."""
        rig = self.vault()
        self.put("a", page(), serial=42)
        client = self.get("simple/a/", ASK_JSON)
        self.assertEqual(client.headers["cache-control"], "max-age=600")
        self.assertEqual((client.headers["date"], client.headers["x-pypi-last-serial"]), (DATE, "42"))
        rig.net.pass_time(100)
        client = self.get("simple/a/", ASK_JSON)
        self.assertEqual((client.headers["date"], client.headers["age"]), (DATE, "100"))
        self.assertNotIn("x-vault", client.raw.decode().lower())

    def test_ttl(self) -> None:
        """With a ``ttl`` of the vault's own clients keep the page no longer than the vault."""
        self.vault(ttl=30.0)
        self.put("a", page())
        self.assertEqual(self.get("simple/a/", ASK_JSON).headers["cache-control"], "max-age=30")

    def test_head(self) -> None:
        """HEAD of a page tells its length."""
        self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        client = self.get("simple/a/", ASK_JSON, method="HEAD")
        length = len(self.get("simple/a/", ASK_JSON).body)
        self.assertEqual((client.status, client.headers["content-length"], client.body), (200, str(length), b""))

    def test_root(self) -> None:
        """The list of all projects comes in both forms, from an index of either."""
        listed = json.dumps({"meta": {"api-version": "1.4"}, "projects": [{"name": "A.b"}, {"name": "c"}]}).encode()
        for kind, body in ((JSON, listed), ("text/html", b'<a href="/simple/a-b/">A.b</a><a href="c/">c</a>')):
            self.vault()
            self.pages["/simple/"] = (kind, body)
            self.assertEqual(
                [one["name"] for one in json.loads(self.get("simple/", ASK_JSON).body)["projects"]], ["A.b", "c"]
            )
            self.assertIn(b'<a href="a-b/">A.b</a>', self.get("simple/").body)

    def test_redirect(self) -> None:
        """A page without its slash is redirected to."""
        self.vault()
        client = self.get("simple/A_b")
        self.assertEqual((client.status, client.headers["location"]), (301, "a-b/"))

    def test_html_index(self) -> None:
        """An index with only HTML is read into JSON; its relative links lead to its own files."""
        self.vault()
        digest = sha256(b"x")
        self.put(
            "a",
            f'<a href="../../packages/a-1.zip#sha256={digest}" data-requires-python="&gt;=3">a-1.zip</a>'.encode(),
            "text/html; charset=UTF-8",
        )
        self.pages["/packages/a-1.zip"] = ("application/zip", b"x")
        (file,) = json.loads(self.get("simple/a/", ASK_JSON).body)["files"]
        self.assertEqual((file["hashes"], file["requires-python"]), ({"sha256": digest}, ">=3"))
        self.assertEqual(self.follow("a-1.zip").body, b"x")

    def test_public_url(self) -> None:
        """With ``public_url`` links are whole URLs, which then are in lock files."""
        self.vault(public_url="https://vault.example/pypi/")
        self.put("a", page(entry("a-1.zip", b"x")))
        for path in ("simple/a/", "a/"):
            self.assertTrue(self.links(path)["a-1.zip"].startswith("https://vault.example/pypi/files/a/"))

    def test_unusable(self) -> None:
        """A file that no client could ask for is left out; the others stay."""
        self.vault()
        bad = [entry(name, b"x") for name in ("../x.zip", "", "a\tb.zip", "\ud800.zip")]
        bad += [{**entry("c-1.zip", b"x"), "url": url} for url in ("ftp://files.test/x", "javascript:x", "http://[")]
        self.put("a", page(*bad, entry("a-1.zip", b"x")))
        self.assertEqual(list(self.links()), ["a-1.zip"])


class FreshnessTests(PyPICase):
    """Pages that change, and an index that fails."""

    def test_revalidated(self) -> None:
        """After its time a page is asked for again, with its tag; what is made of it stays."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        first = self.get("simple/a/", ASK_JSON)
        rig.net.pass_time(601)
        rig.workers.held = True
        again = self.get("simple/a/", ASK_JSON)
        self.assertEqual((again.headers["x-cache"], again.body), ("REVALIDATED", first.body))
        self.put("a", page(entry("a-1.zip", b"x"), entry("a-2.zip", b"y")))
        rig.workers.release()
        rig.net.pass_time(601)
        self.assertEqual(list(self.links()), ["a-1.zip", "a-2.zip"])
        self.assertNotEqual(self.get("simple/a/", ASK_JSON).headers["etag"], first.headers["etag"])

    def test_asked_for(self) -> None:
        """``no-cache`` is answered with what the index has now; ``max-age=0``, which pip always sends, with a hit."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        self.get("simple/a/", ASK_JSON)
        rig.net.pass_time(20)
        self.put("a", page(entry("a-2.zip", b"x")))
        client = self.get("simple/a/", ASK_JSON, "Cache-Control: no-cache")
        self.assertIn(b"a-2.zip", client.body)
        rig.net.pass_time(20)
        self.put("a", page(entry("a-3.zip", b"x")))
        client = self.get("simple/a/", ASK_JSON, "Cache-Control: max-age=0")
        self.assertEqual((client.headers["x-cache"], b"a-2.zip" in client.body), ("HIT", True))
        self.assertEqual(list(self.links()), ["a-3.zip"])
        self.assertEqual(len(rig.origin.requests), 3)

    def test_touched(self) -> None:
        """A made document that somebody wrote into is not served."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        body = self.get("simple/a/", ASK_JSON).body
        (path,) = rig.store.layout.root.glob("pypi/simple/a/page.json")
        path.write_bytes(b"nonsense" * 100)
        self.assertEqual(self.get("simple/a/", ASK_JSON).body, body)

    def test_trouble(self) -> None:
        """Whatever the index answers but a page, the kept one is served."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        self.get("simple/a/", ASK_JSON)
        for status in (500, 503, 429, 401, 403, 404):
            rig.origin.answer = lambda asked, status=status: asked.answer(status)
            rig.net.pass_time(700)
            client = self.get("simple/a/", ASK_JSON)
            self.assertEqual((client.status, client.headers["x-cache"]), (200, "STALE"), status)
        rig.origin.answer = lambda asked: asked.close()
        rig.net.pass_time(700)
        self.assertEqual(self.get("simple/a/", ASK_JSON).headers["x-cache"], "STALE")

    def test_broken_off(self) -> None:
        """So it is where the answer breaks off in the middle."""
        rig = self.vault(upstream={"stale_while_revalidate": 0.0, "retries": 0})
        self.put("a", page(entry("a-1.zip", b"x")))
        body = self.get("simple/a/", ASK_JSON).body
        rig.net.pass_time(700)

        def break_off(asked: Asked) -> None:
            asked.head(200, f"Content-Type: {JSON}", 'ETag: "new"', length=1000)
            asked.send(b'{"files": [')
            asked.close()

        rig.origin.answer = break_off
        client = self.get("simple/a/", ASK_JSON)
        rig.net.pass_time(30)
        self.assertEqual((client.status, client.headers["x-cache"], client.body), (200, "STALE", body))

    def test_nonsense(self) -> None:
        """And where it is no page at all; the index is asked again soon, and believed once it is well."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        body = self.get("simple/a/", ASK_JSON).body
        for kind, sent in ((JSON, b'{"files": [1'), (JSON, b"[]"), ("image/png", b"\x89PNG"), (JSON, b"")):
            rig.net.pass_time(700)
            self.put("a", sent, kind)
            client = self.get("simple/a/", ASK_JSON)
            self.assertEqual((client.status, client.headers["x-cache"], client.body), (200, "STALE", body), sent)
        for _ in range(3):  # who goes on asking does not put off that the index is asked again
            rig.net.pass_time(3)
            self.get("simple/a/", ASK_JSON)
        self.put("a", page(entry("a-2.zip", b"x")))
        rig.net.pass_time(2)
        self.assertEqual(list(self.links()), ["a-2.zip"])

    def test_nonsense_at_first(self) -> None:
        """Nonsense instead of a page nobody has seen is 502, and no empty page."""
        rig = self.vault()
        self.put("a", b'{"meta": {"api-version": "2.0"}, "files": []}')
        client = self.get("simple/a/", ASK_JSON)
        self.assertEqual(client.status, 502)
        self.assertIn(b"version", client.body)
        self.put("a", page(entry("a-2.zip", b"x")))
        rig.net.pass_time(11)
        self.assertEqual(list(self.links()), ["a-2.zip"])

    def test_serial(self) -> None:
        """A page with a lower serial comes from a mirror that lags behind: it does not take the newer one's place."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x"), entry("a-2.zip", b"y")), serial=10)
        self.get("simple/a/", ASK_JSON)
        rig.net.pass_time(700)
        self.put("a", page(entry("a-1.zip", b"x")), serial=9)
        self.assertEqual(list(self.links()), ["a-1.zip", "a-2.zip"])
        rig.net.pass_time(700)
        self.put("a", page(entry("a-3.zip", b"x")), serial=11)
        self.assertEqual(list(self.links()), ["a-3.zip"])

    def test_gone(self) -> None:
        """A project that has gone is served for ``gone_ttl``, then it is 404."""
        rig = self.vault(gone_ttl=3000.0)
        self.put("a", page(entry("a-1.zip", b"x")))
        self.get("simple/a/", ASK_JSON)
        self.pages.clear()
        rig.net.pass_time(700)
        self.assertEqual(self.get("simple/a/", ASK_JSON).headers["x-cache"], "STALE")
        rig.net.pass_time(3100)
        self.assertEqual(self.get("simple/a/", ASK_JSON).status, 404)

    def test_quarantine(self) -> None:
        """Files that an index takes back are gone with the next page."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        self.assertEqual(list(self.links()), ["a-1.zip"])
        self.put("a", page(**{"project-status": {"status": "quarantined"}}))
        rig.net.pass_time(700)
        self.assertEqual(self.links(), {})

    def test_missing(self) -> None:
        """A project that is not there is 404, remembered for a moment; an index that is down is 503 with a reason."""
        rig = self.vault()
        for _ in range(3):
            client = self.get("simple/nothing/", ASK_JSON)
            self.assertEqual((client.status, client.headers["content-type"]), (404, "application/problem+json"))
        self.assertEqual(len(rig.origin.requests), 1)
        rig.origin.answer = lambda asked: asked.answer(500)
        client = self.get("simple/other/", ASK_JSON)
        self.assertEqual((client.status, json.loads(client.body)["status"]), (503, 503))
        self.assertIn("answered 500", json.loads(client.body)["detail"])
        self.assertRegex(client.headers["retry-after"], r"^\d+$")
        rig.origin.answer = lambda asked: asked.answer(403)
        self.assertEqual(self.get("simple/third/", ASK_JSON).status, 502)

    def test_several(self) -> None:
        """The first index that has a project wins; one that is down does not let the next answer for it."""
        rig = self.vault("http://private.test/simple/", "http://origin.test/simple/")
        private = rig.net.origin("private.test")
        private.answer = lambda asked: asked.answer(404)
        self.put("a", page(entry("a-1.zip", b"x")), serial=5)
        self.assertEqual(list(self.links()), ["a-1.zip"])
        private.answer = lambda asked: asked.answer(500)
        self.assertEqual(self.get("simple/b/", ASK_JSON).status, 503)
        self.assertEqual(rig.origin.requests[-1].target, "/simple/a/")
        private.answer = lambda asked: asked.answer(
            200, f"Content-Type: {JSON}", "X-PyPI-Last-Serial: 1", body=page(entry("a-9.zip", b"x"))
        )
        rig.net.pass_time(700)
        self.assertEqual(list(self.links()), ["a-9.zip"])


class FileTests(PyPICase):
    """Files."""

    def setUp(self) -> None:
        self.vault()
        self.wheel = b"w" * 5000
        self.files["/packages/a-1.whl"] = self.wheel
        self.about = b"Metadata-Version: 2.1\n"
        self.put("a", page(entry("a-1.whl", self.wheel, **{"core-metadata": {"sha256": sha256(self.about)}})))

    def test_served(self) -> None:
        """A file is fetched once and never again; whoever asks may have parts of it."""
        client = self.follow("a-1.whl")
        self.assertEqual((client.status, client.body, client.headers["x-cache"]), (200, self.wheel, "MISS"))
        self.assertEqual(client.headers["cache-control"], "public, max-age=365000000, immutable")
        self.assertNotIn("content-encoding", client.headers)
        self.rig_.net.pass_time(10**6)
        self.pages.clear()
        target = f"/pypi/files/a/{sha256(self.wheel)[:16]}/a-1.whl"
        client = self.rig_.request(target + "?x=1", "Range: bytes=-10")
        self.assertEqual((client.status, client.body, client.headers["x-cache"]), (206, b"w" * 10, "HIT"))
        self.assertEqual(client.headers["content-range"], "bytes 4990-4999/5000")
        self.assertNotIn("content-encoding", client.headers)
        self.assertEqual(len(self.host.requests), 1)
        self.assertEqual(self.host.last.get("accept-encoding"), "identity")

    def test_head(self) -> None:
        """HEAD of a file that nobody has fetched gives its length and says that ranges are served."""
        client = self.follow("a-1.whl", method="HEAD")
        self.assertEqual(client.status, 200)
        self.assertEqual((client.headers["content-length"], client.headers["accept-ranges"]), ("5000", "bytes"))
        self.assertEqual([asked.method for asked in self.host.requests], ["HEAD"])

    def test_corrupt(self) -> None:
        """A file that is not what its hash says is cut off and not kept; once the upstream is well, so is it."""
        self.files["/packages/a-1.whl"] = b"x" * 5000
        client = self.follow("a-1.whl")
        self.assertTrue(client.aborted)
        self.assertLess(len(client.body), 5000)
        self.files["/packages/a-1.whl"] = self.wheel
        self.assertEqual(self.follow("a-1.whl").body, self.wheel)

    def test_metadata(self) -> None:
        """A metadata file is verified, kept as it is, and served without a coding."""
        self.files["/packages/a-1.whl.metadata"] = b"something else"
        self.assertTrue(self.follow("a-1.whl", more=".metadata").aborted)
        self.files["/packages/a-1.whl.metadata"] = self.about
        for _ in range(2):
            client = self.follow("a-1.whl", "Accept-Encoding: gzip", more=".metadata")
            self.assertEqual((client.status, client.body), (200, self.about))
            self.assertNotIn("content-encoding", client.headers)

    def test_companions(self) -> None:
        """Signatures and provenance are served where the page says that there are any."""
        provenance = "http://origin.test/integrity/a-2/provenance"
        self.put("a", page(entry("a-2.zip", b"z", **{"gpg-sig": True, "provenance": provenance})))
        self.files["/packages/a-2.zip.asc"] = b"signature"
        self.pages["/integrity/a-2/provenance"] = ("application/json", b"{}")
        self.assertEqual(self.follow("a-2.zip", more=".asc").body, b"signature")
        self.assertEqual(self.follow("a-2.zip", more=".provenance").body, b"{}")
        self.assertEqual(self.follow("a-2.zip", more=".metadata").status, 404)

    def test_no_companions(self) -> None:
        """Where it says nothing there are none, and the upstream is not asked."""
        for more in (".asc", ".provenance", ".asc.metadata"):
            self.assertEqual(self.follow("a-1.whl", more=more).status, 404)
        self.assertEqual(self.host.requests, [])

    def test_nothing_else(self) -> None:
        """What no page links to cannot be had: other names, hosts, paths and marks."""
        mark = sha256(self.wheel)[:16]
        for path in (
            f"files/a/{mark}/b-1.whl",
            "files/a/0123456789abcdef/a-1.whl",
            f"files/b/{mark}/a-1.whl",
            "files/other/a-1.whl",
            "files/http:/files.test/packages/a-1.zip",
            "files/a-1.txt",
            "files/x",
            f"files/a/{mark}/",
        ):
            self.assertEqual(self.get(path).status, 404, path)
        self.assertEqual(self.host.requests, [])

    def test_lock_files(self) -> None:
        """A file is found by its name alone, and by the path it has upstream, without its page having been asked."""
        for path in ("files/a-1.whl", "files/packages/a-1.whl"):
            self.assertEqual(self.get(path).body, self.wheel)
        self.assertEqual(len(self.host.requests), 1)

    def test_new(self) -> None:
        """A file that is newer than the page the vault has is found all the same."""
        self.links()
        self.rig_.net.pass_time(20)
        self.files["/packages/a-2.zip"] = b"new"
        self.put("a", page(entry("a-2.zip", b"new")))
        self.assertEqual(self.get(f"files/a/{sha256(b'new')[:16]}/a-2.zip").body, b"new")

    def test_replaced(self) -> None:
        """A file that is replaced upstream under the same name has another address here."""
        old = self.links()["a-1.whl"]
        self.assertEqual(self.rig_.request(old).body, self.wheel)
        self.files["/packages/a-1.whl"] = b"newer"
        self.put("a", page(entry("a-1.whl", b"newer")))
        self.rig_.net.pass_time(700)
        self.assertNotEqual(self.links()["a-1.whl"], old)
        self.assertEqual(self.follow("a-1.whl").body, b"newer")
        self.assertEqual(self.rig_.request(old).body, self.wheel)

    def test_same_name(self) -> None:
        """Two files of one name on a page are both to be had."""
        other = {**entry("a-1.whl", b"second"), "url": f"{FILES}/other/a-1.whl"}
        self.files["/packages/other/a-1.whl"] = b"second"
        self.put("a", page(entry("a-1.whl", self.wheel), other))
        urls = [file["url"] for file in json.loads(self.get("simple/a/", ASK_JSON).body)["files"]]
        bodies = [self.rig_.request(urljoin("/pypi/simple/a/", url)).body for url in urls]
        self.assertEqual(bodies, [self.wheel, b"second"])

    def test_unknown_hash(self) -> None:
        """A file without a hash is served as the upstream has it, and one with an old kind of hash is verified."""
        weak = {**entry("a-3.zip"), "hashes": {"md5": hashlib.md5(b"m").hexdigest()}}
        self.put("a", page(entry("a-2.zip"), weak))
        self.files["/packages/a-2.zip"] = b"anything"
        self.files["/packages/a-3.zip"] = b"not m"
        client = self.follow("a-2.zip")
        self.assertEqual((client.body, client.headers["content-encoding"]), (b"anything", "gzip"))
        self.assertTrue(self.follow("a-3.zip").aborted)

    def test_credentials(self) -> None:
        """The index's password goes to no other host that a page names, nor to where a redirect leads."""
        self.vault(upstream={"username": "me", "password": "pw"})
        self.put("a", page(entry("a-1.whl", b"w")))
        self.files["/packages/a-1.whl"] = b"w"
        self.assertEqual(self.follow("a-1.whl").body, b"w")
        self.assertIsNotNone(self.rig_.origin.last.get("authorization"))
        self.assertIsNone(self.host.last.get("authorization"))

    def test_local(self) -> None:
        """A page cannot make the vault ask its own machine or its neighbours on the link, by a link or a redirect."""
        inner = self.rig_.net.origin("inner.test", "127.0.0.1")
        for url in ("http://127.0.0.1/x.zip", "http://169.254.169.254/x.zip", "http://inner.test/x.zip"):
            self.put("a", page({**entry("a-1.zip", b"s"), "url": url}))
            self.rig_.net.pass_time(700)
            self.assertEqual(self.follow("a-1.zip").status, 502, url)
        self.put("a", page(entry("a-1.zip", b"s")))
        self.files["/packages/a-1.zip"] = lambda asked: asked.answer(302, "Location: http://127.0.0.1/x.zip")
        self.rig_.net.pass_time(700)
        self.assertEqual(self.follow("a-1.zip").status, 502)
        self.assertEqual(inner.requests, [])

    def test_outage(self) -> None:
        """An index that is down is 503 for a file that nobody has, never 404."""
        self.rig_.origin.answer = lambda asked: asked.answer(502)
        self.assertEqual(self.get("files/a/0123456789abcdef/a-1.whl").status, 503)
        self.assertEqual(self.get("files/a-1.whl").status, 503)


class AgeTests(PyPICase):
    """``min_release_age``."""

    def put_ages(self) -> None:
        """Three files: an old one, one of the last hour, and one of unknown age."""
        self.put(
            "a",
            page(
                entry("a-1.zip", b"1", **{"upload-time": "2020-01-01T00:00:00Z"}),
                entry("a-2.zip", b"2", **{"upload-time": "2026-11-23T20:30:00.5Z"}),
                entry("a-3.zip", b"3"),
            ),
        )
        for number in b"123":
            self.files[f"/packages/a-{number:c}.zip"] = bytes([number])

    def test_hidden(self) -> None:
        """Files that are too young, or of unknown age, are neither on the page nor to be had."""
        self.vault(min_release_age=3600.0)
        self.put_ages()
        self.assertEqual(list(self.links()), ["a-1.zip"])
        self.assertEqual(self.follow("a-1.zip").body, b"1")
        for number in (2, 3):
            self.assertEqual(self.get(f"files/a/{sha256(b'%d' % number)[:16]}/a-{number}.zip").status, 404)

    def test_shown(self) -> None:
        """A file appears when it is old enough; until then the page is not made again."""
        rig = self.vault(min_release_age=3600.0, ttl=10**6)
        self.put_ages()
        before = self.get("simple/a/", ASK_JSON).headers["etag"]
        rig.net.pass_time(1000)
        rig.workers.held = True
        self.assertEqual(self.get("simple/a/", ASK_JSON).headers["etag"], before)
        rig.workers.release()
        rig.net.pass_time(801)
        self.assertEqual(list(self.links()), ["a-1.zip", "a-2.zip"])
        self.assertEqual(self.get("simple/a/").body.count(b"<a "), 2)
        self.assertEqual(self.follow("a-2.zip").body, b"2")
        self.assertEqual(len(rig.origin.requests), 1)
        self.assertGreater(rig.net.seconds(), START + 1800)

    def test_exempt(self) -> None:
        """Projects that are named are shown as they are."""
        self.vault(min_release_age=3600.0, exempt=frozenset({"a"}))
        self.put_ages()
        self.assertEqual(list(self.links()), ["a-1.zip", "a-2.zip", "a-3.zip"])


class OptionTests(SynchronousTestCase):
    """Its part of the configuration."""

    def load(self, *lines: str) -> Config:
        """A configuration with one backend of these keys."""
        path = Path(self.mktemp())
        path.write_text("\n".join(["backends:", "- type: pypi", "  config:", "    prefix: /pypi/", *lines]))
        return load(path, os.environ)

    def index(self, *lines: str) -> Index:
        """The index that a configuration describes."""
        made = self.load(*lines).backends[0].backend
        assert isinstance(made, PyPIBackend)
        return made.index

    def test_default(self) -> None:
        """Without keys it is the public index, for ten minutes."""
        index = self.index()
        self.assertEqual(index, Index("pypi", (public_index(),)))
        self.assertRegex(index.urls[0], "^https://.+/simple/$")

    def test_keys(self) -> None:
        """Its keys are taken over."""
        index = self.index(
            "    index_urls: [http://a.test/x, http://b.test/]",
            "    ttl: 5m",
            "    gone_ttl: 2h",
            "    negative_ttl: 3",
            "    min_release_age: 7d",
            "    min_release_age_except: [My.Project]",
            "    public_url: https://vault.example/pypi",
        )
        expected = Index("pypi", ("http://a.test/x/", "http://b.test/"), 300, 7200, 3, 7 * 86400)
        expected = replace(expected, exempt=frozenset({"my-project"}), public_url="https://vault.example/pypi/")
        self.assertEqual(index, expected)

    def test_wrong(self) -> None:
        """What is wrong is told with its key."""
        error = str(self.assertRaises(ConfigError, self.load, "    min_release_age_except: [-x]", "    index_urls: 3"))
        self.assertIn("min_release_age_except[0]: '-x' is not the name of a project", error)
        self.assertIn("index_urls", error)
