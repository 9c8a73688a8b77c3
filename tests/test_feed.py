"""Feed: a body that breaks off is gone on with where that is safe, and never passed off as whole where it is not."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import DATE, MODIFIED, Asked, Client, Rig, RigCase
from vault.artifact import Digest, Head
from vault.feed import PAUSES, content_range, contradicts, total_of

BODY = b"0123456789"
STRONG = ('ETag: "1"', f"Date: {DATE}")
DATED = (f"Last-Modified: {MODIFIED}", f"Date: {DATE}")
TWO = ("http://origin.test/", "http://second.test/")


def ranged(asked: Asked, *fields: str, body: bytes = BODY) -> None:
    """Answer as a server that knows ranges."""
    asked_for = asked.get("Range")
    if asked_for is None:
        asked.answer(200, *fields, body=body)
        return
    start = int(asked_for.removeprefix("bytes=").partition("-")[0])
    content = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}"
    asked.answer(206, content, *fields, body=body[start:])


class FeedCase(RigCase):
    """A body that breaks off."""

    def break_off(
        self, rig: Rig, at: int, fields: tuple[str, ...], then: Callable[[Asked], object], length: int | None = 10
    ) -> Client:
        """A client of a body of which ``at`` bytes come; ``then`` answers later requests."""
        chunked = () if length is not None else ("Transfer-Encoding: chunked",)
        rig.origin.answer = lambda asked: asked.head(200, *fields, *chunked, length=length)
        client = rig.request()
        first = rig.origin.last
        rig.origin.answer = then
        if length is None:
            first.chunk(BODY[:at])
        else:
            first.send(BODY[:at])
        rig.net.pass_time(0.05)
        first.close()
        rig.net.pass_time(30)
        return client

    def assertCut(self, client: Client, rig: Rig) -> None:
        """The client was cut off, and nothing is stored."""
        self.assertEqual(client.status, 200)
        self.assertTrue(client.aborted)
        self.assertFalse(client.whole)
        self.assertEqual(rig.stored, 0)


class ResumeTests(FeedCase):
    """Going on."""

    def test_each_byte(self) -> None:
        """Wherever the origin dies, the client gets the whole body, and only the rest is asked for again."""
        for fields, validator in ((STRONG, '"1"'), (DATED, MODIFIED)):
            for at in range(10):
                rig = self.rig()
                client = self.break_off(rig, at, fields, lambda asked, fields=fields: ranged(asked, *fields))
                self.assertTrue(client.whole, (fields, at, client.raw))
                self.assertEqual(client.body, BODY)
                self.assertEqual(rig.stored, 1)
                self.assertEqual(len(rig.origin.requests), 2)
                self.assertEqual(rig.origin.last.get("Range"), f"bytes={at}-")
                self.assertEqual(rig.origin.last.get("If-Range"), validator)

    def test_many_times(self) -> None:
        """A server that dies after every byte still gets its body through: each byte that comes counts as progress."""
        rig = self.rig(retries=1)

        def answer(asked: Asked) -> None:
            start = int((asked.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            status, extra = (206, [f"Content-Range: bytes {start}-9/10"]) if start else (200, [])
            asked.head(status, *extra, *STRONG, length=10 - start)
            asked.send(BODY[start : start + 1])
            rig.net.callLater(0.01, asked.close)

        rig.origin.answer = answer
        client = rig.request()
        rig.net.pass_time(30)
        self.assertEqual((client.body, client.whole), (BODY, True))

    def test_no_validator(self) -> None:
        """Without a strong validator the rest cannot be told to belong to it: the client is cut off."""
        for fields in ((), ('ETag: W/"1"', f"Date: {DATE}"), (f"Last-Modified: {DATE}", f"Date: {DATE}")):
            rig = self.rig()
            client = self.break_off(rig, 5, fields, lambda asked, fields=fields: ranged(asked, *fields))
            self.assertCut(client, rig)
            self.assertEqual(len(rig.origin.requests), 1)

    def test_digest(self) -> None:
        """Where the digest is known it is gone on with without any validator, and checked at the end."""
        for body, whole in ((BODY, True), (b"01234XXXXX", False)):
            rig = self.rig()
            rig.origin.answer = lambda asked: asked.head(200, length=10)
            digest = Digest("sha256", hashlib.sha256(BODY).hexdigest())
            found = self.successResultOf(self.start(rig, digest))
            first = rig.origin.last
            rig.origin.answer = lambda asked, body=body: ranged(asked, body=body)
            first.send(BODY[:5])
            first.close()
            rig.net.pass_time(10)
            self.assertEqual(rig.origin.last.get("Range"), "bytes=5-")
            self.assertIsNone(rig.origin.last.get("If-Range"))
            self.assertEqual(found.body.complete, whole)
            self.assertEqual(rig.stored, int(whole))
            if not whole:
                self.assertLess(found.body.size, 10)

    def start(self, rig: Rig, digest: Digest) -> object:
        """Look an artifact of a known digest up."""
        looking = rig.run(rig.cache.lookup(rig.artifact(digest=digest)))
        rig.net.pass_time()
        return looking

    def test_whole_again(self) -> None:
        """A server that knows no ranges sends all again: what is there is skipped."""
        for fields in (STRONG, DATED):
            rig = self.rig()
            client = self.break_off(rig, 5, fields, lambda asked, fields=fields: asked.answer(200, *fields, body=BODY))
            self.assertEqual((client.body, client.whole), (BODY, True))
            self.assertEqual(rig.stored, 1)

    def test_whole_again_in_pieces(self) -> None:
        """The skipping does not depend on how the bytes are cut."""
        rig = self.rig()

        def answer(asked: Asked) -> None:
            asked.head(200, *STRONG, length=10)
            for byte in BODY:
                asked.send(bytes([byte]))

        client = self.break_off(rig, 7, STRONG, answer)
        self.assertEqual((client.body, client.whole), (BODY, True))

    def test_changed(self) -> None:
        """Where the copy changed meanwhile, the client is cut off at once, and the next one gets the new copy."""
        for reply in (
            lambda asked: asked.answer(200, 'ETag: "2"', f"Date: {DATE}", body=b"abcdefghij"),
            lambda asked: ranged(asked, 'ETag: "2"', f"Date: {DATE}", body=b"abcdefghij"),
            lambda asked: asked.answer(200, *STRONG, body=b"01234567890"),
            lambda asked: asked.answer(404),
            lambda asked: asked.answer(416, "Content-Range: bytes */3"),
        ):
            rig = self.rig()
            client = self.break_off(rig, 5, STRONG, reply)
            self.assertCut(client, rig)
            self.assertEqual(client.body, b"01234")
            self.assertEqual(len(rig.origin.requests), 2)
            rig.origin.answer = lambda asked: asked.answer(200, 'ETag: "2"', body=b"abcdefghij")
            self.assertEqual(rig.request().body, b"abcdefghij")
            self.assertIsNone(rig.origin.last.get("Range"))

    def test_changed_with_digest(self) -> None:
        """A digest that only the first answer named does not make another version's bytes fit."""
        rig = self.rig()
        other = b"abcdefghij"

        def digest(body: bytes) -> str:
            return f"Repr-Digest: sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"

        client = self.break_off(
            rig,
            5,
            (*STRONG, digest(BODY)),
            lambda asked: asked.answer(200, 'ETag: "2"', f"Date: {DATE}", digest(other), body=other),
        )
        self.assertCut(client, rig)
        self.assertTrue(BODY.startswith(client.body), client.body)

    def test_wrong_range(self) -> None:
        """A 206 for other bytes than those asked for is not taken."""
        for content in (
            "bytes 4-9/10",
            "bytes 6-9/10",
            "bytes 5-9/11",
            "bytes */10",
            "items 5-9/10",
            "bytes 5-x/10",
            "",
        ):
            rig = self.rig()
            fields = (f"Content-Range: {content}",) if content else ()
            client = self.break_off(
                rig, 5, STRONG, lambda asked, fields=fields: asked.answer(206, *fields, *STRONG, body=b"56789")
            )
            self.assertCut(client, rig)
            self.assertEqual(client.body, b"01234")

    def test_less_than_asked(self) -> None:
        """A 206 with only a part of the rest is taken, and the rest of that asked for."""
        rig = self.rig()

        def answer(asked: Asked) -> None:
            start = int((asked.get("Range") or "").removeprefix("bytes=").partition("-")[0])
            asked.answer(206, f"Content-Range: bytes {start}-{start}/10", *STRONG, body=BODY[start : start + 1])

        client = self.break_off(rig, 7, STRONG, answer)
        self.assertEqual((client.body, client.whole), (BODY, True))

    def test_more_than_asked(self) -> None:
        """A 206 that sends more than there is left to send does not make the body longer."""
        rig = self.rig()
        reply = "Content-Range: bytes 5-9/10"
        client = self.break_off(rig, 5, STRONG, lambda asked: asked.answer(206, reply, *STRONG, body=b"56789extra"))
        self.assertLessEqual(len(client.body), 10)
        self.assertEqual(BODY[: len(client.body)], client.body)


