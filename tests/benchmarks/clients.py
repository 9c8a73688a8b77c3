"""Many clients in one process: ``python -m tests.benchmarks.clients PORT PATH FILE SIZE COUNT``.

All connect, then all ask for PATH at once, and compare every byte that comes with FILE, whose SIZE bytes the body must
be.  Prints a JSON list with what each saw.  They share one buffer and compare by the C library's ``memcmp``, so that
they take little from what they measure.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

BUFFER = 128 * 1024  # small enough for a core's own cache, beside as much of the file it is compared with
RECEIVE_BUFFER = 4 * 1024 * 1024
"""The kernel's buffer for each client; it grants as much as ``net.core.rmem_max`` allows.

Left to itself the kernel keeps it at a few hundred KB for readers on the same machine, and moves the crowd's 20 GB in
pieces of 64 KB, each with a wake-up and a window update: that takes longer than all that is to be measured.
"""
TIMEOUT = 300.0  # seconds


class Client:
    """One download; ``exact`` turns False at the first wrong byte."""

    def __init__(self, port: int, size: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.size = size
        self.offset = 0
        self.exact = True
        self.asked = self.head_at = self.first_at = self.done_at = 0.0
        self._head: bytes | None = b""

    def ask(self, path: str) -> None:
        """Send the request."""
        self.asked = time.monotonic()
        self.socket.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())

    def take(self, buffer: memoryview, address: int, content: int, compare: Any) -> bool:
        """Take what has come; False when the response is over."""
        try:
            count = self.socket.recv_into(buffer)
        except BlockingIOError:
            return True
        except OSError:
            count = 0
        if not count:
            self.exact = False  # the body is done before the end of the connection is seen
            return False
        start = 0
        if self._head is not None:
            before = len(self._head)
            self._head += bytes(buffer[:count])
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return True
            self.head_at = time.monotonic()
            self.exact = self._head.startswith(b"HTTP/1.1 200 ")
            self._head = None
            start = end + 4 - before
        length = count - start
        if length and not self.first_at:
            self.first_at = time.monotonic()
        if self.offset + length > self.size or compare(address + start, content + self.offset, length):
            self.exact = False
            return False
        self.offset += length
        if self.offset == self.size:
            self.done_at = time.monotonic()
            return False
        return True


def main() -> None:
    """Run the clients."""
    port, path, file, size, count = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_COPY)  # private: nothing is written
    content = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    buffer = bytearray(BUFFER)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    view = memoryview(buffer)
    compare = ctypes.CDLL(None).memcmp
    compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    clients = [Client(port, size) for _ in range(count)]
    waiting = {client.socket.fileno(): client for client in clients}
    poll = select.epoll()
    for descriptor, client in waiting.items():
        poll.register(descriptor, select.EPOLLIN)
        client.ask(path)
    end = time.monotonic() + TIMEOUT
    while waiting and time.monotonic() < end:
        for descriptor, _ in poll.poll(1.0):
            if not waiting[descriptor].take(view, address, content, compare):
                poll.unregister(descriptor)
                waiting.pop(descriptor).socket.close()
    seen = [
        {
            "exact": client.exact and client.offset == size,
            "asked": client.asked,
            "head": client.head_at,
            "first": client.first_at,
            "done": client.done_at,
        }
        for client in clients
    ]
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
