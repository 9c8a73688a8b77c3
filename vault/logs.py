"""The log as the operator sees it: one line an event, as text or JSON, on one stream.

Text has the form ``2026-11-23T21:00:00+0000 INFO vault.cache: message``, in UTC.  Access log lines are printed as they
are.  Tracebacks appear only where a failure was logged, indented under its line.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from datetime import datetime, timezone
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from constantly import NamedConstant  # type: ignore[import-untyped]  # it has no types
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from vault.web.accesslog import NAMESPACE as ACCESS

LEVELS: dict[str, NamedConstant] = {
    "DEBUG": LogLevel.debug,
    "INFO": LogLevel.info,
    "WARNING": LogLevel.warn,
    "ERROR": LogLevel.error,
    "CRITICAL": LogLevel.critical,
}
_NAMES = {level: name for name, level in LEVELS.items()}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def parse_level(name: str) -> NamedConstant:
    """The level called ``name`` (DEBUG, INFO, WARNING, ERROR or CRITICAL, in any case); ValueError for another name."""
    try:
        return LEVELS[name.upper()]
    except KeyError:
        raise ValueError(f"not a log level: {name!r}; it is one of {', '.join(LEVELS)}") from None


class LogFile(TextIOWrapper):
    """A file that is appended to; it can be opened again after somebody has moved it away."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        super().__init__(self.path.open("ab"), encoding="utf-8")

    def reopen(self) -> None:
        """Go on in the file that has the name now, a new one if there is none; raises OSError and goes on as before."""
        mode = os.fstat(self.fileno()).st_mode
        if not stat.S_ISREG(mode):
            return  # a terminal or a pipe is never moved away
        with contextlib.suppress(OSError):
            self.flush()
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.fchmod(file, stat.S_IMODE(mode))  # whoever read the old one reads this; a daemon's umask is 077
        except FileExistsError:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.dup2(file, self.fileno(), inheritable=False)  # at once: another thread may be writing
        finally:
            os.close(file)


@implementer(ILogObserver)
class LineObserver:
    """Writes events of at least ``level`` to ``stream``, one a line; ``level`` and ``form`` may change at any time."""

    def __init__(self, stream: TextIO, level: str = "INFO", form: str = "text") -> None:
        self._stream = stream
        self._least = parse_level(level)
        self.form = form

    @property
    def level(self) -> str:
        """The name of the lowest level that is written."""
        return _NAMES[self._least]

    @level.setter
    def level(self, name: str) -> None:
        self._least = parse_level(name)

    def reopen(self) -> None:
        """Open the stream again by its name, if it is a file; raises OSError where that cannot be."""
        if isinstance(self._stream, LogFile):
            self._stream.reopen()

    def __call__(self, event: LogEvent) -> None:
        """Write ``event``, if its level is high enough."""
        level = level_of(event)
        if level < self._least:
            return
        if event.get("log_namespace") == ACCESS and "line" in event:
            text = str(event["line"])
        elif self.form == "json":
            text = json_line(event, level)
        else:
            text = text_line(event, level)
        if text:
            self._stream.write(text + "\n")
            self._stream.flush()


def observer(stream: TextIO, level: str = "INFO", form: str = "text") -> LineObserver:
    """The observer for the whole process.

    ``stream`` is the real standard output: Twisted puts a log in the place of ``sys.stdout``.  Raises ValueError for a
    ``level`` that does not exist.
    """
    return LineObserver(stream, level, form)


def level_of(event: LogEvent) -> NamedConstant:
    """The event's level; what Twisted tells about its own doings is DEBUG here, its warnings and failures are not."""
    level: NamedConstant = event.get("log_level") or LogLevel.info
    namespace = str(event.get("log_namespace") or "")
    if level == LogLevel.info and (namespace == "log_legacy" or namespace.split(".")[0] == "twisted"):
        return LogLevel.debug
    return level


def text_line(event: LogEvent, level: NamedConstant) -> str:
    """The event as a line of text, a traceback on indented lines below; control characters as ``\\xHH``."""
    lines = [
        f"{_time(event):%Y-%m-%dT%H:%M:%S%z} {_NAMES[level]} {event.get('log_namespace') or '-'}: {_message(event)}"
    ]
    lines.extend("    " + _escaped(line) for line in _traceback(event).splitlines())
    return "\n".join(lines)


def json_line(event: LogEvent, level: NamedConstant) -> str:
    """The event as one JSON object: time, level, namespace, message and, for a failure, traceback."""
    fields = {
        "time": _time(event).isoformat(timespec="milliseconds"),
        "level": _NAMES[level],
        "namespace": event.get("log_namespace") or "-",
        "message": _message(event),
    }
    traceback = _traceback(event)
    if traceback:
        fields["traceback"] = traceback
    return json.dumps(fields)


def _time(event: LogEvent) -> datetime:
    return datetime.fromtimestamp(event.get("log_time") or 0.0, timezone.utc)


def _message(event: LogEvent) -> str:
    failure = event.get("log_failure")
    message = formatEvent(event)
    if isinstance(failure, Failure) and not message:
        message = failure.getErrorMessage()
    return _escaped(message)


def _traceback(event: LogEvent) -> str:
    failure = event.get("log_failure")
    return failure.getTraceback().rstrip() if isinstance(failure, Failure) else ""


def _escaped(text: str) -> str:
    return _CONTROL.sub(
        lambda match: "".join(f"\\x{byte:02x}" for byte in match[0].encode("utf-8", "surrogatepass")), text
    )
