"""The documents of APT repositories."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma

from twisted.trial.unittest import SynchronousTestCase

from vault.formats import apt_index
from vault.formats.apt_paths import Kind, canonical, classify, guessed_suite, one_spelling, roots
from vault.formats.apt_release import parse, same_text, signed_text
from vault.paths import normalise

A, B = "a" * 64, "b" * 64
RELEASE = f"""Origin: Test
Date: Sat, 10 Jun 2023 10:00:00 UTC
Acquire-By-Hash: yes
MD5Sum:
 {"c" * 32} 10 main/binary-all/Packages.xz
SHA256:
 {A} 10 main/binary-all/Packages.xz
 {B} 20 ./Sources
 {B} 20 ../outside
 nonsense
"""
SIGNED = f"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA512

{RELEASE}- -dashed: x
-----BEGIN PGP SIGNATURE-----

iQ==
-----END PGP SIGNATURE-----
"""
PACKAGES = f"""Package: a
Filename: ./pool/a_1%3a2+x~1_all.deb
Size: 12
MD5sum: {"d" * 32}
SHA256: {A}
Description: Filename: not this
 Filename: nor/this

Package: b
Filename: pool/b.deb
Size: 7
SHA1: {"e" * 40}

Package: broken
Filename: ../../etc/passwd
Size: 7
SHA256: {A}
"""
SOURCES = f"""Package: s
Directory: pool/s
Files:
 {"d" * 32} 5 s.dsc
Checksums-Sha256:
 {A} 5 s.dsc
 {B} 6 s.tar.xz
"""


class PathTests(SynchronousTestCase):
    """What a path is."""

    def test_kinds(self) -> None:
        """Release files, index files, files by digest, differences, and all others are told apart."""
        table = {
            "dists/noble/InRelease": Kind.RELEASE,
            "InRelease": Kind.RELEASE,
            "tools/Release.gpg": Kind.RELEASE,
            "dists/noble/main/binary-amd64/Release": Kind.INDEX,
            "dists/noble/main/binary-amd64/Packages.xz": Kind.INDEX,
            "dists/noble/Contents-amd64.gz": Kind.INDEX,
            "dists/noble/main/dep11/icons-64x64.tar.gz": Kind.INDEX,
            "tools/Packages": Kind.INDEX,
            "tools/Sources.gz": Kind.INDEX,
            f"dists/noble/main/by-hash/SHA256/{A}": Kind.BY_HASH,
            f"by-hash/MD5Sum/{'c' * 32}": Kind.BY_HASH,
            "dists/noble/main/binary-amd64/Packages.diff/Index": Kind.INDEX,
            "dists/noble/main/binary-amd64/Packages.diff/T-1-F-2.gz": Kind.PATCH,
            "pool/main/h/hello/hello_1.0_all.deb": Kind.FILE,
            "pool/main/h/hello/hello_1.0.dsc": Kind.FILE,
            "": Kind.LISTING,
            "pool/": Kind.LISTING,
        }
        self.assertEqual({path: classify(path).kind for path in table}, table)

    def test_spelling(self) -> None:
        """apt's and wget's spellings of one file are one path, which is the one that Packages leads to."""
        for sent in ("p/a_1%253a2%2bx%7e1.deb", "p/a_1%253a2+x~1.deb"):
            self.assertEqual(one_spelling(normalise(sent)), canonical("p/a_1%3a2+x~1.deb"))

    def test_places(self) -> None:
        """The suite of an index file is guessed, and the files of its packages are looked for where they can be."""
        self.assertEqual(guessed_suite("u/dists/noble/main/binary-amd64"), "u/dists/noble")
        self.assertEqual(guessed_suite("tools"), "tools")
        self.assertEqual(roots("u/dists/noble"), ("u",))
        self.assertEqual(roots("a/b"), ("a/b", "a", ""))


