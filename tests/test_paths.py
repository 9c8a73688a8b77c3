"""Request paths in one safe spelling, and the file names that keys are stored under."""

from __future__ import annotations

import itertools

from twisted.trial.unittest import SynchronousTestCase

from vault.errors import BadRequest
from vault.paths import SAFE_DIRECTORY, file_name, key_of, normalise, safe_name, split


class NormaliseTests(SynchronousTestCase):
    def test_spelling(self) -> None:
        """Spellings that every server takes for the same become one; all others stay as sent."""
        for target, expected in (
            ("", ""),
            ("/", "/"),
            ("a/b.tar.gz", "a/b.tar.gz"),
            ("/a//b/", "/a//b/"),
            ("/%41%7a%30%2D%2e5%5F%7E", "/Az0-.5_~"),
            ("/g++_1.0~rc1:2;x=1@y,z!$&'()*", "/g++_1.0~rc1:2;x=1@y,z!$&'()*"),
            ("/g%2b%2B", "/g%2B%2B"),
            ("/a%c3%a9", "/a%C3%A9"),
            ("/a\N{LATIN SMALL LETTER E WITH ACUTE}", "/a%C3%A9"),
            (b"/a\xc3\xa9", "/a%C3%A9"),
            (b"/a\xe9", "/a%E9"),
            ("/a\udce9", "/a%E9"),
            ('/a b"<>[]^`{|}', "/a%20b%22%3C%3E%5B%5D%5E%60%7B%7C%7D"),
            ("/%253a%252F%2500", "/%253a%252F%2500"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/...", "/..."),
            ("/.a/..b/c../d.", "/.a/..b/c../d."),
            ("/%3f%23", "/%3F%23"),
            ("/sha256:ab", "/sha256:ab"),
            ("/a?", "/a?"),
            ("/a?x=%41&y=%zz/../%2f\\", "/a?x=%41&y=%zz/../%2f\\"),
            ("/a?b?c", "/a?b?c"),
            (b"/a?q=\xc3\xa9 \x00\x7f", "/a?q=%C3%A9%20%00%7F"),
        ):
            result = normalise(target)
            self.assertEqual(result, expected, target)
            self.assertEqual(normalise(result), result, target)

    def test_refused(self) -> None:
        """What could mean another place to the disk or the upstream is refused."""
        for target in (
            "..",
            "/..",
            "/../a",
            "/a/../b",
            "/a/..",
            "/a/..?x",
            "/.",
            "/./a",
            "/a/%2e",
            "/%2e%2E/a",
            "/.%2e/a",
            "/a%2Fb",
            "/a%2fb",
            "/a\\b",
            "/a%5cb",
            "/a%00",
            "/a\x00",
            "/a%0a",
            "/a\n",
            "/a%7F",
            "/a\x7f",
            "/a%",
            "/a%4",
            "/a%zz",
            "/%%34%31",
            "/a#b",
            "/a?b#c",
            "/\ud800",
        ):
            self.assertRaises(BadRequest, normalise, target)
            if target != "/\ud800":
                self.assertRaises(BadRequest, normalise, target.encode())

    def test_single_dots(self) -> None:
        """A flat APT repository's single dots can be left out instead of refused."""
        for target, expected in (
            ("/./InRelease", "/InRelease"),
            ("./x.deb", "x.deb"),
            ("/a/%2e/./b?./", "/a/b?./"),
            ("/a/.", "/a/"),
            (".", ""),
            ("/.", "/"),
        ):
            self.assertEqual(normalise(target, drop_single_dots=True), expected, target)
        self.assertRaises(BadRequest, normalise, "/./../a", drop_single_dots=True)

    def test_split(self) -> None:
        """The query begins at the first question mark."""
        for target, expected in (("/a", ("/a", None)), ("/a?", ("/a", "")), ("/a?b?c", ("/a", "b?c"))):
            self.assertEqual(split(target), expected)


READABLE = {
    "apache/kafka/3.0/kafka_2.13.tgz": "apache/kafka/3.0/kafka_2.13.tgz",
    "b/a%20b": "b/a b",
    "b/caf%C3%A9": "b/caf\N{LATIN SMALL LETTER E WITH ACUTE}",
    "b/g++": "b/g++",
    "b/sha256:ab": "b/sha256:ab",
    "b/%25": "b/%",
    "b/%2541": "b/%41",
    "b/%252B": "b/%2B",
    "b/a%3Fb": "b/a?b",
    "b/.hidden": "b/.hidden",
    "b/...": "b/...",
    "b/-rf": "b/-rf",
    "b/vault-safe": "b/vault-safe",
    "b/" + "x" * 255: "b/" + "x" * 255,
    "b%20c/x": "b%20c/x",
    "b?x/a": "b?x/a",
}

UNREADABLE = [
    "",
    "/",
    "//",
    "b",
    "b/",
    "b//",
    "b/a/",
    "b//a",
    "b/a//c",
    "/a",
    "./a",
    "../a",
    "b/.",
    "b/..",
    "b/../c/a",
    "b/%2e%2e/a",
    "b/%2E",
    "b/a?x=1",
    "b/a?",
    "b/a?x=1/2",
    "b/a/?x",
    "b/%41",
    "b/%2B",
    "b/%2b",
    "b/%7E",
    "b/a b",
    "b/a%2Fb",
    "b/a%2fb",
    "b/a%5Cb",
    "b/a\\b",
    "b/a%00",
    "b/a\x00",
    "b/a%0A",
    "b/a%C2%85",
    "b/%FF",
    "b/%E9",
    "b/%C3",
    "b/%ED%A0%80",
    "b/%",
    "b/%zz",
    "b/caf\N{LATIN SMALL LETTER E WITH ACUTE}",
    "b/\ud800",
    "b/\udce9",
    "b/.vault",
    "b/.vault-safe",
    "b/a/.vault-safe/x",
    "b/%2Evault",
    ".vault-safe/a",
    "b\x00/a",
    "b/" + "x" * 256,
    "b/" + "%C3%A9" * 128,
    "b/" + "x/" * 2000 + "x",
    "b" * 256 + "/a",
    "b/#",
]


class FileNameTests(SynchronousTestCase):
    def check_safe(self, components: tuple[str, ...]) -> None:
        """Nothing that a file system cannot hold, or that leads out of the cache directory."""
        self.assertLessEqual(len("/".join(components).encode()), 3500)
        for component in components:
            self.assertNotIn(component, ("", ".", ".."))
            self.assertFalse(set(component) & set("/\0"), component)
            self.assertLessEqual(len(component.encode()), 255)

    def test_readable(self) -> None:
        """A key is stored under its decoded path where that leads back to the key."""
        for key, path in READABLE.items():
            components = file_name(key)
            self.assertEqual("/".join(components), path, key)
            self.check_safe(components)
            self.assertFalse(any(component.startswith(".vault") for component in components))
            self.assertEqual(key_of(components), key)

    def test_unreadable(self) -> None:
        """Any other key is stored by hash below its backend, and cannot be read back from the name."""
        for key in UNREADABLE:
            components = file_name(key)
            self.check_safe(components)
            self.assertEqual(components, safe_name(key), key)
            self.assertEqual(components[-3], SAFE_DIRECTORY)
            self.assertTrue(components[-1].startswith(components[-2]))
            self.assertRegex(components[-1], r"\A[0-9a-f]{64}-[A-Za-z0-9._-]{1,80}\Z")
            self.assertIsNone(key_of(components), key)

    def test_backend_directory(self) -> None:
        """A safe form lies below the backend's directory, unless the backend's name cannot be one."""
        self.assertEqual(file_name("b/a?x")[:2], ("b", SAFE_DIRECTORY))
        self.assertEqual(file_name("../a")[0], SAFE_DIRECTORY)

    def test_slug(self) -> None:
        """The slug shows the path to people, but not the query, which may hold a token."""
        for key, slug in (
            ("b/simple/pip/", "simple-pip"),
            ("b/a.tar.gz?token=secret", "a.tar.gz"),
            ("b/", "index"),
            ("b/x/../../etc", "x-..-..-etc"),
            ("b/" + "y" * 300 + ".deb", "y" * 76 + ".deb"),
        ):
            self.assertEqual(safe_name(key)[-1].partition("-")[2], slug, key)

    def test_key_that_looks_like_a_safe_form(self) -> None:
        """Nobody can reach another key's file by asking for its safe form."""
        stored = file_name("b/secret?x=1")
        asked = "/".join(stored)
        self.assertNotEqual(file_name(asked), stored)
        self.assertIsNone(key_of(stored))

    def test_injective(self) -> None:
        """No two keys share a file, among all short keys of awkward pieces and all of the tables."""
        pieces = [
            "a",
            "A",
            "%41",
            "%61",
            "%25",
            "%2F",
            "%2f",
            "/",
            "//",
            ".",
            "..",
            "%2E",
            "?",
            "\\",
            "%5C",
            "%",
            "+",
            "%2B",
        ]
        pieces += ["\0", "%00", "%FF", "\xff", "%C3%BF", "\udcff", ".vault", SAFE_DIRECTORY]
        keys = {"b/" + "".join(chosen) for size in range(4) for chosen in itertools.product(pieces, repeat=size)}
        keys |= {*READABLE, *UNREADABLE}
        keys |= {"/".join(file_name(key)) for key in list(keys)}
        owners: dict[tuple[str, ...], str] = {}
        for key in sorted(keys):
            components = file_name(key)
            self.assertEqual(owners.setdefault(components, key), key)
            self.check_safe(components)
            self.assertIn(key_of(components), (key, None))

    def test_not_ours(self) -> None:
        """Files that the vault would not have put there belong to no key."""
        for components in ((), ("b",), ("b", ""), ("b", ".."), ("b", "a\n"), ("b", "a\udce9"), ("b", "a/c"), ("", "a")):
            self.assertIsNone(key_of(components), components)
