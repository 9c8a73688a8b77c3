"""Indexes that are not as they should be, or change behind the vault's back, and pip through a real vault."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

from tests.functional.clients import Stream, together
from tests.functional.python_clients import pip_install, poetry, poetry_project, uv_install
from tests.functional.script import Answer
from tests.functional.simple_index import JSON, SimpleIndex, wheel
from tests.functional.test_pypi_clients import PyPICase
from tests.functional.vault_process import eventually


class AwkwardIndexTests(PyPICase):
    """A vault in front of an index with one project."""

    def publish(self, index: SimpleIndex) -> None:
        """Its wheel is large enough to be read in parts."""
        self.wheel = wheel("vd-odd", "1.0", padding=4_000_000, **{"core-metadata": False})
        index.put("vd-odd", self.wheel)

    def install(self) -> None:
        """pip installs it, in a place of its own."""
        self.homes = getattr(self, "homes", 0) + 1
        home = self.directory / f"pip-{self.homes}"
        self.check(pip_install(home, self.url, "vd-odd"))
        self.assertEqual(self.installed(home), {"vd_odd": "1.0"})

    def entry(self, **changes: Any) -> dict[str, Any]:
        """The wheel's entry on the page."""
        return {**self.index.entry(self.wheel), **changes}

    def put_page(self, entry: dict[str, Any]) -> None:
        """The project's page with this entry."""
        self.index.serial += 1
        self.index.put_page("vd-odd", {**self.index.page("vd-odd"), "files": [entry]})

    def test_compressed(self) -> None:
        """pip installs from an index that compresses its pages whatever it is asked for."""
        page = json.dumps(self.index.page("vd-odd")).encode()
        anchor = f'<a href="{self.origin.url}{self.wheel.path}#sha256={self.wheel.sha256}">{self.wheel.filename}</a>'
        for kind, body in ((JSON, page), ("text/html", anchor.encode())):
            self.origin.put(
                "/simple/vd-odd/",
                content=gzip.compress(body),
                content_type=kind,
                etag=None,
                last_modified=None,
                headers={"Content-Encoding": "gzip", "Vary": "Accept-Encoding"},
            )
            if kind == JSON:
                self.start(ttl=1)
            eventually(lambda: self.ask("simple/vd-odd/").cache in ("MISS", "REVALIDATED"), what="the page asked for")
            self.install()

    def test_signed(self) -> None:
        """pip installs a wheel whose URL on the page that the vault has is good no more."""
        self.start()
        for number in (1, 2):
            url = f"{self.wheel.path}?signature={number}"
            self.origin.put(url, content=self.wheel.content, etag=None)
            self.put_page(self.entry(url=self.origin.url + url))
            if number == 1:
                self.assertEqual(self.ask("simple/vd-odd/").cache, "MISS")
                self.origin.put(url, content=b"expired", default=Answer(status=403))
        self.install()
        self.install()
        targets = [record.target.rpartition("?")[2] for record in self.origin.requests(self.wheel.path)]
        self.assertEqual(targets, ["signature=1", "signature=2"])
        self.assertEqual(len(self.origin.requests("/simple/vd-odd/")), 2)

    def test_resumed(self) -> None:
        """A download that ends with the vault is gone on with by the tag that it began with, after a restart."""
        digest = hashlib.sha512(self.wheel.content).hexdigest()
        self.put_page(self.entry(hashes={"sha512": digest}))
        self.origin.put(
            self.wheel.path, content=self.wheel.content, etag=None, last_modified=None, default=Answer(rate=2e6)
        )
        self.start()
        (file,) = json.loads(self.ask("simple/vd-odd/", {"Accept": JSON}).body)["files"]
        target = file["url"].replace("../../", "/pypi/")
        first = Stream(self.vault.port, target)
        self.addCleanup(first.close)
        self.assertEqual(first.headers.get("etag"), f'"sha512-{digest}"')
        beginning = first.read(1_000_000)
        self.vault.kill()
        self.vault.start()
        fields = {"Range": f"bytes={len(beginning)}-", "If-Range": first.headers["etag"]}
        rest = self.ask(target.removeprefix("/pypi/"), fields)
        self.assertEqual((rest.status, beginning + rest.body == self.wheel.content), (206, True))
        asked = self.origin.requests(self.wheel.path)
        self.assertEqual(len(asked), 2)
        self.assertRegex(asked[1].headers.get("range", ""), r"^bytes=[1-9]\d+-$")

    def test_silent(self) -> None:
        """pip, uv and poetry ask again while an index says nothing, and install once it wakes; it was asked once."""
        for name in ("pip", "uv", "poetry"):
            self.index.put(f"vd-{name}", wheel(f"vd-{name}", "1.0"))
            page = self.index.page(f"vd-{name}")
            self.index.put_page(f"vd-{name}", page, default=Answer(delay=17))
        self.start(first_byte_timeout=60)

        def install(number: int) -> None:
            home = self.directory / ("pip", "uv", "poetry")[number]
            if home.name == "poetry":
                project = poetry_project(home, self.url, "vd-poetry")
                self.check(poetry(home, project, "lock"))
                self.assertIn('name = "vd-poetry"\nversion = "1.0"', (project / "poetry.lock").read_text())
            else:
                self.check((pip_install, uv_install)[number](home, self.url, f"vd-{home.name}"))
                self.assertEqual(self.installed(home), {f"vd_{home.name}": "1.0"})

        together(3, install)
        log = self.vault.log()
        for name in ("pip", "uv", "poetry"):
            self.assertRegex(log, rf'"GET /pypi/simple/vd-{name}/ HTTP/1\.1" 503 ')
            self.assertRegex(log, rf'"GET /pypi/simple/vd-{name}/ HTTP/1\.1" 200 .*JOINED')
            self.assertEqual(len(self.origin.requests(f"/simple/vd-{name}/")), 1)

    def test_taken_over(self) -> None:
        """Nobody can take over a name by getting a project removed from the index that had it."""
        public = SimpleIndex(self.start_origin())
        public.put("vd-odd", wheel("vd-odd", "666.0"))
        backend = self.pypi_backend(index_urls=[self.index.url, public.url], ttl=1, negative_ttl=1)
        del backend["config"]["index_url"]
        self.start_vault(backends=[backend])
        self.url = f"{self.vault.url}/pypi/simple/"
        self.install()
        self.origin.remove("/simple/vd-odd/")
        self.vault.terminate()
        self.vault.start()
        for _ in range(2):
            self.install()
        self.assertEqual(self.ask("simple/vd-odd/").cache, "STALE")
        self.assertEqual(public.origin.requests(), [])
