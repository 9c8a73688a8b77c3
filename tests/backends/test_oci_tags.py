"""Tags that move to something that cannot be had, or whose registry answers with something that is no manifest."""

from __future__ import annotations

import json

from tests.backends.test_oci_recipes import SeveralCase, digest_of
from tests.memory import Asked as Request
from vault.artifact import Head
from vault.backends._oci_memory import Memories
from vault.errors import Unavailable, Unfit, UpstreamError
from vault.formats.oci_manifest import OCI_MANIFEST
from vault.outcome import Found, How


class TagCase(SeveralCase):
    """One registry, ``one``, with tags of a repository that move; ``two`` is behind the same prefix where wanted."""

    def setUp(self) -> None:
        super().setUp()
        self.both, self.registries = self.registries, self.registries[:1]

    def pull(self, text: str, tag: str = "latest") -> str:
        """Let a tag name an image of one layer, and have all of it; gives its digest."""
        digest = self.put(self.one, text, tag)
        self.vault.net.pass_time(100)
        self.assertEqual(self.tag(tag), digest)
        self.find(f"blobs/{digest_of(text.encode())}")
        return digest

    def move(self, text: str, tag: str = "latest") -> str:
        """Let a tag name an image of which only the manifest is had; gives its digest."""
        digest = self.put(self.one, text, tag)
        self.vault.net.pass_time(100)
        self.assertEqual(self.tag(tag), digest)
        return digest

    def break_down(self, status: int = 503) -> None:
        """Let the registry fail, and what it said before be over."""
        self.one.status = status
        self.vault.net.pass_time(100)

    def assertGiven(self, found: Found, digest: str, how: How, detail: str | None) -> None:
        """This manifest was found, in this way."""
        named = None if found.head is None else found.head.get("Docker-Content-Digest")
        self.assertEqual((named, found.how, found.detail), (digest, how, detail))


class BeforeTests(TagCase):
    """The last image of a tag that was whole is pulled on while the new one is not."""

    def test_registry_fails(self) -> None:
        """An image that was pulled whole is given for its tag when the tag has moved and the new one cannot be had."""
        first = self.pull("first")
        second = self.move("second")
        self.break_down()
        for _ in range(2):
            self.assertGiven(self.find("manifests/latest"), first, How.STALE, "previous-image")
        self.memories = Memories()  # nothing depends on what a vault remembers that runs on
        self.vault.again()
        self.assertGiven(self.find("manifests/latest"), first, How.STALE, "previous-image")
        self.one.status = 200
        self.vault.net.pass_time(20)
        self.assertEqual(self.tag("latest"), second)

    def test_moves_on(self) -> None:
        """However often the tag moves on, it is the last one that was whole, and none where none is."""
        self.move("nothing")
        self.break_down()
        self.assertIsInstance(self.error("manifests/latest"), Unavailable)
        self.one.status = 200
        first = self.pull("first")
        for number in range(20):
            self.move(f"other {number}")
        self.break_down()
        self.assertGiven(self.find("manifests/latest"), first, How.STALE, "previous-image")
        self.one.status = 200
        second = self.pull("second")
        self.move("third")
        self.break_down()
        self.assertGiven(self.find("manifests/latest"), second, How.STALE, "previous-image")

    def test_completed_later(self) -> None:
        """One whose last layer came only after the tag had moved is whole too."""
        self.pull("first")
        second = self.move("second")
        self.move("third")
        self.find(f"blobs/{digest_of(b'second')}")
        self.break_down()
        self.assertGiven(self.find("manifests/latest"), second, How.STALE, "previous-image")

    def test_whole(self) -> None:
        """A new image that is whole is given itself."""
        self.pull("first")
        second = self.pull("second")
        self.break_down()
        self.assertGiven(self.find("manifests/latest"), second, How.STALE, "destination_unavailable")

    def test_known_by_head(self) -> None:
        """It is remembered also where the new manifest was kept already, so that a HEAD was enough."""
        self.move("second", "other")
        first = self.pull("first")
        self.one.methods()
        self.move("second")
        self.assertEqual(self.one.methods(), ["HEAD"])
        self.break_down()
        self.assertGiven(self.find("manifests/latest"), first, How.STALE, "previous-image")

    def test_child_refused(self) -> None:
        """A new index whose manifests the registry refuses gives way for a while, though the registry answers."""
        first = self.pull("first")
        child = self.put(self.one, "second")
        index = json.dumps({"mediaType": OCI_MANIFEST, "manifests": [{"digest": child}]}).encode()
        self.one.has["latest"] = index
        self.vault.net.pass_time(100)
        self.assertEqual(self.tag("latest"), digest_of(index))
        answer = self.vault.origin.answer
        self.vault.origin.answer = lambda asked: (
            asked.answer(429) if asked.method == "GET" and "/manifests/" in asked.target else answer(asked)
        )
        self.assertIsInstance(self.error(f"manifests/{child}"), Unavailable)
        self.assertGiven(self.find("manifests/latest"), first, How.STALE, "previous-image")
        self.vault.origin.answer = answer
        self.find(f"manifests/{child}")
        self.assertEqual(self.tag("latest"), digest_of(index))

    def test_child_refused_alone(self) -> None:
        """Where no other image is kept whole, the index is given all the same."""
        index = json.dumps({"mediaType": OCI_MANIFEST, "manifests": [{"digest": digest_of(b"x")}]}).encode()
        self.one.has["latest"] = index
        self.assertEqual(self.tag("latest"), digest_of(index))
        answer = self.vault.origin.answer
        self.vault.origin.answer = lambda asked: asked.answer(429) if digest_of(b"x") in asked.target else answer(asked)
        self.assertIsInstance(self.error(f"manifests/{digest_of(b'x')}"), Unavailable)
        self.assertEqual(self.tag("latest"), digest_of(index))

    def test_of_another_registry(self) -> None:
        """So it is with a tag that is kept from another registry, while the first cannot be asked."""
        self.registries = self.both
        mine = self.put(self.two, "mine", "latest")
        self.tag("latest")
        self.find(f"blobs/{digest_of(b'mine')}")
        self.vault.net.pass_time(100)
        self.put(self.two, "yours", "latest")
        self.tag("latest")
        self.two.status = 503
        self.break_down()
        self.assertGiven(self.find("manifests/latest"), mine, How.STALE, "previous-image")


