"""What a killed process, a crashed machine or a lost index leaves: each entry whole or absent, partial fills usable."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import ensureDeferred

from tests.store.fakes import DATED, Killed, StoreCase
from vault.artifact import Digest, Head
from vault.store.store import Store

DATA = bytes(range(256)) * 8
OTHER = b"another version of it" * 50


class KillTests(StoreCase):
    STEPS = (
        "index.twin",
        "layout.link",
        "os.utime",
        "os.fsync",
        "os.rename",
        "layout.place",
        "layout.open",
        "index.put",
    )

    def kill(self, store: Store, step: str, after: bool) -> Callable[[], bool]:
        """Let the process die before or after the step; what is returned tells whether it did."""
        part, name = step.split(".")
        place: Any = os if part == "os" else getattr(store, part)
        done = getattr(place, name)
        dead: list[bool] = []

        def dies(*arguments: Any, **named: Any) -> Any:
            if dead:
                return done(*arguments, **named)
            if after:
                done(*arguments, **named)
            dead.append(True)
            raise Killed

        patcher = self.patch(place, name, dies)

        def ended() -> bool:
            patcher.restore()
            return bool(dead)

        return ended

    def prepare(self, case: str) -> Store:
        """A store in which the key to be filled has an older entry, a twin, both, or neither."""
        self.root = self.root.with_name(self.root.name + "x")
        store = self.open()
        if "twin" in case:
            self.fill(store, "b/twin", DATA)
        if "older" in case:
            self.fill(store, "b/key", OTHER)
        if "same" in case:
            self.fill(store, "b/key", DATA)
        return store

    def each_death(self) -> Any:
        """For every step of storing, and whatever was there before: the store that begins after the process died."""
        for case in ("", "older", "same", "twin", "twin older", "twin same"):
            for step in self.STEPS:
                for after in (False, True):
                    store = self.prepare(case)
                    writer = self.begin(store, "b/key", len(DATA))
                    writer.write(DATA)
                    happened = self.kill(store, step, after)
                    finished = ensureDeferred(writer.finish())
                    if happened():
                        self.failureResultOf(finished, Killed)
                    self.die(store)
                    yield case, f"{'after' if after else 'before'} {step}, having {case or 'nothing'}"

    def allowed(self, case: str) -> set[bytes | None]:
        """What may be found under the key afterwards: the new entry, or what was there."""
        before = OTHER if "older" in case else DATA if "same" in case else None
        return {DATA, before, None}

    def test_whole_or_absent(self) -> None:
        """Whenever the process dies while it stores an entry, that entry is whole or absent, and no other suffers."""
        for case, when in self.each_death():
            for rebuilt in (False, True):
                store = self.open(rebuilt)
                self.assertIn(self.content(store, "b/key"), self.allowed(case), when)
                if "twin" in case:
                    self.assertEqual(self.content(store, "b/twin"), DATA, when)
                self.die(store)

    def test_begun_anew(self) -> None:
        """After that, a fill that begins anew with other content stores it, and no other entry suffers."""
        for case, when in self.each_death():
            store = self.open(rebuilt=False)
            self.fill(store, "b/key", OTHER)
            self.assertEqual(self.content(store, "b/key"), OTHER, when)
            if "twin" in case:
                self.assertEqual(self.content(store, "b/twin"), DATA, when)
            self.assertEqual(self.partial_files(), [], when)
            self.die(store)

    def test_gone_on_with(self) -> None:
        """After that, what was there of the fill can be gone on with, and no other entry suffers."""
        for crashed in (False, True):
            for case, when in self.each_death():
                store = self.open(rebuilt=False)
                row = store.index.partial("b/key")
                if crashed and row is not None:
                    store.index.put_partial(replace(row, durable=100, boot="the one before"))
                partial = self.wait(store.partial("b/key"))
                if partial is not None:
                    writer = self.begin(store, "b/key", len(DATA), resume=partial)
                    if "twin" in case:
                        self.assertEqual((self.root / "b/twin").read_bytes(), DATA, f"{when}: its readers suffer")
                    writer.write(DATA[writer.received :])
                    self.end(store, writer)
                    self.assertEqual(self.content(store, "b/key"), DATA, when)
                if "twin" in case:
                    self.assertEqual(self.content(store, "b/twin"), DATA, when)
                self.die(store)

    def test_killed_while_filling(self) -> None:
        """A process that dies in the middle of a fill leaves what it wrote to be gone on with."""
        store = self.open()
        self.begin(store, "b/key", len(DATA)).write(DATA[:1000])
        self.die(store)
        store = self.open()
        self.assertIsNone(self.content(store, "b/key"))
        partial = self.wait(store.partial("b/key"))
        assert partial is not None
        self.assertEqual((partial.size, partial.length, partial.head), (1000, len(DATA), DATED))

    def deaths_while_beginning(self) -> Any:
        """For every step of beginning a fill of a new version, having part of an older one: the store afterwards."""
        new = Head(200, (("ETag", '"new"'),))
        for step in (
            "index.put_partial",
            "layout.space",
            "layout.open_partial",
            "layout.remove_partial",
            "os.ftruncate",
        ):
            for after in (False, True):
                store = self.prepare("")
                self.begin(store, "b/key", len(OTHER)).write(OTHER[:500])
                self.die(store)
                store = self.open()
                happened = self.kill(store, step, after)
                beginning = ensureDeferred(store.create("b/key", new, len(DATA), None))
                if happened():
                    self.failureResultOf(beginning, Killed)
                else:
                    self.successResultOf(beginning)
                self.die(store)
                yield self.open(), f"{'after' if after else 'before'} {step}"

    def test_killed_while_beginning(self) -> None:
        """A process that dies while it begins a fill never leaves bytes of one version under the head of another."""
        for store, when in self.deaths_while_beginning():
            partial = self.wait(store.partial("b/key"))
            if partial is not None:
                self.assertEqual((partial.head, partial.size), (DATED, 500), when)
            self.fill(store, "b/key", DATA)
            self.assertEqual(self.content(store, "b/key"), DATA)
            self.die(store)


class BootTests(StoreCase):
    def crash(self, durable: int) -> Store:
        """A machine that crashes in the middle of a fill, of which ``durable`` bytes had been synced."""
        store = self.open()
        self.begin(store, "b/key", len(DATA)).write(DATA[:1000])
        row = store.index.partial("b/key")
        assert row is not None
        store.index.put_partial(replace(row, durable=durable))
        self.die(store)
        store = self.open()
        store.boot = "the machine has started again"
        return store

    def test_only_what_was_synced(self) -> None:
        """After a crash of the machine only bytes that had been synced are gone on with."""
        store = self.crash(600)
        partial = self.wait(store.partial("b/key"))
        assert partial is not None
        self.assertEqual(partial.size, 600)
        writer = self.begin(store, "b/key", len(DATA), resume=partial)
        writer.write(DATA[600:])
        self.end(store, writer)
        self.assertEqual(self.content(store, "b/key"), DATA)

    def test_nothing_was_synced(self) -> None:
        """Where nothing had been synced, nothing is gone on with."""
        self.assertIsNone(self.wait(self.crash(0).partial("b/key")))

    def test_unknown_boot(self) -> None:
        """Where the system does not tell one start from another, only synced bytes are gone on with."""
        store = self.open()
        store.boot = ""
        self.begin(store, "b/key", len(DATA)).write(DATA[:1000])
        self.die(store)
        store = self.open()
        store.boot = ""
        self.assertIsNone(self.wait(store.partial("b/key")))

    def test_killed_while_going_on(self) -> None:
        """A process that dies while it begins to go on after such a crash does not make unsynced bytes good."""
        for step in ("index.put_partial", "os.ftruncate"):
            self.root = self.root.with_name(self.root.name + "x")
            store = self.crash(600)
            path = self.partial_files()[0]
            path.write_bytes(DATA[:600] + b"\0" * 400)  # what such a crash may leave
            partial = self.wait(store.partial("b/key"))
            part, name = step.split(".")
            place: Any = os if part == "os" else store.index
            done = getattr(place, name)

            def dies(*arguments: Any, done: Callable[..., Any] = done) -> None:
                done(*arguments)
                raise Killed

            patcher = self.patch(place, name, dies)
            self.failureResultOf(ensureDeferred(store.create("b/key", DATED, len(DATA), None, partial)), Killed)
            patcher.restore()
            boot = store.boot
            self.die(store)
            store = self.open()
            store.boot = boot
            partial = self.wait(store.partial("b/key"))
            self.assertLessEqual(0 if partial is None else partial.size, 600, step)
            self.die(store)

    def test_noted_now_and_then(self) -> None:
        """What a long fill has written is synced and noted from time to time."""
        store = self.open()
        writer = self.begin(store, "b/key")
        for _ in range(20):
            writer.write(bytes(1 << 20))
        self.wait(store.checkpoint())
        row = store.index.partial("b/key")
        assert row is not None
        self.assertEqual(row.durable, 0, "a fill that may soon be over is not held up")
        self.clock.advance(31)
        self.wait(store.checkpoint())
        row = store.index.partial("b/key")
        assert row is not None
        self.assertEqual(row.durable, 20 << 20)

    def test_without_fdatasync(self) -> None:
        """Where the system has only fsync, as macOS, a fill is synced by that."""
        synced: list[int] = []
        self.patch(os, "fsync", synced.append)
        if hasattr(os, "fdatasync"):
            self.addCleanup(setattr, os, "fdatasync", os.fdatasync)
            del os.fdatasync
        store = self.open()
        writer = self.begin(store, "b/key")
        writer.write(DATA)
        assert writer.body.file is not None
        descriptor = writer.body.file.descriptor
        self.wait(store.ended(writer, keep=True))
        self.assertIn(descriptor, synced)
        row = store.index.partial("b/key")
        assert row is not None
        self.assertEqual(row.durable, len(DATA))

    def test_noted_at_the_end(self) -> None:
        """A fill that is stopped and kept is synced, so that even a start of the machine anew loses nothing of it."""
        store = self.open()
        writer = self.begin(store, "b/key")
        writer.write(DATA)
        self.wait(store.ended(writer, keep=True))
        self.wait(store.close())
        store = self.open()
        store.boot = "the machine has started again"
        partial = self.wait(store.partial("b/key"))
        assert partial is not None
        self.assertEqual(partial.size, len(DATA))


class DigestTests(StoreCase):
    def test_prefix_is_checked(self) -> None:
        """What an earlier fill left is checked together with the rest."""
        digest = Digest("sha256", hashlib.sha256(DATA).hexdigest())
        store = self.open()
        self.begin(store, "b/key", len(DATA)).write(DATA[:1000])
        self.die(store)
        self.partial_files()[0].write_bytes(b"!" * 1000)
        store = self.open()
        partial = self.wait(store.partial("b/key"))
        writer = self.begin(store, "b/key", len(DATA), digest, resume=partial)
        writer.write(DATA[1000:])
        self.failureResultOf(ensureDeferred(writer.finish()))
        self.wait(store.ended(writer, keep=False))
        self.assertIsNone(self.wait(store.partial("b/key")))
        self.assertIsNone(self.content(store, "b/key"))
