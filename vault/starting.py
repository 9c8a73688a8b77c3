"""What comes before all else: what signals do to a vault that is only starting, and the names of passed sockets.

To import everything takes longer than whoever sends signals waits, so nothing that takes long may be imported here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import MutableMapping
from types import FrameType


def take_signals() -> None:
    """Until the service takes them: SIGTERM and SIGINT end the process with status 0, SIGHUP and SIGUSR1 do nothing.

    For the main thread of a process that is going to be a vault.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # neither configuration nor log is open yet


def name_sockets(environ: MutableMapping[str, str]) -> None:
    """Name sockets that were passed to the process without names, as sd_listen_fds_with_names(3) does.

    Twisted, which looks for them when it is imported, finds none without.
    """
    count = environ.get("LISTEN_FDS", "")
    if count.isdecimal() and int(count) and not environ.get("LISTEN_FDNAMES"):
        environ["LISTEN_FDNAMES"] = ":".join(["unknown"] * int(count))


def _end(number: int, frame: FrameType | None) -> None:
    # Not by an exception: whatever is being imported might catch it, or Python tell of it.  Nothing is open yet.
    os._exit(0)
