"""An origin that sends a body at a steady rate: ``python -m tests.benchmarks.paced_origin PORT FILE SIZE RATE``.

Every path has the same SIZE bytes, FILE repeated as often as need be, sent at RATE bytes a second to each client.  For
each GET it prints when the head had been sent, in seconds of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import contextlib
import mmap
import socket
import sys
import threading
import time
from pathlib import Path

PIECE = 128 * 1024


def serve(connection: socket.socket, content: memoryview, size: int, rate: int) -> None:
    """Answer the requests of one connection."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, contextlib.suppress(OSError):
        buffered = b""
        while True:
            while b"\r\n\r\n" not in buffered:
                received = connection.recv(65536)
                if not received:
                    return
                buffered += received
            request, _, buffered = buffered.partition(b"\r\n\r\n")
            method, path, _ = request.split(b"\r\n")[0].decode("latin-1").split(" ")
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n"
                b'ETag: "bench"\r\nLast-Modified: Sat, 01 Jan 2022 00:00:00 GMT\r\n\r\n' % size
            )
            start = time.monotonic()
            print(method, path, start, flush=True)
            sent = 0
            while method == "GET" and sent < size:
                early = start + sent / rate - time.monotonic()
                if early > 0:
                    time.sleep(early)
                at = sent % len(content)
                piece = content[at : at + min(PIECE, size - sent)]
                connection.sendall(piece)
                sent += len(piece)


def main() -> None:
    """Serve until killed."""
    port, file, size, rate = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    with file.open("rb") as opened:
        content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, content, size, rate), daemon=True).start()


if __name__ == "__main__":
    main()
