"""What an artifact says of itself: its URLs' order, what confirms or supersedes it, how long what has gone stays."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionRefusedError

from tests.memory import Rig, RigCase
from vault.artifact import NOTED_URL, Artifact, Digest, Head, Headers, announced_digest
from vault.backends.http import HTTPBackend
from vault.errors import BrokenAnswer, DigestMismatch, ForbiddenTarget, Missing, Overloaded
from vault.interfaces import Ask
from vault.outcome import Found, How

JUNE = "Last-Modified: Mon, 01 Jun 2026 08:00:00 GMT"
SEPTEMBER = "Last-Modified: Tue, 01 Sep 2026 08:00:00 GMT"
TWO = ("http://origin.test/", "http://second.test/")


def same_digest(stored: Head, answer: Head) -> bool:
    """What a registry's tags are compared by."""
    return stored.get("X-Digest") == answer.get("X-Digest")


def not_older(stored: Head, answer: Head) -> bool:
    """What pages with serial numbers are compared by."""
    return int(answer.get("X-Serial") or 0) >= int(stored.get("X-Serial") or 0)


class RuleCase(RigCase):
    """Fetching an artifact with rules."""

    def fetch(self, rig: Rig, artifact: Artifact) -> Found:
        """The body, when everything due has happened."""
        fetching = rig.run(rig.kitchen.fetch(artifact))
        rig.net.pass_time(10)
        found: Found = self.successResultOf(fetching)
        return found

    def error(self, rig: Rig, artifact: Artifact) -> Any:
        """What fetching fails with."""
        fetching = rig.run(rig.kitchen.fetch(artifact))
        rig.net.pass_time(30)
        return self.failureResultOf(fetching).value


class OrderTests(RuleCase):
    """``in_order``."""

    def test_missing_goes_on(self) -> None:
        """The next URL is asked where the one before says that it has no such thing."""
        rig = self.rig(urls=TWO)
        second = rig.net.origin("second.test")
        rig.origin.answer = lambda asked: asked.answer(404)
        second.answer = lambda asked: asked.answer(200, body=b"second")
        self.assertEqual(self.fetch(rig, rig.artifact(in_order=True)).body.length, 6)

    def test_outage_stops(self) -> None:
        """The next URL is not asked where the one before failed: it may have another thing under that name."""
        rig = self.rig(urls=TWO)
        second = rig.net.origin("second.test")
        rig.origin.answer = lambda asked: asked.answer(500)
        second.answer = lambda asked: asked.answer(200, body=b"an impostor")
        self.assertIsInstance(self.error(rig, rig.artifact(in_order=True)), Overloaded)
        self.assertEqual(second.requests, [])


class ConfirmationTests(RuleCase):
    """``confirmed_by``."""

    def stored(self) -> tuple[Rig, Artifact]:
        """An expired entry with the digest 1."""
        rig = self.rig(stale_while_revalidate=0.0)
        rig.fill("a", b"hello", "X-Digest: 1", 'ETag: "x"')
        rig.net.pass_time(100)
        rig.origin.requests.clear()
        return rig, rig.artifact(max_age=60.0, confirmed_by=same_digest)

    def test_confirmed(self) -> None:
        """A HEAD that shows the same digest makes the stored copy fresh again, without a GET."""
        rig, artifact = self.stored()
        rig.origin.answer = lambda asked: asked.head(200, "X-Digest: 1", "X-Limit: 9", length=5)
        found = self.fetch(rig, artifact)
        self.assertEqual((found.how, [asked.method for asked in rig.origin.requests]), (How.REVALIDATED, ["HEAD"]))
        self.assertEqual(found.body.head.get("X-Limit"), "9")
        self.assertEqual(self.fetch(rig, artifact).how, How.HIT)

    def test_changed(self) -> None:
        """Another digest is followed by a GET of the new body."""
        rig, artifact = self.stored()
        rig.origin.answer = lambda asked: (
            asked.head(200, "X-Digest: 2", length=3)
            if asked.method == "HEAD"
            else asked.answer(200, "X-Digest: 2", body=b"new")
        )
        self.assertEqual(self.fetch(rig, artifact).body.length, 3)
        self.assertEqual([asked.method for asked in rig.origin.requests], ["HEAD", "GET"])

    def test_head_unknown(self) -> None:
        """Where the upstream does not know HEAD, the copy is revalidated as any other."""
        rig, artifact = self.stored()
        rig.origin.answer = lambda asked: asked.answer(405 if asked.method == "HEAD" else 304)
        self.assertEqual(self.fetch(rig, artifact).how, How.REVALIDATED)

    def test_failure(self) -> None:
        """Where the HEAD fails the stored copy is served as stale."""
        rig, artifact = self.stored()
        rig.origin.answer = lambda asked: asked.answer(429, "Retry-After: 7")
        self.assertEqual(self.fetch(rig, artifact).how, How.STALE)


