"""``type: dockerhub``, also ``oci``: Docker Hub or any other OCI registry, or several in order, for pulling.

A request's path below the prefix is ``<name>/manifests/<reference>`` and so on, with or without ``v2/`` before it.
Everything by digest is kept once, whatever repository it is asked of; tags are pointers that are renewed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlsplit

from zope.interface import implementer

from vault.artifact import Artifact
from vault.backend import Backend
from vault.backends._oci_memory import Memories
from vault.backends._oci_recipes import Recipe
from vault.backends._oci_registry import Registry
from vault.backends._oci_tokens import Login
from vault.errors import VaultError
from vault.formats.oci_errors import JSON, Unknown, error_body
from vault.formats.oci_manifest import accepted
from vault.formats.oci_names import namespace_of, read_path
from vault.freshness import LONGEST_WAIT
from vault.interfaces import Figure, IRecipe, IRegistryBackend, Member
from vault.options import Options
from vault.urls import origin_of
from vault.values import base_url, web_url

Tiers = tuple[tuple[str, float], ...]

HUB_URL = "https://registry-1.docker.io/"
HUB_AUTH_URL = "https://auth.docker.io/token"
RESERVE = 5
"""Pulls."""

WAIT = "ratelimit_retry_after_seconds"
"""The one figure of which more leaves less."""


@implementer(IRegistryBackend)
@dataclass(frozen=True)
class OCIBackend(Backend):
    """``registries`` in the order to ask; ``namespaces`` are the names that clients know them by.

    ``rate_limit`` of each registry is what it last said of its limit, to be exported.
    """

    name: str
    prefix: str
    registries: tuple[Registry, ...]
    members: Sequence[Member]
    namespace: str | None = None
    memories: Memories = field(default_factory=Memories, repr=False, compare=False)

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The registries' base URLs."""
        return tuple(registry.url for registry in self.registries)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The registry names that clients send as ``?ns=``."""
        own = () if self.namespace is None else (self.namespace,)
        return tuple(dict.fromkeys((*own, *(registry.namespace for registry in self.registries))))

    def resolve(self, path: str, headers: Mapping[str, str]) -> Artifact | IRecipe:
        """The recipe for a path; raises Malformed or Unknown for what names nothing."""
        return self.resolve_in(None, path.removeprefix("v2/"), headers)

    def resolve_in(self, namespace: str | None, path: str, headers: Mapping[str, str]) -> Artifact | IRecipe:
        """The same where the client names the registry that it means: only that one is asked."""
        resource = read_path(path)
        registries = self.registries
        if namespace is not None and namespace != self.namespace:
            registries = tuple(one for one in registries if one.namespace == namespace)
        if not registries:
            raise Unknown("NAME_UNKNOWN", f"no registry {namespace} is configured")
        accept = accepted(headers.get("accept")) if resource.tag is not None else None
        return Recipe(self.name, registries, self.memories, resource, accept)

    def figures(self) -> Iterator[Figure]:
        """The pulls that registries allow, those that are left, and for how long a registry wants no more.

        Of several with one namespace, such as two accounts, what leaves the least.
        """
        least: dict[tuple[str, str], Figure] = {}
        for registry in self.registries:
            for figure in _figures(registry):
                key = figure.name, registry.namespace
                known = least.get(key)
                if known is None or (figure.value < known.value) != (figure.name == WAIT):
                    least[key] = figure
        yield from least.values()

    def refusal(self, status: int, error: VaultError) -> tuple[str, bytes] | None:
        """The registry's own form."""
        return JSON, error_body(status, error, self.name)


def _figures(registry: Registry) -> Iterator[Figure]:
    labels, limit = {"registry": registry.namespace}, registry.rate_limit
    for name, text, value in (
        ("ratelimit_remaining", "Pulls that the registry has left for this vault.", limit.remaining),
        ("ratelimit_limit", "Pulls that the registry allows in its window of time.", limit.limit),
    ):
        if value is not None:
            yield Figure(name, text, labels, value)
    if limit.closed_until:
        text = "Seconds for which the registry has asked to be left alone (Retry-After)."
        yield Figure(WAIT, text, labels, min(max(0.0, limit.closed_until - registry.now()), LONGEST_WAIT))


