"""Registries: what clients of container registries ask for, at the root's ``/v2/`` and below a backend's prefix.

The clients build their URLs in four ways (docker, containerd, BuildKit, podman).  All of these lead to one resource::

    /v2/<name>/...               the first backend that is Docker Hub, else the first that is a registry
    /v2/<name>/...?ns=<registry> the first backend of that namespace, and no other: an unknown one is 404
    /v2/<prefix>/<name>/...      the backend of that prefix, unless ns names another
    /v2/<registry>/<name>/...    the backend of that namespace
    /<prefix>/v2/<name>/...      the backend of that prefix, unless ns names another
    /<prefix>/<name>/...         the same

The vault never challenges its clients: whoever may connect may pull, with the vault's own credentials upstream.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from vault.artifact import Artifact, Head
from vault.errors import VaultError
from vault.formats.oci_errors import JSON, Malformed, Unknown, error_body
from vault.formats.oci_names import DOCKER_HUB, names_registry, namespace_of
from vault.interfaces import IKitchen, IRecipe, IRegistryBackend
from vault.outcome import Found
from vault.web.errors import Fields, Form, respond, status_of
from vault.web.request import VaultRequest
from vault.web.resource import ArtifactResource

VERSION = (b"Docker-Distribution-Api-Version", b"registry/2.0")
ALLOWED = b"GET, HEAD"

_NO_NAME = re.compile(r"(?:manifests|blobs|referrers)/[^/]*|tags/list")
"""What follows the whole name of a repository."""


def refuse(request: VaultRequest, error: VaultError, status: int | None = None) -> int:
    """Answer with an error in the registry's form."""
    code = status or status_of(error)
    request.setHeader(*VERSION)
    respond(request, code, str(error), form=(JSON, error_body(code, error, "")))
    return NOT_DONE_YET


def refuse_method(request: VaultRequest) -> int:
    """Nothing can be pushed here, nor deleted."""
    request.setHeader(b"Allow", ALLOWED)
    return refuse(request, Malformed("UNSUPPORTED", "this is a mirror: it is only pulled from"), 405)


class ShortAnswer(Resource):
    """Whatever is asked by GET or HEAD, an empty object says that this is a registry, or an error what is wrong."""

    isLeaf = True

    def __init__(self, error: VaultError | None = None) -> None:
        super().__init__()
        self._error = error

    def render(self, request: VaultRequest) -> int:
        """Answer."""
        if request.method not in (b"GET", b"HEAD"):
            return refuse_method(request)
        if self._error is not None:
            return refuse(request, self._error)
        request.setHeader(*VERSION)
        respond(request, 200, "{}", form=("application/json", b"{}"))
        return NOT_DONE_YET


