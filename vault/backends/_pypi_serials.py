"""Serials: they only go up, so that they tell a page from an older one, which a mirror that lags behind may have."""

from __future__ import annotations

import re

from vault.artifact import NOTED_URL, Head

SERIAL = "X-PyPI-Last-Serial"
NOTED_SERIAL = "X-Vault-Serial"
"""In the head of the last page that could be read: its serial, of whichever place had it."""

_SERIAL = re.compile(r"[0-9]{1,18}")


def number(serial: str | None) -> int | None:
    """A serial as it is written; None for what is none."""
    return int(serial) if serial and _SERIAL.fullmatch(serial) else None


def not_older(stored: Head, answer: Head) -> bool:
    """False for an answer with a lower serial than the stored page of the same index: a mirror lags behind."""
    known, new = number(stored.get(SERIAL)), number(answer.get(SERIAL))
    return known is None or new is None or new >= known or stored.get(NOTED_URL) != answer.get(NOTED_URL)
