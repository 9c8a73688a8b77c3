"""Which entries go when space runs short."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from twisted.trial.unittest import SynchronousTestCase

from vault.eviction import choose, excess


class ExcessTests(SynchronousTestCase):
    def test_table(self) -> None:
        """As much goes as brings the cache within its size and the disk to its free space, and never more than is
        there."""
        for stored, max_size, free, min_free, expected in (
            (0, 100, 50, 10, 0),
            (100, 100, 10, 10, 0),
            (101, 100, 10, 10, 1),
            (100, 100, 9, 10, 1),
            (150, 100, 0, 20, 50),
            (150, 140, 0, 20, 20),
            (5, 100, 0, 20, 5),
            (50, 0, 100, 10, 50),
            (50, 100, -30, 10, 40),
        ):
            self.assertEqual(
                excess(stored, max_size, free, min_free), expected, (stored, max_size, free, min_free)
            )  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """An entry; those of one content share its bytes."""

    name: str
    sha256: str
    length: int = 10


class ChooseTests(SynchronousTestCase):
    def choose(self, wanted: int, in_use: str = "", contents: str = "ABCDE") -> str:
        """What goes of the entries a, b, c ..., the oldest first; ``contents`` is what each of them holds."""
        entries = [Stored(name, content) for name, content in zip("abcde", contents, strict=True)]
        chosen = choose(entries, wanted, contents.count, lambda entry: entry.name in in_use)
        return "".join(entry.name for entry in chosen)

    def test_oldest_first(self) -> None:
        """The oldest go, and no more than are needed."""
        for wanted, expected in ((0, ""), (-5, ""), (1, "a"), (10, "a"), (11, "ab"), (50, "abcde"), (99, "abcde")):
            self.assertEqual(self.choose(wanted), expected, wanted)

    def test_none_in_use(self) -> None:
        """Those in use stay, and are not counted as room made."""
        self.assertEqual(self.choose(20, in_use="ac"), "bd")
        self.assertEqual(self.choose(20, in_use="abcde"), "")

    def test_shared_content(self) -> None:
        """Content under several names makes room only with the last of them."""
        for wanted, contents, in_use, expected in (
            (10, "AABCD", "", "ab"),
            (10, "ABACD", "", "ab"),
            (20, "ABACD", "", "abc"),
            (10, "AAAAA", "", "abcde"),
            (10, "AABCD", "b", "ac"),
            (20, "ABABC", "c", "abde"),
        ):
            self.assertEqual(self.choose(wanted, in_use, contents), expected, (wanted, contents, in_use))

    def test_no_further_than_needed(self) -> None:
        """What comes long after is not looked at."""

        def oldest() -> Iterator[Stored]:
            yield from (Stored("a", "A"), Stored("b", "B"))
            raise AssertionError("looked too far")

        chosen = choose(oldest(), 10, lambda content: 1, lambda entry: False)
        self.assertEqual([entry.name for entry in chosen], ["a"])