class RegistryResource(ArtifactResource):
    """A repository's resource: ``namespace`` is the registry that the client named by ``ns``, None where it did not."""

    namespace: str | None = None
    backend: IRegistryBackend

    def __init__(
        self, backend: IRegistryBackend, kitchen: IKitchen, reactor: Any, now: Callable[[], float], path: str = "",
        instance: str = "", namespace: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(backend, kitchen, reactor, now, path, instance)
        self.namespace = namespace

    def at(self, path: str) -> RegistryResource:
        """The resource of one path."""
        return self.named(path, None)

    def named(self, path: str, namespace: str | None) -> RegistryResource:
        """The resource of one path in the registry that the client named."""
        return RegistryResource(
            self.backend, self.kitchen, self._reactor, self._now, path, self._instance, namespace
        )  # fmt: skip

    def render(self, request: VaultRequest) -> int:
        """Answer a GET or a HEAD, refuse anything else."""
        request.setHeader(*VERSION)
        if self.namespace is not None:
            request.setHeader(b"OCI-Namespace", self.namespace.encode("latin-1", "replace"))
        if request.method not in (b"GET", b"HEAD"):
            return refuse_method(request)
        return self.render_GET(request)

    def _wanted(self, headers: dict[str, str]) -> Artifact | IRecipe:
        return self.backend.resolve_in(self.namespace, self._path, headers)

    def _set_fields(self, request: VaultRequest, found: Found, head: Head, only_for_304: bool = False) -> None:
        super()._set_fields(request, found, head, only_for_304)
        link = head.get("Link")
        here = None if link is None else link_here(link, request.uri, self.namespace)
        if here is not None:
            request.setHeader(b"Link", here)


def link_here(link: str, target: bytes, namespace: str | None) -> bytes | None:
    """A Link of which only the query is told, for a client that asked for ``target``; None for any other."""
    query, closed, rest = link.removeprefix("<?").partition(">")
    if not link.startswith("<?") or not closed:
        return None
    if namespace is not None:
        query += "&" + urlencode([("ns", namespace)])
    path = re.sub(rb"^[A-Za-z][A-Za-z0-9+.-]*://[^/]*", b"", target.partition(b"?")[0])
    return b"<" + path + f"?{query}>{rest}".encode("latin-1", "replace")


class Registries:
    """The backends that are registries, in the order of the configuration."""

    def __init__(self, resources: Sequence[RegistryResource]) -> None:
        self._resources = resources

    def __bool__(self) -> bool:
        return bool(self._resources)

    def cover(self, target: bytes) -> bool:
        """True if a raw target, which may be malformed or cut short, is a registry's."""
        prefixes = [b"/v2/", *(one.backend.prefix.encode("ascii") for one in self._resources)]
        path = target.partition(b"?")[0]
        return bool(self._resources) and (path + b"/").startswith(tuple(prefixes))

    def form(self, status: int, text: str) -> tuple[Form, Fields]:
        """A refusal in the registry's form."""
        return (JSON, error_body(status, VaultError(text), "")), [VERSION]

    def at_root(self, rest: str) -> Resource:
        """What ``/v2/`` + ``rest`` is; canonical, percent-encoded, with its query."""
        path, namespace, query = split(rest)
        if not path:
            return ShortAnswer()
        resource, inner = self._by_prefix(path) or self._by_first_segment(path) or (None, path)
        if namespace is not None:
            if resource is not None and namespace in resource.backend.namespaces:
                return resource.named(inner + query, namespace)
            # A mirror's prefix may be for whatever registry ns names; the name of another registry is not dropped.
            dropped = not names_registry(unquote(path.partition("/")[0]))
            return self._named(namespace, inner if dropped else path, query)
        path = inner
        if resource is None:
            # Docker's daemon does not say that it means Docker Hub, for which alone it asks a mirror.
            hubs = (one for one in self._resources if DOCKER_HUB in one.backend.namespaces)
            resource = next(hubs, self._resources[0])
            unknown = _unknown_registry(path)
            if unknown is not None:
                return ShortAnswer(Unknown("NAME_UNKNOWN", f"no backend here is the registry {unknown}"))
        return resource.at(path + query)

    def below(self, resource: RegistryResource, rest: str) -> Resource:
        """What a backend's prefix + ``rest`` is."""
        path, namespace, query = split(rest)
        if path in ("v2", "v2/"):
            return ShortAnswer()
        path = path.removeprefix("v2/")
        if namespace is None:
            return resource.at(path + query)
        if namespace in resource.backend.namespaces:
            return resource.named(path + query, namespace)
        return self._named(namespace, path, query)

    def _named(self, namespace: str, path: str, query: str) -> Resource:
        for resource in self._resources:
            if namespace in resource.backend.namespaces:
                return resource.named(path + query, namespace)
        return ShortAnswer(Unknown("NAME_UNKNOWN", f"no backend here is the registry {namespace}"))

    def _by_prefix(self, path: str) -> tuple[RegistryResource, str] | None:
        fitting = [one for one in self._resources if path.startswith(one.backend.prefix[1:])]
        if not fitting:
            return None
        resource = max(fitting, key=lambda one: len(one.backend.prefix))
        return resource, path[len(resource.backend.prefix) - 1 :]

    def _by_first_segment(self, path: str) -> tuple[RegistryResource, str] | None:
        first, slash, rest = path.partition("/")
        namespace = namespace_of(unquote(first))
        for resource in self._resources:
            if slash and names_registry(namespace) and namespace in resource.backend.namespaces:
                return resource, rest
        return None


def _unknown_registry(path: str) -> str | None:
    """The host that a path begins with, if any: clients have nothing else with a dot or a colon there.

    A name of one part alone is the image's.
    """
    first, _, rest = path.partition("/")
    first = unquote(first)
    return first if names_registry(first) and _NO_NAME.fullmatch(rest) is None else None


def split(target: str) -> tuple[str, str | None, str]:
    """The path, the ``ns`` parameter, and the query without it, its question mark included."""
    path, _, query = target.partition("?")
    parameters = parse_qsl(query, keep_blank_values=True, errors="replace")
    names = [value for key, value in parameters if key == "ns" and value]
    rest = [(key, value) for key, value in parameters if key != "ns"]
    return path, namespace_of(names[0]) if names else None, "?" + urlencode(rest) if rest else ""
