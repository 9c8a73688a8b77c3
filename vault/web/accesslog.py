"""The access log: one line a request, which no client can forge and in which no password is told.

The text form is Apache's combined format (https://httpd.apache.org/docs/2.4/logs.html#combined) with four fields at the
end: cache result, backend, duration in seconds, and ``aborted`` or ``-``.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import lru_cache

from twisted.logger import Logger

NAMESPACE = "vault.access"
MAX_FIELD = 2048
OFTEN = 128
CLIENT_GONE = 499
"""The status logged where the client left before it was answered, as nginx has it."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Of query parameters whose names contain one of these, or end with the word key, the values are secret.
_SECRET_NAME = re.compile(
    r"token|sig|secret|passw(?:or)?d|credential|(?:api|access)[-_]?key|auth|(?:^|[-_.])key$", re.IGNORECASE
)
# What names and values of query parameters lie between, and what lies there.
_PIECE = re.compile(r"[?&;=]|[^?&;=]+")
_END_OF_VALUE = re.compile(r"[&;#\s]")
# The user and password of a URL, also in the form that APT proxies know: http://HTTPS///user:password@host/.
_USERINFO = re.compile(r"(://|HTTPS///)[^/?#\s]*@", re.IGNORECASE)
_UNSAFE = re.compile(r"[^\x20-\x7e]|[\"\\]")


@dataclass(slots=True)  # frozen, it takes longer to make than to write
class AccessEntry:
    """One request as it is logged; ``time`` is POSIX seconds of its arrival, ``bytes`` those of the body sent.

    Text is what the client sent, one character a byte (latin-1); the log does the escaping.
    """

    time: float
    client: str
    method: str
    target: str
    protocol: str
    status: int
    bytes: int
    referer: str
    user_agent: str
    cache: str
    backend: str
    seconds: float
    aborted: bool


def escape(text: str) -> str:
    r"""At most 2048 characters of ``text``, with control characters, quotes, backslashes and non-ASCII as ``\xHH``."""
    if len(text) > MAX_FIELD:
        text = text[:MAX_FIELD] + "..."
    elif len(text) < OFTEN:
        return _escaped(text)
    return _UNSAFE.sub(_hexadecimal, text)


@lru_cache(256)  # methods, protocols, addresses, programs: mostly the same ones
def _escaped(text: str) -> str:
    return _UNSAFE.sub(_hexadecimal, text)


def _hexadecimal(match: re.Match[str]) -> str:
    encoded = match[0].encode("latin-1" if match[0] <= "\xff" else "utf-8", "replace")
    return "".join(f"\\x{byte:02X}" for byte in encoded)


def redact(target: str, method: str = "") -> str:
    """``target`` without the user and password of a URL in it (or of the authority that a CONNECT names).

    Also without the values of query parameters whose names say that they are secret, as signed URLs have them.  What
    is longer than the log shows may be cut short, but not so that it fits.
    """
    if "@" in target:
        if method == "CONNECT":
            return "***@" + target.rpartition("@")[2]
        target = _USERINFO.sub(r"\1***@", target)
    return target if method == "CONNECT" or "=" not in target else _without_secret_values(target)


def _without_secret_values(text: str) -> str:
    """Read once from left to right, in a time that grows with the length alone: strangers send it."""
    shown: list[str] = []
    size = place = 0
    named = secret = False  # within a parameter's name; within a secret one's
    while size <= MAX_FIELD and (match := _PIECE.match(text, place)) is not None:
        piece, place = match[0], match.end()
        if piece == "=":
            if named and secret:
                piece = "=***"
                end = _END_OF_VALUE.search(text, place)
                place = len(text) if end is None else end.start()
            named = False
        elif piece in "?&;":
            secret = secret and named and piece == "?"  # a question mark may also be a part of the name
            named = True
        elif named and _SECRET_NAME.search(piece) is not None:
            secret = True
        shown.append(piece)
        size += len(piece)
    return "".join(shown)


def text_line(entry: AccessEntry) -> str:
    """The entry in combined format, with the cache result and the duration after it."""
    parts = (entry.method, redact(entry.target, entry.method), entry.protocol)
    asked = " ".join(escape(part) for part in parts if part)
    return (
        f'{_word(entry.client)} - - [{_stamp(int(entry.time))}] "{asked or "-"}" {entry.status} {entry.bytes or "-"} '
        f'"{escape(redact(entry.referer)) or "-"}" "{escape(redact(entry.user_agent)) or "-"}" '
        f"{_word(entry.cache)} {_word(entry.backend)} {entry.seconds:.3f} {'aborted' if entry.aborted else '-'}"
    )


@lru_cache(4)
def _stamp(seconds: int) -> str:
    at = datetime.fromtimestamp(seconds, timezone.utc)
    # strftime would name the month in the language of the process.
    return f"{at:%d}/{_MONTHS[at.month - 1]}/{at:%Y:%H:%M:%S} +0000"


def _word(text: str) -> str:
    return escape(text).replace(" ", "\\x20") or "-"


def json_line(entry: AccessEntry) -> str:
    """The entry as one JSON object, its keys in the order of AccessEntry; text is escaped as in the other form."""
    fields = asdict(entry)
    fields["time"] = datetime.fromtimestamp(entry.time, timezone.utc).isoformat(timespec="milliseconds")
    fields["seconds"] = round(entry.seconds, 3)
    fields["target"] = redact(entry.target, entry.method)
    fields["referer"] = redact(entry.referer)
    fields["user_agent"] = redact(entry.user_agent)
    return json.dumps({key: escape(value) if isinstance(value, str) else value for key, value in fields.items()})


class AccessLog:
    """Writes entries, as ``form`` says, through the logger ``vault.access``: the event's ``line`` is ready to print."""

    def __init__(self, form: str = "text", log: Logger | None = None) -> None:
        self._line = json_line if form == "json" else text_line
        self._log = Logger(namespace=NAMESPACE) if log is None else log

    def write(self, entry: AccessEntry) -> None:
        """Log one request."""
        self._log.info("{line}", line=self._line(entry))
