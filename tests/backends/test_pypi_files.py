"""``type: pypi``: files and what goes with them."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from urllib.parse import urljoin

from tests.backends.pypi_case import ASK_JSON, FILES, PyPICase, entry, page, sha256
from tests.memory import Asked
from vault.backends._pypi_index import Index, Page
from vault.errors import Missing


class FileTests(PyPICase):
    """Files."""

    def setUp(self) -> None:
        self.vault()
        self.wheel = b"w" * 5000
        self.files["/packages/a-1.whl"] = self.wheel
        self.about = b"Metadata-Version: 2.1\n"
        self.put("a", page(entry("a-1.whl", self.wheel, **{"core-metadata": {"sha256": sha256(self.about)}})))

    def test_served(self) -> None:
        """A file is fetched once and never again; whoever asks may have parts of it."""
        client = self.follow("a-1.whl")
        self.assertEqual((client.status, client.body, client.headers["x-cache"]), (200, self.wheel, "MISS"))
        self.assertEqual(client.headers["cache-control"], "public, max-age=365000000, immutable")
        self.assertNotIn("content-encoding", client.headers)
        self.rig_.net.pass_time(10**6)
        self.pages.clear()
        target = f"/pypi/files/a/{sha256(self.wheel)[:16]}/a-1.whl"
        client = self.rig_.request(target + "?x=1", "Range: bytes=-10")
        self.assertEqual((client.status, client.body, client.headers["x-cache"]), (206, b"w" * 10, "HIT"))
        self.assertEqual(client.headers["content-range"], "bytes 4990-4999/5000")
        self.assertNotIn("content-encoding", client.headers)
        self.assertEqual(len(self.host.requests), 1)
        self.assertEqual(self.host.last.get("accept-encoding"), "identity")

    def test_head(self) -> None:
        """HEAD of a file that nobody has fetched gives its length and says that ranges are served."""
        client = self.follow("a-1.whl", method="HEAD")
        self.assertEqual(client.status, 200)
        self.assertEqual((client.headers["content-length"], client.headers["accept-ranges"]), ("5000", "bytes"))
        self.assertEqual([asked.method for asked in self.host.requests], ["HEAD"])

    def test_corrupt(self) -> None:
        """A file that is not what its hash says is cut off and not kept; once the upstream is well, so is it."""
        self.files["/packages/a-1.whl"] = b"x" * 5000
        client = self.follow("a-1.whl")
        self.assertTrue(client.aborted)
        self.assertLess(len(client.body), 5000)
        self.files["/packages/a-1.whl"] = self.wheel
        self.assertEqual(self.follow("a-1.whl").body, self.wheel)

    def test_metadata(self) -> None:
        """A metadata file is verified, kept as it is, and served without a coding."""
        self.files["/packages/a-1.whl.metadata"] = b"something else"
        self.assertTrue(self.follow("a-1.whl", more=".metadata").aborted)
        self.files["/packages/a-1.whl.metadata"] = self.about
        for _ in range(2):
            client = self.follow("a-1.whl", "Accept-Encoding: gzip", more=".metadata")
            self.assertEqual((client.status, client.body), (200, self.about))
            self.assertNotIn("content-encoding", client.headers)

    def test_companions(self) -> None:
        """Signatures and provenance are served where the page says that there are any."""
        provenance = "http://origin.test/integrity/a-2/provenance"
        self.put("a", page(entry("a-2.zip", b"z", **{"gpg-sig": True, "provenance": provenance})))
        self.files["/packages/a-2.zip.asc"] = b"signature"
        self.pages["/integrity/a-2/provenance"] = ("application/json", b"{}")
        self.assertEqual(self.follow("a-2.zip", more=".asc").body, b"signature")
        self.assertEqual(self.follow("a-2.zip", more=".provenance").body, b"{}")
        self.assertEqual(self.follow("a-2.zip", more=".metadata").status, 404)

    def test_signature(self) -> None:
        """Nothing proves a signature: it is asked for again after ``ttl``, and served on while its host is down."""
        for content in (b"z", None):
            self.vault()
            self.put("a", page(entry("a-2.zip", content, **{"gpg-sig": True})))
            signature = self.links()["a-2.zip"] + ".asc"
            for body in (b"<html>Log in</html>", b"signature", b"another signature"):
                self.files["/packages/a-2.zip.asc"] = partial(Asked.answer, status=200, body=body)  # in no coding
                for how in ("MISS", "HIT"):
                    client = self.rig_.request(signature)
                    self.assertEqual((client.status, client.body, client.headers["x-cache"]), (200, body, how))
                    self.assertNotIn("immutable", client.headers.get("cache-control", ""))
                self.rig_.net.pass_time(700)
            self.files["/packages/a-2.zip.asc"] = lambda asked: asked.answer(503)
            self.rig_.origin.answer = lambda asked: asked.answer(503)
            client = self.rig_.request(signature)
            self.assertEqual((client.body, client.headers["x-cache"]), (b"another signature", "STALE"))

    def test_no_companions(self) -> None:
        """Where it says nothing there are none, and the upstream is not asked."""
        for more in (".asc", ".provenance", ".asc.metadata"):
            self.assertEqual(self.follow("a-1.whl", more=more).status, 404)
        self.assertEqual(self.host.requests, [])

    def test_nothing_else(self) -> None:
        """What no page links to cannot be had: other names, hosts, paths and marks."""
        mark = sha256(self.wheel)[:16]
        for path in (
            f"files/a/{mark}/b-1.whl",
            "files/a/0123456789abcdef/a-1.whl",
            f"files/b/{mark}/a-1.whl",
            "files/other/a-1.whl",
            "files/http:/files.test/packages/a-1.zip",
            "files/a-1.txt",
            "files/x",
            f"files/a/{mark}/",
        ):
            self.assertEqual(self.get(path).status, 404, path)
        self.assertEqual(self.host.requests, [])

    def test_other_paths(self) -> None:
        """The address of a file cannot make the vault ask the index's host for anything but a project's page."""
        mark = "u" + 15 * "0"
        for project in (
            "%252e%252e%252fadmin",
            "%252e%252e",
            "a%3Fb",
            "a%253Fb",
            "a%23b",
            "a%20b",
            "a%252fb",
            "%C3%A9",
            "%FF",
            "a%250d%250aX:y",
            "-",
        ):
            self.assertEqual(self.get(f"files/{project}/{mark}/secret-1.0-py3-none-any.whl").status, 404, project)
        targets = {asked.target for asked in self.rig_.origin.requests}
        self.assertLessEqual(targets, {"/simple/secret/"})
        self.assertEqual(self.get(f"files/a/{mark}/%C3%A9%F0%9F%98%80-1.whl").status, 404)
        for project in ("../a", "a?b", "a\n", "\u00e9"):
            self.assertRaises(
                Missing, lambda project=project: Page(Index("pypi", ("http://o.test/",)), project).artifact
            )

    def test_lock_files(self) -> None:
        """A file is found by its name alone, and by the path it has upstream, without its page having been asked."""
        for path in ("files/a-1.whl", "files/packages/a-1.whl"):
            self.assertEqual(self.get(path).body, self.wheel)
        self.assertEqual(len(self.host.requests), 1)

    def test_new(self) -> None:
        """A file that is newer than the page the vault has is found all the same."""
        self.links()
        self.rig_.net.pass_time(20)
        self.files["/packages/a-2.zip"] = b"new"
        self.put("a", page(entry("a-2.zip", b"new")))
        self.assertEqual(self.get(f"files/a/{sha256(b'new')[:16]}/a-2.zip").body, b"new")

    def test_replaced(self) -> None:
        """A file that is replaced upstream under the same name has another address here."""
        old = self.links()["a-1.whl"]
        self.assertEqual(self.rig_.request(old).body, self.wheel)
        self.files["/packages/a-1.whl"] = b"newer"
        self.put("a", page(entry("a-1.whl", b"newer")))
        self.rig_.net.pass_time(700)
        self.assertNotEqual(self.links()["a-1.whl"], old)
        self.assertEqual(self.follow("a-1.whl").body, b"newer")
        self.assertEqual(self.rig_.request(old).body, self.wheel)

    def test_same_name(self) -> None:
        """Two files of one name on a page are both to be had."""
        other = {**entry("a-1.whl", b"second"), "url": f"{FILES}/other/a-1.whl"}
        self.files["/packages/other/a-1.whl"] = b"second"
        self.put("a", page(entry("a-1.whl", self.wheel), other))
        urls = [file["url"] for file in json.loads(self.get("simple/a/", ASK_JSON).body)["files"]]
        bodies = [self.rig_.request(urljoin("/pypi/simple/a/", url)).body for url in urls]
        self.assertEqual(bodies, [self.wheel, b"second"])

    def test_same_name_by_path(self) -> None:
        """So they are by the paths that they have upstream, with what goes with them."""
        others = {f"{place}/a-1.whl": place.encode() for place in ("other", "third", "fourth")}
        entries = [
            {**entry("a-1.whl", body, **{"gpg-sig": True}), "url": f"{FILES}/{path}"} for path, body in others.items()
        ]
        self.put("a", page(entry("a-1.whl", self.wheel), *entries, entry("a-1.whl0", b"x")))
        for path, body in others.items():
            self.files[f"/packages/{path}"] = body
            self.files[f"/packages/{path}.asc"] = body + b" signed"
        for path, body in others.items():
            self.assertEqual(self.get(f"files/packages/{path}").body, body)
            self.assertEqual(self.get(f"files/packages/{path}.asc").body, body + b" signed")
        self.assertEqual(self.get("files/a-1.whl").body, self.wheel)
        self.assertEqual(self.get("files/packages/fifth/a-1.whl").status, 404)

    def test_unknown_hash(self) -> None:
        """A file without a hash is served as the upstream has it, and one with an old kind of hash is verified."""
        weak = {**entry("a-3.zip"), "hashes": {"md5": hashlib.md5(b"m").hexdigest()}}
        self.put("a", page(entry("a-2.zip"), weak))
        self.files["/packages/a-2.zip"] = b"anything"
        self.files["/packages/a-3.zip"] = b"not m"
        client = self.follow("a-2.zip")
        self.assertEqual((client.body, client.headers["content-encoding"]), (b"anything", "gzip"))
        self.assertTrue(self.follow("a-3.zip").aborted)

    def test_fragment(self) -> None:
        """A hash that is only in the fragment of a page's URL is checked by, and both forms of the page keep it."""
        known = sha256(b"x" * 5000)
        self.put("a", page({**entry("a-2.zip"), "url": f"{FILES}/a-2.zip#sha256={known}"}))
        self.files["/packages/a-2.zip"] = b"y" * 5000
        target = self.links()["a-2.zip"]
        self.assertEqual(target, f"/pypi/files/a/{known[:16]}/a-2.zip#sha256={known}")
        self.assertIn(f'/a-2.zip#sha256={known}"'.encode(), self.get("simple/a/").body)
        target = target.partition("#")[0]
        self.assertTrue(self.rig_.request(target).aborted)
        self.files["/packages/a-2.zip"] = b"x" * 5000
        client = self.rig_.request(target)
        self.assertEqual((client.status, client.body), (200, b"x" * 5000))
        self.assertIn("immutable", client.headers["cache-control"])

    def test_credentials(self) -> None:
        """The index's password goes to no other host that a page names, nor to where a redirect leads."""
        self.vault(upstream={"username": "me", "password": "pw"})
        self.put("a", page(entry("a-1.whl", b"w")))
        self.files["/packages/a-1.whl"] = b"w"
        self.assertEqual(self.follow("a-1.whl").body, b"w")
        self.assertIsNotNone(self.rig_.origin.last.get("authorization"))
        self.assertIsNone(self.host.last.get("authorization"))

    def test_local(self) -> None:
        """A page cannot make the vault ask its own machine or its neighbours on the link, by a link or a redirect."""
        inner = self.rig_.net.origin("inner.test", "127.0.0.1")
        for url in ("http://127.0.0.1/x.zip", "http://169.254.169.254/x.zip", "http://inner.test/x.zip"):
            self.put("a", page({**entry("a-1.zip", b"s"), "url": url}))
            self.rig_.net.pass_time(700)
            self.assertEqual(self.follow("a-1.zip").status, 502, url)
        self.put("a", page(entry("a-1.zip", b"s")))
        self.files["/packages/a-1.zip"] = lambda asked: asked.answer(302, "Location: http://127.0.0.1/x.zip")
        self.rig_.net.pass_time(700)
        self.assertEqual(self.follow("a-1.zip").status, 502)
        self.assertEqual(inner.requests, [])

    def test_outage(self) -> None:
        """An index that is down is 503 for a file that nobody has, never 404."""
        self.rig_.origin.answer = lambda asked: asked.answer(502)
        self.assertEqual(self.get("files/a/0123456789abcdef/a-1.whl").status, 503)
        self.assertEqual(self.get("files/a-1.whl").status, 503)

    def test_outage_of_a_new_file(self) -> None:
        """A file that the kept page does not have is not said to be missing while the index cannot be asked."""
        self.follow("a-1.whl")
        index = self.rig_.origin.answer
        for status, told in ((500, 503), (403, 503), (404, 404), (200, 404)):
            self.rig_.net.pass_time(700)
            self.rig_.origin.answer = index if status == 200 else partial(Asked.answer, status=status)
            for path in ("files/a-2.whl", "files/a/0123456789abcdef/a-2.whl"):
                client = self.get(path)
                self.assertEqual(client.status, told, (status, path))
                if told == 503:
                    self.assertIn("no newer one can be had", json.loads(client.body)["detail"])
                    self.assertRegex(client.headers["retry-after"], r"^[1-9]$")

    def test_nonsense_and_a_new_file(self) -> None:
        """Nor while the index sends something that is no page; what the kept page has is served."""
        self.follow("a-1.whl")
        self.rig_.net.pass_time(700)
        self.put("a", b"%PDF", "application/pdf")
        for _ in range(2):
            client = self.get("files/a-2.whl")
            self.assertEqual(client.status, 502)
            self.assertIn("the index's page of a cannot be read", json.loads(client.body)["detail"])
            self.rig_.net.pass_time(100)
        self.assertEqual(self.get("files/a-1.whl").body, self.wheel)
        self.put("a", page(entry("a-2.whl", b"new")))
        self.files["/packages/a-2.whl"] = b"new"
        self.rig_.net.pass_time(700)
        self.assertEqual(self.get("files/a-2.whl").body, b"new")
