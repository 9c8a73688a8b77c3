"""CONNECT on a clock moved by hand."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.memory import Client, Origin, Rig, RigCase
from vault.web.tunnel import Tunnels, parse


class TargetTests(SynchronousTestCase):
    """What CONNECT names."""

    def test_parse(self) -> None:
        """A host and a port, an IPv6 address in brackets; nothing else."""
        self.assertEqual(parse("Host.example:443"), ("host.example", 443))
        self.assertEqual(parse("[2001:db8::1]:443"), ("2001:db8::1", 443))
        for wrong in (
            "host",
            "host:",
            ":443",
            "host:0",
            "host:65536",
            "user@host:443",
            "::1:443",
            "a b:1",
            "/x:1",
            "",
            "x:" + 5000 * "1",
        ):
            self.assertIsNone(parse(wrong), wrong)


class TunnelTests(RigCase):
    """Tunnels through a vault."""

    def open(self, target: str, *allowed: tuple[str, int]) -> tuple[Rig, Origin, Client]:
        """A vault that allows these, a server there, and a client's CONNECT."""
        rig = self.rig()
        origin = rig.net.origin("secure.test", "192.0.2.77", port=443)
        rig.net.names["local.test"] = ["127.0.0.1"]
        rig.net.origins["127.0.0.1", 443] = origin
        rig.site.reconfigure(tunnels=Tunnels(rig.net, allowed))
        client = Client(rig.net, rig.site, "CONNECT", target, (), False)
        rig.net.pass_time()
        return rig, origin, client

    def test_both_ways(self) -> None:
        """Bytes go both ways as they are, and the log has one line for it all."""
        rig, origin, client = self.open("secure.test:443", ("secure.test", 443))
        self.assertEqual(client.raw, b"HTTP/1.1 200 Connection established\r\n\r\n")
        wire = origin.wires[0]
        wire.tunnel = b""
        client.channel.dataReceived(b"\x16hello\r\n\r\n")
        wire.send(b"\x16welcome")
        self.assertEqual((wire.tunnel, client.raw[-8:]), (b"\x16hello\r\n\r\n", b"\x16welcome"))
        self.assertEqual(rig.lines, [])
        client.leave()
        rig.net.pass_time()
        self.assertFalse(wire.open)
        self.assertEqual(len(rig.lines), 1)
        self.assertIn('"CONNECT secure.test:443 HTTP/1.1" 200 8 ', rig.lines[0])

    def test_end_of_the_target(self) -> None:
        """When the target closes, so does the vault, after what has come."""
        rig, origin, client = self.open("secure.test:443", ("secure.test", 443))
        origin.wires[0].send(b"bye")
        origin.wires[0].close()
        rig.net.pass_time()
        self.assertTrue(client.raw.endswith(b"bye"))
        self.assertTrue(client.closed)

    def test_idle(self) -> None:
        """A tunnel in which nothing moves is closed after the idle timeout."""
        rig, origin, client = self.open("secure.test:443", ("secure.test", 443))
        rig.net.pass_time(59)
        self.assertTrue(origin.wires[0].open)
        rig.net.pass_time(2)
        self.assertFalse(origin.wires[0].open)
        self.assertTrue(client.closed)

    def test_target_that_takes_nothing(self) -> None:
        """Where the client has left and the target takes nothing of what was on its way, it is reset in the end."""
        rig, origin, client = self.open("secure.test:443", ("secure.test", 443))
        wire = origin.wires[0]
        wire.loseConnection = wire.stopProducing = lambda: None  # as a socket does while bytes wait
        client.channel.dataReceived(b"more than it takes")
        client.leave()
        rig.net.pass_time(50)
        wire.send(b"what nobody wants any more")
        self.assertEqual((wire.open, wire.aborted), (True, False))
        rig.net.pass_time(11)
        self.assertEqual((wire.open, wire.aborted), (False, True))
        self.assertEqual(rig.net.getDelayedCalls(), [])
        self.assertEqual(len(rig.lines), 1)

    def test_client_that_takes_nothing(self) -> None:
        """So is a client, where the target has left and the client takes nothing."""
        rig, origin, client = self.open("secure.test:443", ("secure.test", 443))
        client.transport.loseConnection = lambda: None
        origin.wires[0].send(b"more than it takes")
        client.pause()
        origin.wires[0].resumeProducing()
        origin.wires[0].close()
        rig.net.pass_time(50)
        self.assertFalse(client.aborted)
        rig.net.pass_time(30)
        self.assertTrue(client.aborted)
        self.assertEqual(rig.net.getDelayedCalls(), [])

    def test_slow_target(self) -> None:
        """A target that takes nothing holds up the client, and a client that takes nothing the target."""
        rig, origin, client = self.open("secure.test:443", ("secure.test", 443))
        client.pause()
        self.assertTrue(origin.wires[0].paused)
        client.resume()
        rig.net.pass_time()
        self.assertFalse(origin.wires[0].paused)
        client.leave()

    def test_refused(self) -> None:
        """Other hosts, other ports and names of this machine are refused with 403, nonsense with 400."""
        for target, status in (("secure.test:22", 403), ("other.test:443", 403), ("nonsense", 400)):
            _, origin, client = self.open(target, ("secure.test", 443))
            self.assertEqual((client.status, origin.wires), (status, []), target)
        _, origin, client = self.open("local.test:443", ("local.test", 443))
        self.assertEqual((client.status, origin.wires), (403, []))
        _, origin, client = self.open("127.0.0.1:443", ("127.0.0.1", 443))
        self.assertEqual(client.status, 200)
        client.leave()

    def test_unreachable(self) -> None:
        """A host that cannot be reached is 502."""
        self.assertEqual(self.open("nowhere.test:443", ("nowhere.test", 443))[2].status, 502)
