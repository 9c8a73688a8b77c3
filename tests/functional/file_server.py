"""A small honest HTTP/1.1 file server for a directory, which notes what it is asked and can be told to fail."""

from __future__ import annotations

import email.utils
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


class FileServer:
    """Serves ``root`` on a port of 127.0.0.1: GET, HEAD, If-Modified-Since, one Range with If-Range by date.

    ``requests`` has method, path and status of each.  ``fault`` is called with each path: a number it returns is the
    status of the answer, bytes are its body instead of the file's, None is honest.  ``delay`` is seconds before each.
    """

    def __init__(self, root: Path, port: int = 0) -> None:
        self.root = root
        self.requests: list[tuple[str, str, int]] = []
        self.fault: Callable[[str], int | bytes | None] = lambda path: None
        self.delay = 0.0
        self._stop = threading.Event()
        handler = type("Handler", (_Handler,), {"files": self})
        self._server = _Server(("127.0.0.1", port), handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def count(self, path: str, method: str = "GET") -> int:
        """How often a path (or, with a ``*`` before it, an end of one) was asked for and sent."""
        return sum(
            one == method and status in (200, 206) and (asked.endswith(path[1:]) if path[:1] == "*" else asked == path)
            for one, asked, status in self.requests
        )

    def stop(self) -> None:
        """Refuse new connections and end those there are."""
        if not self._stop.is_set():
            self._stop.set()
            self._server.shutdown()
            self._server.server_close()
            self._server.drop()
            self._thread.join(5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self.sockets: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.sockets.discard(request)
        super().shutdown_request(request)

    def drop(self) -> None:
        for one in list(self.sockets):
            try:
                one.shutdown(2)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is nothing to talk about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: FileServer
    disable_nagle_algorithm = True

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        files = self.files
        if files.delay:
            files._stop.wait(files.delay)
        if files._stop.is_set():
            self.close_connection = True
            return
        target = self.path.partition("?")[0]
        fault = files.fault(target)
        path = files.root / unquote(target).lstrip("/")
        if isinstance(fault, int) or not path.is_file():
            self._answer(fault if isinstance(fault, int) else 404, b"no\n")
            return
        stat = path.stat()
        data = fault if isinstance(fault, bytes) else path.read_bytes()
        modified = email.utils.formatdate(int(stat.st_mtime), usegmt=True)
        fields = {"Last-Modified": modified, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if self.headers.get("If-Modified-Since") == modified and fault is None:
            self._answer(304, None, fields)
        elif wanted is not None and wanted.startswith("bytes=") and condition in (None, modified):
            first, _, last = wanted[6:].partition("-")
            start, stop = int(first), int(last) + 1 if last else len(data)
            if start >= len(data):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            fields["Content-Range"] = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
            self._answer(206, data[start:stop], fields)
        else:
            self._answer(200, data, fields)

    def _answer(self, status: int, body: bytes | None, fields: dict[str, str] | None = None) -> None:
        self.files.requests.append((self.command, self.path, status))
        self.send_response(status)
        for name, value in (fields or {}).items():
            self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body is not None and self.command == "GET":
            self.wfile.write(body)
