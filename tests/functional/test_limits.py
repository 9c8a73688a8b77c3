"""Clients that take too much, too slowly or too long."""

from __future__ import annotations

import contextlib
import socket
import time
from email.utils import formatdate
from pathlib import Path

from tests.functional.case import FunctionalCase
from tests.functional.clients import ask, raw, together
from tests.functional.script import MIB
from tests.functional.vault_process import eventually

REQUEST = b"GET /o/a HTTP/1.1\r\nHost: vault\r\n"


class RequestHeadTests(FunctionalCase):
    """The request head has a size and a time."""

    def test_slow_head(self) -> None:
        """A client that does not finish its request head is let go, even if it keeps sending."""
        self.start_vault(top={"limits": {"header_timeout": 1}})
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.vault.port), timeout=10) as slow:
            slow.sendall(REQUEST)
            with self.assertRaises(OSError):
                for number in range(40):
                    slow.sendall(b"X-%d: y\r\n" % number)
                    time.sleep(0.2)
                raise AssertionError("a head of eight seconds was accepted")
        self.assertLess(time.monotonic() - began, 6)

    def test_idle_connection(self) -> None:
        """A connection without a request is closed after idle_timeout."""
        self.origin.put("/a", 10)
        self.start_vault(top={"limits": {"idle_timeout": 1, "header_timeout": 1}})
        began = time.monotonic()
        answer = raw(self.vault.port, REQUEST + b"\r\n")
        self.assertIn(b" 200 ", answer.partition(b"\r\n")[0])
        self.assertLess(time.monotonic() - began, 6)

    def test_clock_set_back(self) -> None:
        """So it is, and everything else in its time, where the machine's clock is set back by a day meanwhile."""
        self.origin.put("/a", 10)
        site, shift = Path(self.mktemp()), Path(self.mktemp())
        site.mkdir()
        shift.write_text("0")
        (site / "sitecustomize.py").write_text(
            "import os, pathlib, time\n"
            "given, shift = time.time, pathlib.Path(os.environ['CLOCK_SHIFT'])\n"
            "time.time = lambda: given() + float(shift.read_text() or 0)\n"
        )
        self.start_vault(
            top={"limits": {"idle_timeout": 2, "header_timeout": 2}},
            variables={"PYTHONPATH": str(site.absolute()), "CLOCK_SHIFT": str(shift.absolute())},
        )
        with socket.create_connection(("127.0.0.1", self.vault.port), timeout=8) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: vault\r\n\r\n")
            self.assertIn(b" 200 ", client.recv(65536))
            time.sleep(0.2)  # now it waits for the next request
            shift.write_text("-86400")
            began = time.monotonic()
            self.assertEqual(client.recv(65536), b"")
            self.assertLess(time.monotonic() - began, 6)
        self.assertEqual(self.get("/a").status, 200)
        reply = ask(self.vault.port, "/healthz")
        day_before = formatdate(time.time() - 86400, usegmt=True)[:16]
        self.assertEqual(reply.headers["date"][:16], day_before)

    def test_big_head(self) -> None:
        """A request head of 20 KiB is served, one of 40 KiB is refused before it reaches anything."""
        content = self.origin.put("/a", 1000)
        self.start_vault()
        self.assert_whole(self.get("/a", {f"X-{number}": "x" * 1000 for number in range(20)}), content)
        lines = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(40))
        answer = raw(self.vault.port, b"GET /o/b HTTP/1.1\r\nHost: vault\r\n" + lines + b"\r\n")
        if answer:  # a reset that overtakes the answer is refusal enough
            self.assertRegex(answer.partition(b"\r\n")[0], rb" (400|431) ")
        self.assertEqual(self.origin.requests("/b"), [])

    def test_methods(self) -> None:
        """Only GET and HEAD are allowed, and the answer says so."""
        self.origin.put("/a", 1000)
        self.start_vault()
        for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE"):
            reply = self.get("/a", method=method, body=b"x" * 1000 if method in ("POST", "PUT") else None)
            self.assertEqual(reply.status, 405, method)
            self.assertEqual(
                {name.strip() for name in reply.headers["allow"].split(",")} & {"GET", "HEAD"}, {"GET", "HEAD"}
            )
        self.assertEqual(self.origin.requests(), [])

    def test_upload_is_not_swallowed(self) -> None:
        """A big upload is refused without being taken in."""
        self.start_vault()
        before = self.vault.rss()
        done = self.curl(
            "/a", "-T", "/dev/zero", "--limit-rate", "200M", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}"
        )
        self.assertIn(done.stdout, (b"405", b"413", b"000"))
        self.assertLess(self.vault.rss() - before, 32 * MIB)


