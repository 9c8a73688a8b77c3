"""A registry behind the vault that does all that Docker Hub does, and all that can go wrong with it."""

from __future__ import annotations

import json
import signal
import threading
import time
from typing import Any

from tests.functional.case import FAST, FunctionalCase
from tests.functional.clients import Reply, Stream, ask, parts_of, together
from tests.functional.content import Literal
from tests.functional.hub import Hub
from tests.functional.images import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Image,
    digest_of,
    make_image,
    make_index,
)
from tests.functional.script import MIB, Answer
from tests.functional.vault_process import VaultProcess, eventually

MODERN = {"Accept": ", ".join([OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*"])}


class RegistryCase(FunctionalCase):
    """A test with ``self.hub``, and a vault before it once ``start`` was called."""

    def setUp(self) -> None:
        super().setUp()
        self.hub = self.start_hub()

    def start_hub(self, **options: Any) -> Hub:
        """Another Hub."""
        hub = Hub(**options)
        self.addCleanup(hub.stop)
        return hub

    def registry(self, hub: Hub | None = None, prefix: str = "/hub/", **settings: Any) -> dict[str, Any]:
        """The configuration of a backend before a Hub, whose tags are asked for each time."""
        url = {"registry_url": (hub or self.hub).url, "namespace": "docker.io"}
        config = {"prefix": prefix, "ttl": 0, **FAST, **url, **settings}
        return {"type": "dockerhub", "config": {key: value for key, value in config.items() if value is not None}}

    def start(self, *more: dict[str, Any], **settings: Any) -> VaultProcess:
        """Start the vault, with more backends behind the first."""
        return self.start_vault(backends=[self.registry(**settings), *more])

    def pull(self, path: str, method: str = "GET", **fields: str) -> Reply:
        """Ask for a path below /v2/."""
        return ask(self.vault.port, "/v2/" + path, {**MODERN, **fields}, method)

    def pull_image(self, name: str, image: Image, tag: str = "latest") -> None:
        """Pull all of a single image, as a client does."""
        reply = self.pull(f"{name}/manifests/{tag}")
        self.assertEqual((reply.status, reply.body), (200, image.manifest))
        for digest, data in image.blobs.items():
            reply = self.pull(f"{name}/blobs/{digest}")
            self.assertEqual((reply.status, reply.body), (200, data))

    def error(self, reply: Reply) -> str:
        """The code of an error in the registry's form."""
        self.assertEqual(reply.headers["content-type"].partition(";")[0], "application/json")
        self.assertEqual(reply.headers["docker-distribution-api-version"], "registry/2.0")
        return str(json.loads(reply.body)["errors"][0]["code"])


class PullTests(RegistryCase):
    """What a pull gives."""

    def test_spellings(self) -> None:
        """Every way in which clients build a mirror's URLs leads to the same cached objects."""
        image = make_image(1)
        self.hub.push("library/app", image)
        self.start()
        for shape in (
            "/v2/library/app", "/v2/app", "/v2/hub/library/app", "/v2/docker.io/library/app", "/hub/v2/library/app",
            "/hub/library/app", "/hub/app", "/hub/v2/app",
        ):  # fmt: skip
            for query in ("", "?ns=docker.io", "?ns=registry-1.docker.io"):
                reply = ask(self.vault.port, f"{shape}/manifests/{image.digest}{query}", MODERN)
                self.assertEqual((reply.status, reply.body), (200, image.manifest), shape + query)
                self.assertEqual(reply.headers.get("oci-namespace"), "docker.io" if query else None)
                reply = ask(self.vault.port, f"{shape}/blobs/{image.config}{query}")
                self.assertEqual(digest_of(reply.body), image.config)
        self.assertEqual(len(self.hub.manifest_gets()), 2)  # one was refused for want of a token
        self.assertEqual(self.hub.blob_fetches(image.config), 1)

    def test_fields(self) -> None:
        """Manifests and blobs have the digest, the tag, the type and the length that clients look at."""
        image = make_image(2)
        self.hub.push("library/app", image)
        self.start()
        for method in ("HEAD", "GET"):
            for reference in ("latest", image.digest):
                reply = self.pull(f"app/manifests/{reference}", method)
                self.assertEqual(reply.headers["docker-content-digest"], image.digest)
                self.assertEqual(reply.headers["etag"], f'"{image.digest}"')
                self.assertEqual(reply.headers["content-type"], OCI_MANIFEST)
                self.assertEqual(reply.headers["content-length"], str(len(image.manifest)))
            reply = self.pull(f"app/blobs/{image.layers[0]}", method)
            self.assertEqual(reply.headers["docker-content-digest"], image.layers[0])
            self.assertEqual(reply.headers["etag"], f'"{image.layers[0]}"')
            self.assertEqual(reply.headers["content-type"], "application/octet-stream")
            self.assertEqual(reply.headers["content-length"], str(len(image.blobs[image.layers[0]])))

    def test_head_then_gone(self) -> None:
        """After HEAD of the tag, GET by digest and the blobs, the image can be pulled with the upstream gone."""
        image = make_image(3)
        self.hub.push("library/app", image)
        self.start()
        self.assertEqual(self.pull("app/manifests/latest", "HEAD").status, 200)
        self.assertEqual(self.pull(f"app/manifests/{image.digest}").cache, "HIT")
        for digest in image.blobs:
            self.pull(f"app/blobs/{digest}")
        self.assertEqual([path.rpartition("/")[2] for path in self.hub.manifest_gets()], ["latest", "latest"])
        self.hub.stop()
        self.pull_image("app", image)
        self.assertEqual(self.pull("app/manifests/latest").cache, "STALE")

    def test_moved_tag(self) -> None:
        """A tag that has moved is followed, by HEAD first; the old manifest stays by its digest."""
        old, new = make_image(4), make_image(5)
        self.hub.push("library/app", old)
        self.start()
        self.pull_image("app", old)
        gets = len(self.hub.manifest_gets())
        self.assertEqual(self.pull("app/manifests/latest").cache, "REVALIDATED")
        self.assertEqual(len(self.hub.manifest_gets()), gets)
        self.hub.push("library/app", new)
        self.pull_image("app", new)
        self.hub.stop()
        self.assertEqual(self.pull(f"app/manifests/{old.digest}").body, old.manifest)

    def test_shared_blob(self) -> None:
        """A blob that two repositories have is fetched once; a repository without it is not answered for by another."""
        image = make_image(6, (5000,))
        self.hub.push("library/one", image)
        self.hub.push("library/two", image)
        self.start()
        blob = image.layers[0]
        self.assertEqual(self.pull(f"none/blobs/{blob}").status, 404)
        replies = together(2, lambda number: self.pull(f"{('one', 'two')[number]}/blobs/{blob}"))
        self.assertEqual([reply.status for reply in replies], [200, 200])
        self.assertEqual(self.hub.blob_fetches(blob), 1)

    def test_uncacheable(self) -> None:
        """What a registry marks as private or no-store is kept all the same: its digest proves it."""
        image = make_image(9, (100,))
        self.hub.push("library/app", image, redirect=False)
        marked = {"Cache-Control": "private, no-store", "Vary": "*"}
        for resource in self.hub.registry._resources.values():
            resource.headers = {**resource.headers, **marked}
        self.start()
        self.pull_image("app", image)
        self.hub.stop()
        self.pull_image("app", image)

    def test_old_client(self) -> None:
        """A client that takes only single manifests is answered with what the registry has for it."""
        single = make_image(7, media_type=DOCKER_MANIFEST)
        index = make_index(single, media_type=DOCKER_LIST)
        self.hub.push("library/app", index)
        self.start()
        self.assertEqual(self.pull("app/manifests/latest").headers["content-type"], DOCKER_LIST)
        path = "/v2/library/app/manifests/latest"
        fields = {"Docker-Content-Digest": single.digest}
        self.hub.put(path, single.manifest, content_type=DOCKER_MANIFEST, headers=fields, etag=f'"{single.digest}"')
        reply = self.pull("app/manifests/latest", Accept=DOCKER_MANIFEST)
        self.assertEqual((reply.body, reply.headers["docker-content-digest"]), (single.manifest, single.digest))
        asked = [record.headers["accept"] for record in self.hub.registry.requests(path)]
        self.assertIn(DOCKER_LIST, asked[0])

    def test_lists(self) -> None:
        """Lists of tags come in pages whose links lead to the vault, in the form that the client asked in."""
        body = b'{"name":"library/app","tags":["a","b"]}'
        link = {"Link": '</v2/library/app/tags/list?last=b&n=2>; rel="next"'}
        self.hub.put("/v2/library/app/tags/list?n=2", body, content_type="application/json", headers=link, etag=None)
        self.start()
        for shape in ("/v2/app", "/v2/hub/library/app", "/hub/library/app"):
            reply = ask(self.vault.port, f"{shape}/tags/list?n=2")
            self.assertEqual((reply.status, reply.body), (200, body))
            self.assertEqual(reply.headers["link"], f'<{shape}/tags/list?last=b&n=2>; rel="next"')
        reply = ask(self.vault.port, "/v2/app/tags/list?ns=docker.io&n=2")
        self.assertEqual(reply.headers["link"], '</v2/app/tags/list?last=b&n=2&ns=docker.io>; rel="next"')
        self.assertEqual(len(self.hub.registry.requests("/v2/library/app/tags/list?n=2")), 2)

    def test_referrers(self) -> None:
        """Referrers are passed on with what was filtered; a registry without them is 404, so that clients go on."""
        digest = make_image(8).digest
        path = f"/v2/library/app/referrers/{digest}?artifactType=application%2Fx"
        body = b'{"schemaVersion":2,"manifests":[]}'
        self.hub.put(path, body, content_type=OCI_INDEX, headers={"OCI-Filters-Applied": "artifactType"}, etag=None)
        self.start()
        reply = self.pull(f"app/referrers/{digest}?artifactType=application/x")
        self.assertEqual((reply.status, reply.body, reply.headers["content-type"]), (200, body, OCI_INDEX))
        self.assertEqual(reply.headers["oci-filters-applied"], "artifactType")
        self.assertEqual(self.error(self.pull(f"other/referrers/{digest}")), "MANIFEST_UNKNOWN")


class RefusalTests(RegistryCase):
    """What is not given, and how that is said."""

    def test_malformed(self) -> None:
        """What can name nothing is refused with the registry's codes and never reaches the upstream."""
        self.start()
        table = {
            "UPPER/manifests/latest": (400, "NAME_INVALID"),
            "app/manifests/-tag": (400, "MANIFEST_INVALID"),
            "app/manifests/sha256:abc": (400, "DIGEST_INVALID"),
            "app/blobs/md5:" + 32 * "0": (400, "DIGEST_INVALID"),
            "app/blobs/latest": (400, "DIGEST_INVALID"),
            "_catalog": (404, "UNSUPPORTED"),
            "app/../x/manifests/latest": (400, "UNSUPPORTED"),
            "app/manifests/latest?ns=quay.io": (404, "NAME_UNKNOWN"),
            "quay.io/app/manifests/latest": (404, "NAME_UNKNOWN"),
            "hub/app/manifests/latest?ns=127.0.0.1:1": (404, "NAME_UNKNOWN"),
        }
        for path, expected in table.items():
            reply = self.pull(path)
            self.assertEqual((reply.status, self.error(reply)), expected, path)
        reply = ask(self.vault.port, "/hub/app%2Fx/manifests/latest")
        self.assertEqual((reply.status, self.error(reply)), (400, "UNSUPPORTED"))
        self.assertEqual(self.hub.registry.requests(), [])

    def test_push(self) -> None:
        """Nothing can be pushed or deleted: 405 with what is allowed."""
        self.start()
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            for path in ("/v2/app/blobs/uploads/", "/hub/v2/app/manifests/latest", "/v2/"):
                reply = ask(self.vault.port, path, method=method, body=b"x")
                self.assertEqual((reply.status, self.error(reply)), (405, "UNSUPPORTED"))
                self.assertEqual(reply.headers["allow"], "GET, HEAD")

    def test_ping(self) -> None:
        """The vault says that it is a registry, and asks nobody for a password, whatever they send."""
        self.start()
        for path in ("/v2/", "/v2", "/hub/v2/", "/hub/v2"):
            for method in ("GET", "HEAD"):
                reply = ask(self.vault.port, path, {"Authorization": "Basic Y2xpZW50OnNlY3JldA=="}, method)
                self.assertEqual(
                    (reply.status, reply.headers["docker-distribution-api-version"]), (200, "registry/2.0")
                )
                self.assertNotIn("www-authenticate", reply.headers)

    def test_unknown(self) -> None:
        """An image that is not there, or that the registry does not let the vault read, is 404."""
        self.hub.private.add("library/private")
        self.start()
        for name in ("absent", "private"):
            reply = self.pull(f"{name}/manifests/latest")
            self.assertEqual((reply.status, self.error(reply)), (404, "MANIFEST_UNKNOWN"))
        self.assertEqual(self.error(self.pull("absent/blobs/" + make_image(9).config)), "BLOB_UNKNOWN")

    def test_outage(self) -> None:
        """A registry that fails is 503 with Retry-After, in the registry's form; it is never 404."""
        self.start()
        for status in (500, 503, 429):
            self.hub.down = status
            reply = self.pull(f"app/manifests/tag-{status}")
            self.assertEqual((reply.status, self.error(reply)), (503, "UNAVAILABLE"))
            self.assert_retry_after(reply)

    def test_corrupt(self) -> None:
        """A manifest or blob with wrong bytes is never given whole and never kept."""
        image = make_image(10, (50_000,))
        self.hub.push("library/app", image)
        manifest = f"/v2/library/app/manifests/{image.digest}"
        wrong = Literal(image.manifest.replace(b"2", b"3"))
        for path in (manifest, "/v2/library/app/manifests/latest"):
            fields = {"Docker-Content-Digest": image.digest}
            self.hub.put(
                path, image.manifest, content_type=OCI_MANIFEST, headers=fields, script=[Answer(content=wrong)]
            )
        blob = image.layers[0]
        data = image.blobs[blob]
        script = [Answer(content=Literal(data[:-1] + b"?"))]
        self.hub.storage.put(f"/{blob}", content=data, etag=None, last_modified=None, script=script)
        self.start()
        for path in (f"app/manifests/{image.digest}", "app/manifests/latest"):
            self.assertEqual(self.error(self.pull(path)), "UNKNOWN")
            self.assertEqual(self.pull(path).body, image.manifest)
        reply = self.pull(f"app/blobs/{blob}")
        self.assertFalse(reply.whole)
        self.assertLess(len(reply.body), len(data))
        self.pull_image("app", image)

    def test_large_manifest(self) -> None:
        """A manifest of more than 4 MiB is refused, as clients would."""
        self.hub.put("/v2/library/app/manifests/latest", 5 * MIB * b" ", content_type=OCI_MANIFEST)
        self.start()
        self.assertEqual(self.pull("app/manifests/latest").status, 502)


class TokenTests(RegistryCase):
    """Who the vault is for the registry."""

    def test_cached(self) -> None:
        """A repository's token is fetched once, for any number of requests at the same time and after."""
        image = make_image(11, (100, 200, 300, 400))
        self.hub.push("library/app", image)
        self.hub.tokens.delay = 0.3
        self.start()
        together(8, lambda number: self.pull(f"app/blobs/{sorted(image.blobs)[number % len(image.blobs)]}"))
        self.pull_image("app", image)
        self.assertEqual(self.hub.tokens.count, 1)
        query = self.hub.tokens.requests("/token")[0].target.partition("?")[2]
        self.assertEqual(query, "service=registry%2C+of+tests&scope=repository%3Alibrary%2Fapp%3Apull")

    def test_revoked(self) -> None:
        """A token that the registry no longer takes is replaced by one new one."""
        image = make_image(12)
        self.hub.push("library/app", image)
        self.start()
        self.pull("app/manifests/latest")
        self.hub.revoked.update(self.hub.tokens.scopes)
        self.pull_image("app", image)
        self.assertEqual(self.hub.tokens.count, 2)

    def test_login(self) -> None:
        """User name and password go to the token server and to nobody else; they and tokens are in no log."""
        image = make_image(13)
        self.hub.push("library/app", image)
        self.hub.tokens.login = ("somebody", "secret-password")
        self.start(username="somebody", password="secret-password")
        self.pull_image("app", image)
        for record in [*self.hub.registry.requests(), *self.hub.storage.requests()]:
            self.assertFalse(record.headers.get("authorization", "").startswith("Basic"), record.target)
        for record in self.hub.storage.requests():
            self.assertNotIn("authorization", record.headers)
        for secret in ("secret-password", "token-1", "c29tZWJvZHk", "secret-signature"):
            self.assertNotIn(secret, self.vault.whole_log())

    def test_wrong_login(self) -> None:
        """A password that the token server refuses is told as that, not as a missing image."""
        self.hub.push("library/app", make_image(14))
        self.hub.tokens.login = ("somebody", "right")
        self.start(username="somebody", password="wrong")
        reply = self.pull("app/manifests/latest")
        self.assertEqual(reply.status, 502)
        self.assertIn(b"username and password", reply.body)

    def test_basic(self) -> None:
        """A registry that asks for Basic itself gets user name and password; the storage it redirects to does not."""
        image = make_image(15)
        self.hub.push("team/app", image)
        self.hub.login = ("somebody", "secret")
        self.start(username="somebody", password="secret", namespace="registry.example")
        self.pull_image("team/app", image)
        self.assertEqual(self.hub.tokens.count, 0)
        self.assertEqual(len([one for one in self.hub.registry.requests() if one.status == 401]), 1)
        for record in self.hub.storage.requests():
            self.assertNotIn("authorization", record.headers)

    def test_basic_together(self) -> None:
        """The first requests that a registry asks for user name and password all succeed."""
        names = [f"team/app{number}" for number in range(6)]
        for number, name in enumerate(names):
            self.hub.push(name, make_image(50 + number))
        self.hub.login = ("somebody", "secret")
        self.start(username="somebody", password="secret", namespace="registry.example")
        replies = together(6, lambda number: self.pull(f"{names[number]}/manifests/latest"))
        self.assertEqual([reply.status for reply in replies], 6 * [200])
        self.assertGreater(len([one for one in self.hub.registry.requests() if one.status == 401]), 1)

    def test_configured_field(self) -> None:
        """Credentials in a configured field tell a hidden image from a vault that is refused, as a token does."""
        image = make_image(34)
        self.hub.tokens_wanted = False
        self.hub.push("team/app", image)
        self.hub.put("/v2/team/hidden/manifests/latest", b"{}", default=Answer(status=403))
        self.start(headers={"Authorization": "Bearer secret"})
        self.pull_image("team/app", image)
        reply = self.pull("team/hidden/manifests/latest")
        self.assertEqual((reply.status, self.error(reply)), (404, "MANIFEST_UNKNOWN"))
        for record in self.hub.registry.requests():
            self.assertEqual(record.headers["authorization"], "Bearer secret")
        for record in self.hub.storage.requests():
            self.assertNotIn("authorization", record.headers)

    def test_client_authorization(self) -> None:
        """A client's own Authorization is neither used, passed on nor logged."""
        image = make_image(16)
        self.hub.push("library/app", image)
        self.start()
        secret = "Bearer client-secret"
        self.assertEqual(self.pull("app/manifests/latest", Authorization=secret).status, 200)
        for origin in (self.hub.registry, self.hub.tokens, self.hub.storage):
            self.assertNotIn(secret, [record.headers.get("authorization") for record in origin.requests()])
        self.assertNotIn("client-secret", self.vault.whole_log())

    def test_token_server_down(self) -> None:
        """A token server that fails is an outage; what is kept is served."""
        image = make_image(17)
        self.hub.push("library/app", image)
        self.start()
        self.pull_image("app", image)
        self.hub.revoked.update(self.hub.tokens.scopes)
        self.hub.tokens.status = 503
        self.assertEqual(self.pull("other/manifests/latest").status, 503)
        self.pull_image("app", image)


class KeptTests(RegistryCase):
    """What is served while the registry does not."""

    def kept(self, seed: int) -> Image:
        """An image that was pulled whole."""
        image = make_image(seed)
        self.hub.push("library/app", image)
        self.start()
        self.pull_image("app", image)
        return image

    def test_failures(self) -> None:
        """Whatever the registry answers instead, an image that was pulled is served again."""
        image = self.kept(20)
        for status in (401, 403, 404, 500):
            self.hub.down = status
            self.pull_image("app", image)
            self.assertEqual(self.pull("app/manifests/latest").cache, "STALE")

    def test_incomplete(self) -> None:
        """A manifest is only served when its blobs can be had: kept, or from a registry that answers."""
        image = make_image(21)
        index = make_index(image)
        self.hub.push("library/app", index)
        self.start()
        for reference in ("latest", image.digest):
            self.assertEqual(self.pull(f"app/manifests/{reference}").status, 200)
        self.pull(f"app/blobs/{image.config}")
        self.hub.down = 503
        for reference in ("latest", image.digest):
            reply = self.pull(f"app/manifests/{reference}")
            self.assertEqual((reply.status, self.error(reply)), (503, "UNAVAILABLE"))
        self.hub.down = None
        for digest in image.blobs:
            eventually(lambda digest=digest: self.pull(f"app/blobs/{digest}").status == 200, 15, "an end of the pause")
        self.hub.down = 503
        for reference in ("latest", image.digest):
            path = f"app/manifests/{reference}"
            eventually(lambda path=path: self.pull(path).status == 200, 5, "a stored last blob")

    def test_moved_to_corrupt(self) -> None:
        """A tag that has moved to a manifest with wrong bytes is served as it was."""
        image = self.kept(24)
        new = make_image(25)
        fields = {"Docker-Content-Digest": new.digest}
        wrong = new.manifest.replace(b"2", b"3")
        self.hub.put("/v2/library/app/manifests/latest", wrong, content_type=OCI_MANIFEST, headers=fields, etag='"x"')
        for _ in range(2):
            reply = self.pull("app/manifests/latest")
            self.assertEqual((reply.status, reply.body, reply.cache), (200, image.manifest, "STALE"))
            self.assertEqual(reply.headers["docker-content-digest"], image.digest)

    def test_few_pulls_left(self) -> None:
        """With few pulls left, tags are served as they are kept, without asking."""
        image = make_image(22)
        self.hub.push("library/app", image)
        self.hub.push("library/app", image, "other")
        self.hub.remaining = 6
        self.start()
        self.pull("app/manifests/latest")  # leaves 5
        asked = len(self.hub.registry.requests())
        self.assertEqual(self.pull("app/manifests/latest").body, image.manifest)
        self.assertEqual(len(self.hub.registry.requests()), asked)
        self.vault.wait_for_log("docker.io has 5 of 100 pulls left")
        self.assertEqual(self.pull("app/manifests/other").status, 200)  # not kept: it has to be asked for
        self.hub.remaining = 0
        self.assertEqual(self.pull("app/manifests/third").status, 503)
        self.assertNotIn("ratelimit-remaining", self.pull("app/manifests/latest").headers)

    def test_offline(self) -> None:
        """A backend that is offline serves what it has and asks nobody."""
        image = self.kept(23)
        self.vault.terminate()
        self.vault.write_config(backends=[self.registry(offline=True)])
        self.vault.start()
        asked = len(self.hub.registry.requests())
        self.pull_image("app", image)
        self.assertEqual(self.pull("absent/manifests/latest").status, 503)
        self.assertEqual(len(self.hub.registry.requests()), asked)


class SeveralTests(RegistryCase):
    """Several registries behind one vault."""

    def test_backends(self) -> None:
        """Backends of one vault are told apart by prefix, by namespace and by ns."""
        other = self.start_hub(tokens_wanted=False)
        first, second = make_image(30), make_image(31)
        self.hub.push("library/app", first)
        other.push("library/app", second)
        self.start(self.registry(other, "/other/", namespace=None))
        table = {
            "library/app": first,
            "hub/library/app": first,
            "other/library/app": second,
            f"{other.host}/library/app": second,
        }
        for name, image in table.items():
            self.assertEqual(self.pull(f"{name}/manifests/latest").body, image.manifest, name)
        escaped = other.host.replace(":", "%3A")
        for path in (f"library/app/manifests/latest?ns={escaped}", f"hub/library/app/manifests/latest?ns={escaped}"):
            reply = self.pull(path)
            self.assertEqual((reply.body, reply.headers["oci-namespace"]), (second.manifest, other.host))
        reply = ask(self.vault.port, f"/hub/v2/library/app/manifests/latest?ns={escaped}", MODERN)
        self.assertEqual(reply.body, second.manifest)

    def test_another_registry(self) -> None:
        """A backend that is given another registry does not serve what is kept of the old one's tags and lists."""
        other = self.start_hub(tokens_wanted=False)
        old, new = make_image(35), make_image(36)
        for hub, image in ((self.hub, old), (other, new)):
            hub.push("library/app", image)
            tags = json.dumps({"name": "library/app", "tags": [image.digest[7:]]}).encode()
            hub.put("/v2/library/app/tags/list", tags, content_type="application/json")
        for name in ("old", "older"):
            self.hub.push(f"library/{name}", old)
        self.start(ttl=600)
        for name in ("app", "old", "older"):
            self.pull_image(name, old)
        self.assertIn(old.digest[7:].encode(), self.pull("app/tags/list").body)
        self.vault.write_config(backends=[self.registry(other, ttl=600)])
        self.vault.signal(signal.SIGHUP)
        eventually(lambda: "was read again" in self.vault.log(), what="a reload")
        self.pull_image("app", new)
        self.assertIn(new.digest[7:].encode(), self.pull("app/tags/list").body)
        self.assertEqual(self.pull("old/manifests/latest").status, 404)
        other.stop()
        self.pull_image("app", new)
        self.assertEqual(self.pull("older/manifests/latest").status, 503)

    def several(self) -> Hub:
        """A vault with two registries behind one prefix; gives the second."""
        second = self.start_hub(tokens_wanted=False)
        parts = [{"registry_url": self.hub.url}, {"registry_url": second.url}]
        self.start(registry_url=None, namespace=None, repositories=parts)
        return second

    def test_first_wins(self) -> None:
        """The first registry that has an image gives it; 404 and refusals mean that it has not."""
        one, two = make_image(32), make_image(33)
        self.hub.push("team/both", one)
        self.hub.private.add("team/hidden")
        second = self.several()
        for name in ("both", "only", "hidden"):
            second.push(f"team/{name}", two)
        self.pull_image("team/both", one)
        self.pull_image("team/only", two)
        self.pull_image("team/hidden", two)
        self.assertEqual(second.registry.requests("/v2/team/both/manifests/latest"), [])
        asked = len(self.hub.registry.requests())
        self.pull_image("team/only", two)  # where it was found is remembered
        self.assertEqual(len(self.hub.registry.requests()), asked)
        self.assertEqual(self.pull("team/none/manifests/latest").status, 404)
        for host, image in ((self.hub.host, one), (second.host, two)):
            self.assertEqual(self.pull(f"team/both/manifests/latest?ns={host}").body, image.manifest)
        self.assertEqual(self.pull(f"team/only/manifests/latest?ns={self.hub.host}").status, 404)

    def test_outage(self) -> None:
        """An outage of the first is no leave to ask the second, but what is kept of any is served."""
        image = make_image(34)
        second = self.several()
        second.push("team/app", image)
        second.push("team/new", image)
        self.pull_image("team/app", image)
        self.hub.down = 500
        self.assertEqual(self.pull("team/new/manifests/latest").status, 503)
        self.vault.terminate()
        self.vault.start()  # and nothing is remembered
        self.pull_image("team/app", image)


class LargeTests(RegistryCase):
    """Layers that take a while."""

    def layer(self, size: int, **settings: Any) -> tuple[str, bytes]:
        """A layer in the storage."""
        data = bytes(range(256)) * (size // 256)
        digest = digest_of(data)
        target = Answer(redirect=f"{self.hub.storage.url}/{digest}")
        self.hub.put(f"/v2/library/app/blobs/{digest}", b"", default=target)
        self.hub.storage.put(f"/{digest}", content=data, etag='"s"', last_modified=None, **settings)
        return digest, data

    def test_headers_at_once(self) -> None:
        """The head of a cold layer comes at once, its bytes as they come, and a client that leaves ends nothing."""
        release = threading.Event()
        digest, data = self.layer(4 * MIB, script=[Answer(stall_after=MIB, release=release)])
        self.start(idle_timeout=20)
        began = time.monotonic()
        stream = Stream(self.vault.port, f"/v2/app/blobs/{digest}", {"Range": "bytes=0-"})
        self.assertLess(time.monotonic() - began, 3)
        self.assertEqual(
            (stream.status, stream.headers["content-range"]), (206, f"bytes 0-{len(data) - 1}/{len(data)}")
        )
        self.assertEqual(stream.read(MIB // 2), data[: MIB // 2])
        stream.close()  # as containerd does with parallel ranges
        release.set()
        reply = self.pull(f"app/blobs/{digest}", Range=f"bytes={3 * MIB}-")
        self.assertEqual((reply.status, reply.body), (206, data[3 * MIB :]))
        self.assertEqual(reply.headers["content-range"], f"bytes {3 * MIB}-{len(data) - 1}/{len(data)}")
        self.assertEqual(self.pull(f"app/blobs/{digest}").body, data)
        whole = [record for record in self.hub.storage.requests(f"/{digest}", "GET") if "range" not in record.headers]
        self.assertEqual(len(whole), 1)

    def test_several_ranges(self) -> None:
        """A request for several ranges, as for partial layers, has all of them in one answer."""
        digest, data = self.layer(MIB)
        self.start()
        self.pull(f"app/blobs/{digest}")
        reply = self.pull(f"app/blobs/{digest}", Range="bytes=0-9,100-199")
        self.assertEqual(reply.status, 206)
        self.assertEqual([body for _, body in parts_of(reply)], [data[:10], data[100:200]])
        reply = self.pull(f"app/blobs/{digest}", Range=f"bytes={MIB}-")
        self.assertEqual((reply.status, self.error(reply)), (416, "RANGE_INVALID"))
        self.assertEqual(reply.headers["content-range"], f"bytes */{MIB}")

    def test_dropped(self) -> None:
        """A storage that drops the connection is gone on with, and the client does not notice."""
        digest, data = self.layer(2 * MIB, script=[Answer(drop_after=MIB)])
        self.start()
        self.assert_whole(self.pull(f"app/blobs/{digest}"), Literal(data))
        self.assertIn(f"bytes={MIB}-", [record.headers.get("range") for record in self.hub.storage.requests()])
