"""The ways to an upstream: proxies, TLS, credentials, headers, connection limits, and what bytes it sends."""

from __future__ import annotations

import gzip

from tests.functional.case import FunctionalCase
from tests.functional.certificates import Authority
from tests.functional.clients import together
from tests.functional.origin import basic
from tests.functional.script import MIB, Answer


class ProxyTests(FunctionalCase):
    """Through a forward proxy."""

    def test_http_through_a_proxy(self) -> None:
        """A plain upstream is asked in absolute form, and a broken transfer is resumed the same way."""
        proxy = self.start_proxy()
        content = self.origin.put("/a", 2 * MIB, script=[Answer(drop_after=MIB)])
        self.start_vault(proxy=proxy.url)
        self.assert_whole(self.get("/a"), content)
        self.assertEqual({record.target for record in proxy.records}, {self.origin.url + "/a"})

    def test_https_through_a_proxy(self) -> None:
        """An https upstream is reached through a CONNECT tunnel, so that the proxy sees none of it."""
        proxy = self.start_proxy(("me", "proxy-word"))
        authority = Authority(self.directory / "ca")
        origin = self.start_origin(tls=authority.server_context())
        content = origin.put("/a", 2 * MIB)
        address = proxy.url.replace("http://", "http://me:proxy-word@")
        self.start_vault(base_url=origin.url + "/", proxy=address, ca_file=str(authority.ca_file))
        self.assert_whole(self.get("/a"), content)
        self.assertEqual({record.method for record in proxy.records}, {"CONNECT"})
        self.assertEqual(proxy.records[0].target, f"127.0.0.1:{origin.port}")
        self.assertNotIn("proxy-authorization", origin.requests("/a")[0].headers)
        self.assertNotIn("proxy-word", self.vault.log())

    def test_unknown_to_the_proxy(self) -> None:
        """A proxy that wants another login is told as the cause."""
        proxy = self.start_proxy(("me", "proxy-word"))
        self.origin.put("/a", 1000)
        self.start_vault(proxy=proxy.url.replace("//", "//me:wrong-word@"))
        reply = self.get("/a")
        self.assertEqual(reply.status, 502)
        self.assertIn(b"the proxy 127.0.0.1:%d answered 407" % proxy.port, reply.body)
        self.assertNotIn(b"wrong-word", reply.body)
        self.assertEqual(self.origin.requests(), [])

    def test_proxy_down(self) -> None:
        """A proxy that cannot be reached is an outage."""
        proxy = self.start_proxy()
        proxy.stop()
        self.origin.put("/a", 1000)
        self.start_vault(proxy=proxy.url)
        reply = self.get("/a")
        self.assertEqual(reply.status, 503)
        self.assert_retry_after(reply)


class TlsTests(FunctionalCase):
    """Certificates are verified."""

    def test_own_authority(self) -> None:
        """With ca_file a private authority is trusted."""
        authority = Authority(self.directory / "ca")
        origin = self.start_origin("127.0.0.2", authority.server_context())
        content = origin.put("/a", 2 * MIB, script=[Answer(drop_after=MIB)])
        self.start_vault(base_url=origin.url + "/", ca_file=str(authority.ca_file))
        self.assert_whole(self.get("/a"), content)

    def test_unknown_authority(self) -> None:
        """A certificate that nobody vouches for is a bad gateway; nothing is fetched."""
        authority, other = Authority(self.directory / "ca"), Authority(self.directory / "other")
        origin = self.start_origin(tls=authority.server_context())
        origin.put("/a", 1000)
        self.start_vault(
            backends=[
                self.backend(base_url=origin.url + "/"),
                self.backend(base_url=origin.url + "/", prefix="/other/", ca_file=str(other.ca_file)),
            ]
        )
        self.assertEqual(self.get("/a").status, 502)
        self.assertEqual(
            self.run_client("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{self.vault.url}/other/a").stdout,
            b"502",
        )
        self.assertEqual(origin.requests(), [])

    def test_wrong_name(self) -> None:
        """A good certificate of another host is a bad gateway."""
        authority = Authority(self.directory / "ca")
        origin = self.start_origin("127.0.0.3", authority.server_context())
        origin.put("/a", 1000)
        self.start_vault(base_url=origin.url + "/", ca_file=str(authority.ca_file))
        self.assertEqual(self.get("/a").status, 502)