class PromiseTests(RuleCase):
    """``promised`` and ``limit``, and one key that is asked for in several places."""

    def promised(self, rig: Rig, **changes: Any) -> Artifact:
        """An artifact whose digest the answer names."""
        return rig.artifact(promised=lambda head: Digest.parse(head.get("X-Digest") or ""), **changes)

    def test_kept(self) -> None:
        """A body that has the digest its answer names is kept."""
        rig = self.rig()
        named = f"X-Digest: sha256:{hashlib.sha256(b'hello').hexdigest()}"
        rig.origin.answer = lambda asked: asked.answer(200, named, body=b"hello")
        self.assertTrue(self.fetch(rig, self.promised(rig)).body.complete)
        self.assertEqual(rig.stored, 1)

    def test_broken(self) -> None:
        """A body that has not the digest its answer names is not kept, and its last byte is not to be had."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(200, f"X-Digest: sha256:{64 * '0'}", body=b"hello")
        body = self.fetch(rig, self.promised(rig)).body
        self.assertIsInstance(self.failureResultOf(body.grown(5)).value, DigestMismatch)
        self.assertEqual(rig.stored, 0)

    def test_limit(self) -> None:
        """An answer that announces more than the limit is refused before its body."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, length=11)
        self.assertIsInstance(self.error(rig, rig.artifact(limit=10)), BrokenAnswer)
        self.assertEqual(rig.stored, 0)

    def test_kept_anyway(self) -> None:
        """Where a protocol's own rules say what may be kept, the answer's Cache-Control does not."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(200, "Cache-Control: private, no-store", body=b"hello")
        for path, kept in (("a", False), ("b", True)):
            body = self.fetch(rig, rig.artifact(path, kept_anyway=kept)).body
            self.successResultOf(rig.run(rig.kitchen.read(body, 10)))
            self.assertEqual(rig.stored, int(kept))

    def test_elsewhere(self) -> None:
        """What one place does not have is asked for in another under the same key, also while the first is asked."""
        rig = self.rig()
        digest = Digest("sha256", hashlib.sha256(b"hello").hexdigest())
        first = rig.artifact("a", digest=digest)
        second = replace(first, urls=("http://origin.test/b",))
        fetching = rig.run(rig.kitchen.fetch(first))
        joining = rig.run(rig.kitchen.fetch(second))
        rig.origin.last.answer(404)
        rig.net.pass_time()
        self.assertIsInstance(self.failureResultOf(fetching).value, Missing)
        self.assertEqual(rig.origin.last.target, "/b")
        rig.origin.last.answer(200, body=b"hello")
        rig.net.pass_time()
        self.assertEqual(self.successResultOf(joining).body.length, 5)


class SupersedingTests(RuleCase):
    """``supersedes``."""

    def test_serial(self) -> None:
        """An answer that is older than the stored copy is not taken over; a newer one is."""
        rig = self.rig(stale_while_revalidate=0.0)
        rig.fill("a", b"hello", "X-Serial: 5")
        artifact = rig.artifact(max_age=60.0, supersedes=not_older)
        for serial, length in ((4, 5), (6, 3)):
            rig.net.pass_time(100)
            rig.origin.answer = lambda asked, serial=serial: asked.answer(200, f"X-Serial: {serial}", body=b"new")
            self.assertEqual(self.fetch(rig, artifact).body.length, length)
        rig.origin.requests.clear()
        self.assertEqual(self.fetch(rig, artifact).how, How.HIT)

    def test_mistake(self) -> None:
        """A mistake of the vault's own while it looks at an answer costs the request, but no connection upstream."""

        def wrong(stored: Head, answer: Head) -> bool:
            raise ValueError("a mistake")

        rig = self.rig(stale_while_revalidate=0.0, max_connections=1)
        rig.fill("a", b"hello")
        artifact = rig.artifact(max_age=60.0, supersedes=wrong)
        rig.origin.answer = lambda asked: asked.head(200, length=1_000_000)
        for number in range(1, 4):
            rig.net.pass_time(100)
            self.assertEqual(self.fetch(rig, artifact).how, How.STALE)
            self.assertEqual(len(rig.origin.requests), 1 + number)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)


