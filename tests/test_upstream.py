"""Upstream: what is sent, where redirects may lead, how long is waited, and that each connection is given back."""

from __future__ import annotations

import base64
from typing import Any

from OpenSSL import SSL
from twisted.internet import error as net
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from tests.memory import Asked, Rig, RigCase
from vault import errors
from vault.explanation import explained
from vault.hosts import MOST_HOSTS
from vault.proxy import TunnelRefused
from vault.upstream import Answer, Manner, origin_of

URL = "http://origin.test/a"


class Body:
    """What an answer's body came to."""

    def __init__(self, answer: Answer) -> None:
        self.data = b""
        self.ended = False
        self.error: errors.UpstreamError | None = None
        answer.deliver(self._take, self._end)

    def _take(self, data: bytes) -> None:
        self.data += data

    def _end(self, error: errors.UpstreamError | None) -> None:
        self.ended, self.error = True, error


class UpstreamCase(RigCase):
    """Requests straight to the upstream."""

    def ask(
        self, rig: Rig, url: str = URL, *headers: tuple[str, str], method: str = "GET", counted_as: str = ""
    ) -> Answer:
        """The answer to a request."""
        asking = rig.run(rig.upstream.ask(method, url, headers, Manner(counted_as=counted_as)))
        answer: Answer = self.successResultOf(asking)
        return answer

    def read(self, rig: Rig, answer: Answer) -> bytes:
        """The body of an answer."""
        body = Body(answer)
        rig.net.pass_time()
        self.assertEqual((body.ended, body.error), (True, None))
        return body.data

    def error(
        self, rig: Rig, url: str = URL, seconds: float = 1, method: str = "GET", counted_as: str = ""
    ) -> errors.UpstreamError:
        """The error that a request ends in."""
        asking = rig.run(rig.upstream.ask(method, url, (), Manner(counted_as=counted_as)))
        rig.net.pass_time(seconds)
        error = self.failureResultOf(asking).value
        self.assertIsInstance(error, errors.UpstreamError)
        return error  # type: ignore[return-value]


