"""How much memory many slow readers of one growing object cost, vault against nginx ``proxy_cache``.

    python -m tests.benchmarks.slow_readers [--clients N] [--size MB] [--rate MB/s]

Every client takes 64 KiB twice a second through a small receive buffer while the object comes in at full rate.  Printed
is the most resident memory (RSS) of the server's processes during the fill, less that before it.
"""

from __future__ import annotations

import argparse
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.common import MB, Nginx, PacedOrigin, Vault, caching_nginx, rss, scratch, settle

PIECE = 64 * 1024
PAUSE = 0.5  # seconds


def connect(port: int, path: str) -> socket.socket:
    """A client that has asked."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    client.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return client


def read_slowly(readers: Sequence[socket.socket], taken: list[int], stop: threading.Event) -> None:
    """Let every reader take a piece twice a second; ``taken`` is what each has had."""
    while not stop.wait(PAUSE):
        for number, reader in enumerate(readers):
            try:
                taken[number] += len(reader.recv(PIECE))
            except BlockingIOError:
                continue


def measure(server: Vault | Nginx, count: int, seconds: float) -> tuple[float, int]:
    """The growth of the server's memory in bytes during ``seconds``, and how many readers had something."""
    before = rss(server.pids())
    readers = [connect(server.port, server.path("object.bin")) for _ in range(count)]
    taken = [0] * count
    stop = threading.Event()
    thread = threading.Thread(target=read_slowly, args=(readers, taken, stop))
    thread.start()
    peak = before
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.25)
            peak = max(peak, rss(server.pids()))
    finally:
        stop.set()
        thread.join()
        for reader in readers:
            reader.close()
    return peak - before, sum(1 for amount in taken if amount)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--size", type=int, default=2000, help="of the object, in MB")
    parser.add_argument("--rate", type=int, default=100, help="of the origin, in MB/s")
    arguments = parser.parse_args()
    size, rate = arguments.size * MB, arguments.rate * MB
    growth: dict[str, float] = {}
    with scratch() as directory:
        content = directory / "content"
        content.write_bytes(os.urandom(16 * MB))
        for make in (Vault, caching_nginx):
            settle()
            origin = PacedOrigin(directory, content, size, rate)
            try:
                server: Vault | Nginx = make(directory, origin.url)
                try:
                    grown, served = measure(server, arguments.clients, size / rate + 2)
                    gets = len(origin.gets("object.bin"))
                    stored = size_of(directory / server.name) / MB
                finally:
                    server.end()
            finally:
                origin.end()
            growth[server.name] = grown / MB
            print(
                f"{server.name}: memory grew by {grown / MB:.1f} MB; {served} of {arguments.clients} clients "
                f"were being served, {gets} upstream GETs, {stored:.0f} MB of {arguments.size} fetched"
            )
    vault, nginx = growth["vault"], growth["nginx"]
    ratio = f"{vault / nginx:.2f}" if nginx else "-"
    print(f"memory growth: vault {vault:.1f} MB, nginx {nginx:.1f} MB, ratio {ratio} (wanted: vault below 100 MB)")


def size_of(directory: Path) -> int:
    """The bytes in the files below a directory, in 512-byte blocks as du counts them."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