class GoneTests(RuleCase):
    """``gone_ttl``."""

    def test_gone(self) -> None:
        """What has gone is served as stale for a while, counted from the first 404, and then it is missing."""
        rig = self.rig(stale_while_revalidate=0.0)
        rig.fill("a", b"hello")
        artifact = rig.artifact(max_age=60.0, gone_ttl=1000.0)
        rig.origin.answer = lambda asked: asked.answer(404)
        for _ in range(5):
            rig.net.pass_time(190)
            self.assertEqual(self.fetch(rig, artifact).how, How.STALE)
            rig.again()  # it is known after a restart, too
        rig.net.pass_time(190)
        self.assertIsInstance(self.error(rig, artifact), Missing)
        self.assertEqual(rig.stored, 0)

    def test_back(self) -> None:
        """What comes back in time is as it was, and its time begins anew if it goes again."""
        rig = self.rig(stale_while_revalidate=0.0)
        rig.fill("a", b"hello", 'ETag: "1"')
        artifact = rig.artifact(max_age=60.0, gone_ttl=1000.0)
        for status in (404, 304, 404, 404):
            rig.net.pass_time(700)
            rig.origin.answer = lambda asked, status=status: asked.answer(status)
            self.assertEqual(self.fetch(rig, artifact).how, How.REVALIDATED if status == 304 else How.STALE)


class NotedTests(RuleCase):
    """``note_url``."""

    def test_redirected(self) -> None:
        """The stored head keeps the URL after redirects, and no client is told it."""
        rig = self.rig()
        rig.origin.answer = lambda asked: (
            asked.answer(302, "Location: /elsewhere/b") if asked.target == "/a" else asked.answer(200, body=b"x")
        )
        found = self.fetch(rig, rig.artifact(note_url=True))
        self.assertEqual(found.body.head.get(NOTED_URL), "http://origin.test/elsewhere/b")
        self.assertNotIn("elsewhere", rig.request().raw.decode())


class Asking(HTTPBackend):
    """Asks the token server that a challenge names, with a password."""

    known: Headers = ()

    def credentials(self, artifact: Artifact, url: str) -> Headers:
        """The token, once there is one."""
        return self.known

    def authorize(self, artifact: Artifact, challenge: str, ask: Ask) -> Deferred[Headers]:
        """Ask for a token."""
        return ensureDeferred(self._ask(challenge.partition("=")[2], ask))

    async def _ask(self, realm: str, ask: Ask) -> Headers:
        answering: Awaitable[tuple[Head, bytes]] = ask(realm, (("Authorization", "Basic cGFzc3dvcmQ="),))
        head, body = await answering
        assert head.status == 200
        token = (("Authorization", f"Bearer {body.decode()}"),)
        object.__setattr__(self, "known", token)
        return token


