"""Where the parts meet: twistd's options, and a service made of what the configuration names."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from getopt import GetoptError, getopt
from typing import Any, TextIO

from twisted.python import usage
from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]  # what its own run() takes

from vault.config import Config, built_in, load
from vault.errors import ConfigError
from vault.levels import LOG_LEVELS
from vault.logs import LogFile
from vault.service import VaultService


class Options(usage.Options):
    """The command line of ``twistd artifact-vault``."""

    synopsis = "[--config FILE] [--log-level LEVEL]"
    optParameters = [
        ["config", "c", None, "The configuration file; by default the built-in sample."],
        ["log-level", "l", None, f"One of {', '.join(LOG_LEVELS)}; by default what the configuration says."],
    ]

    def opt_version(self) -> None:
        """Print the version and exit."""
        from vault import __version__

        sys.__stdout__ and sys.__stdout__.write(f"artifact-vault {__version__}\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Refuse a level that does not exist."""
        level = self["log-level"]
        if level is not None and level.upper() not in LOG_LEVELS:
            raise usage.UsageError(f"--log-level {level}: it is one of {', '.join(LOG_LEVELS)}")


def read_config(file: str | None) -> Config:
    """The configuration in ``file``, or the built-in one; raises ConfigError."""
    return built_in(os.environ) if file is None else load(file, os.environ)


def log_stream(twistd: Any) -> TextIO | None:
    """Where twistd's own options say that the log goes; None for syslog, which has observers of its own."""
    if twistd.get("syslog") or twistd.get("logger"):
        return None
    name = twistd.get("logfile") or ("-" if twistd.get("nodaemon") else "twistd.log")
    if name == "-":
        return sys.__stdout__ or sys.stdout
    return LogFile(name)


def application_stream(arguments: Sequence[str]) -> TextIO | None:
    """The same for a file that twistd runs by ``-y``, from twistd's ``arguments``: nothing tells it the options.

    It is standard output where they are those of another program.
    """
    known = ServerOptions()
    try:
        found, _ = getopt(list(arguments), known.shortOpt, known.longOpt)
    except GetoptError:
        found = []
    given = {known.synonyms[name.lstrip("-")]: value or True for name, value in found}
    if "python" not in given:
        return sys.__stdout__
    return log_stream({**given, "nodaemon": "nodaemon" in given or "debug" in given})


def make_service(
    file: str | None, log_level: str | None = None, stream: TextIO | None = sys.__stdout__
) -> VaultService:
    """The service for a configuration; a wrong one is told on standard error, and ends the process with status 1."""
    try:
        config = read_config(file)
    except ConfigError as error:
        (sys.__stderr__ or sys.stderr).write(f"{error}\n")
        raise SystemExit(1) from None
    from twisted.internet import reactor

    return VaultService(config, lambda: read_config(file), reactor, log_level, stream)


def makeService(options: Any) -> VaultService:
    """What twistd's plugin calls."""
    return make_service(options["config"], options["log-level"], log_stream(options.parent or {}))
