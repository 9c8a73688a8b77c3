"""``type: pypi``: a Python package index for pip, uv, poetry and all others that speak the Simple Repository API.

Pages are fetched from the index as they are and made into the forms that clients ask for; their links to files lead
back here.  What a page does not link to cannot be had.

Source: packaging.python.org, specification "Simple repository API" (PEP 503, 592, 629, 658, 691, 700, 714, 740, 792).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urljoin

from distlib.index import DEFAULT_INDEX  # type: ignore[import-untyped]  # distlib has no annotations
from zope.interface import implementer

from vault.backend import Backend
from vault.backends._pypi_files import FileRecipe
from vault.backends._pypi_index import DEEP, SHORT, Index, Page
from vault.backends._pypi_pages import PageRecipe
from vault.errors import Missing, Moved, VaultError
from vault.formats.names import is_name, normalise
from vault.formats.negotiation import choose
from vault.interfaces import IBackend, IRecipe
from vault.options import Options

TTL = 600.0
GONE_TTL = 86400.0


@implementer(IBackend)
@dataclass(frozen=True)
class PyPIBackend(Backend):
    """The routes below ``prefix``: ``simple/<project>/`` and ``<project>/``, and ``files/...``."""

    name: str
    prefix: str
    index: Index

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The indexes, in the order to ask."""
        return self.index.urls

    def resolve(self, path: str, headers: Mapping[str, str]) -> IRecipe:
        """The page or file of a path; double slashes count as one, and the query of a file does not count.

        Raises Moved for a page without its slash, Missing for what can be no project.
        """
        path, _, query = path.partition("?")
        segments = [unquote(segment) for segment in path.split("/") if segment]
        if segments[:1] == ["simple"] and segments[1:2] == ["files"] and len(segments) > 3:
            del segments[0]  # where a client's base had a double slash, which a relative link takes for a level
        if segments[:1] == ["files"] and len(segments) > 1 and not path.endswith("/"):
            return FileRecipe(self.index, tuple(segments[1:]))
        deep = segments[:1] == ["simple"]
        names = segments[1:] if deep else segments
        if len(names) > 1 or not all(map(is_name, names)):
            raise Missing(f"there is neither a project nor a file {'/'.join(segments)}")
        project = normalise(names[0]) if names else None
        if segments and not path.endswith("/"):
            raise Moved(f"{project or 'simple'}/" + (f"?{query}" if query else ""))
        wanted = parse_qs(query).get("format", [None])[0] if query else None
        return PageRecipe(
            Page(self.index, project),
            choose(headers.get("accept"), wanted),
            headers.get("accept-encoding", ""),
            DEEP if deep else SHORT,
            urgent="no-cache" in headers.get("cache-control", "").lower(),
        )

    def refusal(self, status: int, error: VaultError) -> tuple[str, bytes] | None:
        """Problem details (RFC 9457): uv shows them to its users."""
        title = HTTPStatus(status).phrase
        problem = {"title": title, "status": status, "detail": f"{self.name}: {str(error) or title}"}
        return "application/problem+json", json.dumps(problem).encode() + b"\n"


def make_backend(name: str, options: Options) -> PyPIBackend:
    """Read ``index_url`` or ``index_urls``, ``gone_ttl``, ``min_release_age`` and its exceptions, ``public_url``."""
    public_url = options.url("public_url")
    upstream = options.upstream
    index = Index(
        backend=name,
        urls=options.urls("index_url", "index_urls", default=(public_index(),)),
        ttl=TTL if upstream.ttl is None else upstream.ttl,
        gone_ttl=options.seconds("gone_ttl", GONE_TTL),
        negative_ttl=upstream.negative_ttl,
        min_release_age=options.seconds("min_release_age", 0.0),
        exempt=frozenset(options.parsed_items("min_release_age_except", _project, less=True)),
        public_url=None if public_url is None else public_url.rstrip("/") + "/",
    )
    return PyPIBackend(name, options.prefix, index)


def public_index() -> str:
    """The address of the public index: the sibling of the interface that distlib uses."""
    return str(urljoin(DEFAULT_INDEX, "simple/"))


def _project(text: str) -> str:
    if not is_name(text):
        raise ValueError("is not the name of a project; give one such as my-project")
    return normalise(text)
