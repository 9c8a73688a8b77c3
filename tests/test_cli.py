"""The artifact-vault command: what it prints, and with which status it ends."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import vault
from vault.cli import main
from vault.config import built_in

ROOT = Path(vault.__file__).resolve().parent.parent
SAMPLE = str(ROOT / "vault" / "config-sample.yml")
SAMPLE_IS_OK = f"{SAMPLE}: ok, {len(built_in({}).backends)} backends\n"
WRONG = "http_port: x\nlog_level: LOUD\n"


class CommandTests(SynchronousTestCase):
    """Commands that run in the caller's process."""

    def run_main(self, *argv: str) -> tuple[object, str, str]:
        """The exit status and what went to standard output and standard error."""
        out, err = io.StringIO(), io.StringIO()
        status: object
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(argv)
            except SystemExit as ended:
                status = ended.code
        return status, out.getvalue(), err.getvalue()

    def test_version(self) -> None:
        """The version is printed."""
        self.assertEqual(self.run_main("--version"), (0, f"artifact-vault {vault.__version__}\n", ""))

    def test_no_command(self) -> None:
        """Without a command the usage is printed, and that is an error."""
        status, _, err = self.run_main()
        self.assertEqual(status, 2)
        self.assertIn("COMMAND", err)

    def test_wrong_log_level(self) -> None:
        """A log level that there is not is a usage error."""
        status, _, err = self.run_main("serve", "--log-level", "LOUD")
        self.assertEqual(status, 2)
        self.assertIn("DEBUG", err)

    def test_right_configuration(self) -> None:
        """A right configuration is said to be so, with the number of its backends."""
        self.assertEqual(self.run_main("check-config", SAMPLE), (0, SAMPLE_IS_OK, ""))

    def test_wrong_configuration(self) -> None:
        """The mistakes of a wrong configuration go to standard error, one a line."""
        path = Path(self.mktemp())
        path.write_text(WRONG)
        status, out, err = self.run_main("check-config", str(path))
        self.assertEqual((status, out), (1, ""))
        self.assertEqual([line.split(" ")[1] for line in err.splitlines()], ["http_port:", "backends:", "log_level:"])

    def test_missing_configuration(self) -> None:
        """A configuration that cannot be read is an error like any other."""
        status, out, err = self.run_main("check-config", "/nonexistent/vault.yml")
        self.assertEqual((status, out, len(err.splitlines())), (1, "", 1))


class ProcessTests(SynchronousTestCase):
    """Commands in a process of their own, which ends by itself."""

    def run_python(self, *argv: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, *argv], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    def wrong_configuration(self) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_text(WRONG)
        return str(path)

    def test_check_without_reactor(self) -> None:
        """Checking a configuration installs no reactor."""
        code = "import sys, vault.cli as c; c.main(sys.argv[1:]); print('twisted.internet.reactor' in sys.modules)"
        ran = self.run_python("-c", code, "check-config", SAMPLE)
        self.assertEqual((ran.stdout, ran.stderr), (f"{SAMPLE_IS_OK}False\n", ""))

    def test_module_with_command(self) -> None:
        """The module takes the same commands as the script."""
        ran = self.run_python("-m", "vault", "check-config", SAMPLE)
        self.assertEqual((ran.returncode, ran.stdout), (0, SAMPLE_IS_OK))
        self.assertEqual(self.run_python("-m", "vault", "--version").stdout, f"artifact-vault {vault.__version__}\n")

    def test_serve_wrong_configuration(self) -> None:
        """Serving a wrong configuration ends with status 1 and its mistakes, by the module as by the command."""
        path = self.wrong_configuration()
        for command in (["serve", "--config", path], ["--config", path, "--log-level", "debug"]):
            ran = self.run_python("-m", "vault", *command)
            self.assertEqual(ran.returncode, 1, ran)
            self.assertIn(f"{path}:1: http_port: 'x' is not allowed", ran.stderr)
            self.assertIn(f"{path}:2: log_level: 'LOUD' is not allowed", ran.stderr)
            self.assertNotIn("Traceback", ran.stdout + ran.stderr)
