"""The elements of ``listen``: Twisted's endpoint descriptions, checked before anything listens.

Twisted refuses a wrong one by what its Python says of the call; here that becomes a sentence with what would be right.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import serverFromString

from vault.values import Telling, unscoped

ENDPOINTS = {
    "tcp": "tcp:8080:interface=0.0.0.0",
    "tcp6": "tcp6:8080",
    "ssl": "ssl:8443:privateKey=KEY.pem:certKey=CERTIFICATE.pem",
    "tls": "tls:DIRECTORY:8443",
    "unix": "unix:/run/artifact-vault.sock:mode=660",
    "systemd": "systemd:domain=INET:index=0",
}
"""Each kind, with an example."""

ARGUMENTS = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "ssl": (
        "port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain", "dhParameters",
    ),
    "tls": ("path", "port", "backlog", "interface"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name"),
}  # fmt: skip
"""What they take, in the order in which it may stand without its name."""

NUMBERS = {
    "backlog": (r"[0-9]+", "a whole number, such as 1024"),
    "mode": (r"[0-7]+", "octal digits, such as 660"),
    "lockfile": (r"[0-9]+", "0 or 1"),
    "index": (r"[0-9]+", "a whole number, such as 0"),
}
"""What is a number of these, and what to give where it is none."""

ANY = {"tcp": "0.0.0.0", "ssl": "0.0.0.0", "tcp6": "::", "tls": "::"}  # noqa: S104 - what Twisted takes, not we


@dataclass(frozen=True, slots=True)
class Description:
    """An endpoint description in its parts: arguments without and with a name."""

    kind: str
    listed: tuple[str, ...]
    named: Mapping[str, str]

    @classmethod
    def of(cls, text: str) -> Description:
        """Read it as Twisted does: ``:`` between arguments, ``\\`` before what is to be taken as it is."""
        kind, *arguments = _split(text, ":")
        parts = [_split(argument, "=", 1) for argument in arguments]
        plain = [[re.sub(r"\\(.)", r"\1", part) for part in argument] for argument in parts]
        return cls(
            kind,
            tuple(argument[0] for argument in plain if len(argument) == 1),
            {argument[0]: argument[1] for argument in plain if len(argument) == 2},
        )

    def get(self, name: str) -> str | None:
        """The argument of this name, wherever it stands."""
        place = ARGUMENTS[self.kind].index(name)
        return self.named.get(name) or (self.listed[place] if place < len(self.listed) else None)

    @property
    def place(self) -> tuple[str, str] | None:
        """Where it listens: what no other may name; None where that is not known, or is any free port."""
        if self.kind == "unix":
            return "unix", self.get("address") or ""
        if self.kind == "systemd":
            index = self.get("index")
            return "systemd", f"index {index}" if index else f"name {self.get('name')}"
        port, host = self.get("port") or "443", self.get("interface") or ANY[self.kind]
        return (str(int(port)), host) if re.fullmatch(r"[0-9]{1,5}", port) and int(port) else None


def _split(text: str, separator: str, most: int = -1) -> list[str]:
    """The parts between separators that no backslash stands before, at ``most`` so many separators."""
    parts = [""]
    for piece in re.findall(r"\\?.|\\", text, re.DOTALL):
        if piece == separator and most:
            parts.append("")
            most -= 1
        else:
            parts[-1] += piece
    return parts


def endpoint(text: str, environ: Mapping[str, str]) -> str:
    """A Twisted server endpoint description; key files are read, nothing is bound."""
    described = Description.of(text)
    kind = described.kind
    if kind not in ENDPOINTS:
        raise ValueError(f"is not an endpoint; give one of {', '.join(ENDPOINTS)}, such as {ENDPOINTS['tcp']}")
    example = ENDPOINTS[kind]
    if kind in ANY:
        _check_address(described.get("interface") or "")
        port = described.get("port") or ("443" if kind == "tls" else "")
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            _check_colons(described, text)
            raise ValueError(f"has no port from 0 to 65535; give one, such as {example}")
    if kind == "tls" and not _is_directory(described.get("path") or ""):
        raise ValueError(f"names no directory of PEM files; give one such as {example}")
    if kind == "unix" and not described.get("address"):
        raise ValueError(f"names no socket; give one such as {example}")
    if kind == "systemd":
        _check_arguments(described)
        if not re.fullmatch(r"INET6?|UNIX", described.get("domain") or "") or (
            ("index" in described.named) == ("name" in described.named)
        ):
            raise ValueError(f"is not an endpoint; give one such as {example}, or with name=NAME")
        if not environ.get("LISTEN_FDS"):
            return text  # outside systemd there is no socket to look up; what can be checked is the form
        if environ.get("LISTEN_PID", str(os.getpid())) != str(os.getpid()):
            raise ValueError(
                "names a socket that was passed to another process than this one (LISTEN_PID); "
                "have what starts the vault become it (exec), or name another address"
            )
    parse: Callable[[Any, str], object] = serverFromString
    try:
        parse(object(), text)  # the reactor is only kept, and used when something listens
    except OSError as error:
        why = f"({error.strerror}); give files that can be read"
        raise Telling(f"needs {error.filename} {why}", f"names a file that cannot be read {why}") from None
    except Exception as error:  # the parsers and OpenSSL raise anything
        _check_colons(described, text)
        _check_arguments(described)
        if kind == "ssl":
            raise ValueError(f"names files that are no PEM certificate and key; give one such as {example}") from None
        if kind == "systemd" and isinstance(error, LookupError):
            raise ValueError("names a socket that systemd has not passed; mend its index or name") from None
        plain = f"is refused; give one such as {example}"
        if isinstance(error, (TypeError, AttributeError)):  # of the call, not of what it was called with
            raise ValueError(plain) from None
        raise Telling(f"is refused ({error}); give one such as {example}", plain) from None
    return text


def _check_address(host: str) -> None:
    if host.startswith("["):
        raise ValueError(r"has an address in brackets; leave them out, such as interface=\:\:1")
    if unscoped(host):
        raise ValueError("has a link-local address without its interface; put that behind it, such as %eth0")


def _check_colons(described: Description, text: str) -> None:
    """Raise ValueError where something looks as if an IPv6 address had been taken for several arguments."""
    kind, inside = described.kind, re.sub(r"\\.", "", text).partition(":")[2]
    doubled = kind in ANY and ("::" in inside or inside.startswith("["))
    if doubled or len(described.listed) > len(ARGUMENTS[kind]):
        example = r"tls:DIRECTORY:8443:interface=\:\:1" if kind == "tls" else rf"{kind}:8443:interface=\:\:1"
        example = example if kind in ANY else r"unix:/run/a\:b.sock"
        raise ValueError(f"has more colons than arguments; write each colon within one as \\:, such as {example}")


def _check_arguments(described: Description) -> None:
    """Raise ValueError for what Twisted has no argument for, or cannot take."""
    kind, known = described.kind, ARGUMENTS[described.kind]
    right = f"known are {', '.join(known)}, as in {ENDPOINTS[kind]}"
    for name in described.named:
        if name not in known:
            raise Telling(
                f"has an argument that {kind} does not take ({name}); {right}",
                f"has an argument that {kind} does not take; {right}",
            )
    if len(described.listed) > len(known):
        raise ValueError(f"has too many arguments; {right}")
    if twice := [name for name in known[: len(described.listed)] if name in described.named]:
        raise ValueError(f"gives {twice[0]} twice, with its name and without; leave one of the two out")
    for name in known:
        form, right = NUMBERS.get(name, ("", ""))
        value = described.get(name)
        if form and value and not re.fullmatch(form, value):
            raise ValueError(f"has no number for {name}; give {right}")


def clashing(descriptions: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of the paths and texts of endpoints each path of one that listens where another does, and that other's path."""
    found: list[tuple[str, str]] = []
    places: list[tuple[str, tuple[str, str]]] = []
    for path, text in descriptions:
        described = Description.of(text)
        place = described.place if described.kind in ENDPOINTS else None
        if place is not None:
            found += [(path, other) for other, there in places if _same(place, there)][:1]
            places.append((path, place))
    return found


def _same(one: tuple[str, str], other: tuple[str, str]) -> bool:
    if one[0] != other[0]:
        return False
    if one[0] in ("unix", "systemd"):
        return one[1] == other[1]
    return _same_address(one[1], other[1])


def _same_address(one: str, other: str) -> bool:
    """Whether one port cannot be taken on both; of names, and of IPv4 beside IPv6, only the system knows."""
    try:
        first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    except ValueError:
        return one == other
    return first.version == second.version and (first == second or first.is_unspecified or second.is_unspecified)


def _is_directory(path: str) -> bool:
    try:
        return bool(path) and Path(path).is_dir()
    except OSError:
        return False  # such as one whose name is too long
