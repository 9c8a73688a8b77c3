"""One fill, many readers: what clients see while an object is still arriving."""

from __future__ import annotations

import threading
import time

from tests.functional.case import FunctionalCase
from tests.functional.clients import ask, raw, together
from tests.functional.content import Content
from tests.functional.script import MIB, Answer
from tests.functional.vault_process import eventually


class ManyReadersTests(FunctionalCase):
    """Everyone who asks for the same thing follows the same fill."""

    def stalled(self, path: str, size: int, after: int) -> tuple[Content, threading.Event]:
        """An object whose first answer stops at ``after`` bytes until the event is set."""
        release = threading.Event()
        self.addCleanup(release.set)
        content = self.origin.put(path, size, script=[Answer(stall_after=after, release=release)])
        return content, release

    def test_fifty_cold_clients_make_one_upstream_request(self) -> None:
        """Fifty clients that ask at once for something not cached all get it whole, from a single upstream GET."""
        content = self.origin.put("/big.iso", 4 * MIB + 3, default=Answer(delay=0.3, rate=4 * MIB))
        self.start_vault()
        replies = together(50, lambda _: self.get("/big.iso"))
        for reply in replies:
            self.assert_whole(reply, content)
        self.assertEqual(len(self.origin.requests("/big.iso")), 1)
        self.assertEqual(sorted({reply.cache for reply in replies}), ["JOINED", "MISS"])
        self.assertEqual([reply.cache for reply in replies].count("MISS"), 1)

    def test_joiner_is_streamed_while_the_fill_runs(self) -> None:
        """A client that comes in the middle of a download gets its first bytes at once."""
        content, release = self.stalled("/a", 3 * MIB, MIB)
        self.start_vault(idle_timeout=20)
        first = self.stream("/a")
        self.assertEqual(first.read(MIB), content.read(0, MIB))
        began = time.monotonic()
        joiner = self.stream("/a")
        self.assertEqual(joiner.read(MIB), content.read(0, MIB))
        self.assertLess(time.monotonic() - began, 1.0)
        self.assertEqual((first.cache, joiner.cache), ("MISS", "JOINED"))
        release.set()
        self.assertTrue(joiner.rest() == content.read(MIB, 3 * MIB))
        self.assertTrue(first.rest() == content.read(MIB, 3 * MIB))
        self.assertEqual(len(self.origin.requests("/a")), 1)

    def test_head_arrives_before_the_body(self) -> None:
        """Response headers go out as soon as the upstream's have come in."""
        content, release = self.stalled("/a", MIB, 0)
        self.start_vault(idle_timeout=20)
        first = self.stream("/a")
        self.assertEqual((first.status, first.headers["content-length"]), (200, str(MIB)))
        self.assertEqual(first.headers["etag"], '"1"')
        release.set()
        self.assertTrue(first.rest() == content.whole())

    def test_fill_outlives_its_first_client(self) -> None:
        """When every client leaves, the download goes on to its end and the next request is a hit."""
        content = self.origin.put("/a", 6 * MIB, default=Answer(rate=8 * MIB))
        self.start_vault()
        first = self.stream("/a")
        first.read(MIB)
        first.close()
        eventually(lambda: self.origin.requests("/a")[0].sent == content.size, what="the end of the fill")
        self.wait_until_stored("/a")
        self.assert_whole(self.get("/a"), content)
        self.assertEqual(len(self.origin.requests("/a", "GET")), 1)

    def test_slow_reader_holds_up_nobody(self) -> None:
        """A client that stops reading slows neither the fill nor another client."""
        content = self.origin.put("/a", 32 * MIB)
        self.start_vault()
        slow = self.stream("/a")
        slow.read(1)
        self.assert_whole(self.get("/a"), content)
        self.wait_until_stored("/a")
        self.assertTrue(slow.rest() == content.read(1, content.size))

    def test_what_happened_is_said(self) -> None:
        """X-Cache and Cache-Status tell a miss from a hit."""
        self.origin.put("/a", 1000)
        self.start_vault()
        miss = self.get("/a")
        self.wait_until_stored("/a")
        hit = self.get("/a")
        self.assertEqual((miss.cache, hit.cache), ("MISS", "HIT"))
        self.assertIn("fwd=", miss.headers["cache-status"])
        self.assertRegex(hit.headers["cache-status"], r";\s*hit\b")
        self.assertEqual(hit.headers["accept-ranges"], "bytes")


