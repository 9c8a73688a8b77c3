"""RFC 9111 as pure functions of a head, an artifact and the time: what is stored, for how long, how it is confirmed.

Times are POSIX seconds, durations are seconds.  Nothing here raises for what an upstream sends: a field that cannot be
read counts as absent, and a directive that cannot be read counts as its strictest form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import lru_cache

from vault.artifact import GONE, PRIVATE_NOTE, TAKEN_UP, Artifact, Head, Headers

FRAMING = frozenset({"content-length", "transfer-encoding"})
HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
# About the upstream's own origin or its cookies, which must not speak for the vault's; X-Cache is ours to set.
PRIVATE_TO_UPSTREAM = frozenset(
    {
        "alt-svc",
        "public-key-pins",
        "public-key-pins-report-only",
        "set-cookie",
        "set-cookie2",
        "strict-transport-security",
        "x-cache",
    }
)
# The stored body decides these, not a later 304 (RFC 9111 section 3.2).  The ETag is kept too: a 304 matches it weakly,
# so taking its spelling could turn a strong validator into a weak one, or promise more than was ever compared.
KEPT_BY_304 = FRAMING | HOP_BY_HOP | {"content-encoding", "content-range", "content-type", "etag"}

# An RFC 9111 delta-seconds that does not fit, or comes of an absurd date, is this many seconds (section 1.2.2): what
# those who read it with 32 bits can still take.
MAX_SECONDS = 2**31 - 1
# How far two clocks may differ: a date is only called strong across clocks when it is older by more than that.
CLOCK_MARGIN = 60

_DIRECTIVE = re.compile(r'([^\s,;="]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^\s,;"]*)))?')
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
LONGEST_DATE = 40
USUAL = 256
"""Longer values of Cache-Control are not remembered: whoever sends them may send many."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES = tuple(
    re.compile(pattern, re.ASCII | re.IGNORECASE)
    for pattern in (
        rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<day>\d\d) (?P<month>[a-z]{{3}}) (?P<year>\d{{4}}) {_TIME} GMT",
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>\d\d)-(?P<month>[a-z]{{3}})-(?P<year>\d\d) {_TIME} GMT",
        rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?P<month>[a-z]{{3}}) (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)


def parse_date(value: str | None) -> int | None:
    """The POSIX seconds of an HTTP-date in one of the three forms of RFC 9110 section 5.6.7; None for anything else."""
    text = (value or "").strip()
    return _date(text) if len(text) <= LONGEST_DATE else None


@lru_cache(256)
def _date(text: str) -> int | None:
    match = next(filter(None, (form.fullmatch(text) for form in _DATES)), None)
    if match is None or match["month"].lower() not in _MONTHS:
        return None
    year, second = int(match["year"]), int(match["second"])
    if len(match["year"]) == 2:
        year += 1900 if year >= 70 else 2000  # a fixed window, so that the answer does not depend on today
    leap = second == 60
    try:
        month = _MONTHS.index(match["month"].lower()) + 1
        clock = (int(match["hour"]), int(match["minute"]), second - leap)
        return int(datetime(year, month, int(match["day"]), *clock, tzinfo=timezone.utc).timestamp()) + leap
    except ValueError:
        return None


def _delta(value: str | None) -> int | None:
    """Delta-seconds (RFC 9111 section 1.2.2), capped; None where it is not one."""
    text = (value or "").strip()
    if not text.isascii() or not text.isdigit():
        return None
    digits = text.lstrip("0")
    return min(int(digits or "0"), MAX_SECONDS) if len(digits) <= 10 else MAX_SECONDS


def only_if_cached(directives: Mapping[str, str | None]) -> float | None:
    """Of a request: how many seconds past its expiry a stored copy will do, where nothing else may be done to answer.

    None where the upstream may be asked.  RFC 9111 sections 5.2.1.7 and 5.2.1.2.
    """
    if "only-if-cached" not in directives:
        return None
    most = directives.get("max-stale", "0")
    return math.inf if most is None else float(_delta(most) or 0)


def cache_control(head: Head) -> Mapping[str, str | None]:
    """The directives of ``Cache-Control``: lower-case name to argument without quotes, None where there is none.

    Of repeated directives the first counts (RFC 9111 section 4.2.1), but a bare ``private`` or ``no-cache`` is not
    weakened by one that is limited to some fields.
    """
    return directives_of(head.get("Cache-Control") or "")


def directives_of(value: str) -> Mapping[str, str | None]:
    """``cache_control`` of a field's value."""
    return _directives(value) if len(value) <= USUAL else _directives.__wrapped__(value)


@lru_cache(256)
def _directives(value: str) -> Mapping[str, str | None]:
    found: dict[str, str | None] = {}
    for match in _DIRECTIVE.finditer(value):
        name, quoted, token = match[1].lower(), match[2], match[3]
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
        if name not in found:
            found[name] = value
        elif name in ("private", "no-cache") and not value:
            found[name] = None
    return found


