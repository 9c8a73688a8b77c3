"""What a registry's recipes do as time passes, in memory, on a clock."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.formats.test_oci_manifest import sign
from tests.memory import Asked as Request
from tests.memory import Origin, Rig, RigCase
from vault.artifact import Artifact, Head
from vault.backends._oci_heads import for_listing
from vault.backends._oci_memory import Memories
from vault.backends._oci_recipes import Recipe
from vault.backends._oci_registry import Registry
from vault.cache import Cache
from vault.errors import BrokenAnswer, Refused, Unavailable, UpstreamError
from vault.formats.oci_errors import Unknown
from vault.formats.oci_manifest import OCI_INDEX, OCI_MANIFEST
from vault.formats.oci_names import read_path
from vault.kitchen import Kitchen
from vault.outcome import Asked, Found, How
from vault.sources import Sources
from vault.store.body import MemoryBody
from vault.upstream import Upstream

LAYER = b"a layer"


def digest_of(data: bytes) -> str:
    """The OCI digest."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


MANIFEST = json.dumps({"mediaType": OCI_MANIFEST, "layers": [{"digest": digest_of(LAYER)}]}).encode()
DIGEST = digest_of(MANIFEST)


class RecipeCase(RigCase):
    """A vault in memory before a registry with one image, ``team/app``, whose tag is ``latest``."""

    def setUp(self) -> None:
        self.registry = Registry(
            name="hub", prefix="/hub/", backend="hub", url="http://origin.test/", namespace="origin.test",
            now=lambda: self.vault.net.seconds(),  # noqa: PLW0108 - the vault is made after it
        )  # fmt: skip
        self.vault: Rig = self.rig(backend=self.registry, retries=0, stale_while_revalidate=0.0)
        vault = self.vault
        self.kitchen = Kitchen(
            vault.cache, vault.sources, vault.store, vault.workers, vault.net.seconds, {"hub": vault.kitchen}
        )  # fmt: skip
        self.memories = Memories()
        self.registries: tuple[Registry, ...] = (self.registry,)
        self.fields = [f"Content-Type: {OCI_MANIFEST}", f"Docker-Content-Digest: {DIGEST}"]
        self.status = 200
        vault.origin.answer = self.answer

    def answer(self, asked: Request) -> None:
        """The registry's answers."""
        reference = asked.target.rpartition("/")[2]
        body = {"latest": MANIFEST, DIGEST: MANIFEST, digest_of(LAYER): LAYER}.get(reference)
        if self.status != 200 or body is None:
            asked.answer(404 if self.status == 200 else self.status)
        elif asked.method == "HEAD":
            asked.head(200, *self.fields, length=len(body))
        else:
            asked.answer(200, *(self.fields if body is MANIFEST else ()), body=body)

    def asked(self) -> list[str]:
        """The methods and last parts of what the registry was asked since this was called."""
        requests, self.vault.origin.requests = self.vault.origin.requests, []
        return [f"{request.method} {request.target.rpartition('/')[2][:6]}" for request in requests]

    def finding(self, path: str, head_only: bool = False, seconds: float = 8) -> Any:
        """What comes of a request, when everything due within some seconds has happened."""
        recipe = Recipe("hub", self.registries, self.memories, read_path(f"team/app/{path}"))
        finding = self.vault.run(recipe.find(self.kitchen, Asked(head_only)))
        self.vault.net.pass_time(seconds)
        return finding

    def find(self, path: str, head_only: bool = False) -> Found:
        """What is found."""
        found: Found = self.successResultOf(self.finding(path, head_only))
        return found

    def error(self, path: str, head_only: bool = False) -> Any:
        """What it fails with."""
        return self.failureResultOf(self.finding(path, head_only)).value


