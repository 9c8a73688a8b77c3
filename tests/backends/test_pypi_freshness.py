"""``type: pypi``: pages that change, an index that fails, and files that are too young."""

from __future__ import annotations

import json

from tests.backends.pypi_case import ASK_JSON, JSON, PyPICase, entry, page, sha256
from tests.memory import START, Asked


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
        rig.net.pass_time(70)
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

    def test_private(self) -> None:
        """Pages and files that a private index marks as private are kept all the same, for those who may ask here."""
        rig = self.vault()
        body = page({**entry("a-1.zip", b"x"), "url": "http://origin.test/a-1.zip"})
        fields = ("Cache-Control: max-age=0, private, must-revalidate", f"Content-Type: {JSON}", 'ETag: "1"')
        rig.origin.answer = lambda asked: asked.answer(200, *fields, body=b"x" if asked.target == "/a-1.zip" else body)
        target = self.links()["a-1.zip"]
        self.assertEqual(rig.request(target).body, b"x")
        rig.origin.answer = lambda asked: asked.answer(503)
        rig.net.pass_time(700)
        self.assertEqual(self.get("simple/a/", ASK_JSON).headers["x-cache"], "STALE")
        self.assertEqual(rig.request(target).headers["x-cache"], "HIT")

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

    def test_nonsense_forms(self) -> None:
        """All that a page has is still to be had after nonsense came in its place, though nobody had asked for it."""
        rig = self.vault()
        page_ = page(entry("a-1.zip", b"x"), entry("a-2.zip", b"y"))
        self.put("a", page_)
        target = self.links()["a-1.zip"]
        self.put("a", b"%PDF", "application/pdf")
        self.files["/packages/a-1.zip"] = b"x"
        self.files["/packages/a-2.zip"] = b"y"
        for _ in range(3):
            rig.net.pass_time(700)
            rig.again()
            self.assertEqual(rig.request(target).body, b"x")
            self.assertEqual(self.get("files/a-2.zip").body, b"y")
            self.assertEqual(self.get("simple/a/").body.count(b"<a "), 2)
            client = self.get("a/", ASK_JSON)
            self.assertEqual((client.status, client.headers["x-cache"]), (200, "STALE"))
            self.assertEqual(list(self.links("a/")), ["a-1.zip", "a-2.zip"])
        self.put("a", page(entry("a-3.zip", b"z")))
        rig.net.pass_time(700)
        self.assertEqual(list(self.links()), ["a-3.zip"])

    def test_nonsense_after_nonsense(self) -> None:
        """The kept page is the last that could be read, not the first."""
        rig = self.vault()
        for name in ("a-1.zip", "a-2.zip"):
            self.put("a", page(entry(name, b"x")))
            rig.net.pass_time(700)
            self.assertEqual(list(self.links()), [name])
            self.put("a", b"%PDF", "application/pdf")
            rig.net.pass_time(700)
            self.assertEqual(list(self.links("a/")), [name])

    def test_login(self) -> None:
        """A page to log in, also where a redirect leads to it, does not make a project empty."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        self.assertEqual(list(self.links()), ["a-1.zip"])
        login = b"<html><h1>Log in</h1><form action='/login' method=post><input name=password></form></html>"
        self.put("a", login, "text/html")
        rig.net.pass_time(700)
        self.assertEqual(list(self.links()), ["a-1.zip"])
        rig.origin.answer = lambda asked: (
            asked.answer(200, "Content-Type: text/html", body=login)
            if asked.target == "/login"
            else asked.answer(302, "Location: /login")
        )
        rig.net.pass_time(700)
        self.assertEqual(list(self.links()), ["a-1.zip"])
        self.assertEqual(self.get("simple/b/").status, 502)

    def test_wrong_type(self) -> None:
        """JSON is read as JSON, whatever the index calls it."""
        self.vault()
        for kind in ("text/html", "text/plain", "application/octet-stream"):
            self.put("a", page(entry("a-1.zip", b"x")), kind)
            self.assertEqual(list(self.links()), ["a-1.zip"], kind)
            self.rig_.net.pass_time(700)

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

    def test_gone_and_back(self) -> None:
        """The time of a project that has gone begins anew where its index had it meanwhile, if only an older page."""
        rig = self.vault(gone_ttl=3000.0)
        self.put("a", page(entry("a-1.zip", b"x")), serial=7)
        self.links()
        for status in (404, 200, 404):
            self.pages.clear()
            if status == 200:
                self.put("a", page(entry("a-0.zip", b"x")), serial=6)
            rig.net.pass_time(2000)
            self.assertEqual(list(self.links()), ["a-1.zip"], status)

    def test_absurd_serial(self) -> None:
        """A serial of thousands of digits is none, and harms nobody."""
        rig = self.vault()
        for number in range(3):
            self.put("a", page(entry(f"a-{number}.zip", b"x")))
            self.serials["/simple/a/"] = "9" * 5000
            self.assertEqual(list(self.links()), [f"a-{number}.zip"])
            rig.net.pass_time(700)

    def test_quarantine(self) -> None:
        """Files that an index takes back are gone with the next page."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x")))
        self.assertEqual(list(self.links()), ["a-1.zip"])
        self.put("a", page(**{"project-status": {"status": "quarantined"}}))
        rig.net.pass_time(700)
        self.assertEqual(self.links(), {})

    def test_removed(self) -> None:
        """A file that its index removed cannot be had any more; one that is kept can, by its address in lock files."""
        rig = self.vault()
        self.put("a", page(entry("a-1.zip", b"x"), entry("a-2.zip", b"y")))
        self.files |= {"/packages/a-1.zip": b"x", "/packages/a-2.zip": b"y"}
        links = self.links()
        self.assertEqual(rig.request(links["a-1.zip"]).body, b"x")
        self.put("a", page(entry("a-3.zip", b"z")))
        rig.net.pass_time(700)
        self.assertEqual(list(self.links()), ["a-3.zip"])
        asked = len(self.host.requests)
        self.assertEqual(rig.request(links["a-2.zip"]).status, 404)
        self.assertEqual(rig.request(links["a-1.zip"]).headers["x-cache"], "HIT")
        for filename in ("a-1.zip", "a-2.zip"):
            self.assertEqual(self.get(f"files/{filename}").status, 404)
        self.assertEqual(len(self.host.requests), asked)

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

    def test_several_gone(self) -> None:
        """A project that has gone from the first index is not handed to the next one before ``gone_ttl`` is over."""
        rig = self.vault("http://private.test/simple/", "http://origin.test/simple/", gone_ttl=3000.0)
        private = rig.net.origin("private.test")
        own = page(entry("a-1.zip", b"own"))
        private.answer = lambda asked: asked.answer(200, f"Content-Type: {JSON}", 'ETag: "1"', body=own)
        self.put("a", page(entry("a-666.zip", b"foreign")))
        self.assertEqual(list(self.links()), ["a-1.zip"])
        for status in (404, 410, 404):
            private.answer = lambda asked, status=status: asked.answer(status)
            rig.net.pass_time(700)
            client = self.get("simple/a/", ASK_JSON)
            self.assertEqual((client.status, client.headers["x-cache"]), (200, "STALE"))
            self.assertEqual(list(self.links()), ["a-1.zip"])
            self.assertEqual(self.get("files/a-666.zip").status, 404)
            rig.again()
        self.assertEqual(rig.origin.requests, [])
        rig.net.pass_time(1700)
        self.assertEqual(list(self.links()), ["a-666.zip"])

    def test_several_back(self) -> None:
        """A first index that has the project again begins anew; one that never had it is passed over as ever."""
        rig = self.vault("http://private.test/simple/", "http://origin.test/simple/", gone_ttl=3000.0)
        private = rig.net.origin("private.test")
        private.answer = lambda asked: asked.answer(404)
        self.put("a", page(entry("a-1.zip", b"x")))
        for _ in range(2):
            self.assertEqual(list(self.links()), ["a-1.zip"])
            rig.net.pass_time(700)
        self.assertEqual(len(rig.origin.requests), 2)
        own = page(entry("a-9.zip", b"own"))
        for status in (200, 404, 200, 404):
            body = own if status == 200 else b""
            private.answer = lambda asked, status=status, body=body: asked.answer(
                status, f"Content-Type: {JSON}", 'ETag: "1"', body=body
            )
            rig.net.pass_time(2000)
            self.assertEqual(list(self.links()), ["a-9.zip"])
        self.assertEqual(len(rig.origin.requests), 2)

    def test_several_nowhere(self) -> None:
        """A project that has gone from the one index that had it is 404 after that time, wherever else it is not."""
        rig = self.vault("http://private.test/simple/", "http://origin.test/simple/", gone_ttl=3000.0)
        private = rig.net.origin("private.test")
        private.answer = lambda asked: asked.answer(404)
        self.put("a", page(entry("a-1.zip", b"x")))
        self.links()
        self.pages.clear()
        rig.net.pass_time(700)
        self.assertEqual(list(self.links()), ["a-1.zip"])
        rig.net.pass_time(3100)
        client = self.get("simple/a/", ASK_JSON)
        self.assertEqual((client.status, client.headers["x-cache"]), (404, "MISS"))