class TokenServerTests(RuleCase):
    """A token server that a challenge names."""

    def asking(self, realm: str) -> Rig:
        """A vault whose origin wants a token from ``realm``."""
        rig = self.rig(backend=Asking("files", "/files/", ("http://origin.test/",)), headers=(("X-Key", "secret"),))
        rig.origin.answer = lambda asked: (
            asked.answer(200, body=b"x")
            if asked.get("authorization") == "Bearer t"
            else asked.answer(401, f"WWW-Authenticate: Bearer realm={realm}")
        )
        return rig

    def test_token(self) -> None:
        """It is asked with the credentials meant for it, not with those of the upstream; the token is used at once."""
        rig = self.asking("http://tokens.test/token")
        tokens = rig.net.origin("tokens.test")
        tokens.answer = lambda asked: asked.answer(200, body=b"t")
        self.assertEqual(self.fetch(rig, rig.artifact()).body.length, 1)
        self.assertEqual(tokens.last.get("authorization"), "Basic cGFzc3dvcmQ=")
        self.assertIsNone(tokens.last.get("x-key"))
        self.assertEqual(self.fetch(rig, rig.artifact("b")).body.length, 1)
        self.assertEqual((len(tokens.requests), len(rig.origin.requests)), (1, 3))

    def test_redirected(self) -> None:
        """Credentials do not follow a redirect of the token server to another host."""
        rig = self.asking("http://tokens.test/token")
        rig.net.origin("tokens.test").answer = lambda asked: asked.answer(302, "Location: http://other.test/")
        other = rig.net.origin("other.test")
        other.answer = lambda asked: asked.answer(200, body=b"t")
        self.fetch(rig, rig.artifact())
        self.assertIsNone(other.last.get("authorization"))

    def test_forbidden(self) -> None:
        """A token server on the vault's own machine is not asked where the upstream is elsewhere."""
        for realm in ("http://127.0.0.1/token", "http://localhost/token", "ftp://tokens.test/"):
            rig = self.asking(realm)
            self.assertIsInstance(self.error(rig, rig.artifact()), ForbiddenTarget, realm)


