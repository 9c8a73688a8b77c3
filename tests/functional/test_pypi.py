"""A Python package index through a real vault: what clients count on, and what goes wrong upstream."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from twisted.trial.unittest import SkipTest

from tests.functional.case import FunctionalCase
from tests.functional.clients import ask, together
from tests.functional.python_clients import pip, pip_install, poetry, poetry_project, uv_install
from tests.functional.script import Answer
from tests.functional.simple_index import JSON, SimpleIndex, wheel
from tests.functional.test_pypi_clients import PyPICase
from tests.functional.vault_process import eventually
from vault.backends.pypi import public_index

ASK_JSON = {"Accept": JSON}


class IndexTests(PyPICase):
    """A vault in front of an index with a small tree of projects."""

    def publish(self, index: SimpleIndex) -> None:
        """The tree of the other tests, and a large wheel whose metadata can be had only from itself."""
        super().publish(index)
        self.lazy = wheel("vd-lazy", "1.0", ("vd-lib<1.1",), padding=2_000_000, **{"core-metadata": False})
        index.put("vd-lazy", self.lazy)

    def links(self, project: str) -> dict[str, str]:
        """The paths below the prefix of the files on a page."""
        files = json.loads(self.ask(f"simple/{project}/", ASK_JSON).body)["files"]
        base = f"/simple/{project}/"
        return {file["filename"]: urljoin(base, file["url"]).removeprefix("/") for file in files}

    def test_page(self) -> None:
        """A page comes in each form and coding with a tag of its own, and 304s repeat the tag."""
        self.start()
        plain = self.ask("simple/VD.Lib/", ASK_JSON)
        self.assertEqual((plain.status, plain.headers["content-type"], plain.cache), (200, JSON, "MISS"))
        expected = self.index.page("vd-lib")
        got = json.loads(plain.body)
        for file in (*got["files"], *expected["files"]):
            del file["url"]
        expected["meta"]["_last-serial"] = got["meta"]["_last-serial"]  # it has gone up since
        self.assertEqual(json.dumps(got), json.dumps(expected))
        tags = set()
        for accept in (JSON, "text/html", "application/vnd.pypi.simple.v1+html"):
            for path in ("simple/vd-lib/", "vd-lib/"):
                reply = self.ask(path, {"Accept": accept})
                tags.add(reply.headers["etag"])
                again = self.ask(path, {"Accept": accept, "If-None-Match": reply.headers["etag"]})
                self.assertEqual((again.status, again.headers["etag"]), (304, reply.headers["etag"]))
        self.assertEqual(len(tags), 6)
        self.assertEqual(len(self.origin.requests("/simple/vd-lib/")), 1)

    def test_many(self) -> None:
        """A hundred clients that ask for a large page at the same time cause one request."""
        self.index.put("vd-many", *(wheel("vd-many", f"1.{number}") for number in range(300)))
        page = self.index.page("vd-many")
        self.index.put_page("vd-many", page, default=Answer(delay=0.5))
        self.start()
        replies = together(100, lambda number: self.ask("simple/vd-many/", {**ASK_JSON, "Accept-Encoding": "gzip"}))
        self.assertEqual({(reply.status, len(gzip.decompress(reply.body)) > 0) for reply in replies}, {(200, True)})
        self.assertEqual(len({reply.body for reply in replies}), 1)
        self.assertEqual(len(self.origin.requests("/simple/vd-many/")), 1)

    def test_lazy(self) -> None:
        """Of a wheel without a metadata file pip and poetry read the metadata from parts of it, though it is cold."""
        self.start()
        path = self.links("vd-lazy")[self.lazy.filename]
        head = self.ask(path, method="HEAD")
        self.assertEqual((head.status, head.headers["content-length"]), (200, str(len(self.lazy.content))))
        self.assertEqual(head.headers["accept-ranges"], "bytes")
        end = self.ask(path, {"Range": "bytes=-10000", "Cache-Control": "no-cache"})
        self.assertEqual((end.status, end.body), (206, self.lazy.content[-10000:]))
        self.assertEqual(end.headers["content-length"], "10000")
        home = self.directory / "pip"
        done = pip(
            home, "install", "--use-feature=fast-deps", "--dry-run", "--index-url", self.url, "vd-lazy",
            "--target", str(home / "site"), "--no-cache-dir",
        )  # fmt: skip
        self.assertIn("Would install vd-lazy-1.0 vd-lib-1.0", self.check(done))
        home = self.directory / "poetry"
        project = poetry_project(home, self.url, "vd-lazy")
        self.check(poetry(home, project, "lock"))
        self.assertIn('name = "vd-lib"\nversion = "1.0"', (project / "poetry.lock").read_text())

    def test_lazy_uv(self) -> None:
        """So does uv, which asks by HEAD first."""
        self.start()
        self.check(uv_install(self.directory / "uv", self.url, "vd-lazy"))
        self.assertEqual(self.installed(self.directory / "uv"), {"vd_lazy": "1.0", "vd_lib": "1.0"})
        for method, status in (("HEAD", 200), ("GET", 206)):
            self.assertRegex(self.vault.log(), rf'"{method} /pypi/files/vd-lazy/[^"]+\.whl HTTP/1\.1" {status} ')

    def test_corrupt(self) -> None:
        """A damaged wheel is cut off, not kept, and served once the index has healed; pip installs nothing of it."""
        app = self.index.projects["vd-app"][0]
        wrong = app.content[:-100] + bytes(100)
        self.index.put_file(app, wrong)
        self.start()
        path = self.links("vd-app")[app.filename]
        reply = self.ask(path)
        self.assertFalse(reply.whole and reply.status == 200)
        self.assertLess(len(reply.body), len(app.content))
        self.assertIn("does not have the digest", self.vault.log())
        done = pip_install(self.directory / "bad", self.url, "vd-app", "--no-cache-dir", "--retries", "0", "--no-deps")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(list(self.vault.cache_dir.glob(f"pypi/files/**/{app.filename}")), [])
        self.index.put_file(app)
        self.check(pip_install(self.directory / "good", self.url, "vd-app", "--no-cache-dir"))
        kept = list(self.vault.cache_dir.glob(f"pypi/files/**/{app.filename}"))
        self.assertEqual([file.read_bytes() for file in kept], [app.content])

    def test_companions(self) -> None:
        """Metadata, signatures and provenance come as the index has them; what it does not name is 404."""
        self.start()
        wheels = self.index.projects["vd-lib"]
        links = self.links("vd-lib")
        path = links[wheels[0].filename]
        about = self.ask(path + ".metadata", {"Accept-Encoding": "gzip"})
        self.assertEqual((about.status, about.body), (200, wheels[0].metadata))
        self.assertNotIn("content-encoding", about.headers)
        self.assertEqual(self.ask(path + ".asc").body, b"-----BEGIN PGP SIGNATURE-----\n")
        self.assertEqual(self.ask(links[wheels[1].filename] + ".asc").status, 404)
        app = self.links("vd-app")["vd_app-1.0-py3-none-any.whl"]
        provenance = self.ask(app + ".provenance")
        self.assertEqual(json.loads(provenance.body)["version"], 1)
        self.assertEqual(provenance.headers["content-type"], "application/vnd.pypi.integrity.v1+json")
        self.assertEqual(self.ask(path + ".provenance").status, 404)

    def test_other_files(self) -> None:
        """Nothing but what a page links to can be had through the vault, though the index's host has it."""
        self.origin.put("/packages/secret-1.0.zip", content=b"secret")
        other = self.start_origin()
        other.put("/secret-1.0.zip", content=b"secret")
        self.start()
        for path in (
            "files/packages/secret-1.0.zip",
            "files/secret-1.0.zip",
            f"files/{other.url}/secret-1.0.zip",
            f"files/http://127.0.0.1:{other.port}/secret-1.0.zip",
            "files/vd-app/../../packages/secret-1.0.zip",
            "files/vd-app/0123456789abcdef/secret-1.0.zip",
            "simple/vd-app/secret-1.0.zip",
        ):
            reply = self.ask(path)
            self.assertIn(reply.status, (400, 404), path)
            self.assertNotIn(b"secret\n", reply.body)
        self.assertEqual(self.origin.requests("/packages/secret-1.0.zip"), [])
        self.assertEqual(other.requests(), [])

    def test_restart(self) -> None:
        """What was fetched is served after a restart without the index, also to a client with the file's name alone."""
        self.start()
        app = self.index.projects["vd-app"][0]
        self.assertEqual(self.ask(f"files/{app.filename}").body, app.content)
        path = self.links("vd-app")[app.filename]
        eventually(lambda: self.ask(path, method="HEAD").cache == "HIT", what="a stored file")
        self.vault.terminate()
        self.origin.stop()
        self.vault.start()
        for one in (path, f"files/{app.filename}", app.path.replace("/packages", "files/packages")):
            reply = self.ask(one)
            self.assertEqual((reply.status, reply.body, reply.cache), (200, app.content, "HIT"), one)

    def test_release_age(self) -> None:
        """With a least age pip installs the newest release that is old enough."""
        new = wheel("vd-lib", "1.5", **{"upload-time": "2126-01-01T00:00:00Z"})
        self.index.put("vd-lib", *self.index.projects["vd-lib"], new)
        self.start(min_release_age="1d")
        self.check(pip_install(self.directory / "pip", self.url, "vd-lib", "--no-cache-dir"))
        self.assertEqual(self.installed(self.directory / "pip"), {"vd_lib": "1.0"})

    def test_cached_by_pip(self) -> None:
        """pip with a cache of its own asks again when a page has expired, and hears that nothing has changed."""
        self.start(ttl=1)
        home = self.directory / "pip"
        for number in range(2):
            self.check(
                pip_install(home, self.url, "vd-lib", "--upgrade", "--trusted-host", f"127.0.0.1:{self.vault.port}")
            )
            if number == 0:
                subprocess.run(["sleep", "2"], check=True)
        self.assertRegex(self.vault.log(), r'GET /pypi/simple/vd-lib/ HTTP/1.1" 304 ')


