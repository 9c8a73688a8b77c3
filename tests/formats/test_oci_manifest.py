"""What manifests need, and which of them a client takes."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from vault.errors import Unavailable
from vault.formats.oci_errors import Unknown, error_body
from vault.formats.oci_manifest import (
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    accepted,
    read_manifest,
)


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
