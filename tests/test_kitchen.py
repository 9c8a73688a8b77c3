"""The kitchen: recipes, documents made of others once, and content under a second name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.memory import Rig, RigCase
from vault.artifact import Artifact, Digest, Head
from vault.backends.http import HTTPBackend
from vault.errors import BrokenAnswer, Refused, Truncated, VaultError
from vault.interfaces import IBackend, IKitchen, IRecipe
from vault.outcome import Asked, Found, How

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@implementer(IRecipe)
class Shout:
    """The artifact in capitals, made once for each version of it."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.built = 0

    async def find(self, kitchen: IKitchen, asked: Asked) -> Found:
        """Fetch, make, and answer with a head of its own."""
        source = await kitchen.fetch(self.artifact, asked.no_cache)
        text = await kitchen.read(source.body, 100)

        def build() -> Iterator[bytes]:
            self.built += 1
            yield text.upper()
            yield b"!"

        made = await kitchen.make(self.artifact.key + ".loud", str(source.body.sha256), build)
        head = Head(200, (("Content-Type", "text/loud"),), made.head.requested_at, made.head.received_at)
        asked.notes["shouted"] = asked.notes.get("shouted", 0) + 1
        return Found(made, source.how, head=head, detail=f"time {asked.notes['shouted']}")


@implementer(IBackend)
class Shouting(HTTPBackend):
    """Everything below ``loud/`` is a recipe."""

    def resolve(self, path: str, headers: Mapping[str, str]) -> Artifact | IRecipe:  # type: ignore[override]
        """A recipe, kept so that the test can look at it, or what HTTPBackend says."""
        if not path.startswith("loud/"):
            return super().resolve(path, headers)
        RECIPES.setdefault(path, Shout(super().resolve(path.removeprefix("loud/"), headers)))
        return RECIPES[path]

    def refusal(self, status: int, error: VaultError) -> tuple[str, bytes] | None:
        """Errors in a form of its own."""
        return "application/json", b'{"status": %d}' % status


RECIPES: dict[str, Shout] = {}


