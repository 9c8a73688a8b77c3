"""The cache: what is served from the store, what is asked again, and what a client is told when that fails."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import DATE, Asked, Client, Rig, RigCase
from vault.artifact import Digest
from vault.cache import Cache
from vault.errors import Missing
from vault.kitchen import Kitchen
from vault.memory import MEMORY, Memory
from vault.parts import NEAR_BYTES

BODY = b"0123456789"
STRONG = ('ETag: "1"', f"Date: {DATE}")
NO_STORE = "Cache-Control: no-store"


class ExpiredCase(RigCase):
    """An entry that has expired: fresh for 100 s, served stale while it is refreshed for 50 s more."""

    def expired(self, seconds: float, *fields: str, **options: Any) -> Rig:
        """A vault with an entry that expired so many seconds ago."""
        rig = self.rig(ttl=100.0, stale_while_revalidate=50.0, **options)
        rig.fill("a", BODY, *(fields or STRONG))
        rig.net.pass_time(100 + seconds)
        rig.origin.requests.clear()
        return rig

    def assertServed(self, client: Client, how: str, body: bytes = BODY) -> None:
        """The client got a whole body, and is told how."""
        self.assertEqual((client.status, client.body, client.whole), (200, body, True))
        self.assertEqual(client.headers["x-cache"], how)


class HitTests(ExpiredCase):
    """Fresh copies."""

    def test_forever(self) -> None:
        """What never changes is never asked for again."""
        rig = self.rig()
        rig.fill()
        rig.net.pass_time(10**8)
        self.assertServed(rig.request("a", "Cache-Control: no-cache"), "HIT")
        self.assertEqual(len(rig.origin.requests), 1)

    def test_fresh(self) -> None:
        """A copy is served without asking until it expires, with its age and the time it has left."""
        rig = self.expired(-1)
        client = rig.request()
        self.assertServed(client, "HIT")
        self.assertEqual(client.headers["age"], "99")
        self.assertIn("hit; ttl=1", client.headers["cache-status"])
        self.assertEqual(rig.origin.requests, [])

    def test_volatile(self) -> None:
        """What shows that it changes is asked for again after a minute."""
        for fields in (("Content-Type: text/html",), ("Cache-Control: no-cache",), ("Cache-Control: max-age=0",)):
            rig = self.rig()
            rig.fill("a", BODY, *STRONG, *fields)
            rig.net.pass_time(59)
            self.assertServed(rig.request(), "HIT")
            rig.net.pass_time(70)
            rig.origin.answer = lambda asked: asked.answer(304, *STRONG)
            self.assertServed(rig.request(), "REVALIDATED")

    def test_client_no_cache(self) -> None:
        """A client may ask for validation of what can change, but not of what was just validated."""
        for field in ("Cache-Control: no-cache", "Cache-Control: max-age=0"):
            rig = self.expired(-50)
            rig.origin.answer = lambda asked: asked.answer(304, *STRONG)
            client = rig.request("a", field)
            self.assertServed(client, "REVALIDATED")
            self.assertIn("; fwd=request; fwd-status=304", client.headers["cache-status"])
            self.assertServed(rig.request("a", field), "HIT")
            self.assertEqual(len(rig.origin.requests), 1)
            rig.net.pass_time(200)
            client = rig.request("a", field)
            self.assertIn("; fwd=stale; fwd-status=304", client.headers["cache-status"])

    def test_client_no_cache_joins(self) -> None:
        """Who joins what another client's wish began is told the same reason, of a fresh copy."""
        rig = self.expired(-50)
        clients = [rig.request("a", "Cache-Control: no-cache")]
        rig.origin.last.head(200, 'ETag: "2"', length=3)
        rig.net.pass_time()
        clients.append(rig.request("a", "Cache-Control: no-cache"))
        rig.origin.last.send(b"new")
        rig.net.pass_time(1)
        for client, how in zip(clients, ("MISS", "JOINED"), strict=True):
            self.assertServed(client, how, b"new")
            self.assertIn("; fwd=request; fwd-status=200; stored", client.headers["cache-status"])


