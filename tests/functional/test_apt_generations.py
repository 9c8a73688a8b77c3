"""No client is shown two generations of a repository mixed, whatever the upstream does at the time."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.functional.apt_case import AptCase
from tests.functional.clients import Reply, ask
from tests.functional.repository import Apt
from tests.functional.test_apt import versions
from tests.functional.vault_process import eventually

MIXED = (b"Hash Sum mismatch", b"unexpected size", b"Mirror sync in progress", b"Err:", b"E:", b"W:", b"Ign:")


class GenerationTests(AptCase):
    """While new generations are published."""

    def _get(self, path: str) -> Reply:
        return ask(self.vault.port, "/apt/dists/test/" + path)

    def _release(self) -> bytes:
        return self._get("Release" if not self.repository.in_release else "InRelease").body

    def _loop(self, seconds: float, publish: Callable[[int], None]) -> list[bytes]:
        """Five clients update for some seconds while ``publish`` makes generations; what went wrong."""
        clients = [self.client(f"client{number}", None, "Acquire::Retries=0") for number in range(5)]
        over = threading.Event()
        wrong: list[bytes] = []

        def work(apt: Apt) -> int:
            rounds = 0
            while not over.is_set():
                if rounds % 3 == 2:
                    apt.forget()
                said = apt.run("update").stdout
                if any(word in said for word in MIXED):
                    wrong.append(said)
                rounds += 1
            return rounds

        with ThreadPoolExecutor(5) as pool:
            loops = [pool.submit(work, apt) for apt in clients]
            end = time.monotonic() + seconds
            number = 0
            while time.monotonic() < end:
                number += 1
                publish(number)
                time.sleep(0.4)
            over.set()
            self.rounds = sum(loop.result(90) for loop in loops)
        self.published = number
        return wrong

    def test_five_clients_with_by_hash(self) -> None:
        """Five clients that update all the time, while generations are published, never see a mismatch."""
        self.serve()
        wrong = self._loop(5.0, self._publish)
        self.assertEqual(wrong, [])
        self.assertGreater(self.published, 2)
        self._ends_with(self.published)

    def test_five_clients_without_by_hash(self) -> None:
        """Nor do they where the repository has its index files by plain names only."""
        self.serve(by_hash=False)
        wrong = self._loop(5.0, self._publish)
        self.assertEqual(wrong, [])
        self._ends_with(self.published)

    def _publish(self, number: int) -> None:
        self.repository.add("hello", f"1.{number}")
        self.repository.publish()

    def _ends_with(self, number: int) -> None:
        time.sleep(1.2)
        apt = self.client("last")

        def newest() -> bool:
            apt.update()
            return f"hello 1.{number}" in versions(apt)

        eventually(newest, 30, "the newest generation at the client")

    def test_unasked(self) -> None:
        """A suite that a client has used comes to new generations without one, also after a reload and a restart."""
        self.serve()
        self.client("first").update()
        backend = self.vault.config["backends"][0]
        self.vault.write_config(backends=[{**backend, "config": {**backend["config"], "refresh_interval": 1}}])
        self.vault.signal(signal.SIGHUP)
        self._publish(1)
        eventually(lambda: self.vault.log().count("serving the generation") == 2, 10, "the one after the reload")
        self.vault.kill()
        self.vault.start()
        self._publish(2)
        self.vault.wait_for_log("serving the generation")
        self.server.stop()
        apt = self.client("second")
        apt.update()
        self.assertIn("hello 1.2", versions(apt))

    def test_stopped_just_after(self) -> None:
        """Whatever ends the vault as soon as a client has updated: what the client uses is known to the next one."""
        self.serve(by_hash=False)
        backend = self.vault.config["backends"][0]
        for number, end in enumerate((signal.SIGHUP, signal.SIGTERM)):
            self.repository.add("hello", f"1.{2 * number + 1}")
            self.repository.publish()
            time.sleep(1.2)
            self.client(f"before{number}").update()
            self.repository.add("hello", f"1.{2 * number + 2}")
            self.vault.write_config(backends=[{**backend, "config": {**backend["config"], "negative_ttl": 5 + number}}])
            self.vault.signal(end)
            self.repository.publish(indexes=False)
            if end == signal.SIGTERM:
                self.vault.wait()
                self.vault.start()
            time.sleep(1.2)
            apt = self.client(f"torn{number}", None, "Acquire::Retries=0")
            apt.update()
            self.assertIn(f"hello 1.{2 * number + 1}", versions(apt))
            self.assertNotIn(f"hello 1.{2 * number + 2}", versions(apt))

    def test_torn_release(self) -> None:
        """While InRelease is new and Packages still old, clients are served the generation before; then the new one."""
        self.serve(by_hash=False)
        apt = self.client()
        apt.update()
        before = self._release()
        self.repository.add("extra")
        self.repository.publish(indexes=False)
        time.sleep(1.2)
        apt.update()
        self.assertEqual(self._release(), before)
        fresh = self.client("fresh")
        fresh.update()
        self.assertEqual(versions(fresh), {"hello 1.0"})
        self.repository.serial -= 1
        self.repository.publish()
        eventually(lambda: self._release() != before, 20, "the new generation")
        apt.update()
        self.assertEqual(versions(apt), {"hello 1.0", "extra 1.0"})

    def test_torn_pair(self) -> None:
        """While Release is new and Release.gpg still old, clients are served the pair before."""
        self.serve(by_hash=False, in_release=False)
        apt = self.client()
        apt.update()
        before = self._release()
        self.repository.add("extra")
        self.repository.publish(gpg=False)
        time.sleep(1.2)
        apt.update()
        self.assertEqual(self._release(), before)
        self.repository.write("Release.gpg", self.keys.detached((self.repository.suite / "Release").read_bytes()))
        eventually(lambda: self._release() != before, 20, "the new pair")
        apt.update()
        self.assertEqual(versions(apt), {"hello 1.0", "extra 1.0"})

    def test_older_release(self) -> None:
        """A mirror that falls back behind what was served is not followed."""
        self.serve()
        now = time.time()
        self.repository.add("extra")
        self.repository.publish(date=now - 50)
        apt = self.client()
        apt.update()
        before = self._release()
        self.repository.publish(date=now - 5000)
        time.sleep(1.2)
        apt.update()
        self.assertEqual(self._release(), before)

    def test_old_by_hash(self) -> None:
        """A client that holds an older InRelease still gets the files it lists, when the upstream has none of them."""
        self.serve()
        old = self.client("old")
        old.update()
        lists = sorted((old.directory / "state/lists").glob("*Packages*"))
        self.repository.add("extra")
        self.repository.publish()
        for file in (self.repository.suite / "main").rglob("by-hash/*/*"):
            file.unlink()
        time.sleep(1.2)
        self._release()
        for file in lists:
            file.unlink()
        self.server.fault = lambda path: 503
        old.run("update", "-o", "Acquire::Retries=0")
        new = self.client("new")
        self.vault.kill()
        self.vault.start()
        new.update()
        self.assertIn("hello 1.0", versions(new))

    def test_spellings(self) -> None:
        """The plain name and every by-hash spelling lead to the same bytes, fetched once; a wrong hash is 404."""
        self.serve()
        release = self._release().decode()
        name = "main/binary-all/Packages.xz"
        sums = {len(line.split()[0]): line.split()[0] for line in release.splitlines() if line.endswith(" " + name)}
        plain = self._get(name)
        self.assertEqual(plain.status, 200)
        directory = name.rpartition("/")[0]
        for spelling, size in (("SHA256", 64), ("MD5Sum", 32)):
            found = self._get(f"{directory}/by-hash/{spelling}/{sums[size]}")
            self.assertEqual((found.status, found.body), (200, plain.body), spelling)
            self.assertEqual(found.headers["last-modified"], plain.headers["last-modified"])
        self.assertEqual(len([one for one in self.server.requests if "binary-all" in one[1]]), 1)
        self.assertEqual(self._get(f"{directory}/by-hash/SHA256/{'0' * 64}").status, 404)
        self.server.fault = lambda path: 503
        self.assertEqual(self._get(f"{directory}/by-hash/SHA256/{'1' * 64}").status, 404)
