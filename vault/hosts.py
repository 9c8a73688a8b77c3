"""Hosts: what is kept about each upstream host: its connections, and until when it asked to be left alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from vault.artifact import Head
from vault.freshness import retry_after
from vault.slots import Slots

MOST_HOSTS = 256
"""Hosts of which something is kept: redirects can name any number of them."""

LONGEST_GATE = 3600.0
"""Seconds for which a host is left alone at most when it tells this vault to wait (429)."""

LONGEST_REST = 60.0
"""The same when it tells everybody that it cannot answer (503)."""


@dataclass(slots=True)
class Host:
    """What is kept about one upstream host: its connections, and until when (steady seconds) it asked for rest."""

    slots: Slots
    gates: dict[str, float] = field(default_factory=dict)
    """By what it counts apart (``Artifact.counted_as``); under nothing, for everything."""
    ailing: str = ""
    """The URL that last was answered 503 with Retry-After, and until when that counts."""
    ailing_until: float = 0.0

    @property
    def closed_until(self) -> float:
        """Until when there is something that it is not to be asked for."""
        return max(self.gates.values(), default=0.0)

    def rest(self, counted_as: str, seconds: float) -> tuple[float, bool]:
        """For how long it is not to be asked for what is counted so; True with it where that is so for everything."""
        everything = self.gates.get("", 0.0) - seconds
        apart = self.gates.get(counted_as, 0.0) - seconds
        return max(everything, apart), everything >= apart

    def heard(self, url: str, counted_as: str, head: Head, seconds: float, now: float) -> None:
        """It has answered, at ``seconds`` and ``now`` (POSIX): by ``Retry-After`` it may want to be left alone.

        That it is asked too often (429) is said of what it counts; that it cannot answer (503), of everything.
        """
        gate = counted_as if head.status == 429 else ""
        until = seconds + self._rest(url, head, seconds, now)
        if until > max(seconds, self.gates.get(gate, 0.0)):
            self.gates[gate] = until

    def _rest(self, url: str, head: Head, seconds: float, now: float) -> float:
        wait = retry_after(head, now)
        if head.status == 429 and wait is not None:
            return min(wait, LONGEST_GATE)
        if head.status == 503 and wait is not None:
            # One path may be broken alone; two of them, and nothing that came between, are the host.
            several = self.ailing != url and seconds < self.ailing_until
            self.ailing, self.ailing_until = url, seconds + wait
            return min(wait, LONGEST_REST) if several else 0.0
        if head.status < 500:
            self.ailing_until = 0.0
        return 0.0


class Hosts:
    """The hosts of one backend by their authority, each with ``connections`` at most."""

    def __init__(self, connections: int) -> None:
        self.known: dict[str, Host] = {}
        self._connections = connections

    def of(self, authority: str) -> Host:
        """What is kept about a host; of too many some not in use are forgotten, first those that want no rest."""
        host = self.known.get(authority)
        if host is None:
            if len(self.known) >= MOST_HOSTS:
                idle = [name for name, known in self.known.items() if known.slots.tokens == known.slots.limit]
                for name in sorted(idle, key=lambda name: self.known[name].closed_until)[: MOST_HOSTS // 2]:
                    del self.known[name]
            host = self.known[authority] = Host(Slots(self._connections))
        return host
