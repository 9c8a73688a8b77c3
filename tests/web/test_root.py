"""The root: which backend a request target belongs to, in each of its forms."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.memory import LIMITS, Client, Net, RigCase
from vault.backends.http import HTTPBackend
from vault.web.accesslog import AccessLog
from vault.web.errors import respond
from vault.web.root import RootResource, is_self
from vault.web.site import VaultSite


class Shown(Resource):
    """Answers with the backend and the path it was asked for, in the place of ArtifactResource."""

    isLeaf = True

    def __init__(self, backend: HTTPBackend, path: str = "") -> None:
        super().__init__()
        self.backend = backend
        self.path = path

    def at(self, path: str) -> Shown:
        """The resource of one path."""
        return Shown(self.backend, path)

    def render_GET(self, request: Any) -> int:
        """Answer."""
        respond(request, 200, f"{self.backend.name} {self.path}")
        return NOT_DONE_YET


BACKENDS = (
    HTTPBackend("short", "/files/", ("http://origin.test/",)),
    HTTPBackend("long", "/files/deep/", ("http://origin.test/deep/", "http://mirror.test:8000/x/")),
    HTTPBackend("secure", "/secure/", ("https://secure.test/pub/",)),
)


class RootTests(RigCase):
    """Targets."""

    def setUp(self) -> None:
        self.net = Net()
        self.problems: list[str] = []
        artifacts: Any = [Shown(backend) for backend in BACKENDS]
        root = RootResource(artifacts, lambda: self.problems)
        self.site = VaultSite(root, reactor=self.net, limits=LIMITS, access_log=AccessLog())

    def get(self, target: str, *fields: str, method: str = "GET") -> Client:
        """The answer for a target."""
        client = Client(self.net, self.site, method, target, fields, False)
        self.net.pass_time()
        return client

    def assertFound(self, target: str, text: str, *fields: str) -> None:
        """The target leads to a backend and a path."""
        client = self.get(target, *fields)
        self.assertEqual((client.status, client.body), (200, text.encode() + b"\n"), target)

    def test_longest(self) -> None:
        """The longest prefix wins."""
        self.assertFound("/files/a", "short a")
        self.assertFound("/files/deep/a", "long a")
        self.assertFound("/files/deeper/a", "short deeper/a")
        self.assertFound("/files/", "short ")

    def test_raw(self) -> None:
        """Paths and queries are passed on encoded, in one spelling."""
        self.assertFound("/files/a%2bb%7Ec?x=%2F%2f&y=a/../b", "short a%2Bb~c?x=%2F%2f&y=a/../b")
        self.assertFound("/files/./a/./b", "short a/b")
        self.assertFound("/files//a", "short /a")

    def test_slash(self) -> None:
        """A prefix without its slash is redirected, its query kept."""
        client = self.get("/files?x=y")
        self.assertEqual((client.status, client.headers["location"]), (301, "/files/?x=y"))
        self.assertEqual(self.get("/files/deep", method="HEAD").status, 301)
        for method in ("POST", "PUT", "DELETE"):
            client = self.get("/files", "Content-Length: 0", method=method)
            self.assertEqual((client.status, client.headers.get("allow")), (405, "GET, HEAD"), method)

    def test_unknown(self) -> None:
        """Anything else is 404, and tells what there is."""
        for target in ("/other/", "/file", "/filesx/", "/FILES/a", "//files/a"):
            client = self.get(target)
            self.assertEqual(client.status, 404, target)
            self.assertIn(b"/files/", client.body)

    def test_pages(self) -> None:
        """The machine pages answer, and readiness tells what is wrong."""
        self.assertEqual(self.get("/healthz").body, b"ok\n")
        self.assertEqual(self.get("/readyz").status, 200)
        self.problems.append("the disk is full")
        client = self.get("/readyz")
        self.assertEqual((client.status, client.body), (503, b"the disk is full\n"))
        self.assertEqual(self.get("/").status, 200)

    def test_pages_are_only_read(self) -> None:
        """The pages take GET and HEAD; whatever else is sent to them is refused."""
        for target in ("/", "/healthz", "/readyz"):
            head = self.get(target, method="HEAD")
            self.assertEqual((head.status, head.body), (200, b""), target)
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                client = self.get(target, "Content-Length: 0", method=method)
                self.assertEqual((client.status, client.headers.get("allow")), (405, "GET, HEAD"), target)

    def test_dangerous(self) -> None:
        """Targets that could mean something else to a disk or an upstream are refused, in each form."""
        for path in (
            "/files/../a", "/files/%2e%2e/a", "/files/a%2fb", "/files/a%5Cb", "/files/a\\b", "/files/a%00",
            "/files/%zz", "/../etc/passwd", "/files/a#b",
        ):  # fmt: skip
            for form in (path, "http://origin.test" + path):
                self.assertEqual(self.get(form).status, 400, form)

    def test_covered(self) -> None:
        """A target in absolute form is served by the backend whose upstream covers it, the nearest one."""
        self.assertFound("http://origin.test/a?x", "short a?x")
        self.assertFound("http://ORIGIN.test:80/a", "short a")
        self.assertFound("HTTP://origin.test/deep/a", "long a")
        self.assertFound("http://mirror.test:8000/x/a", "long a")
        self.assertFound("http://origin.test", "short ")

    def test_host_does_not_count(self) -> None:
        """In absolute form the target's authority counts, whatever Host says."""
        self.assertFound("http://origin.test/a", "short a", "Host: other.test")

    def test_not_covered(self) -> None:
        """Any other target is refused: this is no open proxy."""
        for target in (
            "http://other.test/", "http://origin.test:8000/", "https://origin.test/", "http://mirror.test:8000/y",
            "http://secure.test/pub/a", "ftp://origin.test/a", "http://mirror.test:8000/x", "http://user@other.test/",
        ):  # fmt: skip
            self.assertEqual(self.get(target).status, 403, target)

    def test_bad_authority(self) -> None:
        """An authority that is none is refused."""
        for target in ("http://origin.test:x/", "http://origin.test:99999/", "http://[::1/"):
            self.assertEqual(self.get(target).status, 400, target)

    def test_self(self) -> None:
        """A target that names this very server is a request to it."""
        for authority in ("127.0.0.1:8080", "localhost:8080"):
            self.assertFound(f"http://{authority}/files/a", "short a")
        self.assertEqual(self.get("http://127.0.0.1:8081/files/a").status, 403)

    def test_self_behind_ipv6(self) -> None:
        """So it is where an IPv4 client is seen through an IPv6 socket, and the other way round."""

        class Asked:
            def __init__(self, host: str) -> None:
                self.host = host

            def getHost(self) -> Any:
                return (IPv6Address if ":" in self.host else IPv4Address)("TCP", self.host, 8080)

        for here, host, expected in [
            ("::ffff:192.0.2.7", "192.0.2.7", True),
            ("192.0.2.7", "[::ffff:192.0.2.7]", True),
            ("::ffff:192.0.2.7", "[::ffff:127.0.0.1]", True),
            ("2001:db8::1", "[2001:DB8:0::1]", True),
            ("::ffff:192.0.2.7", "192.0.2.8", False),
            ("::ffff:192.0.2.7", "[::1%lo]", True),
            ("::ffff:192.0.2.7", "host.test", False),
        ]:
            self.assertEqual(is_self(f"{host}:8080", cast(Any, Asked(here))), expected, (here, host))

    def test_https_by_proxy(self) -> None:
        """``http://HTTPS///host/path`` means the https upstream, as APT proxies have it."""
        self.assertFound("http://HTTPS///secure.test/pub/a?x", "secure a?x")
        self.assertFound("http://https///secure.test/pub/a", "secure a")
        self.assertEqual(self.get("http://HTTPS///origin.test/a").status, 403)
        self.assertEqual(self.get("http://HTTPS///secure.test/pub/%2e%2e/a").status, 400)

    def test_https_covered(self) -> None:
        """An https target in absolute form is served too."""
        self.assertFound("https://secure.test/pub/a", "secure a")
