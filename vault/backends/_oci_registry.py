"""Registry: one upstream registry, as a member of an oci backend: its URLs, its tokens, what it says of its limits."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from zope.interface import implementer

from vault.artifact import Artifact, Digest, Head, Headers
from vault.backend import Backend
from vault.backends._oci_tokens import Login, NoToken, Tokens
from vault.errors import Missing, Refused
from vault.formats.oci_manifest import ACCEPT, MAX_MANIFEST, OCI_INDEX, fault_of_list, fault_of_tag, is_page
from vault.formats.oci_names import DOCKER_HUB, Resource, read_path
from vault.freshness import retry_after, since
from vault.interfaces import Ask, IBackend, IRecipe

LIST_TTL = 60.0
"""Seconds for which lists of tags and of referrers are fresh."""

REST = 10.0
"""Seconds after a failure for which something kept from another registry is served without asking this one."""

HEARD = 10.0
"""Seconds for which a registry that has answered counts as one that can be asked."""

RESERVED = 300.0
"""Seconds for which tags are not asked for once few pulls are left; then one request tells how many there are."""

MANIFESTS = "manifests"
"""What Docker Hub counts are GETs of manifests: a refusal of one says nothing of blobs, lists, and HEADs."""

_LIMIT = re.compile(r"(\d{1,12})(?:\s*;\s*w=(\d{1,9}))?")

DIGEST_FIELD = "Docker-Content-Digest"


@dataclass(slots=True)
class RateLimit:
    """What a registry has last said of its limit: pulls allowed and left in ``window`` seconds, and for whom.

    None where it has said nothing.  ``heard_at`` is in POSIX seconds, as is ``closed_until``: until when it last asked
    to be left alone.
    """

    limit: int | None = None
    remaining: int | None = None
    window: int | None = None
    source: str | None = None
    heard_at: float = 0.0
    closed_until: float = 0.0

    def hear(self, head: Head) -> None:
        """Read ``ratelimit-limit: 100;w=21600`` and the fields beside it, and ``Retry-After`` of a refusal."""
        wait = retry_after(head, head.received_at) if head.status in (429, 503) else None
        if wait is not None:
            self.closed_until = head.received_at + wait
        remaining = _LIMIT.match(head.get("ratelimit-remaining") or "")
        if remaining is None:
            return
        limit = _LIMIT.match(head.get("ratelimit-limit") or "")
        self.remaining = int(remaining[1])
        self.limit = None if limit is None else int(limit[1])
        window = remaining[2] or (None if limit is None else limit[2])
        self.window = None if window is None else int(window)
        self.source = head.get("docker-ratelimit-source")
        self.heard_at = head.received_at


@dataclass
class Contact:
    """When (POSIX seconds) a registry last answered, and when it last could not be asked."""

    heard_at: float = 0.0
    failed_at: float = 0.0


@implementer(IBackend)
@dataclass(frozen=True)
class Registry(Backend):
    """One registry at ``url`` (which ends with a slash), called ``namespace`` by clients.

    ``name`` is that of the member, ``backend`` that of the backend, under which everything is kept; ``directory`` is
    what the keys of tags and lists begin with, to tell them from another registry's.  ``ttl`` is how long
    (seconds) a tag is fresh unless ``tiers`` has a pattern for it.  ``rate_limit``, ``contact`` and ``tokens`` are what
    is known of it now; the first is for who exports figures.
    """

    name: str
    prefix: str
    backend: str
    url: str
    namespace: str
    directory: str = ""
    auth_url: str | None = None
    login: Login | None = field(default=None, repr=False)
    ttl: float = 60.0
    tiers: tuple[tuple[str, float], ...] = ()
    reserve: int = 5
    offline: bool = False
    now: Callable[[], float] = field(default=time.time, repr=False, compare=False)
    rate_limit: RateLimit = field(default_factory=RateLimit, repr=False, compare=False)
    contact: Contact = field(default_factory=Contact, repr=False, compare=False)
    tokens: Tokens = field(init=False, repr=False, compare=False)

    log = Logger()

    def __post_init__(self) -> None:
        service = "registry.docker.io" if self.namespace == DOCKER_HUB else self.namespace
        tokens = Tokens(self.login, self.now, self.auth_url, service)
        object.__setattr__(self, "tokens", tokens)

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The registry's base URL."""
        return (self.url,)

    # -- artifacts --------------------------------------------------------------------------------------------------

    def repository(self, name: str) -> str:
        """The upstream's name of a repository: Docker Hub's own images are in ``library/``."""
        return f"library/{name}" if self.namespace == DOCKER_HUB and "/" not in name else name

    def resolve(self, path: str, headers: Mapping[str, str]) -> Artifact | IRecipe:
        """The artifact of a path; recipes are the backend's."""
        resource = read_path(path)
        if resource.kind == "manifests":
            return self.tag(resource, None) if resource.tag is not None else self.manifest(resource)
        return self.blob(resource) if resource.kind == "blobs" else self.listing(resource)

    def _url(self, resource: Resource) -> str:
        query = f"?{resource.query}" if resource.query else ""
        return f"{self.url}v2/{self.repository(resource.name)}/{resource.kind}/{resource.reference}{query}"

    def tag(self, resource: Resource, accept: frozenset[str] | None) -> Artifact:
        """A tag: the manifest that it stands for now, for clients that take ``accept`` alone where it is given."""
        variant = "" if accept is None else "?accept=" + ",".join(sorted(accept))
        name = self.repository(resource.name)
        return Artifact(
            key=f"{self.backend}/{self.directory}{name}/manifests/{resource.tag}{variant}",
            urls=(self._url(resource),),
            headers=(("Accept", ACCEPT if accept is None else ", ".join(sorted(accept))),),
            max_age=self.tag_ttl(resource.tag or ""),
            backend=self.backend,
            kept_anyway=True,
            confirmed_by=same_manifest,
            kin=f"{self.backend}/{self.directory}{name}/manifests/",
            promised=promised_digest,
            limit=MAX_MANIFEST,
            short=True,
            counted_as=MANIFESTS,
            fault=fault_in_tag,
        )

    def manifest(self, resource: Resource) -> Artifact:
        """A manifest by digest: the same whatever repository it is asked of."""
        digest = resource.digest
        assert digest is not None
        return Artifact(
            key=manifest_key(self.backend, digest),
            urls=(self._url(resource),),
            headers=(("Accept", ACCEPT),),
            digest=digest,
            backend=self.backend,
            may_appear=True,
            kept_anyway=True,
            limit=MAX_MANIFEST,
            short=True,
            counted_as=MANIFESTS,
        )

    def blob(self, resource: Resource) -> Artifact:
        """A blob: the same whatever repository it is asked of."""
        digest = resource.digest
        assert digest is not None
        return Artifact(
            key=blob_key(self.backend, digest),
            urls=(self._url(resource),),
            digest=digest,
            backend=self.backend,
            may_appear=True,
            kept_anyway=True,
        )

    def listing(self, resource: Resource) -> Artifact:
        """A list of tags, or of what refers to a manifest."""
        query = f"?{resource.query}" if resource.query else ""
        name = self.repository(resource.name)
        accept = OCI_INDEX if resource.kind == "referrers" else "application/json"
        return Artifact(
            key=f"{self.backend}/{self.directory}{name}/{resource.kind}/{resource.reference}{query}",
            urls=(self._url(resource),),
            headers=(("Accept", accept),),
            max_age=LIST_TTL,
            backend=self.backend,
            kept_anyway=True,
            short=True,
            fault=fault_in_referrers if resource.kind == "referrers" else fault_in_tags,
        )

    def tag_ttl(self, tag: str) -> float:
        """For how long (seconds) a tag is fresh: by the first pattern that it is like."""
        return next((seconds for pattern, seconds in self.tiers if fnmatchcase(tag, pattern)), self.ttl)

    # -- what the upstream says -------------------------------------------------------------------------------------

    def credentials(self, artifact: Artifact, url: str) -> Headers:
        """The token that an earlier challenge brought."""
        return self.tokens.at_once(self._name_in(url), artifact.key)

    def authorize(self, artifact: Artifact, challenge: str, ask: Ask) -> Deferred[Headers]:
        """A token, or the user name and password where the registry asks for them itself."""
        name = self._name_in(artifact.urls[0])
        return ensureDeferred(self.tokens.answer(name, artifact.key, challenge, ask))

    def _name_in(self, url: str) -> str:
        path = url[len(self.url) + len("v2/") :].partition("?")[0]
        return re.sub(r"/(?:(?:manifests|blobs|referrers)/[^/]*|tags/list)$", "", path)

    def heard(self, artifact: Artifact, head: Head) -> None:
        """It has answered."""
        self.tokens.answered(artifact.key, head.status)
        if (head.status < 400 and not is_page(head.get("Content-Type"))) or head.status in (404, 410, 416):
            self.contact.heard_at = head.received_at
        before = self.short_of_pulls(head.received_at)
        self.rate_limit.hear(head)
        if self.short_of_pulls(head.received_at) and not before:
            self.log.warn(
                "{registry} has {remaining} of {limit} pulls left; tags are served as they are kept",
                registry=self.namespace, remaining=self.rate_limit.remaining, limit=self.rate_limit.limit,
            )  # fmt: skip

    def short_of_pulls(self, now: float) -> bool:
        """True while so few pulls are left that tags are served as they are kept."""
        limit = self.rate_limit
        if limit.remaining is None or limit.remaining > self.reserve:
            return False
        return since(limit.heard_at, now) < min(RESERVED, limit.window or RESERVED)

    def failed(self, now: float) -> None:
        """It could not be asked."""
        self.contact.heard_at = 0.0
        self.contact.failed_at = now

    def answers(self, now: float) -> bool:
        """True if it has answered just now: what is not kept can be had."""
        return not self.offline and 0 <= now - self.contact.heard_at < HEARD

    def resting(self, now: float) -> bool:
        """True if it could not be asked just now."""
        return 0 <= now - self.contact.failed_at < REST

    def denies(self, error: Exception) -> bool:
        """True if an error means that the registry has no such image for us.

        That is 404, 401 and 403 in spite of a token, and no token for want of a login, or of a right to the image.  A
        refusal of whoever sends no token may be of the vault's address or want a login: it says nothing of the image.
        """
        if type(error) is Refused:
            return error.with_credentials and not self.tokens.wrong_login
        return isinstance(error, (Missing, NoToken))