class RequestTests(UpstreamCase):
    """What an origin is sent and what is kept of its answer."""

    def test_fields(self) -> None:
        """The origin is asked for the bytes as they are, once, by name, and without the vault's own cookies."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(200, "Set-Cookie: a=b; Path=/")
        for _ in range(2):
            self.ask(rig).discard()
            rig.net.pass_time()
        asked = rig.origin.last
        self.assertEqual((asked.method, asked.target), ("GET", "/a"))
        self.assertEqual(asked.all("Accept-Encoding"), ["identity"])
        self.assertEqual(asked.all("Host"), ["origin.test"])
        self.assertEqual(asked.all("Accept"), ["*/*"])
        self.assertEqual(asked.all("Cookie"), [])
        self.assertTrue((asked.get("User-Agent") or "").startswith("artifact-vault/"))
        self.assertTrue((asked.get("Via") or "").startswith("1.1 artifact-vault"))

    def test_verbatim_target(self) -> None:
        """A path is sent as it stands, with its percent-encoding and query."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer()
        self.ask(rig, "http://origin.test/a%2Bb/~c;d?x=%20y&z=a/b").abort()
        self.assertEqual(rig.origin.last.target, "/a%2Bb/~c;d?x=%20y&z=a/b")

    def test_given_fields_win(self) -> None:
        """A field given for one request is not sent a second time by the configuration."""
        rig = self.rig(headers=(("X-Token", "t"), ("Accept", "text/plain")), username="u", password="p")
        rig.origin.answer = lambda asked: asked.answer()
        self.ask(rig, URL, ("accept", "a/b"), ("Authorization", "Bearer x")).abort()
        self.assertEqual(rig.origin.last.all("Accept"), ["a/b"])
        self.assertEqual(rig.origin.last.all("Authorization"), ["Bearer x"])
        self.assertEqual(rig.origin.last.all("X-Token"), ["t"])

    def test_basic(self) -> None:
        """A configured user name and password go with each request."""
        rig = self.rig(username="joé", password="p:w")
        rig.origin.answer = lambda asked: asked.answer()
        self.ask(rig).abort()
        expected = "Basic " + base64.b64encode("joé:p:w".encode()).decode()
        self.assertEqual(rig.origin.last.get("Authorization"), expected)

    def test_encoded_body(self) -> None:
        """A gzip body is handed on as it is, with its Content-Encoding and its length."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(200, "Content-Encoding: gzip", body=b"\x1f\x8bnotreally")
        answer = self.ask(rig)
        self.assertEqual(answer.head.get("Content-Encoding"), "gzip")
        self.assertEqual(answer.length, 11)
        self.assertEqual(self.read(rig, answer), b"\x1f\x8bnotreally")

    def test_plain_body(self) -> None:
        """An answer without Content-Encoding does not gain one."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer()
        answer = self.ask(rig)
        answer.discard()
        self.assertIsNone(answer.head.get("Content-Encoding"))

    def test_hop_by_hop(self) -> None:
        """Fields that belong to one connection are not kept, nor those that Connection names."""
        rig = self.rig()
        fields = (
            "Connection: X-Mine",
            "X-Mine: 1",
            "Keep-Alive: timeout=5",
            "Trailer: T",
            "Set-Cookie: a=b",
            "X-Kept: 1",
        )
        for status, body in ((200, b"x"), (200, b""), (304, b"")):
            rig.origin.answer = lambda asked, status=status, body=body: asked.answer(status, *fields, body=body)
            answer = self.ask(rig)
            answer.abort()
            self.assertEqual(answer.head.headers, (("X-Kept", "1"),), status)

    def test_head_length(self) -> None:
        """The answer to HEAD tells the length that a GET would have."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, length=2**40)
        answer = self.ask(rig, method="HEAD")
        self.assertEqual(answer.length, 2**40)
        answer.discard()

    def test_absurd_length(self) -> None:
        """An answer that announces more bytes than any file can have is broken, however many digits it takes."""
        for digits in (19, 20, 400, 5000):
            for method in ("GET", "HEAD"):
                rig = self.rig(max_connections=1)
                rig.origin.answer = lambda asked, digits=digits: asked.head(200, f"Content-Length: {'9' * digits}")
                error = self.error(rig, method=method)
                self.assertIsInstance(error, errors.BrokenAnswer, f"{method}, {digits} digits")
                self.assertEqual(rig.free_slots(), 1)
                rig.net.pass_time(10)
                self.assertEqual(rig.origin.open_wires, 0)
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, f"Content-Length: {'0' * 5000}7")
        answer = self.ask(rig, method="HEAD")
        self.assertEqual(answer.length, 7)
        answer.discard()


class DelimitedTests(UpstreamCase):
    """Whether the end of a body can be told."""

    def delimited(self, *head: str) -> Answer:
        """The answer whose head has these lines."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.send("\r\n".join([*head, "", ""]).encode())
        answer = self.ask(rig)
        self.addCleanup(answer.abort)
        return answer

    def test_length(self) -> None:
        """A body with a length ends there, in HTTP/1.0 too."""
        self.assertTrue(self.delimited("HTTP/1.0 200 OK", "Content-Length: 5").delimited)
        self.assertTrue(self.delimited("HTTP/1.1 200 OK", "Content-Length: 5").delimited)

    def test_chunked(self) -> None:
        """A chunked body ends with its last chunk."""
        answer = self.delimited("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
        self.assertTrue(answer.delimited)
        self.assertIsNone(answer.length)

    def test_closing(self) -> None:
        """A body that ends with its connection is known to be such before its end."""
        self.assertFalse(self.delimited("HTTP/1.0 200 OK").delimited)
        self.assertFalse(self.delimited("HTTP/1.1 200 OK").delimited)
        self.assertFalse(self.delimited("HTTP/1.1 200 OK", "Connection: close").delimited)

    def test_broken(self) -> None:
        """A connection that breaks is no end of a body that ends with its connection; an orderly close is."""
        for error, whole in (
            (None, True),
            (net.ConnectionLost(), False),
            (SSL.Error([("SSL routines", "", "eof")]), False),
        ):
            rig = self.rig()
            rig.origin.answer = lambda asked: asked.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
            ended: list[object] = []
            self.ask(rig).deliver(lambda data: None, ended.append)
            rig.origin.last.close(error)
            rig.net.pass_time()
            self.assertEqual([one is None for one in ended], [whole], error)


class BodyTests(UpstreamCase):
    """Bodies, their pace and their end."""

    def setUp(self) -> None:
        self.here = self.rig(idle_timeout=30.0)

    def begin(self, *fields: str, length: int | None = 10) -> Answer:
        """An answer whose head has come."""
        self.here.origin.answer = lambda asked: asked.head(200, *fields, length=length)
        return self.ask(self.here)

    def test_whole(self) -> None:
        """A whole body ends without an error, and its connection is used again."""
        body = Body(self.begin())
        self.here.origin.last.send(b"0123456789")
        self.assertEqual((body.data, body.ended, body.error), (b"0123456789", True, None))
        self.ask(self.here).abort()
        self.assertEqual(len(self.here.origin.wires), 1)

    def test_short(self) -> None:
        """A body that is shorter than announced ends in an error that may pass."""
        body = Body(self.begin())
        self.here.origin.last.send(b"0123")
        self.here.origin.last.close()
        self.assertIsInstance(body.error, errors.Unavailable)
        self.assertEqual(body.data, b"0123")

    def test_broken_chunks(self) -> None:
        """A chunked body without its last chunk ends in an error."""
        body = Body(self.begin("Transfer-Encoding: chunked", length=None))
        self.here.origin.last.chunk(b"0123")
        self.here.origin.last.close()
        self.assertIsInstance(body.error, errors.UpstreamError)

    def test_nonsense_chunks(self) -> None:
        """A chunk size that is none ends in an error, and the connection is closed."""
        body = Body(self.begin("Transfer-Encoding: chunked", length=None))
        self.here.origin.last.send(b"zz\r\n")
        self.here.net.pass_time()
        self.assertIsInstance(body.error, errors.UpstreamError)
        self.assertEqual(self.here.origin.open_wires, 0)

    def test_idle(self) -> None:
        """An upstream that sends nothing for too long is given up."""
        body = Body(self.begin())
        self.here.net.pass_time(20)
        self.here.origin.last.send(b"0")
        self.here.net.pass_time(29)
        self.assertFalse(body.ended)
        self.here.net.pass_time(2)
        self.assertIsInstance(body.error, errors.Timeout)
        self.assertEqual(self.here.origin.open_wires, 0)

    def test_paused(self) -> None:
        """While the vault itself takes nothing, the upstream is not blamed for it."""
        answer = self.begin()
        body = Body(answer)
        answer.pauseProducing()
        self.here.net.pass_time(500)
        self.assertFalse(body.ended)
        answer.resumeProducing()
        self.here.net.pass_time(29)
        self.assertFalse(body.ended)
        self.here.net.pass_time(2)
        self.assertIsInstance(body.error, errors.Timeout)

    def test_abort_unread(self) -> None:
        """An answer nobody wants is cut off, and its connection given back."""
        self.begin(length=10**9).abort()
        self.here.net.pass_time()
        self.assertEqual(self.here.origin.open_wires, 0)
        self.assertEqual(self.here.free_slots(), 32)

    def test_abort_twice(self) -> None:
        """Aborting again gives nothing back a second time."""
        answer = self.begin()
        Body(answer)
        answer.abort()
        answer.abort()
        self.here.net.pass_time()
        self.assertEqual(self.here.free_slots(), 32)

    def test_abort_after_the_end(self) -> None:
        """Aborting after the end does not cut a connection that others use by now."""
        answer = self.begin()
        Body(answer)
        self.here.origin.last.send(b"0123456789")
        other = self.ask(self.here)
        answer.abort()
        self.here.net.pass_time()
        body = Body(other)
        self.here.origin.last.send(b"abcdefghij")
        self.assertEqual(body.data, b"abcdefghij")

    def test_discard_short(self) -> None:
        """A short body that is not wanted is read, so that its connection can be used again."""
        self.begin(length=5).discard()
        self.here.origin.last.send(b"01234")
        self.here.net.pass_time()
        self.assertEqual(self.here.origin.open_wires, 1)
        self.assertEqual(self.here.free_slots(), 32)

    def test_discard_stuck(self) -> None:
        """A short body that never comes holds its connection no longer than the idle timeout."""
        self.begin(length=5).discard()
        self.here.net.pass_time(31)
        self.assertEqual(self.here.free_slots(), 32)
        self.assertEqual(self.here.origin.open_wires, 0)

    def test_no_body(self) -> None:
        """A 304 can be discarded too, and its connection is used again."""
        self.here.origin.answer = lambda asked: asked.answer(304)
        self.ask(self.here).discard()
        self.assertEqual(self.here.free_slots(), 32)
        self.assertEqual(self.here.origin.open_wires, 1)


class RedirectTests(UpstreamCase):
    """Redirects, which the vault follows itself."""

    def redirect(self, rig: Rig, *locations: str, status: int = 302) -> None:
        """Let the origin redirect through these, and then answer."""
        left = list(locations)

        def answer(asked: Asked) -> None:
            if left:
                asked.answer(status, f"Location: {left.pop(0)}", body=b"moved")
            else:
                asked.answer(200, body=b"here")

        rig.origin.answer = answer

    def test_five(self) -> None:
        """Five redirects are followed; the answer tells both where it was asked and where it came from."""
        for status in (301, 302, 303, 307, 308):
            rig = self.rig()
            self.redirect(rig, "b", "/c", "//origin.test/d", "http://origin.test/e", "?f#fragment", status=status)
            answer = self.ask(rig)
            self.assertEqual([asked.target for asked in rig.origin.requests], ["/a", "/b", "/c", "/d", "/e", "/e?f"])
            self.assertEqual((answer.url, answer.asked), ("http://origin.test/e?f", URL))
            self.assertEqual(self.read(rig, answer), b"here")
            self.assertLessEqual(rig.origin.open_wires, 2)

    def test_six(self) -> None:
        """A sixth redirect is one too many."""
        rig = self.rig()
        self.redirect(rig, *["b"] * 6)
        self.assertIsInstance(self.error(rig), errors.BrokenAnswer)
        self.assertEqual(len(rig.origin.requests), 6)

    def test_port(self) -> None:
        """Who redirects too often, refuses or says nothing is told with its port."""
        rig = self.rig(("http://origin.test:8000/",), first_byte_timeout=7.0)
        rig.origin = rig.net.origin("origin.test", port=8000)
        self.redirect(rig, *["b"] * 6)
        url = "http://origin.test:8000/a"
        self.assertEqual(str(self.error(rig, url)), "origin.test:8000 redirects more than 5 times")
        rig.origin.answer = lambda asked: None
        self.assertIn("origin.test:8000 did not answer", str(self.error(rig, url, seconds=8)))
        rig.origin.refuse = net.ConnectionRefusedError(string="refused")
        self.assertIn("no connection to origin.test:8000: ", str(self.error(rig, url)))

    def test_raw_utf8(self) -> None:
        """A Location with UTF-8 in it is taken as percent-encoded, and one with encoding is left as it is."""
        rig = self.rig()
        rig.origin.answer = lambda asked: (
            asked.send("HTTP/1.1 302 X\r\nLocation: /ä b%2Fc\r\nContent-Length: 0\r\n\r\n".encode())
            if asked.target == "/a"
            else asked.answer()
        )
        self.ask(rig).discard()
        self.assertEqual(rig.origin.last.target, "/%C3%A4%20b%2Fc")

    def test_no_location(self) -> None:
        """A redirect without a target is an answer like any other."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(302)
        answer = self.ask(rig)
        answer.discard()
        self.assertEqual(answer.status, 302)

    def test_credentials(self) -> None:
        """Credentials and configured fields stay with the configured host, even when a redirect leads back to it."""
        rig = self.rig(username="u", password="p", headers=(("X-Token", "t"),))
        other = rig.net.origin("cdn.test")
        self.redirect(rig, "http://cdn.test/b")
        other.answer = lambda asked: asked.answer(302, "Location: http://origin.test/c")
        self.ask(rig, URL, ("Cookie", "c"), ("Range", "bytes=1-")).discard()
        first, last = rig.origin.requests
        self.assertIsNotNone(first.get("Authorization"))
        self.assertEqual(first.get("X-Token"), "t")
        for asked in (other.last, last):
            for name in ("Authorization", "X-Token", "Cookie"):
                self.assertIsNone(asked.get(name), name)
            self.assertEqual(asked.get("Range"), "bytes=1-")
            self.assertEqual(asked.all("Accept-Encoding"), ["identity"])

    def test_other_port(self) -> None:
        """Another port of the same host is another host as far as credentials are concerned."""
        rig = self.rig(username="u", password="p")
        other = rig.net.origin("origin.test", port=8000)
        other.answer = lambda asked: asked.answer()
        self.redirect(rig, "http://origin.test:8000/b")
        self.ask(rig).discard()
        self.assertIsNone(other.last.get("Authorization"))

    def test_forbidden(self) -> None:
        """A redirect to this machine, its link or something that is no web address is refused, and nobody is asked."""
        for target in (
            "http://127.0.0.1/", "http://localhost/", "http://a.localhost/", "http://[::1]/", "http://169.254.169.254/",
            "http://[fe80::1]/", "http://[::ffff:127.0.0.1]/", "http://0.0.0.0/", "http://224.0.0.1/",
            "http://inside.test/", "http://[fd00:ec2::254]/", "http://meta.test/",
            "http://127.1/", "file:///etc/passwd", "ftp://origin.test/", "http://u:p@origin.test/",
        ):  # fmt: skip
            rig = self.rig()
            inside = rig.net.origin("inside.test", "127.0.0.1", "169.254.169.254")
            meta = rig.net.origin("meta.test", "fd00:ec2::254")
            rig.net.names["127.1"] = ["127.0.0.1"]
            self.redirect(rig, target)
            self.assertIsInstance(self.error(rig), errors.ForbiddenTarget, target)
            self.assertEqual(inside.requests + meta.requests, [], target)

    def test_downgrade(self) -> None:
        """A redirect from https to http is refused, even to a host of the configuration."""
        upstream = self.rig().upstream
        for target in ("http://origin.test/b", "http://elsewhere.test/b"):
            # Asked directly: there is no TLS in memory.
            self.assertRaises(errors.ForbiddenTarget, upstream._redirected, "https://origin.test/a", target)
        self.assertEqual(upstream._redirected(URL, "https://cdn.test/b"), "https://cdn.test/b")
        self.assertEqual(upstream._redirected("https://origin.test/a", "b"), "https://origin.test/b")

    def test_not_a_url(self) -> None:
        """A redirect to something that cannot be read is a broken answer."""
        for target in (
            "http://[x/", "http://origin.test:99999/", "http://origin.test:x/", "http://origin.test:8 0/",
            "http://origin.test: 80/", "http://origin .test/", "http://origin.test%20/", "http://origin.test\\b",
            "http://origin.test:80:80/", "http://[::1]x/", "http://\u00e4.test/",
        ):  # fmt: skip
            rig = self.rig()
            self.redirect(rig, target)
            error = self.error(rig)
            self.assertIsInstance(error, errors.BrokenAnswer, target)
            self.assertIn("redirects to something that is no URL", str(error), target)

    def test_no_host(self) -> None:
        """A redirect to a host that cannot have an address is told as that."""
        for host in ("a..test", ".test"):
            rig = self.rig()
            self.redirect(rig, f"http://{host}/")
            self.assertIn("is no host name", str(self.error(rig)))

    def test_empty_port(self) -> None:
        """An empty port is the scheme's own, and an empty path is the root."""
        for target, asked in (
            ("http://origin.test:/b", "/b"),
            ("//origin.test:?c", "/?c"),
            ("http://origin.test", "/"),
        ):
            rig = self.rig()
            self.redirect(rig, target)
            answer = self.ask(rig)
            answer.discard()
            self.assertEqual((rig.origin.last.target, rig.origin.last.get("Host")), (asked, "origin.test"))
            self.assertEqual(answer.url, f"http://origin.test{asked}")

    def test_lives_there(self) -> None:
        """A backend that lives on this machine may redirect to this machine."""
        rig = self.rig(("http://localhost/",))
        local = rig.net.origin("localhost", "127.0.0.1")
        local.answer = lambda asked: asked.answer(302, "Location: http://127.0.0.1:90/b")
        other = rig.net.origin("other.test", "127.0.0.1", port=90)
        other.answer = lambda asked: asked.answer()
        self.ask(rig, "http://localhost/a").discard()
        self.assertEqual(other.last.target, "/b")

    def test_lives_elsewhere(self) -> None:
        """A backend that lives on this machine may not redirect to a link-local address."""
        rig = self.rig(("http://127.0.0.1/",))
        local = rig.net.origin("localhost", "127.0.0.1")
        local.answer = lambda asked: asked.answer(302, "Location: http://169.254.169.254/b")
        self.assertIsInstance(self.error(rig, "http://127.0.0.1/a"), errors.ForbiddenTarget)

    def test_allowed_address_fails(self) -> None:
        """Where a name has an allowed address too and that one fails, the failure is told, not a prohibition."""
        rig = self.rig()
        mixed = rig.net.origin("mixed.test", "127.0.0.1", "192.0.2.77")
        mixed.refuse = net.ConnectionRefusedError(string="refused")
        self.redirect(rig, "http://mixed.test/b")
        self.assertIsInstance(self.error(rig), errors.ConnectionRefused)

    def test_stuck_body(self) -> None:
        """A redirect's own body that never comes does not hold up the rest."""
        rig = self.rig()
        rig.origin.answer = lambda asked: (
            asked.head(302, "Location: /b", length=10) if asked.target == "/a" else asked.answer(200, body=b"x")
        )
        self.assertEqual(self.read(rig, self.ask(rig)), b"x")
        rig.net.pass_time(100)
        self.assertEqual(rig.free_slots(), 32)


class LimitTests(UpstreamCase):
    """How many connections there are, and how long is waited for them."""

    def test_per_host(self) -> None:
        """No more than ``max_connections`` requests to one host run at a time; the others take their turn."""
        rig = self.rig(max_connections=2)
        asking = [rig.run(rig.upstream.ask("GET", URL)) for _ in range(3)]
        self.assertEqual(len(rig.origin.requests), 2)
        rig.origin.requests[0].answer()
        self.successResultOf(asking[0]).discard()
        rig.net.pass_time()
        self.assertEqual(len(rig.origin.requests), 3)
        for asked, waiting in zip(rig.origin.requests[1:], asking[1:], strict=True):
            asked.answer()
            self.successResultOf(waiting).discard()

    def test_other_host(self) -> None:
        """A host that is busy does not hold up another."""
        rig = self.rig(max_connections=1)
        other = rig.net.origin("other.test")
        other.answer = lambda asked: asked.answer()
        stuck = rig.run(rig.upstream.ask("GET", URL))
        self.ask(rig, "http://other.test/").discard()
        rig.net.pass_time(61)
        self.failureResultOf(stuck, errors.Timeout)

    def test_underscore(self) -> None:
        """A host may have an underscore in its name, as in networks of containers."""
        rig = self.rig(("http://file_server/",))
        rig.net.origin("file_server").answer = lambda asked: asked.answer()
        self.ask(rig, "http://file_server/a").discard()
        error = self.error(rig, "http://no_server/a")
        self.assertIsInstance(error, errors.NameNotFound)
        self.assertIn("no_server", str(error))
        self.assertIn("file_server cannot be reached by https", str(self.error(rig, "https://file_server/a")))

    def test_no_slot(self) -> None:
        """Whoever waits for a connection longer than the timeout is told so, and takes no connection later."""
        rig = self.rig(max_connections=1, first_byte_timeout=5.0, idle_timeout=100.0)
        rig.origin.answer = lambda asked: asked.head(200, length=10)
        first = self.ask(rig)
        self.assertIn("in use", str(self.error(rig, seconds=301)))
        first.abort()
        rig.net.pass_time()
        self.assertEqual(rig.free_slots(), 1)

    def test_short_first(self) -> None:
        """What has a short answer is asked for before what waits longer, and whole downloads leave it a connection."""
        rig = self.rig(max_connections=8)
        rig.origin.answer = lambda asked: asked.head(200, length=10)
        long = [rig.run(rig.upstream.ask("GET", URL)) for _ in range(9)]
        self.assertEqual((len(rig.origin.requests), rig.free_slots()), (7, 1))
        short = [rig.run(rig.upstream.ask(*what)) for what in (("HEAD", URL), ("GET", URL, (), Manner(spare=True)))]
        self.assertEqual(rig.origin.requests[7].method, "HEAD")
        self.failureResultOf(short[1], errors.Unavailable)
        waiting = [rig.run(rig.upstream.ask("GET", f"{URL}/short", (), Manner(short=True))) for _ in range(2)]
        given_up = waiting.pop()
        given_up.cancel()
        self.failureResultOf(given_up)
        for one in (short[0], *long[:7]):
            self.successResultOf(one).abort()
            rig.net.pass_time()
        self.assertEqual(rig.origin.requests[8].target, "/a/short")
        for one in (*waiting, *long[7:]):
            self.successResultOf(one).abort()
        rig.net.pass_time()
        self.assertEqual(rig.free_slots(), 8)

    def test_no_answer(self) -> None:
        """An upstream that says nothing is given up after the time for the first byte, and cut off."""
        rig = self.rig(first_byte_timeout=7.0)
        self.assertIsInstance(self.error(rig, seconds=8), errors.Timeout)
        self.assertEqual(rig.origin.open_wires, 0)
        self.assertEqual(rig.free_slots(), 32)

    def test_no_connection(self) -> None:
        """A host that does not take connections is given up after the connect timeout."""
        rig = self.rig(connect_timeout=3.0)
        rig.origin.silent = True
        self.assertIsInstance(self.error(rig, seconds=4), errors.Timeout)
        self.assertEqual(rig.free_slots(), 32)

    def test_cancelled(self) -> None:
        """A request that is given up while it waits for its turn or for the answer gives everything back."""
        rig = self.rig(max_connections=1)
        asking = [rig.run(rig.upstream.ask("GET", URL)) for _ in range(2)]
        for waiting in reversed(asking):
            waiting.cancel()
            rig.net.pass_time()
            self.failureResultOf(waiting)
        self.assertEqual(rig.free_slots(), 1)
        self.assertEqual(rig.origin.open_wires, 0)

    def test_cancelled_while_resolving(self) -> None:
        """Who gives up while the name is looked up is not told that there is no such name: it would try again."""
        rig = self.rig(max_connections=1)
        rig.net.slow_names.add("origin.test")
        asking = rig.run(rig.upstream.ask("GET", URL))
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(rig.free_slots(), 1)

    def test_after_errors(self) -> None:
        """Failures of every kind give the connection back."""
        rig = self.rig(max_connections=1)
        breaks: list[Any] = [
            lambda asked: asked.close(),
            lambda asked: asked.send(b"not http at all\r\n\r\n"),
            lambda asked: asked.head(302, "Location: ftp://x/", length=0),
            lambda asked: asked.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
            lambda asked: asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n"),
        ]
        for broken in breaks:
            rig.origin.answer = broken
            self.error(rig)
            self.assertEqual(rig.free_slots(), 1)

    def test_gate(self) -> None:
        """A host that answers 429 with Retry-After is left alone that long, and others learn how long at once."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(429, "Retry-After: 30")
        self.ask(rig).discard()
        rig.net.pass_time(10)
        error = self.error(rig, seconds=0)
        self.assertEqual((error.status, error.retry_after), (503, 20.0))
        self.assertEqual(len(rig.origin.requests), 1)
        rig.net.pass_time(21)
        self.ask(rig).discard()

    def test_gate_and_the_time_of_day(self) -> None:
        """Setting the machine's clock back does not make the vault leave a host alone for longer."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(429, "Retry-After: 30")
        self.ask(rig).discard()
        rig.upstream._now = lambda: rig.net.seconds() - 86400
        self.assertEqual(self.error(rig, seconds=0).retry_after, 30.0)
        rig.net.pass_time(31)
        self.ask(rig).discard()

    def test_counted_gate(self) -> None:
        """A refusal of what a host counts apart holds for what is counted likewise; one of anything else for all."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(429, "Retry-After: 30")
        self.ask(rig, counted_as="manifests").discard()
        error = self.error(rig, seconds=0, counted_as="manifests")
        self.assertEqual((type(error), error.retry_after), (errors.LeftAlone, 30.0))
        self.assertIn("manifests", str(error))
        rig.origin.answer = lambda asked: asked.answer()
        for other in ("", "lists"):
            self.ask(rig, counted_as=other).discard()
        rig.net.pass_time(31)
        self.ask(rig, counted_as="manifests").discard()
        rig.origin.answer = lambda asked: asked.answer(429, "Retry-After: 30")
        self.ask(rig).discard()
        for other in ("", "manifests"):
            self.assertEqual(self.error(rig, seconds=0, counted_as=other).retry_after, 30.0)

    def test_ailing_host(self) -> None:
        """A host that answers 503 with Retry-After for one path after another is left alone, for a minute at most."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(503, "Retry-After: 300")
        for path in ("a", "a", "b"):
            self.ask(rig, f"http://origin.test/{path}").discard()
        self.assertEqual(self.error(rig, "http://origin.test/c", 0).retry_after, 60.0)
        self.assertEqual(len(rig.origin.requests), 3)
        rig.origin.answer = lambda asked: asked.answer()
        rig.net.pass_time(61)
        self.ask(rig, "http://origin.test/c").discard()

    def test_ailing_path(self) -> None:
        """One path that is answered 503 takes nothing else of its host away."""
        rig = self.rig()
        wait = ["Retry-After: 10"]
        rig.origin.answer = lambda asked: asked.answer(503, *wait) if asked.target < "/m" else asked.answer()
        for path in ("a", "x", "a", "z", "b"):  # what comes between shows that the host is well
            self.ask(rig, f"http://origin.test/{path}").discard()
        rig.net.pass_time(11)  # and what is longer ago than it was to last does not count
        for path in ("c", "d"):
            self.ask(rig, f"http://origin.test/{path}").discard()
            wait.clear()  # without Retry-After nothing is asked for
        answer = self.ask(rig, "http://origin.test/z")
        self.assertEqual(answer.status, 200)
        answer.discard()

    def test_many_hosts(self) -> None:
        """What is kept about hosts that redirects named is bounded, and what is in use or wants rest stays."""
        rig = self.rig(max_connections=4)
        rig.origin.answer = lambda asked: asked.answer(429, "Retry-After: 3000")
        self.ask(rig).discard()
        other = rig.net.origin("busy.test")
        other.answer = lambda asked: asked.head(200, length=10)
        busy = self.ask(rig, "http://busy.test/")
        for number in range(3 * MOST_HOSTS):
            name = f"host{number}.test"
            rig.net.names[name] = rig.net.names["busy.test"]
            rig.origin.answer = lambda asked: asked.answer()
            other.answer = lambda asked: asked.answer()
            self.ask(rig, f"http://{name}/").discard()
            self.assertLessEqual(len(rig.upstream._hosts.known), MOST_HOSTS)
        self.assertEqual(rig.free_slots("busy.test"), 3)
        self.assertEqual(type(self.error(rig, seconds=0)), errors.LeftAlone)
        busy.abort()

    def test_reused_connection_closed(self) -> None:
        """A kept connection that the server has just closed is replaced without anyone noticing."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer()
        self.ask(rig).discard()
        rig.origin.answer = lambda asked: asked.close() if asked.wire is rig.origin.wires[0] else asked.answer()
        self.ask(rig).discard()
        self.assertEqual(len(rig.origin.wires), 2)


class ProxyTests(UpstreamCase):
    """Through an HTTP proxy."""

    def setUp(self) -> None:
        self.here = self.rig(proxy="http://us%40er:p%20w@proxy.test:3128")
        self.proxy = self.here.net.origin("proxy.test", port=3128)
        self.credentials = "Basic " + base64.b64encode(b"us@er:p w").decode()

    def test_plain(self) -> None:
        """An http URL is asked of the proxy in absolute form, with the proxy's credentials."""
        self.proxy.answer = lambda asked: asked.answer(200, body=b"x")
        self.assertEqual(self.read(self.here, self.ask(self.here, "http://origin.test/a?b")), b"x")
        asked = self.proxy.last
        self.assertEqual(asked.target, "http://origin.test/a?b")
        self.assertEqual(asked.get("Host"), "origin.test")
        self.assertEqual(asked.get("Proxy-Authorization"), self.credentials)
        self.assertEqual(self.here.origin.requests, [])

    def test_tunnel(self) -> None:
        """An https URL is asked through a tunnel: the proxy sees a CONNECT and then TLS, no request."""
        self.proxy.answer = lambda asked: asked.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        asking = self.here.run(self.here.upstream.ask("GET", "https://origin.test/secret"))
        asked = self.proxy.last
        self.assertEqual((asked.method, asked.target), ("CONNECT", "origin.test:443"))
        self.assertEqual(asked.get("Host"), "origin.test:443")
        self.assertEqual(asked.get("Proxy-Authorization"), self.credentials)
        self.assertEqual((asked.wire.tunnel or b"")[:1], b"\x16")
        self.assertNotIn(b"/secret", asked.wire.tunnel or b"")
        asked.close(net.ConnectionLost())
        self.here.net.pass_time()
        self.failureResultOf(asking, errors.UpstreamError)

    def test_refused_tunnel(self) -> None:
        """A proxy that opens no tunnel is told as the cause."""
        for reply in (b"HTTP/1.0 503 No\r\nX: y\r\n\r\n", b"x" * 20000):
            self.proxy.answer = lambda asked, reply=reply: asked.send(reply)
            error = self.error(self.here, "https://origin.test/")
            self.assertIsInstance(error, errors.ConnectionRefused)
            self.assertIn("proxy", str(error))
        self.assertEqual(self.proxy.open_wires, 0)

    def test_unknown_to_the_proxy(self) -> None:
        """A proxy that wants other credentials is told as the cause, not the upstream, which was not asked."""
        self.proxy.answer = lambda asked: (
            asked.send(b"HTTP/1.1 407 Who are you\r\n\r\n")
            if asked.method == "CONNECT"
            else asked.answer(407, "Proxy-Authenticate: Basic realm=x", "Retry-After: 300", body=b"who are you?")
        )
        for url in (URL, "https://origin.test/"):
            error = self.error(self.here, url)
            self.assertEqual((error.status, error.proxy_error), (502, "proxy_configuration_error"))
            self.assertTrue(str(error).startswith("the proxy proxy.test:3128 answered 407"), error)
            self.assertNotIn("origin.test", str(error))
            self.assertNotIn("p%20w", str(error))
        self.assertEqual(self.here.free_slots(), 32)
        client = self.here.request("b")
        self.assertEqual(client.status, 502)
        self.assertIn(b"files: the proxy proxy.test:3128 answered 407", client.body)
        self.assertNotIn("proxy-authenticate", client.headers)

    def test_upstream_says_so(self) -> None:
        """An upstream that answers 407 though there is no proxy is told as the cause itself."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(407)
        client = rig.request("b")
        self.assertEqual(client.status, 502)
        self.assertIn(b"origin.test answered 407, which the vault did not expect", client.body)

    def test_closed_tunnel(self) -> None:
        """A proxy that closes instead of opening a tunnel is told as the cause."""
        self.proxy.answer = lambda asked: asked.close()
        self.assertIn("proxy", str(self.error(self.here, "https://origin.test/")))

    def test_no_proxy(self) -> None:
        """A proxy that cannot be reached is told as a refused connection."""
        self.proxy.refuse = net.ConnectionRefusedError(string="refused")
        for url in (URL, "https://origin.test/"):
            error = self.error(self.here, url)
            self.assertIsInstance(error, errors.ConnectionRefused)
            self.assertIn("no connection to the proxy proxy.test:3128", str(error))

    def test_silent_tunnel(self) -> None:
        """A proxy that says nothing is given up after the time for the first byte, and cut off."""
        self.assertIsInstance(self.error(self.here, "https://origin.test/", seconds=61), errors.Timeout)
        self.assertEqual(self.proxy.open_wires, 0)

    def test_any_success(self) -> None:
        """Any 2xx opens the tunnel (RFC 9110 section 9.3.6)."""
        self.proxy.answer = lambda asked: asked.send(b"HTTP/1.1 201 Sure\r\n\r\n")
        asking = self.here.run(self.here.upstream.ask("GET", "https://origin.test/"))
        self.assertEqual((self.proxy.last.wire.tunnel or b"")[:1], b"\x16")
        self.proxy.last.close(net.ConnectionLost())
        self.here.net.pass_time()
        self.failureResultOf(asking, errors.UpstreamError)


class ErrorTests(SynchronousTestCase):
    """What each library's error is told as."""

    def test_table(self) -> None:
        """Each kind of failure has its own error, status and RFC 9209 name."""

        def never(*reasons: BaseException) -> ResponseNeverReceived:
            return ResponseNeverReceived([Failure(reason) for reason in reasons])

        tls = SSL.Error([("SSL routines", "", "certificate verify failed")])
        table: list[tuple[BaseException, type[errors.UpstreamError], int, str]] = [
            (net.DNSLookupError("x"), errors.NameNotFound, 503, "dns_error"),
            (net.UnknownHostError(), errors.NameNotFound, 503, "dns_error"),
            (net.TimeoutError(), errors.Timeout, 503, "connection_timeout"),
            (net.TCPTimedOutError(), errors.Timeout, 503, "connection_timeout"),
            (net.ConnectionRefusedError(string="refused"), errors.ConnectionRefused, 503, "connection_refused"),
            (net.NoRouteError(), errors.ConnectionRefused, 503, "destination_ip_unroutable"),
            (net.ConnectError(113), errors.ConnectionRefused, 503, "destination_ip_unroutable"),
            (net.ConnectError(), errors.ConnectionRefused, 503, "destination_unavailable"),
            (TunnelRefused("the proxy"), errors.ConnectionRefused, 503, "connection_refused"),
            (never(tls), errors.TLSFailed, 502, "tls_certificate_error"),
            (tls, errors.TLSFailed, 502, "tls_certificate_error"),
            (never(net.ConnectionLost()), errors.Unavailable, 503, "connection_terminated"),
            (never(net.ConnectionDone()), errors.Unavailable, 503, "connection_terminated"),
            (never(net.ConnectionAborted()), errors.Unavailable, 503, "connection_terminated"),
            (ResponseFailed([Failure(ValueError("x"))]), errors.BrokenAnswer, 502, "http_protocol_error"),
            (KeyError("x"), errors.BrokenAnswer, 502, "http_protocol_error"),
            (errors.Missing("x"), errors.Missing, 404, "destination_not_found"),
            (never(errors.Timeout("x")), errors.Timeout, 503, "http_response_timeout"),
            (TunnelRefused("the proxy", True), errors.ProxyRefused, 502, "proxy_configuration_error"),
            (SSL.Error([("SSL routines", "", "wrong version number")]), errors.TLSFailed, 502, "tls_protocol_error"),
            (
                SSL.Error([("SSL routines", "", "tlsv1 alert internal error")]),
                errors.TLSFailed,
                502,
                "tls_alert_received",
            ),
        ]
        for raised, kind, status, name in table:
            error = explained(raised, "origin.test")
            self.assertIs(type(error), kind, raised)
            self.assertEqual((error.status, error.proxy_error), (status, name))

    def test_reason(self) -> None:
        """The reason is told in words."""
        tls = SSL.Error([("SSL routines", "", "certificate verify failed")])
        self.assertIn("certificate verify failed", str(explained(tls, "origin.test")))
        self.assertIn("origin.test", str(explained(tls, "origin.test")))
        self.assertIn("handshake failed", str(explained(SSL.Error([]), "origin.test")))

    def test_plain_text(self) -> None:
        """What has no TLS is told as that, with what to look at and with what OpenSSL said."""
        for reason in ("wrong version number", "packet length too long"):
            text = str(explained(SSL.Error([("SSL routines", "", reason)]), "origin.test:8080"))
            wanted = f"origin.test:8080 seems not to speak TLS ({reason}); check whether its URL is to begin with https"
            self.assertTrue(text.startswith(wanted), text)

    def test_port(self) -> None:
        """The port of the URL is told wherever it may be what is wrong, and only there."""
        self.assertIn("no connection to [::1]:81: ", str(explained(net.ConnectError(string="x"), "[::1]:81")))
        self.assertEqual(
            str(explained(net.UnknownHostError(), "origin.test:81")), "the name origin.test could not be resolved"
        )

    def test_head(self) -> None:
        """A head that is too large is not taken for one that ended too early."""
        for reason, told in ((net.ConnectionAborted(), "head larger than 64 KiB"), (net.ConnectionDone(), "ended its")):
            error = explained(ResponseFailed([Failure(reason)]), "origin.test")
            self.assertIs(type(error), errors.CutAnswer)
            self.assertIn(f"origin.test {'answered with a ' if 'than' in told else ''}{told}", str(error))

    def test_origins(self) -> None:
        """An origin is scheme, host in lower case, and port, also where it goes without saying."""
        self.assertEqual(origin_of("HTTP://Host/x"), ("http", "host", 80))
        self.assertEqual(origin_of("https://host:8443/"), ("https", "host", 8443))
        self.assertEqual(origin_of("https://host"), origin_of("https://host:443/x"))
