"""How long a copy is good, how it is confirmed, and what is served when that fails (RFC 9111)."""

from __future__ import annotations

import time

from tests.functional.case import FunctionalCase
from tests.functional.content import Content
from tests.functional.script import OLD_DATE, Answer
from tests.functional.vault_process import eventually


class RevalidationTests(FunctionalCase):
    """A backend with a ttl of one second."""

    def stored(self, **settings: object) -> Content:
        """Start a vault and let /a, 5000 bytes, be cached and then expire."""
        content = self.origin.put("/a", 5000)
        self.start_vault(ttl=1, **settings)
        self.get("/a")
        self.wait_until_stored("/a")
        time.sleep(1.2)
        return content

    def test_unchanged_object(self) -> None:
        """An expired copy that the upstream confirms is served again, without its body being fetched."""
        content = self.stored()
        reply = self.get("/a")
        self.assert_whole(reply, content)
        self.assertEqual(reply.cache, "REVALIDATED")
        asked = self.origin.requests("/a")[-1]
        self.assertEqual((asked.status, asked.headers.get("if-none-match")), (304, '"1"'))
        self.assertEqual(asked.headers.get("if-modified-since"), OLD_DATE)
        self.assertEqual(self.get("/a").cache, "HIT")

    def test_changed_object(self) -> None:
        """An expired copy that has changed is replaced."""
        self.stored()
        new = self.origin.put("/a", content=Content(3, 7000), etag='"2"')
        reply = self.get("/a")
        self.assert_whole(reply, new)
        self.assertEqual(reply.headers["etag"], '"2"')
        self.wait_until_kept("/a", new)

    def test_stale_while_revalidate(self) -> None:
        """Shortly after it expired the old copy is served at once and refreshed behind."""
        old = self.stored(stale_while_revalidate=60)
        new = self.origin.put("/a", content=Content(3, 7000), etag='"2"', default=Answer(delay=0.5))
        began = time.monotonic()
        reply = self.get("/a")
        self.assertLess(time.monotonic() - began, 0.4)
        self.assert_whole(reply, old)
        self.assertEqual(reply.cache, "STALE")
        eventually(lambda: self.get("/a").body == new.whole(), what="the refreshed copy")

    def test_upstream_down(self) -> None:
        """When the upstream cannot be reached the old copy is served."""
        content = self.stored()
        self.origin.stop()
        reply = self.get("/a")
        self.assert_whole(reply, content)
        self.assertEqual(reply.cache, "STALE")

    def test_upstream_failing(self) -> None:
        """Whatever the upstream says that is no new copy, the old one is served."""
        content = self.stored(retries=0)
        for status in (401, 403, 404, 410, 429, 500, 503):
            self.origin.put("/a", 10, default=Answer(status=status), etag=None, last_modified=None)
            reply = self.get("/a")
            self.assert_whole(reply, content)
            self.assertEqual(reply.cache, "STALE", status)

    def test_upstream_hanging(self) -> None:
        """An upstream that does not answer costs its timeout, not the answer."""
        content = self.stored(first_byte_timeout=1, retries=0)
        self.origin.put("/a", 10, default=Answer(hang=True))
        reply = self.get("/a")
        self.assert_whole(reply, content)
        self.assertEqual(reply.cache, "STALE")

    def test_offline(self) -> None:
        """An offline vault serves what it has, however old, and asks nobody."""
        content = self.stored()
        self.vault.terminate()
        self.vault.write_config(offline=True)
        self.vault.start()
        asked = len(self.origin.requests())
        reply = self.get("/a")
        self.assert_whole(reply, content)
        self.assertIn(reply.cache, ("HIT", "STALE"))
        self.origin.put("/b", 10)
        missing = self.get("/b")
        self.assertEqual(missing.status, 503)
        self.assert_retry_after(missing)
        self.assertEqual(len(self.origin.requests()), asked)


