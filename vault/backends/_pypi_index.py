"""The pages of an index: fetched once as they are, and the documents that are made of them.

    simple/<project>/source        the page as the index sent it, JSON or HTML; revalidated
    simple/<project>/page.json     its JSON form with the vault's own links (``short-`` for the shorter address)
    simple/<project>/page.html     rendered from that
    simple/<project>/page.*.gzip   either of them, compressed
    simple/<project>/links         a table from a file's name to where it lies
    simple/<project>/readable      the last source that could be read (a hard link to it, while it is the present one)

Each is stored with what it was made of, so that a request for what has not changed reads nothing but the index of the
store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from twisted.internet.defer import Deferred

from vault.artifact import MADE_FROM, NOTED_URL, Artifact, Digest, Head
from vault.backends._pypi_recent import Recent, alike, current, good_within
from vault.backends._pypi_rewriting import Rewriting, joined, json_form, shows_its_end, unpacked
from vault.backends._pypi_serials import NOTED_SERIAL, SERIAL, not_older, number
from vault.backends._pypi_source import Source
from vault.errors import BrokenAnswer, Missing, Truncated, VaultError
from vault.formats import simple_html, simple_json, table
from vault.formats.codings import encode
from vault.formats.links import table_entries
from vault.formats.names import is_name
from vault.freshness import since
from vault.interfaces import IBody, IKitchen
from vault.outcome import Found, How

PATIENCE = 5.0
"""Seconds from its request on that a newer page may take until the kept one is served in its place."""

AGAIN = (0.2, 1.0)
"""Seconds before a page that broke off is asked for from its beginning again, where there is no older one to serve.

