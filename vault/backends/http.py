"""``type: http``: any HTTP server, path for path.

Files on such a server do not change once they are there, by default; what shows that it changes (an HTML page, a
directory listing, ``no-cache``) is rechecked after a minute, and ``ttl`` makes everything be rechecked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zope.interface import implementer

from vault.artifact import Artifact
from vault.backend import Backend
from vault.interfaces import IBackend
from vault.options import Options

VOLATILE_TTL = 60.0


@implementer(IBackend)
@dataclass(frozen=True)
class HTTPBackend(Backend):
    """Paths below ``prefix`` are paths below each of ``upstreams``; ``ttl`` is in seconds."""

    name: str
    prefix: str
    upstreams: tuple[str, ...]
    ttl: float | None = None

    def resolve(self, path: str, headers: Mapping[str, str]) -> Artifact:
        """The file of that path; its query belongs to its name."""
        listing = path.partition("?")[0].rpartition("/")[2] == ""
        return Artifact(
            key=f"{self.name}/{path}",
            urls=tuple(base + path for base in self.upstreams),
            max_age=VOLATILE_TTL if self.ttl is None and listing else self.ttl,
            volatile_max_age=VOLATILE_TTL,
            backend=self.name,
            slash_told=True,
            short=listing,
        )


def make_backend(name: str, options: Options) -> HTTPBackend:
    """Read ``base_url`` or ``base_urls``."""
    return HTTPBackend(name, options.prefix, options.urls("base_url", "base_urls"), options.upstream.ttl)
