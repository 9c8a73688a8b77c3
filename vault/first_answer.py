"""The first answer of a transfer: what the upstream says of the stored entry and of what an earlier fill left.

One request asks about both.  Its conditions are evaluated in the order of RFC 9110 section 13.2.2: where the stored
entry is still what the upstream has, 304; else, where the partial file is the beginning of what it has, 206; else 200.
"""

from __future__ import annotations

from dataclasses import replace

from vault.answer import Answer
from vault.artifact import ASKED, Artifact, Headers
from vault.confirmation import confirmed
from vault.feed import content_range, contradicts, total_of
from vault.freshness import (
    fresh,
    keepable,
    matches,
    resume_validator,
    same_representation,
    unconfirmed,
    validators,
)
from vault.sources import Sources
from vault.store.body import StoredBody
from vault.store.partials import Partial
from vault.store.store import Store
from vault.urls import mark_of


class FirstAnswer:
    """Asks for ``artifact``; ``stored`` is its expired entry, if any, and ``private`` is for one client alone.

    ``stored`` may be another entry afterwards: the one that ``confirmation``, an answer to HEAD, shows to be the
    artifact's.
    """

    def __init__(
        self, artifact: Artifact, sources: Sources, store: Store, stored: StoredBody | None, private: bool
    ) -> None:
        self.stored = stored
        self.confirmation: Answer | None = None
        self._artifact = artifact
        self._sources = sources
        self._store = store
        self._private = private

    async def ask(self) -> tuple[Answer | None, Partial | None]:
        """The upstream's answer: 200, 304 of the stored entry, or 206 that goes on with the partial that is returned.

        No answer where the partial is the whole body already.  Raises UpstreamError.
        """
        if self.stored is not None and await self._confirm():
            return self.confirmation, None
        stored, partial = self.stored, await self._partial()
        if stored is None and partial is None:
            kin = None if self._private else self._artifact.kin
            if kin is not None and self._store.begins(kin) and await self._confirm():
                return self.confirmation, None
            return await self._sources.ask(self._artifact), None
        if stored is None and partial is not None and self._needs_nobody(partial):
            return None, partial
        conditions: Headers = ()
        if stored is not None and not unconfirmed(stored.head, self._artifact):
            conditions = tuple(validators(stored.head))
        rest = self._rest(partial)
        accept = (200, 203, *((304,) if conditions else ()), *((206, 416) if rest else ()))
        known = (stored or partial).head  # type: ignore[union-attr]  # one of them is there
        answer = await self._sources.ask(
            self._artifact, conditions + rest, accept=accept, patient=stored is None, known=known
        )
        if answer.status in (200, 203):
            if partial is None or not partial.whole or not self._same(partial, answer):
                return answer, None
            answer.abort()
            return None, replace(partial, head=partial.head.timed_as(answer.head))
        if answer.status == 304 and stored is not None and matches(stored.head, answer.head):
            if partial is not None:
                try:
                    await self._store.discard(self._artifact.key)  # the beginning of what the upstream no longer has
                except BaseException:
                    answer.abort()
                    raise
            return answer, None
        if answer.status == 206 and partial is not None and self._goes_on(partial, answer):
            return answer, partial
        answer.discard()
        if partial is not None and answer.status != 304:
            if answer.status == 416 and partial.length is None and total_of(answer.head) == partial.size:
                return None, replace(partial, head=partial.head.timed_as(answer.head))
            await self._store.discard(self._artifact.key)
        return await self._sources.ask(self._artifact, patient=stored is None), None

    async def _confirm(self) -> bool:
        """True where the upstream's answer to HEAD shows what it has to be stored already."""
        found = await confirmed(self._sources, self._store, self._artifact, self.stored)
        if found is not None:
            self.confirmation, self.stored = found
        return found is not None

    async def _partial(self) -> Partial | None:
        """What an earlier fill left, where it can be shown to be the beginning of what is to come."""
        partial = None if self._private else await self._store.partial(self._artifact.key)
        if partial is None or (resume_validator(partial.head) is None and self._artifact.digest is None):
            return None
        # One request goes to one place: of places that may have different things it must be both's.
        stored = self.stored if self._artifact.in_order else None
        return partial if stored is None or stored.head.get(ASKED) == partial.asked else None

    def _needs_nobody(self, partial: Partial) -> bool:
        """True for a whole body that never changes or has just come."""
        return partial.whole and fresh(partial.head, self._artifact, self._store.now())

    @staticmethod
    def _rest(partial: Partial | None) -> Headers:
        """The fields that ask for what is missing of a partial."""
        if partial is None or partial.whole:
            return ()
        validator = resume_validator(partial.head)
        condition = () if validator is None else (("If-Range", validator),)
        return (("Range", f"bytes={partial.size}-"), *condition)

    def _same(self, partial: Partial, answer: Answer) -> bool:
        """True where a whole body that comes is shown to be the one that is there already, and may still be stored."""
        same = mark_of(answer.asked) == partial.asked and same_representation(partial.head, answer.head)
        return same and answer.length in (None, partial.size) and keepable(answer.head, self._artifact)

    def _goes_on(self, partial: Partial, answer: Answer) -> bool:
        """True where a 206 is the rest of a partial, and may still be stored with it."""
        found = content_range(answer.head)
        if found is None or found[0] != partial.size or not keepable(replace(answer.head, status=200), self._artifact):
            return False
        elsewhere = mark_of(answer.asked) != partial.asked
        if partial.length is None:
            if elsewhere:
                return False
        elif found[2] not in (None, partial.length):
            return False
        digest = self._artifact.digest_of(partial.head)
        proved = elsewhere and digest is not None and digest == self._artifact.digest_of(answer.head)
        return proved or not contradicts(partial.head, answer.head, elsewhere)
