"""Space: what goes when the cache is full, what never does, and what happens when nothing helps."""

from __future__ import annotations

import errno
import os
import threading
from collections import defaultdict

from tests.store.fakes import Follower, StoreCase
from vault.errors import Truncated
from vault.store import index as index_module
from vault.store import space as space_module
from vault.store import writer as writer_module
from vault.store.index import Row

SIZE = 1000


def data(number: int) -> bytes:
    """Content of its own for each number."""
    return b"%04d" % number * (SIZE // 4)


class SpaceCase(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = self.open()

    def fill_all(self, *numbers: int) -> None:
        """Store entries ``b/0`` ... of SIZE bytes each."""
        for number in numbers:
            self.fill(self.store, f"b/{number}", data(number))

    def left(self) -> list[int]:
        """The entries that are there, by their files; the index agrees."""
        rows = self.store.index.oldest(10_000)
        self.assertEqual(sorted(row.path for row in rows), sorted(self.files()))
        return sorted(int(path.split("/")[1]) for path in self.files())


class MaxSizeTests(SpaceCase):
    def test_least_recently_used(self) -> None:
        """What was not used for longest goes first; being read counts as use."""
        self.options.max_size = 3 * SIZE
        self.fill_all(0, 1, 2)
        self.content(self.store, "b/0")
        self.fill_all(3)
        self.assertEqual(self.left(), [0, 2, 3])
        self.fill_all(4)
        self.assertEqual(self.left(), [0, 3, 4])

    def test_times_of_use_survive(self) -> None:
        """Times of use are kept over a restart."""
        self.fill_all(0, 1, 2)
        self.content(self.store, "b/0")
        self.wait(self.store.close())
        self.options.max_size = 2 * SIZE
        self.store = self.open()
        self.store.tidy()
        self.assertEqual(self.left(), [0, 2])

    def test_clock_set_back(self) -> None:
        """What was used before the clock was set back goes before what was used since, in its order."""
        self.time += 86_400 * 365
        self.fill_all(0, 1, 2, 3)
        self.content(self.store, "b/0")
        writer = self.begin(self.store, "b/old", SIZE)
        writer.write(data(9)[:500])
        writer.fail(Truncated("it broke off"))
        self.wait(self.store.ended(writer, keep=True))
        self.time -= 86_400 * 365
        self.patch(index_module, "STEP", 2)
        self.fill_all(4)
        for _ in range(3):
            self.store.tidy()
            self.fill_all(4)
        self.assertLess(self.store.index.partials()[0].used, self.time)
        self.wait(self.store.discard("b/old"))
        for size, left in ((3, [0, 3, 4]), (2, [0, 4]), (1, [4])):
            self.options.max_size = size * SIZE
            self.store.tidy()
            self.assertEqual(self.left(), left)

    def test_never_one_being_read(self) -> None:
        """An entry that somebody reads stays, however old; it may go when nobody reads it any more."""
        self.fill_all(*range(5))
        body = self.wait(self.store.find("b/0"))
        self.fill(self.store, "b/5", data(5))
        for number in (1, 2, 3, 4, 5):
            self.content(self.store, f"b/{number}")
        self.options.max_size = 2 * SIZE
        self.store.tidy()
        self.assertEqual(self.left(), [0, 5])
        self.assertEqual(Follower(body).data, data(0))
        del body
        self.options.max_size = SIZE
        self.store.tidy()
        self.assertEqual(self.left(), [5])

    def test_all_are_being_read(self) -> None:
        """Where everything is being read nothing goes, and the search for it ends."""
        self.fill_all(*range(150))
        bodies = [self.wait(self.store.find(f"b/{number}")) for number in range(150)]
        self.options.max_size = SIZE
        self.store.tidy()
        self.assertEqual(len(self.left()), 150)
        bodies.clear()
        self.store.tidy()
        self.assertEqual(len(self.left()), 1)

    def test_those_being_read_are_passed_over(self) -> None:
        """Many old entries that are being read do not hide the next older ones."""
        self.fill_all(*range(200))
        bodies = [self.wait(self.store.find(f"b/{number}")) for number in range(100)]
        self.store.index.used({f"b/{number}": float(number) for number in range(200)})
        self.store._used.clear()
        self.options.max_size = 150 * SIZE
        self.store.tidy()
        self.assertEqual(self.left(), [*range(100), *range(150, 200)])
        del bodies

    def test_many_at_once(self) -> None:
        """Much room is made in several steps, and no more than is needed goes."""
        self.fill_all(*range(300))
        self.options.max_size = 30 * SIZE
        self.store.tidy()
        self.assertEqual(self.left(), list(range(270, 300)))

    def test_room_before_a_fill(self) -> None:
        """Room for an entry whose length is known is made before its first byte, also for all that are under way."""
        self.fill_all(*range(5))
        self.options.max_size = 5 * SIZE
        first = self.begin(self.store, "b/10", SIZE)
        self.assertEqual(self.left(), [1, 2, 3, 4])
        second = self.begin(self.store, "b/11", SIZE)
        self.assertEqual(self.left(), [2, 3, 4])
        for number, writer in ((10, first), (11, second)):
            writer.write(data(number))
            self.end(self.store, writer)
        self.assertEqual(self.left(), [2, 3, 4, 10, 11])

    def test_lowered(self) -> None:
        """A fill waits for its own room alone, not until all has gone that a lowered limit wants gone."""
        self.fill_all(*range(200))
        self.options.max_size = 10 * SIZE
        self.assertTrue(self.begin(self.store, "b/998", 5 * SIZE).storing)
        self.assertGreaterEqual(len(self.left()), 190)
        self.store.tidy()
        self.assertEqual(len(self.left()), 10)

    def test_unknown_length(self) -> None:
        """An entry whose length was not known is not at once removed again for the room it takes."""
        self.fill_all(0, 1)
        self.options.max_size = 2 * SIZE
        writer = self.begin(self.store, "b/2")
        writer.write(data(2))
        self.end(self.store, writer)
        self.assertEqual(self.left(), [1, 2])

    def test_larger_than_the_cache(self) -> None:
        """What is larger than the whole cache is passed through; nothing is removed for it, and no disk is blamed."""
        self.fill_all(0, 1)
        self.options.max_size = 2 * SIZE
        writer = self.begin(self.store, "b/2", 2 * SIZE + 1)
        self.assertFalse(writer.storing)
        self.assertEqual(self.left(), [0, 1])
        self.assertEqual(self.store.problems(), [])

    def test_abandoned_fills(self) -> None:
        """A fill that nobody has gone on with for a day goes before any entry; a younger or a running one stays."""
        self.fill_all(0, 1)
        for key, keep in (("b/old", True), ("b/running", False)):
            writer = self.begin(self.store, key, SIZE)
            writer.write(data(9)[:500])
            if keep:
                writer.fail(Truncated("it broke off"))
                self.wait(self.store.ended(writer, keep=True))
        self.time += 90_000
        writer = self.begin(self.store, "b/young", SIZE)
        writer.write(data(9)[:500])
        writer.fail(Truncated("it broke off"))
        self.wait(self.store.ended(writer, keep=True))
        self.options.max_size = 2 * SIZE - 1
        self.store.tidy()
        self.assertEqual({row.key for row in self.store.index.partials()}, {"b/running", "b/young"})
        self.assertEqual(len(self.partial_files()), 2)

    def test_abandoned_fills_alone(self) -> None:
        """An abandoned fill also goes where nothing else is stored."""
        writer = self.begin(self.store, "b/old", SIZE)
        writer.write(data(9)[:900])
        writer.fail(Truncated("it broke off"))
        self.wait(self.store.ended(writer, keep=True))
        self.time += 90_000
        self.patch(
            self.store.layout,
            "space",
            lambda: (3 * SIZE // 2 - sum(file.stat().st_size for file in self.partial_files()), 3 * SIZE // 2),
        )
        self.store.tidy()
        self.assertEqual(len(self.partial_files()), 1)
        self.fill_all(0)
        self.assertEqual((self.left(), self.partial_files()), ([0], []))

    def test_gone_on_with_after_a_day(self) -> None:
        """Making room for the rest of an old fill does not remove the part that is there."""
        writer = self.begin(self.store, "b/9", SIZE)
        writer.write(data(9)[:500])
        writer.fail(Truncated("it broke off"))
        self.wait(self.store.ended(writer, keep=True))
        self.time += 90_000
        self.fill_all(0, 1, 2)
        self.options.max_size = 3 * SIZE
        partial = self.wait(self.store.partial("b/9"))
        writer = self.begin(self.store, "b/9", SIZE, resume=partial)
        self.assertEqual(writer.received, 500)
        writer.write(data(9)[500:])
        self.end(self.store, writer)
        self.assertEqual(self.content(self.store, "b/9"), data(9))


class SameContentTests(SpaceCase):
    def test_counted_once(self) -> None:
        """Content under several names takes room once: nothing goes for a second name."""
        self.options.max_size = 2 * SIZE
        self.fill_all(0)
        for number in range(10, 15):
            writer = self.begin(self.store, f"b/{number}")  # a known length would have room made for it before
            writer.write(data(10))
            self.end(self.store, writer)
        self.assertEqual(self.left(), [0, *range(10, 15)])

    def test_all_names_go(self) -> None:
        """Removing names of the same content goes on until there is room, in the order of use."""
        for number in range(5):
            self.fill(self.store, f"b/{number}", data(0))
        self.fill_all(*range(5, 10))
        self.options.max_size = 4 * SIZE
        self.store.tidy()
        self.assertEqual(self.left(), [6, 7, 8, 9])

    def test_one_name_is_read(self) -> None:
        """Where one name is being read its content stays, and other content makes the room."""
        self.fill(self.store, "b/0", data(0))
        self.fill(self.store, "b/1", data(0))
        self.fill_all(2, 3)
        body = self.wait(self.store.find("b/1"))
        self.store._used.clear()
        self.options.max_size = 2 * SIZE
        self.store.tidy()
        self.assertEqual(self.left(), [1, 3])
        self.assertEqual(Follower(body).data, data(0))


class MinFreeTests(SpaceCase):
    def setUp(self) -> None:
        super().setUp()
        self.disk_size = 100 * SIZE
        self.others = 0
        self.patch(self.store.layout, "space", self.space)

    def space(self) -> tuple[int, int]:
        """A small disk."""
        used = sum(map(len, {(self.root / path).stat().st_ino: data for path, data in self.files().items()}.values()))
        used += sum(file.stat().st_size for file in self.partial_files())
        return self.disk_size - used - self.others, self.disk_size

    def test_kept_free(self) -> None:
        """So much stays free on the disk, whoever fills it."""
        self.options.min_free.size = 10 * SIZE
        self.fill_all(*range(50))
        self.others = 45 * SIZE
        self.store.tidy()
        self.assertEqual(self.left(), list(range(5, 50)))

    def test_before_a_fill(self) -> None:
        """Room is made so that it is still free when the entry is stored."""
        self.options.min_free.size = 10 * SIZE
        self.fill_all(*range(50))
        self.others = 40 * SIZE
        writer = self.begin(self.store, "b/99", SIZE)
        self.assertTrue(writer.storing)
        self.assertEqual(self.left(), list(range(1, 50)))

    def test_removing_takes_room(self) -> None:
        """Where the index takes some of the room that is made, more is made, and the entry is stored."""
        self.fill_all(*range(50))
        self.others = 50 * SIZE
        remove = self.store.index.remove

        def removed(row: Row) -> bool:
            self.others += 10
            return remove(row)

        self.patch(self.store.index, "remove", removed)
        self.assertTrue(self.begin(self.store, "b/99", SIZE).storing)
        self.assertEqual(self.left(), list(range(2, 50)))

    def test_never_enough(self) -> None:
        """Nothing goes for what does not fit even where all that may go is gone."""
        self.fill_all(*range(50))
        self.others = 40 * SIZE
        self.patch(space_module, "BLOCK", 0)
        self.assertFalse(self.begin(self.store, "b/98", 61 * SIZE).storing)
        body = self.wait(self.store.find("b/7"))
        self.assertFalse(self.begin(self.store, "b/98", 60 * SIZE).storing, "one entry is being read, and stays")
        self.assertEqual(self.left(), list(range(50)))
        del body
        self.assertTrue(self.begin(self.store, "b/98", 60 * SIZE).storing)
        self.assertEqual(self.left(), [])

    def test_others_go_on_meanwhile(self) -> None:
        """While much is being removed a fill waits until there is room for it, not until the end."""
        self.disk_size, removals = 210 * SIZE, [0]
        self.patch(self.store.layout, "space", lambda: ((10 + removals[0]) * SIZE, self.disk_size))
        locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self.patch(self.store, "place_lock", locks.__getitem__)  # else two paths may have the same
        self.fill_all(*range(200))
        held, go_on = threading.Event(), threading.Event()
        waited: list[bool] = []
        remove = self.store.layout.remove

        def removed(path: str) -> None:
            if path == "b/70":
                held.set()
                waited.append(go_on.wait(60))
            remove(path)
            removals[0] += 1

        self.patch(self.store.layout, "remove", removed)
        self.options.min_free.size = 110 * SIZE
        evicting = threading.Thread(target=self.store.tidy)
        evicting.start()
        self.assertTrue(held.wait(60))
        self.options.min_free.size = 60 * SIZE
        writer = self.begin(self.store, "b/998", 5 * SIZE)  # there is room already
        self.assertTrue(writer.storing)
        waiting: list[bool] = []
        late = threading.Thread(target=lambda: waiting.append(self.store.space.make_room(30 * SIZE)))
        late.start()  # there is not yet
        late.join(0.2)
        self.assertEqual(waiting, [])
        go_on.set()
        evicting.join(60)
        late.join(60)
        self.assertEqual((waited, waiting), ([True], [True]), "nobody waited for nothing")
        self.assertEqual(self.left(), list(range(100, 200)))

    def test_not_enough(self) -> None:
        """Where there is room for an entry, but only of what is to stay free, it is passed through."""
        self.options.min_free.size = 10 * SIZE
        self.others = 85 * SIZE
        self.assertTrue(self.begin(self.store, "b/0", 5 * SIZE).storing)
        self.assertFalse(self.begin(self.store, "b/1", 6 * SIZE).storing)
        self.others = 91 * SIZE
        self.assertFalse(self.begin(self.store, "b/2").storing)

    def test_unknown_length(self) -> None:
        """Room for an entry of unknown length is made while it comes; where there is no more it is passed through."""
        self.patch(writer_module, "ROOM", 10 * SIZE)
        self.options.min_free.size = 10 * SIZE
        self.fill_all(*range(50))
        self.others = 30 * SIZE
        writer = self.begin(self.store, "b/99")
        follower = Follower(writer.body)
        for _ in range(35):
            writer.write(data(9))
        self.assertTrue(writer.storing)
        self.assertEqual(self.left(), list(range(19, 50)))
        for _ in range(35):
            writer.write(data(9))
        self.assertFalse(writer.storing)
        self.assertEqual(self.left(), [])
        self.end(self.store, writer)
        self.assertEqual(follower.data, data(9) * 70)
        self.store.tidy()
        self.assertEqual(self.files(), {})

    def test_others_fill_it(self) -> None:
        """Where others have filled the disk and nothing can be removed, entries are passed through, and it is said."""
        self.others = self.disk_size - SIZE // 2
        writer = self.begin(self.store, "b/0", SIZE)
        self.assertFalse(writer.storing)
        (problem,) = self.store.problems()
        self.assertIn("no room", problem)
        follower = Follower(writer.body)
        writer.write(data(0))
        self.end(self.store, writer)
        self.assertEqual(follower.data, data(0))
        self.others = 0
        self.fill_all(1)
        self.assertEqual(self.store.problems(), [])


class FilesTests(SpaceCase):
    def setUp(self) -> None:
        super().setUp()
        self.others = 0
        self.patch(self.store.layout, "files", self.counted)

    def counted(self) -> tuple[int, int]:
        """A file system that has room for 1000 files."""
        taken = {path.stat().st_ino for path in self.root.rglob("*") if path.is_file()}
        return max(0, 1000 - self.others - len(taken)), 1000

    def test_used_up(self) -> None:
        """Where the file system takes no more files a few go, those least recently used, and new ones are stored."""
        self.fill_all(*range(50))
        for tidy in (True, False):
            while self.counted()[0]:
                self.others += 1
            if tidy:
                self.store.tidy()
            else:
                self.fill_all(50)
            self.assertGreater(self.counted()[0], 0)
        self.assertEqual((self.left(), self.store.problems()), (list(range(20, 51)), []))

    def test_same_content(self) -> None:
        """Names of the same content go until that has gone."""
        for number in range(100):
            self.fill(self.store, f"b/{number}", data(0))
        self.fill_all(*range(100, 120))
        while self.counted()[0]:
            self.others += 1
        self.store.tidy()
        self.assertEqual(self.counted()[0], 10)
        self.assertEqual(len(self.left()), 11)

    def test_in_vain(self) -> None:
        """Where nothing changes by what goes, no more than one goes."""
        self.fill_all(*range(100))
        self.patch(self.store.layout, "files", lambda: (0, 1000))
        for _ in range(20):
            self.store.tidy()
        self.assertEqual(len(self.left()), 99)

    def test_no_limit(self) -> None:
        """A file system without such a limit is never short of files."""
        self.fill_all(*range(10))
        self.patch(self.store.layout, "files", lambda: (0, 0))
        self.store.tidy()
        self.assertEqual(len(self.left()), 10)

    def test_told(self) -> None:
        """Where there is nothing to remove it is said what the file system is short of."""
        self.others = 1000

        def full(name: str, fresh: bool) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(self.store.layout, "open_partial", full)
        self.assertFalse(self.begin(self.store, "b/0", SIZE).storing)
        self.assertIn("inodes", self.store.problems()[0])
