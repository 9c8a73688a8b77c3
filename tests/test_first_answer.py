"""A refresh that was cut off: what had come of the new copy is gone on with, and the old one is whole meanwhile."""

from __future__ import annotations

import errno
from typing import Any

from tests.memory import DATE, Asked, Rig, RigCase

OLD = b"abcdefghij"
NEW = b"0123456789"
FIRST = ('ETag: "1"', f"Date: {DATE}")
SECOND = ('ETag: "2"', f"Date: {DATE}")
REST = "Content-Range: bytes 5-9/10"


class RefreshTests(RigCase):
    """A vault has OLD, and was stopped in the middle of NEW."""

    def cut(self, *fields: str, size: int = 5) -> Rig:
        """A vault that was stopped when so many bytes of the new copy had come."""
        rig = self.rig(ttl=100.0)
        rig.fill("a", OLD, *FIRST)
        rig.net.pass_time(200)
        rig.request()
        rig.origin.last.head(200, *(fields or SECOND), length=10)
        rig.origin.last.send(NEW[:size])
        rig.net.pass_time(0.1)
        rig.stop()
        rig.again()
        rig.origin.requests.clear()
        return rig

    def assertHas(self, rig: Rig, body: bytes) -> None:
        """Whoever asks next gets this, whole and from the store."""
        rig.request()
        rig.net.pass_time(1)
        client = rig.request()
        self.assertEqual((client.headers["x-cache"], client.body, client.whole), ("HIT", body, True))
        self.assertEqual(rig.stored, 1)

    def test_gone_on_with(self) -> None:
        """One request asks whether the old copy has changed, and for what is missing of the new one."""
        rig = self.cut()
        rig.origin.answer = lambda asked: asked.answer(206, REST, *SECOND, body=NEW[5:])
        client = rig.request()
        rig.net.pass_time(1)
        self.assertEqual((client.body, client.whole), (NEW, True))
        asked = rig.origin.last
        self.assertEqual(
            [asked.get(name) for name in ("If-None-Match", "Range", "If-Range")], ['"1"', "bytes=5-", '"2"']
        )
        self.assertHas(rig, NEW)
        self.assertEqual(len(rig.origin.requests), 1)

    def test_old_copy_meanwhile(self) -> None:
        """Where the rest cannot be had, the old copy is served, and the next request goes on all the same."""
        rig = self.cut()
        rig.origin.answer = lambda asked: asked.close()
        client = rig.request()
        rig.net.pass_time(1)
        self.assertEqual((client.headers["x-cache"], client.body, client.whole), ("STALE", OLD, True))
        rig.net.pass_time(300)
        rig.origin.answer = lambda asked: asked.answer(206, REST, *SECOND, body=NEW[5:])
        self.assertHas(rig, NEW)

    def test_changed_back(self) -> None:
        """A 304 keeps the old copy."""
        rig = self.cut()
        rig.origin.answer = lambda asked: asked.answer(304, *FIRST)
        self.assertHas(rig, OLD)

    def test_changed_again(self) -> None:
        """A third version replaces both, and so does the second where the server sends it from its beginning."""
        for tag, body in (('"3"', b"ABCDEFGHIJ"), ('"2"', NEW)):
            rig = self.cut()
            rig.origin.answer = lambda asked, tag=tag, body=body: asked.answer(200, f"ETag: {tag}", body=body)
            self.assertHas(rig, body)
            self.assertEqual(len(rig.origin.requests), 1)

    def test_unfit_rest(self) -> None:
        """What is not the rest of it is not put together with it."""
        for status, *fields in (
            (206, REST, 'ETag: "3"'),
            (206, "Content-Range: bytes 4-9/10", *SECOND),
            (206, "Content-Range: bytes 5-9/11", *SECOND),
            (416, "Content-Range: bytes */3", 'ETag: "3"'),
        ):
            rig = self.cut()

            def answer(asked: Asked, status: int = status, fields: tuple[str, ...] = tuple(fields)) -> None:
                if asked.get("Range") is None:
                    asked.answer(200, 'ETag: "3"', body=b"ABCDEFGHIJ")
                else:
                    asked.answer(status, *fields, body=b"xxxxx")

            rig.origin.answer = answer
            self.assertHas(rig, b"ABCDEFGHIJ")

    def test_no_validator(self) -> None:
        """Without a strong validator of the new copy it is begun anew."""
        rig = self.cut('ETag: W/"2"')
        rig.origin.answer = lambda asked: asked.answer(200, *SECOND, body=NEW)
        self.assertHas(rig, NEW)
        self.assertIsNone(rig.origin.requests[0].get("Range"))

    def test_whole(self) -> None:
        """Where all had come, the upstream's head alone shows that it is the new copy."""
        rig = self.cut(size=9)
        rig.complete_partial(NEW)
        rig.origin.answer = lambda asked: asked.head(200, *SECOND, length=10)
        self.assertHas(rig, NEW)
        self.assertEqual(len(rig.origin.requests), 1)

    def test_whole_not_to_be_kept(self) -> None:
        """Where all had come, but the upstream now says that it may not be stored, it is not."""
        rig = self.cut(size=9)
        rig.complete_partial(NEW)
        rig.origin.answer = lambda asked: asked.answer(200, *SECOND, "Cache-Control: no-store", body=NEW)
        client = rig.request()
        self.assertEqual((client.body, client.whole), (NEW, True))

    def test_whole_but_removed(self) -> None:
        """Where the file that had all goes while the upstream is asked, the body comes from the upstream."""
        rig = self.cut(size=9)
        rig.complete_partial(NEW)

        def answer(asked: Any) -> None:
            for file in (rig.store.layout.root / ".vault" / "partial").iterdir():
                file.unlink()
            asked.answer(200, *SECOND, body=NEW)

        rig.origin.answer = answer
        self.assertHas(rig, NEW)

    def test_whole_on_a_failing_disk(self) -> None:
        """Where the disk does not give what had come, the body comes from the upstream, past the disk."""
        rig = self.cut(size=9)
        rig.complete_partial(NEW)
        rig.net.pass_time(300)

        def answer(asked: Asked) -> None:
            rig.disk.error = OSError(errno.ENOSPC, "No space left on device")
            asked.answer(200, *SECOND, body=NEW)

        rig.origin.answer = answer
        client = rig.request()
        rig.net.pass_time(1)
        self.assertEqual((client.status, client.body, client.whole), (200, NEW, True))

    def test_whole_of_another(self) -> None:
        """Where all of it had come and there is yet another version, that one is taken."""
        rig = self.cut(size=9)
        rig.complete_partial(NEW)
        rig.origin.answer = lambda asked: asked.answer(200, 'ETag: "3"', body=b"ABCDEFGHIJ")
        self.assertHas(rig, b"ABCDEFGHIJ")

    def test_whole_alone(self) -> None:
        """The same without an old copy, where what had come has expired meanwhile."""
        rig = self.rig(ttl=100.0)
        rig.request()
        rig.origin.last.head(200, *SECOND, length=10)
        rig.origin.last.send(NEW[:9])
        rig.net.pass_time(0.1)
        rig.stop()
        rig.again()
        rig.complete_partial(NEW)
        rig.net.pass_time(200)
        rig.origin.requests.clear()
        rig.origin.answer = lambda asked: asked.head(200, *SECOND, length=10)
        self.assertHas(rig, NEW)
        self.assertEqual(len(rig.origin.requests), 1)


