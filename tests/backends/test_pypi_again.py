"""``type: pypi``: pages that come wrong, some of which are right when they are asked for again."""

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


class OtherPageTests(PyPICase):
    """HTML with status 200 that is no page of an index, though it has no form and no link."""

    def test_kept(self) -> None:
        """The kept page stays, with all that it links to; where nobody has one it is 502 and no empty project."""
        for html in (
            b"<html><script src=/login.js></script><body><div id=root></div></body></html>",
            b"<html><body><h1>We will be back soon</h1></body></html>",
            b"",
        ):
            rig = self.vault()
            self.files["/packages/a-1.zip"] = b"x"
            self.put("a", BODY)
            self.assertEqual(list(self.links()), ["a-1.zip"])
            self.put("a", html, "text/html")
            self.put("b", html, "text/html")
            rig.net.pass_time(700)
            client = self.get("simple/a/", ASK_JSON)
            self.assertEqual((client.headers["x-cache"], list(self.links())), ("STALE", ["a-1.zip"]), html)
            self.assertEqual(self.follow("a-1.zip").body, b"x")
            self.assertEqual(self.get("simple/b/").status, 502)

    def test_really_empty(self) -> None:
        """A project that has no file any more is taken for what it is."""
        rig = self.vault()
        for html in (b"<html><body></body></html>", b"<!DOCTYPE html><h1>Links for a</h1>"):
            self.put("a", BODY)
            self.assertEqual(list(self.links()), ["a-1.zip"])
            rig.net.pass_time(700)
            self.put("a", html, "text/html")
            self.assertEqual(list(self.links()), [])
            rig.net.pass_time(700)


class SerialTests(PyPICase):
    """Pages that have a serial, but no field that says it, as those of static mirrors."""

    def serve(self, serial: int, *numbers: int, html: bool = False) -> None:
        """The index has these files from now on, and whoever asks next is given what it has then."""
        names = [f"a-{number}.zip" for number in numbers]
        anchors = "".join(f'<a href="/p/{name}">{name}</a>' for name in names) + f"<!--SERIAL {serial}-->"
        body = anchors.encode() if html else page(*(entry(name, name.encode()) for name in names), serial=serial)
        self.put("a", body, "text/html" if html else JSON)
        self.rig_.net.pass_time(700)

    def test_lower(self) -> None:
        """One with a lower serial is not adopted; one with a higher is, then and later."""
        for html in (False, True):
            self.vault()
            self.serve(10, 1, 2, html=html)
            self.assertEqual(list(self.links()), ["a-1.zip", "a-2.zip"])
            self.serve(9, 1, html=html)
            client = self.get("simple/a/", ASK_JSON)
            self.assertEqual((client.status, client.headers["x-cache"]), (200, "STALE"))
            self.assertEqual(list(self.links()), ["a-1.zip", "a-2.zip"])
            self.serve(10, 2, html=html)
            self.assertEqual(list(self.links()), ["a-2.zip"])
            self.serve(11, 3, html=html)
            self.assertEqual(list(self.links()), ["a-3.zip"])

    def test_file(self) -> None:
        """Nor does a file disappear that only the newer page has, though nobody has asked for a page meanwhile."""
        self.vault()
        self.files["/packages/a-2.zip"] = b"a-2.zip"
        self.serve(10, 1, 2)
        path = self.links()["a-2.zip"]
        self.serve(9, 1)
        self.assertEqual(self.rig_.request(path).body, b"a-2.zip")

    def test_elsewhere(self) -> None:
        """Serials of different indexes have nothing to do with each other."""
        rig = self.vault()
        self.serve(10, 1, 2)
        self.assertEqual(list(self.links()), ["a-1.zip", "a-2.zip"])
        rig.net.origin("other.test").answer = self._answer_page
        self.use("http://other.test/simple/")
        self.serve(3, 3)
        self.assertEqual(list(self.links()), ["a-3.zip"])


