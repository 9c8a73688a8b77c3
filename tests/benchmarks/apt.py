"""apt through a warm vault beside apt-cacher-ng, two debootstraps on a cold one, and a Packages of 60,000 entries.

Needs apt, apt-utils, dpkg, gnupg, debootstrap and apt-cacher-ng; everything is on 127.0.0.1.
"""

from __future__ import annotations

import http.client
import lzma
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.common import scratch
from tests.functional.file_server import FileServer
from tests.functional.repository import Apt, Keys, Repository
from tests.functional.test_apt_more import debootstrap
from tests.functional.vault_process import VaultProcess, eventually, free_port

PACKAGES = 50
ROUNDS = 9
ENTRIES = 60_000


@contextmanager
def vault(directory: Path, upstream: str, name: str = "vault") -> Iterator[VaultProcess]:
    """A vault with an empty cache."""
    (directory / name).mkdir()
    config = {"prefix": "/apt/", "mirror_url": upstream + "/"}
    process = VaultProcess(
        directory / name, {"cache": {"min_free": 1}, "backends": [{"type": "apt", "config": config}]}
    )
    process.start()
    try:
        yield process
    finally:
        process.end()


@contextmanager
def apt_cacher_ng(directory: Path) -> Iterator[str]:
    """An apt-cacher-ng with an empty cache; its URL."""
    program = shutil.which("apt-cacher-ng", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise SystemExit("apt-cacher-ng is not installed: on Debian, apt-get install apt-cacher-ng")
    port, home = free_port(), directory / "acng"
    for part in ("cache", "log", "conf"):
        (home / part).mkdir(parents=True)
    settings = [f"CacheDir: {home}/cache", f"LogDir: {home}/log", f"Port: {port}", "BindAddress: 127.0.0.1"]
    settings += ["AllowUserPorts: 0", "SupportDir: /usr/lib/apt-cacher-ng", "ReportPage: report.html", "ForeGround: 1"]
    (home / "conf/acng.conf").write_text("\n".join([*settings, f"SocketPath: {home}/socket", ""]))
    process = subprocess.Popen(
        [program, "-c", str(home / "conf")], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def listens() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status > 0
        except OSError:
            return False
        finally:
            connection.close()

    try:
        eventually(listens, 20, "apt-cacher-ng")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def client_round(apt: Apt, names: list[str]) -> tuple[float, float]:
    """Seconds for an update from nothing, and for the packages."""
    apt.forget()
    began = time.monotonic()
    apt.update()
    updated = time.monotonic()
    if len(apt.download(*names)) != len(names):
        raise SystemExit("packages are missing")
    return updated - began, time.monotonic() - updated


def beside_apt_cacher_ng(directory: Path, keys: Keys) -> None:
    """Update and 50 packages, warm, by turns."""
    repository = Repository(directory / "repository", keys)
    names = [f"package{number}" for number in range(PACKAGES)]
    for name in names:
        repository.add(name, "1.0", os.urandom(200_000))
    repository.publish()
    server = FileServer(repository.root, free_port())
    with vault(directory, server.url) as process, apt_cacher_ng(directory) as other:
        source = f"deb [signed-by={keys.public}] {server.url}/ test main\n"
        clients = {
            "vault": Apt(directory / "a", source, f"Acquire::http::Proxy={process.url}"),
            "apt-cacher-ng": Apt(directory / "b", source, f"Acquire::http::Proxy={other}"),
        }
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
        for name, apt in clients.items():
            print(f"  {name}: cold {sum(client_round(apt, names)):.2f} s")
        for _ in range(ROUNDS):
            for name, apt in clients.items():
                rounds[name].append(client_round(apt, names))
        times = {name: statistics.median(map(sum, measured)) for name, measured in rounds.items()}
        for name, measured in rounds.items():
            update, download = (statistics.median(part) for part in zip(*measured, strict=True))
            print(f"  {name}: warm, medians: {times[name]:.2f} s, {update:.2f} of it update, {download:.2f} packages")
        ratio = times["vault"] / times["apt-cacher-ng"]
        print(f"  vault / apt-cacher-ng: {ratio:.2f} (1 or less is wanted)")
    server.stop()


def two_debootstraps(directory: Path, keys: Keys) -> None:
    """On a cold vault, counted at the origin."""
    repository = Repository(directory / "system", keys)
    for number in range(20):
        repository.add(f"system{number}", "1.0", os.urandom(500_000))
    repository.publish()
    server = FileServer(repository.root)
    with vault(directory, server.url, "cold") as process:

        def work(number: int) -> None:
            (directory / f"system{number}").mkdir()
            done = debootstrap(directory / f"system{number}", keys.public, process.url + "/apt/")
            if done.returncode:
                raise SystemExit(done.stdout.decode())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sent = [path for method, path, status in server.requests if method == "GET" and status in (200, 206)]
        took = time.monotonic() - began
        print(f"  {len(sent)} files, {len(sent) - len(set(sent))} of them twice, in {took:.1f} s (0 twice is wanted)")
    server.stop()


class LargeRepository(Repository):
    """Packages of many packages that are not there."""

    def indexes(self) -> dict[str, bytes]:
        """One large file."""
        stanza = "Package: p{0}\nVersion: 1.{0}\nArchitecture: all\nDepends: {1}\nDescription: {1}\n"
        stanza += "Filename: pool/main/p/p{0}/p{0}_1.{0}_all.deb\nSize: {0}\nMD5sum: {0:032x}\nSHA256: {0:064x}\n\n"
        filler = "something that looks like a real stanza, " * 8
        text = "".join(stanza.format(number, filler) for number in range(ENTRIES)).encode()
        print(f"  Packages: {len(text) / 1e6:.0f} MB")
        return {"main/binary-all/Packages": text, "main/binary-all/Packages.xz": lzma.compress(text, preset=0)}


def large_packages(directory: Path, keys: Keys) -> None:
    """The longest answer of /healthz while a large Packages is read."""
    repository = LargeRepository(directory / "large", keys)
    repository.publish()
    server = FileServer(repository.root)
    with vault(directory, server.url, "reader") as process:
        slowest, over = [0.0], threading.Event()

        def poll() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)
            while not over.is_set():
                began = time.monotonic()
                connection.request("GET", "/healthz")
                connection.getresponse().read()
                slowest.append(time.monotonic() - began)
                time.sleep(0.005)

        before = process.rss()
        connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=60)
        connection.request("GET", "/apt/dists/test/InRelease")
        connection.getresponse().read()
        thread = threading.Thread(target=poll)
        thread.start()
        time.sleep(1)
        quiet = max(slowest)
        connection.request("GET", "/apt/dists/test/main/binary-all/Packages.xz")
        size = len(connection.getresponse().read())
        began = time.monotonic()
        connection.request("GET", "/apt/pool/main/p/p77/p77_1.77_all.deb")
        connection.getresponse().read()
        print(f"  a package that was asked for meanwhile was answered after {time.monotonic() - began:.2f} s")
        peak, end = before, time.monotonic() + 30
        while time.monotonic() < end and not list(process.cache_dir.rglob("*-files")):
            peak = max(peak, process.rss())
            time.sleep(0.02)
        print(f"  it was read in {time.monotonic() - began:.1f} s")
        over.set()
        thread.join()
        worst = sorted(slowest)[-3:]
        print(f"  Packages.xz of {size / 1e6:.1f} MB: longest stall {1000 * worst[-1]:.0f} ms (below 50 is wanted),")
        print(f"  the next {1000 * worst[-2]:.0f} ms; before that {1000 * quiet:.0f} ms; {len(slowest)} polls")
        print(f"  RSS {before / 1e6:.0f} MB before, {peak / 1e6:.0f} MB at most, {process.rss() / 1e6:.0f} MB after")
    server.stop()


def main() -> None:
    """All three."""
    parts = (beside_apt_cacher_ng, two_debootstraps, large_packages)
    for part in [part for part in parts if part.__name__ in sys.argv[1:]] or parts:
        print(f"{part.__name__.replace('_', ' ')}: {(part.__doc__ or '').strip()}")
        with scratch() as directory:
            keys = Keys(directory)
            try:
                part(directory, keys)
            finally:
                keys.close()


if __name__ == "__main__":
    main()
