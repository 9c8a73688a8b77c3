"""Tags that move to something that cannot be had, or whose registry answers with something that is no manifest."""

from __future__ import annotations

import json

from tests.backends.test_oci_recipes import SeveralCase, digest_of
from vault.backends._oci_memory import Memories
from vault.errors import Unavailable
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

    def fail(self, status: int = 503) -> None:  # type: ignore[override]
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
        self.fail()
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
        self.fail()
        self.assertIsInstance(self.error("manifests/latest"), Unavailable)
        self.one.status = 200
        first = self.pull("first")
        for number in range(20):
            self.move(f"other {number}")
        self.fail()
        self.assertGiven(self.find("manifests/latest"), first, How.STALE, "previous-image")
        self.one.status = 200
        second = self.pull("second")
        self.move("third")
        self.fail()
        self.assertGiven(self.find("manifests/latest"), second, How.STALE, "previous-image")

    def test_completed_later(self) -> None:
        """One whose last layer came only after the tag had moved is whole too."""
        self.pull("first")
        second = self.move("second")
        self.move("third")
        self.find(f"blobs/{digest_of(b'second')}")
        self.fail()
        self.assertGiven(self.find("manifests/latest"), second, How.STALE, "previous-image")

    def test_whole(self) -> None:
        """A new image that is whole is given itself."""
        self.pull("first")
        second = self.pull("second")
        self.fail()
        self.assertGiven(self.find("manifests/latest"), second, How.STALE, "http_response_status")

    def test_known_by_head(self) -> None:
        """It is remembered also where the new manifest was kept already, so that a HEAD was enough."""
        self.move("second", "other")
        first = self.pull("first")
        self.one.methods()
        self.move("second")
        self.assertEqual(self.one.methods(), ["HEAD"])
        self.fail()
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
        self.fail()
        self.assertGiven(self.find("manifests/latest"), mine, How.STALE, "previous-image")