class AgeTests(PyPICase):
    """``min_release_age``."""

    def put_ages(self) -> None:
        """Three files: an old one, one of the last hour, and one of unknown age."""
        self.put(
            "a",
            page(
                entry("a-1.zip", b"1", **{"upload-time": "2020-01-01T00:00:00+00:00"}),
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

    def test_unreadable(self) -> None:
        """A least age that is switched on holds at once, also while the index sends nonsense."""
        rig = self.vault()
        self.put_ages()
        self.assertEqual(len(self.links()), 3)
        self.put("a", b"nonsense", "image/png")
        rig.net.pass_time(700)
        self.assertEqual(len(self.links()), 3)
        self.use(min_release_age=10**6)
        self.assertEqual(list(self.links()), ["a-1.zip"])
        self.assertEqual(self.get("simple/a/").body.count(b"<a "), 1)
        self.use(min_release_age=2 * 10**6)
        self.rig_.run(self.rig_.store.remove("pypi/simple/a/readable"))
        self.assertEqual(self.get("simple/a/", ASK_JSON).status, 502)

    def test_exempt(self) -> None:
        """Projects that are named are shown as they are."""
        self.vault(min_release_age=3600.0, exempt=frozenset({"a"}))
        self.put_ages()
        self.assertEqual(list(self.links()), ["a-1.zip", "a-2.zip", "a-3.zip"])


class SizeTests(PyPICase):
    """Pages that are too large."""

    def test_announced(self) -> None:
        """A page that announces more than 100 MiB is refused before it comes."""
        rig = self.vault()

        def answer(asked: Asked) -> None:
            asked.head(200, f"Content-Type: {JSON}", length=100 * 1024 * 1024 + 1)
            asked.send(b"{")

        rig.origin.answer = answer
        self.assertEqual(self.get("simple/a/", ASK_JSON).status, 502)
