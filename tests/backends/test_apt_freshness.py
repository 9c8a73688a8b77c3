"""``type: apt``: how recent a suite is that a client is given, and how long anybody waits for that."""

from __future__ import annotations

from email.utils import formatdate
from itertools import pairwise
from typing import Any

from tests.backends.test_apt import SUITE, Mirror
from tests.memory import Asked, Rig, RigCase
from tests.web.test_ahead import APT, get
from vault.backends.apt import AptBackend
from vault.config import load_text

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


class ExpiredTests(FreshnessCase):
    """What is served has expired: clients refuse it."""

    def expire(self, rig: Rig, delay: float) -> None:
        """Serve what expires in ten seconds; 15 s later there is something new, which comes after ``delay``."""
        name = f"/{SUITE}/InRelease"
        rig.net.pass_time(100)
        until = f"\nValid-Until: {formatdate(rig.net.seconds() + 10, usegmt=True)}\nX-Number: 2"
        self.publish(2)
        self.mirror.files[name] = self.mirror.files[name].replace(b"\nX-Number: 2", until.encode())
        self.assertEqual(self.number(rig), 2)
        rig.net.pass_time(15)
        self.publish(3)
        rig.origin.answer = lambda asked: rig.net.callLater(delay, self.mirror.answer, asked)

    def test_renewed(self) -> None:
        """The new one is waited for, though it has not been asked for long, and the upstream is slow."""
        rig = self.start()
        self.expire(rig, 3)
        client = rig.request(f"{SUITE}/InRelease")
        rig.net.pass_time(3.1)
        self.assertEqual((client.headers["x-cache"], b"X-Number: 3" in client.body), ("REVALIDATED", True))

    def test_not_renewed(self) -> None:
        """While there is none, or no answer, it is served, and the upstream asked every five seconds at most."""
        rig = self.start()
        self.expire(rig, 20)
        client = rig.request(f"{SUITE}/InRelease")
        rig.net.pass_time(8.1)
        self.assertIn(b"X-Number: 2", client.body)
        self.assertEqual(self.number(rig), 2)
        rig = self.start()
        self.expire(rig, 0)
        rig.origin.answer = lambda asked: asked.answer(304)
        before = len(rig.origin.requests)
        for _ in range(4):
            self.assertEqual(self.number(rig), 2)
            rig.net.pass_time(2)
        self.assertEqual(len(rig.origin.requests) - before, 2)


class UnaskedTests(FreshnessCase):
    """Suites that are refreshed without a client."""

    def test_kept_fresh(self) -> None:
        """All that clients use are refreshed each hour, one after another: what is served at once is from then."""
        rig = self.start()
        rig.net.pass_time(3000)
        before = len(rig.origin.requests)
        times: list[float] = []

        def answer(asked: Asked) -> None:
            times.append(rig.net.seconds())
            self.mirror.answer(asked)

        rig.origin.answer = answer
        self.publish(2)
        rig.net.pass_time(700)
        self.assertEqual(sorted(self.asked(rig, before)), sorted(SUITES))
        self.assertGreaterEqual(min(later - sooner for sooner, later in pairwise(times)), 1)
        self.mirror.down = True
        self.assertEqual([self.number(rig, suite) for suite in SUITES], [2] * len(SUITES))

    def test_asked_by_a_client(self) -> None:
        """What was refreshed for a client just now is not refreshed again until an hour later."""
        rig = self.start()
        rig.net.pass_time(3000)
        self.number(rig)
        before = len(rig.origin.requests)
        rig.net.pass_time(3500)
        self.assertNotIn(SUITE, self.asked(rig, before))
        rig.net.pass_time(200)
        self.assertEqual(self.asked(rig, before).count(SUITE), 1)

    def test_no_longer_used(self) -> None:
        """Two weeks after a client asked it ends, also over a restart, and begins again with the next one."""
        rig = self.start(refresh_interval=86400.0)
        rig.net.pass_time(10 * 86400)
        self.number(rig)
        rig.net.pass_time(10 * 86400)
        object.__setattr__(rig.backend, "state", type(rig.backend.state)())  # type: ignore[attr-defined]
        rig.stop()
        rig.again()
        before = len(rig.origin.requests)
        rig.backend.started(rig.kitchen)  # type: ignore[attr-defined]
        rig.net.pass_time(3 * 86400)
        self.assertEqual(set(self.asked(rig, before)), {SUITE}, "no client came for the others in twenty days")
        rig.net.pass_time(2 * 86400)
        before = len(rig.origin.requests)
        rig.net.pass_time(10 * 86400)
        self.assertEqual(self.asked(rig, before), [])
        self.number(rig)
        rig.net.pass_time(2 * 86400)
        self.assertGreaterEqual(self.asked(rig, before).count(SUITE), 2)

    def test_outage(self) -> None:
        """While the upstream is down it is asked once an interval and suite, and recovers."""
        rig = self.start()
        before = len(rig.origin.requests)
        self.mirror.down = True
        rig.net.pass_time(3 * 3700)
        self.assertLessEqual(len(rig.origin.requests) - before, 3 * len(SUITES) * (1 + rig.options.retries))
        self.mirror.down = False
        self.publish(2)
        rig.net.pass_time(3700)
        self.mirror.down = True
        self.assertEqual(self.number(rig), 2)

    def test_off(self) -> None:
        """With 0, and for a backend that is offline, nobody is asked without a client."""
        rig = self.start(refresh_interval=0.0)
        before = len(rig.origin.requests)
        rig.net.pass_time(86400)
        self.assertEqual(len(rig.origin.requests), before)
        for text, interval in (("offline: true", 0.0), ("refresh_interval: 2h", 7200.0), ("ttl: 30", 3600.0)):
            config = f"backends:\n- type: apt\n  config: {{prefix: /u/, mirror_url: 'http://a.test/', {text}}}\n"
            backend = load_text(config, "vault.yml", {}).backends[0].backend
            assert isinstance(backend, AptBackend)
            self.assertEqual(backend.refresh_interval, interval, text)

    def test_stopped(self) -> None:
        """A kitchen that was stopped, as when the configuration was read again, begins nothing more."""
        rig = self.start()
        rig.stop()
        before = len(rig.origin.requests)
        self.number(rig)
        rig.net.pass_time(86400)
        self.assertEqual(len(rig.origin.requests), before)
