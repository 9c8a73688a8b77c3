"""Transfers: one request upstream for everyone who asks, whoever comes and goes meanwhile."""

from __future__ import annotations

import errno
import gc
import hashlib
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.logger import capturedLogs, formatEvent

from tests.memory import DATE, MODIFIED, Asked, Client, Rig, RigCase
from vault.artifact import Digest
from vault.errors import OtherVersion, Unfit
from vault.outcome import How

BODY = b"0123456789"
STRONG = ('ETag: "1"', f"Date: {DATE}")


class SharedTests(RigCase):
    """One fill, many readers."""

    def setUp(self) -> None:
        self.here = self.rig()

    def head(self, *fields: str, length: int = 10) -> None:
        """The origin sends the head of what was asked for last."""
        self.here.origin.last.head(200, *(fields or STRONG), length=length)
        self.here.net.pass_time()

    def send(self, data: bytes) -> None:
        """The origin sends bytes of the first request's body."""
        self.here.origin.requests[0].send(data)
        self.here.net.pass_time(0.1)

    def test_head_at_once(self) -> None:
        """A client gets the head as soon as the upstream's has come, before any byte of the body."""
        client = self.here.request()
        self.assertFalse(client.answered)
        self.head()
        self.assertEqual(client.status, 200)
        self.assertEqual(client.body, b"")
        self.send(BODY)

    def test_leave_early(self) -> None:
        """The client that began it leaves, and the fill goes on to its end."""
        for moment in (0, 1, 2):
            path = f"early{moment}"
            client = self.here.request(path)
            asked = self.here.origin.last
            if moment == 0:
                client.leave()
            asked.head(200, *STRONG, length=10)
            self.here.net.pass_time()
            if moment == 1:
                client.leave()
            asked.send(BODY[:5])
            self.here.net.pass_time(1)
            if moment == 2:
                client.leave()
            asked.send(BODY[5:])
            self.here.net.pass_time(1)
            self.assertEqual(self.here.stored, moment + 1)
            self.assertEqual(self.here.request(path).headers["x-cache"], "HIT")

    def test_join_at_each_byte(self) -> None:
        """Whoever comes late gets the whole body from the first byte, from the same request upstream."""
        clients = [self.here.request()]
        self.head()
        for at in range(10):
            clients.append(self.here.request())
            self.send(BODY[at : at + 1])
        clients.append(self.here.request())
        for client in clients:
            self.assertEqual((client.body, client.whole), (BODY, True))
        self.assertEqual([client.headers["x-cache"] for client in clients], ["MISS", *["JOINED"] * 10, "HIT"])
        self.assertEqual(len(self.here.origin.requests), 1)

    def test_hundred(self) -> None:
        """A hundred who ask at once cause one request upstream."""
        clients = [self.here.request() for _ in range(100)]
        self.head()
        self.send(BODY)
        self.assertEqual({client.body for client in clients}, {BODY})
        self.assertEqual(len(self.here.origin.requests), 1)
        self.assertEqual([client.headers["x-cache"] for client in clients].count("MISS"), 1)

    def test_failing_head(self) -> None:
        """Everyone who waits is told the same failure, and the next request asks again."""
        clients = [self.here.request() for _ in range(5)]
        self.here.origin.last.answer(400)
        self.here.net.pass_time()
        self.assertEqual({client.status for client in clients}, {502})
        self.assertEqual(len(self.here.origin.requests), 1)
        self.here.request()
        self.assertEqual(len(self.here.origin.requests), 2)

    def test_slow_client(self) -> None:
        """A client that takes nothing slows neither the fill nor the others."""
        slow = self.here.request(slow=True)
        self.head(length=4_000_000)
        slow.pause()
        quick = self.here.request()
        for _ in range(4):
            self.send(bytes(1_000_000))
        self.assertTrue(quick.whole)
        self.assertEqual(self.here.stored, 1)
        self.assertFalse(slow.whole)
        slow.resume()
        self.here.net.pass_time(1)
        self.assertTrue(slow.whole)

    def test_slow_disk(self) -> None:
        """A disk that does not keep up makes the upstream wait."""
        client = self.here.request()
        self.head(length=4_000_000)
        self.here.disk.held = True
        self.send(bytes(1_000_000))
        self.assertTrue(self.here.origin.last.wire.paused)
        self.here.disk.release()
        self.send(bytes(3_000_000))
        self.assertTrue(client.whole)

    def test_other_key(self) -> None:
        """Another path, or another query, is another artifact."""
        for path in ("a", "b", "a?x", "a?y"):
            self.here.request(path)
        self.assertEqual([asked.target for asked in self.here.origin.requests], ["/a", "/b", "/a?x", "/a?y"])

    def test_while_failing(self) -> None:
        """A request that comes while a fill fails waits for its end, and goes on with what it left."""
        client = self.here.request()
        self.head()
        self.send(BODY[:5])
        self.here.disk.held = True
        transfer = self.here.transfers["files/a"]
        assert transfer.feed is not None
        self.send(BODY[5:7])
        transfer.feed.stop("a test")
        self.here.net.pass_time()
        self.assertTrue(transfer.failing)
        late = self.here.request()
        self.assertEqual(len(self.here.origin.requests), 1)
        self.here.disk.release()
        self.here.net.pass_time()
        self.assertTrue(client.aborted)
        asked = self.here.origin.last
        self.assertEqual(asked.get("Range"), "bytes=7-")
        asked.answer(206, "Content-Range: bytes 7-9/10", *STRONG, body=BODY[7:])
        self.here.net.pass_time(1)
        self.assertEqual((late.body, late.whole), (BODY, True))


