"""Tells twistd of the ``artifact-vault`` command; nothing of the vault is imported until it is run."""

from twisted.application.service import ServiceMaker

serviceMaker = ServiceMaker(
    "Artifact Vault", "vault.tap", "A read-through cache for binary artifacts.", "artifact-vault"
)
