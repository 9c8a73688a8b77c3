"""A real vault in a process of its own, with a generated configuration, a cache of its own and its log at hand."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
LISTENING = re.compile(r"listening on https?://127\.0\.0\.1:(\d+)")
START_TIMEOUT = 20.0  # seconds
PORTS = random.SystemRandom()  # processes that run beside each other must not choose alike


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now.

    It is below those that kernels give to connections and to listeners that ask for any (32768 and more on Linux), so
    that nothing takes it before it is used, nor while a server is started again.
    """
    while True:
        port = PORTS.choice(range(10_000, 30_000))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def twistd(*arguments: str) -> list[str]:
    """The command line of twistd in this Python's environment."""
    beside = Path(sys.executable).with_name("twistd")
    command = (
        [str(beside)] if beside.exists() else [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    )
    return [*command, *arguments]


def command_line(*arguments: str) -> list[str]:
    """The ``artifact-vault`` command, installed or not."""
    beside = Path(sys.executable).with_name("artifact-vault")
    if beside.exists():
        return [str(beside), *arguments]
    return [sys.executable, "-c", "import sys; from vault.cli import main; sys.exit(main())", *arguments]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with the source tree importable, no proxies, and ``changes``."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **changes}


def eventually(fact: Callable[[], object], timeout: float = 10.0, what: str = "what was expected") -> None:
    """Wait until ``fact()`` is true; raises AssertionError after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not fact():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come about in {timeout} s")
        time.sleep(0.02)


class VaultProcess:
    """A vault under ``directory``: ``config.yml``, ``cache`` and ``vault.log`` are in it.

    ``config`` has the configuration's top-level keys; address, port and cache directory are filled in.  ``command``
    replaces the twistd command line.
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        command: Sequence[str] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.config_file = directory / "config.yml"
        self.log_file = directory / "vault.log"
        self.config = {
            "http_host": "127.0.0.1",
            "http_port": self.port,
            "cache_dir": str(directory / "cache"),
            "shutdown_timeout": 1,
            **config,
        }
        self.cache_dir = Path(self.config["cache_dir"])
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command or twistd("-n", "--pidfile=", "artifact-vault", "--config", str(self.config_file))
        self._variables = dict(variables or {})
        self._log_start = 0
        self.write_config()

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def write_config(self, **changes: Any) -> None:
        """Write the configuration file again, with some top-level keys changed."""
        self.config.update(changes)
        self.config_file.write_text(yaml.safe_dump(self.config, sort_keys=False))

    def launch(self, pass_fds: Sequence[int] = ()) -> None:
        """Start the process, with these descriptors too, and return at once."""
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=environment(**self._variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
            )

    def start(self) -> None:
        """Start the process and wait until it says that it listens."""
        self.launch()
        eventually(lambda: self._listens() or self.exited(), START_TIMEOUT, "a listening vault")
        if not self._listens():
            raise AssertionError(f"the vault did not start:\n{self.log()}")

    def log(self) -> str:
        """What it has logged since it was last started."""
        with self.log_file.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def whole_log(self) -> str:
        """What it has logged since it was first started."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait_for_log(self, pattern: str, timeout: float = 10.0) -> None:
        """Wait until a line since the last start matches the regular expression ``pattern``."""
        eventually(lambda: re.search(pattern, self.log()), timeout, f"a log line like {pattern!r}")

    def exited(self) -> bool:
        """True when the process has ended."""
        assert self.process is not None
        return self.process.poll() is not None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout: float = 15.0) -> int:
        """Its exit status, once it has ended."""
        assert self.process is not None
        return self.process.wait(timeout)

    def terminate(self) -> int:
        """Stop it as an operator would and return its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Stop it as a power cut would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def end(self) -> None:
        """Make sure that it has ended: politely first."""
        if self.process is None or self.exited():
            return
        try:
            self.terminate()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the vault did not stop after SIGTERM") from None

    def rss(self) -> int:
        """Its resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert match is not None
        return int(match.group(1)) * 1024

    def _listens(self) -> bool:
        return LISTENING.search(self.log()) is not None
