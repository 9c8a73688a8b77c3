"""A log in a file, and what becomes of it when the file is moved away."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.functional.case import FunctionalCase
from tests.functional.clients import ask
from tests.functional.vault_process import ROOT, VaultProcess, environment, eventually, twistd


class LogFileTests(FunctionalCase):
    """SIGUSR1 and SIGHUP open the log file again by its name."""

    def start_logging(self, name: str) -> tuple[VaultProcess, Path]:
        """A vault in the foreground whose log is a file of its own."""
        vault = self.new_vault(name)
        log = vault.log_file
        command = ("-n", "--pidfile=", f"--logfile={log}", "artifact-vault", "--config", str(vault.config_file))
        vault = VaultProcess(vault.config_file.parent, vault.config, twistd(*command))
        vault.port = vault.config["http_port"]
        self.look_after(vault)
        vault.start()
        return vault, log

    def test_rotated(self) -> None:
        """What is logged after the signal is in the new file, and in that alone."""
        for number in (signal.SIGUSR1, signal.SIGHUP):
            vault, log = self.start_logging(f"vault-{number}")
            moved = log.rename(log.with_name("moved.log"))
            ask(vault.port, "/o/before")
            eventually(lambda moved=moved: "/o/before" in moved.read_text(), what="the line in the old file")
            vault.signal(number)
            eventually(log.exists, what="a new file")
            ask(vault.port, "/o/after")
            eventually(lambda log=log: "/o/after" in log.read_text(), what="the line in the new file")
            self.assertNotIn("/o/after", moved.read_text())
            self.assertNotIn("/o/before", log.read_text())
            self.assertEqual(vault.terminate(), 0)

    def test_directory_is_gone(self) -> None:
        """Where the name cannot be opened the old file goes on, and says so."""
        vault, log = self.start_logging("vault")
        moved = log.rename(log.with_name("moved.log"))
        log.mkdir()
        vault.signal(signal.SIGUSR1)
        eventually(lambda: "vault.log cannot be opened again: Is a directory" in moved.read_text(), what="a message")
        log.rmdir()
        moved.rename(log)

    def test_terminal(self) -> None:
        """A vault that logs to its standard output is not harmed by the signal."""
        vault = self.start_vault()
        vault.signal(signal.SIGUSR1)
        vault.signal(signal.SIGHUP)
        vault.wait_for_log("was read again")
        self.assertEqual(vault.terminate(), 0)


class ApplicationFileTests(FunctionalCase):
    """``vault.tac`` logs where twistd's options say, as the plugin does."""

    def test_daemon(self) -> None:
        """A daemon of vault.tac logs to the file that is named, or to twistd.log."""
        for name, options in (("named", ("--logfile=named.log",)), ("unnamed", ())):
            vault = self.new_vault(name)
            beside = vault.config_file.parent
            pid = beside / "pid"
            subprocess.run(
                twistd(f"--pidfile={pid}", *options, "-y", str(ROOT / "vault.tac")),
                cwd=beside,
                env=environment(ARTIFACT_VAULT_CONFIG=str(vault.config_file)),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=30,
                check=True,
            )
            self.addCleanup(self.end_daemon, pid)
            log = beside / ("named.log" if options else "twistd.log")
            eventually(lambda log=log: "listening on" in log.read_text(), what="the log")
            self.end_daemon(pid)

    def end_daemon(self, pid: Path) -> None:
        """Stop the daemon and wait until it has ended."""
        if pid.exists():
            subprocess.run(["kill", pid.read_text().strip()], check=False)
            eventually(lambda: not pid.exists(), what="the end of the daemon")
