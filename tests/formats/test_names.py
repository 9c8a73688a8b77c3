"""Names of projects and of their files."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from vault.formats.names import MOST_CANDIDATES, distribution_of, is_distribution, is_name, normalise, project_of


class NameTests(SynchronousTestCase):
    def test_normalise(self) -> None:
        """All spellings of a name become one."""
        for name in ("Foo.Bar", "foo-bar", "FOO_BAR", "foo--bar", "foo._-bar", "foo-_.bar"):
            self.assertEqual(normalise(name), "foo-bar")
        self.assertEqual(normalise("zope.interface"), "zope-interface")
        self.assertEqual(normalise("x"), "x")

    def test_is_name(self) -> None:
        """Names are made of letters, digits and separators, which stand within."""
        for name in ("a", "A1", "foo-bar", "foo._-bar", "3to2"):
            self.assertTrue(is_name(name), name)
        for name in ("", "-a", "a-", ".a", "a b", "a/b", "..", "a\n", "\u212aelvin", "\u00e9", "a%20", "a\x00"):
            self.assertFalse(is_name(name), name)


class ProjectTests(SynchronousTestCase):
    def check(self, *rows: tuple[str, list[str]]) -> None:
        for filename, expected in rows:
            self.assertEqual(project_of(filename), expected, filename)

    def test_exact(self) -> None:
        """Wheels and source distributions of today say their project."""
        self.check(
            ("numpy-1.26.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", ["numpy"]),
            ("Foo_Bar.baz-1.0-1-py3-none-any.whl", ["foo-bar-baz"]),
            ("zope.interface-5.0-cp39-cp39-win_amd64.whl", ["zope-interface"]),
            ("old-not.a.version-py2-none-any.whl", ["old"]),
            ("torch-2.0+cpu-cp311-cp311-linux_x86_64.whl", ["torch"]),
            ("foo_bar-1.0.tar.gz", ["foo-bar"]),
            ("Foo-1.0.zip", ["foo"]),
        )

    def test_companions(self) -> None:
        """Metadata, signatures and provenance belong to the project of their file."""
        for suffix in (".metadata", ".asc", ".provenance", ".metadata.asc"):
            self.check((f"foo_bar-1.0-py3-none-any.whl{suffix}", ["foo-bar"]), (f"foo-1.0.tar.gz{suffix}", ["foo"]))
        self.assertEqual(distribution_of("foo-1.0.tar.gz.asc"), "foo-1.0.tar.gz")
        self.assertEqual(distribution_of("foo-1.0.tar.gz"), "foo-1.0.tar.gz")

    def test_dashes(self) -> None:
        """Where the name or the version has dashes every cut is a candidate, the most probable first."""
        self.check(
            ("a-b-1.0.tar.gz", ["a-b", "a"]),
            ("azure-mgmt-core-1.0.0b1.tar.gz", ["azure-mgmt-core", "azure-mgmt", "azure"]),
            ("foo-1.0-1.tar.gz", ["foo", "foo-1-0"]),
            ("foo-1.0-beta2.tar.gz", ["foo", "foo-1-0"]),
            ("foo-2-1.0.tar.gz", ["foo-2", "foo"]),
            ("python-3parclient-4.2.tar.gz", ["python-3parclient", "python"]),
            ("foo-bar-v1.2.zip", ["foo-bar", "foo"]),
            ("foo-1.0+local.1.tar.bz2", ["foo"]),
            ("foo-bar-2004b.tgz", ["foo-bar", "foo"]),
            ("foo-bar-unversioned.zip", ["foo-bar", "foo"]),
        )

    def test_old_formats(self) -> None:
        """Eggs, installers and packages of systems are read without what follows their version."""
        self.check(
            ("a_b-1.0-py2.7.egg", ["a-b"]),
            ("a-b-c-1.0-py2.7.egg", ["a-b-c", "a-b", "a"]),
            ("foo-1.0-py3.8-linux-x86_64.egg", ["foo"]),
            ("foo-1.0-py2.7-macosx-10.9-x86_64.egg", ["foo"]),
            ("foo-1.0.win32-py2.7.exe", ["foo"]),
            ("foo-bar-1.0.win-amd64-py3.5.exe", ["foo-bar", "foo"]),
            ("foo-1.0.win32.exe", ["foo"]),
            ("foo-1.0.win32-py2.7.msi", ["foo"]),
            ("foo-1.0.linux-x86_64.tar.gz", ["foo"]),
            ("foo-1.0.macosx-10.9-x86_64.tar.gz", ["foo"]),
            ("foo-1.0-1.noarch.rpm", ["foo", "foo-1-0"]),
        )

    def test_nothing(self) -> None:
        """What is no distribution file has no project."""
        names = ("", "foo", "foo.zip", "index.html", "foo-1.0.txt", "foo-1.0", ".whl", "-1.0.zip", "foo-.zip", "-.zip")
        unsafe = ("a/b-1.0.zip", "..\\b-1.0.zip", "a\x00b-1.0.zip", "\u00e9-1.0.zip")
        for filename in (*names, *unsafe, "x.metadata"):
            self.assertEqual(project_of(filename), [], filename)

    def test_bounded(self) -> None:
        """A name with many dashes has few candidates, and one without end has none."""
        self.assertEqual(len(project_of("-".join("abcdefghijkl") + "-1.0.zip")), MOST_CANDIDATES)
        self.assertEqual(project_of("a-1" * 20_000 + ".zip"), [])
        self.assertEqual(project_of("a-1.zip" + ".asc" * 20_000), ["a"])

    def test_is_distribution(self) -> None:
        """Distribution files are known by their endings."""
        for filename in ("a-1.whl", "a-1.tar.gz", "a-1.tar.Z", "a-1.ZIP", "a.egg"):
            self.assertTrue(is_distribution(filename), filename)
        for filename in ("a-1.whl.metadata", "a-1.tar.gz.asc", "a", "tar.gz/", "/a-1.whl", "sha256sums.txt", ".whl"):
            self.assertFalse(is_distribution(filename), filename)
