"""What a client gets that asks for a page: its form, its coding, and the fields that go with them."""

from __future__ import annotations

from dataclasses import dataclass

from zope.interface import implementer

from vault.artifact import MADE_FROM, Head, Headers
from vault.backends._pypi_index import SERIAL, SHORT, Index, Page, Source, soon
from vault.formats.codings import CODINGS
from vault.formats.negotiation import Choice, coding
from vault.freshness import cache_control, elapsed
from vault.interfaces import IBody, IKitchen, IRecipe
from vault.outcome import Asked, Found, How

BEHIND = 60.0
"""Seconds between two looks at the index behind a page that is served meanwhile."""

SMALL = 1400
"""Bytes up to which a page is not compressed: it is one packet anyway."""


@implementer(IRecipe)
@dataclass(frozen=True, slots=True)
class PageRecipe:
    """One page in the form of ``choice``; ``files`` is what its links to files begin with.

    A client that asks for validation waits for it if it is ``urgent``.  Otherwise it is given what is fresh by the
    vault's own rule, and the index is asked behind: older versions of pip send ``max-age=0`` with every page.
    """

    page: Page
    choice: Choice
    accept_encoding: str
    files: str
    urgent: bool = True

    @property
    def index(self) -> Index:
        """Whose page it is."""
        return self.page.index

    async def find(self, kitchen: IKitchen, asked: Asked) -> Found:
        """The page, made anew where the index has another; raises a VaultError, NotYet before clients give up."""
        return await soon(kitchen, f"the {self.page.title}", lambda: self._find(kitchen, asked))

    async def _find(self, kitchen: IKitchen, asked: Asked) -> Found:
        source = await self.page.source(kitchen, asked.no_cache and self.urgent)
        old = elapsed(source.head, kitchen.now()) > BEHIND
        if asked.no_cache and old and source.found.how is How.HIT:
            kitchen.behind(f"refreshing {self.page.place}", lambda: self.page.source(kitchen, no_cache=True))
        html = self.choice is not Choice.JSON
        body = await self.page.document(kitchen, source, html, self.files)
        how, detail = source.found.how, source.found.detail
        if not (body.head.get(MADE_FROM) or "").startswith(f"{source.sha256} "):
            how, detail = How.STALE, "unreadable"
        chosen = coding(self.accept_encoding, CODINGS) if body.size > SMALL else None
        if chosen is not None:
            name = f"{'short-' if self.files == SHORT else ''}page.{'html' if html else 'json'}"
            body = await self.page.coded(kitchen, body, name, chosen)
        found = source.found
        return Found(
            body, how, fwd=found.fwd, fwd_status=found.fwd_status, collapsed=found.collapsed, stored=found.stored,
            ttl=found.ttl, detail=detail, head=self._head(source, body, chosen),
        )  # fmt: skip

    def _head(self, source: Source, body: IBody, chosen: str | None) -> Head:
        """The page's own fields: none of the index's describes it, but for its date and its serial."""
        fields: Headers = (
            ("Content-Type", self.choice.content_type),
            ("ETag", f'"{(body.sha256 or "")[:40]}-{self.choice.name.lower()}"'),
            ("Vary", "Accept, Accept-Encoding"),
            ("Cache-Control", self._freshness(source.head)),
        )
        if chosen is not None:
            fields += (("Content-Encoding", chosen),)
        fields += tuple((name, value) for name in ("Date", SERIAL) if (value := source.head.get(name)) is not None)
        return Head(200, fields, source.head.requested_at, source.head.received_at)

    def _freshness(self, head: Head) -> str:
        """How long clients may keep the page, counted from its Date: as the index says, at most as the vault does."""
        directives = cache_control(head)
        if "no-cache" in directives or "no-store" in directives:
            return "no-cache"
        told = directives.get("max-age") or ""
        limit = int(self.index.ttl)
        return f"max-age={min(limit, int(told)) if told.isdecimal() and len(told) < 10 else limit}"
