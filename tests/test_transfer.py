"""Transfers: one request upstream for everyone who asks, whoever comes and goes meanwhile."""

from __future__ import annotations

from tests.memory import RigCase


class T(RigCase):
    def test_one(self) -> None:
        """x"""
        rig = self.rig()
        client = rig.request("a")
        rig.origin.last.head(200, 'ETag: "1"', length=10)
        rig.net.pass_time()
        self.assertEqual(client.status, 200)
        rig.origin.last.send(b"01234")
        rig.net.pass_time(1)
        self.assertEqual(client.body, b"01234")
        rig.origin.last.send(b"56789")
        rig.net.pass_time(1)
        self.assertTrue(client.whole)
        self.assertEqual(rig.stored, 1)
        print(client.raw)