class InOrderTests(RigCase):
    """Places that may have different things under one name."""

    def test_not_where_it_came_from(self) -> None:
        """A validator of one place is not sent to another: the new copy is begun anew there."""
        rig = self.rig(("http://origin.test/", "http://other.test/"), ttl=100.0)
        other = rig.net.origin("other.test")
        artifact = rig.artifact(in_order=True)
        rig.origin.answer = lambda asked: asked.answer(404)
        other.answer = lambda asked: asked.answer(200, *FIRST, body=OLD)
        rig.run(rig.cache.lookup(artifact))
        rig.net.pass_time(200)
        rig.origin.answer = lambda asked: None
        rig.run(rig.cache.lookup(artifact))
        rig.origin.last.head(200, *SECOND, length=10)
        rig.origin.last.send(NEW[:5])
        rig.net.pass_time(0.1)
        rig.stop()
        rig.again()
        rig.origin.requests.clear()
        rig.net.pass_time(300)
        rig.origin.answer = lambda asked: asked.answer(200, *SECOND, body=NEW)
        rig.run(rig.cache.lookup(artifact))
        rig.net.pass_time(1)
        asked = rig.origin.last
        self.assertEqual([asked.get(name) for name in ("If-None-Match", "Range", "If-Range")], [None] * 3)
        self.assertEqual(rig.stored, 1)
