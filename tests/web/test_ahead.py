"""Requests that wait in apt's connection: what they need is fetched while the ones before them are answered."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from twisted.web.http_headers import Headers

from tests.memory import Asked, Client, Rig, RigCase
from tests.pumping import TIMES, growth
from vault.web import ahead
from vault.web.ahead import AHEAD, heads

APT = "User-Agent: Debian APT-HTTP/1.3 (2.6.1)"
HOST = "Host: vault.test:8080"


def get(path: str, *fields: str, method: str = "GET", agent: str = APT) -> bytes:
    """A request as it waits in a connection."""
    return "\r\n".join([f"{method} /files/{path} HTTP/1.1", HOST, agent, *fields, "", ""]).encode()


class AheadTests(RigCase):
    """One connection with several requests."""

    def send(self, rig: Rig, *waiting: bytes) -> Client:
        """A request for ``0`` that the upstream does not answer, and what comes behind it on the same connection."""
        client = rig.request("0", APT)
        client.channel.dataReceived(b"".join(waiting))
        rig.net.pass_time()
        return client

    def asked(self, rig: Rig) -> list[str]:
        """What the upstream was asked for."""
        return [asked.target for asked in rig.origin.requests]

    def test_at_once(self) -> None:
        """The upstream is asked for what waits before the first is answered; the answers keep their order."""
        rig = self.rig()
        client = self.send(rig, *(get(str(number)) for number in range(1, 4)))
        self.assertEqual(self.asked(rig), ["/0", "/1", "/2", "/3"])
        for asked in reversed(rig.origin.requests):
            asked.answer(200, body=f"<{asked.target}>".encode())
            rig.net.pass_time()
        self.assertEqual(client.raw.count(b"HTTP/1.1 200 OK"), 4)
        bodies = [client.raw.index(f"</{number}>".encode()) for number in range(4)]
        self.assertEqual(bodies, sorted(bodies))
        self.assertEqual(len(rig.origin.requests), 4)
        self.assertEqual(len(rig.lines), 4)

    def test_bounded(self) -> None:
        """At most a few are looked after, and one more with each that is answered; also when they come in pieces."""
        rig = self.rig()
        data = b"".join(get(str(number)) for number in range(1, 11))
        client = self.send(rig)
        for at in range(0, len(data), 50):
            client.channel.dataReceived(data[at : at + 50])
        rig.net.pass_time()
        self.assertEqual(len(self.asked(rig)), 1 + AHEAD)
        rig.origin.requests[0].answer(200, body=b"x")
        rig.net.pass_time()
        self.assertEqual(self.asked(rig), [f"/{number}" for number in range(2 + AHEAD)])
        client.leave()

    def test_not_plain(self) -> None:
        """What is no plain GET of apt's waits for its turn, and what comes behind it too."""
        for waiting in (
            get("1", method="HEAD"),
            get("1", method="POST"),
            get("1", "Range: bytes=5-"),
            get("1", "Content-Length: 2") + b"ab",
            get("1", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
            get("1", "Via: 1.1 x"),
            get("1", HOST),
            get("1", "no field"),
            get("1", agent="User-Agent: curl/8"),
            get("1")[:-2],
        ):
            rig = self.rig()
            client = self.send(rig, waiting, get("2"))
            self.assertEqual(self.asked(rig), ["/0"], waiting)
            client.leave()

    def test_long_fields(self) -> None:
        """What a field is made of does not make it take longer to look at than its length does."""
        for piece in (" ", "\t", " \t", "a", " a", ":", ": ", "-"):
            for before, after in (("X:", "\x01"), ("X", "\x01"), ("X:", ""), ("", ":\x01")):

                def waiting(size: int, piece: str = piece, before: str = before, after: str = after) -> bytes:
                    return get("1", before + piece * size + after)

                took = growth(lambda data: list(heads(data)), waiting, 64)
                self.assertLess(took, 4 * TIMES, (before, piece, after))

    def test_many_pieces(self) -> None:
        """What has been looked at is not looked at again with every byte that comes behind it."""
        looked: list[int] = []

        def counted(data: bytes) -> Iterator[tuple[bytes, Headers]]:
            looked.append(len(data))
            return heads(data)

        self.patch(ahead, "heads", counted)
        for waiting in (get("1"), get("1", method="HEAD"), b"".join(get(str(number)) for number in range(1, 9))):
            rig = self.rig()
            client = self.send(rig, waiting)
            for byte in b"\r\n\r\n" * 100 if waiting != get("1") else b"GET /files/2" + b"x" * 400:
                client.channel.dataReceived(bytes([byte]))
            self.assertLess(len(looked), 8, waiting)
            looked.clear()
            client.leave()

    def test_last_on_its_connection(self) -> None:
        """A request with a body is answered where its connection ends with it, too."""
        for version, method, fields, body in (
            ("1.1", "POST", ["Connection: close", "Content-Length: 2"], b"ab"),
            ("1.1", "PUT", ["Connection: close", "Transfer-Encoding: chunked"], b"2\r\nab\r\n0\r\n\r\n"),
            ("1.0", "POST", ["Content-Length: 2"], b"ab"),
        ):
            rig = self.rig()
            client = rig.request("kept", APT)
            rig.origin.last.answer(200, body=b"x")
            rig.net.pass_time()
            line = f"{method} /files/kept HTTP/{version}"
            client.channel.dataReceived("\r\n".join([line, HOST, *fields, "", ""]).encode())
            client.channel.dataReceived(body)
            rig.net.pass_time()
            self.assertEqual(client.raw.count(b" 405 Method"), 1, (version, method))

    def test_behind_others(self) -> None:
        """Only what waits behind a GET is looked at: behind a CONNECT it is for another server."""
        rig = self.rig()
        client = rig.request("0", APT, method="HEAD")
        client.channel.dataReceived(get("1"))
        rig.net.pass_time()
        self.assertEqual(self.asked(rig), ["/0"])
        client.leave()

    def test_client_leaves(self) -> None:
        """What was begun comes to its end without the client, and nothing is logged for what was never answered."""
        rig = self.rig()
        client = self.send(rig, get("1"))
        client.leave()
        for asked in rig.origin.requests:
            asked.answer(200, "Content-Length: 4", body=b"four")
        rig.net.pass_time()
        self.assertEqual(rig.stored, 2)
        self.assertEqual(len(rig.lines), 1)

    def test_failure(self) -> None:
        """What fails ahead is answered in its turn, and what cannot be asked for at all harms nobody."""
        rig = self.rig()
        client = self.send(rig, get("1"), get("../../etc"))
        rig.origin.requests[1].answer(404)
        rig.net.pass_time()
        self.assertFalse(client.answered)
        rig.origin.requests[0].answer(200, body=b"x")
        rig.net.pass_time()
        self.assertEqual([client.raw.count(b"HTTP/1.1 %d " % status) for status in (200, 404, 400)], [1, 1, 1])

    def test_limited(self) -> None:
        """Where requests are counted, none is begun before it was counted."""
        rig = self.rig()
        rig.site.request_rate.per_second = 5.0
        client = self.send(rig, get("1"))
        self.assertEqual(self.asked(rig), ["/0"])
        client.leave()

    def test_not_allowed(self) -> None:
        """Nothing is begun for an address that may not ask any more."""
        rig = self.rig()
        client = self.send(rig)
        rig.site.access_allow = (ip_network("192.0.2.1/32"),)
        client.channel.dataReceived(get("1"))
        rig.net.pass_time()
        self.assertEqual(self.asked(rig), ["/0"])
        client.leave()

    def test_not_kept(self) -> None:
        """An upstream whose files may not be kept is asked early for one of them at most."""
        rig = self.rig()

        def answer(asked: Asked) -> None:
            asked.answer(200, "Cache-Control: no-store", body=b"x")

        client = self.send(rig)
        rig.origin.answer = answer
        client.channel.dataReceived(get("1"))
        rig.net.pass_time()
        client.channel.dataReceived(get("2"))
        rig.net.pass_time()
        self.assertEqual(self.asked(rig), ["/0", "/1"])
        answer(rig.origin.requests[0])
        rig.net.pass_time()
        self.assertEqual(client.raw.count(b"HTTP/1.1 200 OK"), 3)
        self.assertEqual(len(self.asked(rig)), 4)
        rig.origin.answer = lambda asked: None
        self.send(rig, get("3"), get("4"))
        self.assertEqual(self.asked(rig)[4:], ["/0"], "other connections know it too")
        rig.net.pass_time(1000)
        before = len(rig.origin.requests)
        self.send(rig, get("5"), get("6"))
        self.assertEqual(self.asked(rig)[before:], ["/0", "/5", "/6"], "it may have changed")
