"""Sources: which URL is asked, how often, and what its status means for the client."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from tests.memory import MODIFIED, Asked, Rig, RigCase
from vault import errors
from vault.artifact import Artifact, Headers
from vault.backends.http import HTTPBackend
from vault.interfaces import Ask
from vault.sources import PAUSES, may_pass, plain, whole_body

TWO = ("http://origin.test/", "http://second.test/")


class TokenBackend(HTTPBackend):
    """Answers challenges, or not."""

    given: Headers = (("Authorization", "Bearer t"),)

    def authorize(self, artifact: Artifact, challenge: str, ask: Ask) -> Deferred[Headers]:
        """The same for any challenge."""
        return succeed(self.given if challenge.startswith("Bearer") else ())


class SourcesCase(RigCase):
    """Asking the sources of one backend."""

    def ask(self, rig: Rig, seconds: float = 10, **options: Any) -> Deferred[Any]:
        """Ask, and let some time pass."""
        asking = rig.run(rig.sources.ask(rig.artifact(), **options))
        rig.net.pass_time(seconds)
        return asking

    def error(self, rig: Rig, seconds: float = 10, **options: Any) -> errors.UpstreamError:
        """The error that asking ends in."""
        error = self.failureResultOf(self.ask(rig, seconds, **options)).value
        assert isinstance(error, errors.UpstreamError)
        return error


class StatusTests(SourcesCase):
    """What a status means."""

    def test_table(self) -> None:
        """A client gets 404 and 410 as they are, 503 for what may pass, 502 for the rest, never 401 or 403."""
        table: dict[int, tuple[type[errors.UpstreamError], int]] = {
            400: (errors.BrokenAnswer, 502),
            401: (errors.Refused, 502),
            403: (errors.Refused, 502),
            404: (errors.Missing, 404),
            405: (errors.BrokenAnswer, 502),
            410: (errors.Missing, 404),
            416: (errors.Unsatisfied, 416),
            429: (errors.Unavailable, 503),
            500: (errors.Unavailable, 503),
            502: (errors.Unavailable, 503),
            503: (errors.Unavailable, 503),
            204: (errors.BrokenAnswer, 502),
            206: (errors.BrokenAnswer, 502),
            302: (errors.BrokenAnswer, 502),
            304: (errors.BrokenAnswer, 502),
        }
        for status, (kind, told) in table.items():
            rig = self.rig()
            rig.origin.answer = lambda asked, status=status: asked.answer(status)
            error = self.error(rig)
            self.assertIsInstance(error, kind, status)
            self.assertEqual(error.status, told)
            self.assertIn("origin.test", str(error))
            self.assertIn(str(status), str(error))

    def test_gone(self) -> None:
        """410 is remembered as such."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(410)
        error = self.error(rig)
        assert isinstance(error, errors.Missing)
        self.assertEqual(error.upstream_status, 410)

    def test_retry_after(self) -> None:
        """Retry-After is taken as seconds or as a date, and stops further tries."""
        for value, seconds in (("7", 7.0), ("Mon, 23 Nov 2026 21:00:30 GMT", 30.0)):
            rig = self.rig()
            rig.origin.answer = lambda asked, value=value: asked.answer(503, f"Retry-After: {value}")
            error = self.error(rig, 0)
            self.assertEqual(error.retry_after, seconds)
            self.assertEqual(len(rig.origin.requests), 1)

    def test_too_many_requests(self) -> None:
        """An upstream that says "too many requests" is not asked four times more within seconds."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer(429)
        self.error(rig)
        self.assertEqual(len(rig.origin.requests), 1)


class OrderTests(SourcesCase):
    """Several URLs."""

    def setUp(self) -> None:
        self.here = self.rig(TWO)
        self.second = self.here.net.origin("second.test")

    def test_first(self) -> None:
        """The first URL that has it is the only one asked."""
        self.here.origin.answer = lambda asked: asked.answer()
        self.successResultOf(self.ask(self.here)).abort()
        self.assertEqual(self.second.requests, [])

    def test_next(self) -> None:
        """Where the first URL fails or has nothing, the next is asked, at once."""
        for status in (404, 500, 403, 429):
            self.here.origin.answer = lambda asked, status=status: asked.answer(status)
            self.second.answer = lambda asked: asked.answer()
            answer = self.successResultOf(self.ask(self.here, 0))
            self.assertEqual(answer.asked, "http://second.test/a")
            answer.abort()

    def test_all_missing(self) -> None:
        """It is missing where every URL says so."""
        self.here.origin.answer = self.second.answer = lambda asked: asked.answer(404)
        self.assertIsInstance(self.error(self.here), errors.Missing)
        self.assertEqual(len(self.second.requests), 1)

    def test_one_cannot_say(self) -> None:
        """It is not missing while one URL could not say, and a 404 elsewhere does not end the tries."""
        self.here.origin.refuse = ConnectionRefusedError(string="refused")
        self.second.answer = lambda asked: asked.answer(404)
        self.assertIsInstance(self.error(self.here), errors.ConnectionRefused)
        self.assertEqual(len(self.second.requests), 1 + len(PAUSES))

    def test_broken_then_missing(self) -> None:
        """A refusal by the first URL outweighs the second's 404, without further tries."""
        self.here.origin.answer = lambda asked: asked.answer(403)
        self.second.answer = lambda asked: asked.answer(404)
        self.assertIsInstance(self.error(self.here), errors.Refused)
        self.assertEqual(len(self.second.requests), 1)