class StallTests(TagCase):
    """A tag's new manifest begins to come, and then does not go on."""

    def stall(self) -> tuple[str, list[Request]]:
        """Let the tag name a new image whose manifest stops within; gives its digest, and who waits for the rest."""
        digest = self.put(self.one, "second", "latest")
        body, waiting = self.one.has[digest], []

        def answer(asked: Request) -> None:
            if asked.method == "HEAD":
                self.one.answer(asked)
                return
            asked.head(200, f"Content-Type: {OCI_MANIFEST}", f"Docker-Content-Digest: {digest}", length=len(body))
            asked.send(body[:50])
            waiting.append(asked)

        self.one.origin.answer = answer
        self.vault.net.pass_time(100)
        self.one.methods()
        return digest, waiting

    def test_kept(self) -> None:
        """A copy that is kept is served after 5 s, and then at once for some seconds."""
        first = self.pull("first")
        self.stall()
        finding = self.finding("manifests/latest", seconds=4.9)
        self.assertNoResult(finding)
        self.vault.net.pass_time(0.2)
        self.assertGiven(self.successResultOf(finding), first, How.STALE, "timeout")
        for _ in range(3):
            finding = self.finding("manifests/latest", seconds=3)
            self.assertGiven(self.successResultOf(finding), first, How.STALE, "waiting")
        self.assertEqual(self.one.methods(), ["HEAD", "GET"])

    def test_slow_head(self) -> None:
        """The 5 s are for all of the answer."""
        self.pull("first")
        self.stall()
        answer = self.one.origin.answer
        self.one.origin.answer = lambda asked: self.vault.net.callLater(2, answer, asked)
        finding = self.finding("manifests/latest", seconds=4.9)
        self.assertNoResult(finding)
        self.vault.net.pass_time(0.2)
        self.assertEqual(self.successResultOf(finding).detail, "timeout")

    def test_comes(self) -> None:
        """What comes whole after all is given at once."""
        self.pull("first")
        digest, waiting = self.stall()
        self.find("manifests/latest")
        waiting[0].send(self.one.has[digest][50:])
        self.vault.net.pass_time(1)
        self.assertEqual(self.tag("latest"), digest)

    def test_cold(self) -> None:
        """Where nothing is kept it is waited for."""
        digest, waiting = self.stall()
        finding = self.finding("manifests/latest", seconds=20)
        self.assertNoResult(finding)
        waiting[0].send(self.one.has[digest][50:])
        self.vault.net.pass_time(1)
        self.assertEqual(self.successResultOf(finding).body.sha256, digest[7:])

    def test_list(self) -> None:
        """So it is with a list."""
        body = json.dumps({"name": "x", "tags": ["latest"]}).encode()
        self.one.origin.answer = lambda asked: asked.answer(200, body=body)
        self.find("tags/list")

        def stop(asked: Request) -> None:
            asked.head(200, length=len(body))
            asked.send(body[:5])

        self.one.origin.answer = stop
        self.vault.net.pass_time(100)
        found = self.find("tags/list")
        self.assertEqual((found.how, found.detail, found.body.length), (How.STALE, "timeout", len(body)))


