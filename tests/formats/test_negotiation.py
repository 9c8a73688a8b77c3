"""The form and the coding that a client gets."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from vault.formats.negotiation import Choice, choose, coding

JSON, V1_HTML, HTML = Choice.JSON, Choice.V1_HTML, Choice.HTML
J = "application/vnd.pypi.simple.v1+json"
H = "application/vnd.pypi.simple.v1+html"


class ChooseTests(SynchronousTestCase):
    def check(self, *rows: tuple[str | None, Choice]) -> None:
        for accept, expected in rows:
            self.assertEqual(choose(accept, None), expected, accept)

    def test_clients(self) -> None:
        """pip, uv and poetry get JSON, and curl and browsers get HTML."""
        self.check(
            (f"{J}, {H}; q=0.1, text/html; q=0.01", JSON),
            (f"{J}, {H};q=0.2, text/html;q=0.01", JSON),
            (f"{J}, */*;q=0.1", JSON),
            (J, JSON),
            ("*/*", HTML),
            (None, HTML),
            ("", HTML),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", HTML),
            ("text/html", HTML),
            ("text/html, application/xhtml+xml", HTML),
        )

    def test_content_types(self) -> None:
        """The types are sent exactly as uv compares them."""
        self.assertEqual([choice.content_type for choice in (JSON, V1_HTML, HTML)], [J, H, "text/html; charset=utf-8"])

    def test_weights(self) -> None:
        """The form liked best wins, in whatever order and spelling they come."""
        self.check(
            (f"{J};q=0.1, {H};q=0.5, text/html;q=0.2", V1_HTML),
            (f"{J} ; q = 0.1 ,{H};Q=0.05", JSON),
            (f"text/html;q=0.9,{J};q=0.8", HTML),
            (f"{J};q=0.001, text/html;q=0", JSON),
            (f"{J};q=0, text/html", HTML),
            (f"{J};q=0", HTML),
            (J.upper(), JSON),
            (H, V1_HTML),
            (f"{J};q=1.000, text/html;q=.9", JSON),
            (f"{J};version=1;q=0.2, text/html;charset=utf-8;q=0.1", JSON),
            (f"{J};q=0.2;x=1, text/html;q=0.5", HTML),
        )

    def test_ties(self) -> None:
        """Of forms named and liked equally JSON wins, as it says most."""
        self.check(
            (f"text/html, {H}, {J}", JSON),
            (f"text/html, {H}", V1_HTML),
            (f"*/*, {J}", JSON),
            (f"*/*, {H}", V1_HTML),
            ("*/*, text/html", HTML),
            (f"text/*, {J}", JSON),
        )

    def test_wildcards(self) -> None:
        """A wildcard stands for what is not named, and alone for HTML."""
        self.check(
            ("text/*", HTML),
            ("application/*", V1_HTML),
            ("*/*;q=0.5, text/html;q=0.1", V1_HTML),
            ("*/*;q=0.5, text/*;q=0", V1_HTML),
            (f"*/*;q=0.5, text/*;q=0, {H};q=0.1", JSON),
            ("*/*;q=0", HTML),
            ("application/*;q=0, */*", HTML),
        )

    def test_latest(self) -> None:
        """The latest version is version 1."""
        self.check(
            ("application/vnd.pypi.simple.latest+json", JSON),
            ("application/vnd.pypi.simple.latest+html", V1_HTML),
            ("application/vnd.pypi.simple.latest+json;q=0.3, text/html;q=0.2", JSON),
        )

    def test_nothing_acceptable(self) -> None:
        """A client that accepts none of the forms, or says nothing that makes sense, gets HTML."""
        self.check(
            ("application/json", HTML),
            ("application/vnd.pypi.simple.v2+json", HTML),
            ("image/png, text/plain", HTML),
            (f"{J};q=high", HTML),
            (f"{J};q=", HTML),
            (f"{J};q=-1", HTML),
            (f"{J};q=nan", HTML),
            (",,;;,q=1,", HTML),
            (f'text/plain;x="a,b", {J}', JSON),
        )

    def test_format(self) -> None:
        """The query decides alone where it names a form."""
        for form, accept, expected in (
            (J, "text/html", JSON),
            (J.replace("+", " "), None, JSON),
            (H, J, V1_HTML),
            ("text/html", J, HTML),
            ("application/vnd.pypi.simple.latest+json", None, JSON),
            ("unknown", J, HTML),
            ("", J, JSON),
            (" ", J, JSON),
        ):
            self.assertEqual(choose(accept, form), expected, (form, accept))


class CodingTests(SynchronousTestCase):
    def check(self, offered: tuple[str, ...], *rows: tuple[str | None, str | None]) -> None:
        for accept, expected in rows:
            self.assertEqual(coding(accept, offered), expected, accept)

    def test_clients(self) -> None:
        """uv gets zstd, pip gzip, and who asks for no coding gets none."""
        self.check(
            ("zstd", "gzip"),
            ("gzip, deflate, zstd", "zstd"),
            ("gzip, deflate", "gzip"),
            ("gzip, deflate, br", "gzip"),
            ("identity", None),
            ("deflate", None),
            ("", None),
            (None, None),
        )

    def test_weights(self) -> None:
        """The coding liked best wins, and none is sent that is ruled out."""
        self.check(
            ("zstd", "gzip"),
            ("gzip, zstd;q=0.9", "gzip"),
            ("gzip;q=0.5, zstd;q=0.5", "zstd"),
            ("zstd;q=0, gzip;q=0.1", "gzip"),
            ("zstd;q=0, gzip;q=0", None),
            ("GZIP ; Q=0.5", "gzip"),
            ("x-gzip", "gzip"),
            ("gzip;q=0.5, identity", None),
            ("gzip, identity;q=0.5", "gzip"),
            ("gzip, identity", "gzip"),
        )

    def test_wildcard(self) -> None:
        """A star stands for the codings not named."""
        self.check(
            ("zstd", "gzip"),
            ("*", "zstd"),
            ("zstd;q=0, *", "gzip"),
            ("*;q=0", None),
            ("gzip, *;q=0", "gzip"),
            ("identity;q=0, *", "zstd"),
            ("identity;q=0, *;q=0", None),
            ("identity;q=0, gzip;q=0.1", "gzip"),
        )

    def test_offered(self) -> None:
        """Only what there is is sent."""
        self.check(("gzip",), ("zstd, gzip;q=0.1", "gzip"), ("zstd", None), ("*", "gzip"))
        self.check((), ("gzip", None), ("*", None), ("identity;q=0", None))
