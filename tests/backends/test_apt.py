"""``type: apt`` on a clock moved by hand: generations, what is asked upstream, and what clients get when that fails."""

from __future__ import annotations

import hashlib
import lzma
from email.utils import formatdate
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.memory import DATE, START, Asked, Client, Rig, RigCase
from vault.artifact import Artifact
from vault.backends.apt import AptBackend
from vault.interfaces import IBackend, IRecipe

NAME = "main/binary-all/Packages.xz"
PLAIN = "main/binary-all/Packages"
SUITE = "dists/test"


def clear_signed(text: str) -> bytes:
    """As an InRelease; nobody here checks the signature."""
    return (
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{text}\n"
        "-----BEGIN PGP SIGNATURE-----\n\nx\n-----END PGP SIGNATURE-----\n"
    ).encode()


class Mirror:
    """What the origin has: ``publish`` makes generation ``number``, whose one package is of that content."""

    def __init__(self, by_hash: bool = True) -> None:
        self.by_hash = by_hash
        self.files: dict[str, bytes] = {}
        self.times: dict[str, float] = {}
        self.down = False
        self.plain = False
        self.algorithm = "sha256"
        self.refused = "#"
        self.padding = b""
        self.publish(1)

    def publish(self, number: int, indexes: bool = True, date: float = START) -> None:
        """Put the files of a generation there."""
        deb = b"package %d" % number + self.padding
        field, value = self.algorithm.upper(), hashlib.new(self.algorithm, deb).hexdigest()
        stanza = f"Package: p\nFilename: pool/p.deb\nSize: {len(deb)}\n{field}: {value}\n\n"
        packages = lzma.compress(stanza.encode())
        digest = hashlib.sha256(packages).hexdigest()
        text = f"Suite: test\nX-Number: {number}\nDate: {formatdate(date + number, usegmt=True)}\n"
        text += "Acquire-By-Hash: yes\n" if self.by_hash else ""
        text += f"SHA256:\n {digest} {len(packages)} {NAME}\n"
        if self.plain:  # listed, but not there
            text += f" {hashlib.sha256(stanza.encode()).hexdigest()} {len(stanza)} {PLAIN}\n"
        if indexes:
            self.put(f"{SUITE}/{NAME}", packages, number)
            self.put("pool/p.deb", deb, number)
            if self.by_hash:
                self.put(f"{SUITE}/main/binary-all/by-hash/SHA256/{digest}", packages, number)
        self.put(f"{SUITE}/InRelease", clear_signed(text), number)
        self.hash = digest
        self.packages = packages
        self.deb = deb

    def put(self, path: str, data: bytes, number: int) -> None:
        """One file, a little newer with each generation."""
        self.files["/" + path] = data
        self.times["/" + path] = START - 10000 + number

    def answer(self, asked: Asked) -> None:
        """As a mirror does."""
        data = self.files.get(asked.target)
        if self.down:
            asked.answer(503)
        elif self.refused in asked.target:
            asked.answer(403)
        elif data is None:
            asked.answer(404)
        else:
            modified = formatdate(self.times[asked.target], usegmt=True)
            if asked.get("If-Modified-Since") == modified:
                asked.answer(304, f"Last-Modified: {modified}", f"Date: {DATE}")
            elif asked.method == "HEAD":
                asked.head(200, f"Last-Modified: {modified}", f"Date: {DATE}", length=len(data))
            else:
                asked.answer(200, f"Last-Modified: {modified}", f"Date: {DATE}", body=data)


class PathTests(SynchronousTestCase):
    """What paths stand for."""

    def test_resolve(self) -> None:
        """Repository files are recipes; listings and what has a query are artifacts that expire."""
        backend = AptBackend("u", "/u/", ("http://a.test/u/", "http://b.test/"))
        self.assertTrue(verifyObject(IBackend, backend))
        for path in ("dists/n/InRelease", "dists/n/main/binary-all/Packages", "pool/a.deb", f"by-hash/SHA1/{'a' * 40}"):
            self.assertTrue(verifyObject(IRecipe, backend.resolve(path, {})), path)
        listing = backend.resolve("pool/", {})
        assert isinstance(listing, Artifact)
        self.assertEqual((listing.urls, listing.max_age), (("http://a.test/u/pool/", "http://b.test/pool/"), 30.0))
        self.assertTrue(listing.short)

    def test_plus(self) -> None:
        """A plus is asked for in the encoded form, which every server takes for a plus; a query is left alone."""
        backend = AptBackend("u", "/u/", ("http://a.test/",))
        self.assertEqual(backend.artifact("pool/g++~1.deb").urls, ("http://a.test/pool/g%2B%2B~1.deb",))
        self.assertEqual(backend.artifact("x?a+b").urls, ("http://a.test/x?a+b",))

    def test_equal(self) -> None:
        """What a backend has learnt does not make it another: it is kept when the configuration is read again."""
        first, second = AptBackend("u", "/u/", ("http://a.test/",)), AptBackend("u", "/u/", ("http://a.test/",))
        first.state.suites["x"] = first.state.suites.get("x")  # type: ignore[assignment]
        self.assertEqual(first, second)