class Shelf:
    """What a registry of several has, by the last part of its URL; nothing is answered while it is ``silent``."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.has: dict[str, bytes] = {}
        self.status = 200
        self.silent = False
        self.has_heads_only = False
        origin.answer = self.answer

    def answer(self, asked: Request) -> None:
        """The registry's answers."""
        body = self.has.get(asked.target.rpartition("/")[2])
        if self.silent:
            return
        if self.status != 200 or body is None or (self.has_heads_only and asked.method == "GET"):
            asked.answer(404 if self.status == 200 else self.status)
            return
        is_blob = "/blobs/" in asked.target
        fields = () if is_blob else (f"Content-Type: {OCI_MANIFEST}", f"Docker-Content-Digest: {digest_of(body)}")
        asked.head(200, *fields, length=len(body))
        asked.send(b"" if asked.method == "HEAD" else body)

    def asked(self) -> int:
        """How many requests there were since this was called."""
        return len(self.methods())

    def methods(self) -> list[str]:
        """Their methods."""
        requests, self.origin.requests = self.origin.requests, []
        return [request.method for request in requests]


class SeveralCase(RecipeCase):
    """Two registries behind one prefix, ``one`` and ``two``, both of them empty."""

    def setUp(self) -> None:
        super().setUp()
        vault, net = self.vault, self.vault.net
        second = Registry(
            name="two", prefix="/hub/", backend="hub", url="http://second.test/", namespace="second.test",
            directory="second.test/", now=net.seconds,
        )  # fmt: skip
        upstream = Upstream(net, vault.options, second.upstreams, net.seconds)
        sources = Sources(second, upstream, net, net.seconds)
        cache = Cache(sources, vault.store, net, net.seconds, vault.transfers)
        members = {"hub": vault.kitchen, "two": Kitchen(cache, sources, vault.store, vault.workers, net.seconds)}
        self.kitchen = Kitchen(vault.cache, vault.sources, vault.store, vault.workers, net.seconds, members)
        self.registries = (self.registry, second)
        self.one, self.two = Shelf(vault.origin), Shelf(net.origin("second.test"))

    def put(self, shelf: Shelf, text: str, *tags: str) -> str:
        """Have an image with one layer of this text; gives its digest."""
        layer = text.encode()
        manifest = json.dumps({"mediaType": OCI_MANIFEST, "layers": [{"digest": digest_of(layer)}]}).encode()
        for reference in (*tags, digest_of(manifest)):
            shelf.has[reference] = manifest
        shelf.has[digest_of(layer)] = layer
        return digest_of(manifest)

    def tag(self, tag: str) -> str:
        """The digest of what is found for a tag."""
        head = self.find(f"manifests/{tag}").head
        assert head is not None
        return head.get("Docker-Content-Digest") or ""


class OrderTests(SeveralCase):
    """Which registry is asked."""

    def test_tags(self) -> None:
        """The first registry that has a tag gives it, whichever gave another tag of the same name before."""
        mine = self.put(self.one, "mine", "both")
        other = self.put(self.two, "other", "both", "only")
        self.assertEqual(self.tag("only"), other)
        self.assertEqual(self.tag("both"), mine)

    def test_digests(self) -> None:
        """What is named by its digest is asked first of the registry that had the tag."""
        self.put(self.two, "other", "only")
        self.tag("only")
        self.one.asked()
        self.find(f"blobs/{digest_of(b'other')}")
        self.assertEqual(self.one.asked(), 0)


class ReferrerTests(SeveralCase):
    """A registry has no lists of referrers, and says so in whatever way."""

    def test_missing(self) -> None:
        """It has none then: clients look for a tag instead.  Of tags that would be an odd answer."""
        self.registries = self.registries[:1]
        for status in (400, 405, 406, 501):
            for head_only in (False, True):
                self.one.status = status
                error = self.error(f"referrers/{DIGEST}", head_only)
                self.assertIsInstance(error, Unknown)
                self.assertEqual((error.status, error.upstream_status, error.code), (404, status, "MANIFEST_UNKNOWN"))
                self.assertIn(str(status), str(error))
                self.assertIsInstance(self.error("tags/list", head_only), BrokenAnswer)
        for status in (402, 418, 505):
            self.one.status = status
            self.assertIsInstance(self.error(f"referrers/{DIGEST}"), BrokenAnswer)

    def test_next_registry(self) -> None:
        """The next registry is asked."""
        self.one.status = 405
        body = b'{"manifests": []}'
        self.two.origin.answer = lambda asked: asked.answer(200, body=body)
        self.assertEqual(self.find(f"referrers/{DIGEST}").body.length, len(body))


