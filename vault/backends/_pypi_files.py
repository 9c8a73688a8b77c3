"""Distribution files and what goes with them: only what a page of the index links to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from zope.interface import implementer

from vault.artifact import VERIFIED, Artifact, Digest
from vault.backends._pypi_index import REMEMBERED, Index, Page
from vault.backends._pypi_source import Source
from vault.backends._pypi_waiting import soon
from vault.errors import BrokenAnswer, Missing, Refused, Unavailable, VaultError
from vault.formats import table
from vault.formats.links import MARK, Link, best_digest, mark_of
from vault.formats.names import COMPANIONS, is_name, normalise, project_of
from vault.freshness import since, strong_tag, volatile
from vault.interfaces import IBody, IKitchen, IRecipe
from vault.outcome import Asked, Found, How
from vault.paths import SEGMENT

FOR_EVER = "public, max-age=365000000, immutable"

SAME_NAME = 200
"""How many files of one name on a page are looked at for one that is asked for by its path upstream."""


@implementer(IRecipe)
@dataclass(frozen=True, slots=True)
class FileRecipe:
    """The file at ``path``, which is the segments after ``files/``, decoded.

    ``<project>/<mark>/<file name>`` is how the vault's own pages name it.  A lock file may have the name alone, or the
    path that the file has upstream: the project is then looked for by the name.
    """

    index: Index
    path: tuple[str, ...]

    async def find(self, kitchen: IKitchen, asked: Asked) -> Found:
        """The file, once a page is known to link to it; raises Missing where none does."""
        mark = self._mark()
        if mark is not None and not self.index.least_age(self.path[0]):
            found = await self._stored(kitchen, mark)
            if found is not None:
                return found
        wanted = f"the page that may link to {self.path[-1]}"
        project, link, companion = await soon(kitchen, wanted, lambda: self._looked_for(kitchen))
        artifact = self._artifact(project, link, companion)
        try:
            found = await kitchen.find(artifact, asked)
        except (Missing, Refused):
            renewed = await soon(kitchen, wanted, lambda: self._renewed(kitchen, project, artifact))
            if renewed is None:
                raise
            artifact, found = renewed, await self._by_new_url(kitchen, renewed, asked)
        return self._served(found, artifact.digest)

    async def _looked_for(self, kitchen: IKitchen) -> tuple[str, Link, str]:
        """The project whose page links to it, and the link."""
        for project in [self.path[0]] if self._mark() is not None else project_of(self.path[-1]):
            try:
                return project, *await self._linked(kitchen, project)
            except Missing:
                continue
        raise Missing(f"no page of the index links to {self.path[-1]}")

    def _mark(self) -> str | None:
        """The mark in the path, where it is one of the vault's own paths."""
        if len(self.path) != 3 or not MARK.fullmatch(self.path[1]):
            return None
        project = self.path[0]
        return self.path[1] if is_name(project) and normalise(project) == project else None

    def _names(self) -> Iterator[tuple[str, str]]:
        """What the last segment may mean: a file, or what goes with one."""
        name = self.path[-1]
        for companion in COMPANIONS:
            if name.endswith(companion):
                yield name.removesuffix(companion), companion
        yield name, ""

    async def _stored(self, kitchen: IKitchen, mark: str) -> Found | None:
        """What is stored, where nothing more need be known of it: it never changes."""
        name = self.path[-1]
        if name.endswith(COMPANIONS):
            return None  # what the page says of it now decides: uv relies on metadata without checking it
        body = await kitchen.stored(self._key(self.path[0], mark, name))
        if body is None:
            return None
        if mark.startswith("u") and volatile(body.head):
            return None  # it may have to be asked for again
        return self._served(Found(body, How.HIT), None if mark.startswith("u") else _digest_of(body, mark))

    async def _linked(self, kitchen: IKitchen, project: str) -> tuple[Link, str]:
        """The link that the page of a project has to it; the page is asked for again where it has none."""
        page = Page(self.index, project)
        source = await page.source(kitchen)
        linked = await self._look_up(kitchen, page, source)
        if linked is None and source.found.how is not How.MISS:
            again = await page.source(kitchen, no_cache=True)
            linked = None if again.sha256 == source.sha256 else await self._look_up(kitchen, page, again)
            source = again
        if linked is None:
            self._check_current(page, source)
            raise Missing(f"the page of {project} has no link to {self.path[-1]}")
        if not self._shown(kitchen, project, linked[0]):
            raise Missing(f"{self.path[-1]} is younger than min_release_age allows")
        return linked

    def _check_current(self, page: Page, source: Source) -> None:
        """Raise what is wrong if a link may be on a page that cannot be had now: clients do not ask again after 404."""
        found = source.found
        if found.how is How.STALE and found.detail != Missing.proxy_error:
            raise Unavailable(
                f"the {page.title} that is kept has no link to {self.path[-1]}, and no newer one can be had from the"
                f" index ({found.detail})"
            )
        _, sha256, message = self.index.unreadable.get(page.place, (0.0, "", ""))
        if sha256 == source.sha256:
            raise BrokenAnswer(message)

    def _shown(self, kitchen: IKitchen, project: str, link: Link) -> bool:
        age = self.index.least_age(project)
        return not age or (link.uploaded is not None and link.uploaded <= kitchen.now() - age)

    async def _renewed(self, kitchen: IKitchen, project: str, refused: Artifact) -> Artifact | None:
        """What its host does not give any more, by the URL that the page names now; None where it names no other.

        Some indexes sign URLs that are good for a while only.  The page is asked for again, once for all who wait.
        """
        page, url = Page(self.index, project), refused.urls[0]
        try:
            source = await page.source(kitchen)
            renewed = await self._by_another_url(kitchen, page, source, refused)
            if renewed is None and not self._refused_lately(kitchen, url):
                source = await kitchen.once(f"renew {page.place}", lambda: page.source(kitchen, at_once=True))
                renewed = await self._by_another_url(kitchen, page, source, refused)
        except VaultError:
            renewed = None
        if renewed is None and not self._refused_lately(kitchen, url):
            self._note_refused(kitchen, url)
        return renewed

    def _note_refused(self, kitchen: IKitchen, url: str) -> None:
        """The page is not read again for this URL before long: that it names it is no help."""
        refused = self.index.refused
        if len(refused) >= REMEMBERED:
            refused.clear()
        refused[url] = kitchen.now()

    def _refused_lately(self, kitchen: IKitchen, url: str) -> bool:
        return since(self.index.refused.get(url, float("-inf")), kitchen.now()) < self.index.negative_ttl

    async def _by_new_url(self, kitchen: IKitchen, renewed: Artifact, asked: Asked) -> Found:
        try:
            return await kitchen.find(renewed, asked)
        except (Missing, Refused):
            self._note_refused(kitchen, renewed.urls[0])
            raise

    async def _by_another_url(
        self, kitchen: IKitchen, page: Page, source: Source, refused: Artifact
    ) -> Artifact | None:
        linked = await self._look_up(kitchen, page, source)
        project = page.project or ""
        if linked is None or not self._shown(kitchen, project, linked[0]):
            return None
        artifact = self._artifact(project, *linked)
        return None if artifact.urls == refused.urls else artifact

    async def _look_up(self, kitchen: IKitchen, page: Page, source: Source) -> tuple[Link, str] | None:
        links = await page.links(kitchen, source)
        mark = self._mark()
        signed_anew: tuple[Link, str] | None = None  # without a hash only its name tells that it is the same file
        for name, companion in self._names():
            for others in (False, True):
                for line in await self._lines(links, name, others):
                    link = Link.from_json(name, line)
                    if self._meant(link, mark) and offers(link, companion):
                        return link, companion
                    if link.mark.startswith("u") and (mark or "").startswith("u") and offers(link, companion):
                        signed_anew = signed_anew or (link, companion)
        return signed_anew

    async def _lines(self, links: IBody, name: str, others: bool) -> list[str]:
        """The table's line of the first file of this name, or of the others that the path can mean."""
        mark = self._mark()
        if others and mark is None:
            return await table.beginning(links, f"{name}/", SAME_NAME)
        line = await table.look_up(links, f"{name}/{mark}" if others else name)
        return [] if line is None else [line]

    def _meant(self, link: Link, mark: str | None) -> bool:
        """True if the path is one of the link's."""
        if mark is not None:
            return link.mark == mark
        wanted = "/".join((*self.path[:-1], link.filename))
        return unquote(f"/{urlsplit(link.url).path}").endswith(f"/{wanted}")

    def _artifact(self, project: str, link: Link, companion: str) -> Artifact:
        parts = urlsplit(link.url)
        url, max_age = parts._replace(path=parts.path + companion).geturl(), None
        digest = best_digest(link.hashes)
        if companion:
            digest = best_digest(link.core_metadata) if companion == ".metadata" else None
            max_age = None if digest is not None else self.index.ttl  # nothing proves that it stays as it is
        if companion == ".provenance":
            url, max_age = link.provenance or "", self.index.ttl
        key = self._key(project, link.mark, link.filename + companion)
        backend = self.index.backend
        return Artifact(
            key,
            spellings(url),
            max_age=max_age,
            # Without a hash a page to log in, which came in place of the file, must not stay for ever.
            volatile_max_age=self.index.ttl if digest is None else None,
            digest=digest,
            backend=backend,
            kept_anyway=True,
            short=bool(companion),
        )

    def _key(self, project: str, mark: str, name: str) -> str:
        return f"{self.index.backend}/files/{project}/{mark}/{quote(name, safe=SEGMENT)}"

    def _served(self, found: Found, digest: Digest | None) -> Found:
        """``found`` with the fields that clients count on: a strong tag, and no coding of what a hash proves.

        The tag is that of the page's hash: a client that is cut off while the file first comes can go on by it.
        """
        head = found.body.head
        changes: dict[str, str | None] = {"Vary": None}  # there is one form here, however many its host has
        if digest is not None:
            # The hash is over the bytes as they are: a coding that a server names for them is a mistake.
            changes |= {"Content-Encoding": None, "Cache-Control": FOR_EVER}
        if strong_tag(head) is None:
            known = digest or _digest_of(found.body)
            changes["ETag"] = None if known is None else f'"{known.algorithm}-{known.value}"'
        found.head = head.with_headers(changes)
        return found


def _digest_of(body: IBody, mark: str = "") -> Digest | None:
    """The digest of a stored body: the one that its mark was made of, if that is known, else the store's own."""
    noted = body.head.get(VERIFIED)
    if noted is not None and mark_of(Digest.parse(noted)) == mark:
        return Digest.parse(noted)
    return None if body.sha256 is None else Digest("sha256", body.sha256)


def spellings(url: str) -> tuple[str, ...]:
    """A file's URL as its page has it, and as pip would ask for it.

    Some hosts, Amazon S3 among them, read a plus sign in a path as a space; pip never sends one, so that indexes with
    versions such as ``1.0+cu121`` there work with it all the same.
    """
    parts = urlsplit(url)
    if "+" not in parts.path.rpartition("/")[2]:
        return (url,)  # devpi has one in the path of every file, and means it
    return url, parts._replace(path=parts.path.replace("+", "%2B")).geturl()


def offers(link: Link, companion: str) -> bool:
    """True if the page says that the file has such a companion."""
    return {
        "": True,
        ".metadata": link.core_metadata is not False,
        ".asc": link.gpg_sig,
        ".provenance": link.provenance is not None,
    }[companion]
