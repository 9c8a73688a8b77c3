"""A package index on an ``Origin``: real small wheels and source distributions, and pages with all that a page can say.

Source: packaging.python.org, specifications "Simple repository API", "Binary distribution format", "Source distribution
format".
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, field
from typing import Any

from tests.functional.origin import Origin
from tests.functional.script import Answer

JSON = "application/vnd.pypi.simple.v1+json"
EPOCH = (2024, 1, 2, 3, 4, 6)

# A build backend in the archive itself, so that building needs nothing from anywhere.
BACKEND = """
import pathlib, zipfile

NAME, VERSION, WHEEL, METADATA, RECORD = {values!r}

def get_requires_for_build_wheel(config_settings=None):
    return []

def build_wheel(directory, config_settings=None, metadata_directory=None):
    filename = f"{{NAME}}-{{VERSION}}-py3-none-any.whl"
    info = f"{{NAME}}-{{VERSION}}.dist-info"
    with zipfile.ZipFile(pathlib.Path(directory, filename), "w") as wheel:
        wheel.writestr(f"{{NAME}}.py", f"VERSION = {{VERSION!r}}\\n")
        wheel.writestr(f"{{info}}/METADATA", METADATA)
        wheel.writestr(f"{{info}}/WHEEL", WHEEL)
        wheel.writestr(f"{{info}}/RECORD", RECORD)
    return filename
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@dataclass
class Distribution:
    """One file of a project; ``extra`` are more keys of its entry on the page."""

    filename: str
    content: bytes
    metadata: bytes | None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """The digest of the file."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def path(self) -> str:
        """Where the index has it."""
        digest = hashlib.blake2b(self.content, digest_size=32).hexdigest()
        return f"/packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{self.filename}"


def metadata(name: str, version: str, requires: tuple[str, ...] = (), requires_python: str | None = None) -> bytes:
    """A METADATA file."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    if requires_python:
        lines.append(f"Requires-Python: {requires_python}")
    return "\n".join([*lines, "", ""]).encode()


