"""A scripted Docker Hub: a registry, its token server on another port, and its storage on another address.

``Hub`` is made of three Origins, so that everything an Origin can do wrong these can too.  Scripts go through the
``Resource`` of a path; what a registry decides by the request (tokens, limits) is decided in ``_Registry``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote

from tests.functional.content import Literal
from tests.functional.images import OCI_INDEX, Image
from tests.functional.origin import Origin, basic
from tests.functional.script import Answer, Record, Resource

CODES = {401: "UNAUTHORIZED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}


class _Tokens(Origin):
    """The token server: ``count`` tokens were given, each good for ``life`` seconds.

    ``login`` is the user name and password it wants, None where anybody gets a token.  ``scopes`` has what each token
    is for.
    """

    def __init__(self) -> None:
        self.life = 300
        self.login: tuple[str, str] | None = None
        self.scopes: dict[str, str] = {}
        self.status: int | None = None
        self.delay = 0.0
        super().__init__()

    @property
    def count(self) -> int:
        """How many tokens were asked for."""
        return len(self.requests("/token"))

    def _answer(self, connection: Any, record: Record) -> None:
        query = dict(parse_qsl(record.target.partition("?")[2]))
        number = len(self.scopes) + 1
        token = f"token-{number}-{'x' * 40}"
        answer = Answer(delay=self.delay)
        body = json.dumps({"token": token, "expires_in": self.life}).encode()
        given = record.headers.get("authorization")
        if self.status is not None or (self.login is not None and given != basic(*self.login)):
            answer, body = Answer(status=self.status or 401), b'{"details": "incorrect username or password"}'
        else:
            self.scopes[token] = query.get("scope", "")
        self.put(record.target, content=body, content_type="application/json", etag=None, default=answer)
        super()._answer(connection, record)


class _Registry(Origin):
    """The registry proper; see Hub."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        super().__init__()

    def _answer(self, connection: Any, record: Record) -> None:
        path = unquote(record.path)
        name = path.removeprefix("/v2/").rpartition("/")[0].rpartition("/")[0]
        answer = self._refused(record, name, self.hub)
        limits: dict[str, str] = {}
        if answer is None and "/manifests/" in path and self.hub.remaining is not None:
            answer, limits = self._counted(record.method, self.hub)
        with self._lock:
            self._records.append(record)
            resource = self._resources.get(record.target) or self._resources.get(path)
            if resource is None and answer is None:
                answer = Answer(status=404)
            if answer is None and resource is not None:
                answer = resource.script.pop(0) if record.method == "GET" and resource.script else resource.default
            else:
                resource = None
        assert answer is not None
        if resource is None:
            body = json.dumps({"errors": [{"code": CODES.get(answer.status or 0, "UNKNOWN"), "message": "scripted"}]})
            resource = Resource(Literal(body.encode()), None, None, "application/json")
        self._wait(connection, answer.delay)
        if answer.hang:
            self._wait(connection, None)
        self._respond(connection, record, resource, replace(answer, headers={**answer.headers, **limits}))

    def _counted(self, method: str, hub: Hub) -> tuple[Answer | None, dict[str, str]]:
        """A GET of a manifest is a pull; over the limit it is refused."""
        answer = None
        assert hub.remaining is not None
        if method == "GET" and hub.remaining:
            hub.remaining -= 1
        elif method == "GET":
            answer = Answer(status=429, headers={"Retry-After": "1"})
        return answer, {
            "ratelimit-limit": "100;w=21600",
            "ratelimit-remaining": f"{hub.remaining};w=21600",
            "docker-ratelimit-source": "192.0.2.1",
        }

    def _refused(self, record: Record, name: str, hub: Hub) -> Answer | None:
        if hub.down is not None:
            return Answer(status=hub.down)
        given = record.headers.get("authorization", "")
        if hub.login is not None:
            challenge = 'Basic realm="registry"'
            refusal = Answer(status=401, headers={"WWW-Authenticate": challenge}, delay=0.3)  # several wait
            return None if given == basic(*hub.login) else refusal
        if not hub.tokens_wanted:
            return None
        scope = hub.tokens.scopes.get(given.removeprefix("Bearer "))
        wanted = f"repository:{name}:pull"
        if scope == wanted and given.removeprefix("Bearer ") not in hub.revoked and name not in hub.private:
            return None
        challenge = (
            f'Bearer realm="{hub.tokens.url}/token",service="registry, of tests",scope="{wanted}"'
            + (',error="insufficient_scope"' if scope == wanted else "")
        )  # fmt: skip
        return Answer(status=401, headers={"WWW-Authenticate": challenge})


class Hub:
    """``registry``, ``tokens`` and ``storage`` are Origins; blobs are redirected to the storage's other address.

    ``remaining`` pulls are left, any number where it is None.  ``down`` is the status that everything is answered
    with.  ``revoked`` tokens and ``private`` repositories are refused; ``login`` makes the registry ask for Basic.
    """

    def __init__(self, tokens_wanted: bool = True, storage_host: str = "127.0.0.2") -> None:
        self.tokens_wanted = tokens_wanted
        self.remaining: int | None = None
        self.down: int | None = None
        self.login: tuple[str, str] | None = None
        self.revoked: set[str] = set()
        self.private: set[str] = set()
        self.tokens = _Tokens()
        self.storage = Origin(storage_host)
        self.registry = _Registry(self)

    @property
    def url(self) -> str:
        """The registry's address."""
        return self.registry.url

    @property
    def host(self) -> str:
        """The registry's name."""
        return f"{self.registry.host}:{self.registry.port}"

    def push(self, name: str, image: Image, tag: str | None = "latest", redirect: bool = True) -> None:
        """Have an image; with ``redirect`` its blobs come from the storage."""
        for part in [image, *image.children]:
            self._manifest(f"/v2/{name}/manifests/{part.digest}", part)
        if tag is not None:
            self._manifest(f"/v2/{name}/manifests/{tag}", image)
        for digest, data in image.all_blobs().items():
            path = f"/v2/{name}/blobs/{digest}"
            if not redirect:
                self.put(path, data)
                continue
            self.storage.put(f"/{digest}", content=data, etag='"storage"', last_modified=None)
            self.put(path, b"", default=Answer(redirect=f"{self.storage.url}/{digest}?X-Signature=secret-signature"))

    def put(self, path: str, data: bytes, **settings: Any) -> None:
        """Have something at a path of the registry."""
        settings.setdefault("last_modified", None)
        self.registry.put(path, content=data, **settings)

    def _manifest(self, path: str, image: Image) -> None:
        digest = image.digest
        fields = {"Docker-Content-Digest": digest, "Docker-Distribution-Api-Version": "registry/2.0"}
        self.put(path, image.manifest, content_type=image.media_type, headers=fields, etag=f'"{digest}"')

    def referrers(self, name: str, digest: str, body: bytes) -> None:
        """What refers to a manifest."""
        self.put(f"/v2/{name}/referrers/{digest}", body, content_type=OCI_INDEX, etag=None)

    def blob_fetches(self, digest: str) -> int:
        """How often the storage was asked for a whole blob."""
        return len(self.storage.requests(f"/{digest}", "GET"))

    def manifest_gets(self) -> list[str]:
        """The paths of the manifests that were got, which is what counts as pulls."""
        with self.registry._lock:
            records = list(self.registry._records)
        return [record.path for record in records if record.method == "GET" and "/manifests/" in record.path]

    def stop(self) -> None:
        """Be gone."""
        for origin in (self.registry, self.tokens, self.storage):
            origin.stop()
