"""What the benchmarks share: a vault, an nginx and an origin, each started in a scratch directory and ended by its id.

Everything listens on 127.0.0.1.  Scratch directories are made under ``$TMPDIR`` and removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.functional.vault_process import ROOT, VaultProcess, eventually, free_port

MB = 1_000_000
PREFIX = "/bench/"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory for one benchmark; nginx's workers may enter it whoever they run as."""
    with tempfile.TemporaryDirectory(prefix="vault-bench-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def settle() -> None:
    """Let the disk finish what earlier rounds wrote, so that they do not slow down the next."""
    os.sync()


class Vault:
    """A vault with an empty cache in front of ``origin``, a URL without a slash at the end."""

    name = "vault"

    def __init__(self, directory: Path, origin: str, **backend: Any) -> None:
        self._directory = directory / "vault"
        self._directory.mkdir()
        config = {"prefix": PREFIX, "base_url": origin + "/", **backend}
        self._process = VaultProcess(
            self._directory, {"cache": {"min_free": 1}, "backends": [{"type": "http", "name": "b", "config": config}]}
        )
        try:
            self._process.start()
        except AssertionError:
            self._process.end()
            raise
        self.port = self._process.port

    def path(self, name: str) -> str:
        """The request path of the origin's ``/name``."""
        return PREFIX + name

    def wait_stored(self, name: str) -> None:
        """Wait until the object is in its place."""
        self._process.wait_for_log(f"stored b/{name} ", timeout=120)

    def pids(self) -> list[int]:
        """The processes that serve."""
        return [self._process.pid]

    def end(self) -> None:
        """Stop it and remove its cache."""
        self._process.end()
        shutil.rmtree(self._directory)


class Nginx:
    """An nginx whose one server has the directives ``server``; ``http`` go outside of it."""

    name = "nginx"

    def __init__(self, directory: Path, name: str, server: str, http: str = "") -> None:
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            raise SystemExit("nginx is not installed: on Debian, apt-get install nginx-light")
        self._directory = directory / name
        self._directory.mkdir()
        self.port = free_port()
        temporary = "".join(
            f"{kind}_temp_path {self._directory}/{kind};" for kind in ("client_body", "fastcgi", "uwsgi", "scgi")
        )
        # Debian's own settings where they touch the speed; worker_processes as there, one for each core.
        text = f"""
            {"user root;" if os.geteuid() == 0 else ""}
            worker_processes auto; pid {self._directory}/nginx.pid; error_log {self._directory}/error.log;
            events {{ worker_connections 1024; }}
            http {{
                access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
                {temporary} {http}
                server {{ listen 127.0.0.1:{self.port} backlog=511; {server} }}
            }}
        """
        config = self._directory / "nginx.conf"
        config.write_text(text)
        self._process = subprocess.Popen(
            [program, "-p", str(self._directory), "-e", str(self._directory / "error.log"), "-c", str(config),
             "-g", "daemon off;"],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            eventually((self._directory / "nginx.pid").exists, what="nginx")
            time.sleep(0.2)
        except AssertionError:
            self.end()
            raise

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def path(self, name: str) -> str:
        """The request path of the origin's ``/name``."""
        return "/" + name

    def wait_stored(self, name: str) -> None:
        """nginx places an object before it ends the response."""

    def pids(self) -> list[int]:
        """Its workers."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def end(self) -> None:
        """Stop it and remove its files."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._directory)


def static_origin(directory: Path, root: Path) -> Nginx:
    """An nginx that serves the files of ``root``."""
    return Nginx(directory, "origin", f"root {root};")


def caching_nginx(directory: Path, origin: str) -> Nginx:
    """An nginx with ``proxy_cache`` in front of ``origin``; who asks for what is being fetched waits for it."""
    cache = directory / "nginx" / "cache"
    return Nginx(
        directory,
        "nginx",
        f"""
            location / {{
                proxy_pass {origin}; proxy_http_version 1.1; proxy_set_header Connection "";
                proxy_cache bench; proxy_cache_valid 200 1d; proxy_max_temp_file_size 4096m;
                proxy_cache_lock on; proxy_cache_lock_timeout 300s; proxy_cache_lock_age 300s;
            }}
        """,
        f"""
            proxy_cache_path {cache} levels=1:2 keys_zone=bench:10m max_size=20g use_temp_path=off;
            proxy_temp_path {directory}/nginx/proxy;
        """,
    )


class PacedOrigin:
    """``tests.benchmarks.paced_origin`` in a process of its own: ``size`` bytes of ``file``, repeated as need be."""

    def __init__(self, directory: Path, file: Path, size: int, rate: int) -> None:
        self.size = size
        self.port = free_port()
        self._log = directory / "origin.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.paced_origin", str(self.port), str(file), str(size),
                 str(rate)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
            )  # fmt: skip
        eventually(lambda: "listening" in self._log.read_text(), what="the origin")

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def gets(self, name: str) -> list[float]:
        """For each GET of ``/name``, when its response's head was sent, in seconds of the system's monotonic clock."""
        whole = self._log.read_text().rpartition("\n")[0]  # its last line may just be being written
        lines = [line.split() for line in whole.splitlines() if line.startswith("GET ")]
        return [float(at) for _, path, at in lines if path == "/" + name]

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.wait()


def clients(
    port: int, path: str, content: Path, size: int, count: int, processes: int
) -> list[subprocess.Popen[bytes]]:
    """Start ``count`` simultaneous clients in ``processes`` processes; ``results`` waits for them."""
    shares = [count // processes + (index < count % processes) for index in range(processes)]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.clients", str(port), path, str(content), str(size), str(share)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )
        for share in shares if share
    ]  # fmt: skip


def results(started: Sequence[subprocess.Popen[bytes]], timeout: float = 300) -> list[dict[str, Any]]:
    """What each client saw: ``exact``, and on the monotonic clock ``asked``, ``head``, ``first`` byte, ``done``."""
    found: list[dict[str, Any]] = []
    for process in started:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        found += json.loads(output)
    return found


def download(port: int, path: str) -> float:
    """Bytes a second of one download by curl, its output thrown away; SystemExit where it fails."""
    command = ["curl", "-sSf", "-o", "/dev/null", "-w", "%{speed_download}", f"http://127.0.0.1:{port}{path}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"curl failed: {done.stderr.strip()}")
    return float(done.stdout)


def rss(pids: Sequence[int]) -> int:
    """The resident memory of processes (RSS), in bytes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)