class AnnouncedTests(RuleCase):
    """``Repr-Digest``: what the upstream itself says of a body."""

    BODY = b"0123456789"

    def field(self, name: str, body: bytes) -> str:
        """A member of the field."""
        digest = hashlib.new(name.replace("-", ""), body).digest()
        return f"{name}=:{base64.b64encode(digest).decode()}:"

    def test_right(self) -> None:
        """A body that is what it is said to be is stored."""
        for name in ("sha-256", "sha-512"):
            rig = self.rig()
            field = f"Repr-Digest: {self.field(name, self.BODY)}"
            rig.origin.answer = lambda asked, field=field: asked.answer(200, field, body=self.BODY)
            self.assertEqual(rig.request().body, self.BODY)
            rig.net.pass_time(1)
            self.assertEqual((rig.stored, rig.request().headers["x-cache"]), (1, "HIT"))

    def test_wrong(self) -> None:
        """A body that is not is cut off before its last byte, and not stored."""
        for name in ("sha-256", "sha-512"):
            rig = self.rig()
            field = f"Repr-Digest: {self.field(name, b'other')}"
            rig.origin.answer = lambda asked, field=field: asked.answer(200, field, body=self.BODY)
            client = rig.request()
            rig.net.pass_time(10)
            self.assertTrue(client.aborted)
            self.assertLess(len(client.body), len(self.BODY))
            self.assertEqual(rig.stored, 0)

    def test_resumed(self) -> None:
        """It holds for the whole of a body that came in two pieces."""
        for digested, stored in ((self.BODY, 1), (b"other", 0)):
            rig = self.rig()
            fields = ('ETag: "1"', f"Repr-Digest: {self.field('sha-256', digested)}")
            rig.origin.answer = lambda asked, fields=fields: asked.head(200, *fields, length=10)
            rig.request()
            rig.origin.answer = lambda asked: (
                asked.head(206, 'ETag: "1"', "Content-Range: bytes 5-9/10", length=5), asked.send(self.BODY[5:])
            )  # fmt: skip
            rig.origin.last.send(self.BODY[:5])
            rig.origin.last.close()
            rig.net.pass_time(10)
            self.assertEqual(len(rig.origin.requests), 2)
            self.assertEqual(rig.stored, stored)

    def test_read(self) -> None:
        """What can be read of the field counts; what cannot, or says nothing of this body, is ignored."""
        right, strong = self.field("sha-256", b"x"), self.field("sha-512", b"x")
        sha256 = Digest("sha256", hashlib.sha256(b"x").hexdigest())
        sha512 = Digest("sha512", hashlib.sha512(b"x").hexdigest())
        for value, expected in (
            (right, sha256),
            (f"  {strong} ,\t{right}", sha256),
            (f"md5=:AAAA:, {strong}", sha512),
            (right.replace("=:", ":", 1), None),
            (right[:-2] + ":", sha256),
            (f'{right};a=1; b;c="d,e"', sha256),
            (f"sha-256=:AAAA:, {strong}", sha512),
            (f"sha-256=:AAAA:, {right}", sha256),
            (f"{right}, sha-256=:AAAA:", None),
            (f"{right},", None),
            (f"{right} {strong}", None),
            (f"{right}, sha-512=x", None),
            ("sha-256=:----:", None),
            ("sha-256=:A:", None),
            ("sha-256=" + "0" * 64, None),
            ("unixsum=:AAAA:", None),
            ("sha-256", None),
            ("\xff", None),
            ("", None),
        ):
            head = Head(200, (("Repr-Digest", value),))
            self.assertEqual(announced_digest(head), expected, value)
        lines = Head(200, (("Repr-Digest", "md5=:AAAA:"), ("repr-digest", right)))
        self.assertEqual(announced_digest(lines), sha256)
        self.assertIsNone(announced_digest(Head(203, (("Repr-Digest", right),))))

    def test_known_before(self) -> None:
        """What is known of the artifact goes before what its answer says."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(
            200, f"Repr-Digest: {self.field('sha-256', b'other')}", body=self.BODY
        )
        known = rig.artifact(digest=Digest("sha256", hashlib.sha256(self.BODY).hexdigest()))
        self.assertTrue(self.fetch(rig, known).body.complete)


class SeparateTests(RuleCase):
    """``in_order``: what one URL has is never taken for what another has."""

    def two(self, **changes: Any) -> tuple[Rig, Any, Artifact]:
        """Two places, of which only the second has the page, dated; it has expired."""
        rig = self.rig(urls=TWO, stale_while_revalidate=0.0)
        second = rig.net.origin("second.test")
        rig.origin.answer = lambda asked: asked.answer(404)
        second.answer = lambda asked: asked.answer(200, SEPTEMBER, body=b"second")
        artifact = rig.artifact(in_order=True, max_age=60.0, **changes)
        self.assertEqual(self.fetch(rig, artifact).body.length, 6)
        rig.net.pass_time(100)
        return rig, second, artifact

    def test_conditions(self) -> None:
        """The first place is not asked whether it has what the second had: its 304 would confirm the wrong page."""
        rig, _, artifact = self.two()
        rig.origin.answer = lambda asked: (
            asked.answer(304) if asked.get("if-modified-since") else asked.answer(200, JUNE, body=b"first")
        )
        self.assertEqual(self.fetch(rig, artifact).body.length, 5)

    def test_own_condition(self) -> None:
        """The place that it came from is asked by its own validators."""
        rig, second, artifact = self.two()
        second.answer = lambda asked: asked.answer(304 if asked.get("if-modified-since") else 500)
        self.assertEqual(self.fetch(rig, artifact).how, How.REVALIDATED)

    def test_removed(self) -> None:
        """What came from a place that is no longer configured is fetched anew, however fresh it is."""
        rig, _, artifact = self.two(gone_ttl=1000.0)
        self.fetch(rig, artifact)
        rig.origin.answer = lambda asked: asked.answer(200, JUNE, body=b"first")
        alone = replace(artifact, urls=artifact.urls[:1])
        self.assertEqual(self.fetch(rig, alone).body.length, 5)
        rig.origin.requests.clear()
        self.assertEqual((self.fetch(rig, alone).how, rig.origin.requests), (How.HIT, []))

    def test_rest(self) -> None:
        """The rest of a page that broke off is not taken from another place, equal dates or not."""
        rig = self.rig(urls=TWO)
        second = rig.net.origin("second.test")
        second.answer = lambda asked: asked.answer(206, "Content-Range: bytes 3-9/10", SEPTEMBER, body=b"xxxxxxx")
        fetching = rig.run(rig.kitchen.fetch(rig.artifact(in_order=True, max_age=60.0)))
        rig.origin.last.head(200, SEPTEMBER, length=10)
        rig.origin.last.send(b"aaa")
        rig.net.pass_time(0.05)
        first = rig.origin.last
        rig.origin.answer = lambda asked: asked.answer(500)
        first.close()
        rig.net.pass_time(60)
        self.assertIsNotNone(self.successResultOf(fetching).body.failure)
        self.assertEqual((second.requests, rig.stored), ([], 0))

    def test_partial(self) -> None:
        """Nor is what a stopped vault left gone on with from another place."""
        rig = self.rig(urls=TWO)
        second = rig.net.origin("second.test")
        artifact = rig.artifact(in_order=True, max_age=60.0)
        rig.run(rig.kitchen.fetch(artifact))
        rig.origin.last.head(200, SEPTEMBER, length=10)
        rig.origin.last.send(b"aaa")
        rig.net.pass_time(1)
        rig.stop()
        rig.again()
        rig.origin.answer = lambda asked: asked.answer(404)
        second.answer = lambda asked: (
            asked.answer(206, "Content-Range: bytes 3-9/10", SEPTEMBER, body=b"xxxxxxx")
            if asked.get("range")
            else asked.answer(200, SEPTEMBER, body=b"xxxxxxxxxx")
        )
        body = self.fetch(rig, artifact).body
        self.assertEqual(self.successResultOf(rig.run(rig.kitchen.read(body, 99))), b"xxxxxxxxxx")

    def test_patient(self) -> None:
        """A place that cannot be reached for a moment is tried again, as for any other artifact."""
        rig = self.rig(urls=TWO)
        second = rig.net.origin("second.test")
        rig.origin.refuse = ConnectionRefusedError()
        fetching = rig.run(rig.kitchen.fetch(rig.artifact(in_order=True)))
        rig.net.pass_time(0.2)
        rig.origin.refuse = None
        rig.origin.answer = lambda asked: asked.answer(200, body=b"x")
        rig.net.pass_time(5)
        self.assertEqual((self.successResultOf(fetching).body.length, second.requests), (1, []))


class LimitTests(RuleCase):
    """``limit``."""

    def test_no_length(self) -> None:
        """A body without a length ends where it becomes larger than it may be, and is not kept."""
        rig = self.rig()
        fetching = rig.run(rig.kitchen.fetch(rig.artifact(limit=10)))
        rig.origin.last.head(200, 'ETag: "1"', "Transfer-Encoding: chunked")
        for _ in range(3):
            rig.origin.last.chunk(b"12345")
            rig.net.pass_time(0.1)
        rig.net.pass_time(60)
        self.assertIsNotNone(self.successResultOf(fetching).body.failure)
        self.assertEqual((len(rig.origin.requests), rig.stored, rig.store.index.partials()), (1, 0, []))
