"""The log as the operator sees it."""

from __future__ import annotations

import json
import os
import sys
from io import StringIO
from pathlib import Path

from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from vault.logs import LineObserver, LogFile, observer
from vault.tap import application_stream


class LogTests(SynchronousTestCase):
    """Lines of text and of JSON."""

    def setUp(self) -> None:
        self.stream = StringIO()

    def logger(self, observer: LineObserver, namespace: str = "vault.cache") -> Logger:
        def at_nine(event: dict[str, object]) -> None:
            event["log_time"] = 1795467600.0

        return Logger(namespace=namespace, observer=LogPublisher(at_nine, observer))

    def test_text(self) -> None:
        """A line has time, level, part and message."""
        self.logger(observer(self.stream)).info("stored {key} ({size} bytes)", key="a/b", size=3)
        self.assertEqual(self.stream.getvalue(), "2026-11-23T21:00:00+0000 INFO vault.cache: stored a/b (3 bytes)\n")

    def test_names(self) -> None:
        """A warning is called WARNING, as in the configuration."""
        self.logger(observer(self.stream)).warn("careful")
        self.assertIn(" WARNING vault.cache: careful\n", self.stream.getvalue())

    def test_json(self) -> None:
        """A JSON line is one object, with nothing before it."""
        self.logger(observer(self.stream, "INFO", "json")).info("stored {key}", key="a\nb")
        self.assertTrue(self.stream.getvalue().startswith("{"))
        self.assertEqual(
            json.loads(self.stream.getvalue()),
            {
                "time": "2026-11-23T21:00:00.000+00:00",
                "level": "INFO",
                "namespace": "vault.cache",
                "message": "stored a\\x0ab",
            },
        )

    def test_level(self) -> None:
        """What is below the level is left out, and the level can be changed."""
        lines = observer(self.stream, "WARNING")
        log = self.logger(lines)
        log.info("one")
        lines.level = "debug"
        log.debug("two")
        self.assertEqual(lines.level, "DEBUG")
        self.assertNotIn("one", self.stream.getvalue())
        self.assertIn("DEBUG vault.cache: two", self.stream.getvalue())

    def test_unknown_level(self) -> None:
        """A level that does not exist is refused."""
        self.assertRaises(ValueError, observer, self.stream, "LOUD")

    def test_no_forgery(self) -> None:
        """A message cannot begin a new line."""
        self.logger(observer(self.stream)).info("got {path}", path="a\n2026-11-23T21:00:00+0000 INFO x: y\x1b\u2028")
        self.assertEqual(self.stream.getvalue().count("\n"), 1)
        self.assertIn("a\\x0a2026", self.stream.getvalue())

    def test_failure(self) -> None:
        """A failure brings its traceback, indented below its line."""
        log = self.logger(observer(self.stream))
        try:
            raise ValueError("broken\nnews")
        except ValueError:
            log.failure("could not {verb}", verb="do")
        first, *rest = self.stream.getvalue().splitlines()
        self.assertIn("CRITICAL vault.cache: could not do", first)
        self.assertTrue(all(line.startswith("    ") for line in rest))
        self.assertIn("ValueError: broken", "".join(rest))

    def test_error_without_traceback(self) -> None:
        """An error that is only told has no traceback."""
        self.logger(observer(self.stream)).error("no {what}", what="luck")
        self.assertEqual(self.stream.getvalue().count("\n"), 1)

    def test_access(self) -> None:
        """Access log lines are printed as they are, in both forms."""
        for form in ("text", "json"):
            lines = LineObserver(self.stream, form=form)  # type: ignore[arg-type]  # of a tuple of str
            self.logger(lines, "vault.access").info("{line}", line='1.2.3.4 - - "{x}"')
        self.assertEqual(self.stream.getvalue(), '1.2.3.4 - - "{x}"\n' * 2)

    def test_twisted(self) -> None:
        """Twisted's chatter is left out at INFO, its warnings are not."""
        lines = observer(self.stream)
        log = self.logger(lines, "twisted.web.http.HTTPChannel")
        log.info("Timing out client")
        self.logger(lines, "log_legacy").info("(TCP Port 1 Closed)")
        log.warn("look")
        self.assertNotIn("Timing", self.stream.getvalue())
        self.assertNotIn("Closed", self.stream.getvalue())
        self.assertIn("look", self.stream.getvalue())

    def test_incomplete_event(self) -> None:
        """An event without time, level or text does no harm."""
        observer(self.stream)({"log_level": LogLevel.info})
        self.assertEqual(self.stream.getvalue(), "1970-01-01T00:00:00+0000 INFO -: \n")


class LogFileTests(SynchronousTestCase):
    """A file that is moved away."""

    def test_reopened(self) -> None:
        """Until it is opened again what is written goes to the old file, then to the new one."""
        path = Path(self.mktemp())
        file = LogFile(path)
        self.addCleanup(file.close)
        lines = observer(file)
        path.chmod(0o644)
        old = path.rename(f"{path}.1")
        self.addCleanup(os.umask, os.umask(0o077))
        for number in (1, 2):
            lines({"log_level": LogLevel.info, "log_format": "line {n}", "n": number})
            lines.reopen()
        self.assertIn("line 1", old.read_text())
        self.assertNotIn("line 2", old.read_text())
        self.assertIn("line 2", path.read_text())
        self.assertEqual(path.stat().st_mode & 0o777, 0o644)  # whoever read the old one reads this

    def test_not_reopened(self) -> None:
        """A file whose name cannot be opened goes on; what is no file is left alone."""
        path = Path(self.mktemp())
        file = LogFile(path)
        self.addCleanup(file.close)
        old = path.rename(f"{path}.1")
        path.mkdir()
        self.assertRaises(IsADirectoryError, file.reopen)
        file.write("still here")
        file.flush()
        self.assertEqual(old.read_text(), "still here")
        observer(StringIO()).reopen()
        with LogFile("/dev/null") as nothing:
            nothing.reopen()

    def test_application(self) -> None:
        """A file run by twistd logs where twistd's options say; run by anything else, to standard output."""
        path = Path(self.mktemp())
        for command in (["-ny", "vault.tac", "-l", str(path)], [f"--logf={path}", "--python=vault.tac"]):
            stream = application_stream(command)
            assert isinstance(stream, LogFile)
            self.assertEqual(stream.path, path.absolute())
            stream.close()
        for command in (["-ny", "vault.tac"], ["-by", "vault.tac"], ["--nonsense"], ["-l", "x"], []):
            self.assertIs(application_stream(command), sys.__stdout__)
        self.assertIs(application_stream(["-y", "vault.tac", "--syslog"]), None)
