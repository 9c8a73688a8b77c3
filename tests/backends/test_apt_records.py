"""``type: apt``: what is kept of a suite over a restart, which upstreams it is of, and what counts as their word."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address

from tests.backends.test_apt import NAME, SUITE, Mirror
from tests.memory import START, Asked, Client, Rig, RigCase
from tests.web.test_ahead import APT, get
from vault.backends import _apt_packages, _apt_refresh, apt
from vault.backends.apt import AptBackend
from vault.formats import table


class RecordCase(RigCase):
    """A vault that is started again with other settings."""

    def start(self, **options: Any) -> Rig:
        """A vault in front of a mirror with one generation."""
        self.mirror = Mirror()
        rig = self.rig(backend=AptBackend("files", "/files/", ("http://origin.test/",), **options))
        rig.origin.answer = self.mirror.answer
        return rig

    def point_at(self, rig: Rig, *urls: str) -> None:
        """Start the vault again with these mirror_urls."""
        backend = rig.backend
        assert isinstance(backend, AptBackend)
        object.__setattr__(backend, "upstreams", urls)
        object.__setattr__(backend, "state", type(backend.state)())
        rig.again()

    def number(self, rig: Rig) -> int:
        """The generation that a client is given."""
        client = rig.request(f"{SUITE}/InRelease", "Cache-Control: max-age=0")
        rig.net.pass_time(0 if client.answered else 6)
        self.assertEqual(client.status, 200, client.raw)
        return int(client.body.split(b"X-Number: ")[1].split()[0])


class UpstreamTests(RecordCase):
    """``mirror_url`` changes."""

    def other(self, rig: Rig, by_date: bool = True) -> Mirror:
        """Another repository, whose Release is older; ``by_date`` it answers 304 as servers do that compare dates."""
        other = Mirror()
        other.publish(7, date=START - 5000)

        def answer(asked: Asked) -> None:
            modified = other.times.get(asked.target)
            if by_date and modified is not None and asked.get("If-Modified-Since"):
                asked.answer(304)  # what is asked for is older than that
            else:
                other.answer(asked)

        rig.net.origin("other.test").answer = answer
        return other

    def test_other_repository(self) -> None:
        """Its Release is served, however old: dates of one repository say nothing of another."""
        rig = self.start()
        self.assertEqual(self.number(rig), 1)
        other = self.other(rig)
        rig.net.pass_time(5)
        self.point_at(rig, "http://other.test/")
        self.assertEqual(self.number(rig), 7)
        self.assertEqual(rig.request(f"{SUITE}/{NAME}").body, other.packages)

    def test_other_repository_then_older(self) -> None:
        """From then on it is held to its own dates, also after a restart."""
        rig = self.start()
        self.number(rig)
        other = self.other(rig)
        self.point_at(rig, "http://other.test/")
        self.number(rig)
        rig.net.pass_time(5)
        other.publish(8, date=START - 9000)
        self.point_at(rig, "http://other.test/")
        rig.net.origins[rig.net.names["other.test"][0], 80].answer = other.answer
        rig.net.pass_time(1000)
        self.assertEqual(self.number(rig), 7)

    def test_one_more_mirror(self) -> None:
        """Where one of the mirrors is still the same, an older Release is that of a mirror that lags behind."""
        rig = self.start()
        self.number(rig)
        self.other(rig)
        rig.net.pass_time(5)
        self.point_at(rig, "http://other.test/", "http://origin.test/")
        rig.net.pass_time(1000)
        self.assertEqual(self.number(rig), 1)

    def test_other_repository_is_down(self) -> None:
        """Until it answers, what there is is served."""
        rig = self.start()
        self.number(rig)
        rig.net.pass_time(5)
        self.point_at(rig, "http://nowhere.test/")
        self.assertEqual(self.number(rig), 1)

    def forget(self, rig: Rig) -> None:
        """Leave the record as it was written before it said which upstreams it is of."""
        assert isinstance(rig.backend, AptBackend)
        key = rig.backend.state.suites[SUITE].record_key
        body: Any = self.successResultOf(rig.run(rig.kitchen.stored(key)))
        record = json.loads(self.successResultOf(rig.run(rig.kitchen.read(body, 10**6))))
        del record["upstreams"]
        rig.run(rig.kitchen.make(key, "before", lambda: [json.dumps(record).encode()]))

    def test_record_without(self) -> None:
        """Such a record is read; where what is served came from is not known, an older Release is not taken."""
        rig = self.start()
        self.number(rig)
        rig.net.pass_time(5)
        self.forget(rig)
        self.other(rig, by_date=False)
        rig.net.pass_time(1000)
        self.point_at(rig, "http://other.test/")
        self.assertEqual(self.number(rig), 1)

    def test_confirmed_by_a_look(self) -> None:
        """A look that finds what is served completes it."""
        rig = self.start()
        self.number(rig)
        rig.net.pass_time(5)
        self.forget(rig)
        self.point_at(rig, "http://origin.test/")
        self.assertEqual(self.number(rig), 1)
        self.other(rig)
        rig.net.pass_time(5)
        self.point_at(rig, "http://other.test/")
        self.assertEqual(self.number(rig), 7)


class AbsentTests(RecordCase):
    """Suites that are not there."""

    def test_no_record(self) -> None:
        """Whoever asks for suites that are not there does not fill the disk with records of them."""
        rig = self.start()
        before = rig.stored
        for number in range(20):
            self.assertEqual(rig.request(f"dists/none-{number}/InRelease").status, 404)
        rig.net.pass_time(60)
        self.assertEqual(rig.stored, before)

    def test_repository_without(self) -> None:
        """A repository that has no Release files is served on while the upstream is down, also after a restart."""
        rig = self.start()
        self.mirror.put("flat/Packages", b"Package: p\n\n", 1)
        wanted = {"InRelease": 404, "Release": 404, "Packages": 200}
        for down in (False, True, True):
            self.mirror.down = down
            for name, status in wanted.items():
                client = rig.request(f"flat/{name}", "Cache-Control: max-age=0")
                rig.net.pass_time(5)
                self.assertEqual(client.status, status, client.raw)
            rig.net.pass_time(300)
            if down:
                object.__setattr__(rig.backend, "state", type(rig.backend.state)())
                rig.again()

    def test_many(self) -> None:
        """That there are too many of them does not disturb a suite which is just being met for the first time."""
        rig = self.start()
        self.mirror.put("dists/slow/InRelease", self.mirror.files[f"/{SUITE}/InRelease"], 1)
        waiting: list[Asked] = []
        rig.origin.answer = lambda asked: (waiting.append if "slow" in asked.target else self.mirror.answer)(asked)
        with mock.patch.object(apt, "MOST_SUITES", 5):
            first = rig.request("dists/slow/InRelease")
            for number in range(20):
                self.assertEqual(rig.request(f"dists/none-{number}/InRelease").status, 404)
            self.mirror.answer(waiting.pop())
            rig.net.pass_time()
            self.assertEqual(first.status, 200)
        second = rig.request("dists/slow/InRelease")
        self.assertEqual((second.status, second.headers["x-cache"], waiting), (200, "HIT", []))


class SureTests(RecordCase):
    """What counts as the upstream's word."""

    def test_refreshing(self) -> None:
        """A copy that is just being refreshed behind is one: the upstream is not said to fail."""
        rig = self.start(ttl=1.0, stale_while_revalidate=0.0)
        self.number(rig)
        self.mirror.publish(2)
        for moment in range(3):
            rig.net.pass_time(2)
            client = rig.request(f"{SUITE}/InRelease")
            self.assertEqual((client.status, client.headers["x-cache"]), (200, "REVALIDATED"), moment)
        self.assertEqual(self.number(rig), 2)


