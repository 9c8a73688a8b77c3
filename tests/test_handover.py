"""What a connection gets through before the first request: a TLS handshake, in memory, and a proxy's tunnel."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from tests.functional.certificates import Authority
from tests.memory import Origin, Rig, Wire
from tests.test_upstream import UpstreamCase
from vault import errors
from vault.upstream import Manner

URL = "https://origin.test/a"


class Server:
    """The TLS of a server on a connection; it goes on when it is told to."""

    def __init__(self, wire: Wire, context: ssl.SSLContext) -> None:
        self._wire = wire
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_side=True)
        self.received = b""

    def go_on(self) -> None:
        """Take what the client has sent, and answer what is to be answered to that."""
        assert self._wire.tunnel is not None
        self._came.write(self._wire.tunnel)
        self._wire.tunnel = b""
        try:
            self._tls.do_handshake()
            self.received += self._tls.read()
        except ssl.SSLError:
            pass  # there is no more yet, or the client does not like the certificate
        self._wire.send(self._goes.read())

    def coded(self, data: bytes) -> bytes:
        """Data as it is sent."""
        self._tls.write(data)
        return self._goes.read()


class HandshakeCase(UpstreamCase):
    """An https upstream."""

    def start(self, **options: Any) -> Rig:
        """A vault that trusts ``authority``."""
        self.authority = Authority(Path(self.mktemp()))
        self.authority.certify("origin.test")
        rig = self.rig(("https://origin.test/",), ca_file=self.authority.ca_file, retries=0, **options)
        self.server: Origin = rig.net.origin("origin.test", port=443)
        self.server.opaque = True
        return rig

    def ask_by_tls(self, rig: Rig) -> tuple[Any, Server]:
        """Begin a request, and make the server's part of the handshake."""
        asking = rig.run(rig.upstream.ask("GET", URL))
        server = Server(self.server.wires[-1], self.authority.server_context())
        for _ in range(3):
            server.go_on()
            rig.net.pass_time()
        return asking, server

    def refusal(self, rig: Rig) -> errors.UpstreamError:
        """The error of a request where the handshake fails."""
        asking, _ = self.ask_by_tls(rig)
        error = self.failureResultOf(asking).value
        assert isinstance(error, errors.UpstreamError)
        self.assertEqual((self.server.open_wires, rig.free_slots()), (0, 32))
        return error


