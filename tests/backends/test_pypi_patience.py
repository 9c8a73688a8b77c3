"""``type: pypi``: an index that says nothing or is slow; no client waits for it longer than clients do."""

from __future__ import annotations

import json

from tests.backends.pypi_case import ASK_JSON, JSON, PyPICase, entry, page, sha256
from tests.memory import Asked, Client, Rig

BIG = page(*(entry(f"a-{number}.zip", b"x") for number in range(100)))


class SlowCase(PyPICase):
    """A silent or slow index.  pip and poetry wait 15 s for a first byte."""

    def silent(self, **settings: object) -> Rig:
        """A vault whose index takes every request and answers none."""
        rig = self.vault(**settings)
        rig.origin.answer = lambda asked: None
        return rig

    def wake(self, number: int = -1) -> None:
        """The index answers a request, by default its last."""
        asked = self.rig_.origin.requests[number]
        self._answer_page(asked)
        self.rig_.origin.answer = self._answer_page
        self.rig_.net.pass_time()

    def assert_told(self, client: Client, said: str) -> None:
        """The client is told to ask again soon, in words and in numbers."""
        self.assertEqual(client.status, 503)
        self.assertRegex(client.headers["retry-after"], r"^[1-5]$")
        self.assertEqual(client.headers["x-cache"], "MISS")
        self.assertEqual(client.headers["cache-status"], "ArtifactVault; fwd=uri-miss; detail=http_response_timeout")
        if client.method != "HEAD":
            self.assertIn(said, json.loads(client.body)["detail"])

    def trickle(self, asked: Asked, body: bytes = BIG, seconds: float = 50.0) -> None:
        """Answer with a page in 50 pieces."""
        asked.head(200, f"Content-Type: {JSON}", 'ETag: "slow"', length=len(body))
        step = len(body) // 50 + 1
        for number in range(50):
            piece = body[number * step : (number + 1) * step]
            self.rig_.net.callLater(seconds / 50 * number, asked.send, piece)


