"""What the paths of a registry name."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from vault.artifact import Digest
from vault.formats.oci_errors import Malformed, Unknown
from vault.formats.oci_names import Resource, names_registry, namespace_of, read_path

HEX = 64 * "a"


class PathTests(SynchronousTestCase):
    """``read_path``."""

    def test_names(self) -> None:
        """A path is read from its right end, since names have slashes, and words of the protocol, themselves."""
        digest = Digest("sha256", HEX)
        table = {
            "app/manifests/latest": Resource("app", "manifests", tag="latest"),
            "a/b/c/d/manifests/V1.0_x-y": Resource("a/b/c/d", "manifests", tag="V1.0_x-y"),
            "manifests/manifests/blobs": Resource("manifests", "manifests", tag="blobs"),
            "a/blobs/x/tags/list": Resource("a/blobs/x", "tags"),
            "tags/list/tags/list": Resource("tags/list", "tags"),
            f"a.b__c-d/blobs/sha256:{HEX}": Resource("a.b__c-d", "blobs", digest=digest),
            f"app/manifests/sha256%3A{HEX}": Resource("app", "manifests", digest=digest),
            f"app/blobs/sha512:{128 * '0'}": Resource("app", "blobs", digest=Digest("sha512", 128 * "0")),
            f"app/referrers/sha256:{HEX}": Resource("app", "referrers", digest=digest),
        }
        for path, expected in table.items():
            self.assertEqual(read_path(path), expected, path)

    def test_queries(self) -> None:
        """The query of a list is kept in one order, without ns: registries have their own parameters for its pages."""
        table = {
            "app/tags/list?n=2&last=b": "last=b&n=2",
            "app/tags/list?ns=docker.io&next_page=gAAA%3D&n=2": "n=2&next_page=gAAA%3D",
            "app/tags/list?n=": "n=",
            "app/tags/list?a=2&a=1": "a=1&a=2",
            "app/manifests/latest?ns=docker.io": "",
            f"app/referrers/sha256:{HEX}?artifactType=application/x%2By": "artifactType=application%2Fx%2By",
        }
        for path, expected in table.items():
            self.assertEqual(read_path(path).query, expected, path)

    def test_malformed(self) -> None:
        """What can name nothing is refused with the code that registries have for it."""
        table = {
            "App/manifests/latest": "NAME_INVALID",
            "a//b/manifests/latest": "NAME_INVALID",
            "a_/manifests/latest": "NAME_INVALID",
            "host:5000/app/manifests/latest": "NAME_INVALID",
            "%C3%A4/manifests/latest": "NAME_INVALID",
            256 * "a" + "/manifests/latest": "NAME_INVALID",
            "app/manifests/.hidden": "MANIFEST_INVALID",
            "app/manifests/" + 129 * "a": "MANIFEST_INVALID",
            "app/manifests/": "MANIFEST_INVALID",
            f"app/blobs/sha256:{HEX.upper()}": "DIGEST_INVALID",
            f"app/blobs/sha1:{40 * '0'}": "DIGEST_INVALID",
            f"app/blobs/{HEX}": "DIGEST_INVALID",
            "app/blobs/uploads": "DIGEST_INVALID",
            "app/tags/list?last=" + 2100 * "x": "UNSUPPORTED",
        }
        for path, code in table.items():
            self.assertEqual(self.assertRaises(Malformed, read_path, path).code, code, path)

    def test_other_paths(self) -> None:
        """A path of another form is no resource."""
        for path in ("", "app", "_catalog", "manifests/latest", "app/manifests/a/b", "tags/list"):
            self.assertEqual(self.assertRaises(Unknown, read_path, path).status, 404, path)


class NamespaceTests(SynchronousTestCase):
    """Names of registries."""

    def test_hub(self) -> None:
        """Docker Hub has one name, however it is called."""
        for name in ("docker.io", "Docker.IO", "registry-1.docker.io", "index.docker.io"):
            self.assertEqual(namespace_of(name), "docker.io")
        self.assertEqual(namespace_of("Quay.io"), "quay.io")

    def test_hosts(self) -> None:
        """The first part of an image's name is a registry where docker would take it for one."""
        for name in ("localhost", "quay.io", "host:5000", "127.0.0.1:5000", "[::1]:5000", "10.0.0.1"):
            self.assertTrue(names_registry(name), name)
        for name in ("library", "a_b", "team-1", "localhosts"):
            self.assertFalse(names_registry(name), name)