class LinkTests(SynchronousTestCase):
    """Where a list goes on."""

    def test_next(self) -> None:
        """The next page is found in every form of the field, and told as a query, whatever else the field says."""
        table = {
            '</v2/app/tags/list?last=b&n=2>; rel="next"': "last=b&n=2",
            '<https://h.test/v2/app/tags/list?next_page=a%3D#x>; rel="next"': "next_page=a%3D",
            "</v2/app/tags/list?last=a,b>; rel=next": "last=a,b",
            '</v2/app/tags/list>; rel="first", </v2/app/tags/list?last=b>; rel="next"': "last=b",
            '</v2/app/tags/list?last=b>; title="a, <b>; c"; rel="last Next", <?z=1>; rel=up': "last=b",
            '</v2/app/tags/list?last=b>; rel="prev"': None,
            '</v2/app/tags/list?last=b>; title="next"': None,
            "</v2/app/tags/list>; rel=next": None,
            "nonsense": None,
            "": None,
        }
        for value, query in table.items():
            body = MemoryBody(Head(headers=(("Link", value),)), b"[]")
            link = for_listing(Found(body, How.MISS)).get("Link")
            self.assertEqual(link, None if query is None else f'<?{query}>; rel="next"', value)


class OutageTests(SeveralCase):
    """One of the registries fails."""

    def test_by_digest(self) -> None:
        """What is named by its digest comes from another registry, and who failed is not asked for a while."""
        digest = self.put(self.two, "other")
        self.one.status = 503
        self.assertEqual(self.find(f"manifests/{digest}").how, How.MISS)
        self.one.asked()
        self.find(f"blobs/{digest_of(b'other')}")
        self.assertEqual(self.one.asked(), 0)

    def test_silent(self) -> None:
        """A tag that is kept from another registry is given after a few seconds when the first does not answer."""
        other = self.put(self.two, "other", "latest")
        self.tag("latest")
        self.find(f"blobs/{digest_of(b'other')}")
        self.vault.net.pass_time(100)
        self.one.silent = True
        found = self.find("manifests/latest")
        self.assertEqual((found.how, found.detail), (How.STALE, "http_response_timeout"))
        self.assertEqual(found.head and found.head.get("Docker-Content-Digest"), other)
        self.one.asked()
        self.assertEqual(self.find("manifests/latest").detail, "resting")
        self.assertEqual(self.one.asked(), 0)

    def test_slow(self) -> None:
        """The first registry, answering within these seconds, is heard; what was kept from another has no say."""
        self.put(self.two, "other", "latest")
        self.tag("latest")
        self.vault.net.pass_time(100)
        mine = self.put(self.one, "mine", "latest")
        self.assertEqual(self.tag("latest"), mine)

    def test_nowhere(self) -> None:
        """While one registry cannot be asked, nothing is said to be missing; it is asked when no other has it."""
        digest = self.put(self.one, "mine")
        self.one.status = 503
        self.assertIsInstance(self.error(f"manifests/{digest}"), Unavailable)
        self.assertIsInstance(self.error(f"blobs/{digest}"), Unavailable)
        self.one.status = 200
        self.assertEqual(self.find(f"manifests/{digest}").how, How.MISS)

    def test_gone(self) -> None:
        """An image that one registry no longer has comes from the next, even where its tag alone is kept."""
        self.put(self.one, "mine", "latest")
        self.tag("latest")
        other = self.put(self.two, "other", "latest")
        self.vault.net.pass_time(100)
        self.one.has.clear()
        self.assertEqual(self.tag("latest"), other)

    def test_by_digest_silent(self) -> None:
        """Content by digest comes from another registry that has it, when the first says nothing for two seconds.

        What the first was asked is given up, and it is not asked for more of this repository.
        """
        digest = self.put(self.two, "other")
        self.one.silent = True
        found = self.finding(f"blobs/{digest_of(b'other')}", seconds=1.9)
        self.assertNoResult(found)
        self.vault.net.pass_time(0.2)
        self.assertEqual(self.successResultOf(found).how, How.MISS)
        self.vault.net.pass_time(1)
        self.assertEqual([self.one.asked(), self.two.methods()], [1, ["HEAD", "GET"]])
        self.assertEqual([wire.open for wire in self.one.origin.wires], [False])
        self.assertEqual(self.successResultOf(self.finding(f"manifests/{digest}", seconds=0.1)).how, How.MISS)
        self.assertEqual(self.one.asked(), 0)
        self.vault.net.pass_time(70)
        self.assertEqual(self.find(f"blobs/{digest_of(b'other')}").how, How.HIT)

    def test_together_silent(self) -> None:
        """Clients that ask together are all given it, fetched once, also one that means the silent registry alone."""
        self.put(self.two, "other")
        self.one.silent = True
        path = f"blobs/{digest_of(b'other')}"
        crowd = [self.finding(path, seconds=pause) for pause in (0.5, 0.5)]
        both, self.registries = self.registries, self.registries[:1]
        crowd.append(self.finding(path, seconds=0.3))
        self.registries = both
        crowd.append(self.finding(path, seconds=8))
        for finding in crowd:
            self.assertEqual(self.successResultOf(finding).body.length, 5)
        self.assertEqual(self.two.methods().count("GET"), 1)

    def test_by_digest_slow(self) -> None:
        """A registry that alone has it is waited for, and asked once."""
        digest = self.put(self.one, "mine")
        self.one.silent = True
        found = self.finding(f"manifests/{digest}", seconds=20)
        self.assertNoResult(found)
        self.one.silent = False
        (asked,) = self.one.origin.requests
        self.one.answer(asked)
        self.vault.net.pass_time(1)
        self.assertEqual(self.successResultOf(found).how, How.MISS)
        self.assertEqual(self.two.methods(), ["HEAD"])

    def test_by_digest_not_asked(self) -> None:
        """One that must not be asked, or has just failed, is not asked in place of a silent one."""
        self.put(self.two, "other")
        self.one.silent = True
        first, second = self.registries
        for offline in (True, False):
            self.registries = (first, replace(second, offline=offline))
            if not offline:
                second.failed(self.vault.net.seconds())
            self.assertNoResult(self.finding(f"blobs/{digest_of(b'other')}"))
            self.assertEqual(self.two.asked(), 0)

    def test_by_digest_nowhere(self) -> None:
        """The silent one has the last word where the other one has it not after all."""
        digest = self.put(self.one, "mine")
        self.put(self.two, "mine")
        self.one.silent = True
        self.two.has_heads_only = True
        found = self.finding(f"manifests/{digest}")
        self.assertEqual(self.two.methods(), ["HEAD", "GET"])
        self.one.silent = False
        self.one.answer(self.one.origin.last)
        self.vault.net.pass_time(1)
        self.assertEqual(self.successResultOf(found).how, How.MISS)
        self.assertEqual(self.one.methods(), ["GET", "GET"])

    def test_tags(self) -> None:
        """A tag is not asked of the next one, which may have another image of that name."""
        self.put(self.two, "other", "latest")
        self.one.status = 503
        self.assertIsInstance(self.error("manifests/latest"), Unavailable)
        self.assertEqual(self.two.asked(), 0)


