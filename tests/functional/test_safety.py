"""Paths and targets that mean mischief, and names that are merely odd."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path
from urllib.parse import quote

from tests.functional.case import FunctionalCase
from tests.functional.clients import ask, raw, raw_get, together
from tests.functional.script import Answer

HOSTILE = [
    b"/o/../etc/passwd",
    b"/o/a/../../b",
    b"/o/..",
    b"/../o/a",
    b"/o/%2e%2e/a",
    b"/o/%2E%2e/%2e./a",
    b"/o/.%2e/a",
    b"/o/a%2fb",
    b"/o/a%2Fb",
    b"/o/..%2f..%2fetc/passwd",
    b"/o/a%00b",
    b"/o/a%00",
    b"/o/a\\b",
    b"/o/..\\..\\a",
    b"/o/a%5cb",
    b"/o/%5C..%5C",
    b"/o/a%0d%0aX: y",
    b"/o/a%0Ab",
    b"/o/%",
    b"/o/%zz",
]


class PathTests(FunctionalCase):
    """What a path may not say, and what it may."""

    def test_hostile_paths(self) -> None:
        """Dot segments, encoded slashes, NUL and backslashes are refused; neither disk nor upstream sees them."""
        self.start_vault()
        before = self.files()
        for target in HOSTILE:
            reply = raw_get(self.vault.port, target)
            self.assertEqual(reply.status, 400, target)
        self.assertEqual(self.origin.requests(), [])
        self.assertEqual(self.files(), before)

    def files(self) -> set[Path]:
        """Everything in the test's directory but the vault's log and what the cache keeps for itself."""
        return {
            path
            for path in self.directory.rglob("*")
            if path.name != "vault.log" and not any(part.startswith(".vault") for part in path.parts)
        }

    def test_odd_names(self) -> None:
        """Long, foreign and percent-encoded names and query strings are cached, each for itself."""
        names = [
            "/" + "n" * 300,
            "/" + "n" * 299 + "m",
            "/deep/" + "/".join(["d" * 200] * 8),
            "/" + quote("größe-数据.tar.gz"),
            "/" + quote("emoji-\U0001f600"),
            "/a%20b",
            "/a+b",
            "/100%25",
            "/a?x=1",
            "/a?x=2",
            "/a%3Fx=1",
            "/.hidden",
            "/.vault/index.db",
            "/con~1.:;@&=$,!*'()",
            "/%E9-latin1",
        ]
        contents = {name: self.origin.put(name, 1000 + number) for number, name in enumerate(names)}
        self.start_vault()
        for name, content in contents.items():
            self.assert_whole(self.get(name), content)
        for name, content in contents.items():
            self.wait_until_stored(name)
            reply = self.get(name)
            self.assert_whole(reply, content)
            self.assertEqual(len(self.origin.requests(name, "GET")), 1, name)

    def test_file_and_directory_of_the_same_name(self) -> None:
        """``a``, ``a/`` and ``a/b`` are three different things, in whatever order they are asked for."""
        for order in (["/x", "/x/", "/x/b"], ["/y/b", "/y/", "/y"], ["/z/", "/z/b", "/z"]):
            for number, path in enumerate(order):
                self.origin.put(path, 1000 + number)
            if not hasattr(self, "vault"):
                self.start_vault()
            for _ in range(2):
                for number, path in enumerate(order):
                    reply = self.get(path)
                    self.assertEqual((reply.status, len(reply.body)), (200, 1000 + number), path)
                    self.wait_until_stored(path)
            for path in order:
                self.assertEqual(len(self.origin.requests(path, "GET")), 1, path)

    def test_query_reaches_the_upstream(self) -> None:
        """A query is passed on as it is and is part of the name."""
        first = self.origin.put("/get?file=a&v=1%202", 1000)
        second = self.origin.put("/get?v=1%202&file=a", 1001)
        self.start_vault()
        self.assert_whole(self.get("/get?file=a&v=1%202"), first)
        self.assert_whole(self.get("/get?v=1%202&file=a"), second)
        targets = {record.target for record in self.origin.requests()}
        self.assertEqual(targets, {"/get?file=a&v=1%202", "/get?v=1%202&file=a"})

    def test_symbolic_links(self) -> None:
        """A symbolic link inside the cache directory is followed neither for reading nor for writing."""
        outside = self.directory / "outside"
        outside.mkdir()
        (outside / "a").write_bytes(b"not for clients")
        content = self.origin.put("/a", 1000)
        below = self.origin.put("/dir/new", 1000)
        self.start_vault()
        self.vault.cache_dir.joinpath("o").mkdir(exist_ok=True)
        self.kept("/a").symlink_to(outside / "a")
        self.kept("/dir").symlink_to(outside)
        for _ in range(2):
            self.assert_whole(self.get("/a"), content)
            self.assert_whole(self.get("/dir/new"), below)
        time.sleep(0.3)
        self.assertEqual([path.name for path in outside.iterdir()], ["a"])
        self.assertEqual((outside / "a").read_bytes(), b"not for clients")


class TargetTests(FunctionalCase):
    """The vault is not an open proxy."""

    def test_absolute_form_for_a_foreign_host(self) -> None:
        """A proxy request for something no backend has is refused."""
        other = self.start_origin()
        other.put("/a", 1000)
        self.start_vault()
        for target in (f"{other.url}/a", "http://169.254.169.254/latest/meta-data/", "http://example.invalid/"):
            self.assertEqual(raw_get(self.vault.port, target.encode()).status, 403, target)
        self.assertEqual(other.requests(), [])

    def test_connect(self) -> None:
        """CONNECT is refused."""
        self.start_vault()
        answer = raw(self.vault.port, f"CONNECT 127.0.0.1:{self.origin.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 2)
        self.assertIn(b" 403 ", answer.partition(b"\r\n")[0])

    def test_tls_on_the_plain_port(self) -> None:
        """A client that tries TLS on the plain port gets a plain 400 at once."""
        self.start_vault()
        began = time.monotonic()
        context = ssl.create_default_context()
        outgoing = ssl.MemoryBIO()
        client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        self.assertRaises(ssl.SSLWantReadError, client.do_handshake)
        answer = raw(self.vault.port, outgoing.read(), 5)
        self.assertRegex(answer, rb"^HTTP/1\.[01] 400 ")
        self.assertLess(time.monotonic() - began, 2)

    def test_garbage(self) -> None:
        """Bytes that are not HTTP are refused, and the vault goes on."""
        content = self.origin.put("/a", 1000)
        self.start_vault()
        for request in (
            b"\x00\x01\x02\r\n\r\n",
            b"hello\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /o/a HTTP/9.9\r\n\r\n",
            b"\r\n" * 50,
        ):
            answer = raw(self.vault.port, request, 1)
            self.assertNotIn(b" 200 ", answer.partition(b"\r\n")[0], request)
        self.assert_whole(self.get("/a"), content)

    def test_smuggling(self) -> None:
        """A request whose length is ambiguous is refused and its connection closed."""
        self.origin.put("/a", 1000)
        self.start_vault()
        smuggled = b"GET /o/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        for fields in (
            b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(smuggled),
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: xchunked\r\n",
        ):
            answer = raw(self.vault.port, b"GET /o/a HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n" + smuggled, 2)
            self.assertNotIn(b" 200 ", answer, fields)
        self.assertEqual(self.origin.requests("/smuggled"), [])


class SecretTests(FunctionalCase):
    """Credentials stay where they belong."""

    def test_upstream_password(self) -> None:
        """The upstream's password is in no log, answer or header, whatever goes wrong."""
        self.origin.put("/ok", 1000, login=("user", "hunter2-secret"))
        self.origin.put("/refused", login=("other", "word"))
        self.origin.put("/error", default=Answer(status=500))
        vault = self.start_vault(
            username="user",
            password="${ORIGIN_PASSWORD}",
            headers={"X-Api-Key": "key-secret"},
            retries=0,
            variables={"ORIGIN_PASSWORD": "hunter2-secret"},
            top={"log_level": "DEBUG"},
        )
        replies = together(3, lambda number: self.get(("/ok", "/refused", "/error")[number]))
        replies += [ask(vault.port, path) for path in ("/", "/healthz", "/readyz")]
        self.assertEqual([reply.status for reply in replies[:3]], [200, 502, 503])
        self.origin.stop()
        replies.append(self.get("/down"))
        shown = vault.whole_log() + "".join(f"{reply.headers}{reply.body!r}" for reply in replies)
        for secret in ("hunter2-secret", "key-secret", "aHVudGVyMi1zZWNyZXQ", "dXNlcjpodW50ZXIyLXNlY3JldA"):
            self.assertNotIn(secret, shown)

    def test_client_credentials(self) -> None:
        """A client's own Authorization and the password in a URL are not logged."""
        self.origin.put("/a", 1000)
        self.start_vault(top={"log_level": "DEBUG"})
        self.get("/a", {"Authorization": "Bearer client-secret", "Cookie": "client-secret"})
        self.run_client("curl", "-sS", f"http://me:client-secret@127.0.0.1:{self.vault.port}/o/a", "-o", "/dev/null")
        with socket.create_connection(("127.0.0.1", self.vault.port)):
            pass
        self.assertNotIn("client-secret", self.vault.whole_log())
