"""Entries taken up from their files alone: the upstream is asked once what they are before they count as unchanging."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from twisted.internet.error import ConnectionRefusedError

from tests.memory import DATE, MODIFIED, Asked, Client, Rig, RigCase
from vault.artifact import Digest

BODY = b"0123456789"
JSON = ("Content-Type: application/json", f"Last-Modified: {MODIFIED}", 'ETag: "1"', f"Date: {DATE}")
NO_CACHE = "Cache-Control: no-cache"


def digest_field(name: str, body: bytes) -> str:
    """``Repr-Digest`` of a body."""
    value = base64.b64encode(hashlib.new(name.replace("-", ""), body).digest()).decode("ascii")
    return f"Repr-Digest: {name}=:{value}:"


class TakenUpCase(RigCase):
    """An entry whose row was lost, and whose file is found again."""

    def taken_up(self, *fields: str, **options: Any) -> Rig:
        """A vault whose entry ``a`` is known by its file alone."""
        rig = self.rig(**options)
        rig.fill("a", BODY, *(fields or JSON))
        row = rig.store.index.find("files/a")
        assert row is not None
        rig.store.index.remove(row)
        rig.store.held.drop(row.key)
        rig.store.reading.pop(row.key, None)
        rig.store.rebuilding = True
        rig.net.pass_time(100_000)
        rig.origin.requests.clear()
        return rig

    def assertServed(self, client: Client, how: str, body: bytes = BODY) -> None:
        """The client got a whole body, and is told how."""
        self.assertEqual((client.status, client.body, client.whole), (200, body, True))
        self.assertEqual(client.headers["x-cache"], how)

    def methods(self, rig: Rig) -> list[str]:
        """How the upstream was asked."""
        return [asked.method for asked in rig.origin.requests]


def answers(body: bytes, *fields: str) -> Any:
    """An origin that has ``body``, and knows HEAD."""

    def answer(asked: Asked) -> None:
        if asked.method == "HEAD":
            asked.head(200, *fields, length=len(body))
        else:
            asked.answer(200, *fields, body=body)

    return answer


class ConfirmedTests(TakenUpCase):
    """What the upstream still has."""

    def test_by_date_and_length(self) -> None:
        """A HEAD that with the same date and length confirms the file, and gives its fields back; once is enough."""
        rig = self.taken_up()
        rig.origin.answer = answers(BODY, *JSON)
        client = rig.request()
        self.assertServed(client, "REVALIDATED")
        self.assertEqual(client.headers["content-type"], "application/json")
        self.assertEqual(client.headers["etag"], '"1"')
        self.assertLess(int(client.headers["age"]), 200_000)
        self.assertEqual(self.methods(rig), ["HEAD"])
        rig.net.pass_time(10**8)
        client = rig.request()
        self.assertServed(client, "HIT")
        self.assertEqual(client.headers["content-type"], "application/json")
        self.assertEqual(len(rig.origin.requests), 1)

    def test_that_changes(self) -> None:
        """What shows that it changes goes on to be asked for every minute."""
        rig = self.taken_up()
        rig.origin.answer = answers(BODY, *JSON, NO_CACHE)
        self.assertServed(rig.request(), "REVALIDATED")
        self.assertServed(rig.request(), "HIT")
        rig.net.pass_time(1000)
        rig.origin.answer = lambda asked: asked.answer(304, *JSON, NO_CACHE)
        self.assertServed(rig.request(), "REVALIDATED")
        self.assertEqual(rig.origin.last.get("If-None-Match"), '"1"')

    def test_by_digest(self) -> None:
        """A digest that the upstream names confirms the file, of whatever date it is."""
        for algorithm in ("sha-256", "sha-512"):
            rig = self.taken_up('ETag: "1"')
            rig.origin.answer = answers(BODY, 'ETag: "2"', digest_field(algorithm, BODY))
            self.assertServed(rig.request(), "REVALIDATED")
            self.assertServed(rig.request(), "HIT")
            self.assertEqual(self.methods(rig), ["HEAD"])

    def test_other_digest(self) -> None:
        """A digest that the upstream names outweighs an equal date and length."""
        rig = self.taken_up()
        new = b"9876543210"
        rig.origin.answer = answers(new, *JSON, digest_field("sha-256", new))
        self.assertServed(rig.request(), "MISS", new)
        self.assertServed(rig.request(), "HIT", new)

    def test_known_digest(self) -> None:
        """What has its digest before is verified by that, and nobody is asked."""
        rig = self.taken_up()
        artifact = rig.artifact(digest=Digest("sha256", hashlib.sha256(BODY).hexdigest()))
        found = self.successResultOf(rig.run(rig.cache.lookup(artifact)))
        self.assertEqual(found.how.value, "HIT")
        self.assertEqual(rig.origin.requests, [])

    def test_with_ttl(self) -> None:
        """Where everything expires the fields come back too."""
        rig = self.taken_up(ttl=100.0)
        rig.origin.answer = answers(BODY, *JSON)
        client = rig.request()
        self.assertServed(client, "REVALIDATED")
        self.assertEqual(client.headers["content-type"], "application/json")

    def test_head(self) -> None:
        """A client's HEAD has the copy confirmed as its GET does."""
        rig = self.taken_up()
        rig.origin.answer = answers(BODY, *JSON)
        client = rig.request(method="HEAD")
        self.assertEqual((client.status, client.headers["x-cache"]), (200, "REVALIDATED"))
        self.assertServed(rig.request(), "HIT")


