"""``type: http``: what a path means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.memory import Rig, RigCase
from vault.backends.http import VOLATILE_TTL, HTTPBackend
from vault.config import Config, load
from vault.errors import ConfigError
from vault.interfaces import IBackend


class HTTPTests(SynchronousTestCase):
    """Paths and what they stand for."""

    def setUp(self) -> None:
        self.backend = HTTPBackend("name", "/files/", ("http://a.test/x/", "http://b.test/"))

    def test_interface(self) -> None:
        """It is a backend."""
        self.assertTrue(verifyObject(IBackend, self.backend))

    def test_paths(self) -> None:
        """A path is the same path below each base URL, its query and encoding included."""
        for path in ("a", "a/b%2Bc", "a?x=y&z=/", "", "d/"):
            artifact = self.backend.resolve(path, {})
            self.assertEqual(artifact.key, f"name/{path}")
            self.assertEqual(artifact.urls, (f"http://a.test/x/{path}", f"http://b.test/{path}"))
            self.assertEqual((artifact.backend, artifact.headers, artifact.digest), ("name", (), None))

    def test_times(self) -> None:
        """Files never change, listings are good for a minute, and ``ttl`` is for everything."""
        table = {"a.iso": None, "": VOLATILE_TTL, "d/": VOLATILE_TTL, "d/?C=M": VOLATILE_TTL, "a?d/": None}
        for path, expected in table.items():
            self.assertEqual(self.backend.resolve(path, {}).max_age, expected, path)
            timed = HTTPBackend("name", "/files/", ("http://a.test/",), 5.0)
            self.assertEqual(timed.resolve(path, {}).max_age, 5.0)
        self.assertFalse(self.backend.resolve("a", {}).immutable)

    def test_short(self) -> None:
        """Listings are asked for before files, with ``ttl`` too."""
        timed = HTTPBackend("name", "/files/", ("http://a.test/",), 5.0)
        for backend in (self.backend, timed):
            short = {path for path in ("a.iso", "", "d/", "d/?C=M", "a?d/") if backend.resolve(path, {}).short}
            self.assertEqual(short, {"", "d/", "d/?C=M"})

    def test_challenge(self) -> None:
        """It has no answer to a challenge."""
        answered = self.backend.authorize(self.backend.resolve("a", {}), "Basic", lambda url, headers: self.fail(url))
        self.assertEqual(self.successResultOf(answered), ())


class SlashTests(RigCase):
    """Redirects that only add a slash: the links of the page they lead to are relative to that address."""

    def moved(self, location: str, *urls: str, status: int = 301, **options: Any) -> Rig:
        """A vault whose upstream says of everything without a slash that it has moved."""
        rig = self.rig(urls or ("http://origin.test/base/",), **options)
        rig.origin.answer = lambda asked: (
            asked.answer(200, "Content-Type: text/html", body=b"list")
            if asked.target.partition("?")[0].endswith("/")
            else asked.answer(status, f"Location: {location}", body=b"moved")
        )
        return rig

    def test_told(self) -> None:
        """The client is told, by the upstream's status, the address with the slash below the vault's prefix."""
        for location in (
            "/base/dir/", "dir/", "http://origin.test/base/dir/", "http://origin.test:8080/base/dir/",
            "//origin.test/base/dir/", "https://origin.test/base/dir/", "/base/d%69r/",
        ):  # fmt: skip
            for method, status in (("GET", 301), ("HEAD", 301), ("GET", 302), ("GET", 307), ("HEAD", 308)):
                rig = self.moved(location, status=status)
                client = rig.request("dir", method=method)
                self.assertEqual((client.status, client.headers["location"]), (status, "/files/dir/"), location)
                self.assertTrue(client.whole)
                self.assertEqual(client.headers["cache-status"], f"ArtifactVault; fwd=uri-miss; fwd-status={status}")
                self.assertEqual([asked.target for asked in rig.origin.requests], ["/base/dir"])
                self.assertEqual((rig.stored, rig.transfers), (0, {}))
                self.assertEqual(rig.request("dir/").body, b"list")

    def test_query(self) -> None:
        """A query stays."""
        client = self.moved("/base/a/dir/?C=M;O=D").request("a/dir?C=M;O=D")
        self.assertEqual((client.status, client.headers["location"]), (301, "/files/a/dir/?C=M;O=D"))

    def test_spelling(self) -> None:
        """Whatever characters are in the name and however the upstream spells them, the client's spelling stays."""
        client = self.moved("http://origin.test/base/a+b/").request("a%2Bb")
        self.assertEqual(client.headers["location"], "/files/a%2Bb/")

    def test_proxied(self) -> None:
        """A client that uses the vault as a proxy stays at the upstream's address, which has no prefix."""
        rig = self.moved("/base/a:b/")
        client = rig.request("http://origin.test/base/a:b")
        self.assertEqual((client.status, client.headers["location"]), (301, "./a:b/"))

    def test_behind_others(self) -> None:
        """It is told behind a redirect that leaves the path as it is, such as one to https."""
        rig = self.moved("http://other.test/base/dir")
        other = rig.net.origin("other.test")
        other.answer = lambda asked: asked.answer(301, "Location: /base/dir/")
        client = rig.request("dir")
        self.assertEqual((client.status, client.headers["location"]), (301, "/files/dir/"))

    def test_others_stay_inside(self) -> None:
        """Redirects to elsewhere, or that change more of the address, are followed by the vault."""
        for location in (
            "/base/dir2/",
            "/dir/",
            "dir/?x=y",
            "/base/dir//",
            "dir/index.html",
            "http://other.test/base/dir/",
        ):
            rig = self.moved(location)
            rig.net.origin("other.test").answer = rig.origin.answer
            rig.origin.answer = lambda asked, location=location: (
                asked.answer(301, f"Location: {location}")
                if asked.target == "/base/dir"
                else asked.answer(200, body=b"list")
            )
            self.assertEqual((rig.request("dir").status, rig.stored), (200, 1), location)

    def test_revalidated(self) -> None:
        """What was a file, or was stored under the name without the slash, and is a directory now, is not kept."""
        for seconds, first in ((1000, 301), (130, 200)):
            rig = self.moved("dir/", ttl=100.0)
            rig.fill("dir", b"file", 'ETag: "1"')
            rig.net.pass_time(seconds)
            self.assertEqual(rig.request("dir").status, first)
            client = rig.request("dir")
            self.assertEqual((client.status, client.headers["location"]), (301, "/files/dir/"))
            self.assertEqual(rig.stored, 0)

    def test_moved_for_now(self) -> None:
        """A redirect that may end again takes no stored copy away."""
        for status, stored in ((302, 1), (303, 1), (307, 1), (301, 0), (308, 0)):
            for seconds in (1000, 130):
                rig = self.moved("dir/", status=status, ttl=100.0)
                rig.fill("dir", b"file", 'ETag: "1"')
                rig.net.pass_time(seconds)
                rig.request("dir")
                rig.net.pass_time(1)
                self.assertEqual(rig.stored, stored, (status, seconds))

    def test_together(self) -> None:
        """Those who ask at the same time are each told the address that is right for them."""
        rig = self.rig()
        clients = [rig.request(target) for target in ("dir", "http://origin.test/dir", "dir")]
        rig.origin.last.answer(301, "Location: /dir/")
        rig.net.pass_time()
        told = [client.headers["location"] for client in clients]
        self.assertEqual(told, ["/files/dir/", "./dir/", "/files/dir/"])
        self.assertEqual(len(rig.origin.requests), 1)


class OptionTests(SynchronousTestCase):
    """Its part of the configuration."""

    def load(self, *lines: str) -> Config:
        """A configuration with one backend of these keys."""
        path = Path(self.mktemp())
        path.write_text("\n".join(["backends:", "- type: http", "  config:", "    prefix: /x/", *lines]))
        return load(path, os.environ)

    def test_one(self) -> None:
        """``base_url`` is the one upstream, with a slash at its end."""
        (backend,) = self.load("    base_url: http://a.test/y").backends
        self.assertEqual(tuple(backend.backend.upstreams), ("http://a.test/y/",))
        self.assertEqual(backend.backend.prefix, "/x/")

    def test_several(self) -> None:
        """``base_urls`` are tried in order; ``ttl`` is taken over."""
        (backend,) = self.load("    base_urls: [http://a.test/, http://b.test/]", "    ttl: 5m").backends
        self.assertEqual(tuple(backend.backend.upstreams), ("http://a.test/", "http://b.test/"))
        self.assertEqual(backend.backend.resolve("a", {}).max_age, 300)

    def test_none(self) -> None:
        """Without either it is refused, and the message names the key."""
        self.assertIn("base_url", str(self.assertRaises(ConfigError, self.load)))
