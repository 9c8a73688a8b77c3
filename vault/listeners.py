"""The ports a vault listens on."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.python.failure import Failure

from vault.config import Config
from vault.errors import VaultError

BACKLOG = 1024


class ListenFailed(VaultError):
    """An address of the configuration cannot be listened on."""


@dataclass(slots=True)
class Listener:
    """A listening port, and its address as people write it."""

    port: IListeningPort
    address: str

    def close(self) -> Deferred[None]:
        """Stop listening."""
        return self.port.stopListening() or succeed(None)


def listen(config: Config, site: Any, reactor: Any) -> list[Listener]:
    """Listen wherever the configuration says; raises ListenFailed, with everything closed again."""
    listeners: list[Listener] = []
    try:
        if config.listen:
            for description in config.listen:
                scheme = "https" if description.startswith(("ssl:", "tls:")) else "http"
                try:
                    endpoint = serverFromString(reactor, _with_backlog(description))
                except (LookupError, ValueError, OSError) as error:
                    raise ListenFailed(
                        f"cannot listen on {description}: {error}; a systemd: endpoint needs a start by its socket"
                    ) from error
                listeners.append(_open(endpoint, site, description, scheme))
        else:
            listeners = _open_host(config.http_host, config.http_port, site, reactor)
    except ListenFailed:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _with_backlog(description: str) -> str:
    # Twisted's own default, 50, is less than the clients that a build farm sends at once.
    takes_one = description.startswith(("tcp:", "tcp6:", "ssl:", "unix:"))
    return description if not takes_one or ":backlog=" in description else f"{description}:backlog={BACKLOG}"


def _open_host(host: str, port: int, site: Any, reactor: Any) -> list[Listener]:
    if host != "localhost":
        kind = TCP6ServerEndpoint if ":" in host else TCP4ServerEndpoint
        return [_open(kind(reactor, port, BACKLOG, host), site, f"{host}:{port}", "http")]
    listeners = [_open(TCP4ServerEndpoint(reactor, port, BACKLOG, "127.0.0.1"), site, f"127.0.0.1:{port}", "http")]
    port = getattr(listeners[0].port.getHost(), "port", port)
    try:
        listeners.append(_open(TCP6ServerEndpoint(reactor, port, BACKLOG, "::1"), site, f"[::1]:{port}", "http"))
    except ListenFailed as error:
        cause = error.__cause__
        in_use = isinstance(cause, CannotListenError) and getattr(cause.socketError, "errno", None) == errno.EADDRINUSE
        if in_use:
            listeners[0].close()
            raise
        # A machine without IPv6: localhost is 127.0.0.1 alone.
    return listeners


def _open(endpoint: IStreamServerEndpoint, site: Any, wanted: str, scheme: str) -> Listener:
    outcome: list[Any] = []
    endpoint.listen(site).addBoth(outcome.append)  # every endpoint of ours listens at once
    result = outcome[0]
    if isinstance(result, Failure):
        error = result.value
        reason = getattr(error, "socketError", None) or error
        text = getattr(reason, "strerror", None) or str(reason)
        raise ListenFailed(f"cannot listen on {wanted}: {text}; stop what uses it, or set another address") from error
    here = result.getHost()
    host, port = getattr(here, "host", None), getattr(here, "port", None)
    if host is None:
        name = getattr(here, "name", b"") or b""
        return Listener(result, f"unix:{name.decode('utf-8', 'replace')}")
    return Listener(result, f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
