"""What a client gets that asks for a page: its form, its coding, and the fields that go with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from zope.interface import implementer

from vault.artifact import MADE_FROM, Head, Headers
from vault.backends._pypi_index import SHORT, Index, Page
from vault.backends._pypi_serials import SERIAL
from vault.backends._pypi_waiting import soon
from vault.formats.codings import CODINGS
from vault.formats.negotiation import Choice, coding
from vault.freshness import cache_control, elapsed
from vault.interfaces import IKitchen, IRecipe
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
            ttl=found.ttl, detail=detail,
            head=head_of(source.head, self.choice, body.sha256 or "", chosen, int(self.index.ttl)),
        )  # fmt: skip


@lru_cache(64)  # as many as there are documents held open
def head_of(source: Head, choice: Choice, sha256: str, chosen: str | None, ttl: int) -> Head:
    """A page's own fields: none of the index's describes it, but for its date and its serial."""
    fields: Headers = (
        ("Content-Type", choice.content_type),
        ("ETag", f'"{sha256[:40]}-{choice.name.lower()}"'),
        ("Vary", "Accept, Accept-Encoding"),
        ("Cache-Control", freshness_of(source, ttl)),
    )
    if chosen is not None:
        fields += (("Content-Encoding", chosen),)
    fields += tuple((name, value) for name in ("Date", SERIAL) if (value := source.get(name)) is not None)
    return Head(200, fields, source.requested_at, source.received_at)


def freshness_of(source: Head, ttl: int) -> str:
    """How long clients may keep a page, counted from its Date: as the index says, at most as the vault does."""
    directives = cache_control(source)
    if "no-cache" in directives or "no-store" in directives:
        return "no-cache"
    told = directives.get("max-age") or ""
    return f"max-age={min(ttl, int(told)) if told.isdecimal() and len(told) < 10 else ttl}"