class MissingTests(RecipeCase):
    """What is not there yet."""

    def test_by_digest(self) -> None:
        """Content by its digest may be pushed at any moment: that it is missing is not remembered, for a tag it is."""
        pushed = self.vault.origin.answer
        for path in (f"manifests/{DIGEST}", f"blobs/{digest_of(LAYER)}"):
            for head_only in (True, False):
                self.vault.origin.answer = lambda asked: asked.answer(404)
                self.assertIsInstance(self.error(path, head_only), Unknown)
                self.vault.origin.answer = pushed
                self.assertEqual(self.find(path, head_only).how, How.MISS)
                self.vault.run(self.kitchen.remove(f"hub/{path.replace(':', '/')}"))
        self.vault.origin.answer = lambda asked: asked.answer(404)
        self.error("manifests/latest")
        self.vault.origin.answer = pushed
        self.assertIsInstance(self.error("manifests/latest"), Unknown)


class RefusalTests(RecipeCase):
    """Who is refused, and what that says of an image."""

    def test_without_token(self) -> None:
        """A registry that refuses without asking for a token is told of; its image is not said to be missing."""
        for status in (401, 403):
            self.status = status
            error = self.error(f"manifests/{status}")
            self.assertIs(type(error), Refused)
            self.assertIn(str(status), str(error))


