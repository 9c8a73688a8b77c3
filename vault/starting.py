"""What signals do to a vault that is only starting: to import everything takes longer than whoever sends them waits.

So nothing that takes long may be imported here.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def take_signals() -> None:
    """Until the service takes them: SIGTERM and SIGINT end the process with status 0, SIGHUP and SIGUSR1 do nothing.

    For the main thread of a process that is going to be a vault.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # neither configuration nor log is open yet


def _end(number: int, frame: FrameType | None) -> None:
    # Not by an exception: whatever is being imported might catch it, or Python tell of it.  Nothing is open yet.
    os._exit(0)