class PassTests(RigCase):
    """What may not be stored."""

    def test_not_stored(self) -> None:
        """no-store, private and Vary: * pass through; each client has a request of its own."""
        for field in ("Cache-Control: no-store", "Cache-Control: private", "Vary: *"):
            rig = self.rig()
            clients = [rig.request() for _ in range(3)]
            rig.origin.answer = lambda asked, field=field: asked.answer(200, field, body=BODY)
            rig.origin.last.answer(200, field, body=BODY)
            rig.net.pass_time(1)
            for client in clients:
                self.assertEqual((client.body, client.whole), (BODY, True))
                self.assertEqual(client.headers["x-cache"], "BYPASS")
            self.assertEqual(len(rig.origin.requests), 3)
            self.assertEqual((rig.stored, rig.transfers), (0, {}))

    def test_nobody_waits_again(self) -> None:
        """It is remembered for a minute that it may not be stored, so that nobody waits for another's answer."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(200, "Cache-Control: no-store", body=BODY)
        rig.request()
        rig.origin.answer = lambda asked: None
        for _ in range(3):
            rig.request()
        self.assertEqual(len(rig.origin.requests), 4)

    def test_client_leaves(self) -> None:
        """Nobody reads it any more: the transfer ends."""
        rig = self.rig()
        client = rig.request()
        rig.origin.last.head(200, "Cache-Control: no-store", length=10)
        rig.net.pass_time()
        client.leave()
        rig.net.pass_time()
        self.assertEqual((rig.origin.open_wires, rig.free_slots()), (0, 32))

    def test_client_left_before(self) -> None:
        """The client leaves before the head comes: the transfer ends without a mistake in the log."""
        rig = self.rig()
        client = rig.request()
        client.leave()
        rig.origin.last.head(200, "Cache-Control: no-store", length=10)
        rig.net.pass_time(11)
        self.assertEqual((rig.origin.open_wires, rig.free_slots()), (0, 32))
        self.assertEqual([str(error.value) for error in self.flushLoggedErrors()], [])

    def test_not_modified(self) -> None:
        """A client that has it already gets its 304, also for what is not stored, and the log no mistake."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, "Cache-Control: no-store", 'ETag: "1"', length=10)
        client = rig.request("a", 'If-None-Match: "1"')
        rig.net.pass_time(1)
        self.assertEqual(client.status, 304)
        self.assertEqual((rig.origin.open_wires, rig.free_slots()), (0, 32))
        self.assertEqual([str(error.value) for error in self.flushLoggedErrors()], [])

    def test_slow_client(self) -> None:
        """Only here the client's pace reaches the upstream: memory stays bounded."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, "Cache-Control: no-store", length=4_000_000)
        client = rig.request(slow=True)
        client.pause()
        rig.origin.last.send(bytes(1_000_000))
        rig.net.pass_time(1)
        self.assertTrue(rig.origin.last.wire.paused)
        client.resume()
        rig.net.pass_time(1)
        rig.origin.last.send(bytes(3_000_000))
        rig.net.pass_time(1)
        self.assertTrue(client.whole)

    def test_unread(self) -> None:
        """A body that nobody has begun to read after ten seconds is given up."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, "Cache-Control: no-store", length=10)
        found = self.successResultOf(rig.run(rig.cache.lookup(rig.artifact())))
        self.assertIs(found.how, How.BYPASS)
        rig.net.pass_time(11)
        self.assertEqual(rig.free_slots(), 32)

    def test_unfit_after_waiting(self) -> None:
        """What is asked for again when its turn has come, and is unfit by its head, gives its connection back."""
        rig = self.rig(max_connections=4)
        paced = rig.upstream.paced
        for _ in range(paced.limit):
            self.successResultOf(paced.acquire())
        page = "Content-Type: text/html"
        rig.origin.answer = lambda asked: asked.head(200, "Cache-Control: no-store", length=10)
        artifact = rig.artifact(fault=lambda head, body: "a web page" if head.get("Content-Type") else None)
        found = rig.run(rig.kitchen.fetch(artifact))
        rig.origin.answer = lambda asked: asked.head(200, page, "Cache-Control: no-store", length=10**6)
        paced.release()
        rig.net.pass_time(1)
        self.failureResultOf(found, Unfit)
        self.assertEqual((len(rig.origin.requests), rig.free_slots(), paced.tokens), (2, 4, 1))

    def test_closing_ends_it(self) -> None:
        """A body whose end only the closing of the connection tells is passed on and not stored."""
        for version in ("1.0", "1.1"):
            rig = self.rig()
            rig.origin.answer = lambda asked, version=version: asked.head(200, *STRONG, version=version)
            client = rig.request()
            rig.origin.last.send(BODY)
            rig.net.pass_time()
            self.assertEqual(client.body, BODY)
            self.assertFalse(client.closed)
            rig.origin.last.close()
            rig.net.pass_time(1)
            self.assertTrue(client.closed)
            self.assertNotIn("transfer-encoding", client.headers)
            self.assertNotIn("content-length", client.headers)
            self.assertEqual(client.headers["x-cache"], "BYPASS")
            self.assertEqual(rig.stored, 0)

    def test_full_disk(self) -> None:
        """A disk that takes nothing does not keep clients from their artifact."""
        rig = self.rig()
        rig.disk.error = OSError(errno.ENOSPC, "No space left on device")
        rig.origin.answer = lambda asked: asked.answer(200, *STRONG, body=BODY)
        client = rig.request()
        rig.net.pass_time(1)
        self.assertEqual((client.status, client.body, client.whole), (200, BODY, True))
        self.assertEqual(client.headers["x-cache"], "BYPASS")
        self.assertEqual(len(rig.store.problems()), 1)

    def test_disk_fills(self) -> None:
        """A disk that fills up in the middle does not cut anyone off; who comes then gets it by itself."""
        rig = self.rig()
        client = rig.request()
        first = rig.origin.last
        first.head(200, *STRONG, length=10)
        first.send(BODY[:5])
        rig.net.pass_time(1)
        rig.disk.error = OSError(errno.ENOSPC, "No space left on device")
        first.send(BODY[5:7])
        rig.net.pass_time(1)
        rig.origin.answer = lambda asked: asked.answer(200, *STRONG, body=BODY)
        late = rig.request()
        rig.net.pass_time(1)
        first.send(BODY[7:])
        rig.net.pass_time(1)
        for reader in (client, late):
            self.assertEqual((reader.body, reader.whole), (BODY, True))


