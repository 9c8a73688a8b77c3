"""Listening: where, and what is said when that cannot be."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from vault.config import Config, built_in
from vault.listeners import BACKLOG, ListenFailed, listen
from vault.starting import name_sockets


class Port:
    """A listening port."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port, self.closed = host, port, False

    def getHost(self) -> Any:
        """Its address."""
        return (IPv6Address if ":" in self.host else IPv4Address)("TCP", self.host, self.port or 4321)

    def stopListening(self) -> None:
        """Stop."""
        self.closed = True


class Ports:
    """A reactor that listens anywhere but on the addresses in ``errors``."""

    def __init__(self, **errors: int) -> None:
        self.ports: list[Port] = []
        self.errors: dict[str, int] = errors
        self.backlogs: list[int] = []

    def listenTCP(self, port: int, factory: Factory, backlog: int = 50, interface: str = "") -> Port:
        """Listen."""
        self.backlogs.append(backlog)
        number = self.errors.get(interface)
        if number is not None:
            raise CannotListenError(interface, port, OSError(number, os.strerror(number)))
        self.ports.append(Port(interface, port))
        return self.ports[-1]


class MemoryTests(SynchronousTestCase):
    """Without sockets."""

    def setUp(self) -> None:
        self.config: Config = built_in({})
        self.ports = Ports()

    def listen(self, **changes: Any) -> list[str]:
        """The addresses that are listened on."""
        return [listener.address for listener in listen(replace(self.config, **changes), Factory(), self.ports)]

    def test_localhost(self) -> None:
        """localhost is both loopback addresses, on one port."""
        self.assertEqual(self.listen(), ["http://127.0.0.1:8080", "http://[::1]:8080"])
        self.assertEqual(self.ports.backlogs, [BACKLOG] * 2)

    def test_any_port(self) -> None:
        """With port 0 both take the one that was free."""
        self.assertEqual(self.listen(http_port=0), ["http://127.0.0.1:4321", "http://[::1]:4321"])
        self.assertEqual(self.ports.ports[1].port, 4321)

    def test_no_ipv6(self) -> None:
        """A machine without IPv6 listens on 127.0.0.1 alone."""
        for number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            self.ports.errors["::1"] = number
            self.assertEqual(self.listen(), ["http://127.0.0.1:8080"])

    def test_half_in_use(self) -> None:
        """A port that somebody uses on ::1 is not taken on 127.0.0.1 alone."""
        self.ports.errors["::1"] = errno.EADDRINUSE
        error = self.assertRaises(ListenFailed, self.listen)
        self.assertIn("Address already in use", str(error))
        self.assertTrue(self.ports.ports[0].closed)

    def test_half_in_use_elsewhere(self) -> None:
        """So it is where that error has another number, as on other systems."""
        self.patch(errno, "EADDRINUSE", 48)
        self.ports.errors["::1"] = 48
        self.assertRaises(ListenFailed, self.listen)

    def test_in_use(self) -> None:
        """A port in use is told in one line that says what to do."""
        self.ports.errors["127.0.0.1"] = errno.EADDRINUSE
        error = self.assertRaises(ListenFailed, self.listen)
        self.assertIn("cannot listen on 127.0.0.1:8080", str(error))
        self.assertNotIn("\n", str(error))

    def test_remedies(self) -> None:
        """What is to be done depends on what is wrong."""
        for number, port, told in (
            (errno.EADDRINUSE, 80, "stop what uses it"),
            (errno.EADDRNOTAVAIL, 80, "this machine has no such address"),
            (errno.EACCES, 80, "CAP_NET_BIND_SERVICE"),
            (errno.EACCES, 8080, "set another address"),
            (errno.EINVAL, 8080, "such as fe80::1%eth0"),
        ):
            self.ports.errors["192.0.2.1"] = number
            for changes in (
                {"http_host": "192.0.2.1", "http_port": port},
                {"listen": (f"tcp:{port}:interface=192.0.2.1",)},
            ):
                error = str(self.assertRaises(ListenFailed, self.listen, **changes))
                self.assertIn(f"{os.strerror(number)}; ", error)
                self.assertIn(told, error)

    def test_other_hosts(self) -> None:
        """Any other host is listened on as it stands."""
        self.assertEqual(self.listen(http_host="0.0.0.0"), ["http://0.0.0.0:8080"])
        self.assertEqual(self.listen(http_host="::"), ["http://[::]:8080"])

    def test_endpoints(self) -> None:
        """Endpoint descriptions take the place of host and port."""
        described = ("tcp:9000:interface=127.0.0.1", "tcp6:9001:interface=\\:\\:1")
        self.assertEqual(self.listen(listen=described), ["http://127.0.0.1:9000", "http://[::1]:9001"])

    def test_backlog(self) -> None:
        """As many clients may knock at once as with host and port, unless the description gives another number."""
        self.listen(listen=("tcp:9000:interface=127.0.0.1", "tcp6:9001", "tcp:9002:backlog=7", "tcp6:9003:8"))
        self.assertEqual(self.ports.backlogs, [BACKLOG, BACKLOG, 7, 8])

    def test_second_fails(self) -> None:
        """Where one of several cannot be listened on, the others are closed again."""
        self.ports.errors["192.0.2.1"] = errno.EADDRNOTAVAIL
        described = ("tcp:9000:interface=127.0.0.1", "tcp:9001:interface=192.0.2.1")
        self.assertRaises(ListenFailed, self.listen, listen=described)
        self.assertEqual([port.closed for port in self.ports.ports], [True])