def wheel(name: str, version: str, requires: tuple[str, ...] = (), padding: int = 0, **extra: Any) -> Distribution:
    """A wheel of one module; ``padding`` bytes make it larger."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    about = metadata(name, version, requires, extra.get("requires-python"))
    members = {
        f"{module}.py": f"VERSION = {version!r}\n".encode(),
        f"{info}/METADATA": about,
        f"{info}/WHEEL": WHEEL.encode(),
    }
    if padding:
        members[f"{module}_data.bin"] = bytes(hashlib.shake_256(name.encode()).digest(padding))
    lines = []
    for path, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}")
    members[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in members.items():
            archive.writestr(zipfile.ZipInfo(path, EPOCH), data)
    return Distribution(f"{module}-{version}-py3-none-any.whl", buffer.getvalue(), about, extra)


def sdist(name: str, version: str, **extra: Any) -> Distribution:
    """A source distribution that builds itself."""
    module = name.replace("-", "_")
    about = metadata(name, version)
    info = f"{module}-{version}.dist-info"
    record = "".join(
        f"{path},,\n" for path in (f"{module}.py", *(f"{info}/{n}" for n in ("METADATA", "WHEEL", "RECORD")))
    )
    backend = BACKEND.format(values=(module, version, WHEEL, about.decode(), record))
    members = {"PKG-INFO": about, "pyproject.toml": PYPROJECT.encode(), "backend.py": backend.encode()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for path, data in members.items():
            member = tarfile.TarInfo(f"{module}-{version}/{path}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return Distribution(f"{module}-{version}.tar.gz", buffer.getvalue(), None, extra)


class SimpleIndex:
    """Projects on ``origin`` below ``/simple/``; ``put`` writes a project's page anew, with a higher serial."""

    def __init__(self, origin: Origin, html_only: bool = False, login: tuple[str, str] | None = None) -> None:
        self.origin = origin
        self.html_only = html_only
        self.login = login
        self.serial = 100
        self.projects: dict[str, list[Distribution]] = {}

    @property
    def url(self) -> str:
        """The index URL."""
        return f"{self.origin.url}/simple/"

    def put(self, name: str, *distributions: Distribution, **page: Any) -> None:
        """A project with these files; ``page`` are more keys of its page."""
        self.projects[name] = list(distributions)
        self.serial += 1
        for each in distributions:
            self.put_file(each)
        self.put_page(name, self.page(name, **page))
        names = [{"name": project, "_last-serial": self.serial} for project in sorted(self.projects)]
        self._put_document(
            "/simple/",
            {"meta": {"api-version": "1.4", "_last-serial": self.serial}, "projects": names},
            "".join(f'<a href="/simple/{project}/">{project}</a>\n' for project in sorted(self.projects)),
        )

    def put_file(self, each: Distribution, content: bytes | None = None, **settings: Any) -> None:
        """The file itself, or other bytes in its place, and what goes with it."""
        settings = {"login": self.login, "etag": f'"{each.sha256[:20]}"', **settings}
        self.origin.put(each.path, content=each.content if content is None else content, **settings)
        if each.metadata is not None:
            # Labelled as no honest server does: what is hashed are the bytes as they are.
            self.origin.put(f"{each.path}.metadata", content=each.metadata, content_type="text/plain", login=self.login)
        if each.extra.get("gpg-sig"):
            self.origin.put(f"{each.path}.asc", content=b"-----BEGIN PGP SIGNATURE-----\n", login=self.login)
        if each.extra.get("provenance"):
            self.origin.put(
                f"/integrity/{each.filename}/provenance",
                content=b'{"version": 1, "attestation_bundles": []}',
                content_type="application/vnd.pypi.integrity.v1+json",
            )

    def entry(self, each: Distribution) -> dict[str, Any]:
        """A file's entry."""
        entry: dict[str, Any] = {
            "filename": each.filename,
            "url": self.origin.url + each.path,
            "hashes": {"sha256": each.sha256},
            "size": len(each.content),
            "upload-time": "2024-01-02T03:04:05.678901Z",
            "yanked": False,
            **each.extra,
        }
        if each.metadata is not None:
            entry.setdefault("core-metadata", {"sha256": hashlib.sha256(each.metadata).hexdigest()})
        if entry.get("provenance") is True:
            entry["provenance"] = f"{self.origin.url}/integrity/{each.filename}/provenance"
        return entry

    def page(self, name: str, **page: Any) -> dict[str, Any]:
        """A project's page in the JSON form."""
        return {
            "files": [self.entry(each) for each in self.projects[name]],
            "meta": {"api-version": "1.4", "_last-serial": self.serial},
            "name": name,
            "versions": sorted({each.filename.split("-")[1].removesuffix(".tar.gz") for each in self.projects[name]}),
            **page,
        }

    def put_page(self, name: str, page: dict[str, Any], **settings: Any) -> None:
        """A project's page in the form that this index has."""
        anchors = []
        for entry in page["files"]:
            attributes = [f'href="{entry["url"]}#sha256={entry["hashes"].get("sha256")}"']
            if entry.get("requires-python"):
                attributes.append(f'data-requires-python="{html.escape(entry["requires-python"])}"')
            if entry.get("core-metadata"):
                attributes.append(f'data-core-metadata="sha256={entry["core-metadata"]["sha256"]}"')
            if entry.get("yanked"):
                attributes.append(f'data-yanked="{html.escape(str(entry["yanked"]))}"')
            anchors.append(f"<a {' '.join(attributes)}>{entry['filename']}</a><br>\n")
        self._put_document(f"/simple/{name}/", page, "".join(anchors), **settings)

    def _put_document(self, path: str, document: dict[str, Any], anchors: str, **settings: Any) -> None:
        body = f"<!DOCTYPE html><html><body>\n{anchors}</body></html>\n" if self.html_only else json.dumps(document)
        self.origin.put(
            path,
            content=body.encode(),
            **{
                "content_type": "text/html" if self.html_only else JSON,
                "etag": f'"{hashlib.md5(body.encode()).hexdigest()}"',
                "last_modified": None,
                "headers": {
                    "Cache-Control": "max-age=600, public",
                    "X-PyPI-Last-Serial": str(self.serial),
                    "Vary": "Accept, Accept-Encoding",
                },
                "login": self.login,
                **settings,
            },
        )

    def fail(self, name: str, status: int = 503) -> None:
        """Answer for a project's page with a status only."""
        self.origin.put(f"/simple/{name}/", content=b"trouble\n", default=Answer(status=status), login=self.login)
