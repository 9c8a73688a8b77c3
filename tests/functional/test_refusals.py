"""An upstream that does not give the object at all: what clients are told, and for how long it is remembered."""

from __future__ import annotations

import email.utils
import time

from tests.functional.case import FunctionalCase
from tests.functional.clients import Reply
from tests.functional.script import Answer


class UnavailableTests(FunctionalCase):
    """What may pass is 503 with a small whole number of seconds in Retry-After."""

    def assert_unavailable(self, reply: Reply, most: int = 60) -> None:
        self.assertEqual(reply.status, 503, reply.body[:300])
        self.assert_retry_after(reply, most)
        self.assertRegex(reply.body, rb"\bo\b")  # the backend's name
        self.assertLess(len(reply.body), 2000)

    def test_refused_connection(self) -> None:
        """An upstream that refuses connections is an outage, never a 404."""
        self.origin.stop()
        self.start_vault()
        self.assert_unavailable(self.get("/a"))

    def test_silent_upstream(self) -> None:
        """An upstream that never answers is given up after its timeout."""
        self.origin.put("/a", default=Answer(hang=True))
        self.start_vault(first_byte_timeout=1, retries=1)
        began = time.monotonic()
        self.assert_unavailable(self.get("/a"))
        self.assertLess(time.monotonic() - began, 8)

    def test_server_errors(self) -> None:
        """500 and 503 from the upstream are 503 to the client, and not kept."""
        for status in (500, 503):
            path = f"/{status}"
            self.origin.put(path, 10, default=Answer(status=status))
        self.start_vault(retries=1)
        for status in (500, 503):
            self.assert_unavailable(self.get(f"/{status}"))
            self.assertFalse(self.kept(f"/{status}").exists())

    def test_recovers_after_a_server_error(self) -> None:
        """An error is not remembered once the upstream has recovered."""
        self.start_vault(retries=0)
        self.origin.put("/a", 10, default=Answer(status=500))
        self.assert_unavailable(self.get("/a"))
        content = self.origin.put("/a", 1000)
        end = time.monotonic() + 10
        while (reply := self.get("/a")).status != 200 and time.monotonic() < end:
            time.sleep(0.2)
        self.assert_whole(reply, content)

    def test_throttled_in_seconds(self) -> None:
        """An upstream's Retry-After in seconds is obeyed and passed on as it is."""
        self.origin.put("/a", 10, default=Answer(status=429, headers={"Retry-After": "7"}))
        self.start_vault(retries=1)
        began = time.monotonic()
        self.assert_unavailable(self.get("/a"), 7)
        self.assertLess(time.monotonic() - began, 5)
        asked = len(self.origin.requests("/a"))
        self.assert_unavailable(self.get("/a"), 7)
        self.assertEqual(len(self.origin.requests("/a")), asked)

    def test_throttled_until_a_date(self) -> None:
        """An upstream's Retry-After as a date becomes a whole number, at most 60."""
        for path, seconds in (("/soon", 20), ("/later", 7200)):
            date = email.utils.formatdate(time.time() + seconds, usegmt=True)
            self.origin.put(path, 10, default=Answer(status=429, headers={"Retry-After": date}))
            vault = self.new_vault(path.strip("/"), retries=0)
            vault.start()
            self.vault = vault
            self.assert_unavailable(self.get(path), min(seconds, 60))

    def test_other_headers_of_an_error_do_not_leak(self) -> None:
        """An upstream's error page and cookies stay inside."""
        self.origin.put("/a", content=b"internal details", default=Answer(status=500), headers={"Set-Cookie": "a=b"})
        self.start_vault(retries=0)
        reply = self.get("/a")
        self.assertNotIn("set-cookie", reply.headers)
        self.assertNotIn(b"internal details", reply.body)


class BrokenAnswerTests(FunctionalCase):
    """What cannot be right is 502."""

    def assert_bad_gateway(self, reply: Reply) -> None:
        self.assertEqual(reply.status, 502, reply.body[:300])
        self.assertNotIn("www-authenticate", reply.headers)

    def test_vault_refused_by_the_upstream(self) -> None:
        """401 and 403 mean that the vault was refused: the client is not told to log in."""
        self.origin.put("/401", login=("user", "word"))
        self.origin.put("/403", default=Answer(status=403))
        self.start_vault()
        self.assert_bad_gateway(self.get("/401"))
        self.assert_bad_gateway(self.get("/403"))

    def test_garbage_instead_of_http(self) -> None:
        """An upstream that does not speak HTTP is a bad gateway."""
        self.origin.put("/a", default=Answer(raw=b"SSH-2.0-OpenSSH_9.2\r\n\r\n"))
        self.start_vault(retries=1)
        self.assert_bad_gateway(self.get("/a"))

    def test_two_content_lengths(self) -> None:
        """Contradicting lengths are refused, not guessed about."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 10\r\n\r\n"
        self.origin.put("/a", default=Answer(raw=head + b"0123456789"))
        self.start_vault(retries=1)
        self.assert_bad_gateway(self.get("/a"))
        self.assertFalse(self.kept("/a").exists())

    def test_huge_head(self) -> None:
        """A response head without end is refused, and the vault goes on."""
        self.origin.put("/a", default=Answer(headers={"X-Big": "x" * 1_000_000}))
        content = self.origin.put("/b", 1000)
        self.start_vault(retries=1)
        self.assert_bad_gateway(self.get("/a"))
        self.assert_whole(self.get("/b"), content)

    def test_partial_answer_to_a_whole_request(self) -> None:
        """A 206 that nobody asked for is not passed off as the object."""
        head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/10\r\nContent-Length: 5\r\n\r\n"
        self.origin.put("/a", default=Answer(raw=head + b"01234"))
        self.start_vault(retries=1)
        self.assert_bad_gateway(self.get("/a"))
        self.assertFalse(self.kept("/a").exists())


class MissingTests(FunctionalCase):
    """404 and 410 are passed on and remembered for a while."""

    def test_missing_is_remembered(self) -> None:
        """Within negative_ttl a missing object is not asked for again, after it it is."""
        self.origin.put("/gone", default=Answer(status=410))
        self.start_vault(negative_ttl=1)
        for path, status in (("/none", 404), ("/gone", 410)):
            for _ in range(3):
                self.assertEqual(self.get(path).status, status)
            self.assertEqual(len(self.origin.requests(path)), 1)
        time.sleep(1.2)
        content = self.origin.put("/none", 1000)
        self.assert_whole(self.get("/none"), content)
        self.assertEqual(self.get("/gone").status, 410)
        self.assertEqual(len(self.origin.requests("/gone")), 2)

    def test_missing_has_a_readable_body(self) -> None:
        """The client is told in a few words what is missing."""
        self.start_vault()
        reply = self.get("/none")
        self.assertEqual(reply.status, 404)
        self.assertTrue(reply.headers["content-type"].startswith("text/plain"), reply.headers)
        self.assertTrue(0 < len(reply.body) < 2000)
