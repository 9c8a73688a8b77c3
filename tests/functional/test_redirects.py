"""Redirects are followed inside the vault, as far as they are safe."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.functional.case import FunctionalCase
from tests.functional.script import MIB, Answer


class Quiet(SimpleHTTPRequestHandler):
    """Python's own server of a directory, without a line for each request."""

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


class DirectoryTests(FunctionalCase):
    """A directory's page has links that are relative to an address with a slash."""

    def test_wget_recursive(self) -> None:
        """wget -r has a whole tree from a directory's name without its slash, cold and cached."""
        tree = self.directory / "www" / "dist" / "tree"
        (tree / "inner dir").mkdir(parents=True)
        for name in ("a.txt", "b.txt", "inner dir/c.txt"):
            (tree / name).write_text(name)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(self.directory / "www")))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.start_vault(base_url=f"http://127.0.0.1:{server.server_address[1]}/dist/")
        for state in ("cold", "cached"):
            target = self.directory / state
            options = ("-r", "-nv", "-nH", "--trust-server-names", "-P", str(target))
            done = self.run_client("wget", *options, f"{self.vault.url}/o/tree")
            self.assertEqual(done.returncode, 0, done.stderr)
            for name in ("a.txt", "b.txt", "inner dir/c.txt"):
                self.assertEqual((target / "o" / "tree" / name).read_text(), name, done.stderr)


class RedirectTests(FunctionalCase):
    """Where a redirect leads to another place, a client never sees a Location."""

    def test_redirect_to_another_host(self) -> None:
        """The object behind a redirect is served and kept under the name it was asked for."""
        cdn = self.start_origin("127.0.0.2")
        content = cdn.put("/signed", MIB)
        self.origin.put("/a", default=Answer(redirect=cdn.url + "/signed?key=1"))
        self.start_vault()
        reply = self.get("/a")
        self.assert_whole(reply, content)
        self.assertNotIn("location", reply.headers)
        self.wait_until_stored("/a")
        self.assert_whole(self.get("/a"), content)
        self.assertEqual(len(cdn.requests("/signed", "GET")), 1)

    def test_credentials_stay_with_their_host(self) -> None:
        """The backend's credentials are sent to its own host and to no other."""
        cdn = self.start_origin("127.0.0.2")
        content = cdn.put("/there", 1000)
        self.origin.put("/a", default=Answer(redirect=cdn.url + "/there"), login=("user", "word"))
        self.start_vault(username="user", password="word", headers={"X-Token": "secret"})
        self.assert_whole(self.get("/a"), content)
        self.assertIn("authorization", self.origin.requests("/a")[-1].headers)
        [there] = cdn.requests("/there")
        self.assertNotIn("authorization", there.headers)
        self.assertNotIn("x-token", there.headers)

    def test_relative_redirect(self) -> None:
        """A relative Location is resolved against the URL that was asked."""
        content = self.origin.put("/dir/b", 1000)
        self.origin.put("/dir/a", default=Answer(redirect="b"))
        self.start_vault()
        self.assert_whole(self.get("/dir/a"), content)

    def test_break_behind_a_redirect(self) -> None:
        """A transfer that breaks behind a redirect is resumed."""
        content = self.origin.put("/b", 2 * MIB, script=[Answer(drop_after=MIB)])
        self.origin.put("/a", default=Answer(redirect="/b"))
        self.start_vault()
        self.assert_whole(self.get("/a"), content)

    def test_loop(self) -> None:
        """A redirect loop is a bad gateway after a few steps."""
        self.origin.put("/a", default=Answer(redirect="/b"))
        self.origin.put("/b", default=Answer(redirect="/a"))
        self.start_vault(retries=0)
        self.assertEqual(self.get("/a").status, 502)
        self.assertLessEqual(len(self.origin.requests()), 7)

    def test_forbidden_targets(self) -> None:
        """A redirect to a link-local address or away from HTTP is refused at once."""
        for path, target in (("/metadata", "http://169.254.169.254/latest/"), ("/file", "file:///etc/passwd")):
            self.origin.put(path, default=Answer(redirect=target))
        self.start_vault(retries=0)
        for path in ("/metadata", "/file"):
            reply = self.get(path)
            self.assertEqual(reply.status, 502)
            self.assertNotIn("location", reply.headers)
            self.assertNotIn(b"root:", reply.body)
