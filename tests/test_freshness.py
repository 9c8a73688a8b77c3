"""What may be stored, for how long, and how it is confirmed."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from vault import freshness
from vault.artifact import Artifact, Head

NOON = 784_111_777  # Sun, 06 Nov 1994 08:49:37 GMT
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:50:37 GMT"


def head(status: int = 200, requested: float = NOON, received: float = NOON, **fields: str) -> Head:
    """A head whose keyword ``Cache_Control`` is the field Cache-Control."""
    headers = tuple((name.replace("_", "-"), value) for name, value in fields.items())
    return Head(status, headers, requested, received)


class DateTests(SynchronousTestCase):
    def test_three_forms(self) -> None:
        """All three forms of an HTTP date name the same instant."""
        for text in (DATE, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", f" {DATE} "):
            self.assertEqual(freshness.parse_date(text), NOON, text)

    def test_two_digit_years(self) -> None:
        """Two-digit years are of 1970 to 2069."""
        self.assertEqual(freshness.parse_date("Thursday, 01-Jan-70 00:00:00 GMT"), 0)
        self.assertEqual(freshness.parse_date("Tuesday, 01-Jan-69 00:00:00 GMT"), 3_124_224_000)

    def test_leap_second(self) -> None:
        """A leap second is read as the second after."""
        self.assertEqual(freshness.parse_date("Sat, 31 Dec 2016 23:59:60 GMT"), 1_483_228_800)

    def test_anything_else_is_no_date(self) -> None:
        """What is not an HTTP date is not guessed at."""
        for text in (
            None,
            "",
            "0",
            "yesterday",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nox 1994 08:49:37 GMT",
            "Sun, 06 Nov 0000 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 0\N{ARABIC-INDIC DIGIT SIX} Nov 1994 08:49:37 GMT",
            f"{DATE}, {DATE}",
        ):
            self.assertIsNone(freshness.parse_date(text), text)


class CacheControlTests(SynchronousTestCase):
    def test_directives(self) -> None:
        """Directives are read with or without arguments and quotes, whatever their case and spacing."""
        for text, expected in (
            ("", {}),
            ("no-store", {"no-store": None}),
            ("Max-Age=60, PUBLIC", {"max-age": "60", "public": None}),
            ("max-age = 60 ,,public", {"max-age": "60", "public": None}),
            ('private="set-cookie, x-a", max-age="5"', {"private": "set-cookie, x-a", "max-age": "5"}),
            (r'ext="a\"b, c", no-cache', {"ext": 'a"b, c', "no-cache": None}),
            ("max-age=60; public", {"max-age": "60", "public": None}),
            ("max-age=, public", {"max-age": "", "public": None}),
            ('private="never closed', {"private": "never closed"}),
        ):
            self.assertEqual(freshness.cache_control(head(Cache_Control=text)), expected, text)

    def test_first_wins(self) -> None:
        """Of a repeated directive the first one counts."""
        self.assertEqual(freshness.cache_control(head(Cache_Control="max-age=1, max-age=2")), {"max-age": "1"})

    def test_bare_form_is_stricter(self) -> None:
        """A private for the whole answer is not weakened by one for a field."""
        for text in ('private="x", private', 'private, private="x"'):
            self.assertEqual(freshness.cache_control(head(Cache_Control=text)), {"private": None}, text)

    def test_many_quotes_are_read_in_time(self) -> None:
        """A malicious field of 30,000 characters takes no noticeable time: some 20 ms, and not seconds."""
        for text in ('a="' + "\\" * 30000, 'a="' * 10000, 'a="' + '\\"' * 15000, "a " * 15000, 'a="' + 'b, c="' * 5000):
            began = time.process_time()
            freshness.cache_control(head(Cache_Control=text))
            self.assertLess(time.process_time() - began, 1, text[:10])


class StorableTests(SynchronousTestCase):
    def test_stored(self) -> None:
        """Ordinary answers are kept, also with field arguments or max-age=0."""
        for text in ("", "max-age=0", "no-cache", 'private="set-cookie"'):
            self.assertTrue(freshness.storable(head(Cache_Control=text)), text)
        self.assertTrue(freshness.storable(head(203, Vary="Accept, Accept-Encoding")))

    def test_not_stored(self) -> None:
        """Partial, failed, private and per-request answers are not kept."""
        for text in ("no-store", "public, NO-STORE", "private", 'private=""'):
            self.assertFalse(freshness.storable(head(Cache_Control=text)), text)
        for status in (206, 304, 404, 500):
            self.assertFalse(freshness.storable(head(status)), status)
        for text in ("*", "Accept, *"):
            self.assertFalse(freshness.storable(head(Vary=text)), text)


class VolatileTests(SynchronousTestCase):
    def test_says_that_it_changes(self) -> None:
        """Pages and answers that ask for validation are taken as changing."""
        for text in ("no-cache", "max-age=0", "s-maxage=0, max-age=60", "max-age=soon", "max-age=-1", "max-age"):
            self.assertTrue(freshness.volatile(head(Cache_Control=text)), text)
        for text in ("text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml"):
            self.assertTrue(freshness.volatile(head(Content_Type=text)), text)

    def test_expires(self) -> None:
        """So are those that expire when they are sent, unless a lifetime says otherwise."""
        date, later = "Thu, 26 Nov 2026 12:00:00 GMT", "Thu, 26 Nov 2026 12:00:01 GMT"
        for text in ("0", "-1", "", date, "Thu, 19 Nov 1981 08:52:00 GMT"):
            self.assertTrue(freshness.volatile(head(Expires=text, Date=date)), text)
            self.assertFalse(freshness.volatile(head(Expires=text, Date=date, Cache_Control="max-age=60")), text)
        self.assertFalse(freshness.volatile(head(Expires=later, Date=date)))
        self.assertTrue(freshness.volatile(replace(head(Expires="Thu, 01 Jan 1970 00:00:00 GMT"), received_at=9.0)))
        self.assertFalse(freshness.volatile(replace(head(Expires=later), received_at=9.0)))

    def test_does_not(self) -> None:
        """A file with a lifetime, or without any word on it, is taken as unchanging."""
        for text in ("", "max-age=60", "max-age=00060", "max-age=" + "9" * 5000, 'no-cache="set-cookie"'):
            self.assertFalse(freshness.volatile(head(Cache_Control=text)), text)
        for text in ("", "application/gzip", "text/plain"):
            self.assertFalse(freshness.volatile(head(Content_Type=text)), text)


class LifetimeTests(SynchronousTestCase):
    page = head(Content_Type="text/html")

    def test_for_ever(self) -> None:
        """What never changes is fresh for ever, whatever the upstream says."""
        artifact = Artifact("a/b", ())
        self.assertIsNone(freshness.lifetime(self.page, artifact))
        self.assertTrue(freshness.fresh(self.page, artifact, NOON + 1e9))
        self.assertEqual(freshness.staleness(self.page, artifact, NOON + 1e9), 0.0)

    def test_max_age(self) -> None:
        """A lifetime of the backend counts for every answer."""
        artifact = Artifact("a/b", (), max_age=600, volatile_max_age=60)
        self.assertEqual(freshness.lifetime(head(), artifact), 600)
        self.assertEqual(freshness.lifetime(self.page, artifact), 600)

    def test_volatile_max_age(self) -> None:
        """A shorter one counts where the answer shows that it changes."""
        artifact = Artifact("a/b", (), volatile_max_age=60)
        self.assertIsNone(freshness.lifetime(head(), artifact))
        self.assertEqual(freshness.lifetime(self.page, artifact), 60)

    def test_edges(self) -> None:
        """A copy is fresh until its lifetime has passed, and stale from that instant."""
        artifact = Artifact("a/b", (), max_age=60)
        for now, fresh, staleness in (
            (NOON - 50, True, 0),
            (NOON, True, 0),
            (NOON + 59.9, True, 0),
            (NOON + 60, False, 0),
            (NOON + 75, False, 15),
        ):
            self.assertEqual(freshness.fresh(head(), artifact, now), fresh, now)
            self.assertEqual(freshness.staleness(head(), artifact, now), staleness, now)

    def test_clock_set_back(self) -> None:
        """A copy from a time that is yet to come has expired; what never changes is not concerned."""
        self.assertFalse(freshness.fresh(head(), Artifact("a/b", (), max_age=60), NOON - 3600))
        self.assertEqual(freshness.staleness(head(), Artifact("a/b", (), max_age=60), NOON - 3600), math.inf)
        self.assertTrue(freshness.fresh(head(), Artifact("a/b", ()), NOON - 3600))
        self.assertEqual(freshness.staleness(head(), Artifact("a/b", ()), NOON - 3600), 0.0)

    def test_zero(self) -> None:
        """With a lifetime of 0 every request is validated."""
        self.assertFalse(freshness.fresh(head(), Artifact("a/b", (), max_age=0), NOON))


class AgeTests(SynchronousTestCase):
    def test_parts(self) -> None:
        """Age counts what the upstream says, the time on the way and the time in the cache."""
        for answer, now, expected in (
            (head(), NOON + 5, 5),
            (head(Date=DATE), NOON + 5, 5),
            (head(Date=DATE, received=NOON + 10, requested=NOON + 10), NOON + 15, 15),
            (head(Age="100"), NOON, 100),
            (head(Age="100", requested=NOON - 3), NOON + 1, 104),
            (head(Age="100, 7", Date=DATE), NOON, 100),
            (head(Age="1", Date=DATE, received=NOON + 50, requested=NOON + 50), NOON + 50, 50),
        ):
            self.assertEqual(freshness.age(answer, now), expected, answer)

    def test_nonsense(self) -> None:
        """Wrong clocks and unreadable fields never make an age negative."""
        for answer in (head(Date=AFTER), head(Date="now"), head(Age="-5"), head(Age="old"), head(requested=NOON + 9)):
            self.assertEqual(freshness.age(answer, NOON), 0.0, answer)
        self.assertEqual(freshness.age(head(), NOON - 50), 0.0)
        self.assertEqual(freshness.elapsed(head(), NOON - 50), 0.0)

    def test_huge(self) -> None:
        """A huge Age is capped."""
        self.assertEqual(freshness.age(head(Age="9" * 9000), NOON), 2**31 - 1)
        for date in ("Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 01 Jan 1700 00:00:00 GMT"):
            self.assertEqual(freshness.age(head(Date=date, Age="9"), NOON + 60), 2**31 - 1)

    def test_elapsed_ignores_the_origin(self) -> None:
        """The vault's own lifetimes count from its last validation, however old the origin's Date is."""
        self.assertEqual(freshness.elapsed(head(Date="Thu, 01 Jan 1970 00:00:00 GMT", Age="9"), NOON + 2), 2)


class FreshenTests(SynchronousTestCase):
    stored = head(
        ETag='"a"', Content_Type="text/x", Content_Encoding="gzip", Date=DATE, Age="7", X_Kept="1", Expires=DATE
    )

    def test_merge(self) -> None:
        """A 304 brings new dates and fields; those of the stored body stay."""
        answer = head(
            304,
            NOON + 50,
            NOON + 60,
            Date=AFTER,
            Expires=AFTER,
            X_New="2",
            Content_Type="text/y",
            Content_Length="0",
            Content_Encoding="br",
            Content_Range="bytes 0-0/1",
            Transfer_Encoding="chunked",
            Connection="close",
        )
        merged = freshness.freshen(self.stored, answer)
        self.assertEqual((merged.status, merged.requested_at, merged.received_at), (200, NOON + 50, NOON + 60))
        self.assertEqual(
            sorted(merged.headers),
            [
                ("Content-Encoding", "gzip"),
                ("Content-Type", "text/x"),
                ("Date", AFTER),
                ("ETag", '"a"'),
                ("Expires", AFTER),
                ("X-Kept", "1"),
                ("X-New", "2"),
            ],
        )

    def test_old_age_goes(self) -> None:
        """A confirmed copy is as young as its confirmation, also where that has neither Date nor Age."""
        merged = freshness.freshen(self.stored, head(304, NOON + 60, NOON + 60))
        self.assertEqual(freshness.age(merged, NOON + 61), 1)

    def test_strong_tag_is_kept(self) -> None:
        """A 304 that spells the tag as weak does not weaken the stored one."""
        self.assertEqual(freshness.freshen(self.stored, head(304, ETag='W/"a"')).etag, '"a"')

    def test_repeated_fields(self) -> None:
        """All lines of a repeated field are replaced by all lines of the answer's."""
        stored = Head(headers=(("Link", "a"), ("link", "b"), ("X", "y")))
        answer = Head(304, (("Link", "c"), ("Link", "d")))
        self.assertEqual(freshness.freshen(stored, answer).headers, (("X", "y"), ("Link", "c"), ("Link", "d")))

    def test_matches(self) -> None:
        """A 304 about another tag does not confirm the stored copy."""
        for stored, answer, expected in (
            ('"a"', '"a"', True),
            ('"a"', 'W/"a"', True),
            ("a", '"a"', True),
            ('"a"', "", True),
            ("", '"a"', True),
            ('"a"', '"b"', False),
            ('W/"a"', 'W/"b"', False),
        ):
            self.assertEqual(freshness.matches(head(ETag=stored), head(304, ETag=answer)), expected, (stored, answer))


