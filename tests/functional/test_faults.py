"""An upstream that breaks in the middle: clients get the whole body or notice that they did not."""

from __future__ import annotations

import re
import threading

from tests.functional.case import FunctionalCase
from tests.functional.clients import together
from tests.functional.content import Content
from tests.functional.script import MIB, OLD_DATE, Answer
from tests.functional.vault_process import eventually

CUT = (18, 56)  # curl: transfer closed with bytes outstanding, failure in receiving


class ResumeTests(FunctionalCase):
    """What can be resumed upstream is resumed, and clients do not notice."""

    def assert_resumed(self, path: str, most: int) -> None:
        """The second upstream GET asked for what was missing, under the ETag of what was there."""
        resumed = self.origin.requests(path, "GET")[1]
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", resumed.headers.get("range", ""))
        self.assertIsNotNone(match, resumed.headers)
        assert match is not None
        self.assertLessEqual(int(match.group(1)), most)
        self.assertEqual(resumed.headers.get("if-range"), '"1"')

    def test_dropped_connections(self) -> None:
        """Wherever the upstream's connection breaks, the client gets the whole body."""
        size = 2 * MIB + 1
        offsets = {"/near-start": 1, "/early": 70_000, "/middle": MIB, "/last-byte": size - 1}
        contents = [self.origin.put(path, size, script=[Answer(drop_after=offset)]) for path, offset in offsets.items()]
        self.start_vault()
        paths = list(offsets)
        replies = together(len(paths), lambda number: self.get(paths[number]))
        for path, content, reply in zip(paths, contents, replies, strict=True):
            self.assert_whole(reply, content)
            self.assert_resumed(path, offsets[path])

    def test_reset_connection(self) -> None:
        """A reset connection is resumed as well."""
        content = self.origin.put("/a", 2 * MIB, script=[Answer(drop_after=MIB, reset=True)])
        self.start_vault()
        self.assert_whole(self.get("/a"), content)
        self.assert_resumed("/a", MIB)

    def test_break_before_the_first_byte(self) -> None:
        """An upstream that breaks right after its head is asked again."""
        content = self.origin.put("/a", MIB, script=[Answer(drop_after=0)])
        self.start_vault()
        self.assert_whole(self.get("/a"), content)

    def test_several_breaks(self) -> None:
        """One body may take several connections, and several readers see none of it."""
        script = [Answer(drop_after=MIB, rate=8 * MIB) for _ in range(3)]
        content = self.origin.put("/a", 4 * MIB, script=script)
        self.start_vault(retries=4)
        for reply in together(5, lambda _: self.get("/a")):
            self.assert_whole(reply, content)
        self.assertEqual(len(self.origin.requests("/a")), 4)

    def test_silence_in_the_middle(self) -> None:
        """An upstream that stops sending is left after idle_timeout, and the rest is fetched anew."""
        content = self.origin.put("/a", 2 * MIB, script=[Answer(stall_after=MIB)])
        self.start_vault(idle_timeout=1)
        self.assert_whole(self.get("/a"), content)
        self.assert_resumed("/a", MIB)

    def test_second_mirror_takes_over(self) -> None:
        """When the first mirror dies in the middle of a body, the next one continues it."""
        other = self.start_origin("127.0.0.2")
        content = self.origin.put("/a", 2 * MIB, default=Answer(drop_after=0), script=[Answer(drop_after=MIB)])
        other.put("/a", 2 * MIB)
        self.start_vault(base_urls=[self.origin.url + "/", other.url + "/"])
        self.assert_whole(self.get("/a"), content)
        [continued] = other.requests("/a", "GET")
        # Mirrors tag a file each in its own way, but keep its date: either will do.
        self.assertIn(continued.headers.get("if-range"), ('"1"', OLD_DATE))

    def test_second_mirror_when_the_first_is_down(self) -> None:
        """A mirror that refuses connections is passed over."""
        other = self.start_origin()
        content = other.put("/a", 1000)
        self.origin.stop()
        self.start_vault(base_urls=[self.origin.url + "/", other.url + "/"])
        self.assert_whole(self.get("/a"), content)

    def test_range_ignored_on_resume(self) -> None:
        """An upstream that answers the resume with the whole body again does not garble it."""
        content = self.origin.put(
            "/a", 2 * MIB, script=[Answer(drop_after=MIB)], default=Answer(ignore_range=True, rate=16 * MIB)
        )
        self.start_vault()
        self.assert_whole_or_cut("/a", content)

    def test_false_content_range_on_resume(self) -> None:
        """A resume that is answered with another range than asked for is not used."""
        answers = [Answer(drop_after=MIB), Answer(content_range=f"bytes 0-{MIB - 1}/{2 * MIB}")]
        content = self.origin.put("/a", 2 * MIB, script=answers)
        self.start_vault()
        self.assert_whole_or_cut("/a", content)

    def test_no_validator_to_resume_with(self) -> None:
        """Without ETag and date, bytes of two answers are never put together unchecked."""
        other = Content(77, 2 * MIB)
        content = self.origin.put(
            "/a", 2 * MIB, etag=None, last_modified=None, script=[Answer(drop_after=MIB)], default=Answer(content=other)
        )
        self.start_vault()
        reply = self.get("/a")
        if reply.whole:
            self.assertIn(reply.body, (content.whole(), other.whole()))
        self.assert_whole(self.get("/a"), other)

    def assert_whole_or_cut(self, path: str, content: Content) -> None:
        """A body that is complete is right, one that is not was cut; afterwards it can be had."""
        reply = self.get(path)
        self.assertEqual(reply.status, 200)
        self.assertTrue(content.read(0, len(reply.body)) == reply.body, "the body differs")
        self.assertEqual(reply.whole, len(reply.body) == content.size)
        self.assert_whole(self.get(path), content)


