"""Project pages in JSON: read, and rewritten without loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.formats.pages import FULL, OLD, PLAIN, SDIST, WHEEL, RandomPages, large
from vault.formats import simple_json
from vault.formats.json_window import LARGEST, STEP, WINDOW
from vault.formats.simple_json import File, Meta


def new_url(file: File) -> str | None:
    return f"../../files/{file.filename}"


def always(url: str) -> Callable[[File], str | None]:
    return lambda file: url


def only(kept: tuple[str, ...]) -> Callable[[File], str | None]:
    return lambda file: "u" if file.filename in kept else None


def rewritten(page: bytes, url_of: Callable[[File], str | None] = new_url) -> bytes:
    return b"".join(simple_json.rewrite(page, url_of))


def pieces(page: bytes, size: int) -> list[bytes]:
    return [page[start : start + size] for start in range(0, len(page), size)]


def pairs(page: bytes) -> Any:
    """The page with everything that json.loads would lose: order, duplicates, and how numbers are written."""
    return json.loads(page, object_pairs_hook=list, parse_int=str, parse_float=str)


def page(files: str = "[]", meta: str = '{"api-version": "1.0"}', more: str = "") -> bytes:
    return f'{{"meta": {meta}, "files": {files}{more}}}'.encode()


class RewriteTests(SynchronousTestCase):
    def test_lossless(self) -> None:
        """Only the files' URLs change: order, unknown keys, duplicates and the spelling of numbers stay."""
        expected = pairs(FULL)
        for key, value in expected:
            if key == "files":
                for members in value:
                    filename = dict(members)["filename"]
                    members[:] = [(k, f"../../files/{filename}" if k == "url" else v) for k, v in members]
        self.assertEqual(pairs(rewritten(FULL)), expected)

    def test_text_kept(self) -> None:
        """What is between the files is kept to the letter, escapes included."""
        text = rewritten(FULL).decode()
        before, _, rest = FULL.decode().partition('"files": [\n')
        self.assertTrue(text.startswith(before))
        self.assertTrue(text.endswith(rest[rest.index('],\n  "meta"') :]))
        self.assertIn(r"1.50, 1E400, -0, 123456789012345678901234567890", text)
        self.assertIn(r"\ud83d\ude00 \ud800", text)

    def test_random(self) -> None:
        """Whatever a page holds and however it is written, the outcome is what replacing the URLs in it would be."""
        for seed in range(300):
            original = RandomPages(seed).page()
            expected = json.loads(original)
            for file in expected["files"]:
                file["url"] = f"../../files/{file['filename']}"
            self.assertEqual(json.dumps(json.loads(rewritten(original))), json.dumps(expected), seed)

    def test_pieces(self) -> None:
        """It does not matter in what pieces a page comes."""
        long = large(200)
        for whole, sizes in ((FULL, (1, 2, 3, 7, 100)), (long, (1000, WINDOW - 1, WINDOW + 1))):
            for size in sizes:
                self.assertEqual(b"".join(simple_json.rewrite(pieces(whole, size), new_url)), rewritten(whole), size)

    def test_window_ends_anywhere(self) -> None:
        """A page is read alike wherever in it the window ends."""
        expected = pairs(rewritten(FULL))
        for shift in range(len(FULL) + 10):
            padding = b'{"x-padding": "' + b"x" * (WINDOW - shift) + b'", '
            found = pairs(rewritten(padding + FULL.strip()[1:]))
            self.assertEqual(found[1:], expected, shift)

    def test_numbers_at_the_windows_end(self) -> None:
        """A number is not cut in two where the window ends within it."""
        for number in ("12345", "-1.25e+10", "1E-5", "0.5", "-0"):
            for shift in range(24):
                padding = b'"x-padding": "' + b"x" * (WINDOW - 30 - shift) + b'", '
                original = b"{" + padding + b'"x": %s, "y": [%s], "files": []}' % ((number.encode(),) * 2)
                self.assertEqual(rewritten(original), original)

    def test_left_out(self) -> None:
        """Files can be left out, at the beginning, within and at the end."""
        for kept in ((), (WHEEL,), (OLD,), (PLAIN,), (WHEEL, PLAIN), (SDIST, OLD), (WHEEL, SDIST, OLD, PLAIN)):
            found = json.loads(rewritten(FULL, only(kept)))
            self.assertEqual(tuple(file["filename"] for file in found["files"]), kept)
            self.assertEqual({**found, "files": []}, {**json.loads(FULL), "files": []})

    def test_any_url(self) -> None:
        """The new URL is escaped as JSON wants it."""
        for url in ('a"b\\c', "\u4e2d\U0001f600", "\ud800", "", "\x00\n"):
            found = json.loads(rewritten(page('[{"filename":"a","url":"b"}]'), always(url)))
            self.assertEqual(found["files"][0]["url"], url)

    def test_odd_shapes(self) -> None:
        """Lists that are empty or come twice, escaped names and pages with a byte order mark are all read."""
        for original, expected in (
            ('{"files":[]}', '{"files":[]}'),
            (' { "files" : [ ] } \n', ' { "files" : [ ] } \n'),
            ('\ufeff{"files":[]}', '{"files":[]}'),
            (r'{"f\u0069les":[{"filename":"a","url":"b"}]}', r'{"f\u0069les":[{"filename":"a","url":"N"}]}'),
            (
                '{"files":[{"filename":"a","url":"b"}],"files":[{"filename":"c","url":"d"}]}',
                '{"files":[{"filename":"a","url":"N"}],"files":[{"filename":"c","url":"N"}]}',
            ),
            (
                '{"files":[{"filename":"x","url":1,"filename":"a","url":"b"}]}',
                '{"files":[{"filename":"x","url":"N","filename":"a","url":"N"}]}',
            ),
        ):
            found = rewritten(original.encode(), always("N")).decode()
            self.assertEqual(found, expected)

    def test_large_value(self) -> None:
        """A value larger than the window passes, in the page and in a file's entry."""
        text = "x\\n" * WINDOW
        original = page(f'[{{"filename":"a","x":"{text}","url":"b"}}]', more=f', "y": "{text}"')
        self.assertEqual(json.loads(rewritten(original)), json.loads(original.replace(b'"b"', b'"../../files/a"')))

    def test_steps(self) -> None:
        """A page of 10,000 files comes in small chunks, so that no step is long."""
        original = large(10_000)
        chunks = list(simple_json.rewrite(original, new_url))
        self.assertLess(max(map(len, chunks)), 2 * STEP)
        expected = json.loads(original)
        for file in expected["files"]:
            file["url"] = f"../../files/{file['filename']}"
        self.assertEqual(json.loads(b"".join(chunks)), expected)

    def test_steps_without_files(self) -> None:
        """Steps are short where every file is left out, and in lists nobody knows."""
        for original in (large(1000), page(more=', "x": ' + json.dumps([{"a": [n]} for n in range(50_000)]))):
            self.assertGreater(len(list(simple_json.rewrite(original, only(())))), len(original) // (3 * STEP))


class RefusalTests(SynchronousTestCase):
    def check(self, original: bytes, sentence: str) -> None:
        error = self.assertRaises(ValueError, rewritten, original)
        self.assertIn(sentence, str(error), original[:80])
        self.assertRaises(ValueError, list, simple_json.files(original))

    def test_not_a_page(self) -> None:
        """What is no project page is refused with a sentence that says why."""
        for original, sentence in (
            (b"", "not a JSON object"),
            (b"<!DOCTYPE html>", "not a JSON object"),
            (b"[]", "not a JSON object"),
            (b'"files"', "not a JSON object"),
            (b"{}", "no list of files"),
            (b'{"message": "Not Found"}', "no list of files"),
            (b'{"files": {}}', "files are not a list"),
            (b'{"files": null}', "files are not a list"),
            (b'{"files": [1]}', "where an object should be"),
            (b'{"files": [null]}', "where an object should be"),
            (b'{"files": [{}]}', "without 'filename'"),
            (b'{"files": [{"filename": "a"}]}', "without 'url'"),
            (b'{"files": [{"url": "a"}]}', "without 'filename'"),
            (b'{"files": [{"filename": "a", "url": null}]}', "without 'url'"),
            (page(meta='{"api-version": "2.0"}'), "version '2.0'"),
            (page(meta='{"api-version": "10.0"}'), "version '10.0'"),
            (page(meta='{"api-version": 1}'), "version 1"),
            (b'{"files": [], "meta": {"api-version": "2.1"}}', "version '2.1'"),
        ):
            self.check(original, sentence)

    def test_not_json(self) -> None:
        """What is not JSON is refused, wherever the mistake is."""
        for original in (
            '{"files": []',
            '{"files": [',
            '{"files": [{"filename": "a", "url": "b"}',
            '{"files": [{"filename": "a", "url": "b"},]}',
            '{"files": [{"filename": "a", "url": "b",}]}',
            '{"files": [{"filename": "a" "url": "b"}]}',
            '{"files": [{"filename": "a", "url": "b"}{}]}',
            '{"files": [{"filename": "a", "url": "b", 1: 2}]}',
            '{"files": [{"filename": "a", "url": "b", "x": NaN}]}',
            '{"files": [{"filename": "a", "url": "b\n"}]}',
            '{"files": [,]}',
            '{"files": [],}',
            '{"files": []}}',
            '{"files": []} x',
            "{,}",
            '{"files" []}',
            "{files: []}",
            '{"files": [], "x": [1, 2,]}',
            '{"files": [], "x": ["a", "b",]}',
            '{"files": [], "x": [1 2]}',
            '{"files": [], "x": [}',
            '{"files": [], "x": {]}',
            '{"files": [], "x": {"a"}}',
            '{"files": [], "x": {"a": }}',
            '{"files": [], "x": Infinity}',
            '{"files": [], "x": 01}',
            '{"files": [], "x": 1.}',
            '{"files": [], "x": 1e}',
            '{"files": [], "x": "\t"}',
            r'{"files": [], "x": "\x"}',
            r'{"files": [], "x": "\u12"}',
        ):
            self.check(original.encode(), "The page")

    def test_cut(self) -> None:
        """A page that ends too early is refused wherever it ends."""
        whole = FULL.strip()
        for end in range(len(whole)):
            self.assertRaises(ValueError, rewritten, whole[:end])

    def test_not_utf8(self) -> None:
        """Pages in other charsets are refused."""
        for original in (
            page().decode().encode("utf-16"),
            page().decode().encode("utf-32-le"),
            b'{"files": [], "x": "\xe9"}',
            b'{"files": [], "x": "\xed\xa0\x80"}',
        ):
            self.assertRaises(ValueError, rewritten, original)

    def test_deep(self) -> None:
        """Lists within lists without end are refused, in the page and in a file's entry."""
        for depth, brackets in ((200_000, "["), (200_000, '{"a":')):
            deep = brackets * depth
            self.check(f'{{"files": [], "x": {deep}'.encode(), "")
            self.check(f'{{"files": [{{"filename": "a", "url": "b", "x": {deep}'.encode(), "")

    def test_too_large(self) -> None:
        """An entry without end is refused before it is all read."""
        self.check(b'{"files": [{"filename": "' + b"x" * (3 * LARGEST), "more than")


class FilesTests(SynchronousTestCase):
    def test_full(self) -> None:
        """All that a page says of its files is read."""
        wheel, sdist, old, plain = simple_json.files(FULL)
        self.assertEqual(
            wheel,
            File(
                filename=WHEEL,
                url=f"https://files.example.org/packages/bb/22/{WHEEL}",
                hashes={"md5": "cc", "sha256": "bb22", "blake2b_256": "dd"},
                core_metadata={"sha256": "aa11"},
                requires_python='>=3.8,<4 "\u00e9"',
                yanked=False,
                size=12345,
                upload_time="2024-01-02T03:04:05.678901Z",
                provenance="https://index.example.org/integrity/sample_project-2.0/provenance",
            ),
        )
        self.assertEqual((sdist.url, sdist.core_metadata), (f"../../packages/{SDIST}", False))
        self.assertEqual((sdist.gpg_sig, sdist.provenance), (True, None))
        self.assertEqual(sdist.yanked, "broken <b>\"badly\"</b> & 'late' \U0001f600 \ud800")
        self.assertEqual((old.url, old.core_metadata, old.yanked), ("files/Sample.Project-1.0.zip#md5=00", True, True))
        self.assertEqual((old.gpg_sig, old.requires_python, old.size), (False, None, None))
        self.assertEqual(plain.core_metadata, {"sha256": "99ff"})

    def test_other_types(self) -> None:
        """A member of a type that the specification does not know counts as absent."""
        odd = '{"filename":"a","url":"b","hashes":[1],"size":"1","yanked":1,"gpg-sig":"x","core-metadata":"x"}'
        self.assertEqual(list(simple_json.files(page(f"[{odd}]"))), [File("a", "b", {})])
        odd = '{"filename":"a","url":"b","hashes":{"sha256":1,"md5":"c"},"size":true,"provenance":false}'
        self.assertEqual(list(simple_json.files(page(f"[{odd}]"))), [File("a", "b", {"md5": "c"})])

    def test_best_hash(self) -> None:
        """sha256 is named where it is known, else the strongest that clients know."""
        for hashes, expected in (
            ({"sha512": "a", "sha256": "b"}, ("sha256", "b")),
            ({"md5": "a", "sha384": "b", "sha224": "c"}, ("sha384", "b")),
            ({"blake2b_256": "a"}, None),
            ({}, None),
        ):
            self.assertEqual(simple_json.best_hash(hashes), expected)


class MetaTests(SynchronousTestCase):
    def test_full(self) -> None:
        """All that a page says of itself is read, wherever in the page it is."""
        expected = Meta(
            name="sample-project",
            api_version="1.4",
            last_serial=987654321,
            status="archived",
            status_reason='see "elsewhere" <now>',
            tracks=("https://up.example.org/simple/sample-project/",),
            alternate_locations=("https://other.example.org/simple/sample-project/",),
        )
        self.assertEqual(simple_json.meta(FULL), expected)
        self.assertEqual(list(simple_json.meta_steps(pieces(FULL, 5)))[-1], expected)

    def test_little(self) -> None:
        """A page that says nothing of itself is of version 1.0."""
        self.assertEqual(simple_json.meta(b'{"files": []}'), Meta())
        odd = b'{"meta": {"_last-serial": "1"}, "name": 1, "project-status": "x", "alternate-locations": {}}'
        self.assertEqual(simple_json.meta(odd), Meta())

    def test_refused(self) -> None:
        """What is not JSON or of another version is refused."""
        for original in (b"", b"[]", b"{", b'{"meta": {"api-version": "2.0"}}', b'{"a": [1}'):
            self.assertRaises(ValueError, simple_json.meta, original)

    def test_steps(self) -> None:
        """A large page is looked through in short steps."""
        original = large(2000)
        steps = list(simple_json.meta_steps(original))
        self.assertGreater(len(steps), len(original) // (2 * STEP))
        self.assertEqual(steps[-1], Meta("large-project", "1.4", 1))


class ProjectsTests(SynchronousTestCase):
    def test_names(self) -> None:
        """The root index names its projects as it spells them."""
        root = b'{"meta": {"api-version": "1.1"}, "projects": [{"name": "Foo.Bar", "_last-serial": 1}, {"name": "b"}]}'
        self.assertEqual(list(simple_json.projects(root)), ["Foo.Bar", "b"])
        self.assertEqual(simple_json.meta(root).api_version, "1.1")

    def test_refused(self) -> None:
        """A project page is no root index, nor is a list of something else."""
        for original in (FULL, b'{"projects": {}}', b'{"projects": ["a"]}', b'{"projects": [{"x": 1}]}'):
            self.assertRaises(ValueError, list, simple_json.projects(original))
