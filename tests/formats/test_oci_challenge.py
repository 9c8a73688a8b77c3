"""Challenges of registries, and what token servers answer."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from vault.formats.oci_challenge import Challenge, read_challenges, read_grant

NOW = 1_795_467_600.0  # 2026-11-23T21:00:00Z


class ChallengeTests(SynchronousTestCase):
    """``read_challenges``."""

    def test_forms(self) -> None:
        """Quoted commas, escapes, several schemes and odd spaces are read as RFC 9110 has them."""
        table = {
            "": [],
            "Basic": [Challenge("basic")],
            'Basic realm="a b"': [Challenge("basic", {"realm": "a b"})],
            'Bearer realm="https://a/token",service="s",scope="repository:x:pull,push"': [
                Challenge("bearer", {"realm": "https://a/token", "service": "s", "scope": "repository:x:pull,push"})
            ],
            'BEARER Realm = "r" , service=plain': [Challenge("bearer", {"realm": "r", "service": "plain"})],
            'Basic realm="x, Bearer realm=\\"no\\"", Bearer realm="y"': [
                Challenge("basic", {"realm": 'x, Bearer realm="no"'}),
                Challenge("bearer", {"realm": "y"}),
            ],
            'Negotiate, Basic realm="x"': [Challenge("negotiate"), Challenge("basic", {"realm": "x"})],
            'Negotiate abcd==, Bearer realm="y"': [Challenge("negotiate"), Challenge("bearer", {"realm": "y"})],
            'Bearer realm="y",, error="insufficient_scope"': [
                Challenge("bearer", {"realm": "y", "error": "insufficient_scope"})
            ],
            'Bearer realm="y", realm="z"': [Challenge("bearer", {"realm": "y"})],
            'Bearer realm="never closed': [Challenge("bearer")],
        }
        for value, expected in table.items():
            self.assertEqual(read_challenges(value), expected, value)

    def test_nonsense(self) -> None:
        """Whatever is sent, reading it ends."""
        for value in ('="x"', ",,,,", '"', "Bearer =", "a" * 10_000, "Bearer " * 1000, '="' * 1000, "\x00"):
            read_challenges(value)


class GrantTests(SynchronousTestCase):
    """``read_grant``."""

    def until(self, **document: Any) -> float:
        """For how many seconds a token is good."""
        return read_grant(json.dumps({"token": "t", **document}).encode(), NOW).until - NOW

    def test_times(self) -> None:
        """A token is good from when it was issued, for a minute at least, and a clock that is ahead changes nothing."""
        self.assertEqual(self.until(), 60)
        self.assertEqual(self.until(expires_in=300), 300)
        self.assertEqual(self.until(expires_in=5), 60)
        self.assertEqual(self.until(expires_in="soon"), 60)
        for huge in (10**400, float("inf")):
            self.assertEqual(self.until(expires_in=huge), 10 * 365 * 86400)
        for tiny in (-(10**400), float("-inf"), float("nan")):
            self.assertEqual(self.until(expires_in=tiny), 60)
        self.assertEqual(self.until(expires_in=300, issued_at="2026-11-23T20:59:00Z"), 240)
        self.assertAlmostEqual(self.until(expires_in=300, issued_at="2026-11-23T20:59:00.123456789Z"), 240.123456, 4)
        self.assertEqual(self.until(expires_in=300, issued_at="2026-11-23T22:00:00+01:00"), 300)
        self.assertEqual(self.until(expires_in=300, issued_at="2026-11-23T23:00:00Z"), 300)
        self.assertEqual(self.until(expires_in=300, issued_at="yesterday"), 300)

    def test_names(self) -> None:
        """The token is under one of two names."""
        self.assertEqual(read_grant(b'{"access_token": "x"}', NOW).token, "x")
        self.assertEqual(read_grant(b'{"token": "y", "access_token": "x"}', NOW).token, "y")

    def test_no_token(self) -> None:
        """What is no token is none, and the message does not show it."""
        for body in (
            b"",
            b"[]",
            b"{}",
            b'{"token": ""}',
            b'{"token": 5}',
            b'{"token": "a\\r\\nb"}',
            5000 * b"[",
            b"\xff",
        ):
            self.assertRaises(ValueError, read_grant, body, NOW)
