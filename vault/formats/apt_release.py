"""Release files (Debian repository format): what they list, whether they are clear-signed or have a signature beside.

Signatures are not checked, that is the client's part; but a file that is cut short, or none at all, is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from vault.artifact import DIGEST_BYTES, Digest
from vault.formats.apt_paths import ALGORITHMS, canonical, is_size

BEGIN_MESSAGE = "-----BEGIN PGP SIGNED MESSAGE-----"
BEGIN_SIGNATURE = "-----BEGIN PGP SIGNATURE-----"
END_SIGNATURE = "-----END PGP SIGNATURE-----"

MAX_LISTED = 200_000
"""More index files than any archive has."""

STRONGEST = ("sha256", "sha512", "sha1", "md5")
"""Which of several digests is checked: SHA256 first, which the store knows its entries by."""

BY_STRENGTH = ("sha512", "sha256", "sha1", "md5")
"""As apt has them: of several sizes given for a file it takes that beside the strongest digest."""

_FIELD = re.compile(r"([!-9;-~]+):[ \t]*(.*)")


class Listed(NamedTuple):
    """What a Release file says of an index file: its size in bytes and its digests by hashlib's names."""

    size: int
    digests: dict[str, str]

    @property
    def digest(self) -> Digest:
        """The digest to check."""
        name = next(name for name in STRONGEST if name in self.digests)
        return Digest(name, self.digests[name])


@dataclass(frozen=True, slots=True)
class Release:
    """A Release file that was read.

    ``date`` is POSIX seconds, None where there is none, and so is ``valid_until``, from when on clients refuse it.
    ``by_hash``: index files can be had by their digests.  ``files`` has what it lists by canonical path, relative to
    the suite.
    """

    date: float | None
    by_hash: bool
    files: dict[str, Listed]
    valid_until: float | None = None


def signed_text(data: bytes) -> str:
    """The text of an InRelease file, without its signature (RFC 9580 section 7); raises ValueError."""
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    begin, _, rest = text.partition(BEGIN_MESSAGE + "\n")
    if not rest or begin.strip():
        raise ValueError("it does not begin as a signed message")
    _, blank, rest = rest.partition("\n\n")
    signed, mark, signature = rest.partition("\n" + BEGIN_SIGNATURE)
    if not blank or not mark or not signature.rstrip().endswith("\n" + END_SIGNATURE):
        raise ValueError("its signature is missing or cut short, or something follows that apt does not take")
    return "\n".join(line.removeprefix("- ") for line in signed.split("\n")) + "\n"


def same_text(in_release: bytes, release: bytes) -> bool:
    """True if a Release file has just the text that an InRelease file signs, trailing white space aside."""
    try:
        signed = signed_text(in_release)
    except ValueError:
        return False
    plain = release.decode("utf-8", "replace")
    return [line.rstrip() for line in signed.rstrip().splitlines()] == [
        line.rstrip() for line in plain.rstrip().splitlines()
    ]


def parse(data: bytes, signed: bool) -> Release:
    """Read a Release file, or an InRelease file where ``signed``; raises ValueError for what is none."""
    text = signed_text(data) if signed else data.decode("utf-8", "replace").replace("\r\n", "\n")
    fields: dict[str, str] = {}
    files: dict[str, Listed] = {}
    algorithm: str | None = None
    known = False
    for line in text.split("\n"):
        if line[:1] in (" ", "\t"):
            if algorithm is not None:
                _list(files, algorithm, line.split())
            continue
        match = _FIELD.fullmatch(line)
        algorithm = None
        if match is not None:
            known = True
            algorithm = ALGORITHMS.get(match[1])
            fields[match[1].lower()] = match[2].strip()
        elif line.strip():
            raise ValueError(f"it has a line that is no field: {line[:60]!r}")
    if not known:
        raise ValueError("it has no fields")
    by_hash = fields.get("acquire-by-hash", "").lower() == "yes"
    return Release(_date(fields.get("date")), by_hash, files, _date(fields.get("valid-until")))


def _list(files: dict[str, Listed], algorithm: str, words: list[str]) -> None:
    if len(words) != 3 or not is_size(words[1]) or len(files) > MAX_LISTED:
        return
    value, size, name = words[0].lower(), int(words[1]), canonical(words[2])
    if name is None or len(value) != 2 * DIGEST_BYTES[algorithm] or not re.fullmatch("[0-9a-f]+", value):
        return
    known = files.setdefault(name, Listed(size, {}))
    if known.size != size and min(map(BY_STRENGTH.index, known.digests)) > BY_STRENGTH.index(algorithm):
        files[name] = Listed(size, {algorithm: value})
    elif known.size == size:
        known.digests[algorithm] = value


def _date(text: str | None) -> float | None:
    """POSIX seconds of a ``Date`` field, which says UTC where an HTTP-date says GMT."""
    try:
        date = parsedate_to_datetime(text or "")
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def named(files: dict[str, Listed], directory: str, algorithm: str, value: str) -> Iterator[str]:
    """The names, of files in a directory of the suite, that have this digest."""
    for name, listed in files.items():
        if listed.digests.get(algorithm) == value and name.rpartition("/")[0] == directory:
            yield name