class VouchTests(RecipeCase):
    """A manifest is only served when its blobs can be had."""

    def test_asked_for(self) -> None:
        """A kept manifest without its blobs is served when the registry, asked after a pause, still answers."""
        self.find("manifests/latest")
        self.vault.net.pass_time(20)
        self.asked()
        self.assertEqual(self.find(f"manifests/{DIGEST}").how, How.HIT)
        self.assertEqual(self.asked(), ["HEAD sha256"])

    def test_no_head(self) -> None:
        """A registry that knows no HEAD has answered all the same: it can be asked for the blobs."""
        self.find("manifests/latest")
        self.vault.net.pass_time(20)
        self.status = 405
        self.assertEqual(self.find(f"manifests/{DIGEST}").how, How.HIT)

    def test_no_answer(self) -> None:
        """What is no HTTP answer does not vouch for anything."""
        self.find("manifests/latest")
        self.vault.net.pass_time(20)
        self.vault.origin.answer = lambda asked: asked.send(b"220 mail ready\r\n\r\n")
        self.assertIsInstance(self.error(f"manifests/{DIGEST}"), BrokenAnswer)

    def test_cannot_be_asked(self) -> None:
        """It is not served when the registry fails then, nor soon after."""
        self.find("manifests/latest")
        self.vault.net.pass_time(20)
        self.status = 503
        for path in (f"manifests/{DIGEST}", "manifests/latest"):
            error = self.error(path)
            self.assertIsInstance(error, Unavailable)

    def test_silent(self) -> None:
        """It is not served when the registry does not answer within a few seconds."""
        self.find("manifests/latest")
        self.vault.net.pass_time(20)
        self.vault.origin.answer = lambda asked: None
        self.assertIsInstance(self.error(f"manifests/{DIGEST}"), Unavailable)

    def test_gone(self) -> None:
        """It is 404 when the registry no longer has it."""
        self.find("manifests/latest")
        self.vault.net.pass_time(20)
        self.status = 404
        self.assertIsInstance(self.error(f"manifests/{DIGEST}"), Unknown)

    def test_tag_deleted(self) -> None:
        """A tag that was deleted, or is refused, is served as long as its registry still has the manifest it stood for.

        Its blobs, which are not kept, can then be had; without the manifest the tag is missing.
        """
        self.find("manifests/latest")
        self.vault.net.pass_time(100)
        answer = self.vault.origin.answer
        for status in (404, 403):
            self.vault.origin.answer = lambda asked, status=status: (
                asked.answer(status) if asked.target.endswith("latest") else answer(asked)
            )
            self.assertEqual(self.find("manifests/latest").how, How.STALE)
            self.vault.net.pass_time(20)
        self.vault.origin.answer = lambda asked: asked.answer(404)
        self.assertIsInstance(self.error("manifests/latest"), Unknown)
        self.vault.net.pass_time(20)
        self.vault.origin.answer = lambda asked: asked.answer(403)
        self.assertIsInstance(self.error("manifests/latest"), Refused)

    def test_whole(self) -> None:
        """With all its blobs kept it is served without a question, whatever has become of the registry."""
        self.find("manifests/latest")
        self.find(f"blobs/{digest_of(LAYER)}")
        self.vault.net.pass_time(20)
        self.asked()
        self.status = 503
        self.assertEqual(self.find(f"manifests/{DIGEST}").how, How.HIT)
        self.assertEqual(self.asked(), [])
        self.vault.net.pass_time(100)
        found = self.find("manifests/latest")
        self.assertEqual((found.how, found.detail), (How.STALE, "destination_unavailable"))

    def test_kept_elsewhere(self) -> None:
        """Content that is kept for another backend is kept: the store has it by its digest."""
        child = json.dumps({"mediaType": OCI_INDEX, "manifests": [{"digest": DIGEST}]}).encode()
        index = digest_of(child)
        answer = self.vault.origin.answer
        self.vault.origin.answer = lambda asked: (
            asked.answer(200, f"Content-Type: {OCI_INDEX}", body=child)
            if asked.target.endswith(index)
            else answer(asked)
        )
        self.find(f"manifests/{index}")
        for reference in (DIGEST, digest_of(LAYER)):
            elsewhere = Artifact(f"other/{reference}", (f"http://origin.test/{reference}",))
            self.vault.run(self.vault.kitchen.fetch(elsewhere))
        self.vault.net.pass_time(20)
        self.status = 503
        self.vault.origin.answer = answer
        self.asked()
        for reference in (index, DIGEST):
            self.assertEqual(self.find(f"manifests/{reference}").how, How.HIT)
        self.assertEqual(self.asked(), [])


