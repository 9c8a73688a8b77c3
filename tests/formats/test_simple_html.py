"""Project pages in HTML: rendered from JSON, and read into it."""

from __future__ import annotations

import contextlib
import json
import time
from html.parser import HTMLParser
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.formats.pages import FULL, OLD, PLAIN, SDIST, WHEEL, large
from vault.formats import simple_html, simple_json
from vault.formats.json_window import LARGEST, STEP

URL = "https://index.example.org/simple/sample-project/"


class Parsed(HTMLParser):
    """What a client sees of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.declaration = ""
        self.metas: list[tuple[str | None, str | None]] = []
        self.anchors: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page.decode("ascii"))
        self.close()

    def handle_decl(self, decl: str) -> None:
        self.declaration = decl

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "meta":
            self.metas.append((dict(attrs)["name"], dict(attrs)["content"]))
        elif tag == "a":
            self.anchors.append(("", dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "a":
            text, attributes = self.anchors.pop()
            self.anchors.append((text + data, attributes))


def rendered(page: bytes) -> Parsed:
    return Parsed(b"".join(simple_html.render(page)))


def one_file(**members: Any) -> bytes:
    file = {"filename": "a-1.zip", "url": "a-1.zip", "hashes": {}, **members}
    return json.dumps({"meta": {"api-version": "1.0"}, "name": "a", "files": [file]}).encode()


def read(html: str, charset: str | None = None) -> Any:
    return json.loads(simple_html.read(html.encode(charset or "utf-8"), charset, URL, "Sample.Project"))


def read_files(html: str) -> Any:
    return read(html)["files"]


class RenderTests(SynchronousTestCase):
    def test_full(self) -> None:
        """All that HTML has a place for is on the page."""
        page = rendered(FULL)
        self.assertEqual(page.declaration, "DOCTYPE html")
        self.assertEqual(page.open, [])
        self.assertEqual(
            page.metas,
            [
                ("pypi:repository-version", "1.4"),
                ("pypi:project-status", "archived"),
                ("pypi:project-status-reason", 'see "elsewhere" <now>'),
                ("pypi:tracks", "https://up.example.org/simple/sample-project/"),
                ("pypi:alternate-locations", "https://other.example.org/simple/sample-project/"),
            ],
        )
        wheel, sdist, old, plain = page.anchors
        self.assertEqual(
            wheel,
            (
                WHEEL,
                {
                    "href": f"https://files.example.org/packages/bb/22/{WHEEL}#sha256=bb22",
                    "data-requires-python": '>=3.8,<4 "\u00e9"',
                    "data-core-metadata": "sha256=aa11",
                    "data-dist-info-metadata": "sha256=aa11",
                    "data-provenance": "https://index.example.org/integrity/sample_project-2.0/provenance",
                },
            ),
        )
        self.assertEqual(
            sdist,
            (
                SDIST,
                {
                    "href": f"../../packages/{SDIST}#sha512=ee33",
                    "data-yanked": "broken <b>\"badly\"</b> & 'late' \U0001f600 \ufffd",
                    "data-gpg-sig": "true",
                },
            ),
        )
        self.assertEqual(
            old,
            (
                OLD,
                {
                    "href": f"files/{OLD}",
                    "data-core-metadata": "true",
                    "data-dist-info-metadata": "true",
                    "data-yanked": "",
                    "data-gpg-sig": "false",
                },
            ),
        )
        self.assertEqual(plain[1]["href"], f"files/{PLAIN}?a=1&b=2#sha256=1234")
        self.assertEqual(plain[1]["data-core-metadata"], "sha256=99ff")

    def test_serial(self) -> None:
        """The serial stands at the end, as the public index's software writes it."""
        self.assertTrue(b"".join(simple_html.render(FULL)).endswith(b"</html>\n<!--SERIAL 987654321-->\n"))

    def test_hostile(self) -> None:
        """Nothing in a page can become markup."""
        evil = "\"'><script>alert(1)</script><a href='x'>&amp;"
        file = {
            **dict.fromkeys(("filename", "url", "requires-python", "yanked", "provenance"), evil),
            "hashes": {"sha256": evil},
            "core-metadata": {"sha256": evil},
        }
        page = {
            "meta": {"api-version": f"1.{evil}", "tracks": [evil]},
            "name": evil,
            "project-status": {"status": evil, "reason": evil},
            "alternate-locations": [evil],
            "files": [file],
        }
        parsed = rendered(json.dumps(page).encode())
        self.assertEqual(parsed.open, [])
        self.assertEqual(len(parsed.metas), 5)
        self.assertEqual([text for text, _ in parsed.anchors], [evil])
        self.assertEqual(parsed.anchors[0][1]["href"], f"{evil}#sha256={evil}")

    def test_metadata(self) -> None:
        """The metadata's hash is given under both names, the best one known, or just that there is metadata."""
        for value, expected in (
            (True, "true"),
            ({"sha256": "ab"}, "sha256=ab"),
            ({"md5": "cd", "sha512": "ab"}, "sha512=ab"),
            ({"blake2b_256": "ab"}, "true"),
            ({}, "true"),
            (False, None),
            (None, None),
        ):
            attributes = rendered(one_file(**{"core-metadata": value})).anchors[0][1]
            self.assertEqual(attributes.get("data-core-metadata"), expected)
            self.assertEqual(attributes.get("data-dist-info-metadata"), expected)

    def test_pieces(self) -> None:
        """The page may come in pieces and with its meta, and the outcome is the same."""
        expected = b"".join(simple_html.render(FULL))
        chunks = [FULL[start : start + 100] for start in range(0, len(FULL), 100)]
        self.assertEqual(b"".join(simple_html.render(chunks)), expected)
        self.assertEqual(b"".join(simple_html.render(iter(chunks), simple_json.meta(FULL))), expected)

    def test_steps(self) -> None:
        """A page of 10,000 files comes in small chunks, so that no step is long."""
        chunks = list(simple_html.render(large(10_000)))
        self.assertLess(max(map(len, chunks)), 2 * STEP)
        self.assertEqual(len(Parsed(b"".join(chunks)).anchors), 10_000)

    def test_refused(self) -> None:
        """What is no project page is not rendered."""
        for page in (b"", b"<html>", b"{}", b'{"projects": []}', b'{"files": [], "meta": {"api-version": "2.0"}}'):
            self.assertRaises(ValueError, list, simple_html.render(page))

    def test_root(self) -> None:
        """The root index links to the projects' pages by their normalised names."""
        root = (
            b'{"meta": {"api-version": "1.1", "_last-serial": 5}, "projects": [{"name": "Foo.Bar"}, {"name": "<b>"}]}'
        )
        page = Parsed(b"".join(simple_html.render_root(root)))
        self.assertEqual(page.metas, [("pypi:repository-version", "1.1")])
        self.assertEqual(page.anchors, [("Foo.Bar", {"href": "foo-bar/"}), ("<b>", {"href": "%3Cb%3E/"})])


class ReadTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """A page rendered and read again says the same, but for what HTML has no place for."""
        page = json.loads(simple_html.read(b"".join(simple_html.render(FULL)), "utf-8", URL, "sample-project"))
        self.assertEqual(simple_json.meta(json.dumps(page).encode()), simple_json.meta(FULL))
        for before, after in zip(simple_json.files(FULL), simple_json.files(json.dumps(page).encode()), strict=True):
            self.assertEqual(after.filename, before.filename)
            self.assertEqual(after.requires_python, before.requires_python)
            self.assertEqual(after.core_metadata or None, before.core_metadata or None)
            self.assertEqual(after.gpg_sig, before.gpg_sig)
            self.assertEqual(after.provenance, before.provenance)
            best = simple_json.best_hash(before.hashes)
            self.assertEqual(after.hashes, dict([best]) if best else {})
            if isinstance(before.yanked, bool):
                self.assertEqual(after.yanked, before.yanked)

    def test_full(self) -> None:
        """All that a page in HTML says is read."""
        page = read(
            "<!DOCTYPE html><html><head><meta name='pypi:repository-version' content='1.3'>"
            "<meta name=pypi:project-status content=deprecated><title>x</title></head><body><h1>x</h1>"
            '<a href="a-1.whl#sha256=AB12" data-requires-python="&gt;=3.8" data-dist-info-metadata="sha256=cd"'
            ' data-core-metadata="sha256=ef" data-yanked="bad &amp; worse" data-gpg-sig=false'
            ' data-provenance="https://x.example.org/p">a-1.whl</a><br/></body></html><!--SERIAL 42-->'
        )
        self.assertEqual(
            page,
            {
                "meta": {"api-version": "1.3", "_last-serial": 42},
                "name": "sample-project",
                "project-status": {"status": "deprecated"},
                "files": [
                    {
                        "filename": "a-1.whl",
                        "url": f"{URL}a-1.whl",
                        "hashes": {"sha256": "ab12"},
                        "requires-python": ">=3.8",
                        "core-metadata": {"sha256": "ef"},
                        "yanked": "bad & worse",
                        "gpg-sig": False,
                        "provenance": "https://x.example.org/p",
                    }
                ],
            },
        )

    def test_empty(self) -> None:
        """A page without links is a project without files, of version 1.0."""
        for html in ("<html></html>", "<!DOCTYPE html><html><body>\n</body></html>", "<a>a-1.zip</a>"):
            self.assertEqual(read(html), {"files": [], "name": "sample-project", "meta": {"api-version": "1.0"}})

    def test_urls(self) -> None:
        """Links are resolved as clients do it, and name the file by their last component."""
        for href, url, filename in (
            ("a-1.zip", f"{URL}a-1.zip", "a-1.zip"),
            ("../../packages/a-1.zip", "https://index.example.org/packages/a-1.zip", "a-1.zip"),
            ("/p/a-1.zip", "https://index.example.org/p/a-1.zip", "a-1.zip"),
            ("//cdn.example.org/a-1.zip", "https://cdn.example.org/a-1.zip", "a-1.zip"),
            ("http://cdn.example.org/a-1.zip?x=1&amp;y=2", "http://cdn.example.org/a-1.zip?x=1&y=2", "a-1.zip"),
            ("a-1%2Bcpu.zip", f"{URL}a-1%2Bcpu.zip", "a-1+cpu.zip"),
            ("a-1+cpu.zip", f"{URL}a-1+cpu.zip", "a-1+cpu.zip"),
            ("  a 1-1.zip\n", f"{URL}a%201-1.zip", "a 1-1.zip"),
            ("\u00e9-1.zip", f"{URL}%C3%A9-1.zip", "\u00e9-1.zip"),
        ):
            file = read_files(f'<a href="{href}">text</a>')[0]
            self.assertEqual((file["url"], file["filename"]), (url, filename))

    def test_file_name_in_text(self) -> None:
        """Where the link goes to a script the text names the file."""
        file = read_files('<a href="/download?id=5#sha256=ab"> a-1.zip </a>')[0]
        self.assertEqual(file["filename"], "a-1.zip")
        self.assertEqual((file["url"], file["hashes"]), ("https://index.example.org/download?id=5", {"sha256": "ab"}))

    def test_other_links(self) -> None:
        """Links to what is no distribution file, or not on the web, are left out."""
        for href in ("../", "/login", "a-1.zip.asc", "mailto:a-1.zip", "javascript:a-1.zip", "ftp://x/a-1.zip", "//["):
            html = f'<a href="{href}">text</a><a href="a-1.zip">a-1.zip</a>'
            self.assertEqual([file["filename"] for file in read_files(html)], ["a-1.zip"], href)

    def test_login(self) -> None:
        """A page with a form or with links to elsewhere, and with no file, is no project without files."""
        for html in (
            "<title>Log in</title><form action=/login><input name=user></form>",
            "<a href='/login?next=/simple/x/'>Sign in</a>",
            "<a href='https://sso.example.org/'>Sign in</a>",
            "<a href='../'>up</a><a href='help.html'>Help</a>",
            "<a href='javascript:login()'>Sign in</a>",
            "<html><head><script src=/app.js></script></head><body><div id=root></div></body></html>",
            "<meta http-equiv=Refresh content='0; url=/login'>",
            "<iframe src=/login></iframe>",
            "<html><body><h1>Down for maintenance</h1></body></html>",
            "<title>Error</title>",
            "<h1>404</h1><p>sample-project</p>",
            "<p>Sample.Project was not found on this server</p>",
            "<title>Log in to see sample-project</title>",
            "<h1>There is an error with sample-project</h1>",
            "plain text",
            " ",
            "",
        ):
            self.assertIn("log in", str(self.assertRaises(ValueError, read, html)))
            self.assertRaises(ValueError, simple_html.read_root, html.encode(), None, "https://index.example.org/")
            self.assertEqual(len(read_files(html + "<a href=a-1.zip>a-1.zip</a>")), 1)
            self.assertEqual(read_files('<meta name="pypi:repository-version" content="1.0">' + html), [])

    def test_no_files(self) -> None:
        """A page with nothing on it, or only with links upwards, is a project without files."""
        for html in (
            "<html><body></body></html>",
            "<h1>Links for x</h1>",
            "<title>Index of /simple/x/</title><hr>",
            "<p>No releases of Sample_Project</p>",
            "<a href='../'>up</a><a href='/'>top</a><a href='?C=N;O=D'>Name</a><a href='#end'>end</a>",
        ):
            self.assertEqual(read_files(html), [])

    def test_other_things(self) -> None:
        """A list that says so, and whose it is, may have anything else on it, but no other page may."""
        for title in ("root/dev: links for sample-project", "Index of /simple/Sample_Project/"):
            for html in (
                "<form action='x/refresh' method=post><input type=submit value=Refresh></form>",
                "<table><a href='../'>..</a>/</table><script>var sorted</script>",
                "<a href='old/'>old/</a><a href='README.txt'>README.txt</a>",
                "<address><a href='mailto:admin@example.org'>Server</a></address>",
                "<a href='https://x.example.org/' rel=homepage>home page</a>",
            ):
                self.assertEqual(read_files(f"<title>{title}</title><h1>{title}</h1>{html}"), [])
                self.assertRaises(ValueError, read, f"<title>Log in to see sample-project</title>{html}")
                self.assertRaises(ValueError, read, f"<title>{title.replace('ample', 'impler')}</title>{html}")

    def test_base(self) -> None:
        """The first base that is given is the one links are relative to."""
        html = '<base target=x><base href="/b/c/"><base href="/d/"><a href="a-1.zip">a-1.zip</a>'
        self.assertEqual(read_files(html)[0]["url"], "https://index.example.org/b/c/a-1.zip")

    def test_hashes(self) -> None:
        """Hashes are found among other things in the fragment, and only those that clients know."""
        for fragment, hashes in (
            ("sha256=ab", {"sha256": "ab"}),
            ("egg=a&sha512=cd&md5=ef", {"sha512": "cd", "md5": "ef"}),
            ("sha256=", {}),
            ("sha256=xyz", {}),
            ("blake3=ab", {}),
            ("", {}),
        ):
            file = read_files(f'<a href="a-1.zip#{fragment.replace("&", "&amp;")}">a-1.zip</a>')[0]
            self.assertEqual((file["hashes"], file["url"]), (hashes, f"{URL}a-1.zip"))

    def test_attributes(self) -> None:
        """Attributes without a value, or with one that means nothing, are read as clients do it."""
        for attributes, expected in (
            ("data-yanked", {"yanked": True}),
            ('data-yanked=""', {"yanked": True}),
            ('data-yanked="x" data-yanked="y"', {"yanked": "x"}),
            ("data-core-metadata=true", {"core-metadata": True}),
            ("data-core-metadata=false", {"core-metadata": False}),
            ("data-dist-info-metadata=sha256=ab", {"core-metadata": {"sha256": "ab"}}),
            ("data-core-metadata=sha256=zz", {"core-metadata": False}),
            ("data-core-metadata", {}),
            ("data-gpg-sig=TRUE", {"gpg-sig": True}),
            ("data-gpg-sig=x data-requires-python data-provenance=''", {}),
        ):
            file = read_files(f"<a href=a-1.zip {attributes}>a-1.zip</a>")[0]
            self.assertEqual(file, {"filename": "a-1.zip", "url": f"{URL}a-1.zip", "hashes": {}, **expected})

    def test_unclosed(self) -> None:
        """An anchor that is not closed ends where the next begins, or with the page."""
        files = read_files("<a href=a-1.zip>a-1.zip<br><A HREF=a-2.zip>a-2.zip<p")
        self.assertEqual([file["filename"] for file in files], ["a-1.zip", "a-2.zip"])

    def test_charset(self) -> None:
        """The charset is the one announced; one that is unknown or no charset at all is taken for UTF-8."""
        for charset in (None, "utf-8", "UTF8", "iso-8859-1", "utf-16", "utf-32"):
            self.assertEqual(read("<a href=x-1.zip data-yanked='\u00e9'>", charset)["files"][0]["yanked"], "\u00e9")
        for charset in ("unheard-of", "zlib", "undefined", "idna", "", "\x00"):
            page = simple_html.read("<a href=x-1.zip data-yanked='\u00e9'>".encode(), charset, URL, "x")
            self.assertEqual(json.loads(page)["files"][0]["yanked"], "\u00e9", charset)
        self.assertEqual(len(read_files("\ufeff<a href=x-1.zip>")), 1)
        self.assertEqual(len(json.loads(simple_html.read(b"\xff<a href=x-1.zip>", None, URL, "x"))["files"]), 1)

    def test_large(self) -> None:
        """A page of 10,000 files is read, wherever the pieces that the parser gets are cut."""
        original = large(10_000)
        html = b"".join(simple_html.render(original))
        page = simple_html.read(html, None, URL, "large-project")
        found = [(file.filename, file.url, file.hashes, file.core_metadata) for file in simple_json.files(page)]
        expected = [(file.filename, file.url, file.hashes, file.core_metadata) for file in simple_json.files(original)]
        self.assertEqual(found, expected)

    def test_refused(self) -> None:
        """Another version is refused, and so is what never closes."""
        for html in (
            '<meta name="pypi:repository-version" content="2.0">',
            "<!--" + "x" * (2 * LARGEST),
            '<a href="' + "x" * (2 * LARGEST),
        ):
            self.assertRaises(ValueError, read, html)

    def test_quick(self) -> None:
        """Nothing in a small page, however malformed, takes long to read."""
        for begin in ("", "<a href='", "<script>", "<title>"):
            for unit in (
                "<!--",
                "<![",
                "<!",
                "<?",
                "</",
                "<a",
                "<a ",
                '<a href="',
                "<a x=y ",
                "<",
                "&",
                "&#",
                "'",
                "=",
            ):
                began = time.thread_time()
                with contextlib.suppress(ValueError):
                    read(begin + unit * (200_000 // len(unit)))
                self.assertLess(time.thread_time() - began, 3, begin + unit)

    def test_cut_off(self) -> None:
        """A page that ends within a comment, a script or a long tag may have lost files: it is refused."""
        for rest in ("<!-- <a href=a-2.zip>", "<![CDATA[ x", "<script> x", '<a href="' + "x" * 2000):
            self.assertRaises(ValueError, read, "<a href=a-1.zip>a-1.zip</a>" + rest)
        self.assertEqual(len(read_files("<a href=a-1.zip>a-1.zip</a> &amp; more &am")), 1)

    def test_too_long(self) -> None:
        """A page that takes longer than a page of its size may is given up."""
        self.patch(simple_html, "SECONDS", -1.0)
        self.assertIn("too long", str(self.assertRaises(ValueError, read, "<a href=a-1.zip>")))

    def test_root(self) -> None:
        """A root index in HTML gives its projects, without the other links on it."""
        html = b'<a href="/">Home</a><a href="foo-bar/">Foo.Bar</a><a href="/simple/b">b</a><a href="c/">other</a>'
        page = json.loads(simple_html.read_root(html, None, "https://index.example.org/simple/"))
        self.assertEqual(page, {"meta": {"api-version": "1.0"}, "projects": [{"name": "Foo.Bar"}, {"name": "b"}]})

    def test_directories(self) -> None:
        """A root index may be a list of directories, as web servers write it; long names are cut off in it."""
        long = "a-project-with-a-rather-long-name"
        html = (
            "<title>Index of /simple/</title><a href='../'>../</a><a href='/'>Parent Directory</a>"
            f"<a href='six/'>six/</a><a href='{long}/'>a-project-with-a-rat..&gt;</a>"
            "<a href='other/'>a-project..&gt;</a><a href='notes.txt'>notes.txt..&gt;</a>"
        )
        page = json.loads(simple_html.read_root(html.encode(), None, "https://index.example.org/simple/"))
        self.assertEqual(page["projects"], [{"name": "six"}, {"name": long}])
        for title in ("Index of /simple/", "root/dev: simple list (including inherited indices)"):
            empty = f"<title>{title}</title><a href='.cache/'>.cache/</a>"
            page = json.loads(simple_html.read_root(empty.encode(), None, "https://index.example.org/simple/"))
            self.assertEqual(page["projects"], [])

    def test_malformed_declaration(self) -> None:
        """Malformed declarations are either passed over or refused, never more."""
        for html in ("<![foo", "<![if x]>", "<!ELEMENT", "<!-", "<?", "<![CDATA[", "</", "<![%x;["):
            try:
                read(html + "<a href=a-1.zip>a-1.zip</a>")
            except ValueError as error:
                self.assertIn("The page", str(error))