class RateTests(FunctionalCase):
    """Requests and bytes for each client address, and bytes from the upstream."""

    def test_requests_per_second(self) -> None:
        """A client that asks too often is told when to come back; another client is not affected."""
        self.origin.put("/a", 1000)
        self.start_vault(top={"limits": {"requests_per_second": 2}})
        replies = [self.get("/a") for _ in range(20)]
        refused = [reply for reply in replies if reply.status == 429]
        self.assertNotEqual(refused, [])
        self.assertIn(200, {reply.status for reply in replies})
        for reply in refused:
            self.assert_retry_after(reply)
        self.assertEqual(self.get("/a", source="127.0.0.9").status, 200)

    def test_bytes_per_second(self) -> None:
        """A client's downloads stay within its rate together."""
        content = self.origin.put("/a", MIB)
        self.start_vault(top={"limits": {"bytes_per_second": MIB // 2}})
        began = time.monotonic()
        for reply in together(2, lambda _: self.get("/a")):
            self.assert_whole(reply, content)
        took = time.monotonic() - began
        self.assertTrue(1.5 < took < 10, took)

    def test_bandwidth(self) -> None:
        """A backend's fills stay within its bandwidth; what is cached is not slowed."""
        content = self.origin.put("/a", 2 * MIB)
        self.start_vault(bandwidth=MIB)
        began = time.monotonic()
        self.assert_whole(self.get("/a"), content)
        took = time.monotonic() - began
        self.assertTrue(0.9 < took < 6, took)
        self.wait_until_stored("/a")
        began = time.monotonic()
        self.assert_whole(self.get("/a"), content)
        self.assertLess(time.monotonic() - began, 0.5)


class ConnectionLimitTests(FunctionalCase):
    """Connections are counted, and stalled ones ended."""

    def test_stalled_reader(self) -> None:
        """A client that stops reading is cut after stall_timeout, and the object is still cached whole."""
        content = self.origin.put("/a", 64 * MIB)
        self.start_vault(top={"limits": {"stall_timeout": 1}})
        slow = self.stream("/a")
        slow.read(1000)
        self.wait_until_stored("/a")
        time.sleep(3)
        body, whole = slow.drain()
        self.assertFalse(whole, "a client that had stopped reading got everything")
        self.assertTrue(content.read(1000, 1000 + len(body)) == body)

    def test_slow_reader_is_not_cut(self) -> None:
        """A client that reads slowly but steadily is left alone."""
        content = self.origin.put("/a", 24 * MIB)
        self.start_vault(top={"limits": {"stall_timeout": 2}})
        slow = self.stream("/a")
        pieces = []
        for _ in range(12):
            pieces.append(slow.read(MIB))
            time.sleep(0.3)
        pieces.append(slow.rest())
        self.assertTrue(b"".join(pieces) == content.whole())

    def test_max_clients(self) -> None:
        """With as many connections as allowed a further one is turned away; it is served once one has gone."""
        self.origin.put("/a", 1000)
        self.start_vault(top={"limits": {"max_clients": 5}})
        with contextlib.ExitStack() as stack:
            held = [
                stack.enter_context(socket.create_connection(("127.0.0.1", self.vault.port), timeout=5))
                for _ in range(5)
            ]
            for sock in held:  # make sure that the vault has accepted it
                sock.sendall(REQUEST + b"\r\n")
                self.assertIn(b" 200 ", sock.recv(65536))
            self.assertIn(self.refused(), (True,))
        eventually(lambda: self.get("/a").status == 200, what="a served client")

    def refused(self) -> bool:
        """Whether one more client is turned away: by 503, by a closed connection, or by not being accepted."""
        try:
            with socket.create_connection(("127.0.0.1", self.vault.port), timeout=1) as sock:
                sock.sendall(REQUEST + b"\r\n")
                answer = sock.recv(65536)
        except OSError:
            return True
        return not answer or b" 503 " in answer.partition(b"\r\n")[0]

    def test_access_list(self) -> None:
        """Only the addresses in access.allow are served."""
        self.origin.put("/a", 1000)
        self.start_vault(top={"access": {"allow": ["127.0.0.2/32"]}})
        self.assertEqual(ask(self.vault.port, "/o/a", source="127.0.0.2").status, 200)
        self.assertEqual(ask(self.vault.port, "/o/a", source="127.0.0.3").status, 403)
        self.assertEqual(len(self.origin.requests()), 1)