class DigestTests(RigCase):
    """A digest that is known before."""

    def look(self, body: bytes, digest: Digest) -> tuple[Rig, object]:
        """Look up an artifact of a digest whose body comes as given."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(200, *STRONG, body=body)
        looking = rig.run(rig.cache.lookup(rig.artifact(digest=digest)))
        rig.net.pass_time(1)
        return rig, self.successResultOf(looking).body

    def test_right(self) -> None:
        """A body that is what its digest names is stored, whatever the algorithm."""
        for algorithm in ("sha256", "sha512", "sha1", "md5"):
            rig, body = self.look(BODY, Digest(algorithm, hashlib.new(algorithm, BODY).hexdigest()))
            self.assertTrue(body.complete)  # type: ignore[attr-defined]
            self.assertEqual(rig.stored, 1)

    def test_wrong(self) -> None:
        """A body that is not is never given out whole, not stored, and nothing of it is kept."""
        for algorithm in ("sha256", "sha512"):
            rig, body = self.look(b"x" + BODY, Digest(algorithm, hashlib.new(algorithm, BODY).hexdigest()))
            self.assertFalse(body.complete)  # type: ignore[attr-defined]
            self.assertEqual(body.size, 10)  # type: ignore[attr-defined]
            self.assertEqual(rig.stored, 0)
            self.assertIsNone(rig.store.index.partial("files/a"))

    def test_nothing(self) -> None:
        """Nothing in place of a body is told as such: a client that had its head would take it for whole."""
        digest = Digest("sha256", hashlib.sha256(BODY).hexdigest())
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(200, *STRONG, body=b"")
        self.failureResultOf(rig.run(rig.cache.lookup(rig.artifact(digest=digest))), OtherVersion)
        self.assertEqual(rig.stored, 0)
        _, body = self.look(b"", Digest("sha256", hashlib.sha256(b"").hexdigest()))
        self.assertTrue(body.complete)  # type: ignore[attr-defined]

    def test_closing_ends_it(self) -> None:
        """Where the digest proves the end, a body ended by closing is stored too."""
        rig = self.rig()
        digest = Digest("sha256", hashlib.sha256(BODY).hexdigest())
        rig.origin.answer = lambda asked: (asked.head(200, version="1.0"), asked.send(BODY), asked.close())
        rig.run(rig.cache.lookup(rig.artifact(digest=digest)))
        rig.net.pass_time(1)
        self.assertEqual(rig.stored, 1)

    def test_stored_contradicts(self) -> None:
        """A stored body that is not the one wanted now is dropped and fetched again."""
        rig = self.rig()
        rig.fill("a", b"old")
        rig.origin.answer = lambda asked: asked.answer(200, *STRONG, body=BODY)
        digest = Digest("sha256", hashlib.sha256(BODY).hexdigest())
        found = self.successResultOf(rig.run(rig.cache.lookup(rig.artifact(digest=digest))))
        rig.net.pass_time(1)
        self.assertIs(found.how, How.MISS)
        self.assertEqual(found.body.sha256, digest.value)

    def test_log_without_query(self) -> None:
        """What the log says of a stored body is without its query, which may be a signature."""

        def broken(*arguments: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        rig = self.rig()
        rig.fill("a?hunter2", b"old")
        rig.origin.answer = lambda asked: asked.answer(200, *STRONG, body=BODY)
        found = self.successResultOf(rig.run(rig.store.find("files/a?hunter2")))
        rig.store.index.renew = broken
        wanted = rig.artifact("a?hunter2", digest=Digest("sha256", hashlib.sha256(BODY).hexdigest()))
        with capturedLogs() as events:
            rig.run(rig.store.renew("files/a?hunter2", found, found.head))
            rig.run(rig.cache.lookup(wanted))
        text = "\n".join(str(formatEvent(event)) for event in events)
        for expected in ("the new head of files/a could not be written", "the stored files/a is not"):
            self.assertIn(expected, text)
        self.assertNotIn("hunter2", text)


class PartialTests(RigCase):
    """What an earlier fill left."""

    def leave_partial(self, *fields: str, size: int = 5, length: int | None = 10) -> Rig:
        """A vault that was stopped after some bytes."""
        rig = self.rig()
        chunked = () if length is not None else ("Transfer-Encoding: chunked",)
        rig.origin.answer = lambda asked: asked.head(200, *(fields or STRONG), *chunked, length=length)
        rig.request()
        if length is None:
            rig.origin.last.chunk(BODY[:size])
        else:
            rig.origin.last.send(BODY[:size])
        rig.net.pass_time(0.1)
        rig.stop()
        rig.again()
        rig.origin.requests.clear()
        return rig

    def assertServed(self, rig: Rig, body: bytes = BODY) -> None:
        """A new client gets the whole body, and it is stored."""
        client = rig.request()
        rig.net.pass_time(1)
        self.assertEqual((client.status, client.body, client.whole), (200, body, True))
        self.assertEqual(rig.stored, 1)
        self.assertIsNone(rig.store.index.partial("files/a"))

    def stopped_while_verifying(self, rig: Rig) -> None:
        """All bytes are there, and the vault is stopped while they are read to be verified."""
        rig.complete_partial(BODY)
        run = rig.disk.run

        def slow(function: Any, *arguments: Any) -> Any:
            rig.disk.held = rig.disk.held or function.__name__ == "read_prefix"
            return run(function, *arguments)

        rig.disk.run = slow  # type: ignore[method-assign]
        rig.request()
        rig.stop()
        rig.disk.run = run  # type: ignore[method-assign]
        rig.disk.release()
        rig.net.pass_time(1)
        rig.again()

    def test_stopped_while_verifying(self) -> None:
        """It stays where the vault is stopped while it is verified, and is then stored without asking anybody."""
        rig = self.leave_partial(size=9)
        self.stopped_while_verifying(rig)
        self.assertEqual(rig.stored, 0)
        self.assertServed(rig)
        self.assertEqual(rig.origin.requests, [])

    def test_unfit_when_verified(self) -> None:
        """It goes where it cannot be what is wanted."""
        rig = self.leave_partial(size=9)
        self.stopped_while_verifying(rig)
        artifact = rig.artifact(fault=lambda head, body: None if body is None else "a web page")
        rig.run(rig.cache.lookup(artifact))
        self.assertIsNone(rig.store.index.partial("files/a"))
        self.assertEqual(rig.stored, 0)

    def test_206(self) -> None:
        """It is gone on with, and the client gets what was there at once."""
        rig = self.leave_partial()
        reply = "Content-Range: bytes 5-9/10"
        rig.origin.answer = lambda asked: asked.answer(206, reply, *STRONG, body=BODY[5:])
        self.assertServed(rig)
        asked = rig.origin.last
        self.assertEqual((asked.get("Range"), asked.get("If-Range")), ("bytes=5-", '"1"'))
        self.assertEqual(len(rig.origin.requests), 1)

    def test_206_open(self) -> None:
        """A 206 that ends early and does not name the total does not make the body shorter than was announced."""
        rig = self.leave_partial()

        def answer(asked: Asked) -> None:
            start = int((asked.get("Range") or "").removeprefix("bytes=").partition("-")[0])
            stop = min(start + 2, 10)
            asked.answer(206, f"Content-Range: bytes {start}-{stop - 1}/*", *STRONG, body=BODY[start:stop])

        rig.origin.answer = answer
        client = rig.request()
        rig.net.pass_time(10)
        self.assertEqual((client.status, client.headers["content-length"], client.body), (200, "10", BODY))
        self.assertEqual(rig.stored, 1)

    def test_no_longer_to_be_kept(self) -> None:
        """Where the rest may not be kept, nor is the beginning."""
        rig = self.leave_partial()
        part = ("Content-Range: bytes 5-9/10", "Cache-Control: no-store", *STRONG)
        rig.origin.answer = lambda asked: (
            asked.answer(206, *part, body=BODY[5:]) if asked.get("Range") else asked.answer(200, *part[1:], body=BODY)
        )
        client = rig.request()
        rig.net.pass_time(1)
        self.assertEqual((client.headers["x-cache"], client.body, client.whole), ("BYPASS", BODY, True))
        self.assertEqual(rig.stored, 0)
        self.assertIsNone(rig.store.index.partial("files/a"))

    def test_dated(self) -> None:
        """It is gone on with by its date, too, where there is no tag."""
        dated = ("Last-Modified: Sun, 01 Nov 2026 08:00:00 GMT", f"Date: {DATE}")
        rig = self.leave_partial(*dated)
        reply = "Content-Range: bytes 5-9/10"
        rig.origin.answer = lambda asked: asked.answer(206, reply, *dated, body=BODY[5:])
        self.assertServed(rig)
        self.assertEqual(len(rig.origin.requests), 1)

    def test_200(self) -> None:
        """A server that sends all again, changed or not, replaces it."""
        for tag in ('ETag: "1"', 'ETag: "2"'):
            rig = self.leave_partial()
            rig.origin.answer = lambda asked, tag=tag: asked.answer(200, tag, body=b"abcdefghij")
            self.assertServed(rig, b"abcdefghij")

    def test_wrong_206(self) -> None:
        """A 206 that does not fit is not taken: it is begun anew."""
        for reply in (
            ("Content-Range: bytes 4-9/10", *STRONG),
            ("Content-Range: bytes 5-9/11", *STRONG),
            ("Content-Range: bytes 5-9/10", 'ETag: "2"'),
            STRONG,
        ):
            rig = self.leave_partial()
            rig.origin.answer = lambda asked, reply=reply: (
                asked.answer(200, *STRONG, body=BODY) if asked.get("Range") is None else asked.answer(206, *reply)
            )
            self.assertServed(rig)

    def test_416(self) -> None:
        """A server that has fewer bytes than came: it is begun anew."""
        rig = self.leave_partial()
        rig.origin.answer = lambda asked: (
            asked.answer(200, 'ETag: "2"', body=b"abc")
            if asked.get("Range") is None
            else asked.answer(416, "Content-Range: bytes */3")
        )
        self.assertServed(rig, b"abc")

    def test_complete(self) -> None:
        """All bytes were there when the vault was killed: they are verified and stored without asking anyone."""
        rig = self.leave_partial(size=9)
        rig.complete_partial(BODY)
        self.assertServed(rig)
        self.assertEqual(rig.origin.requests, [])

    def test_complete_unknown(self) -> None:
        """A body of unknown length that was all there: a 416 of just that length says so."""
        rig = self.leave_partial(size=10, length=None)
        rig.origin.answer = lambda asked: asked.answer(416, "Content-Range: bytes */10")
        self.assertServed(rig)

    def test_no_validator(self) -> None:
        """Without a validator nothing is kept: it is begun anew."""
        rig = self.leave_partial("X-Nothing: 1")
        rig.origin.answer = lambda asked: asked.answer(200, body=BODY)
        self.assertServed(rig)
        self.assertIsNone(rig.origin.last.get("Range"))

    def test_upstream_gone(self) -> None:
        """It is kept while the upstream cannot be reached."""
        rig = self.leave_partial()
        rig.origin.answer = lambda asked: asked.close()
        client = rig.request()
        rig.net.pass_time(30)
        self.assertEqual(client.status, 503)
        rig.origin.answer = lambda asked: asked.answer(206, "Content-Range: bytes 5-9/10", *STRONG, body=BODY[5:])
        self.assertServed(rig)


class ElsewhereTests(RigCase):
    """What an earlier fill left, from another place."""

    def left(self, *fields: str) -> Rig:
        """A vault that was stopped after half a body from origin.test, and has other.test now."""
        rig = self.rig()
        rig.request()
        rig.origin.last.head(200, *fields, length=10)
        rig.origin.last.send(BODY[:5])
        rig.net.pass_time(1)
        rig.stop()
        rig.again()
        return rig

    def ask(self, rig: Rig, *fields: str) -> Client:
        """Ask for the same thing from the other place, which knows ranges."""
        other = rig.net.origin("other.test")
        whole = b"abcdefghij"

        def answer(asked: Asked) -> None:
            if asked.get("range") is None:
                asked.answer(200, *fields, body=whole)
            else:
                asked.answer(206, "Content-Range: bytes 5-9/10", *fields, body=whole[5:])

        other.answer = answer
        object.__setattr__(rig.backend, "upstreams", ("http://other.test/",))
        return rig.request()

    def test_same_tag(self) -> None:
        """A tag of one place says nothing of another's: the body is begun anew, no two are put together."""
        rig = self.left('ETag: "1"', f"Last-Modified: {MODIFIED}", f"Date: {DATE}")
        client = self.ask(rig, 'ETag: "1"', "Last-Modified: Mon, 02 Nov 2026 08:00:00 GMT", f"Date: {DATE}")
        self.assertEqual((client.body, client.whole), (b"abcdefghij", True))

    def test_same_date(self) -> None:
        """Equal strong dates show that it is the same file, as on mirrors."""
        rig = self.left('ETag: "1"', f"Last-Modified: {MODIFIED}", f"Date: {DATE}")
        client = self.ask(rig, 'ETag: "2"', f"Last-Modified: {MODIFIED}", f"Date: {DATE}")
        self.assertEqual((client.body, client.whole), (BODY[:5] + b"fghij", True))