def _unlimited(directives: Mapping[str, str | None], name: str) -> bool:
    """True where the directive is there and concerns the whole answer, not only the fields it names."""
    return name in directives and not directives[name]


def storable(head: Head) -> bool:
    """True where the answer may be kept (RFC 9111 section 3): 200 or 203, and not no-store, private or ``Vary: *``."""
    directives = cache_control(head)
    if head.status not in (200, 203) or "no-store" in directives or _unlimited(directives, "private"):
        return False
    return all(member.strip() != "*" for member in (head.get("Vary") or "").split(","))


@lru_cache(256)  # it is asked twice for each hit
def volatile(head: Head) -> bool:
    """True where the answer itself shows that it changes: ``no-cache``, a lifetime of 0, or a page for browsers."""
    directives = cache_control(head)
    lifetimes = [directives[name] for name in ("max-age", "s-maxage") if name in directives]
    if _unlimited(directives, "no-cache") or any(not _delta(value) for value in lifetimes):
        return True
    if not lifetimes and _expired_at_once(head):
        return True
    media_type = (head.get("Content-Type") or "").partition(";")[0].strip().lower()
    return media_type in ("text/html", "application/xhtml+xml")


def _expired_at_once(head: Head) -> bool:
    """True where ``Expires`` is not after ``Date``, or is no date, such as ``0`` (RFC 9111 section 5.3)."""
    expires = head.get("Expires")
    if expires is None:
        return False
    end, sent = parse_date(expires), parse_date(head.get("Date"))
    return end is None or end <= (head.received_at if sent is None else sent)


def unconfirmed(head: Head, artifact: Artifact) -> bool:
    """True where the head was made from a file alone, and only what its upstream says of it tells whether it changes.

    What has a digest that is known before is what it must be, whatever the upstream says.
    """
    if head.received_at or artifact.volatile_max_age is None or artifact.digest is not None:
        return False
    return head.get(TAKEN_UP) is not None


def keepable(head: Head, artifact: Artifact) -> bool:
    """True where what has this head may be stored as that artifact."""
    return (artifact.kept_anyway and head.status in (200, 203)) or storable(head)


def lifetime(head: Head, artifact: Artifact) -> float | None:
    """For how long after its last validation a stored copy is fresh, in seconds; None means for ever."""
    if artifact.max_age is not None:
        return artifact.max_age
    if unconfirmed(head, artifact):
        return 0.0
    if artifact.volatile_max_age is not None and volatile(head):
        return artifact.volatile_max_age
    return None


def age(head: Head, now: float) -> float:
    """The current_age of RFC 9111 section 4.2.3 in seconds: the time since the origin made or confirmed the answer.

    Of what is known by its file alone it is not known: it is counted from when the file was found.
    """
    taken_up = None if head.received_at else head.get(TAKEN_UP)
    if taken_up is not None:
        return min(max(0.0, now - float(taken_up)), MAX_SECONDS)
    date = parse_date(head.get("Date"))
    apparent = head.received_at - date if date is not None else 0.0
    told = _delta((head.get("Age") or "").partition(",")[0]) or 0
    delay = max(0.0, head.received_at - head.requested_at)
    return min(max(0.0, apparent, told + delay) + elapsed(head, now), MAX_SECONDS)


def elapsed(head: Head, now: float) -> float:
    """Seconds since the vault itself received or last validated this; never negative."""
    return max(0.0, now - head.received_at)


def since(then: float, now: float) -> float:
    """Seconds since a time that the vault's own clock gave; infinite where it was set back, so that nobody knows."""
    return math.inf if then > now + CLOCK_MARGIN else max(0.0, now - then)


def fresh(head: Head, artifact: Artifact, now: float) -> bool:
    """True where the stored copy needs no validation: it was received or confirmed within its lifetime."""
    seconds = lifetime(head, artifact)
    return seconds is None or (elapsed(head, now) < seconds and not _ahead(head, now))


def _ahead(head: Head, now: float) -> bool:
    """True where the clock was set back since this was received, so that nobody knows how long ago that was."""
    return since(head.received_at, now) == math.inf


def staleness(head: Head, artifact: Artifact, now: float) -> float:
    """Seconds since the stored copy expired; 0 while it is fresh, infinite where that is not known."""
    seconds = lifetime(head, artifact)
    if seconds is not None and _ahead(head, now):
        return math.inf
    return 0.0 if seconds is None else max(0.0, elapsed(head, now) - seconds)


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


