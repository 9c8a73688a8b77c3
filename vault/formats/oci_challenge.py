"""What a registry asks for with 401, and what its token server gives (RFC 9110 section 11.6.1; distribution's
"Token Authentication Specification").
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's "token", no secret
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))', re.DOTALL)
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,)|$)")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*)*")

SHORTEST_LIFE = 60
"""Seconds: what ``expires_in`` is where it is absent, and never less."""

LONGEST_LIFE = 10 * 365 * 86400
"""Seconds: what ``expires_in`` is at most."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: ``scheme`` and the names of ``parameters`` are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def read_challenges(value: str) -> list[Challenge]:
    """The challenges of a ``WWW-Authenticate`` value, whose lines were joined by commas.

    A comma parts parameters and challenges alike, and may stand within quotes.  What cannot be read ends the list.
    """
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while True:
        match = _SEPARATOR.match(value, position)
        position = match.end() if match else position
        parameter = _PARAMETER.match(value, position)
        if parameter is not None and found:
            name, quoted, plain = parameter.groups()
            text = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
            found[-1][1].setdefault(name.lower(), text)
            position = parameter.end()
            continue
        scheme = _SCHEME.match(value, position)
        if scheme is None:
            return [Challenge(name, parameters) for name, parameters in found]
        found.append((scheme[1].lower(), {}))
        position = scheme.end()
        if _PARAMETER.match(value, position) is None and (token := _TOKEN68.match(value, position)) is not None:
            position = token.end()  # "Negotiate abcd==": one value without a name


@dataclass(frozen=True, slots=True)
class Grant:
    """A token, and until when (POSIX seconds) it is good."""

    token: str = field(repr=False)
    until: float


def read_grant(body: bytes, now: float) -> Grant:
    """What a token server answered at ``now`` (POSIX seconds); raises ValueError for what gives no token.

    ``issued_at`` may be earlier than ``now``: a token server has a cache too.  One that lies ahead is a clock that is.
    """
    try:
        document = json.loads(body)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
        raise ValueError("it has no token")
    life = document.get("expires_in")
    seconds = min(life, LONGEST_LIFE) if isinstance(life, (int, float)) and life == life else SHORTEST_LIFE
    issued = _time(document.get("issued_at"), now)
    return Grant(token, min(issued, now) + max(seconds, SHORTEST_LIFE))


def _time(text: object, default: float) -> float:
    """POSIX seconds of an RFC 3339 time; fractions finer than Python reads are cut off."""
    if not isinstance(text, str):
        return default
    try:
        stamp = datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", text.strip()).replace("Z", "+00:00"))
    except ValueError:
        try:  # Python 3.10 reads fractions of three and six digits only
            stamp = datetime.fromisoformat(re.sub(r"\.\d+", "", text.strip()).replace("Z", "+00:00"))
        except ValueError:
            return default
    return (stamp if stamp.tzinfo is not None else stamp.replace(tzinfo=timezone.utc)).timestamp()
