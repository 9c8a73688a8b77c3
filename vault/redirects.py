"""Redirects: the URL that one leads to, and which of them is not the vault's but the client's to follow."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, urljoin, urlsplit

from vault.errors import BrokenAnswer

REDIRECTS = (301, 302, 303, 307, 308)
"""The statuses whose ``Location`` is followed (RFC 9110 section 15.4)."""


NO_URL = "the upstream redirects to something that is no URL"

# What can be looked up, of all that RFC 3986 section 3.2 allows, and a port, which may be empty.
_PLACE = re.compile(r"(?:\[[^][]+\]|[A-Za-z0-9._-]+)(?::[0-9]*)?")


def target_of(url: str, location: str) -> str:
    """The URL that an answer from ``url`` leads to by its ``Location``; raises BrokenAnswer for what is none."""
    try:
        # Fields are read as Latin-1; a server that puts UTF-8 there means it percent-encoded.
        encoded = quote(location.encode("latin-1"), safe="!#$%&'()*+,/:;=?@[]~")
        target = urlsplit(urljoin(url, encoded))
        _ = target.hostname, target.port
    except ValueError as error:
        raise BrokenAnswer(NO_URL) from error
    if target.scheme not in ("http", "https") or not target.hostname:
        return target.geturl()
    user, at, place = target.netloc.rpartition("@")
    if _PLACE.fullmatch(place) is None:
        raise BrokenAnswer(NO_URL)
    # RFC 3986 section 6.2.3: an empty port is the scheme's own, and an empty path is "/".
    return target._replace(netloc=f"{user}{at}{place.removesuffix(':')}", path=target.path or "/").geturl()


def adds_slash(asked: str, url: str, location: str) -> bool:
    """True where a redirect from ``url`` to ``location`` only says that the address ``asked`` for ends with a slash.

    The links of such a page are relative to the address with the slash, so the client has to know of it.  Scheme and
    port may be others: servers behind another one, or in a container, put those into Location by which they were
    reached themselves.  So may what led from ``asked`` to ``url``, as long as the path stayed the same.
    """
    try:
        first, here, there = urlsplit(asked), urlsplit(url), urlsplit(target_of(url, location))
    except BrokenAnswer:
        return False
    path = unquote(first.path)
    return (
        there.hostname in (first.hostname, here.hostname)
        and unquote(here.path) == path
        and unquote(there.path) == f"{path}/"
        and there.query in ("", first.query)
    )


def with_slash(asked: str, url: str, location: str) -> tuple[str, str]:
    """What a redirect that adds a slash leads to: a reference relative to what was ``asked`` for, and its query."""
    query = urlsplit(target_of(url, location)).query
    query = f"?{query}" if query else ""
    # The dot is for names with a colon, which would look like a scheme (RFC 3986 section 4.2).
    return f"./{urlsplit(asked).path.rpartition('/')[2]}/{query}", query
