"""When a client has the artifact already, and when a part of it may be sent."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from vault.artifact import Head
from vault.web.conditional import evaluate, range_applies

NOON = 784_111_777
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
OLD_STYLE = ("Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994")
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:50:37 GMT"


def head(etag: str | None = None, modified: str | None = None, date: str | None = None, status: int = 200) -> Head:
    fields = {"ETag": etag, "Last-Modified": modified, "Date": date}
    return Head(status, received_at=NOON).with_headers(fields)


class IfNoneMatchTests(SynchronousTestCase):
    def check(self, value: str, etag: str | None, expected: bool) -> None:
        self.assertEqual(evaluate("GET", {"if-none-match": value}, head(etag)), expected, (value, etag))

    def test_list(self) -> None:
        """The client has it if any tag of its list is the stored one; weak and strong are not told apart."""
        for value, etag, expected in (
            ('"a"', '"a"', True),
            ('W/"a"', '"a"', True),
            ('"a"', 'W/"a"', True),
            ('"b", "a"', '"a"', True),
            ('"b","a"', '"a"', True),
            ('"b" "a"', '"a"', True),
            ('"x,y", "b"', '"x,y"', True),
            ('"x,y"', '"y"', False),
            ('"b"', '"a"', False),
            ('"A"', '"a"', False),
            ("", '"a"', False),
            ('"a"', None, False),
        ):
            self.check(value, etag, expected)

    def test_unquoted(self) -> None:
        """A registry's tag without quotes is recognised when a client sends it back."""
        self.check("sha256:ab", "sha256:ab", True)
        self.check('"sha256:ab"', "sha256:ab", True)
        self.check("sha256:cd", "sha256:ab", False)

    def test_star(self) -> None:
        """A star stands for whatever is stored, alone and unquoted."""
        self.check("*", None, True)
        self.check(" * ", '"a"', True)
        self.check('"*"', '"a"', False)

    def test_wins_over_date(self) -> None:
        """The date is not looked at when there are tags."""
        for tag, expected in (('"a"', True), ('"b"', False)):
            headers = {"if-none-match": tag, "if-modified-since": AFTER if tag == '"b"' else BEFORE}
            self.assertEqual(evaluate("GET", headers, head('"a"', DATE)), expected, tag)

    def test_method_and_status(self) -> None:
        """Only a GET or HEAD that would succeed is answered with 304."""
        headers = {"if-none-match": "*"}
        self.assertTrue(evaluate("HEAD", headers, head()))
        self.assertFalse(evaluate("POST", headers, head()))
        self.assertFalse(evaluate("GET", headers, head(status=404)))


class IfModifiedSinceTests(SynchronousTestCase):
    def check(self, value: str, stored: Head, expected: bool) -> None:
        self.assertEqual(evaluate("GET", {"if-modified-since": value}, stored), expected, (value, stored))

    def test_last_modified(self) -> None:
        """The client has it if it was not modified after the client's date, in any of the forms of a date."""
        for value in (DATE, AFTER, *OLD_STYLE):
            self.check(value, head(modified=DATE), True)
        self.check(BEFORE, head(modified=DATE), False)

    def test_exact(self) -> None:
        """Where dates may go back only the very Last-Modified counts, and without one nothing does."""
        for value, stored in ((DATE, DATE), (AFTER, DATE), (BEFORE, DATE), (AFTER, None)):
            headers = {"if-modified-since": value}
            had = evaluate("GET", headers, head(modified=stored, date=DATE), exact_date=True)
            self.assertEqual(had, value == stored, (value, stored))

    def test_invalid(self) -> None:
        """Without a valid date the body is sent."""
        for value in ("", "now", "784111777", f"{DATE}; length=5", f"{DATE}, {DATE}"):
            self.check(value, head(modified=BEFORE), False)
        self.check(AFTER, head(modified="recently", date=BEFORE), False)
        self.assertFalse(evaluate("GET", {}, head('"a"', DATE)))

    def test_without_last_modified(self) -> None:
        """Where the upstream gave no modification date, its Date or the time of receipt stands for it."""
        self.check(AFTER, head(date=DATE), True)
        self.check(BEFORE, head(date=DATE), False)
        self.check(AFTER, head(), True)
        self.check(BEFORE, head(), False)
        self.check(AFTER, Head(), False)


class IfRangeTests(SynchronousTestCase):
    def test_table(self) -> None:
        """A part is sent only to a client that provably has the rest of the same body."""
        dated = head(modified=BEFORE, date=DATE)
        for value, stored, expected in (
            (None, head(), True),
            ('"a"', head('"a"'), True),
            (' "a" ', head('"a"'), True),
            ('"a"', head('"b"'), False),
            ('W/"a"', head('"a"'), False),
            ('"a"', head('W/"a"'), False),
            ('W/"a"', head('W/"a"'), False),
            ('"a", "b"', head('"a"'), False),
            ("a", head("a"), False),
            ("*", head('"a"'), False),
            (BEFORE, dated, True),
            (BEFORE, head('"a"', BEFORE, DATE), True),
            (DATE, dated, False),
            (AFTER, dated, False),
            (DATE, head(modified=DATE, date=DATE), False),
            (BEFORE, head(), False),
            ("", dated, False),
        ):
            headers = {} if value is None else {"if-range": value}
            self.assertEqual(range_applies(headers, stored), expected, (value, stored))