class ClosedTests(PyPICase):
    """An index that ends its pages by closing the connection, as simple servers of HTTP/1.0 do."""

    def serve(self, body: bytes, kind: str = JSON) -> None:
        """What it answers from now on."""

        def answer(asked: Asked) -> None:
            asked.head(200, f"Content-Type: {kind}", version="1.0")
            asked.send(body)
            asked.close()

        self.rig_.origin.answer = answer

    def test_kept(self) -> None:
        """A page that shows by its own end that it is whole is kept, and served while the index is down."""
        html = b'<html><body><a href="/p/a-1.zip">a-1.zip</a></body>\n</html>\n<!--SERIAL 3-->\n'
        for body, kind in ((BODY, JSON), (html, "text/html")):
            rig = self.vault()
            self.serve(body, kind)
            first = self.get("simple/a/", ASK_JSON)
            self.assertEqual((first.status, list(self.links())), (200, ["a-1.zip"]))
            self.assertEqual(self.get("simple/a/", ASK_JSON).headers["x-cache"], "HIT")
            self.assertEqual(len(rig.origin.requests), 1)
            rig.net.pass_time(700)
            self.assertEqual(list(self.links()), ["a-1.zip"])
            self.assertEqual(len(rig.origin.requests), 2)
            rig.origin.answer = lambda asked: asked.answer(503)
            rig.net.pass_time(700)
            later = self.get("simple/a/", ASK_JSON)
            self.assertEqual((later.status, later.headers["x-cache"], later.body), (200, "STALE", first.body))

    def test_changed(self) -> None:
        """A newer one takes its place; one that was cut off does not, nor is it kept where there is no other."""
        rig = self.vault()
        self.serve(BODY)
        self.assertEqual(list(self.links()), ["a-1.zip"])
        rig.net.pass_time(700)
        self.serve(page(entry("a-2.zip", b"x")))
        self.assertEqual(list(self.links()), ["a-2.zip"])
        rig.net.pass_time(700)
        self.serve(BODY[:-5])
        client = self.get("simple/a/", ASK_JSON)
        self.assertEqual((client.headers["x-cache"], list(self.links())), ("STALE", ["a-2.zip"]))
        self.serve(b'<html><a href="/p/a-1.zip">a-1.zip</a>', "text/html")
        for number in (1, 2):
            self.assertEqual(self.get("simple/b/", ASK_JSON).headers["x-cache"], "BYPASS", number)

    def test_again(self) -> None:
        """JSON that stops in the middle is asked for again where nothing is kept, as any page that breaks off."""
        rig = self.vault()
        bodies = [BODY[:-5], BODY]

        def next_one(asked: Asked) -> None:
            self.serve(bodies.pop(0))
            whole, rig.origin.answer = rig.origin.answer, next_one
            whole(asked)

        rig.origin.answer = next_one
        client = self.get("simple/a/", ASK_JSON)
        rig.net.pass_time(2)
        self.assertEqual((client.status, len(rig.origin.requests)), (200, 2))
        self.serve(BODY[:-5])
        client = self.get("simple/b/", ASK_JSON)
        rig.net.pass_time(2)
        self.assertEqual((client.status, len(rig.origin.requests)), (502, 5))

    def test_without_end(self) -> None:
        """HTML that was cut off before its last tag does not take the place of a page that has one."""
        whole = b'<html><a href="/p/a-1.zip">a-1.zip</a><a href="/p/a-2.zip">a-2.zip</a></html>'
        rig = self.vault()
        self.serve(whole, "text/html")
        self.assertEqual(list(self.links()), ["a-1.zip", "a-2.zip"])
        for body in (whole[:40], whole[:-7]):
            rig.net.pass_time(700)
            self.serve(body, "text/html")
            client = self.get("simple/a/", ASK_JSON)
            self.assertEqual((client.headers["x-cache"], list(self.links())), ("STALE", ["a-1.zip", "a-2.zip"]))
        rig.net.pass_time(700)
        self.serve(whole.replace(b"a-2", b"a-3"), "text/html")
        self.assertEqual(list(self.links()), ["a-1.zip", "a-3.zip"])

    def test_full(self) -> None:
        """On a full disk it is served all the same, also to whoever asks while it comes."""
        rig = self.vault()
        rig.disk.error = OSError(28, "No space left on device")
        waiting: list[Asked] = []
        rig.origin.answer = waiting.append
        clients = [self.get("simple/a/", ASK_JSON)]
        (asked,) = waiting
        asked.head(200, f"Content-Type: {JSON}", version="1.0")
        rig.net.pass_time(1)
        clients += [self.get("simple/a/", ASK_JSON) for _ in range(20)]
        asked.send(BODY)
        asked.close()
        rig.net.pass_time(1)
        self.assertEqual(([client.status for client in clients], len(waiting)), ([200] * 21, 1))