class KindTests(FunctionalCase):
    """Files are kept for good; what changes by nature is rechecked; what is private is not kept."""

    def test_files_never_change(self) -> None:
        """A file is a hit however old it is, and whatever a client's no-cache says."""
        self.origin.put("/a.tar.gz", 5000, headers={"Age": "1000000"})
        self.origin.put("/b.iso", 5000, headers={"Cache-Control": "max-age=1", "Expires": "0"})
        self.start_vault()
        for path in ("/a.tar.gz", "/b.iso"):
            self.get(path)
            self.wait_until_stored(path)
        time.sleep(1.2)
        for path in ("/a.tar.gz", "/b.iso"):
            reply = self.get(path, {"Cache-Control": "no-cache", "Pragma": "no-cache"})
            self.assertEqual(reply.cache, "HIT")
            self.assertEqual(len(self.origin.requests(path, "GET")), 1)

    def test_what_changes_is_fresh_for_a_while(self) -> None:
        """An HTML page, a directory listing or what is marked no-cache is not rechecked for each request."""
        page, html = b"<html></html>", "text/html; charset=utf-8"
        self.origin.put("/page", content=page, content_type=html)
        self.origin.put("/dir/", content=page, content_type=html)
        self.origin.put("/latest", content=b"1.2.3", headers={"Cache-Control": "no-cache"})
        self.start_vault()
        for path in ("/page", "/dir/", "/latest"):
            self.assertEqual(self.get(path).cache, "MISS")
            self.wait_until_stored(path)
            self.assertEqual(len(self.origin.requests(path)), 1)

    def test_private_things_are_not_kept(self) -> None:
        """no-store and private answers pass through each time and leave nothing on the disk."""
        for path, directive in (("/secret", "no-store"), ("/mine", "private, max-age=600")):
            content = self.origin.put(path, 500_000, headers={"Cache-Control": directive})
            if not hasattr(self, "vault"):
                self.start_vault()
            for _ in range(2):
                reply = self.get(path)
                self.assert_whole(reply, content)
                self.assertEqual(reply.cache, "BYPASS", path)
            self.assertEqual(len(self.origin.requests(path, "GET")), 2)
            self.assertFalse(self.kept(path).exists())

    def test_cookies_are_not_shared(self) -> None:
        """An upstream's Set-Cookie reaches nobody, and a client's cookie does not reach the upstream."""
        self.origin.put("/a", 5000, headers={"Set-Cookie": "session=1"})
        self.start_vault()
        first = self.get("/a", {"Cookie": "mine=1", "Authorization": "Bearer mine"})
        self.wait_until_stored("/a")
        self.assertNotIn("set-cookie", first.headers)
        self.assertNotIn("set-cookie", self.get("/a").headers)
        [asked] = self.origin.requests("/a", "GET")
        self.assertNotIn("cookie", asked.headers)
        self.assertNotIn("authorization", asked.headers)


class ConditionalTests(FunctionalCase):
    """What a client already has is not sent again."""

    def setUp(self) -> None:
        super().setUp()
        self.content = self.origin.put("/a", 5000, headers={"Cache-Control": "public, max-age=60", "X-Kind": "wheel"})
        self.start_vault()
        self.get("/a")
        self.wait_until_stored("/a")

    def test_matching_conditions(self) -> None:
        """A matching ETag or date is answered with 304, which repeats the ETag."""
        for name, value in (
            ("If-None-Match", '"1"'),
            ("If-None-Match", 'W/"1"'),
            ("If-None-Match", '"0", "1"'),
            ("If-None-Match", "*"),
            ("If-Modified-Since", OLD_DATE),
            ("If-Modified-Since", "Thu, 02 Jan 2020 00:00:00 GMT"),
        ):
            reply = self.get("/a", {name: value})
            self.assertEqual((reply.status, reply.body), (304, b""), f"{name}: {value}")
            self.assertEqual(reply.headers.get("etag"), '"1"')

    def test_other_conditions(self) -> None:
        """Another ETag or an earlier date is answered in full; the ETag decides over the date."""
        for headers in (
            {"If-None-Match": '"2"'},
            {"If-Modified-Since": "Tue, 31 Dec 2019 00:00:00 GMT"},
            {"If-None-Match": '"2"', "If-Modified-Since": OLD_DATE},
            {"If-Modified-Since": "yesterday"},
        ):
            self.assert_whole(self.get("/a", headers), self.content)

    def test_headers_of_a_hit(self) -> None:
        """A hit has the upstream's end-to-end headers and says how old it is."""
        time.sleep(1.1)
        headers = self.get("/a").headers
        self.assertEqual(headers["last-modified"], OLD_DATE)
        self.assertEqual(headers["content-type"], "application/octet-stream")
        self.assertEqual(headers["x-kind"], "wheel")
        self.assertGreaterEqual(int(headers["age"]), 1)
        self.assertLessEqual(int(headers["age"]), 30)

    def test_no_content_type_is_invented(self) -> None:
        """What came without a media type goes out without one."""
        self.origin.put("/untyped", 100, content_type=None)
        self.assertNotIn("content-type", self.get("/untyped").headers)
        self.wait_until_stored("/untyped")
        self.assertNotIn("content-type", self.get("/untyped").headers)