class UndescribedTests(RecordCase):
    """Packages that no index file describes."""

    def test_asked_again(self) -> None:
        """A client that asks once more within minutes, on whatever connection, gets what the upstream has now."""
        rig = self.start()
        self.assertEqual(rig.request("pool/p.deb").body, b"package 1")
        self.mirror.publish(2)
        rig.net.pass_time(60)
        before = len(rig.origin.requests)
        self.assertEqual(rig.request("pool/p.deb").body, b"package 2")
        rig.net.pass_time(60)
        self.mirror.down = True
        self.assertEqual(rig.request("pool/p.deb").body, b"package 2")
        self.assertGreater(len(rig.origin.requests), before)

    def test_asked_later(self) -> None:
        """Later it is from the cache: files of a pool do not change."""
        rig = self.start()
        self.assertEqual(rig.request("pool/p.deb").body, b"package 1")
        self.mirror.publish(2)
        rig.net.pass_time(3600)
        client = rig.request("pool/p.deb")
        self.assertEqual((client.body, client.headers["x-cache"]), (b"package 1", "HIT"))

    def test_other_client(self) -> None:
        """What one client was given is no reason to ask for another."""
        rig = self.start()
        self.assertEqual(rig.request("pool/p.deb").body, b"package 1")
        self.mirror.publish(2)
        rig.net.pass_time(60)
        with mock.patch.object(Client, "PEER", IPv4Address("TCP", "192.0.2.51", 40000)):
            self.assertEqual(rig.request("pool/p.deb").headers["x-cache"], "HIT")

    def test_waiting(self) -> None:
        """That it waited in a pipeline before it was answered is not asking twice."""
        rig = self.start()
        rig.request("pool/p.deb")
        self.mirror.publish(2)
        rig.net.pass_time(3600)
        answer, rig.origin.answer = rig.origin.answer, lambda asked: None
        client = rig.request("pool/other.deb", APT)
        client.channel.dataReceived(get("pool/p.deb"))
        rig.net.pass_time()
        rig.origin.answer = answer
        answer(rig.origin.last)
        rig.net.pass_time()
        self.assertIn(b"X-Cache: HIT", client.raw)
        self.assertIn(b"package 1", client.raw)


