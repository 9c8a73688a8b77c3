"""A vault in memory in front of a Python package index and a host with files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

from tests.memory import DATE, Asked, Client, Rig, RigCase
from vault.backends._pypi_index import Index
from vault.backends.pypi import PyPIBackend

JSON = "application/vnd.pypi.simple.v1+json"
ASK_JSON = f"Accept: {JSON}"
FILES = "http://files.test/packages"


def backend(*urls: str, **settings: Any) -> PyPIBackend:
    """A backend in front of ``origin.test``, or of these."""
    return PyPIBackend("pypi", "/pypi/", Index("pypi", urls or ("http://origin.test/simple/",), **settings))


def sha256(data: bytes) -> str:
    """A digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def entry(filename: str, content: bytes | None = None, **more: Any) -> dict[str, Any]:
    """A file on a page."""
    hashes = {} if content is None else {"sha256": sha256(content)}
    return {"filename": filename, "url": f"{FILES}/{filename}", "hashes": hashes, **more}


def page(*files: dict[str, Any], serial: int = 7, **more: Any) -> bytes:
    """A project's page."""
    return json.dumps(
        {"meta": {"api-version": "1.4", "_last-serial": serial}, "name": "a", "files": files, **more}
    ).encode()


class PyPICase(RigCase):
    """A vault in front of an index and of a host with files; ``pages`` and ``files`` are what they have."""

    def vault(self, *urls: str, upstream: dict[str, Any] | None = None, **settings: Any) -> Rig:
        """The vault."""
        made = backend(*urls, **settings)
        self.rig_ = self.rig(made.upstreams, made, **(upstream or {"stale_while_revalidate": 0.0}))
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.files: dict[str, bytes | Callable[[Asked], object]] = {}
        self.serials: dict[str, int | str] = {}
        self.rig_.origin.answer = self._answer_page
        self.host = self.rig_.net.origin("files.test")
        self.host.answer = self._answer_file
        return self.rig_

    def use(self, *urls: str, **settings: Any) -> None:
        """Take over other settings, as a reload does."""
        self.rig_.resource.backend = backend(*urls, **settings)
        self.rig_.again()

    def put(self, project: str, body: bytes, kind: str = JSON, serial: int | None = None) -> None:
        """A project's page."""
        self.pages[f"/simple/{project}/"] = (kind, body)
        if serial is not None:
            self.serials[f"/simple/{project}/"] = serial

    def _answer_page(self, asked: Asked) -> None:
        kind, body = self.pages.get(asked.target, ("", b""))
        if not kind:
            asked.answer(404, body=b"no such project")
            return
        tag = f'"{sha256(body)[:8]}"'
        if asked.get("if-none-match") == tag:
            asked.answer(304, f"ETag: {tag}", f"Date: {DATE}")
            return
        fields = [f"Content-Type: {kind}", f"ETag: {tag}", "Cache-Control: max-age=600, public", f"Date: {DATE}"]
        if asked.target in self.serials:
            fields.append(f"X-PyPI-Last-Serial: {self.serials[asked.target]}")
        asked.answer(200, *fields, body=body)

    def _answer_file(self, asked: Asked) -> None:
        found = self.files.get(asked.target)
        if found is None:
            asked.answer(404)
        elif callable(found):
            found(asked)
        else:
            asked.answer(200, 'ETag: "f"', "Content-Encoding: gzip", f"Date: {DATE}", body=found)

    def get(self, path: str, *fields: str, method: str = "GET") -> Client:
        """A client's request below the prefix."""
        return self.rig_.request(f"/pypi/{path}", *fields, method=method)

    def links(self, path: str = "simple/a/") -> dict[str, str]:
        """The targets that the files of a page have here, by name."""
        listed = json.loads(self.get(path, ASK_JSON).body)["files"]
        return {file["filename"]: urljoin(f"/pypi/{path}", file["url"]) for file in listed}

    def follow(self, filename: str, *fields: str, method: str = "GET", more: str = "") -> Client:
        """Ask for a file that the page of ``a`` links to."""
        return self.rig_.request(self.links()[filename] + more, *fields, method=method)