class BodyShapeTests(FunctionalCase):
    """Bodies of every kind arrive as they were sent."""

    def test_chunked_upstream(self) -> None:
        """A body of unknown length streams through, and has its length as a hit."""
        content = self.origin.put("/a", 2 * MIB + 1, default=Answer(framing="chunked"))
        self.start_vault()
        self.assert_whole(self.get("/a"), content)
        self.wait_until_stored("/a")
        hit = self.get("/a")
        self.assert_whole(hit, content)
        self.assertEqual(hit.headers["content-length"], str(content.size))

    def test_close_delimited_upstream(self) -> None:
        """A body that ends with the upstream's connection reaches the client."""
        content = self.origin.put("/a", MIB + 1, default=Answer(framing="close"))
        self.start_vault()
        done = self.curl("/a")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stdout == content.whole())

    def test_empty_body(self) -> None:
        """An empty file is a file: it is cached and served with a length of 0."""
        self.origin.put("/length", 0)
        self.origin.put("/chunked", 0, default=Answer(framing="chunked"))
        self.start_vault()
        for path in ("/length", "/chunked"):
            reply = self.get(path)
            self.assertEqual((reply.status, reply.body, reply.whole), (200, b"", True))
            self.wait_until_stored(path)
            hit = self.get(path)
            self.assertEqual((hit.status, hit.body, hit.headers["content-length"]), (200, b"", "0"))
            self.assertEqual(len(self.origin.requests(path, "GET")), 1)

    def test_head_of_something_absent(self) -> None:
        """HEAD of something not cached has the headers of a GET and no body."""
        content = self.origin.put("/a", 5000)
        self.start_vault()
        head = self.get("/a", method="HEAD")
        self.assertEqual((head.status, head.headers["content-length"], head.body), (200, "5000", b""))
        self.assertEqual(head.headers["etag"], '"1"')
        self.assert_whole(self.get("/a"), content)

    def test_head_of_something_cached(self) -> None:
        """HEAD of something cached asks nobody."""
        self.origin.put("/a", 5000)
        self.start_vault()
        self.get("/a")
        self.wait_until_stored("/a")
        asked = len(self.origin.requests())
        head = self.get("/a", method="HEAD")
        self.assertEqual((head.status, head.cache, head.body), (200, "HIT", b""))
        self.assertEqual((head.headers["content-length"], head.headers["etag"]), ("5000", '"1"'))
        self.assertEqual(len(self.origin.requests()), asked)

    def test_head_of_something_missing(self) -> None:
        """HEAD of something that does not exist is 404 without a body."""
        self.start_vault()
        head = self.get("/none", method="HEAD")
        self.assertEqual((head.status, head.body), (404, b""))


class ConnectionTests(FunctionalCase):
    """Several requests on one connection."""

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        """Requests sent without waiting get their own bodies, in the order they were sent."""
        sizes = {"/a": 300_000, "/b": 0, "/c": 70}
        contents = {path: self.origin.put(path, size) for path, size in sizes.items()}
        self.start_vault()
        for _ in ("cold", "cached"):
            order = ["/a", "/b", "/c", "/b", "/a"]
            requests = [f"GET /o{path} HTTP/1.1\r\nHost: vault\r\n" for path in order]
            rest = raw(self.vault.port, ("\r\n".join(requests) + "Connection: close\r\n\r\n").encode())
            for path in order:
                head, _, rest = rest.partition(b"\r\n\r\n")
                self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head[:200])
                size = contents[path].size
                self.assertIn(b"content-length: %d\r\n" % size, head.lower() + b"\r\n")
                self.assertTrue(rest[:size] == contents[path].whole(), f"{path} differs")
                rest = rest[size:]
            self.assertEqual(rest, b"")

    def test_http_1_0_client(self) -> None:
        """A client of HTTP/1.0 gets a body of unknown length without chunks."""
        content = self.origin.put("/a", 100_000, default=Answer(framing="chunked"))
        self.start_vault()
        answer = raw(self.vault.port, b"GET /o/a HTTP/1.0\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertNotIn(b"transfer-encoding", head.lower())
        self.assertTrue(body == content.whole())

    def test_unknown_prefix(self) -> None:
        """A path that no backend has is 404 and goes nowhere."""
        self.start_vault()
        self.assertEqual(ask(self.vault.port, "/nobody/a").status, 404)
        self.assertEqual(self.origin.requests(), [])
