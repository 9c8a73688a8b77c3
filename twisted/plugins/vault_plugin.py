"""Tells twistd of the ``artifact-vault`` command; nothing of the vault is imported until it is run."""

import os
from typing import Any

from twisted.application.service import ServiceMaker


class VaultMaker(ServiceMaker):
    """Takes signals before it imports the rest."""

    @property
    def options(self) -> Any:
        """The class of the command's options, which twistd asks for once it knows that this command is to be run."""
        from vault.starting import name_sockets, take_signals

        take_signals()
        name_sockets(os.environ)
        return super().options


serviceMaker = VaultMaker("Artifact Vault", "vault.tap", "A read-through cache for binary artifacts.", "artifact-vault")
