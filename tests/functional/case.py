"""What the functional tests have in common: an origin, a vault, real clients, and that nothing is left behind."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.functional.clients import Reply, Stream, ask
from tests.functional.content import Content, sha256_of_file
from tests.functional.origin import Origin
from tests.functional.proxy import ForwardProxy
from tests.functional.vault_process import ROOT, VaultProcess, environment, eventually

FAST = {"connect_timeout": 2, "first_byte_timeout": 3, "idle_timeout": 3, "retries": 2, "stale_while_revalidate": 0}


class FunctionalCase(SynchronousTestCase):
    """A test with ``self.origin``, and with ``self.vault`` once ``start_vault`` was called.

    Everything that was started is ended after the test, and the vault's log must be free of tracebacks.  With
    KEEP_TEST_DIRECTORIES in the environment the directories stay for a person to look at.
    """

    timeout = 120

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="vault-test-"))
        if not os.environ.get("KEEP_TEST_DIRECTORIES"):
            self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.origin = self.start_origin()

    def start_origin(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Origin:
        """Another origin."""
        origin = Origin(host, tls)
        self.addCleanup(origin.stop)
        return origin

    def start_proxy(self, login: tuple[str, str] | None = None) -> ForwardProxy:
        """A forward proxy."""
        proxy = ForwardProxy(login)
        self.addCleanup(proxy.stop)
        return proxy

    def backend(self, **settings: Any) -> dict[str, Any]:
        """The configuration of an ``http`` backend: ``/o/`` from the origin with short timeouts, then ``settings``."""
        config = {"prefix": "/o/", "base_url": self.origin.url + "/", **FAST, **settings}
        if "base_urls" in settings:
            del config["base_url"]
        return {"type": "http", "config": config}

    def new_vault(
        self,
        name: str = "vault",
        backends: list[dict[str, Any]] | None = None,
        top: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> VaultProcess:
        """A vault that is not started yet: ``settings`` are its backend's, ``top`` the top-level keys."""
        directory = self.directory / name
        directory.mkdir()
        config = {"backends": backends or [self.backend(**settings)], **(top or {})}
        vault = VaultProcess(directory, config, variables=variables)
        self.look_after(vault)
        return vault

    def look_after(self, vault: VaultProcess) -> None:
        """End the vault after the test, then read its log."""
        self.addCleanup(self._check_log, vault)
        self.addCleanup(vault.end)

    def start_vault(self, **options: Any) -> VaultProcess:
        """Start a vault as ``new_vault`` describes it; it becomes ``self.vault``."""
        self.vault = self.new_vault(**options)
        self.vault.start()
        return self.vault

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET", **options: Any) -> Reply:
        """Ask the vault for the origin's ``path``."""
        return ask(self.vault.port, "/o" + path, headers, method, **options)

    def stream(self, path: str, headers: Mapping[str, str] | None = None) -> Stream:
        """Ask the vault for the origin's ``path`` and read the answer piece by piece."""
        stream = Stream(self.vault.port, "/o" + path, headers)
        self.addCleanup(stream.close)
        return stream

    def kept(self, path: str) -> Path:
        """Where the cache keeps the origin's ``path``."""
        return self.vault.cache_dir / "o" / path.lstrip("/")

    def wait_until_stored(self, path: str, timeout: float = 20.0) -> None:
        """Wait until the vault answers for ``path`` from its cache."""
        eventually(lambda: self.get(path, method="HEAD").cache == "HIT", timeout, f"{path} in the cache")

    def wait_until_kept(self, path: str, content: Content, timeout: float = 20.0) -> None:
        """Wait until the cache directory has just this content as a plain file, then look at each of its bytes."""
        file = self.kept(path)
        eventually(lambda: file.is_file() and file.stat().st_size == content.size, timeout, f"{file} on the disk")
        self.assert_file(file, content)

    def assert_whole(self, reply: Reply, content: Content, status: int = 200) -> None:
        """The reply has ``status`` and just this content."""
        self.assertEqual(reply.status, status, reply.body[:300])
        self.assertTrue(reply.whole, "the body was cut")
        self.assertEqual(len(reply.body), content.size)
        self.assertTrue(reply.body == content.whole(), "the body differs")

    def assert_file(self, path: Path, content: Content) -> None:
        """The file has just this content."""
        self.assertEqual(path.stat().st_size, content.size)
        self.assertEqual(sha256_of_file(path), content.sha256())

    def assert_retry_after(self, reply: Reply, most: int = 60) -> None:
        """Retry-After is a whole number of seconds from 1 to ``most``."""
        value = reply.headers.get("retry-after", "")
        self.assertRegex(value, r"^\d+$")
        self.assertTrue(1 <= int(value) <= most, f"Retry-After: {value}")

    def run_client(self, client: str, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        """Run a real client to its end; skips the test where it is not installed."""
        if shutil.which(client) is None:
            raise SkipTest(f"{client} is not installed")
        # The clients' own configuration files must not decide what is tested.
        wgetrc = self.directory / "wgetrc"
        wgetrc.touch()
        variables = environment(HOME=str(self.directory), WGETRC=str(wgetrc))
        return subprocess.run(
            [client, *arguments],
            cwd=self.directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def curl(self, path: str, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        """Run curl on the vault's URL for the origin's ``path``."""
        return self.run_client("curl", "-q", "-sS", *arguments, f"{self.vault.url}/o{path}", timeout=timeout)

    def _check_log(self, vault: VaultProcess) -> None:
        log = vault.whole_log()
        for trouble in ("Traceback", "Unhandled error", "Unhandled Error"):
            position = log.find(trouble)
            if position >= 0:
                self.fail(f"the vault's log has a problem:\n{log[max(0, position - 500) : position + 3000]}")


__all__ = ["ROOT", "FunctionalCase"]
