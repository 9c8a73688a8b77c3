"""What a client may take: requests and bytes for each second, as token buckets by address (RFC 6585 section 4).

And how long it may take, or take nothing of a response that waits for it: ``Deadline`` and ``StallWatch``, one each
for each connection.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

MAX_ADDRESSES = 10_000
LEAST_BURST = 64 * 1024
LEAST_PIECE = 1024
FULL_PIECE = 64 * 1024


class Limits(Protocol):
    """What clients may take: rates for each address (None: any), connections in all, timeouts in seconds."""

    @property
    def requests_per_second(self) -> float | None:
        """Requests that one address may make for each second."""

    @property
    def bytes_per_second(self) -> int | None:
        """Body bytes that all transfers of one address may take together for each second."""

    @property
    def max_clients(self) -> int:
        """Connections served at a time."""

    @property
    def header_timeout(self) -> float:
        """From the first byte of a request head to its end."""

    @property
    def idle_timeout(self) -> float:
        """Between two requests of a connection, and for a request body as a whole."""

    @property
    def stall_timeout(self) -> float:
        """Without a byte of a waiting response being taken."""


def client_ip(host: str) -> IPv4Address | IPv6Address | None:
    """The address of a host, an IPv4 address seen through an IPv6 socket as what it is; None for what is no address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def bucket_key(host: str) -> str:
    """What a client is counted under: an IPv4 address, or the /64 of an IPv6 one, which is what one site is given."""
    if ":" not in host:
        return host
    address = client_ip(host)
    if isinstance(address, IPv6Address):
        return f"{int(address) >> 64:x}/64"
    return host if address is None else str(address)


@dataclass(slots=True)
class _Bucket:
    """Tokens left at ``at`` (clock seconds)."""

    tokens: float
    at: float


class _Buckets:
    """One bucket for each client, the least recently used forgotten beyond ``MAX_ADDRESSES``: a new one is full."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def filled(self, host: str, rate: float, burst: float) -> _Bucket:
        """The client's bucket as it is now, filled at ``rate`` tokens a second up to ``burst``."""
        key = bucket_key(host)
        now = self._clock.seconds()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(burst, now)
            if len(self._buckets) > MAX_ADDRESSES:
                self._buckets.popitem(last=False)
            return bucket
        self._buckets.move_to_end(key)
        # A clock set back must neither fill nor drain.
        bucket.tokens = min(burst, bucket.tokens + max(0.0, now - bucket.at) * rate)
        bucket.at = now
        return bucket


class RequestRate:
    """Requests for each second and client address; ``per_second`` may change at any time, None means no limit."""

    def __init__(self, clock: IReactorTime, per_second: float | None) -> None:
        self.per_second = per_second
        self._buckets = _Buckets(clock)

    def take(self, address: str) -> float:
        """Count one request of ``address``: 0 when it may go, else the seconds to wait until one may.

        One second's worth, and at least one request, may come at once.  A request that is refused costs nothing.
        The empty address (a unix socket) is not limited: who is behind it is not known here.
        """
        rate = self.per_second
        if rate is None or not address:
            return 0.0
        bucket = self._buckets.filled(address, rate, max(1.0, rate))
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return 0.0
        return (1.0 - bucket.tokens) / rate


class ByteRate:
    """Body bytes for each second and client address; ``per_second`` may change at any time, None means no limit."""

    def __init__(self, clock: IReactorTime, per_second: int | None) -> None:
        self.per_second = per_second
        self._buckets = _Buckets(clock)

    def allowance(self, address: str, wanted: int) -> tuple[int, float]:
        """How many of ``wanted`` bytes may go to ``address`` now, and, where that is none, the seconds to wait.

        All transfers of an address share one bucket, which holds one second's worth and at least 64 KiB.  The bytes
        count as sent.  To keep writes from becoming tiny, a wait lasts until a quarter of a second's worth has come
        together (at least 1 KiB, at most 64 KiB, or what is wanted).  The empty address is not limited.
        """
        rate = self.per_second
        if rate is None or not address or wanted <= 0:
            return wanted, 0.0
        bucket = self._buckets.filled(address, rate, max(LEAST_BURST, rate))
        piece = min(wanted, max(LEAST_PIECE, min(rate // 4, FULL_PIECE)))
        if bucket.tokens < piece:
            return 0, (piece - bucket.tokens) / rate
        granted = min(wanted, int(bucket.tokens))
        bucket.tokens -= granted
        return granted, 0.0


class Deadline:
    """The one deadline of a connection, which is moved far more often than it is reached.

    The reactor's call is left where it is when the deadline moves away, and asks for another when it comes too early.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None
        self._late: Callable[[], object] | None = None
        self._at = 0.0

    def set(self, seconds: float, late: Callable[[], object]) -> None:
        """Call ``late()`` in so many seconds, unless there is another deadline, or none, by then."""
        self._late = late
        self._at = self._clock.seconds() + seconds
        if self._call is not None and self._call.getTime() > self._at:
            self._call.cancel()
            self._call = None
        if self._call is None:
            self._call = self._clock.callLater(seconds, self._look)

    def lift(self) -> None:
        """There is no deadline for now."""
        self._late = None

    def stop(self) -> None:
        """There will be no other deadline soon: leave nothing with the reactor."""
        self._late = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        late, left = self._late, self._at - self._clock.seconds()
        if late is not None and left > 0:
            self._call = self._clock.callLater(left, self._look)
        elif late is not None:
            self._late = None
            late()


class StallWatch:
    """Notices that a client takes nothing of what waits for it.

    ``stalled(seconds)`` is then called, once, and the watch ends.  ``unsent()`` is the number of bytes waiting; to look
    at that spares a client that takes a full kernel buffer slowly but steadily.

    A ``vault.body.Delivery`` looks for itself: the transport, which begins and ends this watch, never sees the bytes
    that go by sendfile; to begin and end it for those would take a timer each time that a socket is full; and only the
    delivery knows when it is not the client who is waited for.
    """

    def __init__(
        self,
        clock: IReactorTime,
        unsent: Callable[[], int],
        timeout: Callable[[], float],
        stalled: Callable[[float], None],
    ) -> None:
        self.unsent = unsent
        self._clock = clock
        self._timeout = timeout
        self._stalled = stalled
        self._call: IDelayedCall | None = None
        self._blocked = False
        self._least = 0
        self._since = 0.0

    def watch(self, blocked: bool) -> None:
        """Begin to watch.  Where nothing is ``blocked`` by the client, the watch ends by itself when nothing waits."""
        self._blocked = self._blocked or blocked
        if self._call is None:
            self._least = self.unsent()
            self._since = self._clock.seconds()
            self._check_later()

    def stop(self) -> None:
        """The client has taken all, or has gone."""
        self._blocked = False
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _check_later(self) -> None:
        self._call = self._clock.callLater(self._timeout() / 4, self._check)

    def _check(self) -> None:
        self._call = None
        unsent, now = self.unsent(), self._clock.seconds()
        if unsent == 0 and not self._blocked:
            return
        if unsent < self._least:
            self._since = now
        elif now - self._since >= self._timeout():
            self._stalled(now - self._since)
            return
        self._least = unsent
        self._check_later()
