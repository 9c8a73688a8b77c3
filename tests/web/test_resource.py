"""GET and HEAD of artifacts: fields, conditions, ranges, and how a broken body ends."""

from __future__ import annotations

import base64
import hashlib

from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionLost

from tests.memory import DATE, MODIFIED, Asked, Client, Rig, RigCase
from vault.parts import NEAR_BYTES

BODY = b"0123456789"
STRONG = ('ETag: "1"', f"Last-Modified: {MODIFIED}", f"Date: {DATE}")


class FieldTests(RigCase):
    """The fields of an answer."""

    def test_hit(self) -> None:
        """A hit has what the upstream sent, its age, its length, a digest, and says that it is one."""
        rig = self.rig()
        rig.fill("a.deb", BODY, *STRONG, "Content-Type: a/b", "Content-Encoding: gzip", "X-Kept: 1", "Via: 1.1 up")
        rig.net.pass_time(30)
        client = rig.request("a.deb")
        expected = {
            "etag": '"1"',
            "last-modified": MODIFIED,
            "date": DATE,
            "content-type": "a/b",
            "content-encoding": "gzip",
            "x-kept": "1",
            "age": "30",
            "accept-ranges": "bytes",
            "content-length": "10",
            "x-cache": "HIT",
            "cache-status": "ArtifactVault; hit",
            "repr-digest": f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:",
        }
        for name, value in expected.items():
            self.assertEqual(client.headers.get(name), value, name)
        self.assertEqual(client.body, BODY)

    def test_absurd_date(self) -> None:
        """An age that no 32 bits hold is told as the greatest that they do."""
        rig = self.rig()
        rig.fill("a", BODY, "Date: Mon, 01 Jan 0001 00:00:00 GMT")
        self.assertEqual(rig.request("a").headers["age"], "2147483647")

    def test_outcomes(self) -> None:
        """X-Cache and Cache-Status tell what happened."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, *STRONG, length=10)
        miss = rig.request()
        joined = rig.request()
        rig.origin.last.send(BODY)
        rig.net.pass_time(1)
        self.assertEqual(miss.headers["x-cache"], "MISS")
        self.assertEqual(miss.headers["cache-status"], "ArtifactVault; fwd=uri-miss; fwd-status=200; stored")
        self.assertEqual(joined.headers["x-cache"], "JOINED")
        self.assertEqual(
            joined.headers["cache-status"], "ArtifactVault; fwd=uri-miss; fwd-status=200; stored; collapsed"
        )
        rig.origin.answer = lambda asked: asked.answer(
            200, "Cache-Control: no-store", "Cache-Status: Up; hit", body=b"x"
        )
        passed = rig.request("b")
        self.assertEqual(passed.headers["x-cache"], "BYPASS")
        self.assertTrue(passed.headers["cache-status"].startswith("Up; hit, ArtifactVault; fwd="))
        rig.origin.answer = lambda asked: asked.answer(404)
        self.assertEqual(rig.request("c").headers["x-cache"], "MISS")

    def test_remembered_errors(self) -> None:
        """An error that is told from memory does not say that somebody was asked: a remembered 404 is a hit."""
        for status, fields, kind, second in (
            (404, (), "destination_not_found", "; hit; detail=destination_not_found"),
            (410, (), "destination_not_found", "; hit; detail=destination_not_found"),
            (429, ("Retry-After: 20",), "destination_unavailable", "; detail=destination_unavailable"),
        ):
            first = f"; fwd=uri-miss; fwd-status={status}; detail={kind}"
            rig = self.rig()
            rig.origin.answer = lambda asked, status=status, fields=fields: asked.answer(status, *fields)
            for expected, word in ((first, "MISS"), (second, "MISS" if status == 429 else "HIT")):
                for method in ("GET", "HEAD") if expected is second else ("GET",):
                    client = rig.request(method=method)
                    self.assertEqual(client.headers["cache-status"], f"ArtifactVault{expected}", status)
                    self.assertEqual(client.headers["x-cache"], word)
                    self.assertIn(f" {word} files ", rig.lines[-1])
            self.assertEqual(len(rig.origin.requests), 1)

    def test_own_tag(self) -> None:
        """What has no tag gets one of its content, so that it can be resumed and revalidated."""
        rig = self.rig()
        rig.fill("a", BODY, "X-Nothing: 1")
        tag = f'"sha256-{hashlib.sha256(BODY).hexdigest()}"'
        self.assertEqual(rig.request().headers["etag"], tag)
        self.assertEqual(rig.request("a", f"If-None-Match: {tag}").status, 304)
        self.assertEqual(rig.request("a", "Range: bytes=5-", f"If-Range: {tag}").body, BODY[5:])

    def test_loop(self) -> None:
        """A request that has been here before ends here."""
        rig = self.rig()
        self.assertEqual(rig.request("a", "Via: 1.1 artifact-vault-me").status, 508)
        self.assertEqual(rig.origin.requests, [])

    def test_access_log(self) -> None:
        """Each request has one line, which names the backend and what happened."""
        rig = self.rig()
        rig.fill()
        rig.request()
        self.assertEqual(len(rig.lines), 2)
        self.assertIn(" MISS files ", rig.lines[0])
        self.assertIn('"GET /files/a HTTP/1.1" 200 10 ', rig.lines[1])
        self.assertIn(" HIT files ", rig.lines[1])

    def test_client_fields_stay_here(self) -> None:
        """Nothing a client says about itself or about conditions goes upstream."""
        rig = self.rig()
        fields = (
            "Authorization: Basic c2VjcmV0", "Cookie: a=b", "Range: bytes=1-2", 'If-None-Match: "9"', "X-Mine: 1",
            "Accept-Encoding: gzip", "User-Agent: me", "Referer: x", "Connection: X-Mine",
        )  # fmt: skip
        rig.request("a", *fields)
        names = {name for name, _ in rig.origin.last.headers}
        self.assertEqual(names - {"host", "connection"}, {"user-agent", "accept", "accept-encoding", "via"})
        self.assertEqual(rig.origin.last.all("Accept-Encoding"), ["identity"])

    def test_methods(self) -> None:
        """Only GET and HEAD are allowed on artifacts."""
        rig = self.rig()
        for method in ("POST", "PUT", "DELETE"):
            client = rig.request("a", "Content-Length: 0", method=method)
            self.assertEqual(client.status, 405)
            self.assertEqual(client.headers["allow"], "GET, HEAD")

    def test_head_of_what_is_not_kept(self) -> None:
        """A HEAD that only GET could answer holds no connection and no place in the queue once it is answered."""
        rig = self.rig(max_connections=2)

        def answer(asked: Asked) -> None:
            if asked.method == "HEAD":
                asked.answer(405)
            else:
                asked.head(200, "Cache-Control: no-store", length=1000)

        rig.origin.answer = answer
        for _ in range(3):
            client = rig.request(method="HEAD")
            self.assertEqual((client.status, client.whole), (200, True))
            self.assertEqual(client.headers["content-length"], "1000")
            self.assertEqual((rig.free_slots(), rig.upstream.paced.tokens), (2, 1))
        self.assertEqual(rig.origin.open_wires, 0)


class ConditionTests(RigCase):
    """Conditional requests."""

    def setUp(self) -> None:
        self.here = self.rig()
        self.here.fill("a", BODY, *STRONG, "Cache-Control: max-age=60", "Vary: Accept", "Content-Type: a/b")

    def test_not_modified(self) -> None:
        """A client that has it is told so, with the fields of RFC 9110 section 15.4.5 and no body."""
        for field in (
            'If-None-Match: "1"',
            'If-None-Match: "0", W/"1"',
            "If-None-Match: *",
            f"If-Modified-Since: {DATE}",
        ):
            for method in ("GET", "HEAD"):
                client = self.here.request("a", field, method=method)
                self.assertEqual((client.status, client.body), (304, b""))
                for name in ("etag", "last-modified", "date", "cache-control", "vary", "age", "x-cache"):
                    self.assertIn(name, client.headers)
                for name in ("content-type", "content-length", "transfer-encoding"):
                    self.assertNotIn(name, client.headers)

    def test_modified(self) -> None:
        """A client that has something else gets it."""
        for fields in (('If-None-Match: "2"',), ('If-None-Match: "2"', f"If-Modified-Since: {DATE}")):
            self.assertEqual(self.here.request("a", *fields).body, BODY)

    def test_growing(self) -> None:
        """A client that has what is just being fetched is told so at once, and the fill goes on."""
        self.here.origin.answer = lambda asked: asked.head(200, 'ETag: "7"', length=10)
        client = self.here.request("b", 'If-None-Match: "7"')
        self.assertEqual(client.status, 304)
        self.here.origin.last.send(BODY)
        self.here.net.pass_time(1)
        self.assertEqual(self.here.stored, 2)


class RangeTests(RigCase):
    """Ranges of what is stored."""

    def setUp(self) -> None:
        self.here = self.rig()
        self.here.fill("a", BODY, *STRONG, "Content-Type: a/b")

    def test_single(self) -> None:
        """One range is a 206 with its place, its length and the validators."""
        for asked, start, stop in (
            ("0-0", 0, 1),
            ("2-4", 2, 5),
            ("5-", 5, 10),
            ("-3", 7, 10),
            ("-99", 0, 10),
            ("8-99", 8, 10),
        ):
            client = self.here.request("a", f"Range: bytes={asked}")
            self.assertEqual((client.status, client.body, client.whole), (206, BODY[start:stop], True))
            self.assertEqual(client.headers["content-range"], f"bytes {start}-{stop - 1}/10")
            self.assertEqual(client.headers["content-length"], str(stop - start))
            self.assertEqual(client.headers["etag"], '"1"')

    def test_several(self) -> None:
        """Several ranges come as a multipart body of the announced length."""
        client = self.here.request("a", "Range: bytes=0-1,8-")
        self.assertEqual(client.status, 206)
        self.assertTrue(client.whole)
        kind, _, boundary = client.headers["content-type"].partition("; boundary=")
        self.assertEqual(kind, "multipart/byteranges")
        self.assertNotIn("content-range", client.headers)
        parts = client.body.split(b"--" + boundary.encode())
        self.assertEqual(len(parts), 4)
        self.assertIn(b"Content-Range: bytes 0-1/10\r\n\r\n01\r\n", parts[1])
        self.assertIn(b"Content-Range: bytes 8-9/10\r\n\r\n89\r\n", parts[2])
        self.assertIn(b"Content-Type: a/b\r\n", parts[1])

    def test_unsatisfiable(self) -> None:
        """A range past the end is a 416 that tells the length."""
        client = self.here.request("a", "Range: bytes=10-")
        self.assertEqual((client.status, client.headers["content-range"]), (416, "bytes */10"))
        self.assertTrue(client.whole)

    def test_unsatisfiable_fields(self) -> None:
        """A 416 has nothing of what the upstream said of the whole, which it does not send."""
        fields = ("Content-Disposition: attachment", "X-Kept: 1", "Link: <x>", "Expires: 0", "Content-Language: en")
        self.here.fill("d", BODY, *STRONG, *fields, "Server: theirs", "Cache-Control: max-age=5", "Age: 3")
        client = self.here.request("d", "Range: bytes=10-")
        self.assertEqual(client.status, 416)
        names = {"server", "date", "x-cache", "cache-status", "content-range", "content-type", "content-length"}
        self.assertEqual(set(client.headers), names | {"cache-control"})
        self.assertEqual((client.headers["x-cache"], client.headers["cache-control"]), ("HIT", "no-store"))
        self.assertNotIn("theirs", client.headers["server"])

    def test_unsatisfiable_upstream(self) -> None:
        """An upstream's own 416 is told as it is, with the length it names; what is kept is served all the same."""
        for field, expected in (
            ("Content-Range: bytes */10", "bytes */10"),
            ("Content-Range: x", None),
            ("X: y", None),
        ):
            rig = self.rig(ttl=100.0)
            rig.origin.answer = lambda asked, field=field: asked.answer(
                416, field, "Content-Disposition: x", body=b"no"
            )
            for fields in ((), ("Range: bytes=10-",)):
                client = rig.request("a", *fields)
                self.assertEqual((client.status, client.headers.get("content-range")), (416, expected))
                self.assertNotIn("content-disposition", client.headers)
                self.assertIsNone(rig.origin.last.get("Range"))
            rig.fill()
            rig.net.pass_time(1000)
            self.assertEqual(rig.request("a").headers["x-cache"], "STALE")

    def test_of_a_whole(self) -> None:
        """An upstream's Content-Range on a 200 means nothing and is not passed on, nor is one on a part of it."""
        self.here.fill("w", BODY, *STRONG, "Content-Range: bytes 0-9/99")
        for fields, expected in (((), None), (("Range: bytes=5-",), "bytes 5-9/10")):
            self.assertEqual(self.here.request("w", *fields).headers.get("content-range"), expected)
        self.here.origin.answer = lambda asked: asked.answer(
            200, "Content-Range: bytes 0-9/99", "Cache-Control: no-store", body=BODY
        )
        for method in ("GET", "HEAD"):
            self.assertNotIn("content-range", self.here.request("x", method=method).headers)

    def test_ignored(self) -> None:
        """What is no range of bytes, or does not go with GET, is ignored."""
        for field in ("Range: bytes=x", "Range: items=0-1", "Range: bytes=4-2"):
            self.assertEqual(self.here.request("a", field).status, 200)
        client = self.here.request("a", "Range: bytes=0-1", method="HEAD")
        self.assertEqual((client.status, client.headers["content-length"]), (200, "10"))

    def test_if_range(self) -> None:
        """If-Range gives a range only of the very same representation."""
        for value, status in ((('"1"'), 206), (MODIFIED, 206), ('"2"', 200), ('W/"1"', 200), (DATE, 200)):
            client = self.here.request("a", "Range: bytes=5-", f"If-Range: {value}")
            self.assertEqual(client.status, status, value)
            self.assertEqual(client.body, BODY[5:] if status == 206 else BODY)

    def test_digest_of_the_whole(self) -> None:
        """What the upstream said of the bytes of the whole is not said of a part, and of an error even less."""
        names = ("content-digest", "content-md5")
        fields = ("Content-Digest: sha-256=:AAAA:", "Content-MD5: AAAA", "Repr-Digest: x=:AAAA:")
        self.here.fill("d", BODY, *STRONG, *fields)
        whole = self.here.request("d")
        self.assertEqual([whole.headers.get(name) for name in names], ["sha-256=:AAAA:", "AAAA"])
        for asked, status in (("5-", 206), ("0-1,8-", 206), ("10-", 416)):
            client = self.here.request("d", f"Range: bytes={asked}")
            self.assertEqual(client.status, status)
            self.assertEqual([client.headers.get(name) for name in names], [None, None], asked)
            self.assertEqual("repr-digest" in client.headers, status == 206)

    def test_condition_first(self) -> None:
        """A condition is looked at before the range."""
        self.assertEqual(self.here.request("a", "Range: bytes=5-", 'If-None-Match: "1"').status, 304)


