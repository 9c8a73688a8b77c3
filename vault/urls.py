"""What is asked of a URL in more than one place."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from urllib.parse import urlsplit


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL: where credentials may go (RFC 6454).  Raises ValueError for a wrong port."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def plain(url: str) -> str:
    """A URL for a log: without its query, which may be a signature."""
    return url.partition("?")[0]


@lru_cache(256)  # a hit of what has several upstreams asks for those of them all
def mark_of(url: str) -> str:
    """What tells one URL from another, without what is secret in it."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]
