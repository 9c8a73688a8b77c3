"""RootResource: which resource a request target belongs to.

Targets are matched raw, as they were sent: Twisted's own ``postpath`` is percent-decoded, and decoding twice is how
paths that were refused come back.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from vault.errors import BadRequest
from vault.paths import normalise
from vault.urls import origin_of
from vault.web.errors import Fields, Form, respond
from vault.web.health import Healthz, Readyz
from vault.web.limits import client_ip
from vault.web.registry import Registries, RegistryResource, ShortAnswer
from vault.web.request import VaultRequest
from vault.web.resource import ArtifactResource


class Refusal(Resource):
    """A short plain answer for whatever is asked."""

    isLeaf = True

    def __init__(self, status: int, text: str) -> None:
        super().__init__()
        self._status = status
        self._text = text

    def render(self, request: VaultRequest) -> int:
        """Answer."""
        respond(request, self._status, self._text)
        return NOT_DONE_YET


class WithSlash(Resource):
    """What a prefix without its slash is: a redirect to ``location`` for who reads; nothing can be sent there."""

    isLeaf = True

    def __init__(self, prefix: str, location: str) -> None:
        super().__init__()
        self._prefix = prefix
        self._location = location

    def render_GET(self, request: VaultRequest) -> int:
        """Answer; other methods than GET and HEAD are refused by ``Resource``."""
        request.setHeader(b"Location", self._location.encode("ascii"))
        respond(request, 301, f"The address is {self._prefix}")
        return NOT_DONE_YET


class Welcome(Resource):
    """``/``: one line that tells what there is."""

    isLeaf = True

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def render_GET(self, request: VaultRequest) -> int:
        """Answer; other methods than GET and HEAD are refused by ``Resource``."""
        respond(request, 200, self._text)
        return NOT_DONE_YET


class UsageInformation(Resource):
    """What apt-cacher-ng answers for ``/``, by which auto-apt-proxy knows that a proxy for APT is here."""

    isLeaf = True

    def render(self, request: VaultRequest) -> int:
        """Answer."""
        body = b"406 Usage Information: this is a proxy for APT.\n"
        request.setResponseCode(406, b"Usage Information")
        request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
        request.finish()
        return NOT_DONE_YET


class RootResource(Resource):
    """The tree: prefixes to backends, longest first; the pages for machines; targets in absolute form."""

    def __init__(
        self, artifacts: Sequence[ArtifactResource], problems: Callable[[], list[str]], metrics: IResource | None = None
    ) -> None:
        super().__init__()
        self._artifacts = sorted(artifacts, key=lambda artifact: -len(artifact.backend.prefix))
        self._registries = Registries([one for one in artifacts if isinstance(one, RegistryResource)])
        self._pages: dict[str, IResource] = {"/healthz": Healthz(), "/readyz": Readyz(problems)}
        if metrics is not None:
            self._pages["/metrics"] = metrics

    def getChildWithDefault(self, path: bytes, request: Any) -> IResource:
        """The leaf that answers ``request``, whatever its decoded path says."""
        absolute = request.absolute_form()
        try:
            if absolute is None:
                if request.uri == b"/" and from_apt(request):
                    return UsageInformation()
                return self._local(request.uri)
            scheme, authority, raw = absolute
            if scheme == "http" and authority.upper() == "HTTPS" and raw.startswith("///"):
                # How apt asks a proxy for what lies behind https: http://HTTPS///host/path
                authority, slash, rest = raw[3:].partition("/")
                scheme, raw = "https", slash + rest or "/"
            if scheme == "http" and is_self(authority, request):
                return self._local(raw.encode("utf-8", "surrogateescape"))
            return self._proxied(scheme, authority, raw)
        except BadRequest as error:
            return ShortAnswer(error) if self._registries.cover(request.uri) else Refusal(400, str(error))

    def form_of(self, target: bytes, status: int, text: str) -> tuple[Form, Fields] | None:
        """The form of a refusal of a raw target, and the fields to go with it; None for plain text."""
        return self._registries.form(status, text) if self._registries.cover(target) else None

    def render(self, request: Any) -> Any:
        """``/`` itself, which has no child segments."""
        return self.getChildWithDefault(b"", request).render(request)

    def _local(self, target: bytes) -> IResource:
        canonical = normalise(target, drop_single_dots=True)
        path = canonical.partition("?")[0]
        page = self._pages.get(path)
        if page is not None:
            return page
        if self._registries and (path == "/v2" or path.startswith("/v2/")):
            return self._registries.at_root(canonical[len("/v2") :].removeprefix("/"))
        for artifact in self._artifacts:
            prefix = artifact.backend.prefix
            if canonical.startswith(prefix):
                return self._below(artifact, canonical[len(prefix) :])
            if path == prefix[:-1]:
                query = canonical[len(path) :]
                return WithSlash(prefix, prefix + query)
        named = self._named(target)
        if named is not None:
            return named
        known = ", ".join(sorted(artifact.backend.prefix for artifact in self._artifacts))
        if path == "/":
            return Welcome(f"Artifact Vault. It serves {known}; /healthz and /readyz tell how it is.")
        return Refusal(404, f"Nothing is served here; the prefixes are {known}.")

    def _named(self, target: bytes) -> IResource | None:
        """What ``/host/path`` or ``/HTTPS///host/path`` is, apt-cacher-ng's spellings; None if nothing covers it."""
        text = target.decode("utf-8", "surrogateescape")
        secure = text[:9].upper() == "/HTTPS///"
        authority, slash, rest = text[9 if secure else 1 :].partition("/")
        if not slash or not any(char in authority for char in ".:"):
            return None
        try:
            found = self._covering("https" if secure else "http", authority, slash + rest)
        except BadRequest:
            return None
        return found

    def _proxied(self, scheme: str, authority: str, raw: str) -> IResource:
        found = self._covering(scheme, authority, raw)
        if found is None:
            return Refusal(403, "This server is no open proxy: no backend's upstream covers this URL.")
        return found

    def _covering(self, scheme: str, authority: str, raw: str) -> IResource | None:
        try:
            asked = origin_of(f"{scheme}://{authority}/")
        except ValueError as error:
            raise BadRequest("The target's authority is not a host with an optional port.") from error
        path = normalise(raw.encode("utf-8", "surrogateescape"), drop_single_dots=True)
        candidates = [
            (len(base.path), artifact, path[len(base.path) :])
            for artifact in self._artifacts
            for base in map(urlsplit, artifact.backend.upstreams)
            if origin_of(base.geturl()) == asked and path.startswith(base.path)
        ]
        if not candidates:
            return None
        _, artifact, rest = max(candidates, key=lambda candidate: candidate[0])
        return self._below(artifact, rest)

    def _below(self, artifact: ArtifactResource, rest: str) -> IResource:
        if isinstance(artifact, RegistryResource):
            return self._registries.below(artifact, rest)
        return artifact.at(rest)


def from_apt(request: VaultRequest) -> bool:
    """True for a request of apt's own, or of what asks by its means."""
    return (request.getHeader(b"User-Agent") or b"").startswith(b"Debian APT")


def is_self(authority: str, request: VaultRequest) -> bool:
    """True if an absolute-form target names this very server: a request to it, not through it (RFC 9112 3.2.2)."""
    here = request.getHost()
    try:
        parts = urlsplit(f"http://{authority}")
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        return False
    if port != getattr(here, "port", None):
        return False
    # Not getfqdn: it asks the name service, and everything would wait for the answer.
    if host in ("localhost", socket.gethostname()):
        return True
    address = client_ip(host)
    return address is not None and (address.is_loopback or address == client_ip(getattr(here, "host", "")))
