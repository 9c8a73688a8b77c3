"""Real download tools, on objects that are absent, arriving and cached."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from tests.functional.case import FunctionalCase
from tests.functional.content import Content
from tests.functional.script import MIB, Answer

SIZE = 6 * MIB + 11


class ClientTests(FunctionalCase):
    """Each tool ends with exactly the upstream's bytes."""

    def in_each_state(self, download: Callable[[str, Path, Content], None]) -> None:
        """Download a cold object, one whose first third has arrived, and a cached one."""
        self.start_vault(idle_timeout=20)
        for state in ("cold", "growing", "cached"):
            path = f"/{state}.iso"
            release = threading.Event()
            script = [Answer(stall_after=SIZE // 3, release=release)] if state == "growing" else []
            content = self.origin.put(path, SIZE, script=script)
            if state == "growing":
                self.stream(path).read(SIZE // 4)
                threading.Timer(0.5, release.set).start()
            elif state == "cached":
                self.get(path)
                self.wait_until_stored(path)
            download(path, self.directory / f"{state}.iso", content)
            self.assert_file(self.directory / f"{state}.iso", content)

    def leave_first_part(self, target: Path, content: Content) -> None:
        """What an earlier, interrupted download left: the first megabyte."""
        target.write_bytes(content.read(0, MIB))

    def test_curl(self) -> None:
        """curl downloads."""

        def download(path: str, target: Path, content: Content) -> None:
            done = self.curl(path, "-f", "-o", str(target))
            self.assertEqual(done.returncode, 0, done.stderr)

        self.in_each_state(download)

    def test_curl_continues(self) -> None:
        """curl -C - continues an interrupted download."""

        def download(path: str, target: Path, content: Content) -> None:
            self.leave_first_part(target, content)
            done = self.curl(path, "-f", "-C", "-", "-o", str(target))
            self.assertEqual(done.returncode, 0, done.stderr)

        self.in_each_state(download)

    def test_wget(self) -> None:
        """wget downloads."""

        def download(path: str, target: Path, content: Content) -> None:
            done = self.run_client("wget", "-nv", "-t", "1", "-O", str(target), f"{self.vault.url}/o{path}")
            self.assertEqual(done.returncode, 0, done.stderr)

        self.in_each_state(download)

    def test_wget_continues(self) -> None:
        """wget -c continues an interrupted download, and once more finds it complete."""

        def download(path: str, target: Path, content: Content) -> None:
            self.leave_first_part(target, content)
            for _ in range(2):
                done = self.run_client("wget", "-c", "-nv", "-t", "1", f"{self.vault.url}/o{path}")
                self.assertEqual(done.returncode, 0, done.stderr)

        self.in_each_state(download)

    def test_aria2_with_four_connections(self) -> None:
        """aria2 downloads over four connections from a single fill."""

        def download(path: str, target: Path, content: Content) -> None:
            options = ("--no-conf", "-q", "-x4", "-s4", "--min-split-size=1M", "--max-tries=1")
            checksum = f"--checksum=sha-256={content.sha256()}"
            done = self.run_client("aria2c", *options, checksum, "-o", target.name, f"{self.vault.url}/o{path}")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

        self.in_each_state(download)
        for state in ("cold", "growing", "cached"):
            whole = [record for record in self.origin.requests(f"/{state}.iso", "GET") if "range" not in record.headers]
            self.assertEqual(len(whole), 1, state)