class ManyTablesTests(RecordCase):
    """More index files in use than tables are kept open."""

    def test_answers(self) -> None:
        """What they said of a file is remembered all the same: a hit does not read all of them again."""
        rig = self.start()
        for suite in ("a", "b", "c"):
            for path, data in list(self.mirror.files.items()):
                if path.startswith(f"/{SUITE}/"):
                    self.mirror.put(path.replace(SUITE, f"dists/{suite}")[1:], data, 1)
        with mock.patch.object(_apt_packages, "OPEN", 2):
            for suite in ("a", "b", "c"):
                self.assertEqual(rig.request(f"dists/{suite}/InRelease").status, 200)
                self.assertEqual(rig.request(f"dists/{suite}/{NAME}").status, 200)
            rig.net.pass_time(1)
            looked = mock.Mock(wraps=table.look_up)
            with mock.patch.object(table, "look_up", looked):
                for _ in range(3):
                    self.assertEqual(rig.request("pool/p.deb").body, b"package 1")
            self.assertEqual(looked.call_count, 3)


class ShownTests(RecordCase):
    """A client with a connection for each file, as debootstrap is, while another one sees to a new generation."""

    def test_index(self) -> None:
        """It gets the index files, by plain name, that belong to the Release file it got; for two minutes."""
        rig = self.start()
        for seconds, number in ((60, 1), (121, 2)):
            self.mirror.by_hash = False
            self.mirror.publish(1)
            old = self.mirror.packages
            self.assertEqual(self.number(rig), 1)
            self.assertEqual(rig.request(f"{SUITE}/{NAME}").body, old)
            self.mirror.publish(2)
            with mock.patch.object(Client, "PEER", IPv4Address("TCP", "192.0.2.51", 40000)):
                rig.net.pass_time(seconds)
                self.number(rig)
                rig.net.pass_time(1)
                self.assertEqual(self.number(rig), 2)
                self.assertEqual(rig.request(f"{SUITE}/{NAME}").body, self.mirror.packages)
            self.assertEqual(rig.request(f"{SUITE}/{NAME}").body, old if number == 1 else self.mirror.packages)
            self.assertEqual(self.number(rig), 2)
            self.assertEqual(rig.request(f"{SUITE}/{NAME}").body, self.mirror.packages)
            rig = self.start()

    def test_short_ttl(self) -> None:
        """So long it does, on its connection too, whatever ``generation_ttl`` says."""
        rig = self.start(generation_ttl=0.0)
        self.mirror.by_hash = False
        self.mirror.publish(1)
        old = self.mirror.packages
        client = rig.request(f"{SUITE}/InRelease", APT)
        self.assertEqual(rig.request(f"{SUITE}/{NAME}").body, old)
        self.mirror.publish(2)
        with mock.patch.object(Client, "PEER", IPv4Address("TCP", "192.0.2.51", 40000)):
            rig.net.pass_time(35)
            self.number(rig)
            rig.net.pass_time(1)
            self.assertEqual(self.number(rig), 2)
        client.channel.dataReceived(get(f"{SUITE}/{NAME}"))
        rig.net.pass_time(1)
        self.assertIn(old, client.raw)

    def test_pair(self) -> None:
        """It gets the signature of the Release it got."""
        rig = self.start()
        self.mirror.files.clear()

        def publish(number: int) -> None:
            for name in ("Release", "Release.gpg"):
                self.mirror.put(f"{SUITE}/{name}", b"X-Number: %d\n" % number, number)

        publish(1)
        self.assertEqual(rig.request(f"{SUITE}/Release").body, b"X-Number: 1\n")
        publish(2)
        with mock.patch.object(Client, "PEER", IPv4Address("TCP", "192.0.2.51", 40000)):
            rig.net.pass_time(100)
            self.assertEqual(rig.request(f"{SUITE}/Release").body, b"X-Number: 2\n")
        self.assertEqual(rig.request(f"{SUITE}/Release.gpg").body, b"X-Number: 1\n")
        self.assertEqual(rig.request(f"{SUITE}/Release").body, b"X-Number: 2\n")
        self.assertEqual(rig.request(f"{SUITE}/Release.gpg").body, b"X-Number: 2\n")


