"""``type: http``: what a path means."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

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

    def test_challenge(self) -> None:
        """It has no answer to a challenge."""
        answered = self.backend.authorize(self.backend.resolve("a", {}), "Basic", lambda url, headers: self.fail(url))
        self.assertEqual(self.successResultOf(answered), ())


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
