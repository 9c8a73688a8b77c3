"""Header fields of the vault's answers, and what is taken over from the upstream's."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from vault.artifact import Head
from vault.outcome import How
from vault.web import headers


class EndToEndTests(SynchronousTestCase):
    def names(self, *fields: tuple[bytes, bytes]) -> list[str]:
        return [name for name, _ in headers.end_to_end((name, [value]) for name, value in fields)]

    def test_kept(self) -> None:
        """Fields meant for the client keep their order, spelling, lines and bytes."""
        raw = [(b"ETag", [b'"a"']), (b"x-One", [b"1", b" 2 "]), (b"Via", [b"1.1 x"]), (b"X-Bytes", [b"caf\xe9"])]
        expected = (("ETag", '"a"'), ("x-One", "1"), ("x-One", "2"), ("Via", "1.1 x"), ("X-Bytes", "caf\xe9"))
        self.assertEqual(headers.end_to_end(raw), expected)

    def test_dropped(self) -> None:
        """Fields for this connection, for its framing, or about the upstream's own origin are left out."""
        for name in (
            b"Connection",
            b"Keep-Alive",
            b"Proxy-Connection",
            b"Proxy-Authenticate",
            b"TE",
            b"Trailer",
            b"Transfer-Encoding",
            b"Upgrade",
            b"Content-Length",
            b"Set-Cookie",
            b"SET-COOKIE2",
            b"Alt-Svc",
            b"Strict-Transport-Security",
            b"Public-Key-Pins",
            b"X-Cache",
        ):
            self.assertEqual(self.names((name, b"1"), (b"Cache-Status", b"A; hit")), ["Cache-Status"], name)

    def test_no_token(self) -> None:
        """A field whose name is no token is left out: it could pass for another one where it is read less strictly."""
        for name in (b"X Y", b"Content-Length ", b"", b"X:Y", b"X\tY", b"caf\xe9", b"X\x00", b"(X)", b'"X"', b"X\n"):
            self.assertEqual(self.names((name, b"1"), (b"x!#$%&'*+-.^_`|~9", b"1")), ["x!#$%&'*+-.^_`|~9"], name)

    def test_named_by_connection(self) -> None:
        """A field that Connection names is left out as well."""
        fields = ((b"Connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"X-End", b"1"))
        self.assertEqual(self.names(*fields), ["X-End"])

    def test_named_by_private(self) -> None:
        """A field that is private to one user is withheld; the answer is not."""
        fields = ((b"Cache-Control", b'private="X-User", no-cache="x-session, x-b"'), (b"X-User", b"u"), (b"X-B", b""))
        self.assertEqual(self.names(*fields), ["Cache-Control"])


class ResponseFieldsTests(SynchronousTestCase):
    def test_as_sent(self) -> None:
        """The upstream's fields are passed on as they came, but for framing, cookies and what the vault says itself."""
        head = Head(
            headers=(
                ("ETag", '"a"'),
                ("x-two", "1"),
                ("X-Two", "2"),
                ("Content-Length", "5"),
                ("Transfer-Encoding", "chunked"),
                ("Connection", "close"),
                ("Set-Cookie", "a=b"),
                ("Age", "7"),
                ("Accept-Ranges", "none"),
                ("Date", "then"),
                ("Via", "1.1 caf\xe9"),
            ),
            received_at=60.0,
        )
        kept = [(b"ETag", b'"a"'), (b"x-two", b"1"), (b"X-Two", b"2"), (b"Date", b"then"), (b"Via", b"1.1 caf\xe9")]
        self.assertEqual(headers.response_fields(head, age=None, accept_ranges=False), kept)
        added = [(b"Age", b"9"), (b"Accept-Ranges", b"bytes")]
        self.assertEqual(headers.response_fields(head, age=9.9, accept_ranges=True), kept + added)

    def test_date_of_receipt(self) -> None:
        """An answer without a date is dated by its receipt."""
        fields = headers.response_fields(Head(received_at=60.5), age=-1.0, accept_ranges=False)
        self.assertEqual(fields, [(b"Date", b"Thu, 01 Jan 1970 00:01:00 GMT"), (b"Age", b"0")])
        self.assertEqual(headers.response_fields(Head(), age=None, accept_ranges=False), [])

    def test_not_modified(self) -> None:
        """A 304 repeats the validators and the caching fields only."""
        fields = [(b"ETag", b"e"), (b"Content-Type", b"t"), (b"cache-control", b"c"), (b"Vary", b"v"), (b"X-A", b"")]
        expected = [(b"ETag", b"e"), (b"cache-control", b"c"), (b"Vary", b"v")]
        self.assertEqual(headers.not_modified_fields(fields), expected)


class CacheStatusTests(SynchronousTestCase):
    def test_outcomes(self) -> None:
        """Each way of answering has its word in X-Cache and its member in Cache-Status."""
        for how, expected in (
            (How.HIT, "ArtifactVault; hit"),
            (How.STALE, "ArtifactVault; hit"),
            (How.MISS, "ArtifactVault; fwd=uri-miss"),
            (How.JOINED, "ArtifactVault; fwd=uri-miss"),
            (How.REVALIDATED, "ArtifactVault; fwd=stale"),
            (How.BYPASS, "ArtifactVault; fwd=bypass"),
        ):
            self.assertEqual(headers.cache_status(how), expected)
            self.assertEqual(how.x_cache, how.name)

    def test_parameters(self) -> None:
        """Parameters follow in a fixed order, after the members of caches nearer to the origin."""
        self.assertEqual(
            headers.cache_status(
                How.MISS,
                existing="Edge; hit",
                fwd="partial",
                fwd_status=206,
                stored=True,
                collapsed=True,
                ttl=-3,
                detail="x",
            ),
            "Edge; hit, ArtifactVault; fwd=partial; fwd-status=206; stored; collapsed; ttl=-3; detail=x",
        )

    def test_hit_is_not_forwarded(self) -> None:
        """What belongs to forwarded requests is not said of a hit."""
        text = headers.cache_status(How.HIT, existing=" ", fwd_status=200, stored=True, collapsed=True, ttl=5)
        self.assertEqual(text, "ArtifactVault; hit; ttl=5")

    def test_detail_is_quoted(self) -> None:
        """A detail in free words is one quoted string, whatever is in it."""
        text = headers.cache_status(How.STALE, fwd="stale", detail='refused "by" \\ caf\xe9\r\nX: y')
        self.assertEqual(text, 'ArtifactVault; fwd=stale; detail="refused \\"by\\" \\\\ caf???X: y"')

    def test_bad_reason(self) -> None:
        """A reason that is not a token is a mistake of the caller."""
        self.assertRaises(ValueError, headers.cache_status, How.MISS, fwd="a; b")


class ValueTests(SynchronousTestCase):
    def test_retry_after(self) -> None:
        """Clients are told a whole number of seconds from 1 to 60."""
        for seconds, expected in (
            (None, b"5"),
            (float("nan"), b"5"),
            (-3, b"1"),
            (0, b"1"),
            (1.2, b"2"),
            (60, b"60"),
            (3600, b"60"),
            (float("inf"), b"60"),
        ):
            self.assertEqual(headers.retry_after_value(seconds), expected, seconds)

    def test_repr_digest(self) -> None:
        """A digest is given in base64 between colons."""
        empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        expected = b"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
        self.assertEqual(headers.repr_digest(empty), expected)
        self.assertRaises(ValueError, headers.repr_digest, "xyz")
