"""Pages of the Simple Repository API: one with all there is, long ones, and random ones."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

WHEEL = "sample_project-2.0-py3-none-any.whl"
SDIST = "sample_project-2.0.tar.gz"
OLD = "Sample.Project-1.0.zip"
PLAIN = "sample_project-0.9.tar.gz"

# Every attribute of PEP 503, 592, 629, 658, 691, 700, 708, 714, 740 and 792, and keys nobody knows, in an odd order.
FULL = rb"""{
  "alternate-locations": ["https://other.example.org/simple/sample-project/"],
  "x-files": {"files": [{"url": "https://decoy.example.org/"}], "url": "https://decoy.example.org/"},
  "files": [
    {"core-metadata": {"sha256": "aa11"}, "data-dist-info-metadata": {"sha256": "bad"},
     "filename": "sample_project-2.0-py3-none-any.whl",
     "hashes": {"md5": "cc", "sha256": "bb22", "blake2b_256": "dd"},
     "provenance": "https://index.example.org/integrity/sample_project-2.0/provenance",
     "requires-python": ">=3.8,<4 \"\u00e9\"", "size": 12345, "upload-time": "2024-01-02T03:04:05.678901Z",
     "url": "https:\/\/files.example.org/packages/bb/22/sample_project-2.0-py3-none-any.whl", "yanked": false,
     "x-nested": {"url": "https://kept.example.org/", "n": [1.50, 1E400, -0, 123456789012345678901234567890]}},
    {"filename": "sample_project-2.0.tar.gz", "u\u0072l": "../../packages/sample_project-2.0.tar.gz",
     "hashes": {"sha512": "ee33", "sha384": "ff44"}, "core-metadata": false, "dist-info-metadata": true,
     "gpg-sig": true, "yanked": "broken <b>\"badly\"</b> & 'late' \ud83d\ude00 \ud800", "provenance": null},
    {"filename": "Sample.Project-1.0.zip", "url": "first", "url": "files/Sample.Project-1.0.zip#md5=00",
     "hashes": {}, "dist-info-metadata": true, "gpg-sig": false, "yanked": true, "requires-python": null, "size": null},
    {"url": "files/sample_project-0.9.tar.gz?a=1&b=2", "filename": "sample_project-0.9.tar.gz",
     "hashes": {"sha256": "1234"}, "data-dist-info-metadata": {"sha256": "99ff"}}
  ],
  "meta": {"_last-serial": 987654321, "api-version": "1.4", "tracks": ["https://up.example.org/simple/sample-project/"],
           "_private": null},
  "name": "sample-project",
  "project-status": {"status": "archived", "reason": "see \"elsewhere\" <now>"},
  "versions": ["0.9", "1.0", "2.0"],
  "x-unknown": [[], {}, [{"a": [true, false, null]}], "\ud800", 1e5, -0.0, {"": ""}]
}
"""


def entry(number: int) -> dict[str, Any]:
    """An entry as large indexes have them."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    filename = f"large_project-1.{number}.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    return {
        "core-metadata": {"sha256": digest},
        "data-dist-info-metadata": {"sha256": digest},
        "filename": filename,
        "hashes": {"sha256": digest},
        "requires-python": ">=3.8,!=3.9.*",
        "size": 123456 + number,
        "upload-time": "2024-01-01T00:00:00.000000Z",
        "url": f"https://files.example.org/packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{filename}",
        "yanked": False,
    }


def large(count: int) -> bytes:
    """A project's page with so many files."""
    return json.dumps(
        {
            "files": [entry(number) for number in range(count)],
            "meta": {"_last-serial": 1, "api-version": "1.4"},
            "name": "large-project",
            "versions": [f"1.{number}.0" for number in range(count)],
        }
    ).encode()


class RandomPages:
    """Pages and values of any shape, the same ones for the same seed."""

    STRINGS = (
        "",
        "url",
        "files",
        "filename",
        'a"b',
        "back\\slash",
        "\x00\x1f",
        "\u00e9\u4e2d\U0001f600",
        "\ud800",
        "/",
    )

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 0) -> Any:
        """Anything."""
        kind = self.random.randrange(5 if depth > 3 else 8)
        if kind == 0:
            return self.random.choice((True, False, None))
        if kind == 1:
            return self.random.choice((0, -1, 10**30, 1.5, -0.0, 1e300, 2.5e-7))
        if kind < 5:
            return self.random.choice(self.STRINGS) * self.random.choice((1, 1, 1, 30))
        if kind == 5:
            return {self.random.choice(self.STRINGS): self.value(depth + 1) for _ in range(self.random.randrange(5))}
        return [self.value(depth + 1) for _ in range(self.random.randrange(5))]

    def file(self, number: int) -> dict[str, Any]:
        """A valid entry with odd members, in any order."""
        members = [("filename", f"a-{number}.zip"), ("url", self.random.choice(("", "x", "\u4e2d", 'a"\\')))]
        members += [(f"x{index}", self.value(1)) for index in range(self.random.randrange(4))]
        self.random.shuffle(members)
        return dict(members)

    def page(self) -> bytes:
        """A valid page, written in one of several ways."""
        members = [
            ("files", [self.file(number) for number in range(self.random.choice((0, 1, 3, 200)))]),
            ("meta", {"api-version": "1.0"}),
        ]
        members += [(f"x{index}", self.value()) for index in range(self.random.randrange(4))]
        self.random.shuffle(members)
        text = json.dumps(
            dict(members),
            indent=self.random.choice((None, 1, "\t")),
            separators=self.random.choice((None, (",", ":"), (" ,\r\n", " : "))),
            ensure_ascii=self.random.random() < 0.7,
        )
        # Lone surrogates can only be escaped.
        return text.encode("utf-8", "surrogatepass").replace(b"\xed\xa0\x80", b"\\ud800")
