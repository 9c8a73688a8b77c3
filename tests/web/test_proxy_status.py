"""Proxy-Status (RFC 9209): what kind of failure an error tells of, and what the upstream said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.internet.error import ConnectError, ConnectionRefusedError, NoRouteError
from twisted.trial.unittest import SynchronousTestCase

import vault
from tests.memory import Asked, Client, Rig, RigCase
from vault.errors import VaultError

# https://www.iana.org/assignments/http-proxy-status, the table of proxy error types
REGISTERED = {
    "dns_timeout", "dns_error", "destination_not_found", "destination_unavailable", "destination_ip_prohibited",
    "destination_ip_unroutable", "connection_refused", "connection_terminated", "connection_timeout",
    "connection_read_timeout", "connection_write_timeout", "connection_limit_reached", "tls_protocol_error",
    "tls_certificate_error", "tls_alert_received", "http_request_error", "http_request_denied",
    "http_response_incomplete", "http_response_header_section_size", "http_response_header_size",
    "http_response_body_size", "http_response_trailer_section_size", "http_response_trailer_size",
    "http_response_transfer_coding", "http_response_content_coding", "http_response_timeout", "http_upgrade_failed",
    "http_protocol_error", "proxy_internal_response", "proxy_internal_error", "proxy_configuration_error",
    "proxy_loop_detected",
}  # fmt: skip


def kinds(kind: type[VaultError] = VaultError) -> Iterator[type[VaultError]]:
    """A class of errors and all that are derived from it."""
    yield kind
    for one in kind.__subclasses__():
        yield from kinds(one)


class NameTests(SynchronousTestCase):
    """The names of error types."""

    def test_registered(self) -> None:
        """Each is one of the registry."""
        for kind in kinds():
            self.assertIn(kind.proxy_error, REGISTERED, kind)
        for path in Path(vault.__file__).parent.rglob("*.py"):
            for name in re.findall(r"(?:named\(|error=)\"?([a-z_]+)\"", path.read_text()):
                self.assertIn(name, REGISTERED, path)


class StatusTests(RigCase):
    """What clients are told of a failure."""

    def told(self, answer: Callable[[Asked], object], **options: object) -> tuple[int, str]:
        """The status and Proxy-Status of what the upstream answers so."""
        rig = self.rig(**options)
        rig.origin.answer = answer
        return self.of(rig, rig.request())

    def of(self, rig: Rig, client: Client) -> tuple[int, str]:
        """The status and Proxy-Status of an answer that may take a while."""
        rig.net.pass_time(70)
        return client.status, client.headers["proxy-status"].removeprefix("ArtifactVault; ")

    def test_status(self) -> None:
        """Of an upstream that answered the status is told; what is passed on as it is, is no error of the vault's."""
        for status, told, kind in (
            (404, 404, ""), (410, 410, ""), (416, 416, ""), (429, 503, "destination_unavailable"),
            (500, 503, "destination_unavailable"), (503, 503, "destination_unavailable"),
            (501, 502, "http_protocol_error"), (418, 502, "http_protocol_error"), (508, 502, "proxy_loop_detected"),
            (401, 502, "proxy_configuration_error"), (403, 502, "proxy_configuration_error"),
        ):  # fmt: skip
            error = f"error={kind}; " if kind else ""
            found = self.told(lambda asked, status=status: asked.answer(status))
            self.assertEqual(found, (told, f"{error}received-status={status}"))

    def test_from_memory(self) -> None:
        """What is told from memory was not received now."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(404)
        rig.request()
        self.assertNotIn("proxy-status", rig.request().headers)
        rig.origin.answer = lambda asked: asked.answer(503, "Retry-After: 300")
        self.assertEqual(
            rig.request("b").headers["proxy-status"][15:], "error=destination_unavailable; received-status=503"
        )
        self.assertEqual(rig.request("b").headers["proxy-status"][15:], "error=destination_unavailable")

    def test_silent(self) -> None:
        """An upstream that does not answer in time, one that no connection to is made, and one that hangs up."""
        self.assertEqual(self.told(lambda asked: None), (503, "error=http_response_timeout"))
        self.assertEqual(self.told(lambda asked: asked.close()), (503, "error=connection_terminated"))
        rig = self.rig()
        rig.origin.silent = True
        self.assertEqual(self.of(rig, rig.request()), (503, "error=connection_timeout"))

    def test_no_connection(self) -> None:
        """Why no connection was made."""
        for error, kind in (
            (ConnectionRefusedError(string="x"), "connection_refused"),
            (NoRouteError(), "destination_ip_unroutable"),
            (ConnectError(13), "destination_unavailable"),
        ):
            rig = self.rig()
            rig.origin.refuse = error
            self.assertEqual(self.of(rig, rig.request()), (503, f"error={kind}"))

    def test_queue(self) -> None:
        """Who waits for a connection for too long is told that."""
        rig = self.rig(max_connections=1, first_byte_timeout=1000.0)
        rig.request("a")
        client = rig.request("b")
        rig.net.pass_time(301)
        self.assertEqual(self.of(rig, client), (503, "error=connection_limit_reached"))

    def test_head(self) -> None:
        """A head that is too large, and one that is cut."""

        def large(asked: Asked) -> None:
            asked.send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000)

        self.assertEqual(self.told(large, retries=0), (502, "error=http_response_header_section_size"))

        def cut(asked: Asked) -> None:
            asked.send(b"HTTP/1.1 200 OK\r\nX: y\r\n")
            asked.close()

        self.assertEqual(self.told(cut, retries=0), (502, "error=http_response_incomplete"))

    def test_loop(self) -> None:
        """A request that has been here before is a loop."""
        rig = self.rig()
        client = rig.request("a", "Via: 1.1 artifact-vault-me")
        self.assertEqual((client.status, client.headers["proxy-status"][15:]), (508, "error=proxy_loop_detected"))

    def test_not_stored(self) -> None:
        """Nobody was asked."""
        rig = self.rig()
        client = rig.request("a", "Cache-Control: only-if-cached")
        self.assertEqual((client.status, client.headers["proxy-status"][15:]), (504, "error=proxy_internal_response"))