class SignedTests(RecipeCase):
    """Docker's old signed manifests, which are named by the digest of what is signed."""

    TYPE = "Content-Type: application/vnd.docker.distribution.manifest.v1+prettyjws"

    def test_signed(self) -> None:
        """One is checked by what is signed, given as it came, and kept."""
        payload = b'{\n   "schemaVersion": 1\n}'
        signed, digest = sign(payload), digest_of(payload)
        self.vault.origin.answer = lambda asked: asked.answer(200, self.TYPE, body=signed)
        found = self.find(f"manifests/{digest}")
        self.assertEqual(found.body.length, len(signed))
        self.assertEqual(found.head and found.head.get("Docker-Content-Digest"), digest)
        self.asked()
        self.assertEqual(self.find(f"manifests/{digest}").how, How.HIT)
        self.assertEqual(self.asked(), [])

    def test_wrong(self) -> None:
        """One that is not what its digest names is neither given nor kept, nor is a modern one that is signed."""
        payload = b'{\n   "schemaVersion": 1\n}'
        for kind, body, name in (
            (self.TYPE, sign(payload), digest_of(b"x")),
            (self.TYPE, payload, digest_of(b"x")),
            (f"Content-Type: {OCI_MANIFEST}", sign(payload), digest_of(payload)),
        ):
            self.vault.origin.answer = lambda asked, kind=kind, body=body: asked.answer(200, kind, body=body)
            self.assertIsInstance(self.error(f"manifests/{name}"), UpstreamError)
            self.asked()
            self.error(f"manifests/{name}")
            self.assertNotEqual(self.asked(), [])


class TagTests(RecipeCase):
    """Tags as pointers."""

    def test_one_get(self) -> None:
        """A tag costs one GET, then a HEAD when its time is over, and its manifest none."""
        self.find(f"blobs/{digest_of(LAYER)}")
        self.asked()
        for _ in range(3):
            self.find("manifests/latest")
            self.find(f"manifests/{DIGEST}")
        self.vault.net.pass_time(61)
        self.assertEqual(self.find("manifests/latest").how, How.REVALIDATED)
        self.assertEqual(self.asked(), ["GET latest", "HEAD latest"])

    def test_without_digest(self) -> None:
        """A registry that tells no digest is told by its bytes, and confirmed by its entity tag."""
        self.fields = [f"Content-Type: {OCI_MANIFEST}", 'ETag: "x"']
        head = self.find("manifests/latest").head
        assert head is not None
        self.assertEqual((head.get("Docker-Content-Digest"), head.etag), (DIGEST, f'"{DIGEST}"'))
        self.vault.net.pass_time(61)
        self.asked()
        self.find("manifests/latest")
        self.assertEqual(self.asked(), ["HEAD latest", "GET latest"])

    def test_few_pulls_left(self) -> None:
        """With few pulls left a tag is asked for once in five minutes, and as ever when there are enough."""
        self.fields += ["ratelimit-limit: 100;w=21600", "ratelimit-remaining: 3;w=21600"]
        self.find("manifests/latest")
        self.find(f"blobs/{digest_of(LAYER)}")
        self.asked()
        for _ in range(3):
            self.vault.net.pass_time(70)
            self.assertEqual(self.find("manifests/latest").detail, "rate-limit")
        self.assertEqual(self.asked(), [])
        self.vault.net.pass_time(70)
        self.fields[-1] = "ratelimit-remaining: 50;w=21600"
        self.assertEqual(self.find("manifests/latest").how, How.REVALIDATED)
        self.vault.net.pass_time(70)
        self.assertEqual(self.find("manifests/latest").how, How.REVALIDATED)
        self.assertEqual(self.registry.rate_limit.remaining, 50)

    def test_stored_before(self) -> None:
        """Bytes that were stored before as a plain file are not fetched again, and have the type that they name."""
        plain = Artifact("files/a.json", ("http://origin.test/latest",))
        self.fields = ["Content-Type: application/json"]
        self.vault.run(self.vault.kitchen.fetch(plain))
        self.vault.net.pass_time(1)
        self.asked()
        head = self.find(f"manifests/{DIGEST}").head
        assert head is not None
        self.assertEqual(head.get("Content-Type"), OCI_MANIFEST)
        self.assertEqual(self.asked(), [])

    def test_no_type(self) -> None:
        """What a document names is a type only where it has a type's form; else what its head says stays."""
        for kind, expected in (
            ("application/x.y+json", "application/x.y+json"),
            ("application/" + 127 * "y", "application/" + 127 * "y"),
            ("application/" + 128 * "y", "text/plain"),
            ("a/b\0", "text/plain"),
            ("a/\u4e2d", "text/plain"),
            ("a/b\r\nX: y", "text/plain"),
            ("none", "text/plain"),
            ("a/b/c", "text/plain"),
            (100_000 * "a" + "/b", "text/plain"),
        ):
            body = json.dumps({"mediaType": kind}).encode()
            fields = ("Content-Type: text/plain", f"Docker-Content-Digest: {digest_of(body)}")
            self.vault.origin.answer = lambda asked, fields=fields, body=body: asked.answer(200, *fields, body=body)
            for path in (f"manifests/{digest_of(body)}", "manifests/latest"):
                head = self.find(path).head
                assert head is not None
                self.assertEqual(head.get("Content-Type"), expected, kind[:20])
            self.vault.net.pass_time(100)


