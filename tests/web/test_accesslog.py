"""The access log: what it tells, and what it does not."""

from __future__ import annotations

import json
from dataclasses import replace

from twisted.logger import LogEvent, Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.pumping import TIMES, growth
from vault.web.accesslog import AccessEntry, AccessLog, json_line, redact, text_line

ENTRY = AccessEntry(
    time=1795467600.25,
    client="192.0.2.7",
    method="GET",
    target="/pypi/simple/",
    protocol="HTTP/1.1",
    status=200,
    bytes=123,
    referer="",
    user_agent="curl/8",
    cache="HIT",
    backend="pypi",
    seconds=0.01249,
    aborted=False,
)


class TextTests(SynchronousTestCase):
    """The combined format."""

    def test_combined(self) -> None:
        """A line is Apache's combined format with cache result, backend, seconds and a flag behind it."""
        self.assertEqual(
            text_line(ENTRY),
            '192.0.2.7 - - [23/Nov/2026:21:00:00 +0000] "GET /pypi/simple/ HTTP/1.1" 200 123 "-" "curl/8" '
            "HIT pypi 0.012 -",
        )

    def test_aborted(self) -> None:
        """A response that was cut off says so at the end."""
        self.assertTrue(text_line(replace(ENTRY, aborted=True)).endswith(" HIT pypi 0.012 aborted"))

    def test_no_bytes(self) -> None:
        """No body is a dash, as Apache has it."""
        self.assertIn('" 304 - "', text_line(replace(ENTRY, status=304, bytes=0)))

    def test_no_forgery(self) -> None:
        """A client that sends quotes, line feeds or bytes beyond ASCII does not break the line."""
        line = text_line(replace(ENTRY, user_agent='x" 200 1\r\n10.0.0.1 \\ \xe9', referer="\x1b[2J", cache="A B"))
        self.assertIn('"\\x1B[2J" "x\\x22 200 1\\x0D\\x0A10.0.0.1 \\x5C \\xE9" A\\x20B pypi', line)
        self.assertEqual(line.count('"'), 6)

    def test_malformed(self) -> None:
        """A request without a readable request line is a dash, or what was sent."""
        empty = replace(ENTRY, method="", target="", protocol="", status=400)
        self.assertIn(' "-" 400 ', text_line(empty))
        self.assertIn(' "GET  /" 400 ', text_line(replace(empty, target="GET  /")))

    def test_long(self) -> None:
        """A field is cut at 2048 characters, and the protocol is still there."""
        line = text_line(replace(ENTRY, target="/" + "a" * 30000))
        self.assertLess(len(line), 2300)
        self.assertIn('... HTTP/1.1" 200', line)


