"""``type: dockerhub``: what its configuration means, what a path stands for, and how tokens are had."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from vault.artifact import Digest, Head, Headers
from vault.backends._oci_heads import for_blob, for_listing, for_manifest
from vault.backends._oci_recipes import Recipe
from vault.backends._oci_registry import RateLimit, Registry, promised_digest, same_manifest
from vault.backends._oci_tokens import Login, NoToken, TokenRefused, Tokens
from vault.backends.oci import OCIBackend
from vault.config import load
from vault.errors import BrokenAnswer, ConfigError, Missing, Overloaded, Refused, VaultError
from vault.formats.oci_names import read_path
from vault.interfaces import IBackend, IRecipe, IRegistryBackend
from vault.outcome import Found, How
from vault.store.body import MemoryBody

HEX = 64 * "a"
SHA = f"sha256:{HEX}"


def registry(**changes: Any) -> Registry:
    """Docker Hub, as a member of the backend ``hub``."""
    settings: dict[str, Any] = {
        "name": "hub", "prefix": "/hub/", "backend": "hub", "url": "https://registry-1.docker.io/",
        "namespace": "docker.io", **changes,
    }  # fmt: skip
    return Registry(**settings)


class ArtifactTests(SynchronousTestCase):
    """Paths and what they stand for."""

    def test_interface(self) -> None:
        """A registry is a backend."""
        self.assertTrue(verifyObject(IBackend, registry()))

    def test_keys(self) -> None:
        """What is named by its digest has one key in a backend; the URL names the repository asked."""
        table = {
            f"team/app/blobs/{SHA}": (f"hub/blobs/sha256/{HEX}", f"team/app/blobs/{SHA}"),
            f"app/blobs/{SHA}": (f"hub/blobs/sha256/{HEX}", f"library/app/blobs/{SHA}"),
            f"app/manifests/{SHA}": (f"hub/manifests/sha256/{HEX}", f"library/app/manifests/{SHA}"),
            "app/manifests/latest": ("hub/library/app/manifests/latest", "library/app/manifests/latest"),
            "app/tags/list?n=1": ("hub/library/app/tags/list?n=1", "library/app/tags/list?n=1"),
        }
        for path, (key, url) in table.items():
            artifact: Any = registry().resolve(path, {})
            self.assertEqual((artifact.key, artifact.urls), (key, ("https://registry-1.docker.io/v2/" + url,)), path)

    def test_elsewhere(self) -> None:
        """Only Docker Hub has a library."""
        other = registry(namespace="quay.io", url="https://quay.io/")
        artifact: Any = other.resolve("app/manifests/latest", {})
        self.assertEqual(artifact.urls, ("https://quay.io/v2/app/manifests/latest",))

    def test_tiers(self) -> None:
        """A tag is fresh by the first pattern that it is like."""
        tiered = registry(ttl=60.0, tiers=(("latest", 5.0), ("v*.*.*", 86400.0)))
        table = {"latest": 5.0, "v1.2.3": 86400.0, "v1": 60.0}
        for tag, seconds in table.items():
            self.assertEqual(tiered.tag(read_path(f"app/manifests/{tag}"), None).max_age, seconds)

    def test_narrow(self) -> None:
        """A client that takes less has an entry of its own for a tag."""
        resource = read_path("app/manifests/latest")
        narrow = registry().tag(resource, frozenset({"b", "a"}))
        self.assertEqual(narrow.key, "hub/library/app/manifests/latest?accept=a,b")
        self.assertEqual(narrow.headers, (("Accept", "a, b"),))

    def test_digests(self) -> None:
        """A tag is confirmed by the digest that HEAD tells; Docker's old signed manifests prove nothing."""
        one, other = (Head(headers=(("Docker-Content-Digest", f"sha256:{64 * digit}"),)) for digit in "01")
        self.assertTrue(same_manifest(one, one))
        self.assertFalse(same_manifest(one, other))
        self.assertFalse(same_manifest(one, Head()))
        signed = ("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
        self.assertIsNone(promised_digest(Head(headers=(*one.headers, signed))))
        modern = ("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        self.assertEqual(promised_digest(Head(headers=(*one.headers, modern))), Digest("sha256", 64 * "0"))


class HeadTests(SynchronousTestCase):
    """What clients get of a registry's fields."""

    def test_between_two(self) -> None:
        """What is between the vault and the registry is not told to clients: challenges, limits, the API's version."""
        names = (
            "WWW-Authenticate", "Authentication-Info", "RateLimit-Limit", "RateLimit-Remaining",
            "Docker-RateLimit-Source", "Docker-Distribution-Api-Version", "Vary",
        )  # fmt: skip
        fields = (("X-Kept", "x"), *((name, "x") for name in names))
        found = Found(MemoryBody(Head(headers=fields), b"{}"), How.MISS)
        digest = Digest.parse(SHA)
        for head in (for_manifest(found, digest, None), for_blob(found, digest), for_listing(found)):
            self.assertEqual([name for name in ("X-Kept", *names) if head.get(name) is not None], ["X-Kept"])


class LimitTests(SynchronousTestCase):
    """What a registry says of its limits."""

    def head(self, remaining: str, at: float = 1000.0) -> Head:
        """An answer with the fields of Docker Hub."""
        fields = (("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", remaining))
        return Head(headers=(*fields, ("docker-ratelimit-source", "192.0.2.1")), received_at=at)

    def test_read(self) -> None:
        """Limit, remainder, window and source are there to be exported; nonsense changes nothing."""
        limit = RateLimit()
        limit.hear(self.head("76;w=21600"))
        expected = RateLimit(100, 76, 21600, "192.0.2.1", 1000.0)
        self.assertEqual(limit, expected)
        for other in (Head(), self.head("many")):
            limit.hear(other)
            self.assertEqual(limit, expected)

    def test_exported(self) -> None:
        """Monitoring is told the limit and the remainder of each registry that has said them."""
        hub = registry()
        backend = OCIBackend("hub", "/hub/", (hub, registry(namespace="quiet.test")), ())
        self.assertEqual(list(backend.figures()), [])
        hub.heard(cast(Any, hub.resolve("app/manifests/latest", {})), self.head("76;w=21600"))
        found = {(figure.name, figure.labels["registry"]): figure.value for figure in backend.figures()}
        self.assertEqual(found, {("ratelimit_remaining", "docker.io"): 76, ("ratelimit_limit", "docker.io"): 100})

    def test_exported_once(self) -> None:
        """Two accounts at one registry are one series, that of the account with the least left."""
        for first, second in ((0, 1), (1, 0)):
            accounts = registry(now=lambda: 1000.0), registry(now=lambda: 1000.0)
            backend = OCIBackend("hub", "/hub/", (*accounts, registry(namespace="other.test", now=lambda: 1000.0)), ())
            artifact: Any = accounts[0].resolve("app/manifests/latest", {})
            accounts[first].heard(artifact, self.head("76;w=21600"))
            accounts[second].heard(artifact, self.head("7;w=21600"))
            for each, wait in zip(backend.registries, ("20", "30", "40"), strict=True):
                each.heard(artifact, Head(429, (("Retry-After", wait),), received_at=1000.0))
            found = [(one.name, one.labels["registry"], one.value) for one in backend.figures()]
            expected = [
                ("ratelimit_limit", "docker.io", 100),
                ("ratelimit_remaining", "docker.io", 7),
                ("ratelimit_retry_after_seconds", "docker.io", 30.0),
                ("ratelimit_retry_after_seconds", "other.test", 40.0),
            ]
            self.assertEqual(sorted(found), expected)

    def test_retry_after_exported(self) -> None:
        """Monitoring is told for how long a registry that has refused wants to be left alone; 0 when that is over."""
        now = [1000.0]
        hub = registry(now=lambda: now[0])
        backend = OCIBackend("hub", "/hub/", (hub,), ())
        artifact: Any = hub.resolve("app/manifests/latest", {})
        for status, expected in ((200, []), (404, []), (429, [30.0]), (200, [30.0])):
            hub.heard(artifact, Head(status, (("Retry-After", "30"),), received_at=1000.0))
            self.assertEqual([figure.value for figure in backend.figures()], expected, status)
        now[0] = 1020.0
        self.assertEqual(
            [(one.name, one.value) for one in backend.figures()], [("ratelimit_retry_after_seconds", 10.0)]
        )
        now[0] = 1031.0
        self.assertEqual([figure.value for figure in backend.figures()], [0.0])

    def test_reserve(self) -> None:
        """Near zero, tags are left alone for a while; then one request tells how it stands."""
        hub = registry(reserve=5)
        artifact: Any = hub.resolve("app/manifests/latest", {})
        hub.heard(artifact, self.head("6"))
        self.assertFalse(hub.short_of_pulls(1000.0))
        hub.heard(artifact, self.head("5"))
        self.assertTrue(hub.short_of_pulls(1299.0))
        self.assertFalse(hub.short_of_pulls(1301.0))
        hub.heard(artifact, self.head("90", 1301.0))
        self.assertFalse(hub.short_of_pulls(1301.0))

    def test_contact(self) -> None:
        """A registry that has answered can be asked; one that has failed cannot, for a while."""
        hub = registry()
        artifact: Any = hub.resolve("app/manifests/latest", {})
        for status, answers in ((200, True), (404, True), (503, False), (429, False)):
            hub.failed(900.0)
            hub.heard(artifact, Head(status, received_at=1000.0))
            self.assertEqual(hub.answers(1009.0), answers, status)
        self.assertFalse(hub.answers(1100.0))
        self.assertEqual([hub.resting(905.0), hub.resting(1000.0)], [True, False])

    def test_denials(self) -> None:
        """404, and 401 or 403 in spite of a token, mean that an image is not here; an outage does not.

        Nor does a refusal of whoever sends no token: that may be of the vault's address, or want a login.
        """
        hub = registry()
        self.assertTrue(hub.denies(Missing("x")))
        self.assertTrue(hub.denies(Refused("x", with_credentials=True)))
        self.assertTrue(hub.denies(NoToken("x")))
        self.assertFalse(hub.denies(Refused("x")))
        self.assertFalse(hub.denies(TokenRefused("x")))
        self.assertFalse(hub.denies(Overloaded("x")))
        self.assertFalse(hub.denies(BrokenAnswer("x")))


class TokenServer:
    """Answers ``ask``; ``asked`` has the URLs and fields."""

    def __init__(self, status: int = 200, body: bytes | None = None) -> None:
        self.asked: list[tuple[str, Headers]] = []
        self.waiting: list[Deferred[tuple[Head, bytes]]] = []
        self.held = False
        self.status = status
        self.body = body
        self.refused = "nothing"

    def __call__(self, url: str, headers: Headers) -> Deferred[tuple[Head, bytes]]:
        self.asked.append((url, headers))
        answer: Deferred[tuple[Head, bytes]] = Deferred()
        self.waiting.append(answer)
        if not self.held:
            self.release()
        return answer

    def release(self) -> None:
        """Answer what waits."""
        waiting, self.waiting = self.waiting, []
        for answer in waiting:
            body = self.body or json.dumps({"token": f"t{len(self.asked)}", "expires_in": 300}).encode()
            status = 401 if self.refused in self.asked[-1][0] else self.status
            answer.callback((Head(status), body))


CHALLENGE = 'Bearer realm="https://auth.test/token?x=y",service="s, t",scope="repository:library/app:pull"'


class TokenTests(SynchronousTestCase):
    """``Tokens``."""

    def setUp(self) -> None:
        self.time = 1000.0

    def tokens(self, login: Login | None = None, fallback: str | None = None) -> Tokens:
        """The tokens of a registry."""
        return Tokens(login, lambda: self.time, fallback, "registry.test")

    def answer(
        self, tokens: Tokens, server: TokenServer, challenge: str = CHALLENGE, key: str = "k"
    ) -> Deferred[Headers]:
        """What answers a challenge."""
        return ensureDeferred(tokens.answer("library/app", key, challenge, server))

    def test_scope(self) -> None:
        """The token is asked for with the service and the scope that the challenge names."""
        server = TokenServer()
        given = self.successResultOf(self.answer(self.tokens(), server))
        self.assertEqual(given, (("Authorization", "Bearer t1"),))
        url, fields = server.asked[0]
        self.assertEqual(url, "https://auth.test/token?x=y&service=s%2C+t&scope=repository%3Alibrary%2Fapp%3Apull")
        self.assertNotIn("Authorization", dict(fields))

    def test_kept(self) -> None:
        """A token is used at once until a minute before its end, for its repository alone."""
        tokens, server = self.tokens(), TokenServer()
        self.assertEqual(tokens.at_once("library/app", "k"), ())
        self.successResultOf(self.answer(tokens, server))
        self.assertEqual(tokens.at_once("library/app", "k"), (("Authorization", "Bearer t1"),))
        self.assertEqual(tokens.at_once("library/other", "k"), ())
        self.time += 239
        self.assertEqual(tokens.at_once("library/app", "k"), (("Authorization", "Bearer t1"),))
        self.time += 2
        self.assertEqual(tokens.at_once("library/app", "k"), ())

    def test_refused(self) -> None:
        """A token that is refused is replaced once for all who used it."""
        tokens, server = self.tokens(), TokenServer()
        self.successResultOf(self.answer(tokens, server))
        for key in ("a", "b"):
            tokens.at_once("library/app", key)
        for key in ("a", "b"):
            given = self.successResultOf(self.answer(tokens, server, key=key))
            self.assertEqual(given, (("Authorization", "Bearer t2"),))
        self.assertEqual(len(server.asked), 2)

    def test_together(self) -> None:
        """All who need the same token wait for one request; who leaves does not end it for the others."""
        tokens, server = self.tokens(), TokenServer()
        server.held = True
        waiting = [self.answer(tokens, server, key=str(number)) for number in range(3)]
        waiting[0].cancel()
        self.failureResultOf(waiting[0])
        server.release()
        self.assertEqual([self.successResultOf(one)[0][1] for one in waiting[1:]], ["Bearer t1", "Bearer t1"])
        self.assertEqual(len(server.asked), 1)

    def test_login(self) -> None:
        """User name and password go to the token server, and to a registry only where it asks for them."""
        tokens, server = self.tokens(Login("me", "secret")), TokenServer()
        self.successResultOf(self.answer(tokens, server))
        self.assertEqual(dict(server.asked[0][1])["Authorization"], "Basic bWU6c2VjcmV0")
        self.assertEqual(tokens.at_once("library/app", "k")[0][1], "Bearer t1")
        basic = self.tokens(Login("me", "secret"))
        self.assertEqual(basic.at_once("library/app", "k"), ())
        given = self.successResultOf(self.answer(basic, server, 'Basic realm="r"'))
        self.assertEqual(given, (("Authorization", "Basic bWU6c2VjcmV0"),))
        self.assertEqual(basic.at_once("library/other", "k"), given)
        self.assertEqual(self.successResultOf(self.answer(basic, server, 'Basic realm="r"')), ())
        self.assertNotIn("secret", repr(Login("me", "secret")))

    def test_refused_login(self) -> None:
        """A login that the token server does not take is not sent again for a minute, whatever is asked for."""
        tokens, server = self.tokens(Login("me", "secret")), TokenServer(401)
        for name in ("library/app", "library/other"):
            self.failureResultOf(ensureDeferred(tokens.answer(name, "k", CHALLENGE, server)), TokenRefused)
        self.assertEqual(len(server.asked), 1)
        self.time += 61
        self.failureResultOf(self.answer(tokens, server), TokenRefused)
        self.time -= 61  # the clock was set back: nobody knows how long ago that was
        self.failureResultOf(self.answer(tokens, server), TokenRefused)
        self.assertEqual(len(server.asked), 3)

    def test_refused_scope(self) -> None:
        """Where the login has been taken, a refusal is about one repository, and keeps nobody from the others."""
        tokens, server = self.tokens(Login("me", "secret")), TokenServer()
        self.successResultOf(self.answer(tokens, server))
        server.status = 401
        for _ in range(2):
            refused = self.answer(tokens, server, CHALLENGE.replace("library/app", "team/private"))
            self.failureResultOf(refused, NoToken)
        self.assertEqual(len(server.asked), 2)
        server.status = 200
        given = self.successResultOf(self.answer(tokens, server, CHALLENGE.replace("library/app", "team/app")))
        self.assertEqual(given[0][0], "Authorization")

    def test_login_no_longer_taken(self) -> None:
        """A login that was taken, and with which repository after repository is refused, is not sent on and on."""
        tokens, server = self.tokens(Login("me", "secret")), TokenServer()
        self.successResultOf(self.answer(tokens, server))
        server.status = 401
        kinds = []
        for number in range(20):
            refused = self.answer(tokens, server, CHALLENGE.replace("library/app", f"team/{number}"))
            kinds.append(type(self.failureResultOf(refused).value))
        self.assertEqual(kinds, 3 * [NoToken] + 17 * [TokenRefused])
        self.assertEqual(len(server.asked), 6)

    def test_login_no_longer_taken_for_one(self) -> None:
        """So it is where one repository is asked for again and again."""
        tokens, server = self.tokens(Login("me", "secret")), TokenServer()
        self.successResultOf(self.answer(tokens, server))
        server.status = 401
        kinds = []
        for _ in range(5):
            self.time += 61
            refused = self.answer(tokens, server, CHALLENGE.replace("library/app", "team/app"))
            kinds.append(type(self.failureResultOf(refused).value))
        self.assertEqual(kinds, 3 * [NoToken] + 2 * [TokenRefused])

    def test_refused_together(self) -> None:
        """However many are refused at once, the login is sent alone once, and all are told what comes of that."""
        for status, kind in ((401, TokenRefused), (200, NoToken)):
            tokens, server = self.tokens(Login("me", "secret")), TokenServer()
            self.successResultOf(self.answer(tokens, server))
            for number in range(3):
                server.status = 401
                self.failureResultOf(self.answer(tokens, server, CHALLENGE.replace("library/app", f"a/{number}")))
            server.held = True
            waiting = [
                self.answer(tokens, server, CHALLENGE.replace("library/app", f"team/{number}")) for number in range(20)
            ]
            server.release()
            self.assertEqual(len(server.asked), 25)
            server.status = status
            server.release()
            self.assertEqual({type(self.failureResultOf(one).value) for one in waiting}, {kind})
            self.assertEqual(len(server.asked), 25)

    def test_login_still_taken(self) -> None:
        """A login that the server takes by itself goes on being sent, however many repositories it is refused for."""
        tokens, server = self.tokens(Login("me", "secret")), TokenServer()
        self.successResultOf(self.answer(tokens, server))
        server.refused = "team%2F"
        for number in range(20):
            refused = self.answer(tokens, server, CHALLENGE.replace("library/app", f"team/{number % 10}"))
            self.failureResultOf(refused, NoToken)
        self.successResultOf(self.answer(tokens, server, CHALLENGE.replace("library/app", "library/other")))

    def test_first_logins(self) -> None:
        """All that were sent before the registry first asked for a password are given it; each is refused once."""
        tokens, server = self.tokens(Login("me", "secret")), TokenServer()
        keys = ("a", "b", "c")
        for key in keys:
            self.assertEqual(tokens.at_once("library/app", key), ())
        for key in keys:
            given = self.successResultOf(self.answer(tokens, server, 'Basic realm="r"', key))
            self.assertEqual(given, (("Authorization", "Basic bWU6c2VjcmV0"),), key)
            tokens.answered(key, 200)
        self.assertFalse(tokens.wrong_login)
        for key in keys:
            self.assertEqual(tokens.at_once("library/app", key), given)
        for key in keys:
            self.assertEqual(self.successResultOf(self.answer(tokens, server, 'Basic realm="r"', key)), (), key)
        self.assertEqual(server.asked, [])

    def test_bearer_after_basic(self) -> None:
        """A registry that once asked for the password itself and now for a token is no longer sent the password."""
        tokens, server = self.tokens(Login("me", "secret")), TokenServer()
        self.successResultOf(self.answer(tokens, server, 'Basic realm="r"'))
        self.successResultOf(self.answer(tokens, server))
        self.assertEqual(tokens.at_once("library/app", "k"), (("Authorization", "Bearer t1"),))

    def test_fallback(self) -> None:
        """A 401 without a challenge is answered by the token server of the configuration."""
        tokens, server = self.tokens(fallback="https://auth.test/token"), TokenServer()
        self.successResultOf(self.answer(tokens, server, ""))
        self.assertIn("service=registry.test&scope=repository%3Alibrary%2Fapp%3Apull", server.asked[0][0])
        self.assertEqual(self.successResultOf(self.answer(self.tokens(), server, "")), ())

    def test_failures(self) -> None:
        """What a token server answers else is told by kind, without a secret."""
        login = Login("me", "secret")
        table: list[tuple[Login | None, int, bytes | None, type[VaultError]]] = [
            (login, 401, None, TokenRefused),
            (login, 403, None, NoToken),
            (login, 400, None, BrokenAnswer),
            (login, 404, None, BrokenAnswer),
            (None, 401, None, NoToken),
            (None, 403, None, NoToken),
            (None, 400, None, BrokenAnswer),
            (None, 404, None, BrokenAnswer),
            (None, 503, None, Overloaded),
            (None, 429, None, Overloaded),
            (None, 200, b"<html>", BrokenAnswer),
            (None, 302, None, BrokenAnswer),
        ]
        for given, status, body, expected in table:
            error = self.failureResultOf(self.answer(self.tokens(given), TokenServer(status, body))).value
            self.assertIs(type(error), expected)
            self.assertIn("auth.test", str(error))
            self.assertNotIn("secret", str(error))


class OptionTests(SynchronousTestCase):
    """Its part of the configuration."""

    def load(self, **config: Any) -> OCIBackend:
        """A backend with these keys; JSON is YAML."""
        path = Path(self.mktemp())
        document = {"backends": [{"type": "dockerhub", "config": {"prefix": "/hub/", **config}}]}
        path.write_text(json.dumps(document))
        (found,) = load(path, os.environ).backends
        self.assertEqual(found.type, "oci")
        self.assertIsNone(found.upstream.username)
        assert isinstance(found.backend, OCIBackend)
        return found.backend

    def test_hub(self) -> None:
        """Without more it is Docker Hub."""
        backend = self.load()
        self.assertTrue(verifyObject(IRegistryBackend, backend))
        (one,) = backend.registries
        self.assertEqual((one.url, one.namespace), ("https://registry-1.docker.io/", "docker.io"))
        self.assertEqual((one.auth_url, one.ttl, one.reserve), ("https://auth.docker.io/token", 60.0, 5))
        recipe = backend.resolve("v2/app/manifests/latest", {})
        self.assertTrue(verifyObject(IRecipe, recipe))

    def test_other(self) -> None:
        """Another registry is called by its host and port."""
        (one,) = self.load(registry_url="http://Registry.test:5000").registries
        self.assertEqual((one.url, one.namespace), ("http://Registry.test:5000/", "registry.test:5000"))
        self.assertIsNone(one.auth_url)
        (one,) = self.load(registry_url="http://a.test/v2/").registries
        self.assertEqual(one.url, "http://a.test/")
        (one,) = self.load(registry_url="http://a.test/", namespace="docker.io", tag_ttl={"v*": "1d"}, ttl=5).registries
        self.assertEqual((one.namespace, one.tiers, one.ttl), ("docker.io", (("v*", 86400.0),), 5.0))
        self.assertIsNone(one.auth_url)  # a mirror's password is none of Docker Hub's business

    def test_default_port(self) -> None:
        """The port that a scheme has anyway is no part of the registry's name."""
        table = {
            "https://A.test:443/": "a.test",
            "http://a.test:80": "a.test",
            "http://a.test:443": "a.test:443",
            "https://a.test:80": "a.test:80",
            "https://[::1]:443": "[::1]",
            "https://[::1]:5000/x/": "[::1]:5000",
            "https://registry-1.docker.io:443": "docker.io",
        }
        for url, namespace in table.items():
            self.assertEqual(self.load(registry_url=url).namespaces, (namespace,), url)

    def test_ttl_by_pattern(self) -> None:
        """``ttl`` may be a mapping itself, for a registry of several too; of other backends it is one duration."""
        (one,) = self.load(ttl={"latest": 60, "v*.*.*": "1d"}).registries
        self.assertEqual((one.tiers, one.ttl), ((("latest", 60.0), ("v*.*.*", 86400.0)), 60.0))
        (one,) = self.load(ttl={"*": 9}, tag_ttl={"v*": 5}).registries
        self.assertEqual([one.tag_ttl(tag) for tag in ("v1", "x")], [5.0, 9.0])
        one, two = self.load(ttl=7, repositories=[{"ttl": {"v*": 5}}, {"registry_url": "https://a.test"}]).registries
        self.assertEqual([each.tag_ttl("v1") for each in (one, two)], [5.0, 7.0])
        self.assertIn("ttl.v", str(self.assertRaises(ConfigError, self.load, ttl={"v*": "long"})))

    def test_several(self) -> None:
        """Of several each has its own user and options; what it leaves out is the backend's."""
        parts = [
            {"registry_url": "https://a.test", "username": "me", "password": "x", "ttl": 9},
            {"registry_url": "https://b.test", "connect_timeout": 3},
            {"registry_url": "https://b.test/x/"},
        ]
        backend = self.load(repositories=parts, ttl=7, idle_timeout=11, ratelimit_reserve=2)
        self.assertEqual([one.ttl for one in backend.registries], [9.0, 7.0, 7.0])
        self.assertEqual([one.directory for one in backend.registries], ["a.test:443/", "b.test:443/", "b.test:443+x/"])
        self.assertEqual([one.login is None for one in backend.registries], [False, True, True])
        self.assertEqual([one.reserve for one in backend.registries], [2, 2, 2])
        self.assertEqual([member.options.connect_timeout for member in backend.members], [10.0, 3.0, 10.0])
        self.assertEqual([member.options.idle_timeout for member in backend.members], [11.0, 11.0, 11.0])
        self.assertEqual([member.options.username for member in backend.members], [None, None, None])
        self.assertEqual(backend.namespaces, ("a.test", "b.test"))
        self.assertNotIn("'x'", repr(backend))

    def test_directories(self) -> None:
        """The tags of one registry are never kept where another's are, whatever the two are called here."""
        table = {
            "https://registry-1.docker.io": "",
            "https://REGISTRY-1.docker.io:443/v2/": "",
            "https://registry-1.docker.io/x": "registry-1.docker.io:443+x/",
            "http://registry-1.docker.io": "registry-1.docker.io:80/",
            "http://hub:5000": "hub:5000/",
            "http://[::1]:5000/a/b": "[::1]:5000+a+b/",
            "http://hub:5000/a%2Fb/c+d": "hub:5000+a%252Fb+c%2Bd/",
        }
        for url, directory in table.items():
            (one,) = self.load(registry_url=url, namespace="docker.io").registries
            self.assertEqual(one.directory, directory, url)
            self.assertIn(f"hub/{directory}library/app/", one.tag(read_path("app/manifests/latest"), None).key)
            self.assertIn(f"hub/{directory}library/app/", one.listing(read_path("app/tags/list")).key)
        twice = self.load(
            repositories=[{}, {"username": "me", "password": "x"}, {"registry_url": "http://a"}] + 2 * [{}]
        )
        self.assertEqual([one.directory for one in twice.registries], ["", "2:/", "a:80/", "3:/", "4:/"])

    def test_same(self) -> None:
        """A configuration that is read again without a change gives an equal backend, whose tokens are kept."""
        one, other = self.load(username="me", password="x"), self.load(username="me", password="x")
        self.assertEqual(one, other)
        self.assertNotEqual(one, self.load(username="me", password="y"))

    def test_namespace(self) -> None:
        """A client that names one of several registries is answered by that one alone."""
        backend = self.load(repositories=[{"registry_url": "https://a.test"}, {"registry_url": "https://b.test"}])
        recipe = backend.resolve_in("b.test", "app/manifests/latest", {})
        assert isinstance(recipe, Recipe)
        self.assertEqual([one.namespace for one in recipe.registries], ["b.test"])
        self.assertRaises(Missing, backend.resolve_in, "c.test", "app/manifests/latest", {})

    def test_wrong(self) -> None:
        """Mistakes are told by their key."""
        table: list[tuple[dict[str, Any], str]] = [
            ({"registry_url": "ftp://x"}, "registry_url"),
            ({"namespace": "no/host"}, "namespace"),
            ({"repositories": []}, "repositories"),
            ({"repositories": [{}], "registry_url": "https://x.test"}, "registry_url: is given beside repositories"),
            ({"repositories": [{"registry_uri": "https://x.test"}]}, "repositories[0].registry_uri"),
            ({"tag_ttl": {"v*": "long"}}, "tag_ttl.v"),
            ({"ratelimit_reserve": -1}, "ratelimit_reserve"),
            ({"username": "me"}, "without password"),
        ]
        for config, message in table:
            self.assertIn(message, str(self.assertRaises(ConfigError, self.load, **config)))
