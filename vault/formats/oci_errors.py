"""Errors in the form that registries tell them in (OCI distribution specification, "Error Codes")."""

from __future__ import annotations

import json

from vault.errors import BadRequest, Missing, VaultError

JSON = "application/json; charset=utf-8"

BY_STATUS = {
    400: "UNSUPPORTED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    410: "NAME_UNKNOWN",
    416: "RANGE_INVALID",
    429: "TOOMANYREQUESTS",
    503: "UNAVAILABLE",
}
"""The code for an error that names none itself; anything else is UNKNOWN."""


class Malformed(BadRequest):
    """The request names something that cannot be the name of anything: ``code`` says what is wrong with it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unknown(Missing):
    """There is no such image, manifest or blob, or none that the vault may read."""

    def __init__(self, code: str, message: str, upstream_status: int | None = None) -> None:
        super().__init__(message, upstream_status)
        self.code = code


def error_body(status: int, error: VaultError, backend: str) -> bytes:
    """The JSON body that tells of ``error``; messages are for people, who read them in the output of their client."""
    code = getattr(error, "code", None) or BY_STATUS.get(status, "UNKNOWN")
    message = f"{backend}: {error}" if backend else str(error)
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode() + b"\n"