class ReleaseTests(SynchronousTestCase):
    """Release and InRelease."""

    def test_release(self) -> None:
        """Size and digests of each file are read, and what leads out of the suite is left out."""
        release = parse(RELEASE.encode(), False)
        self.assertEqual(release.date, 1686391200.0)
        self.assertTrue(release.by_hash)
        self.assertEqual(set(release.files), {"main/binary-all/Packages.xz", "Sources"})
        listed = release.files["main/binary-all/Packages.xz"]
        self.assertEqual((listed.size, str(listed.digest), listed.digests["md5"]), (10, f"sha256:{A}", "c" * 32))

    def test_two_sizes(self) -> None:
        """Where sizes contradict each other the one beside the strongest digest counts, as it does for apt."""
        weak, strong = f"MD5Sum:\n {'c' * 32} 9 f\n", f"SHA256:\n {A} 10 f\n"
        for text in (weak + strong, strong + weak):
            listed = parse(text.encode(), False).files["f"]
            self.assertEqual((listed.size, listed.digests), (10, {"sha256": A}))

    def test_no_size(self) -> None:
        """What has no size that a file can have is left out."""
        for size in (5000 * "1", "\u00b2", "-1", "1_0"):
            self.assertEqual(parse(f"Origin: x\nSHA256:\n {A} {size} f\n".encode(), False).files, {})

    def test_signed(self) -> None:
        """An InRelease says the same; its text is that of Release."""
        self.assertEqual(parse(SIGNED.encode(), True).files, parse(RELEASE.encode(), False).files)
        self.assertTrue(same_text(SIGNED.encode(), (RELEASE + "-dashed: x\n").encode()))
        self.assertFalse(same_text(SIGNED.encode(), RELEASE.encode()))

    def test_not_whole(self) -> None:
        """A file that is cut short, or a page of some portal, is not taken."""
        for wrong in (SIGNED[:-40], SIGNED[:200], SIGNED.rstrip() + "x", SIGNED + "x\n", RELEASE, "<html></html>", ""):
            self.assertRaises(ValueError, signed_text, wrong.encode())
        for wrong in ("<html>\n<p>Log in</p>", "", "\n\n"):
            self.assertRaises(ValueError, parse, wrong.encode(), False)


class IndexTests(SynchronousTestCase):
    """Packages, Sources and the index of differences."""

    def test_packages(self) -> None:
        """However it is compressed, Packages gives path, size and the strongest digest of each file."""
        packers = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
        expected = [("pool/a_1%253a2+x~1_all.deb", f"12 sha256:{A}"), ("pool/b.deb", f"7 sha1:{'e' * 40}")]
        for suffix, pack in packers.items():
            data = pack(PACKAGES.encode())
            for step in (1, 7, 100000):
                pieces = [data[start : start + step] for start in range(0, len(data), step)]
                self.assertEqual(list(apt_index.entries("x/Packages" + suffix, pieces)), expected, (suffix, step))

    def test_several_streams(self) -> None:
        """Compressed streams one after another are one file."""
        half = PACKAGES.encode()
        for suffix, pack in ((".gz", gzip.compress), (".xz", lzma.compress)):
            data = pack(half[:50]) + pack(half[50:])
            self.assertEqual(len(list(apt_index.entries("Packages" + suffix, [data]))), 2)

    def test_sources(self) -> None:
        """Sources gives each file of each source package, with SHA256 where that is given."""
        found = dict(apt_index.entries("Sources", [SOURCES.encode()]))
        self.assertEqual(found, {"pool/s/s.dsc": f"5 sha256:{A}", "pool/s/s.tar.xz": f"6 sha256:{B}"})
        self.assertEqual(str(apt_index.described(found["pool/s/s.dsc"])[1]), f"sha256:{A}")

    def test_differences(self) -> None:
        """An index of differences gives the patches as they are downloaded."""
        text = f"SHA256-Current: {A} 1\nSHA256-Patches:\n {A} 1 T-1\nSHA256-Download:\n {B} 9 T-1.gz\n"
        self.assertEqual(dict(apt_index.entries("x/Packages.diff/Index", [text.encode()])), {"T-1.gz": f"9 sha256:{B}"})

    def test_no_size(self) -> None:
        """What has no size that a file can have is left out."""
        for size in (5000 * "1", "\u00b2", "-1"):
            text = f"Filename: pool/a.deb\nSize: {size}\nSHA256: {A}\n"
            self.assertEqual(list(apt_index.entries("x/Packages", [text.encode()])), [])

    def test_damaged(self) -> None:
        """What cannot be decompressed says so."""
        data = gzip.compress(PACKAGES.encode() * 50)
        damaged = data[:50] + hashlib.sha256(data).digest() + data[82:]
        with self.assertRaises(ValueError):
            list(apt_index.entries("Packages.gz", [damaged]))
        self.assertFalse(apt_index.readable("Packages.lz4"))