class GrowingRangeTests(RigCase):
    """Ranges of what is still being fetched."""

    SIZE = 10 * NEAR_BYTES

    def growing(self, *fields: str, length: int | None = SIZE) -> Rig:
        """A vault that has got some hundred bytes of a large body, some time ago."""
        rig = self.rig()
        chunked = () if length is not None else ("Transfer-Encoding: chunked",)
        rig.origin.answer = lambda asked: asked.head(200, *(fields or STRONG), *chunked, length=length)
        rig.request()
        if length is not None:
            rig.origin.last.send(bytes(100))
        rig.net.pass_time(30)
        rig.origin.answer = lambda asked: None
        return rig

    def assertDirect(self, rig: Rig, client: Client, start: int, data: bytes) -> None:
        """The client got these bytes by a request of their own, while the fill went on."""
        self.assertEqual((client.status, client.body, client.whole), (206, data, True))
        self.assertEqual(client.headers["content-range"], f"bytes {start}-{start + len(data) - 1}/{self.SIZE}")
        self.assertEqual(client.headers["x-cache"], "BYPASS")
        self.assertEqual(client.headers["cache-status"], "ArtifactVault; fwd=partial; fwd-status=206")
        self.assertEqual(len(rig.transfers), 1)

    def test_near(self) -> None:
        """A range near what has come is served from the fill."""
        rig = self.growing()
        client = rig.request("a", "Range: bytes=50-199")
        self.assertEqual((client.status, len(client.body)), (206, 50))
        self.assertEqual(client.headers["x-cache"], "JOINED")
        self.assertIn("; fwd-status=200;", client.headers["cache-status"])  # what is sent is a part, what came is not
        rig.origin.last.send(bytes(100))
        rig.net.pass_time(1)
        self.assertTrue(client.whole)
        self.assertEqual(len(rig.origin.requests), 1)

    def test_far(self) -> None:
        """A range far ahead is fetched directly, without waiting for the fill."""
        rig = self.growing()
        start = 9 * NEAR_BYTES
        client = rig.request("a", f"Range: bytes={start}-{start + 9}")
        asked = rig.origin.last
        self.assertEqual((asked.get("Range"), asked.get("If-Range")), (f"bytes={start}-{start + 9}", '"1"'))
        asked.answer(206, f"Content-Range: bytes {start}-{start + 9}/{self.SIZE}", *STRONG, body=BODY)
        rig.net.pass_time(1)
        self.assertDirect(rig, client, start, BODY)

    def test_far_and_dated(self) -> None:
        """The same where there is only a date to go by."""
        dated = STRONG[1:]
        rig = self.growing(*dated)
        start = 9 * NEAR_BYTES
        client = rig.request("a", f"Range: bytes={start}-{start + 9}")
        rig.origin.last.answer(206, f"Content-Range: bytes {start}-{start + 9}/{self.SIZE}", *dated, body=BODY)
        rig.net.pass_time(1)
        self.assertDirect(rig, client, start, BODY)

    def test_far_breaks_off(self) -> None:
        """A direct range that breaks off is gone on with."""
        rig = self.growing()
        start = 9 * NEAR_BYTES
        client = rig.request("a", f"Range: bytes={start}-{start + 9}")
        asked = rig.origin.last
        asked.head(206, f"Content-Range: bytes {start}-{start + 9}/{self.SIZE}", *STRONG, length=10)
        asked.send(BODY[:4])
        asked.close()
        rig.net.pass_time(1)
        self.assertEqual(rig.origin.last.get("Range"), f"bytes={start + 4}-{start + 9}")
        content = f"Content-Range: bytes {start + 4}-{start + 9}/{self.SIZE}"
        rig.origin.last.answer(206, content, *STRONG, body=BODY[4:])
        rig.net.pass_time(1)
        self.assertDirect(rig, client, start, BODY)

    def test_far_breaks_off_and_whole(self) -> None:
        """Where the upstream then sends the whole body, or more of it than was asked for, what is wanted is taken."""
        start = 9 * NEAR_BYTES
        whole = bytes(start) + BODY + bytes(self.SIZE - start - 10)
        further = f"Content-Range: bytes {start + 4}-{self.SIZE - 1}/{self.SIZE}"
        for status, fields, body, pieces in (
            (200, STRONG, whole, [start + 7, start + 20]),
            (200, STRONG, whole, [start + 10]),
            (206, (further, *STRONG), whole[start + 4 :], [3, 20]),
        ):
            rig = self.growing()
            client = rig.request("a", f"Range: bytes={start}-{start + 9}")
            asked = rig.origin.last
            asked.head(206, f"Content-Range: bytes {start}-{start + 9}/{self.SIZE}", *STRONG, length=10)
            asked.send(BODY[:4])
            asked.close()
            rig.net.pass_time(1)
            asked = rig.origin.last
            asked.head(status, *fields, length=len(body))
            before = 0
            for stop in pieces:
                asked.send(body[before:stop])
                before = stop
            rig.net.pass_time(1)
            self.assertDirect(rig, client, start, BODY)
            self.assertFalse(asked.wire.open)
            self.assertEqual((len(rig.origin.requests), rig.upstream.paced.tokens), (3, rig.upstream.paced.limit))

    def test_far_and_gone(self) -> None:
        """A client that leaves ends its own direct request, not the fill."""
        rig = self.growing()
        start = 9 * NEAR_BYTES
        client = rig.request("a", f"Range: bytes={start}-{start + 9}")
        rig.origin.last.head(206, f"Content-Range: bytes {start}-{start + 9}/{self.SIZE}", *STRONG, length=10)
        rig.net.pass_time()
        client.leave()
        rig.net.pass_time()
        self.assertEqual(rig.free_slots(), 31)
        self.assertEqual(len(rig.transfers), 1)

    def test_far_refused(self) -> None:
        """Where the upstream gives no such range of the same body, the client waits for the fill."""
        start = 9 * NEAR_BYTES
        right = f"Content-Range: bytes {start}-{start + 9}/{self.SIZE}"
        for status, *fields in (
            (200, *STRONG),
            (206, *STRONG),
            (206, right, 'ETag: "2"'),
            (206, right.replace(f"{self.SIZE}", "12345678901"), *STRONG),
            (206, right.replace(f"-{start + 9}", f"-{start + 8}"), *STRONG),
            (416,),
            (500,),
        ):
            rig = self.growing()
            client = rig.request("a", f"Range: bytes={start}-{start + 9}")
            rig.origin.last.answer(status, *fields, body=BODY)
            rig.net.pass_time(1)
            self.assertEqual((client.status, client.body), (206, b""), (status, fields))
            self.assertEqual(client.headers["x-cache"], "JOINED")

    def test_far_without_validator(self) -> None:
        """Without a strong validator the two would not be known to belong together: the client waits for the fill."""
        rig = self.growing("X-Nothing: 1")
        client = rig.request("a", f"Range: bytes={9 * NEAR_BYTES}-")
        self.assertEqual(client.headers["x-cache"], "JOINED")
        self.assertEqual(len(rig.origin.requests), 1)

    def test_several(self) -> None:
        """Several ranges of a growing body come as it grows."""
        rig = self.growing()
        client = rig.request("a", "Range: bytes=0-9,150-159")
        self.assertEqual(client.status, 206)
        self.assertFalse(client.whole)
        rig.origin.requests[0].send(bytes(100))
        rig.net.pass_time(1)
        self.assertTrue(client.whole)

    def test_unsatisfiable(self) -> None:
        """A range past the announced end is refused at once."""
        rig = self.growing()
        client = rig.request("a", f"Range: bytes={self.SIZE}-")
        self.assertEqual((client.status, client.headers.get("content-range")), (416, f"bytes */{self.SIZE}"))

    def test_unknown_length(self) -> None:
        """Where the length is not known yet, a range waits for it."""
        rig = self.growing(length=None)
        client = rig.request("a", "Range: bytes=-3")
        self.assertFalse(client.answered)
        rig.origin.last.chunk(BODY)
        rig.origin.last.chunk(b"")
        rig.net.pass_time(1)
        self.assertEqual((client.status, client.body), (206, BODY[-3:]))
        self.assertEqual(client.headers["content-range"], "bytes 7-9/10")

    def test_unknown_length_fails(self) -> None:
        """Where that never comes to be known, the client is told of the failure."""
        rig = self.growing("X-Nothing: 1", length=None)
        clients = [rig.request("a", f"Range: bytes={asked}") for asked in ("2-", "-3", "2-30", "0-1,2-3")]
        rig.origin.last.chunk(BODY)
        rig.origin.last.close()
        rig.net.pass_time(1)
        self.assertEqual([client.status for client in clients], [502] * 4)

    def test_part_of_unknown_length(self) -> None:
        """A part that has come is given at once, though nobody knows yet of how much it is."""
        rig = self.growing(length=None)
        client = rig.request("a", "Range: bytes=2-12")
        rig.origin.last.chunk(BODY)
        rig.net.pass_time(1)
        self.assertFalse(client.answered)
        rig.origin.last.chunk(BODY)
        rig.net.pass_time(1)
        self.assertEqual((client.status, client.body, client.whole), (206, (BODY * 2)[2:13], True))
        self.assertEqual(client.headers["content-range"], "bytes 2-12/*")
        self.assertEqual(client.headers["content-length"], "11")
        rig.origin.last.chunk(b"")
        rig.net.pass_time(1)
        self.assertEqual(rig.stored, 1)

    def outgrown(self, *fields: str, kind: type[Client] | None = None) -> tuple[Rig, Client, bytes]:
        """A client alone with a chunked body of 3 MB, of which the disk takes a tenth."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, *STRONG, "Transfer-Encoding: chunked")
        if kind is None:
            client = rig.request("a", *fields)
        else:
            client = kind(rig.net, rig.site, "GET", "/files/a", fields, False)
            rig.net.pass_time()
        pieces = [bytes([number]) * 60000 for number in range(50)]
        for number, piece in enumerate(pieces):
            if number == 5:
                rig.disk.error = OSError(28, "No space left on device")
            rig.origin.last.chunk(piece)
            rig.net.pass_time(0.1)
        rig.origin.last.chunk(b"")
        rig.net.pass_time(1)
        return rig, client, b"".join(pieces)

    def test_outgrows_the_disk(self) -> None:
        """Where what is waited for outgrows the disk, the client gets all of it: a Range may be ignored."""
        for asked in ("5-", "-5", "0-1,5-6", "2999990-2999999"):
            rig, client, whole = self.outgrown(f"Range: bytes={asked}")
            self.assertEqual((client.status, len(client.body), client.whole), (200, len(whole), True), asked)
            self.assertTrue(client.body == whole)
            self.assertNotIn("stored", client.headers["cache-status"])
            self.assertEqual((rig.stored, len(rig.origin.requests)), (0, 1))

    def test_outgrows_the_disk_elsewhere(self) -> None:
        """The same for one who waits because only closing would end the body; a part that came before is given."""
        _, client, whole = self.outgrown(kind=OldClient)
        self.assertEqual((client.status, client.closed), (200, True))
        self.assertNotIn("stored", client.headers["cache-status"])
        self.assertTrue(client.body == whole)
        _, client, whole = self.outgrown("Range: bytes=5-", kind=OldClient)
        self.assertTrue(client.body == whole)
        _, client, whole = self.outgrown("Range: bytes=0-99")
        self.assertEqual((client.status, client.body, client.whole), (206, whole[:100], True))
        _, client, whole = self.outgrown("Range: bytes=299990-300009")
        self.assertEqual((client.status, client.body, client.whole), (206, whole[299990:300010], True))

    def test_outgrows_the_disk_and_left(self) -> None:
        """A client that leaves while it waits holds nothing: what the disk does not take is not fetched for nobody."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, *STRONG, "Transfer-Encoding: chunked")
        client = rig.request("a", "Range: bytes=5-")
        rig.origin.last.chunk(bytes(60000))
        rig.disk.error = OSError(28, "No space left on device")
        rig.origin.last.chunk(bytes(60000))
        rig.net.pass_time(1)
        self.assertEqual((client.raw, rig.origin.open_wires), (b"", 1))
        client.leave()
        rig.net.pass_time(1)
        self.assertEqual(rig.origin.open_wires, 0)
        self.assertIn(" 499 ", rig.lines[-1])


