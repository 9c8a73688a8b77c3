"""``type: apt``: how recent a suite is that a client is given, and how long anybody waits for that."""

from __future__ import annotations

from typing import Any

from tests.backends.test_apt import SUITE, Mirror
from tests.memory import Asked, Rig, RigCase
from tests.web.test_ahead import APT, get
from vault.backends.apt import AptBackend

SUITES = (SUITE, "dists/security", "dists/updates", "dists/backports", "dists/tools")


class FreshnessCase(RigCase):
    """Five suites of one mirror."""

    def start(self, **options: Any) -> Rig:
        """A vault in front of a mirror, all of whose suites a client has asked for."""
        self.mirror = Mirror()
        self.publish(1)
        rig = self.rig(backend=AptBackend("files", "/files/", ("http://origin.test/",), **options))
        rig.origin.answer = self.mirror.answer
        for suite in SUITES:
            self.assertEqual(self.number(rig, suite), 1)
        rig.net.pass_time(5)
        return rig

    def publish(self, number: int) -> None:
        """Have a new generation of each suite."""
        self.mirror.publish(number)
        for suite in SUITES:
            self.mirror.put(f"{suite}/InRelease", self.mirror.files[f"/{SUITE}/InRelease"], number)

    def number(self, rig: Rig, suite: str = SUITE) -> int:
        """The generation that a client is given at once."""
        client = rig.request(f"{suite}/InRelease", "Cache-Control: max-age=0")
        self.assertEqual(client.status, 200, client.raw)
        return int(client.body.split(b"X-Number: ")[1].split()[0])

    def asked(self, rig: Rig, since: int) -> list[str]:
        """The suites that the upstream was asked for since it had had so many requests."""
        return [one.target[1:].rpartition("/")[0] for one in rig.origin.requests[since:]]


class PatienceTests(FreshnessCase):
    """A slow upstream."""

    def test_several_suites(self) -> None:
        """Who updates five suites from a silent upstream waits half a second in all, however the requests are sent."""
        for pipelined in (False, True):
            rig = self.start()
            rig.net.pass_time(1000)
            rig.origin.answer = lambda asked: None
            client = rig.request(f"{SUITES[0]}/InRelease", APT)
            if pipelined:
                client.channel.dataReceived(b"".join(get(f"{suite}/InRelease") for suite in SUITES[1:]))
            rig.net.pass_time(0.4)
            self.assertFalse(client.answered)
            rig.net.pass_time(0.2)
            self.assertEqual(client.headers["x-cache"], "STALE")
            if pipelined:
                self.assertEqual(client.raw.count(b"X-Cache: STALE"), len(SUITES))
            else:
                self.assertEqual([self.number(rig, suite) for suite in SUITES], [1] * len(SUITES))
            rig.net.pass_time(300)

    def test_late_outcome(self) -> None:
        """What comes too late for the client that waited is what the next one gets."""
        rig = self.start()
        rig.net.pass_time(1000)
        self.publish(2)

        def slowly(asked: Asked) -> None:
            rig.net.callLater(2, self.mirror.answer, asked)

        rig.origin.answer = slowly
        client = rig.request(f"{SUITE}/InRelease")
        rig.net.pass_time(3)
        self.assertIn(b"X-Number: 1", client.body)
        self.assertEqual(self.number(rig), 2)