class RevalidationTests(ExpiredCase):
    """Copies that have expired for long."""

    def test_confirmed(self) -> None:
        """A 304 makes the copy fresh again, with the fields it brings."""
        rig = self.expired(1000)
        rig.origin.answer = lambda asked: asked.answer(304, 'ETag: "1"', "X-New: 1", "Content-Length: 0")
        client = rig.request()
        self.assertServed(client, "REVALIDATED")
        self.assertEqual(client.headers["x-new"], "1")
        self.assertIn("fwd=stale; fwd-status=304", client.headers["cache-status"])
        self.assertEqual(rig.origin.last.get("If-None-Match"), '"1"')
        self.assertServed(rig.request(), "HIT")
        self.assertEqual(len(rig.origin.requests), 1)

    def test_many_confirmations(self) -> None:
        """Confirmations do not use up the connections to the host."""
        rig = self.expired(1000, max_connections=2)
        rig.origin.answer = lambda asked: asked.answer(304, *STRONG)
        for _ in range(5):
            self.assertServed(rig.request(), "REVALIDATED")
            rig.net.pass_time(1000)
        self.assertEqual(rig.free_slots(), 2)

    def test_changed(self) -> None:
        """A 200 replaces the copy."""
        rig = self.expired(1000)
        rig.origin.answer = lambda asked: asked.answer(200, 'ETag: "2"', body=b"new")
        client = rig.request()
        self.assertServed(client, "MISS", b"new")
        self.assertIn("fwd=stale", client.headers["cache-status"])
        self.assertServed(rig.request(), "HIT", b"new")

    def test_together(self) -> None:
        """Those who ask at the same time cause one validation."""
        rig = self.expired(1000)
        clients = [rig.request() for _ in range(20)]
        rig.origin.last.answer(304, *STRONG)
        rig.net.pass_time()
        for client in clients:
            self.assertServed(client, "REVALIDATED")
        self.assertEqual(len(rig.origin.requests), 1)

    def test_wrong_tag(self) -> None:
        """A 304 that confirms something else is not believed: it is asked for without conditions."""
        rig = self.expired(1000)
        rig.origin.answer = lambda asked: (
            asked.answer(304, 'ETag: "2"')
            if asked.get("If-None-Match")
            else asked.answer(200, 'ETag: "2"', body=b"new")
        )
        self.assertServed(rig.request(), "MISS", b"new")
        self.assertEqual(len(rig.origin.requests), 2)

    def test_unasked(self) -> None:
        """A 304 to a request without conditions confirms nothing."""
        rig = self.expired(1000, "X-Nothing: 1")
        rig.origin.answer = lambda asked: asked.answer(304)
        self.assertServed(rig.request(), "STALE")
        self.assertIsNone(rig.origin.last.get("If-None-Match"))

    def test_unasked_and_absent(self) -> None:
        """A 304 for what is not stored is a broken answer."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(304)
        self.assertEqual(rig.request().status, 502)

    def test_now_private(self) -> None:
        """What may not be stored any more is passed through."""
        rig = self.expired(1000)
        rig.origin.answer = lambda asked: asked.answer(200, NO_STORE, body=b"new")
        self.assertServed(rig.request(), "BYPASS", b"new")
        self.assertServed(rig.request(), "BYPASS", b"new")

    def test_now_private_and_gone(self) -> None:
        """The old copy of what may not be stored any more is no hit; it is there for when the upstream fails."""
        for seconds in (1, 1000):
            rig = self.expired(seconds)
            rig.origin.answer = lambda asked: asked.answer(200, NO_STORE, body=b"new")
            self.assertServed(rig.request(), "STALE" if seconds == 1 else "BYPASS", BODY if seconds == 1 else b"new")
            rig.net.pass_time(61)
            self.assertServed(rig.request(), "BYPASS", b"new")
            rig.origin.answer = lambda asked: asked.answer(500)
            self.assertServed(rig.request(), "STALE")

    def test_confirmed_but_not_to_be_kept(self) -> None:
        """A 304 that says that the copy may not be stored is believed: it is served once more, and goes."""
        for field in (NO_STORE, "Cache-Control: private", "Vary: *"):
            for seconds, how in ((1000, "REVALIDATED"), (1, "STALE")):
                rig = self.expired(seconds)
                rig.origin.answer = lambda asked, field=field: asked.answer(304, 'ETag: "1"', field)
                client = rig.request()
                self.assertServed(client, how)
                self.assertNotIn("ttl", client.headers["cache-status"])
                self.assertEqual(rig.stored, 0, field)
                rig.origin.answer = lambda asked, field=field: asked.answer(200, 'ETag: "1"', field, body=b"new")
                self.assertServed(rig.request(), "BYPASS", b"new")
                self.assertIsNone(rig.origin.last.get("If-None-Match"))

    def test_disk_fails_while_replaced(self) -> None:
        """While a new copy is passed through because the disk failed, others still get a whole body."""
        rig = self.expired(1000)
        rig.origin.answer = lambda asked: asked.head(200, 'ETag: "2"', length=10)
        client = rig.request()
        first = rig.origin.last
        first.send(b"abcde")
        rig.net.pass_time(1)
        rig.disk.error = OSError(28, "No space left on device")
        first.send(b"fgh")
        rig.net.pass_time(1)
        rig.origin.answer = lambda asked: asked.answer(200, 'ETag: "2"', body=b"abcdefghij")
        late = rig.request()
        rig.net.pass_time(1)
        first.send(b"ij")
        rig.net.pass_time(1)
        self.assertEqual((client.body, client.whole), (b"abcdefghij", True))
        self.assertTrue(late.whole)
        self.assertIn(late.body, (BODY, b"abcdefghij"))


class StaleTests(ExpiredCase):
    """Old copies that are served all the same."""

    def test_while_revalidate(self) -> None:
        """Just expired, the old copy is served at once and refreshed behind, by one request."""
        rig = self.expired(1)
        clients = [rig.request() for _ in range(3)]
        for client in clients:
            self.assertServed(client, "STALE")
        self.assertEqual(len(rig.origin.requests), 1)
        rig.origin.last.answer(304, *STRONG)
        rig.net.pass_time()
        self.assertServed(rig.request(), "HIT")

    def test_replaced_behind(self) -> None:
        """A new copy that comes behind is served once it is whole."""
        rig = self.expired(1)
        rig.request()
        rig.origin.last.answer(200, 'ETag: "2"', body=b"new")
        rig.net.pass_time(1)
        self.assertServed(rig.request(), "HIT", b"new")

    def test_comes_behind(self) -> None:
        """While a new copy comes behind, at whatever pace, the old one is served; also when the new one breaks off."""
        rig = self.expired(1, retries=0)
        rig.request()
        rig.origin.last.head(200, 'ETag: "2"', length=6)
        rig.origin.last.send(b"new")
        rig.net.pass_time(1)
        during = rig.request()
        self.assertServed(during, "STALE")
        self.assertEqual(during.headers["cache-status"], "ArtifactVault; hit; detail=refreshing")
        self.assertServed(rig.request("a", "Range: bytes=2-3", method="HEAD"), "STALE", b"")
        rig.origin.last.close()
        rig.net.pass_time(1)
        self.assertServed(rig.request(), "STALE")

    def test_whole_behind(self) -> None:
        """A new copy that is whole and being stored is served, not the old one."""
        rig = self.expired(1)
        rig.request()
        rig.origin.last.head(200, 'ETag: "2"', length=6)
        rig.origin.last.send(b"newest")
        rig.disk.held = True
        rig.net.pass_time(1)
        self.assertServed(rig.request(), "HIT", b"newest")

    def test_joins_behind(self) -> None:
        """A client that asks for validation joins the refresh; what it is told was not there is the fresh one."""
        rig = self.expired(1)
        rig.request()
        rig.origin.last.head(200, 'ETag: "2"', length=6)
        rig.origin.last.send(b"new")
        rig.net.pass_time(1)
        client = rig.request("a", "Cache-Control: no-cache")
        rig.origin.last.send(b"est")
        rig.net.pass_time(1)
        self.assertServed(client, "JOINED", b"newest")
        self.assertIn("fwd=stale; fwd-status=200; stored; collapsed", client.headers["cache-status"])

    def test_joins_late(self) -> None:
        """Too old to be served, the old copy is not: who asks joins the refresh, which may end past the time for it."""
        rig = self.expired(49)
        rig.request()
        rig.origin.last.head(200, 'ETag: "2"', length=6)
        rig.origin.last.send(b"new")
        self.assertServed(rig.request(), "STALE")
        rig.net.pass_time(2)
        client = rig.request()
        rig.origin.last.send(b"est")
        rig.net.pass_time(1)
        self.assertServed(client, "JOINED", b"newest")

    def test_purged_behind(self) -> None:
        """Once the old copy is removed who asks joins the refresh."""
        rig = self.expired(1)
        rig.request()
        rig.origin.last.head(200, 'ETag: "2"', length=6)
        rig.origin.last.send(b"new")
        rig.net.pass_time(1)
        rig.run(rig.store.remove(rig.artifact().key))
        client = rig.request()
        rig.origin.last.send(b"est")
        rig.net.pass_time(1)
        self.assertServed(client, "JOINED", b"newest")

    def test_failed_behind(self) -> None:
        """A refresh that fails behind is noted, and the upstream left alone for a while."""
        rig = self.expired(1)
        rig.origin.answer = lambda asked: asked.answer(500)
        self.assertServed(rig.request(), "STALE")
        self.assertServed(rig.request(), "STALE")
        self.assertEqual(len(rig.origin.requests), 1)

    def test_body_breaks_behind(self) -> None:
        """After a refresh whose body breaks the upstream is left alone for ten seconds, and the copy served."""
        for seconds, fields in ((1, ()), (1, ("Cache-Control: no-cache",)), (1000, ())):
            rig = self.expired(seconds, retries=0)

            def answer(asked: Asked) -> None:
                asked.head(200, length=6)
                asked.send(b"new")
                asked.close()

            rig.origin.answer = answer
            first = rig.request("a", *fields)
            self.assertEqual(first.aborted, seconds > 50 or bool(fields))
            rig.net.pass_time(1)
            for _ in range(5):
                client = rig.request("a", *fields)
                self.assertServed(client, "STALE")
                self.assertIn("detail=http_response_incomplete", client.headers["cache-status"])
            self.assertEqual(len(rig.origin.requests), 1)
            rig.net.pass_time(11)
            rig.origin.answer = lambda asked: asked.answer(200, body=b"newest")
            rig.request("a", *fields)
            rig.net.pass_time(1)
            self.assertServed(rig.request(), "HIT", b"newest")
            self.assertEqual(len(rig.origin.requests), 2)

    def test_disk_fails_behind(self) -> None:
        """A refresh that nobody reads ends where the disk fails, and is not begun again for each client."""
        rig = self.expired(1)

        def answer(asked: Asked) -> None:
            rig.disk.error = None
            asked.head(200, length=600000)
            rig.net.callLater(0.01, setattr, rig.disk, "error", OSError(28, "No space left on device"))
            rig.net.callLater(0.02, asked.send, bytes(300000))

        rig.origin.answer = answer
        for _ in range(5):
            self.assertServed(rig.request(), "STALE")
            rig.net.pass_time(0.1)
        self.assertEqual(len(rig.origin.requests), 1)

    def test_readers_leave(self) -> None:
        """That the readers of a refresh have left says nothing of the upstream: the next client has it asked again."""
        rig = self.expired(1000)
        rig.origin.answer = lambda asked: (asked.head(200, length=6), asked.send(b"new"))
        client = rig.request()
        rig.disk.error = OSError(28, "No space left on device")
        rig.origin.last.send(b"es")
        rig.net.pass_time(1)
        client.leave()
        rig.net.pass_time(1)
        rig.disk.error = None
        rig.origin.answer = lambda asked: asked.answer(200, body=b"newest")
        self.assertEqual(rig.request().body, b"newest")

    def test_every_failure(self) -> None:
        """Whatever the upstream does wrong, the copy is served; nobody waits for retries."""
        answers: dict[str, Callable[[Asked], object]] = {
            str(status): lambda asked, status=status: asked.answer(status)  # type: ignore[misc]
            for status in (400, 401, 403, 404, 410, 416, 418, 429, 500, 502, 503, 504, 302, 204, 206)
        }
        answers["closed"] = lambda asked: asked.close()
        answers["nonsense"] = lambda asked: asked.send(b"nonsense\r\n\r\n")
        answers["loop"] = lambda asked: asked.answer(302, "Location: /a")
        answers["forbidden"] = lambda asked: asked.answer(302, "Location: http://127.0.0.1/")
        for name, answer in answers.items():
            rig = self.expired(1000)
            rig.origin.answer = answer
            client = rig.request()
            self.assertServed(client, "STALE")
            self.assertIn("detail=", client.headers["cache-status"], name)
            self.assertEqual(rig.stored, 1, name)

    def test_unreachable(self) -> None:
        """The same where no connection can be made."""
        rig = self.expired(1000)
        rig.net.pass_time(10)
        rig.origin.refuse = ConnectionRefusedError(string="refused")
        client = rig.request()
        rig.net.pass_time(0.5)
        self.assertServed(client, "STALE")
        self.assertIn("detail=connection_refused", client.headers["cache-status"])

    def test_patience(self) -> None:
        """An upstream that says nothing for five seconds is not waited for longer, and others do not wait at all."""
        rig = self.expired(1000)
        client = rig.request()
        rig.net.pass_time(4.9)
        self.assertFalse(client.answered)
        rig.net.pass_time(0.2)
        self.assertServed(client, "STALE")
        self.assertServed(rig.request(), "STALE")
        self.assertEqual(len(rig.origin.requests), 1)
        rig.origin.last.answer(304, *STRONG)
        rig.net.pass_time()
        self.assertServed(rig.request(), "HIT")

    def test_rest(self) -> None:
        """After a failure the upstream is asked again ten seconds later."""
        rig = self.expired(1000)
        rig.origin.answer = lambda asked: asked.answer(500)
        rig.request()
        rig.net.pass_time(9)
        rig.request()
        self.assertEqual(len(rig.origin.requests), 1)
        rig.net.pass_time(2)
        rig.origin.answer = lambda asked: asked.answer(304, *STRONG)
        self.assertServed(rig.request(), "REVALIDATED")

    def test_retry_after(self) -> None:
        """An upstream that says how long it wants to be left alone is."""
        rig = self.expired(1000)
        rig.origin.answer = lambda asked: asked.answer(503, "Retry-After: 120")
        rig.request()
        rig.net.pass_time(110)
        self.assertServed(rig.request(), "STALE")
        self.assertEqual(len(rig.origin.requests), 1)
        rig.net.pass_time(20)
        rig.request()
        self.assertEqual(len(rig.origin.requests), 2)

    def test_ailing_host(self) -> None:
        """While a host is left alone, stored copies are served and the next mirror is asked."""
        rig = self.rig(("http://origin.test/", "http://second.test/"), ttl=100.0)
        second = rig.net.origin("second.test")
        rig.fill("old", BODY)
        second.answer = lambda asked: asked.answer(200, *STRONG, body=b"second")
        rig.origin.answer = lambda asked: asked.answer(503, "Retry-After: 120")
        for path in ("a", "b"):
            self.assertServed(rig.request(path), "MISS", b"second")
        before = len(rig.origin.requests)
        self.assertServed(rig.request("c"), "MISS", b"second")
        self.assertEqual(len(rig.origin.requests), before)
        second.answer = lambda asked: asked.answer(503)
        rig.net.pass_time(110)
        for path in ("x", "y"):
            rig.request(path)
        before = len(rig.origin.requests)
        self.assertServed(rig.request("old"), "STALE")
        refused = rig.request("z")
        self.assertEqual(refused.status, 503)
        self.assertEqual(refused.headers["cache-status"], "ArtifactVault; detail=destination_unavailable")
        self.assertEqual(len(rig.origin.requests), before)

    def test_offline(self) -> None:
        """Offline, the copy is served however old it is."""
        rig = self.rig(ttl=100.0)
        rig.fill()
        rig.options = rig.options.__class__(offline=True)
        rig.upstream.options = rig.sources.options = rig.options
        rig.again()
        rig.net.pass_time(10**6)
        client = rig.request()
        self.assertServed(client, "STALE")
        self.assertIn("detail=offline", client.headers["cache-status"])
        self.assertEqual(len(rig.origin.requests), 1)


class OnlyIfCachedTests(ExpiredCase):
    """Clients that want a stored copy or nothing: nobody is asked for them."""

    ONLY = "Cache-Control: only-if-cached"

    def assertNothing(self, client: Client) -> None:
        """The client is told that there is no such copy."""
        self.assertEqual((client.status, client.headers["x-cache"]), (504, "MISS"))
        self.assertEqual(client.headers["cache-status"], "ArtifactVault; detail=proxy_internal_response")
        self.assertNotIn("retry-after", client.headers)
        self.assertTrue(client.whole)

    def test_absent(self) -> None:
        """Nothing is stored; once it is, it is a hit, also a range of it."""
        rig = self.rig()
        for method in ("GET", "HEAD"):
            self.assertNothing(rig.request("a", self.ONLY, method=method))
        self.assertEqual(rig.origin.requests, [])
        rig.fill()
        self.assertServed(rig.request("a", self.ONLY), "HIT")
        self.assertEqual(rig.request("a", self.ONLY, "Range: bytes=8-").body, b"89")
        self.assertServed(rig.request("a", self.ONLY, method="HEAD"), "HIT", b"")

    def test_expired(self) -> None:
        """An expired copy will do for as long as others are served it, or for as long as the client says."""
        for seconds, field, served in (
            (1, self.ONLY, True), (49, self.ONLY, True), (51, self.ONLY, False), (10**6, self.ONLY, False),
            (10**6, f"{self.ONLY}, max-stale", True), (999, f"{self.ONLY}, max-stale=1000", True),
            (1001, f"{self.ONLY}, max-stale=1000", False), (1001, f"{self.ONLY}, max-stale=x", False),
            (1, f"{self.ONLY}, no-cache", False), (-50, f"{self.ONLY}, no-cache", False), (-1, self.ONLY, True),
        ):  # fmt: skip
            rig = self.expired(seconds)
            client = rig.request("a", field)
            if served:
                self.assertServed(client, "STALE" if seconds > 0 else "HIT")
            else:
                self.assertNothing(client)
            self.assertEqual(rig.origin.requests, [], (seconds, field))

    def test_failing(self) -> None:
        """While the upstream is known to fail, or the vault is offline, an expired copy will do as it does for all."""
        rig = self.expired(1000)
        rig.origin.answer = lambda asked: asked.answer(500)
        rig.request()
        self.assertServed(rig.request("a", self.ONLY), "STALE")

    def test_missing(self) -> None:
        """What is remembered as missing is told as missing."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(404)
        rig.request()
        self.assertEqual(rig.request("a", self.ONLY).status, 404)
        self.assertEqual(len(rig.origin.requests), 1)

    def test_growing(self) -> None:
        """What is on its way for others will do, at its own pace; what is only asked for will not."""
        rig = self.rig()
        rig.request()
        self.assertNothing(rig.request("a", self.ONLY))
        rig.origin.last.head(200, *STRONG, length=10 * NEAR_BYTES)
        rig.net.pass_time(1)
        client = rig.request("a", self.ONLY, f"Range: bytes={10 * NEAR_BYTES - 1}-")
        self.assertEqual((client.status, client.headers["x-cache"]), (206, "JOINED"))
        self.assertEqual(len(rig.origin.requests), 1)
        rig.origin.last.close()