class UnknownLengthTests(FeedCase):
    """Chunked bodies, whose end only the last chunk tells."""

    def test_resumed(self) -> None:
        """A chunked body is gone on with too."""
        rig = self.rig()
        client = self.break_off(rig, 5, STRONG, lambda asked: ranged(asked, *STRONG), None)
        self.assertEqual((client.body, client.whole), (BODY, True))

    def test_short_206(self) -> None:
        """A 206 that ends before the total it names itself is not the end of the body."""
        rig = self.rig()

        def answer(asked: Asked) -> None:
            start = int((asked.get("Range") or "").removeprefix("bytes=").partition("-")[0])
            stop = min(start + 2, 10)
            asked.answer(206, f"Content-Range: bytes {start}-{stop - 1}/10", *STRONG, body=BODY[start:stop])

        client = self.break_off(rig, 5, STRONG, answer, None)
        self.assertEqual((client.body, client.whole), (BODY, True))

    def test_open_total(self) -> None:
        """A 206 that does not know the total is not the end, wherever it ends: only asking for more tells."""
        rig = self.rig()

        def answer(asked: Asked) -> None:
            start = int((asked.get("Range") or "").removeprefix("bytes=").partition("-")[0])
            stop = min(start + 2, 10)
            if start == 10:
                asked.answer(416, "Content-Range: bytes */10")
            else:
                asked.answer(206, f"Content-Range: bytes {start}-{stop - 1}/*", *STRONG, body=BODY[start:stop])

        client = self.break_off(rig, 5, STRONG, answer, None)
        self.assertEqual((client.body, client.whole), (BODY, True))
        self.assertEqual(rig.stored, 1)

    def test_no_end(self) -> None:
        """An answer whose end nothing would tell from a break does not take the place of one whose end is marked."""
        rig = self.rig()

        def answer(asked: Asked) -> None:
            asked.head(200, *STRONG, "Connection: close")
            asked.send(BODY[:7])
            asked.close()

        client = self.break_off(rig, 5, STRONG, answer, None)
        self.assertFalse(client.whole)
        self.assertEqual(rig.stored, 0)

    def test_shorter_whole(self) -> None:
        """A whole answer that ends before what was there already cannot be the same: the client is cut off."""
        rig = self.rig()

        def answer(asked: Asked) -> None:
            asked.head(200, *STRONG, "Transfer-Encoding: chunked")
            asked.chunk(b"012")
            asked.chunk(b"")

        client = self.break_off(rig, 5, STRONG, answer, None)
        self.assertFalse(client.whole)
        self.assertEqual(rig.stored, 0)


