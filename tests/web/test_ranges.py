"""Which bytes a Range field asks for, and how several parts are answered."""

from __future__ import annotations

import itertools
from email import message_from_bytes

from twisted.trial.unittest import SynchronousTestCase

from vault.web.ranges import Multipart, Unsatisfiable, closed, content_range, first_offset, parse, unsatisfied_range


class ParseTests(SynchronousTestCase):
    def test_spans(self) -> None:
        """Ranges are read as RFC 9110 has them, cut at the end of the body."""
        for value, length, expected in (
            ("bytes=0-0", 10, [(0, 1)]),
            ("bytes=0-9", 10, [(0, 10)]),
            ("bytes=2-5", 10, [(2, 6)]),
            ("bytes=2-", 10, [(2, 10)]),
            ("bytes=9-", 10, [(9, 10)]),
            ("bytes=2-99", 10, [(2, 10)]),
            ("bytes=-3", 10, [(7, 10)]),
            ("bytes=-10", 10, [(0, 10)]),
            ("bytes=-99", 10, [(0, 10)]),
            ("Bytes=0-1", 10, [(0, 2)]),
            ("bytes= 0-1 , 4-5", 10, [(0, 2), (4, 6)]),
            ("bytes=,0-1,,\t4-5,", 10, [(0, 2), (4, 6)]),
            ("bytes=5-6,0-1", 10, [(5, 7), (0, 2)]),
            ("bytes=0-1,20-30", 10, [(0, 2)]),
            ("bytes=0-1,-0", 10, [(0, 2)]),
            ("bytes=000-0001", 10, [(0, 2)]),
            ("bytes=0-5,3-7", 10, [(0, 6), (3, 8)]),
        ):
            self.assertEqual(parse(value, length), expected, value)

    def test_closed(self) -> None:
        """One range with both its ends is known without the length."""
        for value, expected in (
            ("bytes=0-0", (0, 1)),
            ("bytes=2-5", (2, 6)),
            ("bytes=2-", None),
            ("bytes=-3", None),
            ("bytes=0-1,4-5", None),
            ("bytes=5-2", None),
            ("items=0-1", None),
        ):
            self.assertEqual(closed(value), expected, value)

    def test_ignored(self) -> None:
        """A field that is malformed or of another unit is ignored, so the whole body is served."""
        for value in (
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=0-1,5-2",
            "bytes=0-1;2-3",
            "bytes=0 - 1",
            "bytes=+0-1",
            "bytes=--1",
            "bytes=1-2-3",
            "bytes=0x0-1",
            "bytes=\N{SUPERSCRIPT TWO}-",
            "bytes 0-1",
            "items=0-1",
            "=0-1",
        ):
            self.assertIsNone(parse(value, 10), value)

    def test_unsatisfiable(self) -> None:
        """A range that begins after the end is refused as unsatisfiable."""
        for value, length in (
            ("bytes=10-", 10),
            ("bytes=10-20", 10),
            ("bytes=-0", 10),
            ("bytes=10-,20-30,-0", 10),
            ("bytes=0-", 0),
            ("bytes=0-0", 0),
            ("bytes=-0", 0),
            ("bytes=" + "9" * 5000 + "-", 10),
        ):
            self.assertRaises(Unsatisfiable, parse, value, length)

    def test_end_of_an_empty_body(self) -> None:
        """The end of an empty body is the empty body, served whole."""
        self.assertIsNone(parse("bytes=-5", 0))

    def test_number_of_ranges(self) -> None:
        """Up to 64 ranges are served; more are ignored."""
        value = "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(64))
        self.assertEqual(len(parse(value, 1000) or ()), 64)
        self.assertIsNone(parse(value + ",500-500", 1000))
        self.assertIsNone(parse("bytes=" + "0-," * 10000, 1000))

    def test_overlap(self) -> None:
        """More than two ranges that overlap are ignored, whatever their order, however they overlap."""
        spans = list(itertools.combinations(range(5), 2))
        for chosen in itertools.product(spans, repeat=3):
            shared = sum(
                any(a != b and one[0] < other[1] and other[0] < one[1] for b, other in enumerate(chosen))
                for a, one in enumerate(chosen)
            )
            value = "bytes=" + ",".join(f"{start}-{stop - 1}" for start, stop in chosen)
            self.assertEqual(parse(value, 10), None if shared > 2 else list(chosen), value)

    def test_huge_numbers(self) -> None:
        """Numbers of any length are handled at once."""
        nines = "9" * 30000
        self.assertEqual(parse(f"bytes=0-{nines}", 10), [(0, 10)])
        self.assertEqual(parse(f"bytes=-{nines}", 10), [(0, 10)])
        self.assertEqual(parse(f"bytes={'0' * 30000}1-", 10), [(1, 10)])

    def test_large_files(self) -> None:
        """Offsets are exact in files of many terabytes."""
        length = 2**50
        self.assertEqual(parse(f"bytes={length - 2}-{length - 1}", length), [(length - 2, length)])


class FirstOffsetTests(SynchronousTestCase):
    def test_lowest(self) -> None:
        """The lowest start named is known before the length is."""
        for value, expected in (
            ("bytes=7-", 7),
            ("bytes=7-8,3-4", 3),
            ("bytes=7-,-5", 7),
            ("bytes=-5", None),
            ("bytes=x", None),
            ("items=1-", None),
        ):
            self.assertEqual(first_offset(value), expected, value)


class AnswerTests(SynchronousTestCase):
    def test_content_range(self) -> None:
        """Content-Range names the first and the last byte."""
        self.assertEqual(content_range(2, 6, 10), "bytes 2-5/10")
        self.assertEqual(content_range(2, 6, None), "bytes 2-5/*")
        self.assertEqual(unsatisfied_range(10), "bytes */10")

    def test_multipart(self) -> None:
        """Several parts make a body that a MIME reader takes apart again, of the length announced."""
        body = b"0123456789"
        answer = Multipart([(0, 2), (8, 10)], len(body), "text/plain", "b_1")
        pieces = zip(answer.preambles, answer.parts, strict=True)
        sent = b"".join(preamble + body[start:stop] for preamble, (start, stop) in pieces) + answer.closing
        self.assertEqual(len(sent), answer.content_length)
        message = message_from_bytes(b"Content-Type: " + answer.header + b"\r\n\r\n" + sent)
        parts = message.get_payload()
        self.assertEqual([part.get_payload(decode=True) for part in parts], [b"01", b"89"])
        self.assertEqual([part["Content-Range"] for part in parts], ["bytes 0-1/10", "bytes 8-9/10"])
        self.assertEqual([part["Content-Type"] for part in parts], ["text/plain", "text/plain"])

    def test_multipart_without_type(self) -> None:
        """A body without a type has parts without one."""
        self.assertNotIn(b"Content-Type", Multipart([(0, 1), (2, 3)], 4, None, "b").preambles[0])

    def test_boundary(self) -> None:
        """A boundary that could break the message is refused."""
        for boundary in ("", "a b", 'a"', "a\r\n", "a" * 71):
            self.assertRaises(ValueError, Multipart, [(0, 1)], 1, None, boundary)
