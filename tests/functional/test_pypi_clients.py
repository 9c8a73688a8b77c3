"""pip, uv and poetry through the vault: cold, warm, and with the index gone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.functional.case import FAST, FunctionalCase
from tests.functional.clients import Reply, ask
from tests.functional.python_clients import pip_install, poetry, poetry_project, program, run, uv_install
from tests.functional.simple_index import SimpleIndex, sdist, wheel

TTL = 4.0


class PyPICase(FunctionalCase):
    """An index with a small tree of projects, and a vault in front of it."""

    def setUp(self) -> None:
        super().setUp()
        self.index = self.make_index()
        self.publish(self.index)

    def make_index(self) -> SimpleIndex:
        """The index."""
        return SimpleIndex(self.origin)

    def publish(self, index: SimpleIndex) -> None:
        """``vd-app`` needs ``vd.lib``, of which one version is yanked and one for another Python, and ``vd_source``."""
        index.put("vd-app", wheel("vd-app", "1.0", ("VD.lib>=1", "vd_source"), provenance=True, **{"x-unknown": [1]}))
        index.put(
            "vd-lib",
            wheel("vd-lib", "1.0", padding=3_000_000, **{"gpg-sig": True}),
            wheel("vd-lib", "1.1", yanked='broken <b>"badly"</b>'),
            wheel("vd-lib", "9.0", **{"requires-python": ">=4"}),
        )
        index.put("vd-source", sdist("vd-source", "2.0"))

    def pypi_backend(self, **settings: Any) -> dict[str, Any]:
        """The configuration of the backend."""
        config = {"prefix": "/pypi/", "index_url": self.index.url, **FAST, **settings}
        return {"type": "pypi", "config": config}

    def start(self, **settings: Any) -> None:
        """Start a vault in front of the index."""
        self.start_vault(backends=[self.pypi_backend(**settings)])
        self.url = f"{self.vault.url}/pypi/simple/"

    def ask(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Reply:
        """Ask the vault for a path below the prefix."""
        return ask(self.vault.port, f"/pypi/{path}", headers, method)

    def check(self, done: subprocess.CompletedProcess[str]) -> str:
        """A client has succeeded; what it said."""
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def installed(self, home: Path) -> dict[str, str]:
        """The projects that are installed below ``home/site``."""
        names = [path.name.removesuffix(".dist-info") for path in (home / "site").glob("*.dist-info")]
        return dict(name.split("-") for name in names)

    def file_requests(self) -> int:
        """How many files were fetched from the index."""
        return sum(
            record.path.startswith("/packages/") and not record.path.endswith(".metadata")
            for record in self.origin.requests(method="GET")
        )


TREE = {"vd_app": "1.0", "vd_lib": "1.0", "vd_source": "2.0"}


class ClientTests(PyPICase):
    """The whole tree, three times each."""

    def three_times(self, install: Any) -> None:
        """Cold, warm and with the index gone: the same is installed, and files are fetched once."""
        self.start(ttl=TTL)
        self.check(install(self.directory / "cold"))
        self.assertEqual(self.installed(self.directory / "cold"), TREE)
        self.assertEqual(self.file_requests(), 3)
        self.check(install(self.directory / "warm"))
        self.assertEqual(self.installed(self.directory / "warm"), TREE)
        self.assertEqual(self.file_requests(), 3)
        self.origin.stop()
        time.sleep(TTL)
        self.check(install(self.directory / "gone"))
        self.assertEqual(self.installed(self.directory / "gone"), TREE)
        self.assertIn(self.ask("simple/vd-app/").cache, ("STALE",))

    def test_pip(self) -> None:
        """pip installs through the vault, again without the index being asked for files, and with the index gone."""
        self.three_times(lambda home: pip_install(home, self.url, "vd-app", "--no-cache-dir"))

    def test_uv(self) -> None:
        """So does uv."""
        self.three_times(lambda home: uv_install(home, self.url, "vd-app"))

    def test_poetry(self) -> None:
        """So does poetry, whose lock file names the vault."""
        self.start(ttl=TTL)
        for name in ("cold", "warm", "gone"):
            home = self.directory / name
            project = poetry_project(home, self.url, "vd-app")
            self.check(poetry(home, project, "lock"))
            self.assertIn(self.url.rstrip("/"), (project / "poetry.lock").read_text())
            self.check(poetry(home, project, "install", "--no-root"))
            found = [path.name for path in project.glob(".venv/lib/*/site-packages/vd_*.dist-info")]
            self.assertEqual(sorted(found), [f"{name}-{version}.dist-info" for name, version in sorted(TREE.items())])
            self.assertLessEqual(self.file_requests(), 3)
            if name == "warm":
                self.origin.stop()
                time.sleep(TTL)

    def test_uv_lock(self) -> None:
        """A lock file of uv's can be used with a vault that has nothing yet, whether or not it has met the project."""
        self.start()
        home = self.directory / "first"
        project = home / "project"
        project.mkdir(parents=True)
        (project / "pyproject.toml").write_text(
            '[project]\nname = "a-project"\nversion = "1.0"\n'
            f'requires-python = "=={sys.version_info[0]}.{sys.version_info[1]}.*"\ndependencies = ["vd-app"]\n'
            f'[[tool.uv.index]]\nname = "vault"\nurl = "{self.url}"\ndefault = true\n'
        )
        uv = program("uv")
        self.check(run(home, uv, "lock", "--python", sys.executable, cwd=project))
        self.assertIn(f"{self.vault.url}/pypi/files/", (project / "uv.lock").read_text())
        self.vault.terminate()
        self.vault.cache_dir.rename(self.directory / "old")
        self.vault.start()
        self.check(run(self.directory / "other", uv, "sync", "--frozen", "--python", sys.executable, cwd=project))