class GivingUpTests(FunctionalCase):
    """What cannot be completed is cut, never tidily ended, and never kept."""

    def assert_cut(self, path: str) -> None:
        """curl sees a failed transfer and nothing is kept."""
        done = self.curl(path, "-o", "/dev/null")
        self.assertIn(done.returncode, CUT, done.stderr)
        self.assertFalse(self.kept(path).exists())

    def test_upstream_that_never_finishes(self) -> None:
        """When the upstream breaks again and again the client's transfer fails, and a later one can succeed."""
        content = self.origin.put("/a", MIB, script=[Answer(drop_after=100_000)], default=Answer(drop_after=0))
        self.start_vault(retries=1)
        self.assert_cut("/a")
        self.origin.put("/a", MIB)
        self.assert_whole(self.get("/a"), content)

    def test_broken_chunked_body(self) -> None:
        """A chunked body without its last chunk is not whole, not even for a client of HTTP/1.0."""
        self.origin.put("/a", MIB, default=Answer(framing="broken-chunked"), etag=None, last_modified=None)
        self.origin.put("/b", MIB, default=Answer(framing="broken-chunked"), etag=None, last_modified=None)
        self.start_vault(retries=1)
        self.assert_cut("/a")
        old = self.curl("/b", "--http1.0", "-o", "/dev/null")
        self.assertNotEqual(old.returncode, 0)
        self.assertFalse(self.kept("/b").exists())

    def test_broken_body_on_a_unix_socket(self) -> None:
        """A unix socket cannot be reset: a client of HTTP/1.0 there gets an error, or the whole with its length."""
        path = self.directory / "socket"
        self.origin.put("/cut", MIB, default=Answer(framing="broken-chunked"), etag=None, last_modified=None)
        content = self.origin.put("/whole", MIB, default=Answer(framing="chunked"))
        self.vault = self.new_vault(top={"listen": [f"unix:{path}"]}, retries=1)
        self.vault.launch()
        eventually(path.is_socket, what="the socket")
        curl = ("curl", "-q", "-sS", "-i", "--http1.0", "--unix-socket", str(path))
        head, _, body = self.run_client(*curl, "http://vault/o/whole").stdout.partition(b"\r\n\r\n")
        self.assertIn(b"\r\nContent-Length: 1048576\r\n", head + b"\r\n")
        self.assertTrue(body == content.whole())
        self.assertRegex(self.run_client(*curl, "http://vault/o/cut").stdout, rb"\AHTTP/1\.[01] 502 ")

    def test_content_length_too_long(self) -> None:
        """A body shorter than its Content-Length is never whole."""
        self.origin.put("/a", MIB, default=Answer(claim=1000))
        self.start_vault(retries=1)
        self.assert_cut("/a")

    def test_content_length_too_short(self) -> None:
        """What follows a body's Content-Length is dropped and spoils no other answer."""
        content = self.origin.put("/a", 500_000, default=Answer(claim=-1000))
        next_content = self.origin.put("/b", 500_000)
        self.start_vault()
        reply = self.get("/a")
        self.assertTrue(content.read(0, len(reply.body)) == reply.body)
        self.assertLessEqual(len(reply.body), 499_000)
        self.assert_whole(self.get("/b"), next_content)

    def test_object_changed_in_the_middle(self) -> None:
        """When the object changes during the download the client is cut, and the next one gets the new object whole."""
        new = Content(99, 2 * MIB)
        old = self.origin.put("/a", 2 * MIB, script=[Answer(drop_after=MIB)], default=Answer(content=new, etag='"2"'))
        self.start_vault()
        cut = self.get("/a")
        self.assertFalse(cut.whole, "a mixed body came to its end")
        self.assertTrue(old.read(0, len(cut.body)) == cut.body, "bytes of two objects were mixed")
        reply = self.get("/a")
        self.assert_whole(reply, new)
        self.assertEqual(reply.headers["etag"], '"2"')

    def test_joiners_are_cut_too(self) -> None:
        """Everyone who follows a download that fails notices."""
        release = threading.Event()
        self.addCleanup(release.set)
        fails = [Answer(stall_after=100_000, drop_after=100_000, release=release)]
        self.origin.put("/a", MIB, script=fails, default=Answer(drop_after=0))
        self.start_vault(retries=1, idle_timeout=10)
        streams = [self.stream("/a") for _ in range(5)]
        release.set()
        for stream in streams:
            self.assertFalse(stream.drain()[1])
