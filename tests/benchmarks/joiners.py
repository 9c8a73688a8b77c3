"""Many cold clients at once on one object from a slow origin, vault against nginx ``proxy_cache`` with its lock.

    python -m tests.benchmarks.joiners [--clients N] [--size MB] [--rate MB/s] [--rounds N]

Printed: upstream GETs, byte-exact clients, the time until the last client is done relative to what one alone takes,
how long after the upstream's head the first client has its first byte, and how long a client that comes in the middle
of a fill waits for its first byte.  Medians over the rounds; every client of every round must be byte-exact.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from pathlib import Path

from tests.benchmarks.common import (
    MB,
    Nginx,
    PacedOrigin,
    Vault,
    caching_nginx,
    clients,
    median,
    results,
    scratch,
    settle,
)

SERVERS = {"vault": Vault, "nginx": caching_nginx}


class Scene:
    """One server with an empty cache in front of a paced origin."""

    def __init__(self, server: Vault | Nginx, origin: PacedOrigin, content: Path, rate: int) -> None:
        self.server = server
        self.origin = origin
        self.content = content
        self.rate = rate

    def run(self, name: str, count: int, late: bool) -> dict[str, float]:
        """Let ``count`` clients ask for ``name`` at once and, if ``late``, one more when half of it has come."""
        size = self.origin.size
        settle()
        crowd = clients(self.server.port, self.server.path(name), self.content, size, count, os.cpu_count() or 1)
        try:
            while not self.origin.gets(name):
                time.sleep(0.005)
            if late:
                time.sleep(size / self.rate / 2)
                crowd += clients(self.server.port, self.server.path(name), self.content, size, 1, 1)
            seen = results(crowd)
        finally:
            for process in crowd:
                if process.poll() is None:
                    process.kill()
        first = seen[:count]
        asked = min(client["asked"] for client in first)
        head = min(self.origin.gets(name))
        found = {
            "GETs": float(len(self.origin.gets(name))),
            "exact": float(sum(client["exact"] for client in seen)),
            "of": float(len(seen)),
            "seconds": max(client["done"] for client in first) - asked,
            "first byte ms": 1000 * (min(client["first"] for client in first) - head),
            "last first byte ms": 1000 * (max(client["first"] for client in first) - head),
        }
        if late:
            found["joiner ms"] = 1000 * (seen[-1]["first"] - seen[-1]["asked"])
        return found


def measure(kind: str, directory: Path, content: Path, count: int, size: int, rate: int) -> dict[str, float]:
    """One round of one server: one client alone, one with a joiner, and the crowd with a joiner."""
    origin = PacedOrigin(directory, content, size, rate)
    try:
        server: Vault | Nginx = SERVERS[kind](directory, origin.url)  # type: ignore[operator]  # a class, a function
        try:
            scene = Scene(server, origin, content, rate)
            alone = scene.run("alone", 1, late=False)
            pair = scene.run("pair", 1, late=True)
            crowd = scene.run("crowd", count, late=False)
            joined = scene.run("joined", count, late=True)
        finally:
            server.end()
    finally:
        origin.end()
    runs = (alone, pair, crowd, joined)
    return {
        "GETs for the crowd": max(crowd["GETs"], joined["GETs"]),
        "clients not byte-exact": sum(run["of"] - run["exact"] for run in runs),
        "one alone, s": alone["seconds"],
        "all, s": crowd["seconds"],
        "all / one alone": crowd["seconds"] / alone["seconds"],
        "first byte after the upstream's head, alone, ms": alone["first byte ms"],
        "first byte after the upstream's head, crowd, ms": crowd["first byte ms"],
        "last client's first byte after it, crowd, ms": crowd["last first byte ms"],
        "first byte to a joiner, one reader, ms": pair["joiner ms"],
        "first byte to a joiner, crowd, ms": joined["joiner ms"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--size", type=int, default=200, help="of the object, in MB")
    parser.add_argument("--rate", type=int, default=50, help="of the origin, in MB/s")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    size, rate = arguments.size * MB, arguments.rate * MB
    found: dict[str, dict[str, list[float]]] = {kind: defaultdict(list) for kind in SERVERS}
    with scratch() as directory:
        content = directory / "content"
        with content.open("wb") as file:
            for _ in range(arguments.size):
                file.write(os.urandom(MB))
        for number in range(arguments.rounds):
            for kind in SERVERS if number % 2 == 0 else reversed(SERVERS):
                for fact, value in measure(kind, directory, content, arguments.clients, size, rate).items():
                    found[kind][fact].append(value)
    wanted = {
        "GETs for the crowd": "1",
        "clients not byte-exact": "0",
        "all / one alone": "1.3 or less",
        "first byte after the upstream's head, alone, ms": "50 or less",
        "first byte to a joiner, one reader, ms": "100 or less",
        "first byte to a joiner, crowd, ms": "100 or less",
    }
    print(f"{'':50}{'vault':>10}{'nginx':>10}{'vault/nginx':>13}  wanted")
    for fact in found["vault"]:
        worst = fact in ("GETs for the crowd", "clients not byte-exact")
        vault, nginx = (max(found[kind][fact]) if worst else median(found[kind][fact]) for kind in ("vault", "nginx"))
        ratio = f"{vault / nginx:.2f}" if nginx else "-"
        print(f"{fact:50}{vault:10.2f}{nginx:10.2f}{ratio:>13}  {wanted.get(fact, '')}")


if __name__ == "__main__":
    main()
