"""A small HTTP forward proxy that records what it is asked: absolute-form targets and CONNECT tunnels."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit

from tests.functional.origin import basic, read_head
from tests.functional.script import Record


class ForwardProxy:
    """Listens on 127.0.0.1; with ``login`` it answers 407 to those who do not give it."""

    def __init__(self, login: tuple[str, str] | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.records: list[Record] = []
        self._login = login
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Stop listening and end every tunnel."""
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, peer = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            threading.Thread(target=self._serve, args=(client, peer), daemon=True).start()

    def _serve(self, client: socket.socket, peer: tuple[str, int]) -> None:
        with contextlib.suppress(OSError, ValueError), client:
            head = b""
            while b"\r\n\r\n" not in head:
                received = client.recv(65536)
                if not received:
                    return
                head += received
            head, _, rest = head.partition(b"\r\n\r\n")
            record = read_head(head, peer)
            self.records.append(record)
            if self._login and record.headers.get("proxy-authorization") != basic(*self._login):
                client.sendall(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=proxy\r\n"
                    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
                )
                return
            if record.method == "CONNECT":
                host, _, port = record.target.rpartition(":")
                upstream = self._connect(host, int(port))
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                opening = rest
            else:
                target = urlsplit(record.target)
                upstream = self._connect(target.hostname or "", target.port or 80)
                path = target._replace(scheme="", netloc="").geturl() or "/"
                lines = [f"{record.method} {path} HTTP/1.1", "Connection: close"]
                lines += [
                    f"{name}: {value}"
                    for name, value in record.lines
                    if name.lower() not in ("connection", "proxy-authorization", "proxy-connection")
                ]
                opening = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + rest
            with upstream:
                upstream.sendall(opening)
                back = threading.Thread(target=copy, args=(upstream, client), daemon=True)
                back.start()
                if record.method == "CONNECT":
                    copy(client, upstream)
                back.join()

    def _connect(self, host: str, port: int) -> socket.socket:
        upstream = socket.create_connection((host, port), timeout=10)
        upstream.settimeout(None)
        self._sockets.append(upstream)
        return upstream


def copy(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until ``source`` ends, then end ``target``'s sending side."""
    with contextlib.suppress(OSError):
        while received := source.recv(65536):
            target.sendall(received)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
