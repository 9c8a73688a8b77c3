"""One client, one large object: the rate of a cold download and of a hit, vault against nginx ``proxy_cache``.

    python -m tests.benchmarks.cold_and_hit [--rounds N] [--size MB]

Both stand in front of one nginx with plain files.  Each round gives each of them an empty cache, in turns, so that a
disk whose speed changes from minute to minute is as good or bad to both.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from pathlib import Path

from tests.benchmarks.common import MB, Nginx, Vault, caching_nginx, download, median, scratch, settle, static_origin

HITS = 3


def make_object(file: Path, size: int) -> None:
    """A block of random bytes, repeated: soon made, and no file system compresses it."""
    block = os.urandom(64 * MB)
    with file.open("wb") as opened:
        while size > 0:
            size -= opened.write(block[:size])


def measure(server: Vault | Nginx, name: str) -> tuple[float, float]:
    """The cold rate and the median hit rate in bytes a second."""
    settle()
    cold = download(server.port, server.path(name))
    server.wait_stored(name)
    settle()
    return cold, median([download(server.port, server.path(name)) for _ in range(HITS)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1000, help="of the object, in MB")
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = defaultdict(list)
    with scratch() as directory:
        files = directory / "files"
        files.mkdir()
        make_object(files / "object.bin", arguments.size * MB)
        origin = static_origin(directory, files)
        try:
            download(origin.port, "/object.bin")  # from now on it is in the kernel's memory
            for number in range(arguments.rounds):
                makers = [Vault, caching_nginx] if number % 2 == 0 else [caching_nginx, Vault]
                for make in makers:
                    server: Vault | Nginx = make(directory, origin.url)  # type: ignore[operator]  # a class, a function
                    try:
                        cold, hit = measure(server, "object.bin")
                    finally:
                        server.end()
                    rates[server.name + " cold"].append(cold / MB)
                    rates[server.name + " hit"].append(hit / MB)
                    print(f"round {number + 1} {server.name}: cold {cold / MB:.0f} MB/s, hit {hit / MB:.0f} MB/s")
        finally:
            origin.end()
    for kind, wanted in (("cold", 0.8), ("hit", 1.0)):
        vault, nginx = median(rates[f"vault {kind}"]), median(rates[f"nginx {kind}"])
        rounds = zip(rates[f"vault {kind}"], rates[f"nginx {kind}"], strict=True)
        ratio = median([ours / theirs for ours, theirs in rounds])
        print(
            f"{kind}: medians {vault:.0f} and {nginx:.0f} MB/s, ratio {vault / nginx:.2f}; "
            f"median of the rounds' ratios {ratio:.2f} (wanted: {wanted} or more)"
        )


if __name__ == "__main__":
    main()
