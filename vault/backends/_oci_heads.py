"""The heads that clients get with manifests, blobs and lists, made from what the registry sent."""

from __future__ import annotations

import re

from vault.artifact import Digest, Head
from vault.backends._oci_registry import DIGEST_FIELD, promised_digest
from vault.interfaces import IBody
from vault.outcome import Found, How

_LINK = re.compile(r"""<([^<>\s]*)>((?:[^,"]|"[^"]*")*)""")
"""A member of a Link field (RFC 8288): what it leads to, and its parameters."""

_PARAMETER = re.compile(r""";\s*([^\s=;,"]+)\s*=\s*(?:"([^"]*)"|([^\s;,"]*))""")

# What a registry says of the message, or to the vault alone; the encoding of bytes that have their digest is none.
_NOT_PASSED_ON = (
    "Authentication-Info",
    "Content-Encoding",
    "Docker-Distribution-Api-Version",
    "Docker-RateLimit-Source",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "Vary",
    "WWW-Authenticate",
)


def digest_of(body: IBody) -> Digest | None:
    """The digest of a manifest: the one its registry names, which was checked, else that of its bytes."""
    named = promised_digest(body.head)
    if named is not None:
        return named
    if body.head.get(DIGEST_FIELD) is not None or body.sha256 is None:
        return None
    return Digest("sha256", body.sha256)


def for_manifest(found: Found, digest: Digest | None, media_type: str | None) -> Head:
    """``digest`` is what it was asked by, ``media_type`` what it names itself where its head says nothing of use."""
    digest = digest or digest_of(found.body)
    named = found.body.head.get(DIGEST_FIELD) if digest is None else str(digest)
    changes = _not_passed_on(found)
    changes[DIGEST_FIELD] = named
    if named is not None:
        changes["ETag"] = f'"{named}"'
    if media_type is not None:
        changes["Content-Type"] = media_type
    return found.body.head.with_headers(changes)


def for_blob(found: Found, digest: Digest) -> Head:
    """Whatever the storage says that a registry redirects to, a blob is bytes with a digest."""
    changes = _not_passed_on(found)
    changes.update({"Content-Type": "application/octet-stream", "Content-Disposition": None})
    changes.update({DIGEST_FIELD: str(digest), "ETag": f'"{digest}"'})
    return found.body.head.with_headers(changes)


def for_listing(found: Found) -> Head:
    """The next page's link is made relative; what it is relative to is known where the request is."""
    query = _next_page(found.body.head.get("Link") or "").partition("#")[0].partition("?")[2]
    changes = _not_passed_on(found)
    changes["Link"] = f'<?{query}>; rel="next"' if query else None
    del changes["Content-Encoding"]
    return found.body.head.with_headers(changes)


def _next_page(links: str) -> str:
    """Where a Link field says that a list goes on; empty where it does not."""
    for link in _LINK.finditer(links):
        for name, quoted, plain in _PARAMETER.findall(link[2]):
            if name.lower() == "rel" and "next" in (quoted or plain).lower().split():
                return link[1]
    return ""


def _not_passed_on(found: Found) -> dict[str, str | None]:
    """The fields to leave out; a registry's Warning is passed on as it comes, not again with each copy."""
    names = (*_NOT_PASSED_ON, "Warning") if found.how in (How.HIT, How.STALE) else _NOT_PASSED_ON
    return dict.fromkeys(names)
