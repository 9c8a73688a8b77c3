"""Short bodies: which are given at once, and which are left to Delivery."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.store.fakes import InlineDisk
from vault.artifact import Head
from vault.body import TOGETHER
from vault.store.body import GrowingBody, MemoryBody, OpenFile, StoredBody
from vault.web.short import at_hand

DATA = bytes(range(256)) * 1024


class ShortTests(SynchronousTestCase):
    def setUp(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(DATA)
        self.file = OpenFile(os.open(path, os.O_RDONLY))

    def stored(self, length: int = len(DATA)) -> StoredBody:
        """The file as a stored entry that should have so many bytes."""
        return StoredBody(Head(), length, "", self.file, InlineDisk())

    def test_parts(self) -> None:
        """Spans and what is between them come in their order; nothing is an answer too."""
        body = self.stored()
        self.assertEqual(at_hand(body, [(0, 10)]), DATA[:10])
        self.assertEqual(at_hand(body, [b"a", (5, 7), b"b", (3, 4), b"c"]), b"a" + DATA[5:7] + b"b" + DATA[3:4] + b"c")
        self.assertEqual(at_hand(body, [(len(DATA) - 2, None)]), DATA[-2:])
        self.assertEqual(at_hand(body, [(4, 4)]), b"")
        self.assertEqual(at_hand(MemoryBody(Head(), b"0123"), [(0, None)]), b"0123")

    def test_long(self) -> None:
        """Long bodies are for Delivery, at the client's pace."""
        body = self.stored()
        self.assertEqual(at_hand(body, [(0, TOGETHER)]), DATA[:TOGETHER])
        self.assertIsNone(at_hand(body, [(0, TOGETHER + 1)]))
        self.assertIsNone(at_hand(body, [(0, None)]))
        self.assertIsNone(at_hand(body, [(0, TOGETHER), (9, 10)]))

    def test_cut(self) -> None:
        """So is a file that became shorter: it is known there what to do."""
        self.assertIsNone(at_hand(self.stored(len(DATA) + 1), [(len(DATA) - 1, None)]))

    def test_growing(self) -> None:
        """And a body that grows, or of which some is not in the file."""
        body = GrowingBody(Head(), 4, self.file, InlineDisk(), Clock())
        body.publish(3)
        self.assertIsNone(at_hand(body, [(0, 3)]))
        body.spill(b"x")
        body.finish()
        self.assertIsNone(at_hand(body, [(0, None)]))
        self.assertEqual(at_hand(body, [(0, 3)]), DATA[:3])