class AbsentTests(RigCase):
    """Nothing is stored."""

    def test_missing_is_remembered(self) -> None:
        """404 and 410 are told as they are and remembered for ten seconds."""
        for status in (404, 410):
            rig = self.rig()
            rig.origin.answer = lambda asked, status=status: asked.answer(status, body=b"<html>upstream's page")
            for _ in range(3):
                client = rig.request()
                self.assertEqual(client.status, status)
                self.assertNotIn(b"html", client.body)
            self.assertEqual(len(rig.origin.requests), 1)
            rig.net.pass_time(11)
            rig.origin.answer = lambda asked: asked.answer(200, *STRONG, body=BODY)
            self.assertEqual(rig.request().body, BODY)

    def test_missing_and_the_time_of_day(self) -> None:
        """Setting the machine's clock back does not make the vault remember a 404 for longer."""
        rig, shift = self.rig(), [0.0]
        cache = Cache(rig.sources, rig.store, rig.net, lambda: rig.net.seconds() + shift[0], rig.transfers)
        rig.kitchen = rig.resource.kitchen = Kitchen(cache, rig.sources, rig.store, rig.workers, rig.net.seconds)
        rig.origin.answer = lambda asked: asked.answer(404)
        rig.request()
        shift[0] = -86400.0
        rig.net.pass_time(11)
        rig.request()
        self.assertEqual(len(rig.origin.requests), 2)

    def test_missing_is_not_remembered(self) -> None:
        """``negative_ttl: 0`` remembers nothing."""
        rig = self.rig(negative_ttl=0.0)
        rig.origin.answer = lambda asked: asked.answer(404)
        rig.request()
        rig.request()
        self.assertEqual(len(rig.origin.requests), 2)

    def test_failures(self) -> None:
        """Nothing but 404 and 410 is told as missing, and nothing as the client's lack of rights."""
        for status, told in ((401, 502), (403, 502), (400, 502), (418, 502), (429, 503), (500, 503), (503, 503)):
            rig = self.rig()
            rig.origin.answer = lambda asked, status=status: asked.answer(status)
            client = rig.request()
            rig.net.pass_time(10)
            self.assertEqual(client.status, told)
            self.assertEqual("retry-after" in client.headers, told == 503)
            self.assertIn(b"files: origin.test answered %d" % status, client.body)
            self.assertTrue(client.headers["content-type"].startswith("text/plain"))
            self.assertEqual(client.headers["x-cache"], "MISS")

    def test_refused(self) -> None:
        """An upstream that cannot be reached is told with the backend's name, the cause and when to come again."""
        rig = self.rig()
        rig.origin.refuse = ConnectionRefusedError(string="refused")
        client = rig.request()
        rig.net.pass_time(30)
        self.assertEqual(client.status, 503)
        self.assertTrue(client.headers["retry-after"].isdigit())
        self.assertIn(b"files: no connection to origin.test", client.body)
        self.assertIn("connection_refused", client.headers["proxy-status"])

    def test_unknown_name(self) -> None:
        """A name that cannot be resolved is told so."""
        rig = self.rig()
        rig.net.names["origin.test"] = []
        client = rig.request()
        rig.net.pass_time(30)
        self.assertEqual(client.status, 503)
        self.assertIn("dns_error", client.headers["proxy-status"])

    def test_retry_after(self) -> None:
        """An upstream's Retry-After is obeyed; clients get a whole number, at most 60."""
        for value, told in (("7", "7"), ("100000", "60"), ("Mon, 23 Nov 2026 21:00:31 GMT", "31")):
            rig = self.rig()
            rig.origin.answer = lambda asked, value=value: asked.answer(503, f"Retry-After: {value}")
            for _ in range(2):
                client = rig.request()
                self.assertEqual((client.status, client.headers["retry-after"]), (503, told))
            self.assertEqual(len(rig.origin.requests), 1)

    def test_offline(self) -> None:
        """Offline, what is not stored is unavailable, and nobody is asked."""
        rig = self.rig(offline=True)
        for method in ("GET", "HEAD"):
            client = rig.request(method=method)
            self.assertEqual(client.status, 503)
            self.assertEqual(client.headers["cache-status"], "ArtifactVault; detail=destination_unavailable")
        self.assertEqual(rig.origin.wires, [])