class OldClient(Client):
    """A client that speaks HTTP/1.0 on a unix socket, where a connection can only be closed, not reset."""

    PEER = UNIXAddress(None)
    VERSION = "1.0"


class NewClient(Client):
    """One that speaks HTTP/1.1 there."""

    PEER = UNIXAddress(None)


class UnixTests(RigCase):
    """Bodies of unknown length on unix sockets, for clients that know their end by the closing."""

    def client(self, rig: Rig) -> OldClient:
        """A request for what is not cached."""
        client = OldClient(rig.net, rig.site, "GET", "/files/a", (), False)
        rig.net.pass_time()
        return client

    def test_whole(self) -> None:
        """The client waits for the body's end, and is told its length."""
        for field in ("X-Kept: 1", "Cache-Control: no-store"):
            rig = self.rig()
            rig.origin.answer = lambda asked, field=field: asked.head(200, field, "Transfer-Encoding: chunked")
            client = self.client(rig)
            rig.origin.last.chunk(BODY)
            rig.net.pass_time(30)
            self.assertEqual(client.raw, b"")
            rig.origin.last.chunk(b"")
            rig.net.pass_time(1)
            self.assertEqual((client.status, client.headers.get("content-length")), (200, "10"), field)
            self.assertEqual((client.body, client.closed), (BODY, True))

    def test_cut(self) -> None:
        """A body that never comes to its end is told by an error, not by a beginning that looks whole."""
        for fields in (("X-Kept: 1",), ("Cache-Control: no-store",)):
            rig = self.rig()
            rig.origin.answer = lambda asked, fields=fields: asked.head(200, *fields, "Transfer-Encoding: chunked")
            client = self.client(rig)
            rig.origin.last.chunk(BODY)
            rig.origin.last.close()
            rig.net.pass_time(1)
            self.assertEqual((client.status, client.whole), (502, True), fields)
            self.assertNotIn(BODY, client.raw)

    def test_long_and_not_kept(self) -> None:
        """A long body that is not kept begins before its end is known: nothing could hold it."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, "Cache-Control: no-store", "Transfer-Encoding: chunked")
        client = self.client(rig)
        for _ in range(30):
            rig.origin.last.chunk(bytes(60000))
            rig.net.pass_time(0.1)
        rig.origin.last.chunk(b"")
        rig.net.pass_time(1)
        self.assertEqual((len(client.body), client.closed), (30 * 60000, True))
        self.assertNotIn("content-length", client.headers)

    def test_left(self) -> None:
        """A client that leaves while it waits takes the connection for what is not kept with it."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, "Cache-Control: no-store", "Transfer-Encoding: chunked")
        client = self.client(rig)
        client.leave()
        rig.net.pass_time()
        self.assertEqual(rig.origin.open_wires, 0)
        self.assertIn(" 499 ", rig.lines[0])

    def test_chunked(self) -> None:
        """A client of HTTP/1.1 is sent chunks, the last of which it gets only where the body has ended in order."""
        for error in (None, ConnectionLost()):
            rig = self.rig()
            rig.origin.answer = lambda asked: asked.head(200, version="1.0")
            client = NewClient(rig.net, rig.site, "GET", "/files/a", (), False)
            rig.net.pass_time()
            rig.origin.last.send(bytes(1_000_000))
            rig.net.pass_time(1)
            rig.origin.last.close(error)
            rig.net.pass_time(1)
            self.assertEqual((len(client.body), client.whole), (1_000_000, error is None))
            self.assertEqual(client.headers["transfer-encoding"], "chunked")

    def test_length_known(self) -> None:
        """Where the length is known the body comes as it grows."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, length=10)
        client = self.client(rig)
        rig.origin.last.send(BODY[:5])
        rig.net.pass_time(1)
        self.assertEqual(client.body, BODY[:5])
        rig.origin.last.send(BODY[5:])
        rig.net.pass_time(1)


class EndTests(RigCase):
    """How a body ends."""

    def test_chunked(self) -> None:
        """A body of unknown length is sent in chunks, and whole."""
        rig = self.rig()
        rig.origin.answer = lambda asked: (
            asked.head(200, *STRONG, "Transfer-Encoding: chunked"), asked.chunk(BODY), asked.chunk(b"")
        )  # fmt: skip
        client = rig.request()
        rig.net.pass_time(1)
        self.assertEqual(client.headers["transfer-encoding"], "chunked")
        self.assertEqual((client.body, client.whole), (BODY, True))
        self.assertEqual(rig.request().headers["content-length"], "10")

    def test_cut(self) -> None:
        """A body that cannot be had whole ends in a reset connection, never in a clean end."""
        for fields in (("Content-Length: 20",), ("Transfer-Encoding: chunked",)):
            rig = self.rig()
            rig.origin.answer = lambda asked, fields=fields: asked.head(200, *fields)
            client = rig.request()
            rig.origin.last.send(b"5\r\n01234\r\n")
            rig.origin.last.close()
            rig.net.pass_time(1)
            self.assertTrue(client.aborted)
            self.assertFalse(client.whole)
            self.assertTrue(rig.lines[0].endswith(" aborted"))

    def test_empty(self) -> None:
        """An empty body is a body like any other."""
        rig = self.rig()
        rig.fill("a", b"")
        client = rig.request()
        self.assertEqual((client.headers["content-length"], client.whole), ("0", True))
        self.assertEqual(client.headers["x-cache"], "HIT")

    def test_client_stalls(self) -> None:
        """A client that takes nothing for a minute is cut off; the fill goes on."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, *STRONG, length=1_000_000)
        client = rig.request()
        client.pause()
        rig.origin.last.send(bytes(1_000_000))
        rig.net.pass_time(61)
        self.assertTrue(client.aborted)
        self.assertEqual(rig.stored, 1)
