"""Links to files, and the table they are found in."""

from __future__ import annotations

import hashlib
import zlib

from twisted.trial.unittest import SynchronousTestCase

from tests.formats.pages import FULL, OLD, PLAIN, SDIST, WHEEL
from vault.formats import simple_json, table
from vault.formats.codings import CODINGS, GZIP, encode
from vault.formats.links import MARK, Link, absolute, best_digest, link_of, posix_time, table_entries

PAGE = "https://index.example.org/simple/sample-project/"
HASH = hashlib.sha256(b"x").hexdigest()


class LinkTests(SynchronousTestCase):
    """What a page says of a file."""

    def test_page(self) -> None:
        """Every file of a page is found by its name, with all that is needed to fetch it."""
        entries = dict(table_entries(simple_json.files(FULL), PAGE))
        self.assertEqual(sorted(entries), sorted([WHEEL, SDIST, OLD, PLAIN]))
        wheel = Link.from_json(WHEEL, entries[WHEEL])
        self.assertEqual(wheel.url, "https://files.example.org/packages/bb/22/" + WHEEL)
        self.assertEqual((wheel.core_metadata, wheel.gpg_sig), ({"sha256": "aa11"}, False))
        self.assertEqual(wheel.provenance, "https://index.example.org/integrity/sample_project-2.0/provenance")
        self.assertEqual(wheel.uploaded, 1704164645.678901)
        sdist = Link.from_json(SDIST, entries[SDIST])
        self.assertEqual(sdist.url, "https://index.example.org/packages/" + SDIST)
        self.assertEqual((sdist.core_metadata, sdist.gpg_sig, sdist.provenance), (False, True, None))
        self.assertEqual(Link.from_json(OLD, entries[OLD]).url, PAGE + "files/" + OLD)
        self.assertTrue(b"".join(table.build(table_entries(simple_json.files(FULL), PAGE))))

    def test_marks(self) -> None:
        """Files that differ have different marks: by their hash, else by where they lie."""
        marks = [
            Link("a.zip", "http://a.test/a.zip", {"sha256": HASH}).mark,
            Link("a.zip", "http://a.test/a.zip", {"sha512": HASH * 2}).mark,
            Link("a.zip", "http://a.test/a.zip", {}).mark,
            Link("a.zip", "http://b.test/a.zip", {"sha256": "nonsense"}).mark,
        ]
        self.assertEqual(len(set(marks)), 4)
        self.assertEqual(marks[0], HASH[:16])
        for mark in marks:
            self.assertTrue(MARK.fullmatch(mark))
        self.assertEqual(marks[0], Link("a.zip", "http://b.test/other", {"sha256": HASH.upper()}).mark)

    def test_path(self) -> None:
        """The last segment of a path is the file's name, escaped where it must be."""
        link = Link("a-1+cpu é.whl", "http://a.test/", {"sha256": HASH})
        self.assertEqual(link.path("a"), f"a/{HASH[:16]}/a-1+cpu%20%C3%A9.whl")

    def test_absolute(self) -> None:
        """Links are made whole and sendable; what does not lead into the web is none."""
        table = {
            "x.zip": PAGE + "x.zip",
            "../../x y.zip": "https://index.example.org/x%20y.zip",
            "//other.example.org/\u00e9%20.zip": "https://other.example.org/%C3%A9%20.zip",
            "https://user:secret@other.example.org/x": "https://other.example.org/x",
            "https://other.example.org/a/../b/./x?q=/../": "https://other.example.org/b/x?q=/../",
            "//other.example.org/../../.x/..y": "https://other.example.org/.x/..y",
            "ftp://a.test/x": None,
            "http://[": None,
            "http://a.test:0/": None,
            "http://a.test:99999/": None,
            "javascript:x": None,
            None: None,
        }
        for href, expected in table.items():
            self.assertEqual(absolute(PAGE, href), expected, href)

    def test_unfit(self) -> None:
        """Names that could not be the last segment of an address have no link."""
        for name in ("", ".", "..", "a/b", "a\\b", "a\nb", "\ud800"):
            self.assertIsNone(link_of(simple_json.File(name, "x", {}), PAGE), name)

    def test_open_way(self) -> None:
        """What a page got by https links to by http must have a hash, and so must its metadata."""
        file = simple_json.File("a.zip", "http://a.test/a.zip", {}, True)
        self.assertIsNone(link_of(file, PAGE))
        self.assertIsNotNone(link_of(file, "http://index.example.org/simple/a/"))
        link = link_of(file._replace(hashes={"sha256": HASH}), PAGE)
        assert link is not None
        self.assertEqual(link.core_metadata, False)
        link = link_of(file._replace(hashes={"sha256": HASH}, core_metadata={"sha256": HASH}), PAGE)
        assert link is not None
        self.assertEqual(link.core_metadata, {"sha256": HASH})

    def test_fragment(self) -> None:
        """A hash in the URL's fragment counts where the entry has none that is one, and then it proves the file."""
        for given, fragment, expected in (
            ({}, f"#sha256={HASH.upper()}", f"sha256:{HASH}"),
            ({"sha256": "zz"}, f"#egg=a&sha256={HASH}&x", f"sha256:{HASH}"),
            ({"crc": "00"}, "#md5=" + "0" * 32, "md5:" + "0" * 32),
            ({"md5": "1" * 32}, f"#sha256={HASH}", "md5:" + "1" * 32),
            ({"md5": "1" * 32}, "#sha256=zz", "md5:" + "1" * 32),
        ):
            link = link_of(simple_json.File("a.zip", "http://a.test/a.zip" + fragment, given), PAGE)
            assert link is not None
            self.assertEqual((link.url, str(best_digest(link.hashes))), ("http://a.test/a.zip", expected))
        self.assertIsNone(link_of(simple_json.File("a.zip", "http://a.test/a.zip#sha256=zz", {}), PAGE))

    def test_digests(self) -> None:
        """The digest to verify by is the first that is one."""
        self.assertEqual(str(best_digest({"md5": "0" * 32, "sha256": HASH.upper()})), f"sha256:{HASH}")
        self.assertEqual(str(best_digest({"sha256": "zz", "md5": "0" * 32})), f"md5:{'0' * 32}")
        for none in ({}, {"crc": "00"}, True, False):
            self.assertIsNone(best_digest(none))

    def test_times(self) -> None:
        """Upload times have a zone, UTC or another, and any number of digits; what is none is not known."""
        for text, expected in {
            "1970-01-01T00:00:01Z": 1.0,
            "1970-01-01T00:00:01.25Z": 1.25,
            "1970-01-01T00:00:01.1234567Z": 1.1234567,
            "1970-01-01T00:00:01+00:00": 1.0,
            "1970-01-01T02:00:01.25+02:00": 1.25,
            "1970-01-01T00:00:01-00:30": 1801.0,
            "1970-01-01T00:00:01+99:00": None,
            "1970-01-01T00:00:01+0000": None,
            "1970-01-01T00:00:01": None,
            "1970-13-01T00:00:01Z": None,
            "yesterday": None,
            None: None,
        }.items():
            self.assertEqual(posix_time(text), expected, text)


class CodingTests(SynchronousTestCase):
    """Content codings."""

    def test_round(self) -> None:
        """What is encoded can be decoded, and is the same every time."""
        pieces = [b"a" * 1000, b"", b"b" * 1000]
        for coding in CODINGS:
            encoded = b"".join(encode(coding, pieces))
            self.assertEqual(encoded, b"".join(encode(coding, [b"".join(pieces)])))
            self.assertLess(len(encoded), 200)
        self.assertEqual(zlib.decompress(b"".join(encode("gzip", pieces)), GZIP), b"".join(pieces))
        self.assertEqual(CODINGS[-1], "gzip")