class SilentTests(SourcesCase):
    """A host that takes connections, or not even that, and says nothing, where another one has the same."""

    def setUp(self) -> None:
        self.here = self.rig(TWO)
        self.second = self.here.net.origin("second.test")
        self.second.answer = lambda asked: asked.answer()

    def test_left_soon(self) -> None:
        """It is left after five seconds, and for a minute only asked after the other one; then it is tried again."""
        for silent in (False, True):
            self.here.origin.silent = silent
            for seconds, tries in ((5.1, 1), (0, 1), (59, 1), (0, 1), (1, 1), (5.1, 2)):
                before = self.here.net.seconds()
                asking = self.ask(self.here, min(seconds, 5.1))
                self.successResultOf(asking).abort()
                self.here.net.pass_time(max(0.0, before + seconds - self.here.net.seconds()))
                if not silent:
                    self.assertEqual(len(self.here.origin.requests), tries, seconds)
            self.here.net.pass_time(61)

    def test_full_time(self) -> None:
        """Where the other one fails, it is given the time that it may take."""
        self.here.origin.answer = lambda asked: self.here.net.callLater(8, asked.answer)
        for status in (404, 500):
            self.second.answer = lambda asked, status=status: asked.answer(status)
            asking = self.ask(self.here, 12)
            self.assertNoResult(asking)
            self.here.net.pass_time(2)
            self.successResultOf(asking).abort()

    def test_last(self) -> None:
        """So is the last one, at once: it is asked only once."""
        self.here.origin.answer = lambda asked: asked.answer(404)
        self.second.answer = lambda asked: self.here.net.callLater(8, asked.answer)
        self.successResultOf(self.ask(self.here, 8)).abort()
        self.assertEqual(len(self.second.requests), 1)

    def test_alone(self) -> None:
        """So it is where there is no other, or where each may have something else."""
        self.here.origin.answer = lambda asked: self.here.net.callLater(8, asked.answer)
        wanted = self.here.artifact()
        twice = replace(wanted, urls=(wanted.urls[0], wanted.urls[0] + "b"))
        for artifact in (replace(wanted, urls=wanted.urls[:1]), twice, replace(wanted, in_order=True)):
            asking = self.here.run(self.here.sources.ask(artifact))
            self.here.net.pass_time(8)
            answer = self.successResultOf(asking)
            answer.abort()
            self.assertEqual(answer.asked, wanted.urls[0])