class HTMLClientTests(PyPICase):
    """An index that has only HTML, as older ones do."""

    def make_index(self) -> SimpleIndex:
        return SimpleIndex(self.origin, html_only=True)

    def test_clients(self) -> None:
        """pip and uv install from it, and get JSON from the vault."""
        self.start()
        self.check(pip_install(self.directory / "pip", self.url, "vd-app", "--no-cache-dir"))
        self.assertEqual(self.installed(self.directory / "pip"), TREE)
        self.check(uv_install(self.directory / "uv", self.url, "vd-app"))
        self.assertEqual(self.installed(self.directory / "uv"), TREE)


class PrivateClientTests(PyPICase):
    """An index that wants a name and a password."""

    def make_index(self) -> SimpleIndex:
        return SimpleIndex(self.origin, login=("robot", "s3cret"))

    def test_private(self) -> None:
        """The vault logs in; its clients need not, and the password is nowhere to be seen."""
        self.start(username="robot", password="s3cret")
        self.check(pip_install(self.directory / "pip", self.url, "vd-app", "--no-cache-dir"))
        self.assertEqual(self.installed(self.directory / "pip"), TREE)
        self.assertNotIn("s3cret", self.vault.whole_log())

    def test_two_indexes(self) -> None:
        """A project can say which of two backends a package comes from; the password goes to its own index alone."""
        public = SimpleIndex(self.start_origin())
        public.put("vd-source", wheel("vd-source", "3.0"))
        public.put("vd-lib", wheel("vd-lib", "8.0"))
        private = self.pypi_backend(prefix="/internal/", username="${VD_USER}", password="${VD_PASSWORD}")
        self.start_vault(
            backends=[self.pypi_backend(index_url=public.url), private],
            variables={"VD_USER": "robot", "VD_PASSWORD": "s3cret"},
        )
        project = self.directory / "uv" / "project"
        project.mkdir(parents=True)
        (project / "pyproject.toml").write_text(
            '[project]\nname = "a-project"\nversion = "1.0"\n'
            f'requires-python = "=={sys.version_info[0]}.{sys.version_info[1]}.*"\n'
            'dependencies = ["vd-lib", "vd-source"]\n'
            f'[[tool.uv.index]]\nname = "vault"\nurl = "{self.vault.url}/pypi/simple/"\ndefault = true\n'
            f'[[tool.uv.index]]\nname = "internal"\nurl = "{self.vault.url}/internal/simple/"\nexplicit = true\n'
            '[tool.uv.sources]\nvd-lib = { index = "internal" }\n'
        )
        self.check(run(project.parent, program("uv"), "lock", "--python", sys.executable, cwd=project))
        lock = (project / "uv.lock").read_text()
        self.assertIn('name = "vd-lib"\nversion = "1.0"', lock)
        self.assertIn('name = "vd-source"\nversion = "3.0"', lock)
        self.assertEqual({r.headers.get("authorization") for r in public.origin.requests()}, {None})

    def test_refused(self) -> None:
        """With a wrong password clients get 502 with the reason: never 401 or 403, at which they would give up."""
        self.start(username="robot", password="wr0ng")
        reply = self.ask("simple/vd-app/")
        self.assertEqual((reply.status, reply.headers["content-type"]), (502, "application/problem+json"))
        self.assertIn(b"check the backend's credentials", reply.body)
        self.assertNotIn(b"wr0ng", reply.body)
        done = uv_install(self.directory / "uv", self.url, "vd-app", UV_HTTP_RETRIES="0")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("check the backend's credentials", " ".join(done.stdout.split()))


__all__ = ["PyPICase"]
