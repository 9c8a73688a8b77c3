"""The index: rows, totals, and questions whose cost does not depend on how much is cached."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.store.fakes import StoreCase
from vault.artifact import Head
from vault.store import opening
from vault.store.index import Index, PartialRow, Row

HEAD = Head(200, (("ETag", '"x"'),), 1.0, 2.0)


def row(key: str, length: int = 10, sha256: str = "", path: str = "", used: float = 0.0) -> Row:
    """An entry's row; each has content of its own unless ``sha256`` is given."""
    return Row(key, path or key, HEAD, length, sha256 or f"content of {key}", 1, 2, used)


class IndexCase(SynchronousTestCase):
    """Has an index."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.index = Index(self.path)
        self.addCleanup(self.index.close)

    def counted(self) -> tuple[int, int]:
        """What the totals must be, counted row by row."""
        rows = self.index.oldest(1000)
        return len(rows), sum({found.sha256: found.length for found in rows}.values())


class RowTests(IndexCase):
    def test_round_trip(self) -> None:
        """What is put in comes out, and is there after a restart."""
        self.index.put(row("b/k", used=5.5))
        self.assertEqual(self.index.find("b/k"), row("b/k", used=5.5))
        other = Index(self.path)
        self.addCleanup(other.close)
        self.assertEqual(other.find("b/k"), row("b/k", used=5.5))
        self.assertIsNone(self.index.find("b/other"))

    def test_every_change_is_seen(self) -> None:
        """What was found just now, or was not there, is found as it is after each change."""
        self.assertIsNone(self.index.find("b/k"))
        self.index.put(row("b/k"))
        self.assertEqual(self.index.find("b/k"), row("b/k"))
        renewed = replace(row("b/k"), head=Head(200, (), 3.0, 4.0))
        self.index.renew("b/k", renewed.sha256, renewed.head)
        self.assertEqual(self.index.find("b/k"), renewed)
        touched = replace(renewed, inode=5, mtime_ns=6)
        self.index.touch(touched)
        self.assertEqual(self.index.find("b/k"), touched)
        self.index.used({"b/k": 7.0})
        self.assertEqual(self.index.find("b/k"), replace(touched, used=7.0))
        self.index.remove(touched)
        self.assertIsNone(self.index.find("b/k"))

    def test_put_ends_the_fill(self) -> None:
        """An entry's row and the end of its fill are one step."""
        self.index.put_partial(PartialRow("b/k", "name", HEAD, None, 0, "boot", 1.0))
        self.index.put_partial(PartialRow("b/other", "other", HEAD, 5, 3, "boot", 0.5))
        self.assertEqual([partial.key for partial in self.index.partials()], ["b/other", "b/k"])
        self.index.put(row("b/k"))
        self.assertIsNone(self.index.partial("b/k"))
        self.assertEqual(self.index.partial("b/other"), PartialRow("b/other", "other", HEAD, 5, 3, "boot", 0.5))

    def test_not_in_the_place_of_a_better_one(self) -> None:
        """A row made from a file alone does not replace one made by a fill."""
        self.index.put(row("b/k", 7))
        self.index.put(row("b/k", 8), replace=False)
        found = self.index.find("b/k")
        assert found is not None
        self.assertEqual(found.length, 7)

    def test_twin(self) -> None:
        """Another name of the same content is found, never the name itself."""
        self.index.put(row("b/one", sha256="same"))
        self.assertIsNone(self.index.twin("same", "b/one"))
        twin = self.index.twin("same", "b/two")
        assert twin is not None
        self.assertEqual(twin.key, "b/one")

    def test_begins(self) -> None:
        """Whether some key begins so is told by its characters as they are, and by those alone."""
        self.index.put(row("b/a_c/d"))
        for prefix, known in (
            ("b/a_c/", True),
            ("b/a", True),
            ("b/abc/", False),
            ("b/A_c/", False),
            ("b/a_c/d", False),
        ):
            self.assertEqual(self.index.begins(prefix), known, prefix)

    def test_oldest(self) -> None:
        """Entries come in the order of their last use."""
        for key, used in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
            self.index.put(row(key, used=used))
        self.index.used({"b": 9.0, "unknown": 1.0})
        self.assertEqual([found.key for found in self.index.oldest(10)], ["c", "a", "b"])
        self.assertEqual([found.key for found in self.index.oldest(1, 1)], ["a"])

    def test_other_version(self) -> None:
        """The index of another version of the vault is not misread."""
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        self.assertRaises(sqlite3.DatabaseError, Index, self.path)


