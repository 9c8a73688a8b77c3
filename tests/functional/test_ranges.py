"""Byte ranges of objects that are cached, arriving and absent (RFC 9110 section 14)."""

from __future__ import annotations

import threading
import time

from tests.functional.case import FunctionalCase
from tests.functional.clients import Reply, parts_of
from tests.functional.content import Content
from tests.functional.script import MIB, OLD_DATE, Answer
from tests.functional.vault_process import eventually

SIZE = 4 * MIB + 5
ARRIVED = 2 * MIB


class RangeTests(FunctionalCase):
    """The same questions have the same answers in every state of an object."""

    def setUp(self) -> None:
        super().setUp()
        self.start_vault(idle_timeout=30)
        self._names = 0

    def cached(self) -> tuple[str, Content]:
        """An object that is in the cache."""
        self._names += 1
        path = f"/cached{self._names}"
        content = self.origin.put(path, SIZE)
        self.get(path)
        self.wait_until_stored(path)
        return path, content

    def growing(self) -> tuple[str, Content]:
        """An object of which ARRIVED bytes have come, and the rest comes a second later."""
        self._names += 1
        path = f"/growing{self._names}"
        release = threading.Event()
        content = self.origin.put(path, SIZE, script=[Answer(stall_after=ARRIVED, release=release)])
        self.stream(path).read(ARRIVED)
        threading.Timer(1.0, release.set).start()
        return path, content

    def absent(self) -> tuple[str, Content]:
        """An object that nobody has asked for."""
        self._names += 1
        path = f"/absent{self._names}"
        return path, self.origin.put(path, SIZE)

    def assert_part(self, reply: Reply, content: Content, start: int, stop: int) -> None:
        self.assertEqual(reply.status, 206, reply.body[:300])
        self.assertEqual(reply.headers["content-range"], f"bytes {start}-{stop - 1}/{content.size}")
        self.assertEqual(reply.headers["content-length"], str(stop - start))
        self.assertEqual(reply.headers["etag"], '"1"')
        self.assertTrue(reply.body == content.read(start, stop), "the part differs")

    def test_single_range(self) -> None:
        """A range in the middle is answered with just its bytes."""
        for make in (self.cached, self.growing, self.absent):
            path, content = make()
            self.assert_part(self.get(path, {"Range": "bytes=100000-299999"}), content, 100_000, 300_000)

    def test_first_byte(self) -> None:
        """A range of one byte is one byte."""
        for make in (self.cached, self.growing, self.absent):
            path, content = make()
            self.assert_part(self.get(path, {"Range": "bytes=0-0"}), content, 0, 1)

    def test_last_bytes(self) -> None:
        """A suffix range is answered with the end of the object, wherever the fill is."""
        for make in (self.cached, self.growing, self.absent):
            path, content = make()
            self.assert_part(self.get(path, {"Range": "bytes=-500"}), content, SIZE - 500, SIZE)

    def test_suffix_longer_than_the_object(self) -> None:
        """A suffix range longer than the object is all of it, as a part."""
        path, content = self.cached()
        self.assert_part(self.get(path, {"Range": f"bytes=-{2 * SIZE}"}), content, 0, SIZE)

    def test_open_ended_range(self) -> None:
        """An open range reaches to the end."""
        for make in (self.cached, self.growing, self.absent):
            path, content = make()
            start = SIZE - MIB
            self.assert_part(self.get(path, {"Range": f"bytes={start}-"}), content, start, SIZE)

    def test_end_is_clamped(self) -> None:
        """A range that reaches past the end stops there."""
        path, content = self.cached()
        self.assert_part(self.get(path, {"Range": f"bytes={SIZE - 10}-{SIZE + 10}"}), content, SIZE - 10, SIZE)

    def test_several_ranges(self) -> None:
        """Several ranges come as multipart/byteranges, each part with its own Content-Range."""
        for make in (self.cached, self.growing, self.absent):
            path, content = make()
            reply = self.get(path, {"Range": "bytes=0-99, 5000-5099, 1000000-1000000"})
            self.assertEqual(reply.status, 206, make.__name__)
            self.assertTrue(reply.headers["content-type"].startswith("multipart/byteranges"))
            self.assertNotIn("content-range", reply.headers)
            self.assertEqual(reply.headers["content-length"], str(len(reply.body)))
            expected = [
                (f"bytes {start}-{stop - 1}/{SIZE}", content.read(start, stop))
                for start, stop in ((0, 100), (5000, 5100), (1_000_000, 1_000_001))
            ]
            self.assertEqual(parts_of(reply), expected)

    def test_unsatisfiable_range(self) -> None:
        """A range past the end is 416 and says how long the object is."""
        for make in (self.cached, self.growing, self.absent):
            path, _ = make()
            reply = self.get(path, {"Range": f"bytes={SIZE}-"})
            self.assertEqual(reply.status, 416, make.__name__)
            self.assertEqual(reply.headers.get("content-range"), f"bytes */{SIZE}", make.__name__)

    def test_matching_if_range(self) -> None:
        """A range is answered when If-Range has the current ETag or modification date."""
        for make in (self.cached, self.growing, self.absent):
            for validator in ('"1"', OLD_DATE):
                path, content = make()
                reply = self.get(path, {"Range": "bytes=10-19", "If-Range": validator})
                self.assert_part(reply, content, 10, 20)

    def test_other_if_range(self) -> None:
        """With another, or a weak, validator in If-Range the whole object comes."""
        for make in (self.cached, self.absent):
            for validator in ('"other"', 'W/"1"', "Thu, 02 Jan 2020 00:00:00 GMT"):
                path, content = make()
                self.assert_whole(self.get(path, {"Range": "bytes=10-19", "If-Range": validator}), content)

    def test_malformed_range_is_ignored(self) -> None:
        """A range that cannot be understood is as if it were not there."""
        path, content = self.cached()
        for value in ("bytes=a-b", "lines=1-2", "bytes=9-5", "bytes="):
            self.assertIn(self.get(path, {"Range": value}).status, (200, 416), value)
        self.assert_whole(self.get(path, {"Range": "lines=1-2"}), content)

    def test_range_of_an_empty_object(self) -> None:
        """An empty object has no ranges."""
        self.origin.put("/empty", 0)
        self.get("/empty")
        self.wait_until_stored("/empty")
        self.assertIn(self.get("/empty", {"Range": "bytes=0-"}).status, (200, 416))