class AliasTests(RecipeCase):
    """Tags that stand for a manifest that is kept: a registry counts GET, so they cost a HEAD alone."""

    def setUp(self) -> None:
        super().setUp()
        self.tags = {"latest": MANIFEST, "1.0": MANIFEST}
        self.heads = 200

    def answer(self, asked: Request) -> None:
        """The registry's answers: two tags of one image, and one of no image."""
        reference = asked.target.rpartition("/")[2]
        body = self.tags.get(reference, MANIFEST if reference == DIGEST else None)
        if body is None:
            super().answer(asked)
        elif asked.method == "HEAD" and self.heads == 0:
            asked.close()
        elif asked.method == "HEAD" and self.heads != 200:
            asked.answer(self.heads)
        else:
            asked.head(200, *self.fields_of(body), length=len(body))
            asked.send(b"" if asked.method == "HEAD" else body)

    def fields_of(self, body: bytes) -> list[str]:
        """What comes with a manifest."""
        return [f"Content-Type: {OCI_MANIFEST}", f"Docker-Content-Digest: {digest_of(body)}"]

    def move(self) -> str:
        """Let the first tag stand for another image; gives its digest."""
        other = json.dumps({"mediaType": OCI_MANIFEST, "layers": []}).encode()
        self.tags["latest"] = other
        return digest_of(other)

    def assertGiven(self, found: Found, digest: str) -> None:
        """This manifest was found, with its fields."""
        assert found.head is not None
        self.assertEqual(found.head.get("Docker-Content-Digest"), digest)
        self.assertEqual(found.head.get("Content-Type"), OCI_MANIFEST)
        self.assertEqual(found.body.sha256, digest.partition(":")[2])

    def test_second_tag(self) -> None:
        """A second tag of the same image costs a HEAD, and is then fresh as long as any."""
        self.find("manifests/latest")
        found = self.find("manifests/1.0")
        self.assertEqual((found.how, found.fwd), (How.REVALIDATED, "uri-miss"))
        self.assertGiven(found, DIGEST)
        self.assertEqual(self.find("manifests/1.0").how, How.HIT)
        self.assertEqual(self.asked(), ["GET latest", "HEAD 1.0"])

    def test_together(self) -> None:
        """Many who ask for it together cost the same one HEAD, or the one GET that it takes."""
        self.find("manifests/latest")
        digest = self.move()
        self.tags["2.0"] = self.tags["latest"]
        self.asked()
        self.vault.origin.answer = lambda asked: self.vault.net.callLater(0.5, self.answer, asked)
        for tag, named, asked in (("1.0", DIGEST, ["HEAD 1.0"]), ("2.0", digest, ["HEAD 2.0", "GET 2.0"])):
            crowd = [self.finding(f"manifests/{tag}", seconds=0) for _ in range(20)]
            self.assertNoResult(crowd[0])
            self.vault.net.pass_time(2)
            for finding in crowd:
                self.assertGiven(self.successResultOf(finding), named)
            self.assertEqual(self.asked(), asked)

    def test_moves(self) -> None:
        """A tag that moves costs a GET where its new image is not kept, and none where it goes back."""
        self.find("manifests/latest")
        digest = self.move()
        self.vault.net.pass_time(100)
        self.asked()
        self.assertGiven(self.find("manifests/latest"), digest)
        self.assertEqual(self.asked(), ["HEAD latest", "GET latest"])
        for body in (MANIFEST, self.tags["latest"]):
            self.tags["latest"] = body
            self.vault.net.pass_time(100)
            found = self.find("manifests/latest")
            self.assertEqual(found.how, How.REVALIDATED)
            self.assertGiven(found, digest_of(body))
            self.assertEqual(self.asked(), ["HEAD latest"])

    def test_kept_by_digest(self) -> None:
        """However a tag came to be stored, its manifest is kept by its digest once the tag is given."""
        self.find("manifests/latest")
        key = f"hub/manifests/{DIGEST.replace(':', '/')}"
        self.vault.run(self.kitchen.remove(key))
        self.assertEqual(self.find("manifests/latest").how, How.HIT)
        self.assertIsNotNone(self.successResultOf(self.vault.run(self.kitchen.stored(key))))

    def test_without_head(self) -> None:
        """A registry that answers no HEAD, or not with a digest, is asked by GET."""
        self.find("manifests/latest")
        for status in (405, 404, 403, 0):
            self.heads = status
            self.asked()
            self.assertGiven(self.find("manifests/1.0"), DIGEST)
            self.assertEqual(self.asked(), ["HEAD 1.0", "GET 1.0"])
            self.vault.run(self.kitchen.remove("hub/team/app/manifests/1.0"))
        self.heads = 200
        self.fields_of = lambda body: [f"Content-Type: {OCI_MANIFEST}"]  # type: ignore[method-assign]
        self.assertGiven(self.find("manifests/1.0"), DIGEST)
        self.assertEqual(self.asked(), ["HEAD 1.0", "GET 1.0"])

    def test_heads_denied(self) -> None:
        """A tag that is kept is asked for by GET where HEAD is denied, and that decides."""
        self.find("manifests/latest")
        for status in (404, 410, 401, 403):
            self.heads = status
            self.vault.net.pass_time(100)
            self.asked()
            found = self.find("manifests/latest")
            self.assertGiven(found, DIGEST)
            self.assertEqual((found.how, self.asked()), (How.MISS, ["HEAD latest", "GET latest"]))
        digest = self.move()
        self.vault.net.pass_time(100)
        self.assertGiven(self.find("manifests/latest"), digest)
        del self.tags["latest"]
        self.status = 404
        self.vault.net.pass_time(100)
        found = self.find("manifests/latest")
        self.assertEqual((found.how, found.detail), (How.STALE, "destination_not_found"))

    def test_missing(self) -> None:
        """That a tag is missing is told, and remembered."""
        self.find("manifests/latest")
        self.asked()
        for _ in range(2):
            self.assertIsInstance(self.error("manifests/none"), Unknown)
        self.assertEqual(self.asked(), ["HEAD none", "GET none"])

    def test_outage(self) -> None:
        """A registry that refuses for now is not asked a second time."""
        self.find("manifests/latest")
        self.asked()
        self.heads = 429
        self.assertIsInstance(self.error("manifests/1.0"), Unavailable)
        self.assertEqual(self.asked(), ["HEAD 1.0"])

    def test_other_repository(self) -> None:
        """Nothing is asked by HEAD before it is known that the repository has something."""
        self.find("manifests/1.0")
        recipe = Recipe("hub", self.registries, self.memories, read_path("team/apple/manifests/latest"))
        self.vault.run(recipe.find(self.kitchen, Asked()))
        self.vault.net.pass_time(1)
        self.assertEqual(self.asked(), ["GET 1.0", "GET latest"])