class SmokeTests(FunctionalCase):
    """The index that this machine's pip uses."""

    def setting(self, name: str) -> str | None:
        """A setting of pip's."""
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
        ).stdout
        found = [line.partition("=")[2].strip("'\"") for line in listed.splitlines() if f".{name}=" in line]
        return found[-1] if found else None

    def test_index(self) -> None:
        """A small wheel can be installed from it through the vault, the second time without its host being asked."""
        index = self.setting("index-url") or public_index()
        parts = urlsplit(index)
        if parts.scheme not in ("http", "https"):
            raise SkipTest("pip's index here is no web server")
        settings: dict[str, Any] = {"prefix": "/pypi/", "index_url": parts._replace(netloc=self.host(index)).geturl()}
        if parts.username:
            settings |= {"username": parts.username, "password": parts.password or ""}
        certificates = self.setting("cert") or os.environ.get("SSL_CERT_FILE")
        if certificates:
            settings["ca_file"] = certificates
        self.start_vault(backends=[{"type": "pypi", "config": settings}])
        reply = ask(self.vault.port, "/pypi/simple/iniconfig/", ASK_JSON)
        if reply.status != 200:
            raise SkipTest(f"the index of this machine's pip cannot be reached: {reply.body.decode()[:200]}")
        for name in ("first", "second"):
            home = self.directory / name
            done = pip_install(home, f"{self.vault.url}/pypi/simple/", "iniconfig", "--no-deps", "--no-cache-dir")
            self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(self.vault.log(), r'GET /pypi/files/iniconfig/[^"]+\.whl HTTP/1\.1" 200 .*HIT')
        (kept,) = Path(self.vault.cache_dir, "pypi", "files", "iniconfig").glob("*/*.whl")
        self.assertIsNone(zipfile.ZipFile(kept).testzip())

    def host(self, url: str) -> str:
        """Host and port of a URL, without a name and a password."""
        return urlsplit(url).netloc.rpartition("@")[2]