class FarRangeTests(FunctionalCase):
    """A range that the fill reaches much later is fetched directly."""

    def test_far_range_of_a_growing_object_does_not_wait(self) -> None:
        """The end of a big object that is slow to come is answered at once, and the fill goes on."""
        content = self.origin.put("/big", 64 * MIB, script=[Answer(rate=2 * MIB)])
        self.start_vault()
        reader = self.stream("/big")
        reader.read(1000)
        began = time.monotonic()
        reply = self.get("/big", {"Range": "bytes=-1000"})
        self.assertLess(time.monotonic() - began, 2.0)
        self.assertEqual((reply.status, reply.body), (206, content.read(content.size - 1000, content.size)))
        fill = self.origin.requests("/big")[0]
        sent = fill.sent
        eventually(lambda: fill.sent > sent + 100_000, what="the fill going on")
        self.assertEqual(len([r for r in self.origin.requests("/big") if "range" not in r.headers]), 1)

    def test_far_range_of_an_absent_object_does_not_wait(self) -> None:
        """The end of a big object that nobody has asked for is answered at once."""
        content = self.origin.put("/big", 64 * MIB, default=Answer(rate=4 * MIB))
        self.start_vault()
        began = time.monotonic()
        reply = self.get("/big", {"Range": f"bytes={content.size - 1000}-"})
        self.assertLess(time.monotonic() - began, 3.0)
        self.assertEqual((reply.status, reply.body), (206, content.read(content.size - 1000, content.size)))

    def test_ranges_of_an_absent_object_fill_it_once(self) -> None:
        """After a few ranges of an absent object it is cached whole, from one whole upstream GET."""
        content = self.origin.put("/a", 2 * MIB)
        self.start_vault()
        self.get("/a", {"Range": "bytes=0-9"})
        self.get("/a", {"Range": "bytes=100-199"})
        self.wait_until_stored("/a")
        self.assert_whole(self.get("/a"), content)
        whole = [record for record in self.origin.requests("/a", "GET") if "range" not in record.headers]
        self.assertEqual(len(whole), 1)
