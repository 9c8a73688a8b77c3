"""The scripted origin itself keeps its promises, to a real client."""

from __future__ import annotations

import subprocess

from tests.functional.case import FunctionalCase
from tests.functional.certificates import Authority
from tests.functional.clients import ask
from tests.functional.content import Literal
from tests.functional.script import MIB, OLD_DATE, Answer


class OriginTests(FunctionalCase):
    """curl against the origin, without a vault between."""

    def direct(self, path: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return self.run_client("curl", "-q", "-sS", *arguments, self.origin.url + path)

    def test_whole_body(self) -> None:
        """An honest object arrives exactly, and the request is on record."""
        content = self.origin.put("/a", 3 * MIB + 7)
        self.assertEqual(self.direct("/a").stdout, content.whole())
        [record] = self.origin.requests("/a")
        self.assertEqual((record.method, record.status, record.sent), ("GET", 200, content.size))

    def test_ranges(self) -> None:
        """Ranges, If-Range and 416 work as RFC 9110 says."""
        content = self.origin.put("/a", 100_000)
        self.assertEqual(self.direct("/a", "-r", "70000-80000").stdout, content.read(70000, 80001))
        self.assertEqual(self.direct("/a", "-r", "-10").stdout, content.read(99_990, 100_000))
        other = ask(self.origin.port, "/a", {"Range": "bytes=5-", "If-Range": '"2"'})
        self.assertEqual((other.status, len(other.body)), (200, 100_000))
        self.assertEqual(ask(self.origin.port, "/a", {"Range": "bytes=100000-"}).status, 416)

    def test_conditionals(self) -> None:
        """A matching validator is answered with 304."""
        self.origin.put("/a")
        self.assertEqual(ask(self.origin.port, "/a", {"If-None-Match": 'W/"1", "x"'}).status, 304)
        self.assertEqual(ask(self.origin.port, "/a", {"If-Modified-Since": OLD_DATE}).status, 304)
        self.assertEqual(ask(self.origin.port, "/a", {"If-None-Match": '"2"'}).status, 200)

    def test_scripted_faults(self) -> None:
        """A drop, a reset, a false length, a broken chunked body and garbage fail as curl expects them to."""
        script = [
            Answer(drop_after=1000),
            Answer(drop_after=MIB - 1, reset=True),
            Answer(claim=10),
            Answer(framing="broken-chunked"),
            Answer(raw=b"SSH-2.0-server\r\n"),
        ]
        self.origin.put("/a", script=script)
        failures = [self.direct("/a", "-o", "/dev/null").returncode for _ in script]
        self.assertEqual([failures[0], *failures[2:]], [18, 18, 18, 1])
        self.assertIn(failures[1], (18, 56))
        self.assertEqual(self.direct("/a", "-o", "/dev/null").returncode, 0)

    def test_framings(self) -> None:
        """Chunked and close-delimited bodies are whole."""
        content = self.origin.put("/a", 200_000, script=[Answer(framing="chunked"), Answer(framing="close")])
        self.assertEqual(self.direct("/a").stdout, content.whole())
        self.assertEqual(self.direct("/a").stdout, content.whole())

    def test_rate(self) -> None:
        """A slow object is as slow as it should be."""
        self.origin.put("/a", 100_000, default=Answer(rate=200_000))
        took = float(self.direct("/a", "-o", "/dev/null", "-w", "%{time_total}").stdout)
        self.assertTrue(0.3 < took < 2, took)

    def test_tls_and_proxy(self) -> None:
        """The https origin is trusted through its authority, also through the forward proxy's tunnel."""
        authority = Authority(self.directory / "ca")
        origin = self.start_origin("127.0.0.2", authority.server_context())
        origin.put("/a", content=Literal(b"secret"))
        proxy = self.start_proxy(("user", "word"))
        proxied = ("-x", proxy.url, "-U", "user:word", "--cacert", str(authority.ca_file))
        self.assertEqual(self.run_client("curl", "-q", "-sS", *proxied, origin.url + "/a").stdout, b"secret")
        self.assertEqual(proxy.records[-1].target, f"127.0.0.2:{origin.port}")
        self.origin.put("/b", content=b"plain")
        self.assertEqual(self.direct("/b", *proxied).stdout, b"plain")
        self.assertEqual(proxy.records[-1].target, self.origin.url + "/b")