class AgainTests(SourcesCase):
    """Trying again."""

    def test_pauses(self) -> None:
        """A refused connection is tried again after short pauses, and the client told after the last."""
        rig = self.rig()
        rig.origin.refuse = ConnectionRefusedError(string="refused")
        asking = self.ask(rig, sum(PAUSES) + len(PAUSES) * 0.3)
        self.assertNoResult(asking)
        rig.net.pass_time(1)
        self.failureResultOf(asking, errors.ConnectionRefused)

    def test_restart(self) -> None:
        """A restart of the upstream is bridged."""
        rig = self.rig()
        rig.origin.refuse = ConnectionRefusedError(string="refused")
        rig.origin.answer = lambda asked: asked.answer()
        asking = self.ask(rig, 1)
        rig.origin.refuse = None
        rig.net.pass_time(5)
        self.successResultOf(asking).abort()

    def test_retries(self) -> None:
        """``retries`` bounds the tries; 0 means one try."""
        for retries, tries in ((0, 1), (2, 3), (99, 1 + len(PAUSES))):
            rig = self.rig(retries=retries)
            rig.origin.answer = lambda asked: asked.close()
            self.error(rig)
            self.assertEqual(len(rig.origin.requests), tries)

    def test_impatient(self) -> None:
        """Where somebody has something else to give, there is one try."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.close()
        self.error(rig, 0, patient=False)
        self.assertEqual(len(rig.origin.requests), 1)

    def test_timeout(self) -> None:
        """What timed out has had its time: it is not tried again."""
        rig = self.rig(first_byte_timeout=5.0)
        self.assertIsInstance(self.error(rig, 6), errors.Timeout)
        self.assertEqual(len(rig.origin.requests), 1)

    def test_may_pass(self) -> None:
        """Refused, unresolved and cut off may pass; what the upstream said itself stands."""
        for error in (errors.ConnectionRefused("x"), errors.NameNotFound("x"), errors.Unavailable("x")):
            self.assertTrue(may_pass(error))
        for other in (errors.TLSFailed("x"), errors.BrokenAnswer("x"), errors.Refused("x"), errors.Missing("x")):
            self.assertFalse(may_pass(other))

    def test_plain(self) -> None:
        """A URL in a log has no query, which may be a signature."""
        self.assertEqual(plain("http://h/a?X-Signature=s"), "http://h/a")


class ChallengeTests(SourcesCase):
    """Challenges, which the backend answers."""

    def token_rig(self) -> Rig:
        """A vault whose backend answers Bearer challenges."""
        return self.rig(backend=TokenBackend("files", "/files/", ("http://origin.test/",)))

    def test_answered(self) -> None:
        """A challenge is answered once, and the request repeated with its fields."""
        rig = self.token_rig()
        rig.origin.answer = lambda asked: (
            asked.answer(200, f"Last-Modified: {MODIFIED}")
            if asked.get("Authorization") == "Bearer t"
            else asked.answer(401, 'WWW-Authenticate: Bearer realm="x"', body=b"who?")
        )
        self.successResultOf(self.ask(rig, headers=(("Range", "bytes=1-"),))).abort()
        self.assertEqual([asked.get("Range") for asked in rig.origin.requests], ["bytes=1-"] * 2)

    def test_refused_again(self) -> None:
        """Credentials that do not help are the vault's trouble, not the client's, and are not tried for ever."""
        rig = self.token_rig()
        rig.origin.answer = lambda asked: asked.answer(401, "WWW-Authenticate: Bearer")
        self.assertIsInstance(self.error(rig), errors.Refused)
        self.assertEqual(len(rig.origin.requests), 2)

    def test_with_credentials(self) -> None:
        """A refusal tells whether the one who refuses had been given credentials."""
        challenge = "WWW-Authenticate: Bearer"
        for status, fields, expected in ((401, (challenge,), True), (401, (), False), (403, (), False)):
            rig = self.token_rig()
            rig.origin.answer = lambda asked, status=status, fields=fields: asked.answer(status, *fields)
            error = self.error(rig)
            assert isinstance(error, errors.Refused)
            self.assertIs(error.with_credentials, expected)
        rig = self.token_rig()
        rig.origin.answer = lambda asked: (
            asked.answer(401, challenge)
            if asked.get("Authorization") is None
            else asked.answer(307, "Location: http://storage.test/x")
        )
        rig.net.origin("storage.test").answer = lambda asked: asked.answer(403)
        error = self.error(rig)
        assert isinstance(error, errors.Refused)
        self.assertIs(error.with_credentials, False)

    def test_with_configured_credentials(self) -> None:
        """So it does where they go with every request; a 401 then says that they are wrong."""
        for status, headers, expected in (
            (403, (("Authorization", "Bearer t"),), True), (403, (("cookie", "a=b"),), True),
            (401, (("Authorization", "Bearer t"),), False), (403, (("X-Team", "a"),), False),
        ):  # fmt: skip
            rig = self.rig(headers=headers)
            rig.origin.answer = lambda asked, status=status: asked.answer(status)
            error = self.error(rig)
            assert isinstance(error, errors.Refused)
            self.assertIs(error.with_credentials, expected, (status, headers))

    def test_no_answer(self) -> None:
        """A challenge the backend knows no answer to is a refusal."""
        rig = self.token_rig()

        def answer(asked: Asked) -> None:
            asked.answer(401, "WWW-Authenticate: Basic")

        rig.origin.answer = answer
        self.assertIsInstance(self.error(rig), errors.Refused)
        self.assertEqual(len(rig.origin.requests), 1)

    def test_of_another_host(self) -> None:
        """A host that the upstream redirects to is not given credentials when it asks for some, nor is its realm asked.

        The same of one that is redirected to once the upstream's own challenge was answered.
        """
        for answered in (False, True):
            rig = self.token_rig()
            elsewhere = rig.net.origin("storage.test")
            elsewhere.answer = lambda asked: asked.answer(401, 'WWW-Authenticate: Bearer realm="http://storage.test/"')
            rig.origin.answer = lambda asked, answered=answered: (
                asked.answer(401, "WWW-Authenticate: Bearer")
                if answered and asked.get("Authorization") is None
                else asked.answer(307, "Location: http://storage.test/x")
            )
            error = self.error(rig)
            self.assertIsInstance(error, errors.Refused)
            self.assertIn("storage.test", str(error))
            sent = [asked.get("Authorization") for asked in rig.origin.requests]
            self.assertEqual(sent, [None, "Bearer t"] if answered else [None])
            self.assertEqual([asked.get("Authorization") for asked in elsewhere.requests], [None])

    def test_artifact_fields(self) -> None:
        """An artifact's own fields go with every request for it."""
        rig = self.rig()
        rig.origin.answer = lambda asked: asked.answer()
        artifact = replace(rig.artifact(), headers=(("Accept", "a/b"),))
        self.successResultOf(rig.run(rig.sources.ask(artifact))).abort()
        self.assertEqual(rig.origin.last.all("Accept"), ["a/b"])


