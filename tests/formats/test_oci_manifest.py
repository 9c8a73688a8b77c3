"""What manifests need, and which of them a client takes."""

from __future__ import annotations

import base64
import hashlib
import json

from twisted.trial.unittest import SynchronousTestCase

from vault.errors import Unavailable
from vault.formats.oci_errors import Unknown, error_body
from vault.formats.oci_manifest import (
    DOCKER_MANIFEST,
    EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    accepted,
    read_manifest,
    signed_payload,
)


def sign(payload: bytes, words: str = "") -> bytes:
    """A document as Docker signed it: the signature goes in before the last brace, and tells how to take it out."""
    kept = payload[:-2]
    form = {"formatLength": len(kept), "formatTail": packed(payload[-2:]), "time": "2015-01-01T00:00:00Z"}
    signature = {"header": {"alg": "ES256"}, "signature": words, "protected": packed(json.dumps(form).encode())}
    return kept + b',\n   "signatures": [' + json.dumps(signature).encode() + b"]\n}"


def packed(data: bytes) -> str:
    """Base64 for URLs without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class ManifestTests(SynchronousTestCase):
    """``read_manifest``."""

    def test_image(self) -> None:
        """An image needs its configuration and its layers, but not those that are fetched from elsewhere."""
        document = {
            "mediaType": DOCKER_MANIFEST,
            "config": {"digest": "sha256:c"},
            "layers": [{"digest": "sha256:a"}, {"digest": "sha256:f", "urls": ["https://x"]}, {"digest": "sha256:a"}],
        }
        manifest = read_manifest(json.dumps(document).encode())
        self.assertEqual((manifest.media_type, manifest.blobs), (DOCKER_MANIFEST, ("sha256:c", "sha256:a")))
        self.assertEqual(manifest.children, ())

    def test_nothing_to_fetch(self) -> None:
        """Content that the manifest has inline, and that of the empty descriptor, are fetched by no client."""

        def inline(content: bytes, **changes: str) -> dict[str, str]:
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            return {"digest": digest, "data": base64.b64encode(content).decode(), **changes}

        document = {
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY},
            "layers": [inline(b"x"), inline(b"{}"), {"digest": "sha256:a"}],
        }
        self.assertEqual(read_manifest(json.dumps(document).encode()).blobs, ("sha256:a",))
        wrong = [inline(b"x", data="eQ=="), inline(b"x", data="!"), inline(b"x", digest="md5:x"), {"digest": "x"}]
        digests = tuple(dict.fromkeys(part["digest"] for part in wrong))
        self.assertEqual(read_manifest(json.dumps({"layers": wrong}).encode()).blobs, digests)

    def test_index(self) -> None:
        """Of an index one image is needed; what only attests is none."""
        document = {
            "manifests": [
                {"digest": "sha256:a", "platform": {"os": "linux"}},
                {"digest": "sha256:b", "platform": {"os": "unknown", "architecture": "unknown"}},
                {"digest": "sha256:c"},
            ]
        }
        manifest = read_manifest(json.dumps(document).encode())
        self.assertEqual((manifest.media_type, manifest.children), (OCI_INDEX, ("sha256:a", "sha256:c")))

    def test_old(self) -> None:
        """Docker's first kind of manifest needs its layers."""
        manifest = read_manifest(b'{"schemaVersion": 1, "fsLayers": [{"blobSum": "sha256:a"}]}')
        self.assertEqual(manifest.blobs, ("sha256:a",))

    def test_signed(self) -> None:
        """The digest of a signed manifest is that of the document before its signatures were put in."""
        signed = sign(b'{\n   "schemaVersion": 1,\n   "name": "x"\n}')
        self.assertEqual(read_manifest(signed).media_type, "application/vnd.docker.distribution.manifest.v1+prettyjws")
        self.assertEqual(signed_payload(signed), b'{\n   "schemaVersion": 1,\n   "name": "x"\n}')
        wrong = [b"{}", b"[]", b"x", b'{"signatures": []}', b'{"signatures": [{"protected": "e30"}]}']
        wrong += [b'{"signatures": [{"protected": "!"}]}', b'{"signatures": [{"protected": "a"}, {"protected": "b"}]}']
        wrong += [b'{"signatures": [{"protected": 5}]}', b'{"signatures": [{"protected": "bnVsbA"}]}']
        for data in wrong:
            self.assertRaises(ValueError, signed_payload, data)

    def test_large_number(self) -> None:
        """A number with more digits than Python reads makes no other document of it."""
        manifest = read_manifest(
            b'{"schemaVersion": 2, "layers": [{"size": %b, "digest": "sha256:a"}]}' % (5000 * b"1")
        )
        self.assertEqual(manifest.blobs, ("sha256:a",))

    def test_unknown(self) -> None:
        """What is in another form needs nothing; what is no JSON object is refused."""
        for body in (b"{}", b'{"config": 1, "layers": {"a": 1}, "manifests": "x"}', b'{"layers": [1, {"digest": 2}]}'):
            manifest = read_manifest(body)
            self.assertEqual((manifest.media_type, manifest.blobs, manifest.children), (OCI_MANIFEST, (), ()))
        for body in (b"", b"[]", b"\xff", 200_000 * b"["):
            self.assertRaises(ValueError, read_manifest, body)


class AcceptTests(SynchronousTestCase):
    """``accepted``."""

    def test_accept(self) -> None:
        """A client that takes everything, or says nothing, or names no manifest, gets what there is."""
        table = {
            None: None,
            "*/*": None,
            f"{DOCKER_MANIFEST}, */*;q=0.1": None,
            "text/html, application/xhtml+xml": None,
            "application/*": None,
            DOCKER_MANIFEST: frozenset({DOCKER_MANIFEST}),
            f"{DOCKER_MANIFEST.upper()}; q=0.5,application/json": frozenset({DOCKER_MANIFEST}),
            f"{DOCKER_MANIFEST}, {OCI_INDEX};q=0, */*;q=0.0": frozenset({DOCKER_MANIFEST}),
        }
        for accept, expected in table.items():
            self.assertEqual(accepted(accept), expected, accept)


class ErrorTests(SynchronousTestCase):
    """``error_body``."""

    def test_codes(self) -> None:
        """An error has the code it names, else that of its status."""
        table = {
            404: (Unknown("BLOB_UNKNOWN", "none"), "BLOB_UNKNOWN"),
            503: (Unavailable("later"), "UNAVAILABLE"),
            502: (Unavailable("odd"), "UNKNOWN"),
        }
        for status, (error, code) in table.items():
            (told,) = json.loads(error_body(status, error, "hub"))["errors"]
            self.assertEqual((told["code"], told["message"]), (code, f"hub: {error}"))
