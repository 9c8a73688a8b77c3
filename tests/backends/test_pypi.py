"""``type: pypi``: what paths and configurations mean, and its pages."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import urljoin

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.backends.pypi_case import ASK_JSON, JSON, PyPICase, backend, entry, page, sha256
from tests.formats.pages import FULL, OLD, PLAIN, SDIST, WHEEL
from tests.memory import DATE, Asked
from vault.backends._pypi_files import FileRecipe
from vault.backends._pypi_index import Index
from vault.backends._pypi_pages import PageRecipe
from vault.backends.pypi import PyPIBackend, public_index
from vault.config import Config, load
from vault.errors import ConfigError, Missing, Moved
from vault.formats.negotiation import Choice
from vault.interfaces import IBackend, IRecipe


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

    def test_proxy(self) -> None:
        """A client that uses the vault as its proxy gets the same pages and files."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        self.files["/packages/a-1.zip"] = b"x"
        url = "http://origin.test/simple/a/"
        (file,) = json.loads(rig.request(url, ASK_JSON, "Host: origin.test").body)["files"]
        self.assertEqual(rig.request(urljoin(url, file["url"]), "Host: origin.test").body, b"x")

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