def _base(text: str) -> str:
    """A registry's base URL; some know it by the URL of its protocol, which ends with v2/."""
    return re.sub(r"(?<=/)v2/$", "", base_url(text))


def _host(text: str) -> str:
    """A registry's name: a host with an optional port."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?", text):
        raise ValueError("is not the name of a registry; give a host with its port, if any, such as docker.io")
    return namespace_of(text)


def _authority(url: str) -> str:
    """The host of a URL with its port, unless that is what the scheme has anyway."""
    scheme, host, port = origin_of(url)
    name = f"[{host}]" if ":" in host else host
    return name if port == {"http": 80, "https": 443}[scheme] else f"{name}:{port}"


def _registry(options: Options, name: str, backend: str, tiers: Tiers, reserve: int) -> Registry:
    """One registry from its part of the configuration; ``tiers`` and ``reserve`` hold where it has none itself."""
    url = options.parsed("registry_url", _base, HUB_URL, secret=True)
    namespace = options.parsed("namespace", _host, None) or namespace_of(_authority(url))
    auth_url = options.parsed("auth_url", web_url, HUB_AUTH_URL if url == HUB_URL else None, secret=True)
    if auth_url is not None and urlsplit(auth_url).path == "/":
        auth_url += "token"
    upstream = options.upstream
    login = None if upstream.username is None else Login(upstream.username, upstream.password or "")
    return Registry(
        name=name,
        prefix=options.prefix,
        backend=backend,
        url=url,
        namespace=namespace,
        auth_url=auth_url,
        login=login,
        ttl=60.0 if upstream.ttl is None else upstream.ttl,
        tiers=_tiers(options) or tiers,
        reserve=options.integer("ratelimit_reserve", reserve),
        offline=upstream.offline,
    )


def _tiers(options: Options) -> Tiers:
    """How long tags are fresh by pattern: ``tag_ttl``, or ``ttl`` itself where that is a mapping."""
    return options.durations("tag_ttl") + options.durations("ttl")


def make_backend(name: str, options: Options) -> OCIBackend:
    """Read ``registry_url`` and what goes with it, or ``repositories``, a list of such."""
    parts = options.mappings("repositories")
    if options.setting("repositories").value == []:
        options.problem("repositories", "is empty; give at least one registry, each with registry_url")
    for key in ("registry_url", "auth_url", "username", "password") if parts else ():
        if options.given(key):
            options.problem(key, "is given beside repositories; give it within one of them")
    if parts:
        namespace = options.parsed("namespace", _host, None)
        tiers, reserve = _tiers(options), options.integer("ratelimit_reserve", RESERVE)
        registries = [
            _registry(part, f"{name}-{place}", name, tiers, reserve) for place, part in enumerate(parts, start=1)
        ]
    else:
        namespace = None
        registries = [_registry(options, name, name, (), RESERVE)]
    registries = _apart(registries)
    # A registry's user name and password go to whom it is asked for them, never with every request.
    options.upstream = replace(options.upstream, username=None, password=None)
    members = [
        Member(registry, replace(part.upstream, username=None, password=None, ttl=None))
        for registry, part in zip(registries, parts or [options], strict=True)
    ]
    return OCIBackend(name, options.prefix, tuple(registries), tuple(members), namespace)


def _apart(registries: Sequence[Registry]) -> list[Registry]:
    """Each with a directory of its own for tags: two registries may have different images of one name.

    It is that of the registry's URL, not of its place or namespace: a backend that is given another registry must not
    serve the tags that are kept of the old one.
    """
    taken: set[str] = set()
    result = []
    for registry in registries:
        directory = plain = _directory(registry.url)
        number = 1
        while directory in taken:
            number += 1
            directory = f"{number}:{plain or '/'}"
        taken.add(directory)
        result.append(replace(registry, directory=directory))
    return result


def _directory(url: str) -> str:
    """Where the tags of the registry at a URL are kept: nothing for Docker Hub, else host and port, and what follows.

    A colon is in no repository's name: no tag of Docker Hub can be taken for another registry's.
    """
    _, host, port = origin_of(url)
    inner = urlsplit(url).path[1:-1]
    if not inner and origin_of(url) == origin_of(HUB_URL):
        return ""
    names = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
    names += [quote(name, safe="") for name in inner.split("/")] if inner else []
    return "+".join(names) + "/"