class NextURLTests(FeedCase):
    """Another URL takes over."""

    def take_over(self, fields: tuple[str, ...], other: tuple[str, ...], body: bytes = BODY) -> tuple[Client, Rig]:
        """The first server breaks off and refuses; the second has ``other`` fields."""
        rig = self.rig(TWO)
        second = rig.net.origin("second.test")
        second.answer = lambda asked: ranged(asked, *other, body=body)
        rig.origin.answer = lambda asked: asked.head(200, *fields, length=10)
        client = rig.request()
        rig.origin.last.send(BODY[:5])
        rig.origin.refuse = ConnectionRefusedError(string="refused")
        rig.origin.last.close()
        rig.net.pass_time(30)
        return client, rig

    def test_same_date(self) -> None:
        """A mirror that has a tag of its own but the same date has the same file."""
        client, rig = self.take_over((*DATED, 'ETag: "1"'), (*DATED, 'ETag: "mirror"'))
        self.assertEqual((client.body, client.whole), (BODY, True))
        asked = rig.net.origins[rig.net.names["second.test"][0], 80].last
        self.assertEqual((asked.get("Range"), asked.get("If-Range")), ("bytes=5-", MODIFIED))
        self.assertEqual(rig.stored, 1)

    def test_proved(self) -> None:
        """With a digest known, a mirror without validators in common may send the rest: the digest tells at the end."""
        rig = self.rig(urls=TWO)
        second = rig.net.origin("second.test")
        second.answer = lambda asked: ranged(asked, 'ETag: "other"')
        rig.origin.answer = lambda asked: asked.head(200, length=10)
        artifact = rig.artifact(digest=Digest("sha256", hashlib.sha256(BODY).hexdigest()))
        found = rig.run(rig.kitchen.fetch(artifact))
        rig.origin.last.send(BODY[:4])
        rig.net.pass_time(0.05)
        rig.origin.refuse = ConnectionRefusedError()
        rig.origin.last.close()
        rig.net.pass_time(30)
        self.assertTrue(self.successResultOf(found).body.complete)
        self.assertEqual((rig.stored, second.last.get("range")), (1, "bytes=4-"))

    def test_proved_here(self) -> None:
        """With a digest known in advance, the same host may send the rest under another tag, as farms of servers do."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, *STRONG, length=10)
        artifact = rig.artifact(digest=Digest("sha256", hashlib.sha256(BODY).hexdigest()))
        found = rig.run(rig.kitchen.fetch(artifact))
        first = rig.origin.last
        rig.origin.answer = lambda asked: ranged(asked, 'ETag: "2"')
        first.send(BODY[:4])
        rig.net.pass_time(0.05)
        first.close()
        rig.net.pass_time(30)
        self.assertTrue(self.successResultOf(found).body.complete)

    def test_standing_still(self) -> None:
        """A mirror that stops in the middle is left after ten seconds, before clients leave, if there is a digest."""
        for digest, seconds in ((Digest("sha256", hashlib.sha256(BODY).hexdigest()), 10), (None, 60)):
            rig = self.rig(urls=TWO)
            second = rig.net.origin("second.test")
            second.answer = lambda asked: ranged(asked, *DATED)
            rig.origin.answer = lambda asked: asked.head(200, *DATED, length=10)
            found = rig.run(rig.kitchen.fetch(rig.artifact(digest=digest)))
            rig.origin.last.send(BODY[:4])
            rig.net.pass_time(seconds - 1)
            self.assertEqual((len(rig.origin.requests), len(second.requests)), (1, 0))
            rig.net.pass_time(2)
            self.assertEqual(len(rig.origin.requests) + len(second.requests), 2)
            self.assertEqual(self.successResultOf(found).body.complete, digest is not None)

    def test_other_date(self) -> None:
        """A mirror with another date has another file: the client is cut off."""
        other = (f"Last-Modified: {DATE}", f"Date: {DATE}", 'ETag: "1"')
        client, rig = self.take_over((*DATED, 'ETag: "1"'), other, b"abcdefghij")
        self.assertCut(client, rig)
        self.assertEqual(client.body, b"01234")

    def test_same_tag(self) -> None:
        """Where there is no date, the same strong tag will do."""
        client, _ = self.take_over(STRONG, STRONG)
        self.assertEqual((client.body, client.whole), (BODY, True))

    def test_other_length(self) -> None:
        """A mirror whose file has another length has another file, whatever its date."""
        client, rig = self.take_over(DATED, DATED, BODY + b"X")
        self.assertCut(client, rig)


class RetryTests(FeedCase):
    """How often, and how long."""

    def test_count(self) -> None:
        """After ``retries`` tries without a byte the client is cut off, and what came is kept for later."""
        for retries in (1, 3):
            rig = self.rig(retries=retries)
            client = self.break_off(rig, 5, STRONG, lambda asked: asked.close())
            self.assertCut(client, rig)
            self.assertEqual(len(rig.origin.requests), 1 + retries)
            rig.origin.answer = lambda asked: ranged(asked, *STRONG)
            self.assertEqual(rig.request().body, BODY)
            self.assertEqual(rig.origin.last.get("Range"), "bytes=5-")

    def test_pauses(self) -> None:
        """The pauses grow."""
        rig = self.rig(retries=4)
        times: list[float] = []
        rig.origin.answer = lambda asked: asked.head(200, *STRONG, length=10)
        rig.request()
        started = rig.net.seconds()

        def fail(asked: Asked) -> None:
            times.append(rig.net.seconds() - started)
            asked.close()

        first = rig.origin.last
        rig.origin.answer = fail
        first.close()
        rig.net.pass_time(60)
        expected = [sum(PAUSES[: count + 1]) for count in range(4)]
        self.assertEqual([round(at, 3) for at in times], [round(at, 3) for at in expected])

    def test_stop(self) -> None:
        """A vault that stops ends its transfers at once, whatever they wait for, and keeps what has come."""
        for wait in (0.0, 0.05):
            rig = self.rig()
            rig.origin.answer = lambda asked: asked.head(200, *STRONG, length=10)
            client = rig.request()
            rig.origin.last.send(BODY[:5])
            rig.net.pass_time()
            if wait:
                rig.origin.last.close()
                rig.net.pass_time(wait)
            rig.stop()
            self.assertTrue(client.aborted)
            self.assertEqual(rig.transfers, {})
            self.assertEqual(rig.store.index.partial("files/a") is not None, True)

    def test_stop_while_asking(self) -> None:
        """The same while the upstream is asked for the rest and says nothing; one such does not hold up the others."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, *STRONG, length=10)
        clients = [rig.request(path) for path in ("a", "b")]
        rig.origin.answer = lambda asked: None
        for asked in list(rig.origin.requests):
            asked.send(BODY[:5])
            asked.close()
        rig.net.pass_time(1)
        self.assertEqual(len(rig.origin.requests), 4)
        rig.stop()
        rig.net.pass_time(1)
        self.assertEqual([client.aborted for client in clients], [True, True])
        self.assertEqual(rig.transfers, {})
        self.assertEqual(rig.free_slots(), 32)

    def test_idle(self) -> None:
        """An origin that stands still is given up after the idle timeout and gone on with."""
        rig = self.rig(idle_timeout=20.0)
        rig.origin.answer = lambda asked: asked.head(200, *STRONG, length=10)
        client = rig.request()
        rig.origin.last.send(BODY[:5])
        rig.origin.answer = lambda asked: ranged(asked, *STRONG)
        rig.net.pass_time(19)
        self.assertEqual(client.body, BODY[:5])
        rig.net.pass_time(3)
        self.assertEqual((client.body, client.whole), (BODY, True))

    def test_bandwidth(self) -> None:
        """``bandwidth`` bounds how fast a body comes, and the upstream waits meanwhile."""
        rig = self.rig(bandwidth=1000)
        rig.origin.answer = lambda asked: asked.head(200, *STRONG, length=5000)
        client = rig.request()
        sent = 0
        for tick in range(600):
            if not rig.origin.last.wire.paused and sent < 5000:
                rig.origin.last.send(b"x" * 100)
                sent += 100
            rig.net.pass_time(0.01)
            if tick == 199:
                self.assertLess(len(client.body), 3000)
                self.assertGreater(len(client.body), 1500)
        self.assertTrue(client.whole)