ODD = b'{"a": 1}'
PAGE = b"<!doctype html><title>Please log in</title>"
JUNK: tuple[tuple[str, bytes], ...] = (
    ("text/html", PAGE),
    ("text/html; charset=utf-8", b'{"schemaVersion": 2}'),
    ("application/json", b'{"status": "maintenance"}'),
    ("application/json", b""),
    (OCI_MANIFEST, b""),
    ("application/json", b"null"),
    ("application/json", b"[]"),
    (OCI_MANIFEST, b"[" * 100_000),
    ("application/octet-stream", bytes(range(256))),
)


class JunkTests(TagCase):
    """A registry, or what is before it, answers 200 with something else than what it was asked for."""

    def junk(self, kind: str, body: bytes, *fields: str) -> None:
        """Let everything be answered so from now on."""
        self.vault.net.pass_time(100)

        def answer(asked: Request) -> None:
            asked.head(200, f"Content-Type: {kind}", *fields, length=len(body))
            asked.send(b"" if asked.method == "HEAD" else body)

        self.one.origin.answer = answer

    def test_kept(self) -> None:
        """A tag that is kept is served on, and the registry not asked again for some seconds."""
        digest = self.pull("first")
        for kind, body in JUNK:
            for head_only in (False, True):
                self.junk(kind, body)
                found = self.find("manifests/latest", head_only)
                self.assertGiven(found, digest, How.STALE, "http_protocol_error")
                self.one.methods()
                self.assertEqual(self.find("manifests/latest").how, How.STALE)
                self.assertEqual(self.one.methods(), [])
        self.one.origin.answer = self.one.answer
        self.vault.net.pass_time(20)
        self.assertGiven(self.find("manifests/latest"), digest, How.REVALIDATED, None)

    def test_cold(self) -> None:
        """Without a copy the answer is 502, and nothing of it is kept."""
        for kind, body in JUNK:
            self.junk(kind, body)
            for head_only in (False, True):
                error = self.error("manifests/latest", head_only)
                self.assertIsInstance(error, Unfit)
                self.assertEqual((error.status, error.proxy_error), (502, "http_protocol_error"))
            self.assertEqual(self.vault.stored, 0)

    def test_manifests(self) -> None:
        """A document that says that it is a manifest is one, by what is in it, by its type, or by its digest."""
        for kind, body, fields in (
            ("application/json", b'{"schemaVersion": 2}', ()),
            ("text/plain", b'{"mediaType": "application/x"}', ()),
            ("application/vnd.example+json", b"{}", ()),
            ("application/json", ODD, (f"Docker-Content-Digest: {digest_of(ODD)}",)),
        ):
            self.junk(kind, body, *fields)
            self.assertEqual(self.tag("latest"), digest_of(body))
        self.junk("application/json", b'{"a": 2}', f"Docker-Content-Digest: {digest_of(b'other')}")
        self.assertGiven(self.find("manifests/latest"), digest_of(ODD), How.STALE, "http_response_incomplete")

    def test_by_digest(self) -> None:
        """A manifest by its digest is what its digest names, whatever it is."""
        for kind, body in JUNK[2:]:
            self.junk(kind, body)
            self.assertEqual(self.find(f"manifests/{digest_of(body)}").body.sha256, digest_of(body)[7:])
            self.one.origin.answer = lambda asked: asked.answer(503)
            self.vault.net.pass_time(100)
            self.assertEqual(self.find(f"manifests/{digest_of(body)}").how, How.HIT)

    def test_kept_before(self) -> None:
        """One that an earlier vault kept for a tag is not whole: it is not served while the registry is away."""
        self.vault.net.pass_time(1)
        for kind, body in JUNK:
            head = Head(200, (("Content-Type", kind),), 0.0, 0.0)
            self.vault.run(self.kitchen.put("hub/team/app/manifests/latest", head, body))
            self.break_down()
            self.assertIsInstance(self.error("manifests/latest"), Unavailable)

    def test_next_registry(self) -> None:
        """A web interface in front does not win the tags and blobs of the next registry."""
        self.registries = self.both
        digest = self.put(self.two, "other", "latest")
        for kind, body in JUNK:
            self.junk(kind, body)
            self.assertEqual(self.tag("latest"), digest)
            self.assertEqual(self.find(f"manifests/{digest}").body.sha256, digest[7:])
            blob = self.find(f"blobs/{digest_of(b'other')}")
            self.assertEqual(blob.body.sha256, digest_of(b"other")[7:])
            self.vault.run(self.kitchen.remove(f"hub/blobs/{digest_of(b'other').replace(':', '/')}"))
            if kind == "text/html":
                self.assertEqual(self.find(f"blobs/{digest_of(b'other')}", head_only=True).body.length, 5)
            self.assertIsInstance(self.error("manifests/none"), Unfit)
            if len(body) < 1000:
                self.assertIsInstance(self.error(f"blobs/{digest_of(b'none')}"), UpstreamError)

    def test_large_blob(self) -> None:
        """A layer is sent to clients while it comes, also where there is another registry."""
        self.registries = self.both
        layer = bytes(200_000)
        self.one.origin.answer = lambda asked: (asked.head(200, length=len(layer)), asked.send(layer[:1000]))
        self.assertEqual(self.find(f"blobs/{digest_of(layer)}").how, How.MISS)
        self.one.origin.last.send(layer[1000:])
        self.vault.net.pass_time(1)


