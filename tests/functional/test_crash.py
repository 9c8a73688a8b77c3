"""Sudden ends: after kill -9, a stop in mid-fill or damage by hand, each entry is whole or absent."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.functional.case import FunctionalCase
from tests.functional.content import Content, sha256_of_file
from tests.functional.script import MIB, Answer, Record
from tests.functional.vault_process import eventually


class StopTests(FunctionalCase):
    """A fill that was stopped is continued by the next request."""

    def half_filled(self) -> Content:
        """Start a fill of /a that stops in the middle, and wait until the middle has reached a client."""
        content = self.origin.put("/a", 8 * MIB, script=[Answer(stall_after=4 * MIB)])
        self.start_vault(idle_timeout=30)
        self.assertTrue(self.stream("/a").read(4 * MIB) == content.read(0, 4 * MIB))
        time.sleep(0.2)
        return content

    def assert_resumed(self, content: Content) -> None:
        """The body is exact, and only what was missing was fetched."""
        self.assert_whole(self.get("/a"), content)
        resumed: Record = self.origin.requests("/a", "GET")[1]
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", resumed.headers.get("range", "no range"))
        self.assertIsNotNone(match, resumed.headers)
        assert match is not None
        self.assertGreater(int(match.group(1)), 0)
        self.assertEqual(resumed.headers.get("if-range"), '"1"')
        self.assertLess(resumed.sent, content.size)

    def test_kill_in_mid_fill(self) -> None:
        """After kill -9 the next request continues the download where the disk has it."""
        content = self.half_filled()
        self.vault.kill()
        self.assertFalse(self.kept("/a").exists())
        self.vault.start()
        self.assert_resumed(content)

    def test_stop_in_mid_fill(self) -> None:
        """SIGTERM ends a vault in mid-fill in time and with status 0, and the download can be continued."""
        content = self.half_filled()
        began = time.monotonic()
        self.assertEqual(self.vault.terminate(), 0)
        self.assertLess(time.monotonic() - began, 5)
        self.assertFalse(self.kept("/a").exists())
        self.vault.start()
        self.assert_resumed(content)

    def test_stop_while_some_wait(self) -> None:
        """A stop asks for nothing more for those who wait until others have what cannot be stored."""
        self.origin.put("/n", MIB, headers={"Cache-Control": "no-store"}, default=Answer(stall_after=1000))
        self.start_vault(max_connections=4, idle_timeout=30)
        for _ in range(8):
            client = socket.create_connection(("127.0.0.1", self.vault.port))
            self.addCleanup(client.close)
            client.sendall(b"GET /o/n HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: len(self.origin.requests("/n")) == 8, what="a request for each")
        time.sleep(0.2)
        self.assertEqual(self.vault.terminate(), 0)
        self.assertEqual(len(self.origin.requests("/n")), 8)

    def test_interrupt(self) -> None:
        """SIGINT stops it as cleanly."""
        self.start_vault()
        self.vault.signal(signal.SIGINT)
        self.assertEqual(self.vault.wait(), 0)

    def test_object_changed_meanwhile(self) -> None:
        """A partial file of an object that has changed since is not continued but replaced."""
        self.half_filled()
        self.vault.kill()
        new = self.origin.put("/a", content=Content(5, 8 * MIB), etag='"2"')
        self.vault.start()
        self.assert_whole(self.get("/a"), new)
        self.wait_until_kept("/a", new)

    def test_kill_in_mid_refresh(self) -> None:
        """After kill -9 the old copy is whole, and the refresh continues where the disk has the new one."""
        old = self.origin.put("/a", content=Content(5, MIB), etag='"0"')
        self.start_vault(ttl=1, idle_timeout=30)
        self.get("/a")
        self.wait_until_kept("/a", old)
        new = self.origin.put("/a", 8 * MIB, script=[Answer(stall_after=4 * MIB)])
        before = len(self.origin.requests("/a", "GET"))
        time.sleep(1.2)
        self.stream("/a").read(1)
        eventually(lambda: self.origin.requests("/a", "GET")[-1].sent == 4 * MIB, 20, "half of the new copy")
        time.sleep(0.2)
        self.vault.kill()
        self.assertEqual(sha256_of_file(self.kept("/a")), old.sha256())
        self.vault.start()
        self.get("/a")
        self.wait_until_kept("/a", new)
        resumed = self.origin.requests("/a", "GET")[before + 1]
        fields = [resumed.headers.get(name) for name in ("if-none-match", "if-range")]
        self.assertEqual(fields, ['"0"', '"1"'])
        self.assertLess(resumed.sent, new.size)

    def test_entries_survive_a_kill(self) -> None:
        """What was complete before kill -9 is a hit after it."""
        content = self.origin.put("/a", MIB)
        self.start_vault()
        self.get("/a")
        self.wait_until_kept("/a", content)
        time.sleep(0.3)
        self.vault.kill()
        self.vault.start()
        reply = self.get("/a")
        self.assert_whole(reply, content)
        self.assertEqual((reply.cache, reply.headers["etag"]), ("HIT", '"1"'))

    def test_kill_in_a_body_without_length(self) -> None:
        """kill -9 resets whoever is in the middle of a body that only closing ends: it must not look whole."""
        self.origin.put("/a", MIB, default=Answer(framing="close", stall_after=MIB // 2))
        self.origin.put("/b", MIB, default=Answer(framing="chunked", stall_after=MIB // 2))
        self.start_vault(idle_timeout=30)
        for method, what in (
            (self.vault.kill, b"a HTTP/1.1"), (self.vault.terminate, b"a HTTP/1.1"), (self.vault.kill, b"b HTTP/1.0")
        ):  # fmt: skip
            client = socket.create_connection(("127.0.0.1", self.vault.port), timeout=10)
            self.addCleanup(client.close)
            client.sendall(b"GET /o/" + what + b"\r\nHost: a\r\n\r\n")
            got = 0
            while got < MIB // 2:
                got += len(client.recv(65536))
            method()
            with self.assertRaises(ConnectionResetError):
                while client.recv(65536):
                    pass
            self.vault.start()

    def test_kills_at_random_moments(self) -> None:
        """After any number of kills, every file in the cache is whole and every later download exact."""
        moments = random.Random(42)
        paths = [f"/many/{number}" for number in range(20)]
        contents = {
            path: self.origin.put(path, moments.randrange(1, 3 * MIB), default=Answer(rate=6 * MIB)) for path in paths
        }
        self.start_vault()
        for attempt in range(8):
            with ThreadPoolExecutor(4) as pool:
                for path in moments.sample(paths, 8):
                    pool.submit(self.try_to_get, path)
                time.sleep(moments.uniform(0.02, 0.6))
                self.vault.kill()
            for path in paths:
                if self.kept(path).exists():
                    self.assertEqual(sha256_of_file(self.kept(path)), contents[path].sha256(), f"attempt {attempt}")
            self.vault.start()
        for path, content in contents.items():
            self.assert_whole(self.get(path), content)

    def try_to_get(self, path: str) -> None:
        """Ask, and do not mind when the vault dies."""
        with contextlib.suppress(OSError):
            self.get(path)


class StopWhileReadingTests(FunctionalCase):
    """SIGTERM, while a file is read that takes minutes."""

    def read_long(self, **top: Any) -> None:
        """Start a vault on a directory with a large file that it does not know, and ask for it."""
        self.vault = self.new_vault(top=top)
        file = self.kept("/large")
        file.parent.mkdir(parents=True)
        with file.open("wb") as sparse:
            sparse.truncate(256 << 30)
        self.vault.start()
        client = socket.create_connection(("127.0.0.1", self.vault.port), timeout=10)
        self.addCleanup(client.close)
        client.sendall(b"GET /o/large HTTP/1.0\r\n\r\n")
        time.sleep(0.3)

    def test_in_time(self) -> None:
        """It is given up, and the file is left for the next start."""
        self.read_long()
        began = time.monotonic()
        self.assertEqual(self.vault.terminate(), 0)
        self.assertLess(time.monotonic() - began, 5)
        self.assertTrue(self.kept("/large").exists())

    def test_at_once(self) -> None:
        """A second SIGTERM ends the time that the transfers have."""
        self.read_long(shutdown_timeout=60)
        began = time.monotonic()
        self.vault.signal(signal.SIGTERM)
        self.vault.wait_for_log("stopping")
        self.assertEqual(self.vault.terminate(), 0)
        self.assertLess(time.monotonic() - began, 5)


class DamageTests(FunctionalCase):
    """What somebody did to the cache directory is noticed."""

    def setUp(self) -> None:
        super().setUp()
        self.content = self.origin.put("/dir/a", MIB)
        self.start_vault()
        self.get("/dir/a")
        self.wait_until_kept("/dir/a", self.content)
        self.wait_until_stored("/dir/a")

    def assert_refetched(self) -> None:
        """The object comes whole, from the upstream, and is kept again."""
        self.assert_whole(self.get("/dir/a"), self.content)
        self.assertGreater(len(self.origin.requests("/dir/a", "GET")), 1)
        self.wait_until_kept("/dir/a", self.content)

    def test_plain_files(self) -> None:
        """The cache holds plain files under the backend's name."""
        self.assert_file(self.kept("/dir/a"), self.content)

    def test_lost_index(self) -> None:
        """Without its index the cache is read again from its files, and they are hits."""
        self.vault.terminate()
        for index in self.index_files():
            index.unlink()
        self.vault.start()
        self.wait_until_stored("/dir/a")
        reply = self.get("/dir/a")
        self.assert_whole(reply, self.content)
        self.assertEqual(reply.cache, "HIT")
        self.assertEqual(len(self.origin.requests("/dir/a", "GET")), 1)

    def test_damaged_index(self) -> None:
        """An index that is not one any more does not keep the vault from starting."""
        self.vault.kill()
        for index in self.index_files():
            index.write_bytes(b"this is not an index" * 1000)
        self.vault.start()
        self.assert_whole(self.get("/dir/a"), self.content)

    def test_index_damaged_in_use(self) -> None:
        """An index that is overwritten under a running vault is made again, also where that was done at its start."""
        self.vault.terminate()
        (index,) = self.index_files()
        (index.parent / "open").touch()  # as a killed one leaves it
        self.vault.start()
        index.write_bytes(index.read_bytes()[:4096] + b"\xa5" * (index.stat().st_size - 4096))
        self.vault.wait_for_log("damaged while it was in use; it is rebuilt", 30)
        self.vault.wait_for_log("made again from 1 files: 1 taken up")
        self.assert_whole(self.get("/dir/a"), self.content)
        self.assertEqual(len(self.origin.requests("/dir/a", "GET")), 1)
        self.assertEqual(self.vault.terminate(), 0)

    def index_files(self) -> list[Path]:
        """The embedded database and what belongs to it."""
        files = [path for path in self.vault.cache_dir.rglob("*") if path.is_file() and path != self.kept("/dir/a")]
        databases = [path for path in files if path.read_bytes()[:15] == b"SQLite format 3"]
        self.assertNotEqual(databases, [])
        return [path for path in files if any(path.name.startswith(database.name) for database in databases)]

    def test_removed_file(self) -> None:
        """A file that was removed is fetched again."""
        self.kept("/dir/a").unlink()
        self.assert_refetched()

    def test_truncated_file(self) -> None:
        """A file that was shortened is fetched again."""
        with self.kept("/dir/a").open("r+b") as file:
            file.truncate(1000)
        self.assert_refetched()

    def test_truncated_while_stopped(self) -> None:
        """A file that was shortened while no vault ran is fetched again."""
        self.vault.terminate()
        with self.kept("/dir/a").open("r+b") as file:
            file.truncate(1000)
        self.vault.start()
        self.assert_refetched()

    def test_directory_in_place_of_a_file(self) -> None:
        """A directory where a file was does no harm."""
        self.kept("/dir/a").unlink()
        self.kept("/dir/a").mkdir()
        self.assert_whole(self.get("/dir/a"), self.content)