class RestTests(FeedCase):
    """Upstreams that ask for rest in the middle of a body."""

    def resting(self, status: int, seconds: int) -> Callable[[Asked], object]:
        """An answer that asks for rest until so many seconds after the first time, and then gives the body."""
        began: list[float] = []

        def answer(asked: Asked) -> None:
            now = asked.wire._net.seconds()
            began.append(now)
            if now < began[0] + seconds:
                asked.answer(status, f"Retry-After: {began[0] + seconds - now:.0f}")
            else:
                ranged(asked, *STRONG)

        return answer

    def test_waited_for(self) -> None:
        """A short rest is waited for as one try, however few there are."""
        for status in (429, 503):
            for seconds in (5, 29):
                rig = self.rig(retries=2)
                client = self.break_off(rig, 5, STRONG, self.resting(status, seconds))
                self.assertEqual((client.body, client.whole), (BODY, True), (status, seconds))
                self.assertEqual(len(rig.origin.requests), 3)

    def test_too_long(self) -> None:
        """A long rest is not: the client is cut off at once, and nobody asked in vain."""
        for status in (429, 503):
            rig = self.rig()
            rig.origin.answer = lambda asked: asked.head(200, *STRONG, length=10)
            client = rig.request()
            first = rig.origin.last
            rig.origin.answer = self.resting(status, 40)
            first.close()
            rig.net.pass_time(1)
            self.assertCut(client, rig)
            self.assertEqual(len(rig.origin.requests), 2)

    def test_too_long_for_a_refresh(self) -> None:
        """The rest that the end of a refresh was asked for is given: meanwhile the kept copy is served."""
        rig = self.rig(ttl=100.0, stale_while_revalidate=1000.0)
        rig.fill()
        rig.net.pass_time(200)
        rig.origin.answer = lambda asked: (asked.head(200, 'ETag: "2"', length=10), asked.close())
        rig.request()
        rig.origin.answer = lambda asked: asked.answer(503, "Retry-After: 100")
        rig.net.pass_time(1)
        count = len(rig.origin.requests)
        rig.net.pass_time(90)
        self.assertEqual(rig.request().headers["x-cache"], "STALE")
        self.assertEqual(len(rig.origin.requests), count)

    def test_others_first(self) -> None:
        """Who has not failed is asked before one whose rest is waited for, and that one before one who has failed."""
        rig = self.rig(TWO, retries=3)
        second = rig.net.origin("second.test")
        second.answer = lambda asked: ranged(asked, *STRONG)
        client = self.break_off(rig, 5, STRONG, self.resting(503, 20))
        self.assertEqual((client.body, client.whole), (BODY, True))
        self.assertEqual((len(rig.origin.requests), len(second.requests)), (2, 1))

        rig = self.rig(TWO, retries=3)
        second = rig.net.origin("second.test")
        second.answer = lambda asked: asked.answer(500)
        client = self.break_off(rig, 5, STRONG, self.resting(503, 20))
        self.assertEqual((client.body, client.whole), (BODY, True))
        self.assertEqual((len(rig.origin.requests), len(second.requests)), (3, 1))

    def test_redirected(self) -> None:
        """That a redirect's target asks for rest says nothing of the URL that led there: it may lead elsewhere."""
        rig = self.rig()
        rest, m1, m2 = (rig.net.origin(f"{name}.test") for name in ("rest", "m1", "m2"))
        hops = ["m1", "rest", "m2"]
        rig.origin.answer = lambda asked: asked.answer(302, f"Location: http://{hops.pop(0)}.test/a")
        m1.answer = lambda asked: asked.head(200, *DATED, length=10)
        rest.answer = lambda asked: asked.answer(503, "Retry-After: 100")
        m2.answer = lambda asked: ranged(asked, *DATED)
        client = rig.request()
        m1.last.send(BODY[:4])
        rig.net.pass_time(0.05)
        m1.answer = lambda asked: asked.answer(429, "Retry-After: 100")
        m1.last.close()
        rig.net.pass_time(3)
        self.assertEqual((client.body, client.whole, hops), (BODY, True, []))

    def test_stop(self) -> None:
        """A vault that stops does not wait for it."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, *STRONG, length=10)
        client = rig.request()
        first = rig.origin.last
        rig.origin.answer = self.resting(503, 20)
        first.close()
        rig.net.pass_time(10)
        self.assertFalse(client.aborted)
        rig.stop()
        self.assertTrue(client.aborted)
        self.assertEqual(rig.transfers, {})


class FunctionTests(SynchronousTestCase):
    """The pure parts."""

    def test_content_range(self) -> None:
        """A Content-Range is read or not, but never guessed."""
        table = {
            "bytes 0-4/10": (0, 5, 10),
            "bytes 5-9/*": (5, 10, None),
            " bytes 5-9/10 ": (5, 10, 10),
            "bytes */10": None,
            "bytes=0-4/10": None,
            "bytes 0-4": None,
            "octets 0-4/10": None,
            "bytes 0-4/10, bytes 5-9/10": None,
            "": None,
        }
        for value, expected in table.items():
            self.assertEqual(content_range(Head(206, (("Content-Range", value),))), expected, value)

    def test_total(self) -> None:
        """The total of a 416 is read from plain digits alone."""
        for field, expected in (
            ("bytes */10", 10), (" bytes */0", 0), ("bytes */\u00b2", None), ("bytes */*", None), ("items */3", None),
            ("bytes 0-1/2", None), ("bytes */" + "9" * 20, None), ("", None),
        ):  # fmt: skip
            self.assertEqual(total_of(Head(416, (("Content-Range", field),))), expected, field)

    def test_contradicts(self) -> None:
        """Validators contradict where both have one of a kind and these differ."""

        def head(etag: str | None = None, modified: str | None = None) -> Head:
            return Head(
                200, tuple(pair for pair in (("ETag", etag), ("Last-Modified", modified), ("Date", DATE)) if pair[1])
            )  # type: ignore[arg-type]

        table = [
            (head('"1"'), head('"1"'), False, False),
            (head('"1"'), head('"2"'), False, True),
            (head('"1"'), head('W/"1"'), False, False),
            (head('"1"'), head(), False, False),
            (head(), head('"1"'), False, False),
            (head(None, MODIFIED), head(None, MODIFIED), False, False),
            (head(None, MODIFIED), head(None, DATE), False, True),
            (head(None, MODIFIED), head(), False, False),
            (head('"1"', MODIFIED), head('"1"', DATE), False, False),
            (head('"1"', MODIFIED), head('"2"', MODIFIED), False, True),
            (head('"1"', MODIFIED), head('"2"', MODIFIED), True, False),
            (head('"1"', MODIFIED), head('"1"', DATE), True, True),
            (head('"1"', MODIFIED), head('"1"'), True, True),
            (head('"1"'), head('"2"'), True, True),
        ]
        for known, answer, elsewhere, expected in table:
            self.assertEqual(contradicts(known, answer, elsewhere), expected, (known, answer, elsewhere))


class RedirectedTests(FeedCase):
    """Bodies that a redirect led to."""

    def redirector(self, *mirrors: str) -> Rig:
        """A vault whose origin sends each request to the next of these hosts."""
        rig = self.rig()
        self.hops: list[str] = []

        def answer(asked: Asked) -> None:
            self.hops.append(mirrors[len(self.hops) % len(mirrors)])
            asked.answer(302, f"Location: http://{self.hops[-1]}/a")

        rig.origin.answer = answer
        return rig

    def test_same_host(self) -> None:
        """The rest is asked of the host that the redirect led to, which has the same representation."""
        rig = self.redirector("m1.test", "m2.test")
        m1, m2 = rig.net.origin("m1.test"), rig.net.origin("m2.test")
        m1.answer = lambda asked: asked.head(200, 'ETag: "m1"', length=10)
        m2.answer = lambda asked: ranged(asked, 'ETag: "m2"')
        client = rig.request()
        m1.last.send(BODY[:4])
        rig.net.pass_time(0.05)
        m1.answer = lambda asked: ranged(asked, 'ETag: "m1"')
        m1.last.close()
        rig.net.pass_time(30)
        self.assertEqual((client.body, client.whole, self.hops), (BODY, True, ["m1.test"]))
        self.assertEqual(m1.last.get("range"), "bytes=4-")

    def test_other_mirror(self) -> None:
        """Where that host has gone, the redirect is followed again; another mirror's copy of the same date goes on."""
        rig = self.redirector("m1.test", "m2.test")
        m1, m2 = rig.net.origin("m1.test"), rig.net.origin("m2.test")
        m1.answer = lambda asked: asked.head(200, 'ETag: "m1"', *DATED, length=10)
        m2.answer = lambda asked: ranged(asked, 'ETag: "m2"', *DATED)
        client = rig.request()
        m1.last.send(BODY[:4])
        rig.net.pass_time(0.05)
        m1.refuse = ConnectionRefusedError()
        m1.last.close()
        rig.net.pass_time(30)
        self.assertEqual((client.body, client.whole, self.hops), (BODY, True, ["m1.test", "m2.test"]))

    def test_other_version(self) -> None:
        """A mirror whose copy is not shown to be the same never goes on: the client is cut off."""
        rig = self.redirector("m1.test", "m2.test")
        m1, m2 = rig.net.origin("m1.test"), rig.net.origin("m2.test")
        m1.answer = lambda asked: asked.head(200, 'ETag: "1"', *DATED, length=10)
        m2.answer = lambda asked: ranged(asked, 'ETag: "1"', "Last-Modified: Mon, 02 Nov 2026 08:00:00 GMT", DATED[1])
        client = rig.request()
        m1.last.send(BODY[:4])
        rig.net.pass_time(0.05)
        m1.refuse = ConnectionRefusedError()
        m1.last.close()
        rig.net.pass_time(60)
        self.assertCut(client, rig)
