"""The ``artifact-vault`` command: runs the daemon, or checks a configuration without running anything."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from vault import __version__
from vault.levels import LOG_LEVELS
from vault.starting import name_sockets, take_signals


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in ``argv`` (by default that of the process) and return its exit status.

    Raises SystemExit for a usage error or after ``--help`` and ``--version``, as argparse does.
    """
    arguments = _parser().parse_args(argv)
    if arguments.command == "check-config":
        return check_config(arguments.file)
    return serve(arguments.config, arguments.log_level)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="artifact-vault", description="A read-through cache for binary artifacts.")
    parser.add_argument("--version", action="version", version=f"artifact-vault {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command = commands.add_parser("serve", help="run the vault in the foreground until SIGTERM or SIGINT")
    command.add_argument("--config", metavar="FILE", help="the configuration; by default the built-in sample")
    command.add_argument(
        "--log-level",
        metavar="LEVEL",
        type=str.upper,
        choices=LOG_LEVELS,
        help=f"{', '.join(LOG_LEVELS)}; by default what the configuration says",
    )
    command = commands.add_parser("check-config", help="say whether a configuration is right, and what is wrong")
    command.add_argument("file", metavar="FILE", help="the configuration")
    return parser


def check_config(file: str) -> int:
    """Print whether ``file`` is a right configuration; its mistakes go to standard error, one a line."""
    from vault.config import load
    from vault.errors import ConfigError

    try:
        config = load(file, os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    count = len(config.backends)
    print(f"{file}: ok, {count} {'backend' if count == 1 else 'backends'}")
    return 0


def serve(config: str | None, log_level: str | None) -> int:
    """Run the daemon in this process, as ``twistd -n artifact-vault`` does, until it is stopped."""
    take_signals()
    name_sockets(os.environ)
    # Imported here, after that: it takes a while, and the other commands do without.
    from twisted.scripts import twistd

    command = ["artifact-vault", "--nodaemon", "--pidfile=", "artifact-vault"]
    if config is not None:
        command.append(f"--config={config}")
    if log_level is not None:
        command.append(f"--log-level={log_level}")
    sys.argv[:] = command  # twistd reads its command line from nowhere else
    run: Callable[[], None] = twistd.run
    run()
    return 0
