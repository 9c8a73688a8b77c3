"""``type: pypi``: pages that come wrong once, and are right when they are asked for again."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.backends.pypi_case import ASK_JSON, JSON, PyPICase, entry, page
from tests.memory import Asked, Client

BODY = page(entry("a-1.zip", b"x"))


class BrokenOffTests(PyPICase):
    """A page that breaks off, and nobody has an older one.  pip before version 24 gives up at the first 502."""

    def ask(self, *answers: Callable[[Asked], None], clients: int = 1) -> list[Client]:
        """What clients get of an index that answers so, then rightly."""
        rig = self.vault()
        self.put("a", BODY)
        left = list(answers)

        def answer(asked: Asked) -> None:
            (left.pop(0) if left else self._answer_page)(asked)

        rig.origin.answer = answer
        asking = [self.get("simple/a/", ASK_JSON) for _ in range(clients)]
        rig.net.pass_time(9)
        return asking

    def breaks_off(self, *fields: str) -> Callable[[Asked], None]:
        """An answer with half of the page."""

        def answer(asked: Asked) -> None:
            asked.head(200, f"Content-Type: {JSON}", *fields, length=len(BODY))
            asked.send(BODY[:50])
            asked.close()

        return answer

    def test_once(self) -> None:
        """It is asked for again from its beginning, once for all; clients do not notice."""
        for fields in ((), ('ETag: W/"weak"',), ('ETag: "that is no more"',)):
            clients = self.ask(self.breaks_off(*fields), clients=20)
            self.assertEqual({client.status for client in clients}, {200}, fields)
            self.assertEqual(json.loads(clients[-1].body)["files"][0]["filename"], "a-1.zip")
            self.assertLessEqual(len(self.rig_.origin.requests), 3)

    def test_chunked(self) -> None:
        """So is one in chunks without an end."""

        def answer(asked: Asked) -> None:
            asked.head(200, f"Content-Type: {JSON}", "Transfer-Encoding: chunked")
            asked.chunk(BODY)
            asked.close()

        (client,) = self.ask(answer)
        self.assertEqual((client.status, len(self.rig_.origin.requests)), (200, 2))

    def test_always(self) -> None:
        """An index that never ends a page is asked three times, and clients are told that it is broken."""
        (client,) = self.ask(*[self.breaks_off()] * 10)
        self.assertEqual((client.status, len(self.rig_.origin.requests)), (502, 3))

    def test_slow(self) -> None:
        """What broke off after a while is not begun again: clients would wait too long."""

        def answer(asked: Asked) -> None:
            asked.head(200, f"Content-Type: {JSON}", length=len(BODY))
            self.rig_.net.callLater(6, asked.close)

        (client,) = self.ask(answer)
        self.assertEqual((client.status, len(self.rig_.origin.requests)), (502, 1))