class RedactTests(SynchronousTestCase):
    """Passwords in URLs."""

    def test_userinfo(self) -> None:
        """User and password of a URL are not logged, wherever the URL is."""
        for target, shown in [
            ("http://user:secret@host/x@y", "http://***@host/x@y"),
            ("http://HTTPS///user:secret@host/x", "http://HTTPS///***@host/x"),
            ("/fetch?url=https://u:secret@host/", "/fetch?url=https://***@host/"),
            ("/dockerhub/library/x@sha256:00", "/dockerhub/library/x@sha256:00"),
        ]:
            self.assertEqual(redact(target), shown)
            self.assertIn(f'"GET {shown} HTTP/1.1"', text_line(replace(ENTRY, target=target)))

    def test_connect(self) -> None:
        """Nor are those of a CONNECT."""
        self.assertIn('"CONNECT ***@host:443 ', text_line(replace(ENTRY, method="CONNECT", target="u:p@host:443")))

    def test_referer(self) -> None:
        """Nor are those of a referring page."""
        self.assertNotIn("secret", text_line(replace(ENTRY, referer="http://u:secret@host/")))
        self.assertNotIn("secret", json_line(replace(ENTRY, referer="http://u:secret@host/")))

    def test_parameters(self) -> None:
        """The values of query parameters with secret names are not logged, and everything else is."""
        for target, shown in [
            ("/x?a=1&X-Amz-Signature=abc&b=2", "/x?a=1&X-Amz-Signature=***&b=2"),
            ("/x?token=abc;sig=def#auth=x", "/x?token=***;sig=***#auth=x"),
            ("/x?token=a=b?c#d?api_key=e", "/x?token=***#d?api_key=***"),
            ("/x?token?x=1&a?PassWord=2", "/x?token?x=***&a?PassWord=***"),
            ("/x?a=1?credential=2", "/x?a=1?credential=***"),
            ("/x?key=1&Key=2&access_key=3&apikey=4", "/x?key=***&Key=***&access_key=***&apikey=***"),
            ("/x?accessKeyId=1", "/x?accessKeyId=***"),
            ("/x?sig=1&signature=2&client-key=3", "/x?sig=***&signature=***&client-key=***"),
            ("/key=1?keyring=a&monkey=b&keys=c&k=key", "/key=1?keyring=a&monkey=b&keys=c&k=key"),
            ("/x?a=token&b=token=c", "/x?a=token&b=token=c"),
            ("token=1&token", "token=1&token"),
            ("agent (see http://host/?secret=a b)", "agent (see http://host/?secret=*** b)"),
        ]:
            self.assertEqual(redact(target), shown)

    def test_cut(self) -> None:
        """Where a field is cut, nothing that is secret shows before the cut, and the cut shows."""
        long = 3000 * "s"
        for method, target in [
            ("CONNECT", f"user:{long}@host:443"),
            ("GET", f"http://user:{long}@host/"),
            ("GET", f"/?token={long}"),
            ("GET", f"/{2030 * 'a'}?token={long}"),
            ("GET", f"/{2040 * 'a'}?token={long}"),
        ]:
            self.assertNotIn("ss", text_line(replace(ENTRY, method=method, target=target)))
        self.assertIn('... HTTP/1.1" 200', text_line(replace(ENTRY, target="/?" + 3000 * "a=b&")))

    def test_time(self) -> None:
        """It takes no longer than the length of a target says, whatever is in it."""
        for method, begin, piece in [
            ("CONNECT", "", "a"),
            ("GET", "/=?", "token"),
            ("GET", "/=", "?"),
            ("GET", "/=?token", "="),
            ("GET", "/?=", "auth?"),
            ("GET", "/=@", "://"),
            ("GET", "/=@://", "a"),
            ("GET", "/=@", "https///"),
        ]:
            took = growth(
                lambda target, method=method: redact(target, method),
                lambda size, begin=begin, piece=piece: begin + piece * size,  # type: ignore[misc]
                100,
            )
            self.assertLess(took, 4 * TIMES, (begin, piece))


class JSONTests(SynchronousTestCase):
    """The JSON form."""

    def test_fields(self) -> None:
        """A line is one object with the documented fields."""
        line = json_line(replace(ENTRY, target="/a\nb", aborted=True))
        self.assertNotIn("\n", line)
        self.assertEqual(
            json.loads(line),
            {
                "time": "2026-11-23T21:00:00.250+00:00",
                "client": "192.0.2.7",
                "method": "GET",
                "target": "/a\\x0Ab",
                "protocol": "HTTP/1.1",
                "status": 200,
                "bytes": 123,
                "referer": "",
                "user_agent": "curl/8",
                "cache": "HIT",
                "backend": "pypi",
                "seconds": 0.012,
                "aborted": True,
            },
        )


class AccessLogTests(SynchronousTestCase):
    """Where the lines go."""

    def test_logged(self) -> None:
        """Each entry is one event whose line is ready to print."""
        events: list[LogEvent] = []
        log = Logger(namespace="vault.access", observer=LogPublisher(events.append))
        AccessLog("text", log).write(ENTRY)
        AccessLog("json", log).write(ENTRY)
        self.assertEqual([event["line"] for event in events], [text_line(ENTRY), json_line(ENTRY)])
        self.assertEqual(events[0]["log_namespace"], "vault.access")
