"""Manifests and indexes: their media types, what tells them from junk, and what else they need to be of use."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vault.artifact import Digest

MAX_MANIFEST = 4 * 1024 * 1024
"""Bytes: no client takes a larger manifest."""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OTHERS = (
    "application/vnd.oci.artifact.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
)
MEDIA_TYPES = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)
KNOWN = frozenset(MEDIA_TYPES + OTHERS)

EMPTY = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
"""The digest of what the empty descriptor of the image specification stands for, which is ``{}``."""

MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
"""A media type without parameters (RFC 6838 section 4.2)."""

ACCEPT = ", ".join(MEDIA_TYPES) + ", */*;q=0.1"
"""What the vault accepts: everything a modern client does, so that a tag has one digest for all of them."""

_UNWANTED = re.compile(r";[ \t]*q[ \t]*=[ \t]*0(?:\.0*)?[ \t]*(?:;|$)", re.IGNORECASE)


def plain_type(value: str | None) -> str:
    """A media type in lower case, without parameters."""
    return (value or "").partition(";")[0].strip().lower()


def accepted(accept: str | None) -> frozenset[str] | None:
    """The manifest types that a client's Accept (its lines joined) names; None where it takes any.

    A client that names no manifest type at all, such as a browser, gets what there is.
    """
    types = {plain_type(element) for element in (accept or "*/*").split(",") if not _UNWANTED.search(element)}
    if types & {"*/*", "application/*"}:
        return None
    return frozenset(types & KNOWN) or None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest needs: ``blobs`` all of them; of ``children`` (an index has them) one with all that it needs."""

    media_type: str
    blobs: tuple[str, ...] = ()
    children: tuple[str, ...] = ()


def is_page(content_type: str | None) -> bool:
    """True for a web page: a login, a notice, or whatever else answers 200 in place of a registry."""
    return plain_type(content_type) in ("text/html", "application/xhtml+xml")


def fault_of_tag(data: bytes | None, content_type: str | None, proved: bool) -> str | None:
    """What is wrong with an answer that cannot be a tag's manifest; None where nothing is.

    A tag's manifest is a JSON object that shows itself to be one: by what is in it, by its type, or since it was
    ``proved`` by a digest that came with it.  ``data`` is None where only the head has come.
    """
    document = None if is_page(content_type) else _object(data)
    if document is None:
        return "a web page" if is_page(content_type) else "something that is no JSON object in place of a manifest"
    if data is None or proved or plain_type(content_type).startswith("application/vnd."):
        return None
    return None if "schemaVersion" in document or "mediaType" in document else "a JSON object that is no manifest"


def fault_of_list(data: bytes | None, content_type: str | None, member: str) -> str | None:
    """The same for a list: a JSON object with this member, which Go's programs write as null where it is empty."""
    document = None if is_page(content_type) else _object(data)
    if document is None:
        return "a web page" if is_page(content_type) else "something that is no JSON object in place of a list"
    if data is None or len(data) > MAX_MANIFEST or isinstance(document.get(member, ""), (list, type(None))):
        return None
    return f"a JSON object without a list of {member}"


def _object(data: bytes | None) -> dict[str, Any] | None:
    """The JSON object that some data is; of one too large to be read only the beginning is looked at."""
    if data is None or len(data) > MAX_MANIFEST:
        return {} if data is None or data.lstrip()[:1] == b"{" else None
    try:
        document = json.loads(data, parse_int=_integer)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _integer(digits: str) -> int:
    """A number in a document; which one it is does not matter where it has more digits than Python reads."""
    return int(digits[:100])


def read_manifest(data: bytes) -> Manifest:
    """Read a manifest; one in an unknown form needs nothing.  Raises ValueError for what is no JSON object."""
    document = _object(data)
    if document is None:
        raise ValueError("a manifest is a JSON object")
    media_type = document.get("mediaType")
    children = tuple(_children(document))
    blobs = tuple(dict.fromkeys(_blobs(document)))
    if not isinstance(media_type, str):
        media_type = OCI_INDEX if isinstance(document.get("manifests"), list) else OCI_MANIFEST
        if document.get("schemaVersion") == 1:
            media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    return Manifest(plain_type(media_type), blobs, children)


def signed_payload(data: bytes) -> bytes:
    """What the digest of Docker's old signed manifest (schema 1, "prettyjws") is of: the document without signatures.

    Raises ValueError for what is no such document.
    """
    try:
        (protected, *others) = {signature["protected"] for signature in json.loads(data)["signatures"]}
        form = json.loads(_unpacked(protected))
        length = int(form["formatLength"])
        tail = _unpacked(form["formatTail"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is no signed manifest") from error
    if others or not 0 <= length <= len(data):
        raise ValueError("its signatures are not of one document")
    return data[:length] + tail


def _unpacked(text: str) -> bytes:
    """Base64 for URLs without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _list(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = document.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _blobs(document: dict[str, Any]) -> Iterator[str]:
    config = document.get("config")
    for part in [config, *_list(document, "layers"), *_list(document, "blobs")]:
        if isinstance(part, dict) and isinstance(part.get("digest"), str) and not _needs_nothing(part):
            yield part["digest"]
    for part in _list(document, "fsLayers"):
        if isinstance(part.get("blobSum"), str):
            yield part["blobSum"]


def _needs_nothing(part: dict[str, Any]) -> bool:
    """True for a descriptor of what no registry is asked for.

    Layers with URLs of their own are fetched from there, past any registry; what the manifest itself has ("data") is
    read there, and what the empty descriptor stands for is known.
    """
    return bool(part.get("urls")) or part["digest"] == EMPTY or _is_inline(part)


def _is_inline(part: dict[str, Any]) -> bool:
    data = part.get("data")
    if not isinstance(data, str):
        return False
    try:
        digest = Digest.parse(part["digest"])
        content = digest.new()
        content.update(base64.b64decode(data, validate=True))
    except ValueError:
        return False
    return content.hexdigest() == digest.value


def _children(document: dict[str, Any]) -> Iterator[str]:
    for part in _list(document, "manifests"):
        platform = part.get("platform")
        # What only tells of another manifest (an attestation) is no image by itself.
        unknown = isinstance(platform, dict) and platform.get("os") == "unknown"
        if isinstance(part.get("digest"), str) and not unknown:
            yield part["digest"]
