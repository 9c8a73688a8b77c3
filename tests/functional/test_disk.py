"""Disks that are small, full or gone, and memory that stays bounded."""

from __future__ import annotations

import selectors
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.functional.case import FunctionalCase
from tests.functional.clients import ask, together
from tests.functional.script import MIB, Answer
from tests.functional.vault_process import eventually


class SmallDiskTests(FunctionalCase):
    """A cache on a disk of 16 MiB."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = self.directory / "disk"
        self.disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "artifact-vault-test", str(self.disk)]
        if not sys.platform.startswith("linux") or shutil.which("mount") is None:
            raise SkipTest("a tmpfs cannot be mounted here")
        mounted = subprocess.run(mount, capture_output=True, timeout=10, check=False)
        if mounted.returncode != 0:
            raise SkipTest(f"a tmpfs cannot be mounted: {mounted.stderr.decode().strip()}")
        self.addCleanup(self.unmount)

    def unmount(self) -> None:
        """Lazily, so that a file that is still open is no obstacle."""
        subprocess.run(["umount", "-l", str(self.disk)], capture_output=True, timeout=10, check=True)

    def fill_the_disk(self) -> None:
        """To the last byte."""
        with (self.disk / "ballast").open("wb", buffering=0) as ballast:
            for size in (65536, 4096, 1):
                try:
                    while ballast.write(bytes(size)):
                        pass
                except OSError:
                    pass

    def wait_until_ready(self) -> None:
        """The vault says that it is well."""
        eventually(lambda: ask(self.vault.port, "/readyz").status == 200, 20, "a vault that is ready")

    def test_what_never_fits(self) -> None:
        """What is larger than the disk is passed through, and costs no entry its place."""
        contents = [self.origin.put(f"/{number}", MIB) for number in range(6)]
        large = self.origin.put("/large", 17 * MIB)
        self.start_vault(top={"cache_dir": str(self.disk / "cache"), "cache": {"min_free": "1MiB"}})
        for number in range(6):
            self.get(f"/{number}")
            self.wait_until_kept(f"/{number}", contents[number])
        reply = self.get("/large")
        self.assert_whole(reply, large)
        self.assertEqual(reply.cache, "BYPASS")
        for number in range(6):
            self.assertEqual(self.get(f"/{number}").cache, "HIT")

    def test_start_on_a_full_disk(self) -> None:
        """A vault whose disk was filled while it was stopped starts; what was not used for longest makes room."""
        contents = [self.origin.put(f"/{number}", MIB) for number in range(10)]
        self.start_vault(top={"cache_dir": str(self.disk / "cache"), "cache": {"min_free": "1MiB"}})
        for number in range(10):
            self.get(f"/{number}")
            self.wait_until_kept(f"/{number}", contents[number])
        self.assertEqual(self.vault.terminate(), 0)
        self.fill_the_disk()
        self.vault.start()
        self.assert_whole(self.get("/0"), contents[0])
        self.assertEqual(self.get("/9").cache, "HIT")
        self.wait_until_ready()

    def test_first_start_on_a_full_disk(self) -> None:
        """Where there is nothing to make room by either, clients are served, and things are kept when there is room."""
        content = self.origin.put("/a", MIB)
        self.fill_the_disk()
        self.start_vault(top={"cache_dir": str(self.disk / "cache")})
        self.assert_whole(self.get("/a"), content)
        ready = ask(self.vault.port, "/readyz")
        self.assertEqual(ready.status, 503)
        self.assertRegex(ready.body, rb"(?i)space|full|room")
        (self.disk / "ballast").unlink()
        self.wait_until_ready()
        other = self.origin.put("/b", MIB)
        self.assert_whole(self.get("/b"), other)
        self.wait_until_kept("/b", other)
        self.assertEqual(self.vault.terminate(), 0)

    def test_object_larger_than_the_disk(self) -> None:
        """An object that does not fit is delivered whole to everyone; later ones that fit are cached again."""
        big = self.origin.put("/big.iso", 48 * MIB)
        small = self.origin.put("/small", MIB)
        self.start_vault(top={"cache_dir": str(self.disk / "cache")})
        files = [self.directory / f"copy{number}" for number in range(3)]
        done = together(3, lambda number: self.curl("/big.iso", "-o", str(files[number])))
        self.assertEqual([client.returncode for client in done], [0, 0, 0], [client.stderr for client in done])
        for file in files:
            self.assert_file(file, big)
        self.assertFalse(self.kept("/big.iso").exists())
        self.assert_whole(self.get("/small"), small)
        self.wait_until_kept("/small", small)

    def test_disk_filled_by_somebody_else(self) -> None:
        """On a full disk downloads pass through and /readyz says so; when there is room again they are kept."""
        first = self.origin.put("/first", 2 * MIB)
        second = self.origin.put("/second", 2 * MIB)
        self.start_vault(top={"cache_dir": str(self.disk / "cache")})
        self.fill_the_disk()
        self.assert_whole(self.get("/first"), first)
        ready = ask(self.vault.port, "/readyz")
        self.assertEqual(ready.status, 503)
        self.assertRegex(ready.body, rb"(?i)space|full|room|disk")
        self.assertRegex(self.vault.log(), r"(?i)no space|full|no room")
        (self.disk / "ballast").unlink()
        eventually(lambda: ask(self.vault.port, "/readyz").status == 200, 20, "a vault that is ready again")
        self.assert_whole(self.get("/second"), second)
        self.wait_until_stored("/second")

    def test_disk_that_fills_up_in_the_middle(self) -> None:
        """When the disk fills up during a download, its clients still get all of it."""
        content = self.origin.put("/a", 12 * MIB, script=[Answer(rate=8 * MIB)])
        self.start_vault(top={"cache_dir": str(self.disk / "cache")})
        streams = [self.stream("/a") for _ in range(3)]
        for stream in streams:
            self.assertTrue(stream.read(MIB) == content.read(0, MIB))
        (self.disk / "ballast").write_bytes(bytes(8 * MIB))
        replies = together(3, lambda number: streams[number].drain())
        for body, whole in replies:
            self.assertTrue(whole, "a client was cut")
            self.assertTrue(body == content.read(MIB, content.size), "the body differs")


class EvictionTests(FunctionalCase):
    """A cache with a maximum size."""

    def test_least_recently_used_goes(self) -> None:
        """When the cache is full, what was not used for longest goes first."""
        self.start_vault(top={"cache": {"max_size": "4500KiB"}})
        for name in ("/a", "/b", "/c", "/d"):
            self.origin.put(name, MIB)
            self.get(name)
            self.wait_until_stored(name)
            time.sleep(0.05)
        self.get("/a")
        self.origin.put("/e", MIB)
        self.get("/e")
        eventually(lambda: not self.kept("/b").exists(), 15, "the eviction of /b")
        self.wait_until_stored("/e")
        self.assertTrue(self.kept("/a").exists())
        eventually(lambda: self.size_of_cache() <= 4500 * 1024, 15, "a cache within its size")

    def size_of_cache(self) -> int:
        """The bytes that the entries take."""
        return sum(file.stat().st_size for file in (self.vault.cache_dir / "o").rglob("*") if file.is_file())

    def test_never_one_being_read(self) -> None:
        """An entry that a client is reading stays, however old it is."""
        # More than what the kernel buffers between the two: else the vault is done before the client is.
        content = self.origin.put("/old", 96 * MIB)
        self.start_vault(top={"cache": {"max_size": "100MiB"}})
        self.get("/old")
        self.wait_until_stored("/old")
        reader = self.stream("/old")
        reader.read(1000)
        for number in range(8):
            self.origin.put(f"/{number}", 2 * MIB)
            self.get(f"/{number}")
        time.sleep(1)
        self.assertTrue(self.kept("/old").exists())
        self.assertTrue(reader.rest() == content.read(1000, content.size))


class LostDirectoryTests(FunctionalCase):
    """The cache directory goes away under a running vault."""

    def test_removed_while_running(self) -> None:
        """Clients are served all the same, and things are kept again."""
        contents = {name: self.origin.put(name, MIB) for name in ("/a", "/b", "/c")}
        self.start_vault()
        self.get("/a")
        self.wait_until_stored("/a")
        shutil.rmtree(self.vault.cache_dir)
        for name, content in contents.items():
            self.assert_whole(self.get(name), content)
        self.wait_until_kept("/c", contents["/c"])
        self.assertEqual(self.get("/c").cache, "HIT")

    def test_removed_during_a_download(self) -> None:
        """A download in progress is not cut when the directory goes."""
        content = self.origin.put("/a", 4 * MIB, default=Answer(rate=4 * MIB))
        self.start_vault()
        stream = self.stream("/a")
        head = stream.read(MIB)
        shutil.rmtree(self.vault.cache_dir)
        self.assertTrue(head + stream.rest() == content.whole())


class MemoryTests(FunctionalCase):
    """Memory does not depend on the size of objects or the number of readers."""

    def test_two_hundred_slow_readers(self) -> None:
        """200 clients that read a growing 512 MiB object slowly cost less than 100 MB, and the fill is not held up."""
        if not Path("/proc/self/status").exists():
            raise SkipTest("there is no /proc to read memory sizes from")
        content = self.origin.put("/big", 512 * MIB, default=Answer(rate=160 * MIB))
        self.origin.put("/warm", MIB)
        self.start_vault()
        self.assertEqual(self.get("/warm").status, 200)
        before, peak = self.vault.rss(), 0
        with SlowReaders(self.vault.port, "/o/big", 200) as readers:
            end = time.monotonic() + 30
            while time.monotonic() < end:
                readers.read_a_little()
                peak = max(peak, self.vault.rss())
                if self.origin.requests("/big")[0].sent == content.size:
                    break
            self.assertGreater(readers.least(), 100_000)
        self.assertEqual(self.origin.requests("/big")[0].sent, content.size)
        self.assertEqual(len(self.origin.requests("/big")), 1)
        self.assertLess(peak - before, 100_000_000)


class SlowReaders:
    """Clients that take 16 KiB each, about ten times a second."""

    def __init__(self, port: int, target: str, count: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._read: dict[socket.socket, int] = {}
        for _ in range(count):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.connect(("127.0.0.1", port))
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: vault\r\n\r\n".encode())
            sock.setblocking(False)
            self._read[sock] = 0
            self._selector.register(sock, selectors.EVENT_READ)

    def __enter__(self) -> SlowReaders:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for sock in self._read:
            sock.close()

    def read_a_little(self) -> None:
        """One round."""
        for key, _ in self._selector.select(0.1):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            received = sock.recv(16384)
            if not received:
                raise AssertionError("a slow reader was cut")
            self._read[sock] += len(received)
        time.sleep(0.1)

    def least(self) -> int:
        """What the slowest of them has got, in bytes."""
        return min(self._read.values())
