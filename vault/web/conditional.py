"""Conditional requests of clients (RFC 9110 section 13), answered from a stored head."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vault.artifact import Head
from vault.freshness import parse_date, same_tag, strong_date, strong_tag

# Quoted tags may contain commas; a bare word is what some servers send as their tag and clients send back.
_TAG = re.compile(r'(?:W/)?"[^"]*"|[^\s,"]+')


def evaluate(method: str, headers: Mapping[str, str], head: Head, exact_date: bool = False) -> bool:
    """True where the client has this representation already: the answer is 304 (RFC 9110 section 13.2.2).

    ``headers`` are the request's fields by lower-case name, the lines of each joined.  ``If-None-Match`` decides alone
    where it is present; ``If-Modified-Since`` counts only with a valid date, and is compared with Last-Modified, else
    with Date, else with the time of receipt (RFC 9111 section 4.3.2); where ``exact_date``, with Last-Modified alone,
    which must be the same.
    """
    if method not in ("GET", "HEAD") or not 200 <= head.status < 300:
        return False
    tags = headers.get("if-none-match")
    if tags is not None:
        if tags.strip() == "*":
            return True
        stored = head.etag
        return stored is not None and any(same_tag(tag, stored) for tag in _TAG.findall(tags))
    since = parse_date(headers.get("if-modified-since"))
    if since is None:
        return False
    if exact_date:
        return since == parse_date(head.last_modified)
    for field in (head.last_modified, head.get("Date")):
        if field is not None:
            date = parse_date(field)
            return date is not None and date <= since
    return bool(head.received_at) and head.received_at <= since


def range_applies(headers: Mapping[str, str], head: Head) -> bool:
    """True where ``Range`` may be honoured: there is no ``If-Range``, or it names this very representation.

    RFC 9110 section 13.1.5: a tag is compared strongly; a date must be exactly the stored Last-Modified, and that
    must be a strong validator.
    """
    value = headers.get("if-range")
    if value is None:
        return True
    value = value.strip()
    if value.endswith('"'):
        return value == strong_tag(head)
    date = parse_date(value)
    return date is not None and date == strong_date(head)