class StopTests(RecordCase):
    """The vault is stopped, or configured again, just after a client asked."""

    def test_being_sent(self) -> None:
        """So is what is still coming when the configuration is read again."""
        rig = self.start()
        self.mirror.by_hash = False
        self.mirror.publish(1)
        with mock.patch.object(_apt_refresh, "LIKELY_FILES", 0):
            self.assertEqual(self.number(rig), 1)
        rig.origin.answer = lambda asked: asked.head(200, length=len(self.mirror.packages))
        client = rig.request(f"{SUITE}/{NAME}")
        rig.net.pass_time(1)
        self.point_at(rig, "http://origin.test/")
        rig.origin.last.send(self.mirror.packages)
        rig.net.pass_time(1)
        self.assertEqual((client.status, client.body), (200, self.mirror.packages))
        rig.origin.answer = self.mirror.answer
        self.mirror.publish(2, indexes=False)
        rig.net.pass_time(1000)
        self.assertEqual(self.number(rig), 1, "the index file is still the old one")

    def test_just_asked(self) -> None:
        """What the client asked for is needed in new generations all the same, however slow the disk is."""
        for held in (False, True):
            rig = self.start()
            self.mirror.by_hash = False
            self.mirror.publish(1)
            self.assertEqual(self.number(rig), 1)
            self.assertEqual(rig.request(f"{SUITE}/{NAME}").status, 200)
            self.mirror.publish(2, indexes=False)
            rig.disk.held = held
            self.point_at(rig, "http://origin.test/")
            rig.disk.release()
            rig.net.pass_time(1)
            self.assertEqual(self.number(rig), 1, "the index file is still the old one")
            self.mirror.publish(2)
            rig.net.pass_time(300)
            self.assertEqual(self.number(rig), 2)
