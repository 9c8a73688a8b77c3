"""What a registry's URLs name (OCI distribution specification, "Pulling manifests" and "Pulling blobs").

A repository's name has slashes itself, so that a path is read from its right end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlencode

from vault.artifact import DIGEST_BYTES, Digest
from vault.formats.oci_errors import Malformed, Unknown

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_RESOURCE = re.compile(r"(?s)(?P<name>.+)/(?:(?P<kind>manifests|blobs|referrers)/(?P<reference>[^/]*)|tags/list)")
MAX_NAME = 255

HOST = re.compile(r"localhost|\[[0-9a-fA-F:.]+\](?::\d+)?|[A-Za-z0-9._-]+:\d+|(?:[A-Za-z0-9_-]+\.)+[A-Za-z0-9_-]+")
"""The first component of an image's name is a registry if it is like this, else the registry is Docker Hub."""

DOCKER_HUB = "docker.io"
HUB_ALIASES = frozenset({DOCKER_HUB, "registry-1.docker.io", "index.docker.io", "registry.hub.docker.com"})


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of a repository: ``kind`` is manifests, blobs, referrers or tags.

    ``tag`` or ``digest`` is what is asked for, neither with the list of tags.  ``query`` is that of a list, in a fixed
    order, without ``ns``.
    """

    name: str
    kind: str
    tag: str | None = None
    digest: Digest | None = None
    query: str = ""

    @property
    def reference(self) -> str:
        """The last part of the URL's path."""
        return "list" if self.kind == "tags" else self.tag or str(self.digest)


MAX_QUERY = 2048
"""Characters of the query of a list: its pages are found by whatever parameters a registry has for them."""


def read_path(path: str) -> Resource:
    """What a path ``<name>/manifests/<tag or digest>`` and so on names; percent-encoded, with its query.

    Raises Malformed for a name, a tag or a digest that cannot be one, Unknown for a path of another form.
    """
    raw, _, query = path.partition("?")
    match = _RESOURCE.fullmatch(unquote(raw, errors="replace"))
    if match is None:
        raise Unknown("UNSUPPORTED", "this is no address of a manifest, a blob, a list of tags or of referrers")
    name, kind, reference = match["name"], match["kind"] or "tags", match["reference"]
    if len(name) > MAX_NAME or _NAME.fullmatch(name) is None:
        raise Malformed("NAME_INVALID", f"{name[:80]!r} is not the name of a repository")
    wanted = _query(query) if kind in ("tags", "referrers") else ""
    if kind == "tags":
        return Resource(name, kind, query=wanted)
    if kind == "manifests" and ":" not in reference:
        if _TAG.fullmatch(reference) is None:
            raise Malformed("MANIFEST_INVALID", f"{reference[:80]!r} is neither a tag nor a digest")
        return Resource(name, kind, tag=reference)
    return Resource(name, kind, digest=read_digest(reference), query=wanted)


def _query(text: str) -> str:
    """The query of a list in one spelling; raises Malformed for one that is too long."""
    if len(text) > MAX_QUERY:
        raise Malformed("UNSUPPORTED", f"the query has more than {MAX_QUERY} characters")
    parameters = parse_qsl(text, keep_blank_values=True, errors="replace")
    return urlencode(sorted((key, value) for key, value in parameters if key != "ns"))


def read_digest(text: str) -> Digest:
    """An OCI digest, ``algorithm:hex``; raises Malformed for what is none, or of an algorithm that proves nothing."""
    algorithm = text.partition(":")[0]
    try:
        if algorithm not in ("sha256", "sha384", "sha512"):
            raise ValueError(algorithm)
        if text != text.lower():
            raise ValueError("digests are in lower case")
        return Digest.parse(text)
    except ValueError as error:
        sizes = ", ".join(f"{name}:<{2 * DIGEST_BYTES[name]} hexadecimal digits>" for name in ("sha256", "sha512"))
        raise Malformed("DIGEST_INVALID", f"{text[:80]!r} is not a digest; it is {sizes} in lower case") from error


def namespace_of(text: str) -> str:
    """A registry's name in the one spelling that is compared: in lower case, Docker Hub's host names as docker.io."""
    lowered = text.lower()
    return DOCKER_HUB if lowered in HUB_ALIASES else lowered


def names_registry(segment: str) -> bool:
    """True for a first path segment that is a registry's host, as in the names of images."""
    return HOST.fullmatch(segment) is not None