What the transfer itself can go on with it has: this is for pages without a strong tag, and for those that changed.
"""

VERSION = "5"
"""Goes up with each change of what is made of the same page."""

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
LARGEST = 100 * 1024 * 1024
"""The most bytes of a page; the list of all projects of the public index has some tens of millions."""

DEEP = "../../files/"
"""The way to the files from ``simple/<project>/``."""

SHORT = "../files/"
"""The way to the files from ``<project>/``."""

REMEMBERED = 1000


@dataclass(frozen=True)
class Index:
    """One index, or several in the order to ask; times are seconds.

    ``exempt`` are the projects that ``min_release_age`` does not hold for; ``public_url`` is what the URLs of files
    begin with, where they are not to be relative.  ``recent`` are documents that were just used, ``unreadable`` the
    pages that cannot be read: when they were asked for, their digest, and what is wrong.  ``refused`` are URLs of files
    that their host did not give though the page has just named them, and since when it is not read again for them.
    ``coming`` are the pages that are being read from the index, ``artifacts`` those that were asked for, by place.
    """

    backend: str
    urls: tuple[str, ...]
    ttl: float = 600.0
    gone_ttl: float = 86400.0
    negative_ttl: float = 10.0
    min_release_age: float = 0.0
    exempt: frozenset[str] = frozenset()
    public_url: str | None = None
    unreadable: dict[str, tuple[float, str, str]] = field(default_factory=dict, compare=False, repr=False)
    refused: dict[str, float] = field(default_factory=dict, compare=False, repr=False)
    coming: dict[str, Found] = field(default_factory=dict, compare=False, repr=False)
    artifacts: dict[str, Artifact] = field(default_factory=dict, compare=False, repr=False)
    recent: Recent = field(default_factory=Recent, compare=False, repr=False)

    def least_age(self, project: str | None) -> float:
        """How old (seconds) the files of a project must be to be shown; 0 where they need not."""
        return 0.0 if project is None or project in self.exempt else self.min_release_age


@dataclass(frozen=True, slots=True)
class Page:
    """The page of a project, or with None the list of all projects."""

    index: Index
    project: str | None
    place: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """``place`` is what the keys of its documents begin with."""
        place = f"{self.index.backend}/{'index' if self.project is None else f'simple/{self.project}'}"
        object.__setattr__(self, "place", place)

    @property
    def title(self) -> str:
        """What it is called to people."""
        return "list of projects" if self.project is None else f"page of {self.project}"

    @property
    def artifact(self) -> Artifact:
        """The page itself; an index that is down must not let the next one answer for it (dependency confusion)."""
        known = self.index.artifacts
        if self.place not in known:
            if len(known) >= REMEMBERED:
                known.clear()
            known[self.place] = self._artifact()
        return known[self.place]

    def _artifact(self) -> Artifact:
        if self.project is not None and not is_name(self.project):
            raise Missing("there is no project of such a name")  # it may be a way to elsewhere on the index's host
        path = "" if self.project is None else f"{quote(self.project, safe='')}/"
        return Artifact(
            key=f"{self.place}/source",
            urls=tuple(url + path for url in self.index.urls),
            headers=(("Accept", ACCEPT),),
            max_age=self.index.ttl,
            backend=self.index.backend,
            in_order=True,
            supersedes=not_older,
            gone_ttl=self.index.gone_ttl,
            note_url=True,
            limit=LARGEST,
            short=True,
            kept_anyway=True,  # what servers of private indexes mark so is meant for all who may ask this vault
        )

    async def source(self, kitchen: IKitchen, no_cache: bool = False, at_once: bool = False) -> Source:
        """The page as the index sent it, whole; an earlier one where the index's answer breaks off.

        ``no_cache``: the index is asked, unless it was within the last seconds; with ``at_once`` even then.
        """
        began = kitchen.now()
        for pause in AGAIN:
            try:
                return await self._source(kitchen, no_cache, at_once)
            except Truncated:
                # No client has had a byte of it yet, and older versions of pip give up at the first 502.
                if kitchen.now() - began > PATIENCE:
                    raise
            await kitchen.sleep(pause)
        return await self._source(kitchen, no_cache, at_once)

    async def _source(self, kitchen: IKitchen, no_cache: bool, at_once: bool) -> Source:
        artifact = replace(self.artifact, max_age=-1.0) if at_once else self.artifact
        unreadable = self.index.unreadable.get(self.place)
        doubtful = unreadable is not None and since(unreadable[0], kitchen.now()) >= self.index.negative_ttl
        try:
            found = self._coming() or await kitchen.fetch(artifact, no_cache or at_once or doubtful)
        except Missing as error:
            if not error.let_go or len(artifact.urls) == 1:
                raise
            await kitchen.sleep(0)  # until that request has ended, so that a new one can begin
            found = await kitchen.fetch(artifact)  # the next index may have it
        data = kept = None
        try:
            if found.how is How.BYPASS or not found.body.complete:
                reading = self._reading(kitchen, found)
                kept = await kitchen.stored(artifact.key)
                if kept is None:
                    data = await reading
                else:
                    left = found.body.head.requested_at + PATIENCE - kitchen.now()
                    data = await kitchen.within(min(max(0.0, left), PATIENCE), reading)
        except TimeoutError:
            assert kept is not None
            found = Found(kept, How.STALE, detail="timeout")
        except VaultError as error:
            stored = await kitchen.stored(artifact.key)
            if stored is None:
                raise
            found = Found(stored, How.STALE, detail=error.proxy_error)
            data = None
        sha256 = found.body.sha256
        if sha256 is None:
            if data is None:
                data = await kitchen.read(found.body, LARGEST)
            sha256 = await kitchen.work(sha256_of, data)
        return Source(found, sha256, data)

    def _coming(self) -> Found | None:
        """The page that is being read just now; one that the disk does not take can be joined only here."""
        found = self.index.coming.get(self.place)
        if found is None or found.body.complete:
            return None
        return replace(found, how=How.JOINED if found.how is How.MISS else found.how, collapsed=True)

    def _reading(self, kitchen: IKitchen, found: Found) -> Deferred[bytes]:
        """The bytes of a page that is coming, which has no digest yet: one reads them for all who wait for it."""
        coming = self.index.coming

        async def read() -> bytes:
            coming[self.place] = found
            head = found.body.head
            try:
                data = await kitchen.read(found.body, LARGEST)
                if not found.delimited:
                    await self._keep_ended(kitchen, head, data)
                return data
            finally:
                if coming.get(self.place) is found:
                    del coming[self.place]

        # No other body is at its address while this one is held.
        return kitchen.once(f"read {self.artifact.key} {id(found.body)}", read)

    async def _keep_ended(self, kitchen: IKitchen, head: Head, data: bytes) -> None:
        """Keep a page that closing ended, which proves nothing, where it shows its own end.

        Raises Truncated where it was cut off: it is JSON that stops before its last brace, or it shows no end though
        the kept one, of the same kind, does.
        """
        if await kitchen.work(shows_its_end, data, head.get("Content-Encoding"), LARGEST):
            await kitchen.put(self.artifact.key, head, data)
            return
        kept = await kitchen.stored(self.artifact.key)
        before = b"" if kept is None else await kitchen.read(kept, LARGEST)
        cut = data[:1] == b"{" and data[-64:].rstrip()[-1:] != b"}"
        if not cut and kept is not None and before[:1] == data[:1]:
            cut = await kitchen.work(shows_its_end, before, kept.head.get("Content-Encoding"), LARGEST)
        if cut:
            raise Truncated(f"the {self.title} has no end")

    async def document(self, kitchen: IKitchen, source: Source, html: bool, files: str) -> IBody:
        """The page in one form; ``files`` is what the links to its files begin with, and a name for that.

        Raises BrokenAnswer where the index sent what is no page, and there is no older one.
        """
        form = "html" if html else "json"
        key = f"{self.place}/{'' if files == DEEP else 'short-'}page.{form}"
        base = self._made_from(source, self.index.public_url or files)
        known = await self.index.recent.find(kitchen, key)
        if known is not None and current(known, base, kitchen.now()):
            return known
        if html:
            plain = await self.document(kitchen, source, False, files)
            render = simple_html.render_root if self.project is None else simple_html.render
            return await self._of(kitchen, key, plain, render)
        try:
            return await kitchen.once(f"{key} of {base}", lambda: self._rewritten(kitchen, source, key, base, files))
        except BrokenAnswer:
            older = await self._readable(kitchen, source)
            if older is not None:
                return await self.document(kitchen, older, html, files)
            # Made under another least age it would show what is to be hidden.
            if known is None or not alike(known, base):
                raise
            return known

    async def coded(self, kitchen: IKitchen, plain: IBody, key: str, coding: str) -> IBody:
        """A document in a content coding."""
        return await self._of(kitchen, f"{self.place}/{key}.{coding}", plain, lambda data: encode(coding, [data]))

    async def links(self, kitchen: IKitchen, source: Source) -> IBody:
        """The table of the page's files (``vault.formats.links``)."""
        key = f"{self.place}/links"
        base = self._made_from(source)
        known = await self.index.recent.find(kitchen, key)
        if known is not None and known.head.get(MADE_FROM) == base:
            return known

        def build(page: bytes) -> list[bytes]:
            return joined(table.build(table_entries(simple_json.files(page), source.url)))

        async def make() -> IBody:
            pieces = await self._read(kitchen, source, build)
            return self.index.recent.keep(key, await kitchen.make(key, base, lambda: pieces))

        try:
            return await kitchen.once(f"{key} of {base}", make)
        except BrokenAnswer:
            older = await self._readable(kitchen, source)
            if older is not None:
                return await self.links(kitchen, older)
            if known is None:
                raise
            return known

    async def _readable(self, kitchen: IKitchen, source: Source) -> Source | None:
        """The last page that could be read, where it is another than this one."""
        kept = None if source.older else await kitchen.stored(f"{self.place}/readable")
        if kept is None or kept.sha256 is None or kept.sha256 == source.sha256:
            return None
        return Source(Found(kept, How.STALE), kept.sha256, None, older=True)

    async def _keep(self, kitchen: IKitchen, source: Source, serial: int | None) -> None:
        """Keep a page that can be read for when the next one cannot be, or is older."""
        key = f"{self.place}/readable"
        kept = await kitchen.stored(key)
        if kept is None or kept.sha256 != source.sha256 or kept.head.get(NOTED_URL) != source.url:
            await kitchen.settled(self.artifact.key)
            head = source.head.with_headers({NOTED_SERIAL: None if serial is None else str(serial)})
            await kitchen.adopt(key, Digest("sha256", source.sha256), head)

    async def _last_serial(self, kitchen: IKitchen, source: Source) -> int | None:
        """The serial of the last page that could be read, where it came from the same index."""
        kept = None if source.older else await kitchen.stored(f"{self.place}/readable")
        if kept is None or kept.head.get(NOTED_URL) != source.url:
            return None
        return number(kept.head.get(NOTED_SERIAL))

    def _made_from(self, source: Source, files: str | None = None) -> str:
        made_from = f"{source.sha256} {VERSION} {source.url}"
        return made_from if files is None else f"{made_from} {files} {self.index.least_age(self.project):g}"

    async def _of(self, kitchen: IKitchen, key: str, plain: IBody, change: Callable[[bytes], Iterable[bytes]]) -> IBody:
        """A document made of ``plain``, stored with the same note of what it was made of."""
        made_from = plain.head.get(MADE_FROM) or ""
        known = await self.index.recent.find(kitchen, key)
        if known is not None and known.head.get(MADE_FROM) == made_from:
            return known

        async def make() -> IBody:
            data = await kitchen.read(plain, LARGEST)
            made = await kitchen.make(key, made_from, lambda: joined(change(data)))
            return self.index.recent.keep(key, made)

        return await kitchen.once(f"{key} of {made_from}", make)

    async def _rewritten(self, kitchen: IKitchen, source: Source, key: str, base: str, files: str) -> IBody:
        cutoff = self.index.least_age(self.project)
        rewriting = Rewriting(
            f"{self.index.public_url}files/" if self.index.public_url else files,
            self.project,
            source.url,
            kitchen.now() - cutoff if cutoff else None,
        )
        pieces = await self._read(kitchen, source, rewriting.run)
        times = good_within(rewriting.last, rewriting.next, cutoff)
        return self.index.recent.keep(key, await kitchen.make(key, base + times, lambda: pieces))

    async def _read(self, kitchen: IKitchen, source: Source, build: Callable[[bytes], list[bytes]]) -> list[bytes]:
        """What ``build`` makes of the page; one that cannot be read is asked for again before long."""
        unreadable = self.index.unreadable
        asked, sha256, message = unreadable.get(self.place, (float("-inf"), "", ""))
        if sha256 != source.sha256:
            asked = float("-inf")
            data = source.data
            if data is None:
                data = await kitchen.read(source.found.body, LARGEST)
            last = await self._last_serial(kitchen, source)
            try:
                pieces, serial = await kitchen.work(_built, build, data, source, self.project, last)
            except (ValueError, RecursionError) as error:
                message = f"the index's {self.title} cannot be read: {error}"
            else:
                if not source.older:
                    unreadable.pop(self.place, None)
                    kitchen.behind(f"keeping {self.place} {source.sha256}", lambda: self._keep(kitchen, source, serial))
                return pieces
        if since(asked, kitchen.now()) >= self.index.negative_ttl:
            if len(unreadable) >= REMEMBERED:
                unreadable.clear()
            unreadable[self.place] = kitchen.now(), source.sha256, message
        raise BrokenAnswer(message)


def _built(
    build: Callable[[bytes], list[bytes]], data: bytes, source: Source, project: str | None, last: int | None
) -> tuple[list[bytes], int | None]:
    """What ``build`` makes of a page's JSON form, and the page's serial; raises ValueError, also for an older page."""
    head = source.head
    page = json_form(
        unpacked(data, head.get("Content-Encoding"), LARGEST), head.get("Content-Type"), source.url, project
    )
    serial = number(head.get(SERIAL))
    if serial is None:  # static mirrors have it only in the page
        serial = simple_json.meta(page).last_serial
        if serial is not None and last is not None and serial < last:
            raise ValueError(f"It is older than the one that is kept: its serial is {serial}, not {last}.")
    return build(page), serial


def sha256_of(data: bytes) -> str:
    """The digest of some bytes."""
    return hashlib.sha256(data).hexdigest()
