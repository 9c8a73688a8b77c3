"""What becomes of pulls when a registry fails, refuses or limits something, in memory, on a clock."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.backends.test_oci_recipes import DIGEST, LAYER, RecipeCase, SeveralCase, digest_of
from tests.memory import Asked as Request
from vault.backends._oci_tokens import Login, TokenRefused
from vault.errors import LeftAlone, Overloaded
from vault.formats.oci_errors import Unknown
from vault.formats.oci_manifest import EMPTY, OCI_MANIFEST
from vault.outcome import How


class LimitedTests(RecipeCase):
    """A registry answers 429 with Retry-After."""

    def setUp(self) -> None:
        super().setUp()
        self.limited = "/manifests/"
        self.head_limited = False

    def answer(self, asked: Request) -> None:
        """Refuses what is limited."""
        if self.limited in asked.target and (asked.method == "GET" or self.head_limited):
            asked.answer(429, "Retry-After: 60")
        else:
            super().answer(asked)

    def test_manifest(self) -> None:
        """One manifest that is refused stops no layer: the pulls of others go on, since only manifests are counted."""
        self.limited = "/manifests/none"
        self.assertIsInstance(self.error("manifests/none"), Overloaded)
        self.assertEqual(self.find(f"blobs/{digest_of(LAYER)}").how, How.MISS)
        self.assertEqual(self.asked(), ["GET none", "GET sha256"])

    def test_other_manifest(self) -> None:
        """Other manifests are not asked for until its time is over."""
        self.limited = "/manifests/none"
        self.error("manifests/none")
        error = self.error("manifests/latest")
        self.assertIsInstance(error, LeftAlone)
        self.assertGreater(error.retry_after, 50)
        self.assertEqual(self.asked(), ["GET none"])
        self.vault.net.pass_time(61)
        self.assertEqual(self.find("manifests/latest").how, How.MISS)

    def test_head(self) -> None:
        """A tag is still confirmed by HEAD, which is not counted."""
        self.limited = "/manifests/none"
        self.find("manifests/latest")
        self.vault.net.pass_time(61)
        self.error("manifests/none")
        self.asked()
        self.assertEqual(self.find("manifests/latest").how, How.REVALIDATED)
        self.assertEqual(self.find(f"manifests/{DIGEST}").how, How.HIT)
        self.assertEqual(self.asked(), ["HEAD latest"])

    def test_anything_else(self) -> None:
        """A refusal of a layer, or of a HEAD, is of more than the count of manifests: the registry is left alone."""
        self.limited = "/none"
        self.find("manifests/latest")
        self.vault.net.pass_time(61)
        for limited, path in (("/blobs/", f"blobs/{digest_of(b'another')}"), ("/manifests/", "manifests/none")):
            self.limited, self.head_limited = limited, True
            self.assertIsInstance(self.error(path), Overloaded)
            self.asked()
            for other in ("manifests/1.0", "tags/list", f"blobs/{digest_of(LAYER)}"):
                self.assertIsInstance(self.error(other), LeftAlone)
            self.assertEqual(self.asked(), [])
            self.vault.net.pass_time(61)


class AccountTests(SeveralCase):
    """The first registry wants a token, and its token server does not give one for every image."""

    def setUp(self) -> None:
        super().setUp()
        account = replace(self.registry, login=Login("me", "secret"))
        self.vault.sources.backend = account
        self.registries = (account, self.registries[1])
        self.token_status = 403
        shelf = self.one.answer

        def answer(asked: Request) -> None:
            if asked.target.startswith("/token"):
                asked.answer(self.token_status)
            elif asked.get("authorization") is None:
                asked.answer(401, 'WWW-Authenticate: Bearer realm="http://origin.test/token",service="x"')
            else:
                shelf(asked)

        self.vault.origin.answer = answer

    def test_not_for_the_account(self) -> None:
        """An image that a valid account may not see is not here: the next registry is asked."""
        digest = self.put(self.two, "other", "latest")
        self.assertEqual(self.tag("latest"), digest)

    def test_nowhere(self) -> None:
        """Where no other has it either it is missing, and the client is told of the account."""
        error = self.error("manifests/latest")
        self.assertIsInstance(error, Unknown)
        self.assertIn("account", str(error))

    def test_wrong_password(self) -> None:
        """A user name and password that the token server does not take are an error: nothing is known of the image."""
        self.put(self.two, "other", "latest")
        self.token_status = 401
        self.assertIsInstance(self.error("manifests/latest"), TokenRefused)
        self.assertEqual(self.two.asked(), 0)


class ArtifactTests(RecipeCase):
    """What is no image: its configuration is the empty descriptor, whose blob clients do not ask for."""

    def setUp(self) -> None:
        super().setUp()
        config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 2, "data": "e30="}
        document = {"mediaType": OCI_MANIFEST, "config": config, "layers": [{"digest": digest_of(LAYER)}]}
        self.manifest = json.dumps(document).encode()
        self.fields = [f"Content-Type: {OCI_MANIFEST}", f"Docker-Content-Digest: {digest_of(self.manifest)}"]

    def answer(self, asked: Request) -> None:
        """The registry's answers."""
        if self.status == 200 and "/manifests/" in asked.target and asked.method == "GET":
            asked.answer(200, *self.fields, body=self.manifest)
        else:
            super().answer(asked)

    def test_outage(self) -> None:
        """One whose layers are kept is served while its registry is down, by its tag and by its digest."""
        self.find("manifests/latest")
        self.find(f"blobs/{digest_of(LAYER)}")
        self.vault.net.pass_time(100)
        self.status = 503
        self.assertEqual(self.find("manifests/latest").how, How.STALE)
        self.assertEqual(self.find(f"manifests/{digest_of(self.manifest)}").how, How.HIT)

    def test_empty_blob(self) -> None:
        """A client that asks for the empty descriptor's blob all the same gets it, though its registry is down."""
        self.status = 503
        for head_only in (True, False):
            found = self.find(f"blobs/{EMPTY}", head_only)
            self.assertEqual((found.how, found.body.length, found.body.sha256), (How.HIT, 2, EMPTY[7:]))
        self.assertEqual(self.asked(), [])