class RecipeTests(RigCase):
    """What clients get from a recipe."""

    def setUp(self) -> None:
        """Begin without recipes."""
        RECIPES.clear()

    def loud(self) -> Rig:
        """A vault whose origin says hello."""
        rig = self.rig(backend=Shouting("files", "/files/", ("http://origin.test/",), ttl=100.0))
        rig.origin.answer = lambda asked: asked.answer(200, 'ETag: "1"', body=b"hello")
        return rig

    def test_made_once(self) -> None:
        """A document is made of what was fetched, once, and served with its own type, tag and ranges."""
        rig = self.loud()
        first = rig.request("loud/a")
        self.assertEqual((first.status, first.body, first.headers["x-cache"]), (200, b"HELLO!", "MISS"))
        self.assertEqual(first.headers["content-type"], "text/loud")
        self.assertNotIn("x-vault-made-from", first.headers)
        again = rig.request("loud/a", "Range: bytes=1-2")
        self.assertEqual((again.status, again.body, again.headers["x-cache"]), (206, b"EL", "HIT"))
        self.assertEqual(rig.request("loud/a", f"If-None-Match: {first.headers['etag']}").status, 304)
        head = rig.request("loud/a", method="HEAD")
        self.assertEqual((head.status, head.headers["content-length"]), (200, "6"))
        self.assertEqual((RECIPES["loud/a"].built, len(rig.origin.requests)), (1, 1))

    def test_made_anew(self) -> None:
        """When what it is made of changes, so does the document, and its tag."""
        rig = self.loud()
        tag = rig.request("loud/a").headers["etag"]
        rig.net.pass_time(1000)
        rig.origin.answer = lambda asked: asked.answer(200, 'ETag: "2"', body=b"world")
        client = rig.request("loud/a")
        self.assertEqual(client.body, b"WORLD!")
        self.assertNotEqual(client.headers["etag"], tag)

    def test_restart(self) -> None:
        """A document that was made is still there after a restart."""
        rig = self.loud()
        rig.request("loud/a")
        rig.again()
        self.assertEqual(rig.request("loud/a").body, b"HELLO!")
        self.assertEqual(RECIPES["loud/a"].built, 1)

    def test_full_disk(self) -> None:
        """A document that cannot be stored is served all the same, and made again for the next one."""
        rig = self.loud()
        rig.request("a")
        rig.disk.error = OSError(28, "No space left on device")
        for built in (1, 2):
            self.assertEqual(rig.request("loud/a").body, b"HELLO!")
            self.assertEqual(RECIPES["loud/a"].built, built)

    def test_full_disk_in_turns(self) -> None:
        """What the disk does not take is put together and hashed beside the vault's other work, not in its way."""
        rig = self.rig()
        rig.disk.error = OSError(28, "No space left on device")
        rig.workers.held = True
        running = rig.run(rig.kitchen.make("a", "b", lambda: [b"hel", b"lo"]))
        rig.workers.do_one()
        rig.net.pass_time()
        self.assertNoResult(running)
        rig.workers.do_one()
        body = self.successResultOf(running)
        self.assertEqual((body.read(0, 9), body.sha256), (b"hello", HELLO))

    def test_joined(self) -> None:
        """Those who ask while a document is being made wait for the same one."""
        rig = self.loud()
        rig.workers.held = True
        clients = [rig.request("loud/a") for _ in range(3)]
        clients[0].leave()
        self.assertEqual([client.status for client in clients], [0, 0, 0])
        rig.workers.release()
        rig.net.pass_time()
        self.assertEqual([client.body for client in clients[1:]], [b"HELLO!", b"HELLO!"])
        self.assertEqual(RECIPES["loud/a"].built, 1)

    def test_too_large(self) -> None:
        """What is larger than a recipe reads is a broken answer, in the backend's own form of errors."""
        rig = self.loud()
        rig.origin.answer = lambda asked: asked.answer(200, body=bytes(101))
        client = rig.request("loud/a")
        self.assertEqual((client.status, client.body), (502, b'{"status": 502}'))
        self.assertEqual(client.headers["content-type"], "application/json")

    def test_notes(self) -> None:
        """What a recipe notes about a connection is there for its next request, and not for another connection."""
        rig = self.loud()
        client = rig.request("loud/a")
        self.assertIn("time 1", client.headers["cache-status"])
        client.raw = b""
        client.channel.dataReceived(b"GET /files/loud/a HTTP/1.1\r\nHost: x\r\n\r\n")
        rig.net.pass_time()
        self.assertIn("time 2", client.headers["cache-status"])
        self.assertIn("time 1", rig.request("loud/a").headers["cache-status"])

    def test_hidden(self) -> None:
        """An upstream cannot set the vault's own notes."""
        rig = self.rig(ttl=100.0)
        rig.fill("a", b"hello", "X-Vault-Made-From: me", "X-Vault-Gone: 0", "X-Other: 1")
        client = rig.request()
        self.assertEqual(client.headers["x-other"], "1")
        self.assertEqual([name for name in client.headers if name.startswith("x-vault")], [])


