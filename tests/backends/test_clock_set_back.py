"""The time of day is set back while the vault runs, by a day: nobody waits until it has caught up."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.backends.pypi_case import PyPICase, entry, page
from tests.backends.test_apt import SUITE
from tests.backends.test_apt_freshness import SUITES, FreshnessCase
from tests.memory import START, Rig
from vault.artifact import Head
from vault.backends._oci_memory import Noted
from vault.backends._oci_registry import Registry
from vault.backends._pypi_recent import good_within
from vault.backends.apt import AptBackend
from vault.memory import Memory

DAY = 86400.0


class AptTests(FreshnessCase):
    """Suites."""

    def start(self, **options: float) -> Rig:
        """A vault whose clock was a day ahead until now."""
        rig = super().start(**options)
        rig.ahead -= DAY
        return rig

    def setUp(self) -> None:
        """Let vaults begin with a clock that is ahead."""
        making = self.rig
        self.patch(self, "rig", lambda *arguments, **options: self._ahead(making(*arguments, **options)))

    def _ahead(self, rig: Rig) -> Rig:
        rig.ahead = DAY
        return rig

    def test_asked_for(self) -> None:
        """A client gets the new generation, whatever it says of caches, and the next one a hit with a usual age."""
        rig = self.start()
        self.publish(2)
        client = rig.request(f"{SUITE}/InRelease")
        self.assertEqual((client.headers["x-cache"], b"X-Number: 2" in client.body), ("REVALIDATED", True))
        client = rig.request(f"{SUITE}/InRelease")
        self.assertEqual(client.headers["x-cache"], "HIT")
        self.assertIn("ttl=30", client.headers["cache-status"])

    def test_upstream_is_down(self) -> None:
        """It is not asked for each request, and what is kept is served."""
        rig = self.start()
        self.mirror.down = True
        self.assertEqual(self.number(rig), 1)
        before = len(rig.origin.requests)
        client = rig.request(f"{SUITE}/InRelease")
        self.assertEqual(client.headers["x-cache"], "STALE")
        self.assertEqual(len(rig.origin.requests), before)
        self.assertNotIn("ttl=8", client.headers["cache-status"])

    def test_was_missing(self) -> None:
        """A suite that was not there is found once it is."""
        rig = self.start()
        rig.ahead = DAY
        self.assertEqual(rig.request("dists/new/InRelease").status, 404)
        rig.net.pass_time(20)
        rig.ahead = 0
        self.mirror.put("dists/new/InRelease", self.mirror.files[f"/{SUITE}/InRelease"], 1)
        self.assertEqual(rig.request("dists/new/InRelease").status, 200)

    def test_unasked(self) -> None:
        """Suites in use are kept fresh by the hour, each asked for once, also while the upstream is down."""
        rig = self.start()
        before = len(rig.origin.requests)
        rig.net.pass_time(4000)
        self.publish(2)
        self.assertGreaterEqual(set(self.asked(rig, before)), set(SUITES))
        rig.net.pass_time(3700)
        self.mirror.down = True
        self.assertEqual([self.number(rig, suite) for suite in SUITES], [2] * len(SUITES))
        rig.ahead -= DAY
        rig.net.pass_time(3700)  # when the clock was set back is only seen when something is due
        before = len(rig.origin.requests)
        rig.net.pass_time(3700)
        self.assertLessEqual(len(rig.origin.requests) - before, len(SUITES) * (1 + rig.options.retries))

    def test_no_longer_used(self) -> None:
        """It ends two weeks from then on."""
        rig = self.start(refresh_interval=DAY)
        rig.ahead -= 30 * DAY
        rig.net.pass_time(16 * DAY)
        before = len(rig.origin.requests)
        rig.net.pass_time(5 * DAY)
        self.assertEqual(self.asked(rig, before), [])

    def test_needed(self) -> None:
        """An index file that clients asked for is fetched with new generations for a week from then on."""
        rig = self.start()
        backend = rig.backend
        assert isinstance(backend, AptBackend)
        suite = backend.state.suites[SUITE]
        suite.asked = {"a": rig.now() + DAY}
        self.assertEqual(suite.needed(rig.now()), ["a"])
        self.assertEqual(suite.needed(rig.now() + 7 * DAY - 1), ["a"])
        self.assertEqual(suite.needed(rig.now() + 7 * DAY + 1), [])
        rig.ahead += DAY
        self.assertEqual(suite.waited(rig.kitchen, "a"), 0)
        rig.ahead -= DAY
        self.assertEqual(suite.waited(rig.kitchen, "a"), 0)
        rig.net.pass_time(600)
        self.assertEqual(suite.waited(rig.kitchen, "a"), 600)


class PyPITests(PyPICase):
    """Pages."""

    def test_least_age(self) -> None:
        """A file that was shown by a clock ahead is hidden until it is old enough."""
        rig = self.vault(min_release_age=3600.0, ttl=10**6)
        self.put(
            "a",
            page(
                entry("a-1.zip", b"1", **{"upload-time": "2020-01-01T00:00:00Z"}),
                entry("a-2.zip", b"2", **{"upload-time": "2026-11-23T20:30:00.5Z"}),
            ),
        )
        rig.ahead = DAY
        self.assertEqual(list(self.links()), ["a-1.zip", "a-2.zip"])
        self.assertEqual(self.get("simple/a/").body.count(b"<a "), 2)
        rig.ahead = 0
        self.assertEqual(list(self.links()), ["a-1.zip"])
        self.assertEqual(self.get("simple/a/").body.count(b"<a "), 1)
        rig.workers.held = True
        self.assertEqual(list(self.links()), ["a-1.zip"])
        rig.workers.release()
        rig.net.pass_time(1801)
        self.assertEqual(list(self.links()), ["a-1.zip", "a-2.zip"])

    def test_note(self) -> None:
        """What is noted of that is as short as it can be."""
        self.assertEqual(good_within(None, None, 0), "")
        self.assertEqual(good_within(1, None, 3600), " until inf from 3600.999")
        self.assertEqual(good_within(None, 2, 3600), " until 3602.000")

    def test_nonsense(self) -> None:
        """The index is asked soon again after it sent what is no page."""
        rig = self.vault()
        rig.ahead = DAY
        self.put("a", page(entry("a-1.zip", b"x")))
        self.assertEqual(list(self.links()), ["a-1.zip"])
        rig.net.pass_time(700)
        self.put("a", b"[]")
        self.assertEqual(list(self.links()), ["a-1.zip"])
        rig.ahead = 0
        self.assertEqual(list(self.links()), ["a-1.zip"])
        self.put("a", page(entry("a-2.zip", b"x")))
        rig.net.pass_time(11)
        self.assertEqual(list(self.links()), ["a-2.zip"])

    def test_refused(self) -> None:
        """The page is read again soon for a file that its host did not give."""
        rig = self.vault(ttl=10**6)
        self.put("a", page(entry("a-1.zip", b"x")))
        target = self.links()["a-1.zip"]
        rig.ahead = DAY
        self.assertEqual(rig.request(target).status, 404)
        rig.ahead = 0
        self.assertEqual(list(self.links()), ["a-1.zip"])
        rig.net.pass_time(11)
        self.put("a", page({**entry("a-1.zip", b"x"), "url": "http://files.test/packages/other/a-1.zip"}))
        self.files["/packages/other/a-1.zip"] = b"x"
        self.assertEqual(rig.request(target).body, b"x")

    def test_gone(self) -> None:
        """A project that has gone is served for ``gone_ttl`` from then on."""
        rig = self.vault(gone_ttl=3000.0)
        rig.ahead = DAY
        self.put("a", page(entry("a-1.zip", b"x")))
        self.get("simple/a/")
        rig.net.pass_time(700)
        del self.pages["/simple/a/"]
        self.assertEqual(self.get("simple/a/").status, 200)
        rig.ahead = 0
        rig.net.pass_time(700)
        self.assertEqual(self.get("simple/a/").status, 200)
        rig.net.pass_time(3001)
        self.assertEqual(self.get("simple/a/").status, 404)


class MemoryTests(SynchronousTestCase):
    """What is kept in memory for a while."""

    def test_registries(self) -> None:
        """What was noticed of registries is forgotten: that they want rest, that few pulls are left."""
        noted: Noted[str] = Noted()
        noted.note("a", START + 60, "what")
        self.assertEqual((noted.get("a", START), noted.holds("a", START)), ("what", True))
        self.assertEqual((noted.get("a", START - DAY), noted.holds("a", START - DAY)), (None, False))
        registry = Registry(
            name="hub", prefix="/hub/", backend="hub", url="http://origin.test/", namespace="hub", now=lambda: START
        )
        registry.rate_limit.hear(Head(200, (("RateLimit-Remaining", "0;w=21600"),), START, START))
        self.assertTrue(registry.short_of_pulls(START))
        self.assertFalse(registry.short_of_pulls(START - DAY))

    def test_keys(self) -> None:
        """So is what was noticed of keys, where that is counted by the time of day."""
        now = START
        memory = Memory(lambda: now)
        memory.note("a", 120)
        memory.note("b", 120)
        self.assertEqual(memory.get("a"), (120, None))
        now -= DAY
        self.assertIsNone(memory.get("b"))
