"""An origin server that does what a script says, well or badly: plain sockets and threads, so that it can lie.

``put`` gives it objects, ``requests`` tells what it was asked.  It answers honestly (ranges, conditionals, HEAD,
keep-alive) unless an object's script says otherwise.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import select
import socket
import ssl
import struct
import threading
import time
from typing import Any

from tests.functional.clients import joined
from tests.functional.content import BLOCK, Content
from tests.functional.script import (
    MIB,
    Answer,
    Record,
    Resource,
    content_of,
    requested_range,
    unchanged,
)

REASONS = {
    200: "OK",
    206: "Partial Content",
    302: "Found",
    304: "Not Modified",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    410: "Gone",
    416: "Range Not Satisfiable",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Gone(Exception):
    """The peer left, the script ended the connection, or the origin stops."""


class Origin:
    """A scripted HTTP/1.1 server on ``host`` and a port of its own; ``tls`` makes it an https one."""

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server((host, 0), backlog=512)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self.scheme = "https" if tls else "http"
        self.url = f"{self.scheme}://{host}:{self.port}"
        self.peak = 0  # the most requests that were being answered at the same time
        self._tls = tls
        self._lock = threading.Lock()
        self._resources: dict[str, Resource] = {}
        self._records: list[Record] = []
        self._connections: set[socket.socket] = set()
        self._active = 0
        self._stopping = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def put(
        self,
        path: str,
        size: int = MIB,
        content: Content | bytes | None = None,
        **settings: Any,
    ) -> Content:
        """Serve ``content``, or ``size`` bytes made for it, at ``path`` (a target with or without query).

        ``settings`` are fields of ``Resource``.  Replaces what was there.  Returns the content.
        """
        body = content_of(path, content, size)
        with self._lock:
            self._resources[path] = Resource(body, **settings)
        return body

    def remove(self, path: str) -> None:
        """From now on ``path`` is 404."""
        with self._lock:
            del self._resources[path]

    def requests(self, path: str | None = None, method: str | None = None) -> list[Record]:
        """What was asked so far, in order; of one target or path, of one method."""
        with self._lock:
            return [
                record
                for record in self._records
                if (path is None or path in (record.target, record.path)) and method in (None, record.method)
            ]

    def stop(self) -> None:
        """Refuse new connections and drop those there are."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, peer), daemon=True).start()

    def _serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection.settimeout(10)
                connection = self._tls.wrap_socket(connection, server_side=True)
                connection.settimeout(None)
            with self._lock:
                self._connections.add(connection)
            head = b""
            while True:
                while b"\r\n\r\n" not in head:
                    received = connection.recv(65536)
                    if not received:
                        return
                    head += received
                request, _, head = head.partition(b"\r\n\r\n")
                with self._lock:
                    self._active += 1
                    self.peak = max(self.peak, self._active)
                try:
                    self._answer(connection, read_head(request, peer))
                finally:
                    with self._lock:
                        self._active -= 1
        except (Gone, OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)
            with contextlib.suppress(OSError):
                connection.close()

    def _answer(self, connection: socket.socket, record: Record) -> None:
        with self._lock:
            self._records.append(record)
            resource = self._resources.get(record.target) or self._resources.get(record.path)
            if resource is None:
                resource, answer = Resource(content_of("", b"no such thing\n", 0), etag=None), Answer(status=404)
            elif record.method == "GET" and resource.script:
                answer = resource.script.pop(0)
            else:
                answer = resource.default
        self._wait(connection, answer.delay)
        if answer.hang:
            self._wait(connection, None)
        if answer.raw is not None:
            connection.sendall(answer.raw)
            raise Gone
        self._respond(connection, record, resource, answer)

    def _respond(self, connection: socket.socket, record: Record, resource: Resource, answer: Answer) -> None:
        content = answer.content or resource.content
        etag = answer.etag or resource.etag
        status, start, stop = 200, 0, content.size
        fields: dict[str, str] = {"Date": email.utils.formatdate(usegmt=True), "Accept-Ranges": "bytes"}
        if etag is not None:
            fields["ETag"] = etag
        if resource.last_modified is not None:
            fields["Last-Modified"] = resource.last_modified
        if resource.content_type is not None:
            fields["Content-Type"] = resource.content_type
        fields.update(resource.headers)
        span = None if answer.ignore_range else requested_range(record, resource, content.size, etag)
        if resource.login is not None and record.headers.get("authorization") != basic(*resource.login):
            status, start, stop = 401, 0, 0
            fields["WWW-Authenticate"] = 'Basic realm="origin"'
        elif answer.redirect is not None:
            status, start, stop = 302, 0, 0
            fields["Location"] = answer.redirect
        elif answer.status is not None:
            status = answer.status
        elif unchanged(record, resource, etag):
            status, start, stop = 304, 0, 0
        elif span == "unsatisfiable":
            status, start, stop = 416, 0, 0
            fields["Content-Range"] = f"bytes */{content.size}"
        elif isinstance(span, tuple):
            status, (start, stop) = 206, span
            fields["Content-Range"] = answer.content_range or f"bytes {start}-{stop - 1}/{content.size}"
        fields.update(answer.headers)
        chunked = "chunked" in answer.framing and status != 304
        if chunked:
            fields["Transfer-Encoding"] = "chunked"
        elif answer.framing == "length" and status != 304:
            fields.setdefault("Content-Length", str(stop - start + answer.claim))
        record.status = status
        lines = [f"HTTP/1.1 {answer.status or status} {REASONS.get(status, 'Status')}"]
        lines.extend(f"{name}: {value}" for name, value in fields.items())
        connection.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
        if record.method == "HEAD" or status == 304:
            return
        self._wait(connection, answer.body_delay)
        self._send_body(connection, record, answer, content, start, stop, chunked)
        if answer.framing == "chunked":
            connection.sendall(b"0\r\n\r\n")
        elif answer.framing != "length" or answer.claim:
            raise Gone

    def _send_body(
        self,
        connection: socket.socket,
        record: Record,
        answer: Answer,
        content: Content,
        start: int,
        stop: int,
        chunked: bool,
    ) -> None:
        began = time.monotonic()
        step = BLOCK if answer.rate is None else max(1, min(BLOCK, int(answer.rate / 20)))
        marks = sorted({mark for mark in (answer.drop_after, answer.stall_after) if mark is not None})
        position = start
        while True:
            sent = position - start
            if answer.stall_after == sent:
                self._wait(connection, None, answer.release)
            if answer.drop_after == sent:
                if answer.reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raise Gone
            if position >= stop:
                return
            if answer.rate is not None:
                self._wait(connection, began + sent / answer.rate - time.monotonic())
            until = min([position + step, stop, *(start + mark for mark in marks if mark > sent)])
            piece = content.read(position, until)
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            position = until
            record.sent = position - start

    def _wait(
        self,
        connection: socket.socket,
        seconds: float | None,
        release: threading.Event | None = None,
    ) -> None:
        """Sleep for ``seconds``, or until ``release`` is set where they are None; raises Gone when the peer leaves."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            if release is not None and release.is_set():
                return
            pause = 0.05 if end is None else max(0.0, min(0.05, end - time.monotonic()))
            if end is not None and pause < 0.05:
                time.sleep(pause)
            elif select.select([connection], [], [], pause)[0]:
                # Something to read while an answer is due: the end of the connection, or a pipelined request.
                if isinstance(connection, ssl.SSLSocket) or connection.recv(1, socket.MSG_PEEK):
                    time.sleep(pause)
                else:
                    raise Gone
            if self._stopping.is_set():
                raise Gone


def basic(username: str, password: str) -> str:
    """The value of an Authorization field for HTTP Basic (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def read_head(head: bytes, peer: tuple[str, int]) -> Record:
    """A request head as a record; raises ValueError for what is none."""
    first, *rest = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    lines = [(name, value.strip()) for name, _, value in (line.partition(":") for line in rest)]
    return Record(method, target, joined(lines), lines, peer)