class HeadTests(RigCase):
    """HEAD requests."""

    def test_absent(self) -> None:
        """HEAD of what is not stored asks the upstream for its head alone, and stores nothing."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, *STRONG, length=10**9)
        client = rig.request(method="HEAD")
        self.assertEqual((client.status, client.headers["content-length"]), (200, str(10**9)))
        self.assertEqual(client.headers["etag"], '"1"')
        self.assertEqual(client.body, b"")
        self.assertEqual([asked.method for asked in rig.origin.requests], ["HEAD"])
        self.assertEqual((rig.stored, rig.transfers), (0, {}))
        self.assertIn("fwd=method", client.headers["cache-status"])

    def test_present(self) -> None:
        """HEAD of what is stored is a hit with the length."""
        rig = self.rig()
        rig.fill()
        client = rig.request(method="HEAD")
        self.assertEqual((client.headers["x-cache"], client.headers["content-length"]), ("HIT", "10"))
        self.assertEqual(client.body, b"")
        self.assertEqual(len(rig.origin.requests), 1)

    def test_growing(self) -> None:
        """HEAD of what is being fetched is answered from there."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, *STRONG, length=10)
        rig.request()
        client = rig.request(method="HEAD")
        self.assertEqual((client.status, client.headers["content-length"]), (200, "10"))
        self.assertEqual(client.headers["x-cache"], "JOINED")
        self.assertEqual(len(rig.origin.requests), 1)

    def test_missing(self) -> None:
        """A missing thing is remembered as missing, by HEAD for HEAD alone: some servers only answer GET."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(404)
        for method in ("HEAD", "HEAD", "GET", "GET", "HEAD"):
            self.assertEqual(rig.request(method=method).status, 404)
        self.assertEqual([asked.method for asked in rig.origin.requests], ["HEAD", "GET"])

    def test_get_only(self) -> None:
        """Where the upstream refuses HEAD, what GET says is told."""
        for status in (400, 403, 405, 416, 501):
            rig = self.rig()
            rig.origin.answer = lambda asked, status=status: (
                asked.head(status, length=0) if asked.method == "HEAD" else asked.answer(200, *STRONG, body=BODY)
            )
            client = rig.request(method="HEAD")
            rig.net.pass_time(5)
            self.assertEqual((client.status, client.headers.get("content-length")), (200, "10"), status)

    def test_stale(self) -> None:
        """HEAD of an expired copy is answered like GET."""
        rig = self.rig(ttl=100.0)
        rig.fill()
        rig.net.pass_time(1000)
        rig.origin.answer = lambda asked: asked.answer(500)
        client = rig.request(method="HEAD")
        self.assertEqual((client.status, client.headers["x-cache"]), (200, "STALE"))


class MemoryTests(SynchronousTestCase):
    """What is remembered about keys."""

    def test_time(self) -> None:
        """Everything is forgotten in its time."""
        clock = Clock()
        memory = Memory(clock.seconds)
        error = Missing("x")
        memory.note("a", 10, error)
        clock.advance(4)
        left, kept = memory.get("a") or (0.0, None)
        self.assertEqual((left, type(kept), str(kept)), (6.0, Missing, "x"))
        self.assertIsNot(kept, error, "an error that was raised holds on to its request")
        clock.advance(6)
        self.assertIsNone(memory.get("a"))
        memory.note("a", 10)
        memory.note("a", 0)
        self.assertIsNone(memory.get("a"))
        memory.note("a", 10)
        memory.forget("a")
        self.assertIsNone(memory.get("a"))

    def test_bound(self) -> None:
        """No more than so many keys are remembered; the oldest goes first."""
        memory = Memory(Clock().seconds)
        for number in range(MEMORY + 1):
            memory.note(str(number), 10)
        self.assertIsNone(memory.get("0"))
        self.assertIsNotNone(memory.get("1"))

    def test_long_keys(self) -> None:
        """Long keys are told apart and forgotten as short ones are, and take no more room."""
        memory = Memory(Clock().seconds)
        long = "k" * 10_000
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(100):
            memory.note(f"{long}{number}", 10)
        self.assertLess(tracemalloc.get_traced_memory()[0], 100_000)
        memory.forget(f"{long}0")
        self.assertIsNone(memory.get(f"{long}0"))
        self.assertIsNotNone(memory.get(f"{long}1"))
        memory.note(f"{long}1", 0)
        self.assertIsNone(memory.get(f"{long}1"))
        memory.note(f"{long}\udc80", 10)
        self.assertIsNotNone(memory.get(f"{long}\udc80"))


class FarTests(RigCase):
    """A range of what is known by its digest, while its fill is still far from there."""

    SIZE = 10 * NEAR_BYTES
    START = 9 * NEAR_BYTES

    def far(self, *fields: str) -> tuple[Rig, Any]:
        """A vault with a fill that has just begun, and the ten bytes that are wanted of it."""
        rig = self.rig()
        looking = rig.run(rig.cache.lookup(rig.artifact(digest=Digest("sha256", "0" * 64))))
        rig.origin.last.head(200, *fields, length=self.SIZE)
        rig.net.pass_time()
        found = self.successResultOf(looking)
        return rig, rig.run(found.ahead(self.START, self.START + 10))

    def test_without_validator(self) -> None:
        """It is fetched directly though the upstream gives no validator, or a weak one: it is the same for ever."""
        for tag in ((), ('ETag: W/"1"',)):
            rig, ahead = self.far(*tag)
            asked = rig.origin.last
            self.assertEqual(asked.get("Range"), f"bytes={self.START}-{self.START + 9}")
            self.assertIsNone(asked.get("If-Range"))
            right = f"Content-Range: bytes {self.START}-{self.START + 9}/{self.SIZE}"
            asked.answer(206, right, body=BODY)
            rig.net.pass_time()
            body = self.successResultOf(ahead)
            self.assertEqual((body.floor, body.size, body.read(self.START, 10)), (self.START, self.START + 10, BODY))

    def test_not_the_same(self) -> None:
        """What is not shown to be these bytes, of a body of this length, is not taken."""
        right = f"Content-Range: bytes {self.START}-{self.START + 9}/{self.SIZE}"
        for status, *fields in (
            (200,),
            (206,),
            (206, right.replace(f"/{self.SIZE}", "/*")),
            (206, right.replace(f"/{self.SIZE}", "/12345678901")),
            (206, right.replace(f"-{self.START + 9}", f"-{self.START + 8}")),
            (206, right, 'ETag: W/"2"'),
        ):
            rig, ahead = self.far('ETag: W/"1"')
            rig.origin.last.answer(status, *fields, body=BODY)
            rig.net.pass_time()
            self.assertIsNone(self.successResultOf(ahead), (status, fields))