def manifest_key(backend: str, digest: Digest) -> str:
    """The key of a manifest, whatever repository or tag names it."""
    return f"{backend}/manifests/{digest.algorithm}/{digest.value}"


def blob_key(backend: str, digest: Digest) -> str:
    """The key of a blob, whatever repository names it."""
    return f"{backend}/blobs/{digest.algorithm}/{digest.value}"


def promised_digest(head: Head) -> Digest | None:
    """The digest that a registry's answer names; None where it names none that can be checked.

    Docker's old signed manifests (schema 1) are named by the digest of what is signed, not by that of the body.
    """
    if "vnd.docker.distribution.manifest.v1+" in (head.get("Content-Type") or ""):
        return None
    try:
        return Digest.parse((head.get(DIGEST_FIELD) or "").strip())
    except ValueError:
        return None


def fault_in_tag(head: Head, body: bytes | None) -> str | None:
    """See ``Artifact.fault``: of a tag.  A digest that the answer names is checked beside this."""
    return fault_of_tag(body, head.get("Content-Type"), promised_digest(head) is not None)


def fault_in_tags(head: Head, body: bytes | None) -> str | None:
    """The same of a list of tags."""
    return fault_of_list(body, head.get("Content-Type"), "tags")


def fault_in_referrers(head: Head, body: bytes | None) -> str | None:
    """The same of a list of referrers."""
    return fault_of_list(body, head.get("Content-Type"), "manifests")


def same_manifest(stored: Head, answer: Head) -> bool:
    """True if a registry's answer to HEAD shows that a tag still stands for the stored manifest."""
    digest = promised_digest(answer)
    return digest is not None and digest == promised_digest(stored)