class PageTests(SlowCase):
    """Pages."""

    def test_silent(self) -> None:
        """Who asks for a page nobody has is told after 10 s to ask again, and gets it from the same request then."""
        rig = self.silent()
        self.put("a", page(entry("a-1.zip", b"x")))
        first = self.get("simple/a/", ASK_JSON)
        rig.net.pass_time(9.9)
        self.assertFalse(first.answered)
        rig.net.pass_time(0.2)
        self.assert_told(first, "the page of a has not come from the index within 10 s")
        again = self.get("simple/a/", ASK_JSON)
        rig.net.pass_time(2)
        self.assertFalse(again.answered)
        self.wake(0)
        self.assertEqual((again.status, again.headers["x-cache"]), (200, "JOINED"))
        self.assertEqual(self.get("simple/a/", ASK_JSON).headers["x-cache"], "HIT")
        self.assertEqual(len(rig.origin.requests), 1)

    def test_joining(self) -> None:
        """Whoever comes later waits as long, not longer because the index has long been silent; and goes on being."""
        rig = self.silent()
        clients = []
        for path in ("simple/a/", "a/", "simple/a/?format=html"):
            clients.append(self.get(path))
            rig.net.pass_time(8)
        rig.net.pass_time(2.1)
        for client in clients:
            self.assert_told(client, "the page of a")
        self.assertEqual(len(rig.origin.requests), 1)
        rig.net.pass_time(50)
        self.assertEqual(rig.kitchen.cache.transfers, {})

    def test_all_projects(self) -> None:
        """So it is with the list of all projects, by HEAD, and with several indexes."""
        rig = self.silent()
        other = rig.net.origin("private.test")
        for urls in ((), ("http://private.test/simple/", "http://origin.test/simple/")):
            self.use(*urls)
            clients = [self.get("simple/", method=method) for method in ("GET", "HEAD")]
            rig.net.pass_time(10.1)
            for client in clients:
                self.assert_told(client, "the list of projects")
            rig.net.pass_time(60)
        self.assertEqual((len(rig.origin.requests), len(other.requests)), (1, 1))

    def test_thin(self) -> None:
        """A large page over a thin link comes to its end though its clients are told to ask again."""
        rig = self.silent()
        rig.origin.answer = self.trickle
        told = 0
        while (client := self.get("simple/a/", ASK_JSON)) and not client.answered:
            rig.net.pass_time(10.1)
            if client.status == 200:
                break
            self.assert_told(client, "the page of a")
            told += 1
            rig.net.pass_time(2)
        self.assertEqual((client.status, len(json.loads(client.body)["files"]), told), (200, 100, 4))
        self.assertEqual(len(rig.origin.requests), 1)

    def test_thin_and_full(self) -> None:
        """So it does on a full disk, for whoever asks just then: nobody has it sent once more meanwhile."""
        for full_at in (0, 25):
            rig = self.silent()
            rig.origin.answer = self.trickle
            rig.net.callLater(full_at, setattr, rig.disk, "error", OSError(28, "No space left on device"))
            rig.net.pass_time()
            clients = []
            for _ in range(5):
                clients.append(self.get("simple/a/", ASK_JSON))
                rig.net.pass_time(11)
            self.assertEqual([client.status for client in clients], [503, 503, 503, 503, 200], full_at)
            self.assertEqual(len(rig.origin.requests), 1)
            later = self.get("simple/a/", ASK_JSON)
            rig.net.pass_time(10.1)
            self.assertEqual((later.status, len(rig.origin.requests)), (503, 2))

    def test_slow_to_make(self) -> None:
        """What takes the vault itself too long is told so too, and is there afterwards."""
        rig = self.vault()
        self.put("a", BIG)
        rig.workers.held = True
        client = self.get("simple/a/", ASK_JSON)
        rig.net.pass_time(10.1)
        self.assert_told(client, "the page of a")
        rig.workers.release()
        rig.net.pass_time()
        self.assertEqual(self.get("simple/a/", ASK_JSON).headers["x-cache"], "HIT")

    def test_kept(self) -> None:
        """With an older page nobody waits longer than 5 s, and who comes then not at all; the newer one is adopted."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        self.links()
        rig.net.pass_time(700)
        rig.origin.answer = lambda asked: None
        client = self.get("simple/a/", ASK_JSON)
        rig.net.pass_time(4.9)
        self.assertFalse(client.answered)
        rig.net.pass_time(0.2)
        self.assertEqual((client.status, client.headers["x-cache"]), (200, "STALE"))
        self.assertEqual(client.headers["cache-status"], "ArtifactVault; hit; detail=timeout")
        for _ in range(4):
            self.assertEqual(self.get("simple/a/", ASK_JSON).headers["x-cache"], "STALE")
            rig.net.pass_time(2)
        self.put("a", page(entry("a-2.zip", b"x")))
        self.wake()
        self.assertEqual(list(self.links()), ["a-2.zip"])
        self.assertEqual(len(rig.origin.requests), 2)

    def test_kept_and_slow(self) -> None:
        """So it is where the newer page has begun to come but is slow."""
        rig = self.vault()
        self.put("a", page(entry("a-0.zip", b"x")))
        self.links()
        rig.net.pass_time(700)
        rig.origin.answer = self.trickle
        client = self.get("simple/a/", ASK_JSON)
        rig.net.pass_time(4.9)
        self.assertFalse(client.answered)
        rig.net.pass_time(0.2)
        for _ in range(10):
            self.assertEqual((client.status, client.headers["x-cache"]), (200, "STALE"))
            self.assertEqual(client.headers["cache-status"], "ArtifactVault; hit; detail=timeout")
            self.assertEqual(len(json.loads(client.body)["files"]), 1)
            rig.net.pass_time(4)
            client = self.get("simple/a/", ASK_JSON)
        rig.net.pass_time(10)
        self.assertEqual(len(self.links()), 100)
        self.assertEqual(len(rig.origin.requests), 2)


class FileTests(SlowCase):
    """Files, for which a page is read first."""

    def test_lock_file(self) -> None:
        """A file that a lock file names waits for its page as long as a page's clients do, also by HEAD."""
        rig = self.silent()
        self.put("a", page(entry("a-1.zip", b"x")))
        self.files["/packages/a-1.zip"] = b"x"
        mark = sha256(b"x")[:16]
        paths = (f"files/a/{mark}/a-1.zip", "files/packages/a-1.zip", "files/a-1.zip.metadata")
        clients = [self.get(path, method=method) for path in paths for method in ("GET", "HEAD")]
        rig.net.pass_time(9.9)
        self.assertFalse(any(client.answered for client in clients))
        rig.net.pass_time(0.2)
        for client in clients:
            self.assert_told(client, "the page that may link to a-1.zip")
        self.wake(0)
        client = self.get(paths[0])
        self.assertEqual((client.status, client.body, len(rig.origin.requests)), (200, b"x", 1))

    def test_many_projects(self) -> None:
        """A name that may belong to several projects does not wait for each of them as long."""
        rig = self.silent()
        client = self.get("files/a-1-2-3.tar.gz")
        for _ in range(2):
            rig.net.pass_time(4.5)
            rig.origin.last.answer(404)
        rig.net.pass_time(0.9)
        self.assertFalse(client.answered)
        rig.net.pass_time(0.2)
        self.assert_told(client, "a-1-2-3.tar.gz")

    def test_slow_host(self) -> None:
        """That bound is the page's: a file whose host is slow is waited for."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        self.files["/packages/a-1.zip"] = lambda asked: rig.net.callLater(20, lambda: asked.answer(200, body=b"x"))
        client = self.follow("a-1.zip")
        rig.net.pass_time(21)
        self.assertEqual((client.status, client.body), (200, b"x"))

    def test_least_age(self) -> None:
        """With a least age the page is read before each file; a kept one is enough after 5 s."""
        rig = self.vault(min_release_age=60.0)
        old = entry("a-1.zip", b"x", **{"upload-time": "2024-01-02T03:04:05Z"})
        self.put("a", page(old))
        self.files["/packages/a-1.zip"] = b"x"
        self.assertEqual(self.follow("a-1.zip").body, b"x")
        rig.net.pass_time(700)
        rig.origin.answer = lambda asked: None
        client = self.get(f"files/a/{sha256(b'x')[:16]}/a-1.zip")
        rig.net.pass_time(5.1)
        self.assertEqual((client.status, client.body, client.headers["x-cache"]), (200, b"x", "HIT"))
