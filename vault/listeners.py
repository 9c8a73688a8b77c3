"""The ports a vault listens on."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import Any

from twisted.internet import unix
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.python.failure import Failure

from vault.config import Config
from vault.endpoints import Description
from vault.errors import VaultError

BACKLOG = 1024

NO_LOCK = "Cannot acquire lock"
"""What Twisted says of a Unix socket beside which a link to a running process lies."""

FIRST_FREE_PORT = 1024
"""Linux lets anybody listen on ports from this one on (ip(7), ip_unprivileged_port_start)."""

FAMILIES = {socket.AF_INET: "INET", socket.AF_INET6: "INET6", socket.AF_UNIX: "UNIX"}
"""The ``domain`` of a systemd: endpoint."""


class ListenFailed(VaultError):
    """An address of the configuration cannot be listened on."""


@dataclass(slots=True)
class Listener:
    """A listening port, and its address as people write it."""

    port: IListeningPort
    address: str
    passed: bool = False
    """The socket was opened by who started this process, and stays open there."""

    def close(self) -> Deferred[None]:
        """Stop listening; whoever connects to a socket that was passed waits for the next start."""
        if self.passed and isinstance(self.port, unix.Port):
            self.port.stopReading()  # Twisted would also remove the path, where the next start finds nobody then
            return succeed(None)
        return self.port.stopListening() or succeed(None)


def listen(config: Config, site: Any, reactor: Any) -> list[Listener]:
    """Listen wherever the configuration says; raises ListenFailed, with everything closed again."""
    listeners: list[Listener] = []
    try:
        if config.listen:
            for description in config.listen:
                scheme = "https" if description.startswith(("ssl:", "tls:")) else "http"
                listeners.append(_open(_endpoint(description, reactor), site, description, scheme))
        else:
            listeners = _open_host(config.http_host, config.http_port, site, reactor)
    except ListenFailed:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _endpoint(description: str, reactor: Any) -> IStreamServerEndpoint:
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, _with_backlog(description))
        unfit = _unfit(endpoint) if isinstance(endpoint, AdoptedStreamServerEndpoint) else None
    except (LookupError, ValueError, OSError) as error:
        unfit = str(error)
        if description.startswith("systemd:"):
            unfit = "systemd has passed no such socket; start the vault by its .socket unit, or mend index or name"
        raise ListenFailed(f"cannot listen on {description}: {unfit}") from error
    if unfit is not None:
        raise ListenFailed(f"cannot listen on {description}: {unfit}")
    return endpoint


def _unfit(endpoint: AdoptedStreamServerEndpoint) -> str | None:
    """What is wrong with a socket that systemd has passed, None where it is as described; Twisted takes any."""
    with socket.socket(fileno=os.dup(endpoint.fileno)) as passed:
        domain = FAMILIES.get(passed.family, str(passed.family))
        if passed.family != endpoint.addressFamily:
            return f"the socket that systemd has passed is of another kind; write domain={domain}"
        if passed.type != socket.SOCK_STREAM or not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "what systemd has passed takes no connections; write ListenStream= and Accept=no in its unit"
    return None


def _with_backlog(description: str) -> str:
    # Twisted's own default, 50, is less than the clients that a build farm sends at once.
    described = Description.of(description)
    takes_one = described.kind in ("tcp", "tcp6", "ssl", "unix")
    return f"{description}:backlog={BACKLOG}" if takes_one and not described.get("backlog") else description


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
        port = getattr(error, "port", None)
        remedy = _remedy(getattr(reason, "errno", None), port)
        if text == NO_LOCK and isinstance(port, str | bytes):
            remedy = f"stop the vault that listens there or, where there is none, remove {os.fsdecode(port)}.lock"
        raise ListenFailed(f"cannot listen on {wanted}: {text}; {remedy}") from error
    here = result.getHost()
    host, port = getattr(here, "host", None), getattr(here, "port", None)
    if host is None:
        name = getattr(here, "name", b"") or b""
        address = f"unix:{name.decode('utf-8', 'replace')}"
    else:
        address = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    return Listener(result, address, isinstance(endpoint, AdoptedStreamServerEndpoint))


def _remedy(number: int | None, port: object) -> str:
    """What to do about an error in listening on a port, or on the path of a Unix socket."""
    if number == errno.EADDRINUSE:
        return "stop what uses it, or set another address"
    if number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return "this machine has no such address; set one that it has, or 0.0.0.0 or :: for all that it has"
    if number in (errno.EACCES, errno.EPERM) and isinstance(port, int) and port < FIRST_FREE_PORT:
        return (
            f"a port below {FIRST_FREE_PORT} needs CAP_NET_BIND_SERVICE (AmbientCapabilities= in a systemd unit) or a "
            "socket that systemd opens (systemd: in listen); grant that, or set a higher port"
        )
    if number in (errno.ENOENT, errno.ENOTDIR) and not isinstance(port, int):
        return "make the socket's directory first (RuntimeDirectory= in a systemd unit), or set another path"
    if number == errno.EINVAL and isinstance(port, int):
        return "a link-local address needs its interface, such as fe80::1%eth0"
    if number in (errno.EACCES, errno.EPERM) and not isinstance(port, int):
        return "the vault's user must be able to write to its directory"
    return "set another address"