class KitchenTests(RigCase):
    """The kitchen's own methods."""

    def made(self, rig: Rig, made_from: str, pieces: Iterable[bytes]) -> Any:
        """Make a document."""
        return rig.run(rig.kitchen.make("files/doc", made_from, lambda: pieces))

    def test_versions_at_once(self) -> None:
        """Two versions of a document asked for at the same time: each gets its own, and one of them is kept."""
        rig = self.rig()
        rig.disk.held = True
        one, two = self.made(rig, "1", [b"one"]), self.made(rig, "2", [b"two"])
        for _ in range(20):
            rig.disk.release()
            rig.net.pass_time(0.1)
        for waiting, text in ((one, b"one"), (two, b"two")):
            body = self.successResultOf(waiting)
            self.assertEqual(self.successResultOf(rig.run(rig.kitchen.read(body, 10))), text)
        self.assertEqual(rig.stored, 1)

    def test_made_of_two(self) -> None:
        """Whoever wants the document of one version is never given that of another which is being kept just then."""
        rig = self.rig()
        rig.workers.held = rig.disk.held = True
        waiting = {text: self.made(rig, text, [text.encode()]) for text in ("one", "two", "three")}
        rig.workers.release()
        for _ in range(20):
            rig.disk.release()
            rig.net.pass_time(0.1)
        for text, made in waiting.items():
            body = self.successResultOf(made)
            self.assertEqual(self.successResultOf(rig.run(rig.kitchen.read(body, 10))), text.encode())

    def test_cut_file(self) -> None:
        """A stored file that somebody shortened is an error to a recipe, not an endless wait."""
        rig = self.rig()
        rig.fill("a", b"hello")
        body = self.successResultOf(rig.run(rig.kitchen.stored("files/a")))
        (rig.store.layout.root / "files/a").write_bytes(b"he")
        self.failureResultOf(rig.run(rig.kitchen.read(body, 10)), Truncated)

    def test_build_fails(self) -> None:
        """What building raises is told to all who wait, and the next one builds again."""
        rig = self.rig()

        def broken() -> Iterator[bytes]:
            yield b"a"
            raise ValueError("bad page")

        self.failureResultOf(self.made(rig, "1", broken()), ValueError)
        body = self.successResultOf(self.made(rig, "1", [b"good"]))
        self.assertEqual(body.length, 4)

    def test_read_in_turns(self) -> None:
        """While a large document is read, others have their turn."""
        rig = self.rig()
        rig.fill("a", b"x" * 5_000_000)
        body = self.successResultOf(rig.run(rig.kitchen.fetch(rig.artifact("a")))).body
        at_once: list[bytes] = []
        reading = ensureDeferred(rig.kitchen.read(body, 10_000_000)).addCallback(at_once.append)
        self.assertEqual(at_once, [])
        rig.workers.held = True
        rig.net.pass_time()
        self.assertNoResult(reading)  # it is put together elsewhere
        rig.workers.release()
        self.successResultOf(reading)
        self.assertEqual(len(at_once[0]), 5_000_000)

    def test_read_limit(self) -> None:
        """A body that grows beyond the limit is refused as soon as that is known."""
        rig = self.rig()
        found = rig.run(rig.kitchen.fetch(rig.artifact()))
        rig.origin.last.head(200, length=1000)
        rig.net.pass_time()
        reading = rig.run(rig.kitchen.read(self.successResultOf(found).body, 999))
        rig.origin.last.send(b"x")
        rig.net.pass_time()
        self.failureResultOf(reading, BrokenAnswer)
        rig.origin.last.send(b"x" * 999)
        rig.net.pass_time(1)

    def test_behind(self) -> None:
        """What goes on behind is begun once, survives its failure, and ends when the vault stops."""
        rig = self.rig()
        begun: list[Deferred[None]] = []

        async def work() -> None:
            begun.append(Deferred())
            await begun[-1]

        for _ in range(2):
            rig.kitchen.behind("work", work)
            rig.net.pass_time()
        self.assertEqual(len(begun), 1)
        begun[0].errback(BrokenAnswer("it failed"))
        rig.kitchen.behind("work", work)
        rig.net.pass_time()
        self.assertEqual(len(begun), 2)
        rig.kitchen.stop()
        self.assertTrue(begun[1].called)

    def test_saved_although_stopped_again(self) -> None:
        """A kitchen that is stopped before it could begin ends after the one before it: whoever is next waits too."""
        rig = self.rig()
        saved: Deferred[None] = Deferred()
        first = rig.kitchen

        async def work() -> None:
            try:
                await first.sleep(1000)
            except CancelledError:
                await saved

        first.behind("work", work)
        rig.net.pass_time()
        rig.again()
        rig.kitchen.behind("begin", rig.kitchen.ready)
        rig.net.pass_time()
        rig.again()
        ready = rig.run(rig.kitchen.ready())
        self.assertNoResult(ready)
        saved.callback(None)
        self.successResultOf(ready)

    def test_saved_at_the_end(self) -> None:
        """What is cancelled may save what it knows; the kitchen that comes next waits for that, but not for ever."""
        for wait in (1.0, 100.0):
            rig = self.rig()
            saved: Deferred[None] = Deferred()

            async def work(rig: Rig = rig, saved: Deferred[None] = saved) -> None:
                try:
                    await rig.kitchen.sleep(1000)
                except CancelledError:
                    await saved

            rig.kitchen.behind("work", work)
            rig.net.pass_time()
            rig.again()
            ready = rig.run(rig.kitchen.ready())
            self.assertNoResult(ready)
            rig.net.pass_time(min(wait, 1.9))
            self.assertNoResult(ready)
            if wait < 2:
                saved.callback(None)
            rig.net.pass_time(0.2)
            self.successResultOf(ready)
            self.successResultOf(rig.run(rig.kitchen.ready()))

    def test_once_left(self) -> None:
        """Whoever leaves does not end what the others wait for."""
        rig = self.rig()
        work: Deferred[str] = Deferred()

        async def wait() -> str:
            return await work

        waiters = [rig.kitchen.once("name", wait) for _ in range(3)]
        waiters[1].addErrback(lambda failure: None)
        waiters[1].cancel()
        work.callback("done")
        self.assertEqual([self.successResultOf(waiters[index]) for index in (0, 2)], ["done", "done"])

    def test_once_left_meanwhile(self) -> None:
        """Where one who is told makes another leave, the others are told all the same."""
        work: Deferred[str] = Deferred()
        kitchen = self.rig().kitchen
        waiting = [kitchen.once("name", lambda: work) for _ in range(3)]
        waiting[0].addCallback(lambda told: waiting[1].cancel())
        work.callback("done")
        self.failureResultOf(waiting[1], CancelledError)
        self.assertEqual(self.successResultOf(waiting[2]), "done")

    def test_ask(self) -> None:
        """A HEAD to the upstream gives its head and stores nothing."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.head(200, "X-Here: yes", length=5)
        head = self.successResultOf(rig.run(rig.kitchen.ask(rig.artifact())))
        self.assertEqual((head.get("X-Here"), rig.origin.last.method, rig.stored), ("yes", "HEAD", 0))


class TwinTests(RigCase):
    """Content that is stored already, under another key."""

    def test_not_fetched_again(self) -> None:
        """What is stored under another key is not fetched again where the digest is known."""
        rig = self.rig()
        rig.fill("a", b"hello", "Content-Type: text/hello")
        rig.origin.requests.clear()
        artifact = rig.artifact("b/c", digest=Digest("sha256", HELLO))
        found = self.successResultOf(rig.run(rig.kitchen.fetch(artifact)))
        self.assertEqual((found.how, found.body.length, rig.origin.requests), (How.HIT, 5, []))
        self.assertEqual(found.body.head.get("Content-Type"), "text/hello")
        self.assertEqual((rig.stored, rig.store.index.totals()[1]), (2, 5))
        self.assertEqual((rig.store.layout.root / "files/b/c").read_bytes(), b"hello")

    def test_head(self) -> None:
        """A HEAD finds it too."""
        rig = self.rig()
        rig.fill("a", b"hello")
        artifact = rig.artifact("b", digest=Digest("sha256", HELLO))
        found = self.successResultOf(rig.run(rig.kitchen.find(artifact, Asked(head_only=True))))
        self.assertEqual((found.how, len(rig.origin.requests)), (How.HIT, 1))

    def test_another_place(self) -> None:
        """Where a file stands in the way of the second name's directory, it is stored in the safe form."""
        rig = self.rig()
        rig.fill("a", b"hello")
        artifact = rig.artifact("a/b", digest=Digest("sha256", HELLO))
        self.assertEqual(self.successResultOf(rig.run(rig.kitchen.fetch(artifact))).how, How.HIT)
        self.assertEqual(self.successResultOf(rig.run(rig.kitchen.fetch(artifact))).body.length, 5)

    def test_adopt(self) -> None:
        """Adopted content has the head it was given, and takes the place of what had the key before."""
        rig = self.rig()
        rig.fill("a", b"hello")
        rig.fill("b", b"other")
        head = Head(200, (("X-Mine", "1"),), 1.0, 2.0)
        body = self.successResultOf(rig.run(rig.kitchen.adopt("files/b", Digest("sha256", HELLO), head)))
        self.assertEqual((body.head.get("X-Mine"), body.sha256), ("1", HELLO))
        self.assertEqual(rig.request("b").body, b"hello")
        gone = Digest("sha256", "0" * 64)
        self.assertIsNone(self.successResultOf(rig.run(rig.kitchen.adopt("files/c", gone, head))))

    def test_joins_across_urls(self) -> None:
        """Two requests for one key with the same digest share a fill, whatever URLs they name."""
        rig = self.rig()
        first = rig.artifact("x", digest=Digest("sha256", HELLO))
        second = rig.artifact("y", key=first.key, digest=first.digest)
        waiting = [rig.run(rig.kitchen.fetch(artifact)) for artifact in (first, second)]
        rig.origin.last.answer(200, body=b"hello")
        rig.net.pass_time()
        self.assertEqual([self.successResultOf(found).how for found in waiting], [How.MISS, How.JOINED])
        self.assertEqual(len(rig.origin.requests), 1)

    def test_other_digest(self) -> None:
        """Who wants another digest than the one being fetched is not joined to that fill: it gets what it asked for."""
        rig = self.rig()
        wanted = Digest("sha256", HELLO)
        other = Digest("sha256", "0" * 64)
        first = rig.run(rig.kitchen.fetch(rig.artifact(digest=other)))
        for artifact in (rig.artifact(digest=wanted), rig.artifact()):
            self.assertIs(rig.kitchen.cache._foreign(artifact), artifact.digest is not None)
        second = rig.run(rig.kitchen.fetch(rig.artifact(digest=wanted)))
        for asked in rig.origin.requests:
            asked.answer(200, body=b"hello")
        rig.net.pass_time(1)
        self.assertEqual(len(rig.origin.requests), 2)
        self.assertIsNotNone(self.successResultOf(first).body.failure)
        self.assertEqual(self.successResultOf(second).body.length, 5)

    def test_own_place(self) -> None:
        """Who joined a request that is refused in another place asks its own place, and hears what that one says."""
        rig = self.rig()
        public = rig.artifact("x", digest=Digest("sha256", HELLO))
        private = rig.artifact("y", key=public.key, digest=public.digest)
        rig.origin.answer = lambda asked: (
            asked.answer(403) if asked.target == "/y" else asked.answer(200, body=b"hello")
        )
        waiting = [rig.run(rig.kitchen.fetch(artifact)) for artifact in (private, public)]
        rig.net.pass_time(5)
        self.failureResultOf(waiting[0], Refused)
        self.assertEqual(self.successResultOf(waiting[1]).body.length, 5)

    def test_at_once(self) -> None:
        """Many who adopt the same content at once all get it, by one link."""
        rig = self.rig()
        rig.fill("a", b"hello")
        rig.disk.held = True
        artifact = rig.artifact("b", digest=Digest("sha256", HELLO))
        waiting = [rig.run(rig.kitchen.fetch(artifact)) for _ in range(8)]
        for _ in range(20):
            rig.disk.release()
            rig.net.pass_time()
        self.assertEqual([self.successResultOf(found).how for found in waiting], [How.HIT] * 8)
        self.assertEqual((len(rig.origin.requests), rig.store.problems()), (1, []))