class FileTests(RigCase):
    """The files of fills, once these are over."""

    def open_deleted(self, rig: Rig) -> list[str]:
        """The files below the cache directory that are open though they were removed."""
        links = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        root = str(rig.store.layout.root.absolute())
        return [link for link in links if link.startswith(root) and link.endswith(" (deleted)")]

    def test_failed(self) -> None:
        """The space of a fill that failed is free at once, not when the collector comes by."""
        rig = self.rig()
        gc.disable()
        self.addCleanup(gc.enable)
        client = rig.request()
        rig.origin.last.head(200, length=10)
        rig.origin.last.send(BODY[:5])
        rig.net.pass_time(1)
        rig.origin.last.close()
        rig.net.pass_time(60)
        self.assertTrue(client.aborted)
        self.assertEqual(self.open_deleted(rig), [])

    def test_being_read(self) -> None:
        """What joiners still read after the fill's end counts as being read: it is not removed to make room."""
        rig = self.rig()
        client = rig.request()
        rig.origin.last.head(200, length=10)
        rig.net.pass_time(0.1)
        client.pause()
        rig.origin.last.send(BODY)
        rig.net.pass_time(1)
        self.assertEqual((rig.stored, client.whole), (1, False))
        rig.store.options = replace(rig.store.options, max_size=1)
        rig.store.space.make_room(0)
        self.assertEqual(rig.stored, 1)
        client.resume()
        rig.net.pass_time(1)
        self.assertTrue(client.whole)

    def test_no_row(self) -> None:
        """Where the index cannot take a new entry its file is not left behind, unknown to everybody."""
        rig = self.rig()

        def put(row: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        rig.store.index.put = put  # type: ignore[method-assign,assignment]  # a disk that fails just then
        client = rig.request()
        rig.origin.last.answer(200, body=BODY)
        rig.net.pass_time(1)
        self.assertTrue(client.whole)
        self.assertFalse((rig.store.layout.root / "files/a").exists())