class ListTests(TagCase):
    """Lists of tags and of referrers."""

    LISTS = (
        ("tags/list", b'{"name": "team/app", "tags": ["a"]}', b'{"tags": null}'),
        (f"referrers/{digest_of(b'x')}", b'{"manifests": [{}]}', b'{"mediaType": "x", "manifests": []}'),
    )

    def answer_all(self, body: bytes, kind: str = "application/json", status: int = 200) -> None:
        """Let everything be answered so."""
        self.vault.net.pass_time(100)
        self.one.origin.answer = lambda asked: asked.answer(status, f"Content-Type: {kind}", body=body)

    def content(self, found: Found) -> bytes:
        """The body of what was found."""
        data: bytes = self.successResultOf(self.vault.run(self.kitchen.read(found.body, 1000)))
        return data

    def test_junk(self) -> None:
        """What is no list is not taken for one: what is kept is served, else it is 502."""
        junk = (*JUNK[:1], *JUNK[2:], ("application/json", b'{"tags": "a"}'), ("application/json", b'{"manifests": 1}'))
        for path, *lists in self.LISTS:
            for kind, body in junk:
                self.answer_all(body, kind)
                self.assertIsInstance(self.error(path), Unfit)
            for good in lists:
                self.answer_all(good)
                self.assertEqual(self.content(self.find(path)), good)
                for kind, body in junk:
                    self.answer_all(body, kind)
                    found = self.find(path)
                    self.assertEqual((found.how, found.detail), (How.STALE, "http_protocol_error"), body)
                    self.assertEqual(self.content(found), good)

    def test_large(self) -> None:
        """One that is larger than any manifest is given."""
        body = b'{"tags": [' + b'"a", ' * 1_000_000 + b'"a"]}'
        self.answer_all(body)
        self.assertEqual(self.find("tags/list").body.length, len(body))

    def test_next_registry(self) -> None:
        """The next registry's list is given where the first has a page."""
        self.registries = self.both
        for path, good, _ in self.LISTS:
            self.answer_all(PAGE, "text/html")
            self.two.origin.answer = lambda asked, good=good: asked.answer(200, body=good)
            self.assertEqual(self.content(self.find(path)), good)
