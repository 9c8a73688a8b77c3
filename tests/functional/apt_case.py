"""What the tests with a real apt have in common: a key, a repository, its server, a vault, clients."""

from __future__ import annotations

from typing import Any

from tests.functional.case import FAST, FunctionalCase
from tests.functional.file_server import FileServer
from tests.functional.repository import Apt, Keys, Repository, need
from tests.functional.vault_process import VaultProcess

__all__ = ["AptCase"]


class AptCase(FunctionalCase):
    """``self.repository`` is served by ``self.server``; ``self.vault`` has it at ``/apt/``, fresh for one second."""

    def setUp(self) -> None:
        need("apt-get", "dpkg-deb", "apt-ftparchive", "gpg")
        super().setUp()
        self.keys = Keys(self.directory)
        self.addCleanup(self.keys.close)

    def serve(self, **options: Any) -> Repository:
        """A repository with one package, published, and a vault in front of it."""
        self.repository = Repository(self.directory / "repository", self.keys, **options)
        self.repository.add("hello")
        self.repository.publish()
        self.server = FileServer(self.repository.root)
        self.addCleanup(self.server.stop)
        self.start_apt_vault()
        return self.repository

    def start_apt_vault(self, top: dict[str, Any] | None = None, **settings: Any) -> VaultProcess:
        """Start the vault; ``settings`` are its backend's."""
        config = {"prefix": "/apt/", "mirror_url": self.server.url + "/", "ttl": 1, **FAST, **settings}
        if "mirror_urls" in settings:
            del config["mirror_url"]
        return self.start_vault(backends=[{"type": "apt", "config": config}], top=top)

    @property
    def source(self) -> str:
        """The line for sources.list."""
        where = f"{self.vault.url}/apt/"
        suite = "./" if self.repository.flat else "test main"
        return f"deb [signed-by={self.keys.public}] {where} {suite}\n"

    def client(self, name: str = "client", source: str | None = None, *options: str) -> Apt:
        """A client with its own directories."""
        return Apt(self.directory / name, source or self.source, *options)