class TotalsTests(IndexCase):
    def test_add_and_remove(self) -> None:
        """Entries are counted in and out."""
        self.assertEqual(self.index.totals(), (0, 0))
        self.index.put(row("a", 5))
        self.index.put(row("b", 7))
        self.assertEqual(self.index.totals(), (2, 12))
        self.assertTrue(self.index.remove(row("a", 5)))
        self.assertFalse(self.index.remove(row("unknown", 5)))
        self.assertEqual(self.index.totals(), (1, 7))

    def test_another_in_its_place(self) -> None:
        """What has taken an entry's place since it was looked at is not removed in its stead."""
        self.index.put(row("a", 5))
        self.assertFalse(self.index.remove(replace(row("a", 5), inode=99)))
        self.assertEqual(self.index.totals(), (1, 5))

    def test_same_content_is_counted_once(self) -> None:
        """Content under several names counts once, until its last name goes."""
        for key in ("a", "b", "c"):
            self.index.put(row(key, 5, "same"))
        self.assertEqual(self.index.totals(), (3, 5))
        for key in ("a", "b"):
            self.index.remove(row(key, 5, "same"))
        self.assertEqual(self.index.totals(), (1, 5))
        self.index.remove(row("c", 5, "same"))
        self.assertEqual(self.index.totals(), (0, 0))

    def test_replaced(self) -> None:
        """New content under an old name replaces the old in the totals, by key and by file."""
        self.index.put(row("a", 5, "one"))
        self.index.put(row("b", 5, "one"))
        for change in (
            row("a", 5, "one"),
            row("a", 8, "two"),
            row("b", 8, "two"),
            row("c", 3, "three", path="a"),
            row("c", 4, "four", path="b"),
            row("d", 4, "four", path="d"),
            row("d", 4, "four", path="b"),
        ):
            self.index.put(change)
            self.assertEqual(self.index.totals(), self.counted(), change.key)
        self.assertEqual(self.counted()[0], 1)

    def test_one_row_in_the_place_of_two(self) -> None:
        """A row that takes the key of one entry and the file of another, both of the same content, counts right."""
        self.index.put(row("a", 5, "same"))
        self.index.put(row("b", 5, "same"))
        self.index.put(row("a", 5, "same", path="b"))
        self.assertEqual(self.index.totals(), (1, 5))

    def test_refused(self) -> None:
        """A row that was not taken is not counted."""
        self.index.put(row("a", 5))
        self.index.put(row("a", 50), replace=False)
        self.index.put(row("b", 50, path="a"), replace=False)
        self.assertEqual(self.index.totals(), (1, 5))


class ScaleTests(StoreCase):
    ROWS = 50_000

    def test_no_question_reads_all(self) -> None:
        """With very many entries, starting, finding, storing and evicting look only at the rows that they need."""
        self.die(self.open())
        index = Index(self.root / ".vault" / "index.db")
        with index._writer as transaction:
            transaction.execute("BEGIN")
            transaction.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, 10, ?, 1, 2, ?)",
                ((f"b/{n}", f"b/{n}", HEAD.to_json(), f"{n:064x}", float(n)) for n in range(self.ROWS)),
            )
        self.assertEqual(index.totals(), (self.ROWS, 10 * self.ROWS))
        index.close()

        statements: list[str] = []

        class Traced(Index):
            @staticmethod
            def _connect(path: Path) -> sqlite3.Connection:
                connection = Index._connect(path)
                connection.set_trace_callback(statements.append)
                return connection

        self.patch(opening, "Index", Traced)
        store = self.open()
        self.content(store, "b/77")  # its file is missing, so it is forgotten
        self.fill(store, "b/new", b"content")
        store.index.oldest(64, 64)
        self.assertTrue(store.begins("b/9"))
        self.options.max_size = 10 * (self.ROWS - 100)
        store.tidy()
        self.assertLess(store.index.totals()[1], 10 * (self.ROWS - 99))
        self.wait(store.close())

        index = Index(self.root / ".vault" / "index.db")
        self.addCleanup(index.close)
        triggers = re.findall(r"EXISTS\s*(\(SELECT.*?\))", " ".join(self.trigger_texts(index)), re.DOTALL)
        self.assertEqual(len(triggers), 2)
        statements += [re.sub(r"\b(NEW|OLD)\.\w+", "'x'", text.strip("()")) for text in triggers]
        asked = {text for text in statements if re.match(r"(SELECT|INSERT|UPDATE|DELETE)", text) and "entries" in text}
        self.assertGreater(len(asked), 8)
        for text in asked:
            plan = " ".join(step[3] for step in index._writer.execute(f"EXPLAIN QUERY PLAN {text}"))
            if re.search(r"\bSCAN (TABLE )?entries\b", plan):
                # In the order of an index and with a limit is not reading all.
                self.assertRegex(plan, r"SCAN (TABLE )?entries USING INDEX entries_used", text)
                self.assertIn("LIMIT", text)
                self.assertNotIn("TEMP B-TREE", plan, text)

    @staticmethod
    def trigger_texts(index: Index) -> list[str]:
        """The triggers, as they are written."""
        found = index._writer.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        return [str(text) for (text,) in found]
