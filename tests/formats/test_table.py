"""Sorted tables: every entry is found, nothing else is."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from vault.artifact import Head
from vault.formats.table import PROBE, beginning, build, look_up
from vault.store.body import MemoryBody


class TableTests(SynchronousTestCase):
    """Tables in memory."""

    def look(self, data: bytes, key: str) -> str | None:
        """One look-up."""
        found: str | None = self.successResultOf(ensureDeferred(look_up(MemoryBody(Head(), data), key)))
        return found

    def test_every_entry(self) -> None:
        """Each key leads to its value, whatever the lengths of the lines; what is between, before or after does not."""
        entries = {f"name-{index * 7919 % 1000:04}": "v" * (index % (2 * PROBE)) + str(index) for index in range(1000)}
        data = b"".join(build(entries.items()))
        for key, value in entries.items():
            self.assertEqual(self.look(data, key), value)
        for key in ("", "a", "name-", "name-0000x", "name-9999", "zzz"):
            self.assertIsNone(self.look(data, key))

    def test_order(self) -> None:
        """Keys with bytes that sort below the tab, or beyond ASCII, are found too."""
        keys = ["a", "a\x01", "a\x01b", "ab", "a b", "é", "a\x0b"]
        data = b"".join(build((key, key.upper()) for key in keys))
        for key in keys:
            self.assertEqual(self.look(data, key), key.upper())

    def test_first_counts(self) -> None:
        """Of two entries with one key the first counts."""
        self.assertEqual(self.look(b"".join(build([("a", "1"), ("a", "2")])), "a"), "1")

    def test_beginning(self) -> None:
        """The values of all keys that begin alike are found in their order, and no more of them than are wanted."""
        keys = ["a", "a.", "a/1", "a/2", "a/3", "a0", "b/1"]
        data = b"".join(build((key, key.upper() + "v" * PROBE) for key in reversed(keys)))
        for prefix, most, expected in (
            ("a/", 10, ["A/1", "A/2", "A/3"]),
            ("a/", 2, ["A/1", "A/2"]),
            ("b/", 10, ["B/1"]),
            ("0/", 10, []),
            ("a1/", 10, []),
            ("c/", 10, []),
        ):
            body = MemoryBody(Head(), data)
            found = self.successResultOf(ensureDeferred(beginning(body, prefix, most)))
            self.assertEqual([value.rstrip("v") for value in found], expected, prefix)

    def test_empty(self) -> None:
        """An empty table has nothing."""
        self.assertIsNone(self.look(b"".join(build([])), "a"))

    def test_unfit(self) -> None:
        """A tab or a line feed would make two entries of one, and is refused."""
        for entry in (("a\tb", ""), ("a", "b\nc")):
            with self.assertRaises(ValueError):
                list(build([entry]))