class RequestTests(FunctionalCase):
    """What the vault asks for, and how often at once."""

    def test_credentials_and_headers(self) -> None:
        """Basic authentication and further headers are sent as configured."""
        content = self.origin.put("/a", 1000, login=("user", "p:ss wörd"))
        self.start_vault(username="user", password="p:ss wörd", headers={"X-Token": "abc"})
        self.assert_whole(self.get("/a"), content)
        asked = self.origin.requests("/a")[-1]
        self.assertEqual(asked.headers["authorization"], basic("user", "p:ss wörd"))
        self.assertEqual(asked.headers["x-token"], "abc")

    def test_what_is_asked(self) -> None:
        """The upstream is asked for the plain bytes of the whole object, whatever the client wants of it."""
        self.origin.put("/a", 1000)
        self.start_vault()
        self.get("/a", {"Accept-Encoding": "gzip, br", "Range": "bytes=0-9", "If-None-Match": '"zzz"'})
        self.wait_until_stored("/a")
        asked = self.origin.requests("/a", "GET")[0].headers
        self.assertEqual(asked["accept-encoding"], "identity")
        self.assertEqual(asked["host"], f"127.0.0.1:{self.origin.port}")
        self.assertNotIn("range", asked)
        self.assertNotIn("if-none-match", asked)

    def test_max_connections(self) -> None:
        """No more requests than max_connections are made at the same time; the others wait their turn."""
        contents = [self.origin.put(f"/{number}", 300_000, default=Answer(rate=MIB)) for number in range(9)]
        self.start_vault(max_connections=3)
        for content, reply in zip(contents, together(9, lambda number: self.get(f"/{number}")), strict=True):
            self.assert_whole(reply, content)
        self.assertLessEqual(self.origin.peak, 3)
        self.assertGreater(self.origin.peak, 1)


class EncodingTests(FunctionalCase):
    """Bodies are never re-encoded."""

    def test_labelled_gzip(self) -> None:
        """A gzip body keeps its bytes and its label, cold and cached; curl --compressed unpacks it itself."""
        plain = b"some text\n" * 10_000
        packed = gzip.compress(plain, mtime=0)
        content = self.origin.put("/a.tar.gz", content=packed, headers={"Content-Encoding": "gzip"})
        self.start_vault()
        cold = self.get("/a.tar.gz")
        self.wait_until_stored("/a.tar.gz")
        for reply in (cold, self.get("/a.tar.gz"), self.get("/a.tar.gz", {"Accept-Encoding": "gzip"})):
            self.assert_whole(reply, content)
            self.assertEqual(reply.headers["content-encoding"], "gzip")
            self.assertEqual(reply.headers["content-length"], str(len(packed)))
        self.assertEqual(self.curl("/a.tar.gz", "--compressed").stdout, plain)
        self.assertEqual(self.curl("/a.tar.gz").stdout, packed)
        self.assertEqual(self.kept("/a.tar.gz").read_bytes(), packed)

    def test_unlabelled_body(self) -> None:
        """A body without Content-Encoding does not get one, not even for a client that would like it packed."""
        content = self.origin.put("/a", content=b"some text\n" * 10_000, content_type="text/plain")
        self.start_vault()
        for _ in range(2):
            reply = self.get("/a", {"Accept-Encoding": "gzip"})
            self.assert_whole(reply, content)
            self.assertNotIn("content-encoding", reply.headers)
            self.wait_until_stored("/a")

    def test_hop_by_hop_headers(self) -> None:
        """What was meant for the vault's own connection is not passed on."""
        self.origin.put(
            "/a", 1000, headers={"Connection": "X-Hop", "X-Hop": "1", "X-End": "2", "Keep-Alive": "timeout=5"}
        )
        self.start_vault()
        headers = self.get("/a").headers
        self.assertEqual(headers.get("x-end"), "2")
        for name in ("x-hop", "keep-alive"):
            self.assertNotIn(name, headers)