class HandshakeTests(HandshakeCase):
    """How long it may take, and how it ends."""

    def test_request(self) -> None:
        """The request goes out once it is over, and the answer comes; what comes with its last piece is not lost."""
        rig = self.start(connect_timeout=3.0)
        asking, server = self.ask_by_tls(rig)
        self.assertTrue(server.received.startswith(b"GET /a HTTP/1.1\r\n"), server.received)
        rig.net.pass_time(4)  # no time limit is left of the handshake
        self.server.wires[0].send(server.coded(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
        self.assertEqual(self.read(rig, self.successResultOf(asking)), b"ok")

    def test_silent(self) -> None:
        """One that hangs ends with the connect timeout, as a connection that is not made does, and is told as it."""
        for url in (URL, None):
            rig = self.start(connect_timeout=3.0)
            if url is not None:
                error = self.error(rig, url, seconds=3.1)
                self.assertIs(type(error), errors.Timeout)
                self.assertEqual((error.status, error.proxy_error), (503, "connection_timeout"))
            else:
                client = rig.request("a")
                rig.net.pass_time(2.9)
                self.assertFalse(client.answered)
                rig.net.pass_time(0.2)
                self.assertEqual(client.status, 503)
                self.assertIn("retry-after", client.headers)
                error = client.body.decode()  # type: ignore[assignment]
            self.assertIn("the TLS handshake of origin.test did not end within the connect timeout", str(error))
            self.assertEqual((self.server.open_wires, rig.free_slots()), (0, 32))

    def test_half(self) -> None:
        """So does one that stops in the middle."""
        rig = self.start(connect_timeout=3.0)
        asking = rig.run(rig.upstream.ask("GET", URL))
        wire = self.server.wires[0]
        server = Server(wire, self.authority.server_context())
        wire.paused = True
        server.go_on()
        wire._waiting = wire._waiting[:100]
        wire.resumeProducing()
        rig.net.pass_time(2.9)
        self.assertNoResult(asking)
        rig.net.pass_time(0.2)
        self.failureResultOf(asking, errors.Timeout)

    def test_next_upstream(self) -> None:
        """Another upstream is asked then."""
        rig = self.start(connect_timeout=3.0)
        other = rig.net.origin("other.test")
        other.answer = lambda asked: asked.answer(200, body=b"x")
        artifact = rig.artifact(urls=(URL, "http://other.test/a"))
        answering = rig.run(rig.sources.ask(artifact))
        rig.net.pass_time(3.1)
        self.successResultOf(answering).discard()
        rig.net.pass_time()

    def test_limit(self) -> None:
        """Where there is less time, it is told too that it was the handshake which was waited for."""
        rig = self.start()
        for silent, told in ((False, "the TLS handshake of origin.test did not end in time"), (True, "no connection")):
            self.server.silent = silent
            asking = rig.run(rig.upstream.ask("GET", URL, (), Manner(limit=2.0)))
            rig.net.pass_time(2.1)
            error = self.failureResultOf(asking, errors.Timeout).value
            self.assertIn(told, str(error))
            self.assertEqual((self.server.open_wires, rig.free_slots()), (0, 32))

    def test_given_up(self) -> None:
        """Whoever leaves within it gives everything back."""
        rig = self.start()
        asking = rig.run(rig.upstream.ask("GET", URL))
        asking.cancel()
        rig.net.pass_time()
        self.failureResultOf(asking)
        self.assertEqual((self.server.open_wires, rig.free_slots()), (0, 32))
        self.assertEqual(rig.net.getDelayedCalls(), [])

    def test_closed(self) -> None:
        """One that the upstream ends, with a close_notify or without, is no mistake of the vault's."""
        for sent in (b"", bytes.fromhex("15030300020100")):
            rig = self.start()
            asking = rig.run(rig.upstream.ask("GET", URL))
            self.server.wires[0].send(sent)
            self.server.wires[0].close()
            rig.net.pass_time()
            error = self.failureResultOf(asking).value
            self.assertIs(type(error), errors.Unavailable)
            self.assertEqual(str(error), "origin.test closed the connection within the TLS handshake")

    def test_broken_later(self) -> None:
        """A record that cannot be read after a good handshake is not blamed on the certificate."""
        rig = self.start()
        asking, server = self.ask_by_tls(rig)
        self.server.wires[0].send(server.coded(b"HTTP/1.1 200 OK\r\n")[:-1] + b"\0")
        rig.net.pass_time()
        error = self.failureResultOf(asking).value
        self.assertEqual((type(error), error.proxy_error), (errors.Unavailable, "tls_protocol_error"))
        self.assertIn("the TLS connection to origin.test broke: ", str(error))


class CertificateTests(HandshakeCase):
    """What is wrong with a certificate is told in words."""

    def test_faults(self) -> None:
        """It is for another name, out of date, or signed by somebody else."""
        for settings, told in (
            ({"name": "other.test"}, "its certificate is for another name"),
            ({"day": -9}, "its certificate, or one that signed it, has expired"),
            ({"day": 9}, "its certificate, or one that signed it, is not valid yet"),
            ({"itself": True}, "its certificate is self-signed"),
        ):
            rig = self.start()
            self.authority.certify(**{"name": "origin.test", **settings})  # type: ignore[arg-type]
            error = self.refusal(rig)
            self.assertEqual((type(error), error.proxy_error), (errors.TLSFailed, "tls_certificate_error"), settings)
            self.assertEqual(
                str(error), f"the certificate or TLS handshake of origin.test is not acceptable: {told}", settings
            )

    def test_unknown_authority(self) -> None:
        """Another authority may have signed it."""
        rig = self.start()
        self.authority = Authority(Path(self.mktemp()))
        self.authority.certify("origin.test")
        self.assertIn("signed by an authority that the vault does not know", str(self.refusal(rig)))


class TunnelTests(UpstreamCase):
    """A proxy that says nothing."""

    def setUp(self) -> None:
        self.here = self.rig((URL,), proxy="http://proxy.test:3128", connect_timeout=3.0)
        self.proxy = self.here.net.origin("proxy.test", port=3128)

    def test_silent(self) -> None:
        """It is given up after the connect timeout and told as the cause."""
        error = self.error(self.here, URL, seconds=3.1)
        self.assertEqual((type(error), error.proxy_error), (errors.Timeout, "connection_timeout"))
        wanted = "the proxy proxy.test:3128 has opened no tunnel to origin.test within the connect timeout"
        self.assertEqual(str(error), wanted)
        self.assertEqual(self.proxy.open_wires, 0)

    def test_limit(self) -> None:
        """So it is where there is less time, also where it does not even take the connection."""
        for silent, told in ((False, "has opened no tunnel to origin.test in time"), (True, "in time")):
            self.proxy.silent = silent
            asking = self.here.run(self.here.upstream.ask("GET", URL, (), Manner(limit=2.0)))
            self.here.net.pass_time(2.1)
            error = self.failureResultOf(asking, errors.Timeout).value
            self.assertIn("the proxy proxy.test:3128", str(error))
            self.assertTrue(str(error).endswith(told), error)
            self.assertEqual((self.proxy.open_wires, self.here.free_slots()), (0, 32))

    def test_handshake_behind(self) -> None:
        """Behind its tunnel the handshake has as long again, and is not blamed on the proxy."""
        self.proxy.answer = lambda asked: self.here.net.callLater(2, asked.send, b"HTTP/1.1 200 OK\r\n\r\n")
        asking = self.here.run(self.here.upstream.ask("GET", URL))
        self.here.net.pass_time(4.9)
        self.assertNoResult(asking)
        self.here.net.pass_time(0.2)
        error = self.failureResultOf(asking, errors.Timeout).value
        self.assertEqual(str(error), "the TLS handshake of origin.test did not end within the connect timeout")
