"""Which backend and which path a registry's request leads to."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import LIMITS, Net
from vault.backends._oci_registry import Registry
from vault.backends.oci import OCIBackend
from vault.web.accesslog import AccessLog
from vault.web.registry import Registries, RegistryResource, ShortAnswer, link_here
from vault.web.root import RootResource
from vault.web.site import VaultSite

TAG = "manifests/latest"


def backend(name: str, prefix: str, namespace: str) -> OCIBackend:
    """A backend with one registry."""
    registry = Registry(name=name, prefix=prefix, backend=name, url=f"https://{namespace}/", namespace=namespace)
    return OCIBackend(name, prefix, (registry,), ())


class RouteTests(SynchronousTestCase):
    """``Registries``, as two tables of what is asked and what it means."""

    def setUp(self) -> None:
        backends = [
            backend("hub", "/dockerhub/", "docker.io"),
            backend("deep", "/a/b/", "quay.io"),
            backend("own", "/own/", "registry.test:5000"),
        ]
        self.resources = [RegistryResource(one, cast(Any, None), None, lambda: 0.0) for one in backends]
        self.registries = Registries(self.resources)

    def told(self, resource: Any) -> Any:
        """Backend, path and namespace, or the code of an error, or None for the answer to a ping."""
        if isinstance(resource, ShortAnswer):
            return getattr(resource._error, "code", None)
        return resource.backend.name, resource._path, resource.namespace

    def test_root(self) -> None:
        """Below /v2/ it is ns that decides, then the first segment, then the order of the configuration."""
        table: dict[str, Any] = {
            "": None,
            "?ns=docker.io": None,
            f"library/x/{TAG}": ("hub", f"library/x/{TAG}", None),
            f"x/{TAG}": ("hub", f"x/{TAG}", None),
            f"dockerhub/library/x/{TAG}": ("hub", f"library/x/{TAG}", None),
            f"docker.io/library/x/{TAG}": ("hub", f"library/x/{TAG}", None),
            f"index.docker.io/library/x/{TAG}": ("hub", f"library/x/{TAG}", None),
            f"a/b/x/{TAG}": ("deep", f"x/{TAG}", None),
            f"quay.io/x/{TAG}": ("deep", f"x/{TAG}", None),
            f"registry.test:5000/x/{TAG}": ("own", f"x/{TAG}", None),
            f"registry.test%3A5000/x/{TAG}": ("own", f"x/{TAG}", None),
            f"library/x/{TAG}?ns=docker.io": ("hub", f"library/x/{TAG}", "docker.io"),
            f"library/x/{TAG}?ns=registry-1.docker.io": ("hub", f"library/x/{TAG}", "docker.io"),
            f"dockerhub/library/x/{TAG}?ns=docker.io": ("hub", f"library/x/{TAG}", "docker.io"),
            f"dockerhub/x/{TAG}?ns=quay.io": ("deep", f"x/{TAG}", "quay.io"),
            f"x/{TAG}?ns=registry.test%3A5000": ("own", f"x/{TAG}", "registry.test:5000"),
            "x/tags/list?n=2&ns=quay.io&last=a": ("deep", "x/tags/list?n=2&last=a", "quay.io"),
            f"docker.io/x/{TAG}?ns=docker.io": ("hub", f"x/{TAG}", "docker.io"),
            f"quay.io/x/{TAG}?ns=docker.io": ("hub", f"quay.io/x/{TAG}", "docker.io"),
            f"x/{TAG}?ns=ghcr.io": "NAME_UNKNOWN",
            f"ghcr.io/x/{TAG}": "NAME_UNKNOWN",
            f"other:5000/x/{TAG}": "NAME_UNKNOWN",
            f"localhost/x/{TAG}": "NAME_UNKNOWN",
            f"ghcr.io/tags/{TAG}": "NAME_UNKNOWN",
            f"with.dot/{TAG}": ("hub", f"with.dot/{TAG}", None),
        }
        for target, expected in table.items():
            self.assertEqual(self.told(self.registries.at_root(target)), expected, target)

    def test_refusals(self) -> None:
        """What the vault itself refuses is told to a registry's clients in the registry's form, to others in text."""
        root = RootResource(self.resources, list)
        for target in (b"/v2/x/manifests/latest", b"/a/b/x/manifests/latest", b"/v2", b"/a/b", b"/a/b?x", b"/v2/%zz"):
            told = root.form_of(target, 429, "Too many requests.")
            assert told is not None, target
            (kind, body), fields = told
            self.assertEqual(fields, [(b"Docker-Distribution-Api-Version", b"registry/2.0")])
            self.assertTrue(kind.startswith("application/json"), kind)
            expected = {"errors": [{"code": "TOOMANYREQUESTS", "message": "Too many requests."}]}
            self.assertEqual(json.loads(body), expected)
        for target in (b"/files/a", b"/v2x/", b"/a/bc", b"/a", b"", b"*"):
            self.assertIsNone(root.form_of(target, 429, "Too many requests."), target)

    def test_before_any_resource(self) -> None:
        """So it is for what is refused by the connection, of a request that may be no such thing."""
        net = Net()
        site = VaultSite(RootResource(self.resources, list), reactor=net, limits=LIMITS, access_log=AccessLog())
        long = 40000 * "a"
        host = "HTTP/1.1\r\nHost: vault\r\n"
        table = {
            f"GET /v2/{long}": 431,
            f"GET /v2/x {host}X: {long}\r\n": 431,
            f"GET /v2/x {host}no colon\r\n\r\n": 400,
            "GET /v2/x y HTTP/1.1\r\n\r\n": 400,
            "GET /v2/x HTTP/1.1\r\n\r\n": 400,
            f"PUT /a/b/x/manifests/latest {host}Content-Length: 2000000\r\n\r\n": 413,
            f"POST /a/b {host}Content-Length: 0\r\n\r\n": 405,
            f"BREW /v2/x {host}\r\n": 405,
        }
        for request, status in table.items():
            for registry in (True, False):
                text = request if registry else request.replace("/v2/", "/files/").replace("/a/b", "/files/x")
                transport = StringTransport(lenient=True)
                channel = site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 40000))
                channel.makeConnection(transport)
                channel.dataReceived(text.encode())
                head, _, body = transport.value().partition(b"\r\n\r\n")
                expected = 404 if text.startswith("POST /files/") else status  # nothing is there
                self.assertTrue(head.startswith(b"HTTP/1.1 %d " % expected), (request[:40], head))
                kind = b"application/json" if registry else b"text/plain"
                self.assertIn(b"\r\nContent-Type: " + kind, head, request[:40])
                self.assertEqual(b"\r\nDocker-Distribution-Api-Version: registry/2.0" in head, registry)
                if registry:
                    self.assertTrue(json.loads(body)["errors"][0]["code"])

    def test_prefix(self) -> None:
        """Below a prefix it is that backend, with or without v2/, unless ns names another."""
        table: dict[str, Any] = {
            "v2": None,
            "v2/": None,
            f"v2/library/x/{TAG}": ("hub", f"library/x/{TAG}", None),
            f"library/x/{TAG}": ("hub", f"library/x/{TAG}", None),
            f"v2/v2/x/{TAG}": ("hub", f"v2/x/{TAG}", None),
            f"v2/library/x/{TAG}?ns=docker.io": ("hub", f"library/x/{TAG}", "docker.io"),
            f"v2/x/{TAG}?ns=quay.io": ("deep", f"x/{TAG}", "quay.io"),
            f"v2/x/{TAG}?ns=ghcr.io": "NAME_UNKNOWN",
        }
        for target, expected in table.items():
            self.assertEqual(self.told(self.registries.below(self.resources[0], target)), expected, target)

    def test_shared_namespace(self) -> None:
        """Of two backends for one registry a prefix in the path tells which; without one it is the first."""
        one, two = backend("one", "/one/", "docker.io"), backend("two", "/two/", "docker.io")
        resources = [RegistryResource(each, cast(Any, None), None, lambda: 0.0) for each in (one, two)]
        registries = Registries(resources)
        query = "?ns=docker.io"
        self.assertEqual(self.told(registries.at_root(f"x/{TAG}{query}")), ("one", f"x/{TAG}", "docker.io"))
        self.assertEqual(self.told(registries.at_root(f"two/x/{TAG}{query}")), ("two", f"x/{TAG}", "docker.io"))
        below = registries.below(resources[1], f"v2/x/{TAG}{query}")
        self.assertEqual(self.told(below), ("two", f"x/{TAG}", "docker.io"))

    def test_first_with_dots(self) -> None:
        """Whatever the first backend is, a first part that is like a host names a registry, but below a prefix."""
        registries = Registries(self.resources[1:])
        for host in ("my.team", "my.team:80", "localhost", "localhost:5000", "docker.io"):
            self.assertEqual(self.told(registries.at_root(f"{host}/x/{TAG}")), "NAME_UNKNOWN")
        self.assertEqual(self.told(registries.at_root(f"my.team/{TAG}")), ("deep", f"my.team/{TAG}", None))
        self.assertEqual(self.told(registries.at_root(f"a/b/my.team/x/{TAG}")), ("deep", f"my.team/x/{TAG}", None))

    def test_link(self) -> None:
        """The next page is where the client asks; any other link, also one without an end, is left alone."""
        rest = '>; rel="next"'
        table = {
            (f"<?n=5{rest}", b"/v2/x/tags/list?n=2", None): f"</v2/x/tags/list?n=5{rest}",
            (f"<?n=5{rest}", b"http://host/v2/x/tags/list", "quay.io"): f"</v2/x/tags/list?n=5&ns=quay.io{rest}",
        }
        for (link, target, namespace), expected in table.items():
            self.assertEqual(link_here(link, target, namespace), expected.encode())
        for link in ("<?n=5", f"</other?n=5{rest}", ""):
            self.assertIsNone(link_here(link, b"/v2/x/tags/list", "quay.io"), link)

    def test_hub_is_not_first(self) -> None:
        """Who names no registry means Docker Hub, wherever in the configuration it is, and else the first."""
        registries = Registries([self.resources[1], self.resources[0]])
        self.assertEqual(self.told(registries.at_root(f"library/x/{TAG}")), ("hub", f"library/x/{TAG}", None))
        self.assertEqual(self.told(registries.at_root(f"other.test/x/{TAG}")), "NAME_UNKNOWN")
        self.assertEqual(self.told(registries.at_root(f"quay.io/x/{TAG}")), ("deep", f"x/{TAG}", None))
        self.assertEqual(self.told(registries.at_root(f"a/b/x/{TAG}")), ("deep", f"x/{TAG}", None))
        registries = Registries(self.resources[:0:-1])
        self.assertEqual(self.told(registries.at_root(f"library/x/{TAG}")), ("own", f"library/x/{TAG}", None))
