"""HTTP clients for assertions: small blocking ones that say exactly what came over the wire."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
TIMEOUT = 30.0  # seconds without a byte after which a test gives up


@dataclass
class Reply:
    """A response: header names are in lower case; ``whole`` is False where the body was cut."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    whole: bool = True

    @property
    def cache(self) -> str:
        """The value of X-Cache."""
        return self.headers.get("x-cache", "")


def joined(lines: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Header lines as a mapping: names in lower case, the lines of each joined by commas (RFC 9110 section 5.3)."""
    headers: dict[str, str] = {}
    for name, value in lines:
        lowered = name.lower()
        headers[lowered] = f"{headers[lowered]}, {value}" if lowered in headers else value
    return headers


class Stream:
    """A request whose body is read piece by piece; ``source`` is the address to ask from."""

    def __init__(
        self,
        port: int,
        target: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes | None = None,
        source: str | None = None,
    ) -> None:
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", port, timeout=TIMEOUT, source_address=(source, 0) if source else None
        )
        self._connection.request(method, target, body=body, headers=dict(headers or {}))
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.headers = joined(self._response.getheaders())

    @property
    def cache(self) -> str:
        """The value of X-Cache."""
        return self.headers.get("x-cache", "")

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer only at the end; raises http.client.HTTPException or OSError when cut."""
        return self._response.read(size)

    def rest(self) -> bytes:
        """What is left of the body; raises http.client.IncompleteRead when it is cut."""
        return self._response.read()

    def drain(self) -> tuple[bytes, bool]:
        """What comes until the body ends or is cut, and whether it came to its end."""
        pieces = []
        try:
            while piece := self._response.read(1 << 18):
                pieces.append(piece)
        except http.client.IncompleteRead as error:
            return b"".join([*pieces, error.partial]), False
        except ConnectionError:
            return b"".join(pieces), False
        return b"".join(pieces), not self._response.length  # what is missing to the Content-Length, if there is one

    def close(self) -> None:
        """Leave, whether or not everything was read."""
        self._response.close()
        self._connection.close()


def ask(
    port: int,
    target: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: bytes | None = None,
    source: str | None = None,
) -> Reply:
    """One whole exchange.  A connection that ends before the head counts as status 0."""
    try:
        stream = Stream(port, target, headers, method, body, source)
    except (ConnectionError, http.client.BadStatusLine):
        return Reply(0, {}, whole=False)
    try:
        return Reply(stream.status, stream.headers, *stream.drain())
    finally:
        stream.close()


def raw(port: int, request: bytes, timeout: float = 10.0) -> bytes:
    """Everything that is answered to ``request`` until the connection ends or is silent for ``timeout`` seconds."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
        sock.sendall(request)
        try:
            while piece := sock.recv(65536):
                received += piece
        except OSError:
            pass
    return received


def raw_get(port: int, target: bytes) -> Reply:
    """GET a target exactly as it is spelled, of whatever bytes."""
    answer = raw(port, b"GET " + target + b" HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    if not lines[0].startswith("HTTP/1."):
        return Reply(0, {}, whole=False)
    headers = joined((name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:]))
    return Reply(int(lines[0].split(" ")[1]), headers, body)


def together(count: int, action: Callable[[int], T]) -> list[T]:
    """Run ``action(0)`` to ``action(count - 1)`` at the same time and return their results in this order."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(action, range(count)))


def parts_of(reply: Reply) -> list[tuple[str, bytes]]:
    """The ``(Content-Range, body)`` pairs of a multipart/byteranges response (RFC 9110 section 14.6)."""
    boundary = reply.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    opening, *sections = (b"\r\n" + reply.body).split(b"\r\n--" + boundary)
    if opening.strip() or not sections or not sections[-1].startswith(b"--"):
        raise AssertionError("not a closed multipart body")
    parts = []
    for section in sections[:-1]:
        head, _, body = section.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n"))
        parts.append((fields["content-range"], body))
    return parts