class SizeTests(SourcesCase):
    """Artifacts whose length is known."""

    def test_other_length(self) -> None:
        """An answer of another length is not taken, and the next URL is asked."""
        rig = self.rig(TWO)
        rig.net.origin("second.test").answer = lambda asked: asked.answer(200, body=b"12345")
        rig.origin.answer = lambda asked: asked.answer(200, body=b"1234")
        wanted = rig.artifact(size=5)
        answer = self.successResultOf(rig.run(rig.sources.ask(wanted)))
        self.assertEqual((answer.host, answer.length), ("second.test", 5))
        answer.discard()
        alone = replace(wanted, urls=wanted.urls[:1])
        self.failureResultOf(rig.run(rig.sources.ask(alone)), errors.OtherVersion)


class Piece(bytes):
    """A piece of a body that counts how often it is asked for its length."""

    asked = 0

    def __len__(self) -> int:
        Piece.asked += 1
        return super().__len__()


class ShortBodyTests(SynchronousTestCase):
    """Bodies that are read whole."""

    def read(self, limit: int, pieces: list[bytes]) -> Deferred[bytes]:
        """Read a body that comes in these pieces."""

        class Source:
            host = "origin.test"

            def deliver(self, on_data: Any, on_end: Any) -> None:
                self.ended: list[Exception | None] = []
                for piece in pieces:
                    if not self.ended:
                        on_data(piece)
                on_end(self.ended[0] if self.ended else None)

            def end(self, error: Exception | None) -> None:
                self.ended.append(error)

        return ensureDeferred(whole_body(Source(), limit))  # type: ignore[arg-type]

    def test_many_pieces(self) -> None:
        """However many pieces it comes in, each is counted once."""
        Piece.asked = 0
        pieces = [Piece(b"ab") for _ in range(1000)]
        self.assertEqual(self.successResultOf(self.read(2000, list(pieces))), b"ab" * 1000)
        self.assertLessEqual(Piece.asked, 2000)

    def test_too_long(self) -> None:
        """More than the limit is an error, however it comes."""
        for pieces in ([b"a" * 11], [b"a"] * 11):
            self.failureResultOf(self.read(10, pieces), errors.BrokenAnswer)
            self.assertEqual(len(self.successResultOf(self.read(11, pieces))), 11)