class ValidatorTests(SynchronousTestCase):
    def test_validators(self) -> None:
        """The upstream is asked by tag and by date, as it gave them; never by something that is not a date."""
        tag, date = ("If-None-Match", 'W/"a"'), ("If-Modified-Since", DATE)
        self.assertEqual(freshness.validators(head(ETag='W/"a"', Last_Modified=DATE)), [tag, date])
        self.assertEqual(freshness.validators(head(ETag='W/"a"', Last_Modified="recently")), [tag])
        self.assertEqual(freshness.validators(head(Last_Modified=DATE)), [date])
        self.assertEqual(freshness.validators(head()), [])

    def test_resume(self) -> None:
        """A broken transfer is resumed by strong tag, else by strong date, else not."""
        for answer, expected in (
            (head(ETag='"a"', Last_Modified=BEFORE, Date=DATE), '"a"'),
            (head(Last_Modified=BEFORE, Date=DATE), BEFORE),
            (head(ETag="unquoted", Last_Modified=BEFORE, Date=DATE), BEFORE),
            (head(ETag='W/"a"', Last_Modified=BEFORE, Date=DATE), None),
            (head(Last_Modified=DATE, Date=DATE), None),
            (head(Last_Modified=BEFORE), None),
            (head(Last_Modified=BEFORE, received=NOON + 59), BEFORE),
            (head(Last_Modified="recently", Date=DATE), None),
            (head(), None),
        ):
            self.assertEqual(freshness.resume_validator(answer), expected, answer)

    def test_same_representation(self) -> None:
        """Parts are put together only under the same strong validator."""
        dated = head(Last_Modified=BEFORE, Date=DATE)
        for old, new, expected in (
            (head(ETag='"a"'), head(206, ETag='"a"'), True),
            (head(ETag='"a"'), head(206, ETag='"b"'), False),
            (head(ETag='W/"a"'), head(206, ETag='W/"a"'), False),
            (head(ETag='"a"', Last_Modified=BEFORE, Date=DATE), dated, False),
            (dated, head(206, Last_Modified=BEFORE, ETag='"a"'), False),
            (dated, dated, True),
            (dated, head(206, Last_Modified=AFTER), False),
            (dated, head(206), False),
            (head(Last_Modified=DATE, Date=DATE), head(Last_Modified=DATE, Date=AFTER), False),
            (head(), head(206), False),
        ):
            self.assertEqual(freshness.same_representation(old, new), expected, (old, new))


class RetryAfterTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """A wait is given in seconds or as a date; a date that has passed means now."""
        for text, expected in (
            ("120", 120.0),
            (" 0 ", 0.0),
            (AFTER, 60.0),
            (BEFORE, 0.0),
            ("9" * 9000, 3600.0),
            ("-1", None),
            ("1.5", None),
            ("later", None),
            ("\N{SUPERSCRIPT TWO}", None),
        ):
            self.assertEqual(freshness.retry_after(head(503, Retry_After=text), NOON), expected, text)
        self.assertIsNone(freshness.retry_after(head(503), NOON))

    def test_other_clock(self) -> None:
        """A date is compared with the answer's own, however wrong the vault's clock is."""
        for now in (NOON - 86400, NOON, NOON + 86400):
            told = head(503, Retry_After=AFTER, Date=DATE)
            self.assertEqual(freshness.retry_after(told, now), 60.0)
            self.assertEqual(freshness.retry_after(told.with_headers({"Age": "45"}), now), 15.0)
            self.assertEqual(freshness.retry_after(told.with_headers({"Retry-After": BEFORE}), now), 0.0)
            self.assertEqual(freshness.retry_after(told.with_headers({"Retry-After": "20"}), now), 20.0)
