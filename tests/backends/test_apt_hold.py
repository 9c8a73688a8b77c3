"""``type: apt``: packages whose first byte waits for their last one, so that a wrong file is replaced unseen."""

from __future__ import annotations

from tests.backends.test_apt import NAME, SUITE, Mirror
from tests.memory import DATE, Asked, Client, Rig, RigCase
from tests.web.test_ahead import APT, get
from vault.backends.apt import AptBackend

SIZE = 300_000
DEB = "/pool/p.deb"


class HoldTests(RigCase):
    """One package of 300 kB, which the mirrors send in a hundred pieces."""

    def start(self, *others: str) -> Rig:
        """A vault in front of a mirror, and of others with the same, that knows the package from its index."""
        self.mirror = Mirror()
        self.mirror.padding = bytes(SIZE)
        self.mirror.publish(1)
        self.wrong = self.mirror.deb[:-1] + b"x"
        urls = ("http://origin.test/", *(f"http://{name}/" for name in others))
        rig = self.rig(urls=urls, backend=AptBackend("files", "/files/", urls))
        rig.origin.answer = self.mirror.answer
        for path in ("InRelease", NAME):
            self.assertEqual(rig.request(f"{SUITE}/{path}").status, 200)
        rig.net.pass_time(3)
        return rig

    def slowly(self, rig: Rig, body: bytes, seconds: float, stop: float = 1.0) -> None:
        """Let the origin take that long to send this package, or stall at ``stop`` of it; the next one is right."""
        bodies = [body]

        def answer(asked: Asked) -> None:
            if asked.target != DEB or not bodies:
                self.mirror.answer(asked)
                return
            data = bodies.pop()
            asked.head(200, f"Date: {DATE}", length=len(data))
            piece = len(data) // 100
            for number in range(round(100 * stop)):
                end = len(data) if number == 99 else (number + 1) * piece
                rig.net.callLater((number + 1) * seconds / 100, asked.send, data[number * piece : end])

        rig.origin.answer = answer

    def sent_after(self, rig: Rig, client: Client) -> float:
        """Seconds until the first byte was sent, of 20 at most."""
        began = rig.net.seconds()
        while not client.answered and rig.net.seconds() < began + 20:
            rig.net.pass_time(0.05)
        return rig.net.seconds() - began

    def test_wrong_file(self) -> None:
        """A wrong file that takes three seconds is replaced within the same request, also for who joined meanwhile."""
        rig = self.start()
        self.slowly(rig, self.wrong, 3)
        first = rig.request("pool/p.deb")
        rig.net.pass_time(1)
        second = rig.request("pool/p.deb")
        rig.net.pass_time(4)
        for client in (first, second):
            self.assertEqual((client.status, client.whole), (200, True))
            self.assertTrue(client.body == self.mirror.deb)
        self.assertEqual(len([one for one in rig.origin.requests if one.target == DEB]), 2)

    def test_wrong_size(self) -> None:
        """One that is announced with another size is asked for once more too, past every cache on the way."""
        for size in (0, 100, SIZE + 100):
            rig = self.start()
            self.slowly(rig, bytes(size), 0)
            client = rig.request("pool/p.deb")
            rig.net.pass_time(1)
            self.assertEqual((client.status, client.body == self.mirror.deb), (200, True), client.raw[:300])
            self.assertEqual(rig.origin.last.get("cache-control"), "no-cache")
            self.assertEqual(len([one for one in rig.origin.requests if one.target == DEB]), 2)

    def test_next_mirror(self) -> None:
        """Where there is another mirror, it is asked for the right one."""
        rig = self.start("other.test")
        other = rig.net.origin("other.test")
        other.answer = self.mirror.answer
        self.slowly(rig, self.wrong, 6)
        client = rig.request("pool/p.deb")
        rig.net.pass_time(7)
        self.assertTrue(client.whole and client.body == self.mirror.deb)
        self.assertEqual([one.target for one in other.requests], [DEB])

    def test_waiting_in_a_pipeline(self) -> None:
        """What waits behind another request is replaced too, and asked for twice in all."""
        rig = self.start()
        self.slowly(rig, self.wrong, 3)
        client = rig.request("slow", APT)
        rig.net.pass_time()
        client.channel.dataReceived(get("pool/p.deb"))
        rig.net.pass_time(4)
        self.assertEqual(client.raw.count(b"HTTP/1.1 200 OK"), 1)
        self.assertTrue(client.raw.endswith(self.mirror.deb))
        self.assertEqual(len([one for one in rig.origin.requests if one.target == DEB]), 2)

    def test_wrong_for_good(self) -> None:
        """A file that stays wrong is asked for early once; who asks again has it fetched no more than twice."""
        rig = self.start()
        self.mirror.put("pool/p.deb", self.wrong, 1)
        counts = []
        for _ in range(3):
            before = len(rig.origin.requests)
            client = rig.request("slow", APT)
            client.channel.dataReceived(get("pool/p.deb"))
            rig.net.pass_time(4)
            self.assertIn(b"HTTP/1.1 502 ", client.raw)
            counts.append([one.target for one in rig.origin.requests[before:]].count(DEB))
        self.assertLessEqual(counts[0], 4)
        self.assertEqual(counts[1:], [2, 2])

    def test_in_all(self) -> None:
        """What is held once more after something wrong had come is held nine seconds in all at the longest."""
        rig = self.start()
        bodies = [self.wrong, self.mirror.deb]

        def answer(asked: Asked) -> None:
            if asked.target == DEB:
                self.slowly(rig, bodies.pop(0), 7)
                rig.origin.answer(asked)
                rig.origin.answer = answer
            else:
                self.mirror.answer(asked)

        rig.origin.answer = answer
        client = rig.request("pool/p.deb")
        self.assertTrue(7 < self.sent_after(rig, client) < 9)
        rig.net.pass_time(8)
        self.assertTrue(client.whole and client.body == self.mirror.deb)

    def test_right_file(self) -> None:
        """A right file that comes as fast is sent when it is whole."""
        rig = self.start()
        self.slowly(rig, self.mirror.deb, 4)
        client = rig.request("pool/p.deb", "Range: bytes=100000-")
        self.assertTrue(3.9 < self.sent_after(rig, client) < 4.3)
        self.assertEqual(client.status, 206)
        self.assertTrue(client.body == self.mirror.deb[100000:])

    def test_long(self) -> None:
        """A file that will take a minute is sent as it comes, after half a second."""
        rig = self.start()
        self.slowly(rig, self.mirror.deb, 60)
        client = rig.request("pool/p.deb")
        self.assertLess(self.sent_after(rig, client), 1)
        rig.net.pass_time(65)
        self.assertTrue(client.whole and client.body == self.mirror.deb)

    def test_stalled(self) -> None:
        """A file that stalls after most of it has come fast is held eight seconds at the longest."""
        for stop in (0.0, 0.3, 0.9):
            rig = self.start()
            self.slowly(rig, self.mirror.deb, 3, stop)
            client = rig.request("pool/p.deb")
            self.assertLess(self.sent_after(rig, client), 8.3, stop)
            self.assertGreaterEqual(len(client.body), SIZE * stop - 1, "the last byte waits for the check")
            client.leave()
            rig.origin.last.close()

    def test_disk_fails(self) -> None:
        """Where the disk fails while a file is held, the client gets it all the same."""
        rig = self.start()
        self.slowly(rig, self.mirror.deb, 3)
        client = rig.request("pool/p.deb")
        rig.net.pass_time(1)
        rig.disk.error = OSError(28, "No space left on device")
        rig.net.pass_time(6)
        self.assertTrue(client.whole and client.body == self.mirror.deb)