class WaitingTests(RigCase):
    """Waiting for a bounded time."""

    def late(self) -> tuple[Rig, Deferred[int], list[int]]:
        """Something that somebody did not wait for any longer; what became of it is in the list."""
        rig = self.rig()
        slow: Deferred[int] = Deferred()
        ends: list[int] = []

        async def begin() -> int:
            ends.append(await slow)
            return ends[0]

        running = rig.run(rig.kitchen.in_time(5.0, begin))
        rig.net.pass_time(4.9)
        self.assertNoResult(running)
        rig.net.pass_time(0.2)
        self.failureResultOf(running, TimeoutError)
        return rig, slow, ends

    def test_goes_on(self) -> None:
        """What somebody does not wait for any longer goes on to its end."""
        _, slow, ends = self.late()
        slow.callback(7)
        self.assertEqual(ends, [7])

    def test_goes_on_to_trouble(self) -> None:
        """What then fails in a way that nobody foresaw is in the log; what upstreams do to everybody is not."""
        self.late()[1].errback(BrokenAnswer("it is broken"))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.late()[1].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_begun_in_time(self) -> None:
        """What is there at once needs no timer, and what comes in time or fails is told as it is."""
        rig = self.rig()

        async def begin() -> int:
            return 7

        self.assertEqual(self.successResultOf(rig.run(rig.kitchen.in_time(0.0, begin))), 7)
        for result, error in ((7, None), (Failure(Refused("no")), Refused)):
            slow: Deferred[Any] = Deferred()
            running = rig.run(rig.kitchen.in_time(5.0, lambda slow=slow: slow))
            slow.callback(result)
            if error is None:
                self.assertEqual(self.successResultOf(running), 7)
            else:
                self.failureResultOf(running, error)

    def test_in_time(self) -> None:
        """What comes in time is given, and no timer stays."""
        rig = self.rig()
        waited: Deferred[int] = Deferred()
        running = rig.run(rig.kitchen.within(5.0, waited))
        waited.callback(7)
        self.assertEqual(self.successResultOf(running), 7)

    def test_too_late(self) -> None:
        """What does not is cancelled."""
        rig = self.rig()
        cancelled: list[Any] = []
        running = rig.run(rig.kitchen.within(5.0, Deferred(cancelled.append)))
        rig.net.pass_time(4.9)
        self.assertNoResult(running)
        rig.net.pass_time(0.2)
        self.failureResultOf(running, TimeoutError)
        self.assertEqual(len(cancelled), 1)