class GenerationTests(RigCase):
    """One suite."""

    def start(self, by_hash: bool = True, **options: Any) -> Rig:
        """A vault in front of a mirror with one generation, whose index a client has asked for."""
        self.mirror = Mirror(by_hash)
        rig = self.rig(backend=AptBackend("files", "/files/", ("http://origin.test/",), **options))
        rig.origin.answer = self.mirror.answer
        return rig

    def number(self, rig: Rig) -> int:
        """The generation that a client is given."""
        client = rig.request(f"{SUITE}/InRelease", "Cache-Control: max-age=0")
        self.assertEqual(client.status, 200, client.raw)
        return int(client.body.split(b"X-Number: ")[1].split()[0])

    def index(self, rig: Rig) -> Client:
        """The index file by its plain name."""
        return rig.request(f"{SUITE}/{NAME}", "Cache-Control: max-age=0")

    def count(self, rig: Rig) -> int:
        """The requests that the mirror has had."""
        return len(rig.origin.requests)

    def test_fresh(self) -> None:
        """apt's max-age=0 on every file costs the upstream nothing while the Release file is fresh."""
        rig = self.start()
        self.number(rig)
        self.index(rig)
        before = self.count(rig)
        rig.net.pass_time(4)
        self.assertEqual(self.number(rig), 1)
        self.assertEqual(self.index(rig).headers["x-cache"], "HIT")
        self.assertEqual(self.count(rig), before)

    def test_insisting(self) -> None:
        """After five seconds it has the Release file confirmed behind, once, and is answered at once."""
        rig = self.start()
        self.number(rig)
        before = self.count(rig)
        rig.net.pass_time(10)
        rig.request(f"{SUITE}/InRelease", "Cache-Control: max-age=0")
        rig.request(f"{SUITE}/InRelease", "Cache-Control: max-age=0")
        self.assertEqual([one.target for one in rig.origin.requests[before:]], [f"/{SUITE}/InRelease"])

    def test_long_idle(self) -> None:
        """After a long time the first client waits for the new generation, which is there at once."""
        rig = self.start()
        self.number(rig)
        self.index(rig)
        self.mirror.publish(2)
        rig.net.pass_time(1000)
        self.assertEqual(self.number(rig), 2)
        self.assertEqual(self.index(rig).body, self.mirror.packages)

    def test_slow_upstream(self) -> None:
        """It does not wait longer than half a second, and who comes next not at all."""
        rig = self.start()
        self.number(rig)
        rig.net.pass_time(1000)
        rig.origin.answer = lambda asked: None
        client = rig.request(f"{SUITE}/InRelease")
        self.assertFalse(client.answered)
        rig.net.pass_time(0.6)
        self.assertEqual((client.status, client.headers["x-cache"]), (200, "STALE"))
        for _ in range(3):
            client = rig.request(f"{SUITE}/InRelease")
            self.assertEqual((client.status, client.headers["x-cache"]), (200, "STALE"))
            rig.net.pass_time(3)
        rig.net.pass_time(300)

    def test_torn(self) -> None:
        """A Release whose index files are not there yet is not shown, and taken by itself once they are."""
        rig = self.start(by_hash=False)
        self.number(rig)
        self.index(rig)
        old = self.mirror.packages
        self.mirror.publish(2, indexes=False)
        rig.net.pass_time(1000)
        self.assertEqual(self.number(rig), 1)
        self.assertEqual(self.index(rig).body, old)
        self.mirror.publish(2)
        rig.net.pass_time(60)
        before = self.count(rig)
        self.assertEqual(self.number(rig), 2)
        self.assertEqual(self.index(rig).body, self.mirror.packages)
        self.assertLessEqual(self.count(rig) - before, 1)

    def test_unused_index(self) -> None:
        """What no client has asked for is neither fetched nor waited for."""
        rig = self.start()
        self.number(rig)
        self.mirror.publish(2, indexes=False)
        rig.net.pass_time(1000)
        self.assertEqual(self.number(rig), 2)
        self.assertEqual([one for one in rig.origin.requests if NAME in one.target], [])

    def test_listed_but_absent(self) -> None:
        """A listed file that the upstream does not have, asked for by a client, holds up no new generation."""
        rig = self.start()
        self.mirror.plain = True
        self.mirror.publish(1)
        self.number(rig)
        self.index(rig)
        self.assertEqual(rig.request(f"{SUITE}/{PLAIN}").status, 404)
        rig.net.pass_time(3)
        self.mirror.put("pool/p.deb", b"PACKAGE 1", 1)
        self.assertNotEqual(rig.request("pool/p.deb").body, b"PACKAGE 1", "packages are still verified")
        self.mirror.publish(2)
        rig.net.pass_time(1000)
        self.assertEqual(self.number(rig), 2)

    def test_withdrawn_index(self) -> None:
        """An index file that is refused from some day on is waited for ten minutes in all, not in each generation."""
        rig = self.start()
        self.number(rig)
        self.index(rig)
        self.mirror.refused = "binary-all"
        self.mirror.publish(2)
        rig.net.pass_time(1000)
        self.assertEqual(self.number(rig), 1)
        rig.net.pass_time(400)
        self.mirror.publish(3)
        self.assertEqual(self.number(rig), 1)
        rig.net.pass_time(400)
        self.mirror.publish(4)
        self.number(rig)
        rig.net.pass_time(70)
        self.assertEqual(self.number(rig), 4)
        self.mirror.publish(5)
        rig.net.pass_time(1000)
        self.assertEqual(self.number(rig), 5)

    def test_hiccup(self) -> None:
        """What failed long ago is no reason to go on without an index file that is just being published."""
        rig = self.start()
        self.number(rig)
        self.index(rig)
        self.mirror.refused = "binary-all"
        self.mirror.publish(2)
        self.number(rig)
        rig.net.pass_time(400)
        self.assertEqual(self.number(rig), 1)
        rig.net.pass_time(3600)
        self.mirror.publish(3)
        self.number(rig)
        self.assertEqual(self.number(rig), 1)
        self.mirror.refused = "#"
        rig.net.pass_time(70)
        self.assertEqual(self.number(rig), 3)

    def test_asked_while_it_comes(self) -> None:
        """What a client got in part only is not needed in new generations; what came whole in the end is."""
        for whole in (True, False):
            rig = self.start()
            self.number(rig)
            wires = []

            def answer(asked: Asked, wires: list[Asked] = wires) -> None:
                if "binary-all" in asked.target:
                    asked.head(200, f"Date: {DATE}", length=len(self.mirror.packages))
                    asked.send(self.mirror.packages[:10])
                    wires.append(asked)
                else:
                    self.mirror.answer(asked)

            rig.origin.answer = answer
            self.index(rig)
            rig.net.pass_time(10)
            needed = rig.backend.state.suites[SUITE].needed  # type: ignore[attr-defined]
            self.assertEqual(needed(START + 10), [])
            if whole:
                wires[0].send(self.mirror.packages[10:])
                rig.net.pass_time(1)
                self.assertEqual(needed(START + 10), [NAME])

    def test_first_of_small_suite(self) -> None:
        """Without by-hash the first client's index files are had before its InRelease, as they may be gone soon."""
        rig = self.start(by_hash=False)
        self.number(rig)
        old = self.mirror.packages
        self.mirror.publish(2)
        self.assertEqual(self.index(rig).body, old)

    def test_first_while_publishing(self) -> None:
        """A first client that comes while the upstream publishes waits for a moment; for ever it does not."""
        for heals in (True, False):
            rig = self.start(by_hash=False)
            self.mirror.publish(2, indexes=False)
            client = rig.request(f"{SUITE}/InRelease")
            if heals:
                self.mirror.publish(2)
            rig.net.pass_time(5)
            self.assertEqual(client.status, 200)
            self.assertEqual(self.index(rig).status, 200 if heals else 503)

    def test_older(self) -> None:
        """A Release with an older Date is not taken."""
        rig = self.start()
        self.number(rig)
        self.mirror.publish(2, date=START - 5000)
        rig.net.pass_time(1000)
        self.assertEqual(self.number(rig), 1)

    def test_dated_in_the_future(self) -> None:
        """One that corrects a date in the future, for which clients refuse what is served, is older and is taken."""
        rig = self.start()
        self.mirror.publish(2, date=START + 86400)
        self.assertEqual(self.number(rig), 2)
        self.mirror.publish(3)
        rig.net.pass_time(1000)
        self.assertEqual(self.number(rig), 3)

    def test_not_a_release(self) -> None:
        """A page of a portal in the place of InRelease is not shown to clients that have something better."""
        rig = self.start()
        self.number(rig)
        self.mirror.put(f"{SUITE}/InRelease", b"<html>log in</html>", 2)
        rig.net.pass_time(1000)
        self.assertEqual(self.number(rig), 1)
        other = self.start()
        self.mirror.put(f"{SUITE}/InRelease", b"<html>log in</html>", 2)
        self.assertEqual(other.request(f"{SUITE}/InRelease").status, 502)

    def test_restart(self) -> None:
        """A vault that is started again serves the same generation, also when the upstream is down."""
        rig = self.start()
        self.number(rig)
        self.index(rig)
        self.mirror.down = True
        object.__setattr__(rig.backend, "state", type(rig.backend.state)())  # type: ignore[attr-defined]
        rig.again()
        self.assertEqual(self.number(rig), 1)
        self.assertEqual(self.index(rig).body, self.mirror.packages)

    def test_no_upstream(self) -> None:
        """Without anything stored an outage is 503 with Retry-After for Release files, and 404 for by-hash."""
        rig = self.start()
        self.mirror.down = True
        client = rig.request(f"{SUITE}/InRelease")
        self.assertEqual(client.status, 503)
        self.assertLessEqual(int(client.headers["retry-after"]), 60)
        self.assertEqual(rig.request(f"{SUITE}/main/by-hash/SHA256/{'a' * 64}").status, 404)

    def test_missing(self) -> None:
        """That there is no InRelease is remembered, also when the upstream is down and after a restart."""
        rig = self.start()
        del self.mirror.files[f"/{SUITE}/InRelease"]
        self.mirror.put(f"{SUITE}/Release", b"Suite: test\n", 1)
        self.mirror.put(f"{SUITE}/Release.gpg", b"sig", 1)
        for path, status in (("InRelease", 404), ("Release", 200), ("Release.gpg", 200)):
            self.assertEqual(rig.request(f"{SUITE}/{path}").status, status, path)
        rig.net.pass_time(5)
        self.mirror.down = True
        object.__setattr__(rig.backend, "state", type(rig.backend.state)())  # type: ignore[attr-defined]
        rig.again()
        for path, status in (("InRelease", 404), ("Release", 200), ("Release.gpg", 200)):
            client = rig.request(f"{SUITE}/{path}")
            rig.net.pass_time(5)
            self.assertEqual(client.status, status, path)

    def pair(self, release: int, signature: int, modified: float = START) -> None:
        """Let the mirror have no InRelease, and these generations' Release and Release.gpg, seconds apart."""
        self.mirror.files.pop(f"/{SUITE}/InRelease", None)
        for name, number in (("Release", release), ("Release.gpg", signature)):
            self.mirror.put(f"{SUITE}/{name}", b"X-Number: %d\n" % number, 0)
            self.mirror.times[f"/{SUITE}/{name}"] = modified + number

    def test_torn_pair_met_cold(self) -> None:
        """A Release beside the signature of the one before is not served to the first client, and the right pair is."""
        rig = self.start()
        self.pair(2, 1)
        for _ in range(2):
            client = rig.request(f"{SUITE}/Release")
            rig.net.pass_time(5)
            self.assertEqual(client.status, 503)
            self.assertIn("retry-after", client.headers)
        client = rig.request(f"{SUITE}/InRelease")
        rig.net.pass_time(5)
        self.assertEqual(client.status, 404)
        client = rig.request(f"{SUITE}/Release")
        self.pair(2, 2)
        rig.net.pass_time(5)
        self.assertEqual((client.status, client.body), (200, b"X-Number: 2\n"))
        self.assertEqual(rig.request(f"{SUITE}/Release.gpg").body, b"X-Number: 2\n")

    def test_published_twice(self) -> None:
        """What lies in the cache from a moment ago is no pair with the other half of the next generation but one."""
        rig = self.start()
        self.pair(1, 1)
        self.assertEqual(rig.request(f"{SUITE}/Release").status, 200)
        rig.net.pass_time(1000)

        def meanwhile(asked: Asked) -> None:
            self.mirror.answer(asked)
            if asked.target.endswith("/Release"):
                self.pair(3, 3)

        self.pair(2, 2)
        rig.origin.answer = meanwhile
        for _ in range(8):
            client = rig.request(f"{SUITE}/Release")
            rig.net.pass_time(1)
            self.assertEqual(rig.request(f"{SUITE}/Release.gpg").body, client.body)
            rig.net.pass_time(4)
        self.assertEqual(client.body, b"X-Number: 3\n")

    def test_signature_published_first(self) -> None:
        """A signature that is a little older than its Release is served at once when both are not new."""
        rig = self.start()
        self.pair(2, 1, START - 5000)
        self.assertEqual(rig.request(f"{SUITE}/Release").status, 200)

    def test_doubtful_pair_served(self) -> None:
        """Where a doubtful pair was taken after ten minutes, the right signature is not waited for when it comes."""
        rig = self.start()
        self.pair(2, 1)
        rig.request(f"{SUITE}/Release")
        rig.net.pass_time(1000)
        self.assertEqual(rig.request(f"{SUITE}/Release.gpg").body, b"X-Number: 1\n")
        self.pair(2, 3)
        rig.net.pass_time(1000)
        self.assertEqual(rig.request(f"{SUITE}/Release.gpg").body, b"X-Number: 3\n")

    def test_old_signature_beside_in_release(self) -> None:
        """Who asks for Release.gpg beside a new InRelease gets the right one; 503 while there is an old one."""
        rig = self.start()

        def put(number: int, dated: float) -> None:
            text = self.mirror.files[f"/{SUITE}/InRelease"].split(b"\n\n")[1].partition(b"-----")[0]
            self.mirror.put(f"{SUITE}/Release", text, number)
            self.mirror.put(f"{SUITE}/Release.gpg", b"signature %d" % number, number)
            for name in ("Release", "Release.gpg"):
                self.mirror.times[f"/{SUITE}/{name}"] = dated

        put(1, START - 10)
        self.number(rig)
        self.assertEqual(rig.request(f"{SUITE}/Release.gpg").body, b"signature 1")
        for dated in (START + 1000, START):  # its date tells, and that it was served before
            old = self.mirror.files[f"/{SUITE}/Release.gpg"]
            number = int(old.split()[1]) + 1
            self.mirror.publish(number)
            put(number, START + 900 + number)
            new = self.mirror.files[f"/{SUITE}/Release.gpg"]
            self.mirror.put(f"{SUITE}/Release.gpg", old, number)
            self.mirror.times[f"/{SUITE}/Release.gpg"] = dated
            rig.net.pass_time(1000)
            self.assertEqual(self.number(rig), number)
            self.assertEqual(rig.request(f"{SUITE}/Release.gpg").status, 503)
            self.mirror.files[f"/{SUITE}/Release.gpg"] = new
            self.mirror.times[f"/{SUITE}/Release.gpg"] = START + 1000 + number
            rig.net.pass_time(10)
            self.assertEqual(rig.request(f"{SUITE}/Release.gpg").body, new)

    def test_mismatch_is_asked_again(self) -> None:
        """An index file of the right length and the wrong content is asked for again past other caches."""
        rig = self.start()
        self.number(rig)
        wrong = [b"x" * len(self.mirror.packages)]

        def answer(asked: Asked) -> None:
            if "binary-all" in asked.target and wrong:
                asked.answer(200, f"Date: {DATE}", body=wrong.pop())
            else:
                self.mirror.answer(asked)

        rig.origin.answer = answer
        self.assertEqual(self.index(rig).body, self.mirror.packages)
        self.assertEqual(rig.origin.last.get("Cache-Control"), "no-cache")

    def test_package(self) -> None:
        """A package is checked against Packages, and replaced when the index says so; a wrong one is never stored."""
        rig = self.start()
        self.number(rig)
        self.index(rig)
        rig.net.pass_time(3)
        self.assertEqual(rig.request("pool/p.deb").body, b"package 1")
        self.mirror.publish(2)
        self.assertEqual(rig.request("pool/p.deb").body, b"package 1")
        rig.net.pass_time(1000)
        self.number(rig)
        rig.net.pass_time(3)
        self.assertEqual(rig.request("pool/p.deb").body, b"package 2")

    def test_package_known_by_another_digest(self) -> None:
        """A package that was built again is replaced also where Packages has no SHA256 of it."""
        for asked_before in (False, True):  # stored without a digest to check, or with one
            rig = self.start()
            self.mirror.algorithm = "sha512"
            self.mirror.publish(1)
            if not asked_before:
                rig.request("pool/p.deb")
            self.number(rig)
            self.index(rig)
            rig.net.pass_time(3)
            if asked_before:
                self.assertEqual(rig.request("pool/p.deb").body, b"package 1")
            self.mirror.publish(2)
            rig.net.pass_time(1000)
            self.number(rig)
            rig.net.pass_time(3)
            for how in ("MISS", "HIT"):
                client = rig.request("pool/p.deb")
                rig.net.pass_time(3)
                self.assertEqual((client.body, client.headers["x-cache"]), (b"package 2", how))
                self.assertNotIn("x-vault-digest", client.headers)

    def test_described_twice(self) -> None:
        """Where two suites describe a package differently, the one that the upstream has is served."""
        for deb in (b"package 1", b"package 2"):
            rig = self.start()
            self.mirror.publish(2)
            there = {path.replace("test", "other"): data for path, data in self.mirror.files.items()}
            self.mirror.publish(1)
            for path, data in there.items():
                self.mirror.put(path[1:], data, 1)
            for suite in ("test", "other"):
                self.assertEqual(rig.request(f"dists/{suite}/InRelease").status, 200)
                self.assertEqual(rig.request(f"dists/{suite}/{NAME}").status, 200)
            rig.net.pass_time(3)
            self.mirror.put("pool/p.deb", deb, 1)
            client = rig.request("pool/p.deb")
            rig.net.pass_time(3)
            self.assertEqual((client.status, client.body), (200, deb))

    def test_same_second(self) -> None:
        """A client that has the generation before gets the new one, also where both have the same date."""
        rig = self.start()
        self.number(rig)
        modified = rig.request(f"{SUITE}/InRelease").headers["last-modified"]
        old = self.mirror.times[f"/{SUITE}/InRelease"]
        self.mirror.publish(2)
        rig.origin.answer = lambda asked: asked.answer(
            200, f"Last-Modified: {modified}", f"Date: {DATE}", body=self.mirror.files[asked.target]
        )
        self.assertLess(old, self.mirror.times[f"/{SUITE}/InRelease"])
        rig.net.pass_time(1000)
        client = rig.request(f"{SUITE}/InRelease", f"If-Modified-Since: {modified}")
        self.assertEqual(client.status, 200)
        self.assertIn(b"X-Number: 2", client.body)

    def test_earlier_date(self) -> None:
        """So it does where its date is earlier, as after a change of mirrors, and where the client's clock is ahead."""
        rig = self.start()
        self.number(rig)
        modified = formatdate(START + 86400, usegmt=True)
        for number in (2, 3):
            self.mirror.publish(number)
            rig.net.pass_time(1000)
            client = rig.request(f"{SUITE}/InRelease", f"If-Modified-Since: {modified}")
            self.assertEqual(client.status, 200)
            self.assertIn(b"X-Number: %d" % number, client.body)
        same = client.headers["last-modified"]
        self.assertEqual(rig.request(f"{SUITE}/InRelease", f"If-Modified-Since: {same}").status, 304)

    def test_unreadable_date(self) -> None:
        """A Last-Modified that is no date is left out: apt would break off the connection."""
        rig = self.start()
        rig.origin.answer = lambda asked: asked.answer(
            200, "Last-Modified: Fri, 32 Jan 2100", f"Date: {DATE}", body=self.mirror.files[asked.target]
        )
        for path in (f"{SUITE}/InRelease", f"{SUITE}/{NAME}", "pool/p.deb"):
            client = rig.request(path)
            rig.net.pass_time(3)
            self.assertEqual((client.status, client.headers.get("last-modified")), (200, None), path)

    def test_ranges_after_a_mismatch(self) -> None:
        """Who asks for the rest of a file that turned out wrong gets all of the right one."""
        rig = self.start()
        self.number(rig)
        self.index(rig)
        rig.net.pass_time(3)
        right = self.mirror.deb
        self.mirror.put("pool/p.deb", b"PACKAGE 1", 1)
        client = rig.request("pool/p.deb")
        rig.net.pass_time(20)
        self.assertNotEqual(client.body, b"PACKAGE 1")
        self.mirror.put("pool/p.deb", right, 1)
        again = rig.request("pool/p.deb", "Range: bytes=4-")
        self.assertEqual((again.status, again.body), (200, right))