def end_to_end(raw: Iterable[tuple[bytes, Iterable[bytes]]]) -> Headers:
    """The fields of an upstream's answer that may be stored and passed on.

    RFC 9110 section 7.6.1, RFC 9111 section 3.1.  ``raw`` is what ``getAllRawHeaders`` of Twisted's Headers gives.
    Left out are hop-by-hop fields and those ``Connection`` names, framing, cookies, what only concerns the upstream's
    origin, the fields that ``private`` or ``no-cache`` name, and those whose name is no token: a client may read such a
    line as another field, or refuse the answer.  ``Via`` and ``Cache-Status`` stay.
    """
    # RFC 9110 section 5.5: control characters in a value are replaced by a space.
    lines = [(name.decode("latin-1"), line.decode("latin-1")) for name, values in raw for line in values]
    fields = [(name, _CONTROL.sub(" ", line).strip()) for name, line in lines if _TOKEN.fullmatch(name)]
    all_fields = Head(headers=tuple(fields))
    directives = cache_control(all_fields)
    named = [all_fields.get("Connection"), directives.get("private"), directives.get("no-cache")]
    dropped = FRAMING | HOP_BY_HOP | PRIVATE_TO_UPSTREAM
    dropped |= {member.strip().lower() for value in named if value for member in value.split(",")}
    return tuple(
        (name, value)
        for name, value in fields
        if name.lower() not in dropped and not name.lower().startswith(("proxy-", PRIVATE_NOTE))
    )


def same_tag(first: str, second: str) -> bool:
    """The weak comparison of RFC 9110 section 8.8.3.2; also equates a tag with the one some servers send unquoted."""
    opaque, other = (tag.strip().removeprefix("W/").strip('"') for tag in (first, second))
    return opaque == other


def _tagged(head: Head) -> bool:
    """True where there is an entity tag that can be compared; a malformed one counts as none."""
    return _ENTITY_TAG.fullmatch((head.etag or "").strip()) is not None


def strong_tag(head: Head) -> str | None:
    """The entity tag where it is well-formed and strong (RFC 9110 section 8.8.3)."""
    tag = (head.etag or "").strip()
    return tag if _tagged(head) and not tag.startswith("W/") else None


def strong_date(head: Head) -> int | None:
    """The Last-Modified date, in POSIX seconds, where it is a strong validator (RFC 9110 section 8.8.2.2).

    It is when it is a second or more before the answer's Date; where there is no Date, when it is a minute or more
    before the answer was received, since two clocks are compared then.
    """
    modified = parse_date(head.last_modified)
    date = parse_date(head.get("Date"))
    if modified is None:
        return None
    limit = date - 1 if date is not None else head.received_at - CLOCK_MARGIN
    return modified if modified <= limit else None


def validators(head: Head) -> list[tuple[str, str]]:
    """The request fields that ask whether this is still current (RFC 9111 section 4.3.1); none if it cannot be."""
    asked = []
    if head.etag:
        asked.append(("If-None-Match", head.etag))
    if head.last_modified and parse_date(head.last_modified) is not None:
        asked.append(("If-Modified-Since", head.last_modified))
    return asked


def matches(stored: Head, answer: Head) -> bool:
    """False where a 304 confirms another representation than the stored one: both have entity tags that differ."""
    return not stored.etag or not answer.etag or same_tag(stored.etag, answer.etag)


def freshen(stored: Head, answer: Head) -> Head:
    """The stored head, brought up to date by a 304 (RFC 9111 sections 3.2 and 4.3.4).

    The answer's fields replace the stored ones of the same name, but for those that belong to the stored body.
    """
    updates = tuple((name, value) for name, value in answer.headers if name.lower() not in KEPT_BY_304)
    # Date and Age tell of one message: the old message's, beside the new time of receipt, would give a wrong age.
    replaced = {name.lower() for name, _ in updates} | {"date", "age", GONE.lower(), TAKEN_UP.lower()}
    kept = tuple((name, value) for name, value in stored.headers if name.lower() not in replaced)
    return replace(stored, headers=kept + updates).timed_as(answer)


def resume_validator(head: Head) -> str | None:
    """The ``If-Range`` value under which the rest of this body may be asked for; None where only a restart is safe.

    A date serves only where there is no entity tag at all, not even a weak one (RFC 9110 section 13.1.5).
    """
    if _tagged(head):
        return strong_tag(head)
    return head.last_modified if strong_date(head) is not None else None


def same_representation(old: Head, new: Head) -> bool:
    """True where parts of the two may be put together (RFC 9111 section 3.4): the same strong validator on both."""
    if _tagged(old) or _tagged(new):
        return strong_tag(old) is not None and strong_tag(old) == strong_tag(new)
    modified = strong_date(old)
    return modified is not None and modified == parse_date(new.last_modified)


LONGEST_WAIT = 3600.0
"""Seconds for which an upstream's Retry-After is obeyed at most: it may be a mistake."""


def retry_after(head: Head, now: float) -> float | None:
    """How many seconds to wait by ``Retry-After`` (RFC 9110 section 10.2.3), date or number; None if unknown.

    A date is by the clock of whoever sent it, which the answer's own ``Date`` tells, with its ``Age`` in a cache before
    the vault; ``now`` is only used where it has none.
    """
    value = head.get("Retry-After")
    seconds = _delta(value)
    if seconds is not None:
        return float(min(seconds, LONGEST_WAIT))
    date = parse_date(value)
    if date is None:
        return None
    sent = parse_date(head.get("Date"))
    there = now if sent is None else sent + (_delta(head.get("Age")) or 0)
    return min(max(0.0, date - there), LONGEST_WAIT)