class PassedTests(SynchronousTestCase):
    """Sockets that are passed to the vault's process."""

    def test_named(self) -> None:
        """Those without names get them, as many as there are; those that have some keep them."""
        for given, names in (
            ({"LISTEN_FDS": "2"}, "unknown:unknown"),
            ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": ""}, "unknown"),
            ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "vault"}, "vault"),
            ({"LISTEN_FDS": "0"}, None),
            ({"LISTEN_FDS": "-1"}, None),
            ({}, None),
        ):
            environ = dict(given)
            name_sockets(environ)
            self.assertEqual(environ.get("LISTEN_FDNAMES"), names)


class SocketTests(TestCase):
    """With sockets."""

    def stop(self, listeners: list[Any]) -> Deferred[Any]:
        """Close them."""
        return DeferredList([listener.close() for listener in listeners])

    def test_unix(self) -> Deferred[Any]:
        """A unix socket has its path for an address."""
        path = os.path.relpath(self.mktemp())
        config = replace(built_in({}), listen=(f"unix:{path}",))
        listeners = listen(config, Factory(), reactor)
        self.assertEqual([listener.address for listener in listeners], [f"unix:{path}"])
        return self.stop(listeners)

    def test_unix_without_permission(self) -> None:
        """Where a Unix socket cannot be, it is said what the vault's user must be able to do."""
        path = os.path.relpath(self.mktemp())
        Path(path).mkdir(0o500)
        config = replace(built_in({}), listen=(f"unix:{path}/socket",))
        if os.geteuid() == 0:  # who may write anywhere
            os.seteuid(65534)
            self.addCleanup(os.seteuid, 0)
        error = self.assertRaises(ListenFailed, listen, config, Factory(), reactor)
        self.assertIn("must be able to write to its directory", str(error))

    def test_unix_locked(self) -> None:
        """Where the lock of a Unix socket names a running process, which may be any, the lock is named."""
        path = os.path.relpath(self.mktemp())
        Path(f"{path}.lock").symlink_to(str(os.getpid()))
        config = replace(built_in({}), listen=(f"unix:{path}",))
        error = self.assertRaises(ListenFailed, listen, config, Factory(), reactor)
        wanted = f"stop the vault that listens there or, where there is none, remove {path}.lock"
        self.assertEqual(str(error), f"cannot listen on unix:{path}: Cannot acquire lock; {wanted}")

    def test_unix_without_directory(self) -> None:
        """Where the directory of a Unix socket is missing, it is said that it is to be made."""
        for path in (os.path.relpath(self.mktemp()), "/dev/null"):
            config = replace(built_in({}), listen=(f"unix:{path}/socket",))
            error = self.assertRaises(ListenFailed, listen, config, Factory(), reactor)
            self.assertIn("make the socket's directory first", str(error))

    def test_in_use(self) -> None:
        """A port in use is noticed at once."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            config = replace(built_in({}), http_host="127.0.0.1", http_port=taken.getsockname()[1])
            error = self.assertRaises(ListenFailed, listen, config, Factory(), reactor)
        self.assertIn("Address already in use", str(error))