class FetchedAnewTests(TakenUpCase):
    """What nothing shows to be the same is fetched once more, without conditions: the file's date proves nothing."""

    def anew(self, fields: tuple[str, ...], *then: str, body: bytes = BODY) -> None:
        """Stored with some fields, found with others: it is fetched, and kept."""
        rig = self.taken_up(*fields)
        rig.origin.answer = answers(body, *then)
        self.assertServed(rig.request(), "MISS", body)
        self.assertEqual(self.methods(rig), ["HEAD", "GET"])
        self.assertEqual(rig.origin.last.get("If-Modified-Since"), None)
        self.assertEqual(rig.origin.last.get("If-None-Match"), None)
        rig.net.pass_time(10**8)
        self.assertServed(rig.request(), "HIT", body)
        self.assertEqual(len(rig.origin.requests), 2)

    def test_other_date(self) -> None:
        """It has another date."""
        self.anew(JSON, "Last-Modified: Mon, 02 Nov 2026 08:00:00 GMT", body=b"9876543210")

    def test_other_length(self) -> None:
        """It has another length."""
        self.anew(JSON, *JSON, body=b"longer than before")

    def test_no_date(self) -> None:
        """It has neither date nor digest, so nothing shows that it is the same."""
        self.anew(('ETag: "1"',), 'ETag: "1"')
        self.anew(("X-Nothing: 1",), "X-Nothing: 1")

    def test_no_head(self) -> None:
        """Its server does not know HEAD, whatever it says of that."""
        for status in (404, 403, 405, 501):
            rig = self.taken_up()

            def answer(asked: Asked, status: int = status) -> None:
                if asked.method == "HEAD":
                    asked.head(status, length=0)
                else:
                    asked.answer(200, *JSON, body=b"new")

            rig.origin.answer = answer
            self.assertServed(rig.request(), "MISS", b"new")

    def test_coding(self) -> None:
        """It has a coding now, which its name does not tell: the file was stored without."""
        coded = (*JSON, "Content-Encoding: gzip")
        rig = self.taken_up()
        rig.origin.answer = answers(b"9876543210", *coded)
        self.assertServed(rig.request(), "MISS", b"9876543210")

    def test_page(self) -> None:
        """A page whose name does not tell it stays something that changes."""
        rig = self.taken_up()
        page = ("Content-Type: text/html", f"Date: {DATE}")
        rig.origin.answer = answers(b"first", *page)
        self.assertServed(rig.request(), "MISS", b"first")
        rig.net.pass_time(1000)
        rig.origin.answer = answers(b"second", *page)
        self.assertServed(rig.request(), "MISS", b"second")

    def test_no_store(self) -> None:
        """It must not be kept any more: it is passed through."""
        rig = self.taken_up()
        rig.origin.answer = answers(b"mine", *JSON, "Cache-Control: no-store")
        self.assertServed(rig.request(), "BYPASS", b"mine")


class UnconfirmedTests(TakenUpCase):
    """Until the upstream has said what it is, it is an expired copy."""

    def test_upstream_fails(self) -> None:
        """It is served as stale while the upstream fails, with a sane age, and asked for again later."""
        rig = self.taken_up()
        rig.origin.refuse = ConnectionRefusedError()
        client = rig.request()
        rig.net.pass_time(0.5)
        self.assertServed(client, "STALE")
        rig.net.pass_time(100)
        client = rig.request("a", NO_CACHE)
        rig.net.pass_time(0.5)
        self.assertServed(client, "STALE")
        self.assertIn(int(client.headers["age"]), range(100, 103))
        rig.origin.refuse = None
        rig.net.pass_time(100)
        rig.origin.answer = answers(b"new", 'ETag: "2"')
        self.assertServed(rig.request(), "MISS", b"new")

    def test_broken_upstream(self) -> None:
        """So it is where the upstream answers with an error."""
        for status in (404, 500, 403):
            rig = self.taken_up()
            rig.origin.answer = lambda asked, status=status: asked.answer(status)
            self.assertServed(rig.request(), "STALE")

    def test_offline(self) -> None:
        """So it is offline."""
        rig = self.taken_up(offline=False)
        rig.options = rig.cache._options = rig.cache._options.__class__(offline=True)
        self.assertServed(rig.request(), "STALE")
        self.assertEqual(rig.origin.requests, [])
