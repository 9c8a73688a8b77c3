"""Names of projects and of distribution files.

Sources: packaging.python.org, specifications "Names and normalization" (PEP 503, 508), "Binary distribution format",
"Source distribution format"; what older tools wrote is read as far as it can be.
"""

from __future__ import annotations

import re

MOST_CANDIDATES = 6
"""How many projects ``project_of`` names at most: each may cost its caller a request."""

LONGEST = 255
"""The longest file name (characters) that is looked at."""

COMPANIONS = (".metadata", ".asc", ".provenance")
"""What is appended to a distribution file's name for the files that go with it."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_SEPARATORS = re.compile(r"[-_.]+")
_KINDS = (
    *(".tar.gz", ".tar.bz2", ".tar.xz", ".tar.Z", ".tar.lzma", ".tgz", ".tbz", ".tbz2", ".txz", ".tlz", ".tar"),
    *(".whl", ".zip", ".egg", ".exe", ".msi", ".rpm", ".deb", ".dmg"),
)
# What the older formats put after the version: the Python version and the platform.
_TAIL = re.compile(
    r"(?:\.(?:win32|win-(?:amd64|arm\w*|ia64)|linux-\w+|macosx-[\d.]+-\w+|noarch|src|x86_64|i\d86))?"
    r"(?:-py\d[\d.]*(?:-[\w.-]+)?)?"
)
_TAIL_START = re.compile(r"\.(?:win|linux-|macosx-|noarch|src|x86_64|i\d86)|-py\d")
# PEP 440 in all its spellings, as far as it matters for telling a version from a part of a name.
_VERSION = re.compile(
    r"v?(?:\d+!)?\d+(?:\.\d+)*(?:[-_.]?(?:alpha|beta|preview|pre|post|rev|dev|rc|a|b|c|r)[-_.]?\d*)*(?:-\d+)?"
    r"(?:[+_][a-z0-9]+(?:[-_.][a-z0-9]+)*)?",
    re.IGNORECASE,
)


def normalise(name: str) -> str:
    """The name in the one spelling that all its spellings share (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()


def is_name(text: str) -> bool:
    """True if a project may be called so (PEP 508)."""
    return _NAME.fullmatch(text) is not None


def is_distribution(filename: str) -> bool:
    """True if the file's name ends as those of distribution files do."""
    return _stem(filename) is not None


def distribution_of(filename: str) -> str:
    """The distribution file that a file goes with, which may be itself: ``a-1.whl`` for ``a-1.whl.metadata``."""
    while filename.endswith(COMPANIONS):
        filename = filename.rpartition(".")[0]
    return filename


def project_of(filename: str) -> list[str]:
    """The normalised names of the projects that a file can belong to, the most probable first.

    A wheel says its project clearly, and so does a source distribution whose name was escaped as it is now required.
    Where the name has more dashes each of them may begin the version.  Empty for what is no distribution file or a
    companion of one.
    """
    filename = distribution_of(filename)
    stem = _stem(filename)
    if stem is None:
        return []
    if filename.lower().endswith(".whl"):
        name = stem.partition("-")[0]
        return [normalise(name)] if is_name(name) else []
    for tail in _TAIL_START.finditer(stem):
        if _TAIL.fullmatch(stem, tail.start()):
            stem = stem[: tail.start()]
            break
    splits = [(stem[: dash.start()], stem[dash.end() :]) for dash in re.finditer("-", stem)]
    ranked = sorted(enumerate(splits), key=lambda item: (*_improbability(*item[1]), -item[0]))
    names = (normalise(name) for _, (name, version) in ranked if version and is_name(name))
    return list(dict.fromkeys(names))[:MOST_CANDIDATES]


def _stem(filename: str) -> str | None:
    """A distribution file's name without its ending; None for other files."""
    if len(filename) > LONGEST or not filename.isprintable() or "/" in filename or "\\" in filename:
        return None
    lower = filename.lower()
    for kind in _KINDS:
        if lower.endswith(kind.lower()) and len(filename) > len(kind):
            return filename[: -len(kind)]
    return None


def _improbability(name: str, version: str) -> tuple[bool, bool, bool]:
    """How improbable it is that a file's name is to be cut so; of equal cuts the rightmost is taken.

    A rightmost part that is a version by itself may still belong to one with a dash: ``1.0-1``.
    """
    last = name.rpartition("-")[2]
    return (
        _VERSION.fullmatch(version) is None,
        "." in last and _VERSION.fullmatch(last) is not None,
        not version[:1].isdigit(),
    )
