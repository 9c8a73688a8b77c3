"""What one client address may take."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from vault.web import limits
from vault.web.limits import ByteRate, Deadline, RequestRate, StallWatch, bucket_key, client_ip


class RequestRateTests(SynchronousTestCase):
    """Requests for each second."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.rate = RequestRate(self.clock, 2.0)

    def test_burst(self) -> None:
        """One second's worth of requests may come at once; the next is told how long to wait."""
        self.assertEqual([self.rate.take("192.0.2.1") for _ in range(3)], [0.0, 0.0, 0.5])

    def test_waiting_is_enough(self) -> None:
        """Whoever waits as long as told is served."""
        for _ in range(2):
            self.rate.take("192.0.2.1")
        self.clock.advance(self.rate.take("192.0.2.1"))
        self.assertEqual(self.rate.take("192.0.2.1"), 0.0)

    def test_less_than_one(self) -> None:
        """A rate below one a second lets single requests through."""
        self.rate.per_second = 0.1
        self.assertEqual(self.rate.take("192.0.2.1"), 0.0)
        self.assertAlmostEqual(self.rate.take("192.0.2.1"), 10.0)

    def test_addresses_are_apart(self) -> None:
        """One client's haste does not slow another."""
        for _ in range(5):
            self.rate.take("192.0.2.1")
        self.assertEqual(self.rate.take("192.0.2.2"), 0.0)

    def test_unlimited(self) -> None:
        """Without a limit nothing is counted."""
        self.rate.per_second = None
        self.assertEqual([self.rate.take("192.0.2.1") for _ in range(100)], [0.0] * 100)

    def test_unix_socket(self) -> None:
        """A peer without an address is not limited."""
        self.assertEqual([self.rate.take("") for _ in range(100)], [0.0] * 100)

    def test_memory_is_bounded(self) -> None:
        """The addresses seen longest ago are forgotten."""
        for number in range(limits.MAX_ADDRESSES + 10):
            self.rate.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        self.assertEqual(len(self.rate._buckets), limits.MAX_ADDRESSES)

    def test_clock_set_back(self) -> None:
        """A clock that is set back neither fills nor drains."""
        self.rate.take("192.0.2.1")
        self.clock.rightNow -= 100
        self.assertEqual(self.rate.take("192.0.2.1"), 0.0)
        self.assertEqual(self.rate.take("192.0.2.1"), 0.5)


class ByteRateTests(SynchronousTestCase):
    """Bytes for each second."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.rate = ByteRate(self.clock, 1_000_000)

    def test_burst(self) -> None:
        """One second's worth goes at once, then the client waits."""
        self.assertEqual(self.rate.allowance("192.0.2.1", 5_000_000), (1_000_000, 0.0))
        granted, wait = self.rate.allowance("192.0.2.1", 5_000_000)
        self.assertEqual(granted, 0)
        self.assertAlmostEqual(wait, 0.065536)

    def test_small_rate_has_64_kib(self) -> None:
        """However small the rate, 64 KiB go at once, so that small files are not held up."""
        self.rate.per_second = 1000
        self.assertEqual(self.rate.allowance("192.0.2.1", 1 << 20), (65536, 0.0))

    def test_shared(self) -> None:
        """Ten connections of one address get no more than one."""
        total = 0
        for _ in range(1000):
            for _ in range(10):
                total += self.rate.allowance("192.0.2.1", 65536)[0]
            self.clock.advance(0.01)
        self.assertGreater(total, 10_800_000)
        self.assertLessEqual(total, 11_000_000)

    def test_waiting_is_enough(self) -> None:
        """Whoever waits as long as told gets bytes."""
        self.rate.allowance("192.0.2.1", 5_000_000)
        _, wait = self.rate.allowance("192.0.2.1", 500)
        self.clock.advance(wait + 0.001)
        self.assertEqual(self.rate.allowance("192.0.2.1", 500), (500, 0.0))

    def test_unlimited(self) -> None:
        """Without a limit all may go."""
        self.rate.per_second = None
        self.assertEqual(self.rate.allowance("192.0.2.1", 1 << 30), (1 << 30, 0.0))


class AddressTests(SynchronousTestCase):
    """What counts as one client."""

    def test_ipv6_network(self) -> None:
        """All addresses of an IPv6 /64 are one client."""
        self.assertEqual(bucket_key("2001:db8::1"), bucket_key("2001:db8::ffff:1"))
        self.assertNotEqual(bucket_key("2001:db8::1"), bucket_key("2001:db8:0:1::1"))

    def test_mapped(self) -> None:
        """An IPv4 client is the same on an IPv6 socket."""
        self.assertEqual(bucket_key("::ffff:192.0.2.1"), bucket_key("192.0.2.1"))

    def test_no_address(self) -> None:
        """What is no address is none; a scope is left out."""
        self.assertIsNone(client_ip("somewhere"))
        self.assertEqual(str(client_ip("fe80::1%eth0")), "fe80::1")


class DeadlineTests(SynchronousTestCase):
    """The one deadline of a connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.late: list[str] = []
        self.deadline = Deadline(self.clock)

    def set(self, seconds: float, name: str) -> None:
        """Set a deadline that tells its name."""
        self.deadline.set(seconds, lambda: self.late.append(name))

    def test_reached(self) -> None:
        """It comes once, at its time."""
        self.set(10, "first")
        self.clock.pump([9, 0.5])
        self.assertEqual(self.late, [])
        self.clock.advance(0.5)
        self.assertEqual(self.late, ["first"])
        self.clock.advance(100)
        self.assertEqual(self.late, ["first"])

    def test_moved(self) -> None:
        """The last one that was set counts, be it later or sooner."""
        for seconds in (30, 5):
            self.set(10, "first")
            self.clock.advance(2)
            self.set(seconds, "last")
            self.clock.pump([1] * (seconds - 1))
            self.assertEqual(self.late, [])
            self.clock.advance(1)
            self.assertEqual(self.late, ["last"])
            self.late.clear()

    def test_lifted(self) -> None:
        """One that was lifted does not come; a later one does, at its own time."""
        self.set(10, "first")
        self.deadline.lift()
        self.clock.advance(8)
        self.set(10, "last")
        self.clock.advance(9)
        self.assertEqual(self.late, [])
        self.clock.advance(1)
        self.assertEqual(self.late, ["last"])

    def test_stopped(self) -> None:
        """One that was stopped leaves no timer."""
        self.set(10, "first")
        self.deadline.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StallWatchTests(SynchronousTestCase):
    """Clients that take nothing."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.waiting = 1000
        self.stalls: list[float] = []
        self.watch = StallWatch(self.clock, lambda: self.waiting, lambda: 60.0, self.stalls.append)

    def test_stalled(self) -> None:
        """A client that takes nothing for the whole time is reported, once."""
        self.watch.watch(True)
        self.clock.pump([1] * 59)
        self.assertEqual(self.stalls, [])
        self.clock.pump([1] * 100)
        self.assertEqual(self.stalls, [60.0])

    def test_slow(self) -> None:
        """A client that takes a little now and then may take for ever."""
        self.watch.watch(True)
        for _ in range(500):
            self.waiting -= 1
            self.clock.advance(30)
        self.assertEqual(self.stalls, [])

    def test_stopped(self) -> None:
        """A client that took all is not watched any more."""
        self.watch.watch(True)
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ends_by_itself(self) -> None:
        """When all has been taken and nothing is blocked, the watch ends."""
        self.watch.watch(False)
        self.waiting = 0
        self.clock.advance(15)
        self.assertEqual(self.clock.getDelayedCalls(), [])
