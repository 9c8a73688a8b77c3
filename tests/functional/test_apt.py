"""apt-get through the vault: both modes, cold, warm, with the upstream gone; what goes wrong there stays there."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.functional.apt_case import AptCase
from tests.functional.clients import Stream, ask, raw
from tests.functional.content import Literal
from tests.functional.file_server import FileServer
from tests.functional.repository import Apt, Repository
from tests.functional.script import Answer
from tests.functional.vault_process import eventually


def versions(apt: Apt) -> set[str]:
    """The packages and versions that a client's lists have."""
    lists = (apt.directory / "state/lists").glob("*Packages*")
    found = set()
    for file in lists:
        done = subprocess.run(
            ["/usr/lib/apt/apt-helper", "cat-file", str(file)], capture_output=True, check=True, timeout=20
        )
        stanzas = done.stdout.decode().split("\n\n")
        fields = [dict(line.split(": ", 1) for line in one.splitlines() if ": " in line) for one in stanzas]
        found |= {f"{one['Package']} {one['Version']}" for one in fields if "Package" in one}
    return found


class ModeTests(AptCase):
    """What an administrator sets up."""

    def test_mirror_mode(self) -> None:
        """apt updates and downloads; what it has seen once comes from the cache, also with the upstream gone."""
        repository = self.serve()
        repository.add("g++-odd", "1:2.0~rc1+b1", os.urandom(300_000))
        repository.publish()
        cold, warm, alone = self.client("cold"), self.client("warm"), self.client("alone")
        cold.update()
        debs = cold.download("hello", "g++-odd")
        self.assertEqual(len(debs), 2)
        before = len(self.server.requests)
        warm.update()
        warm.download("hello", "g++-odd")
        asked = [path for method, path, status in self.server.requests[before:] if status != 304]
        self.assertEqual(asked, [], "a warm client costs the upstream nothing but conditional requests")
        self.server.stop()
        alone.update()
        found = alone.download("hello", "g++-odd")
        self.assertEqual([deb.read_bytes() for deb in found], [deb.read_bytes() for deb in debs])

    def test_proxy_mode(self) -> None:
        """With Acquire::http::Proxy apt names the upstream itself, and the vault answers for it from the same cache."""
        self.serve()
        self.client("first").update()
        before = len(self.server.requests)
        source = f"deb [signed-by={self.keys.public}] {self.server.url}/ test main\n"
        apt = self.client("second", source, f"Acquire::http::Proxy={self.vault.url}")
        apt.update()
        apt.download("hello")
        asked = [path for _, path, status in self.server.requests[before:] if status != 304]
        self.assertEqual(asked, ["/pool/main/h/hello/hello_1.0_all.deb"])
        self.assertIn('"GET http://127.0.0.1:', self.vault.log())

    def test_foreign_source_in_proxy_mode(self) -> None:
        """A source that no backend covers is refused at once, and the others work on."""
        self.serve()
        other = FileServer(self.repository.root)
        self.addCleanup(other.stop)
        source = f"deb [signed-by={self.keys.public}] {self.server.url}/ test main\n"
        foreign = source.replace(str(self.server.port), str(other.port))
        apt = self.client("mixed", source + foreign, f"Acquire::http::Proxy={self.vault.url}")
        began = time.monotonic()
        done = apt.run("update")
        self.assertLess(time.monotonic() - began, 6, "apt does not try again after 403")
        self.assertIn(b"403", done.stdout)
        self.assertEqual(other.requests, [])
        self.assertEqual(versions(apt), {"hello 1.0"})

    def test_https_spellings(self) -> None:
        """The spellings of apt-cacher-ng's users lead to the backend that covers them."""
        self.serve()
        authority = f"127.0.0.1:{self.server.port}"
        for target in (f"/{authority}/dists/test/InRelease", f"http://{authority}/dists/test/InRelease"):
            self.assertEqual(ask(self.vault.port, target).status, 200, target)
        refused = raw(self.vault.port, f"GET http://HTTPS///{authority}/x HTTP/1.1\r\nHost: HTTPS\r\n\r\n".encode(), 1)
        self.assertTrue(refused.startswith(b"HTTP/1.1 403"), "the upstream is http, not https")

    def test_flat_repository(self) -> None:
        """A repository without dists works with ./ and is checked in the same way."""
        self.serve(flat=True)
        apt = self.client()
        apt.update()
        self.assertEqual(len(apt.download("hello")), 1)
        slash = self.client("slash", self.source.replace("./", "/"))
        slash.update()
        self.assertEqual(len(slash.download("hello")), 1)

    def test_without_in_release(self) -> None:
        """A suite with Release and Release.gpg alone works, also when upstream and vault have stopped."""
        self.serve(in_release=False, by_hash=False)
        self.client("first").update()
        self.server.stop()
        self.client("second").update()
        self.vault.kill()
        self.vault.start()
        began = time.monotonic()
        self.client("third").update()
        self.assertLess(time.monotonic() - began, 7)

    def test_probe(self) -> None:
        """auto-apt-proxy knows the vault by the answer that it looks for; a browser gets the page for people."""
        self.serve()
        probe = ["/usr/lib/apt/apt-helper", "-oAcquire::Retries=0", "download-file", f"{self.vault.url}/", "out"]
        done = subprocess.run(probe, cwd=self.directory, capture_output=True, timeout=30, check=False)
        self.assertRegex((done.stdout + done.stderr).decode(), r"(?i)406.*usage.information")
        self.assertEqual(ask(self.vault.port, "/").status, 200)


class TunnelTests(AptCase):
    """CONNECT."""

    def test_listed_target(self) -> None:
        """A tunnel to a listed host carries bytes both ways until one side ends it, and is logged."""
        self.server = FileServer(self.directory)
        self.addCleanup(self.server.stop)
        (self.directory / "file").write_bytes(os.urandom(3_000_000))
        self.start_apt_vault(top={"connect_allow": [f"127.0.0.1:{self.server.port}"]})
        done = self.run_client(
            "curl", "-q", "-sS", "--proxytunnel", "-x", self.vault.url, "-o", "out", f"{self.server.url}/file"
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue((self.directory / "out").read_bytes() == (self.directory / "file").read_bytes())
        self.vault.wait_for_log(rf'"CONNECT 127.0.0.1:{self.server.port} HTTP/1.1" 200 3\d{{6}} ')

    def test_other_target(self) -> None:
        """Any other is refused at once."""
        self.serve()
        answer = raw(self.vault.port, b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n", 1)
        self.assertTrue(answer.startswith(b"HTTP/1.1 403"), answer)


class TroubleTests(AptCase):
    """What goes wrong on the way."""

    def test_interrupted_update(self) -> None:
        """An update that was cut off goes on, and ends with one generation, even if a new one came between."""
        repository = self.serve()
        big = repository.root / "dists/test/main/i18n/Translation-en"
        apt = self.client("client", None, "Acquire::http::Dl-Limit=2")
        repository.add("hello", "2.0", os.urandom(10))
        original = repository.indexes

        def large() -> dict[str, bytes]:
            files = original()
            files["main/i18n/Translation-en"] = f"Package: none\nX: {os.urandom(10_000).hex()}\n\n".encode()
            return files

        repository.indexes = large  # type: ignore[method-assign]
        repository.publish()
        for publish in (False, True):
            apt.forget()
            with subprocess.Popen(
                ["apt-get", *[word for option in apt.options for word in ("-o", option)], "update"],
                env={**os.environ, "APT_CONFIG": str(apt.directory / "apt.conf")},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            ) as process:  # fmt: skip
                partial = apt.directory / "state/lists/partial"
                eventually(
                    lambda here=partial: [f for f in here.glob("*Translation*") if f.stat().st_size], 20, "a part"
                )
                process.send_signal(signal.SIGINT)
                process.wait(20)
            if publish:
                repository.publish()
                time.sleep(1.2)
            apt.run("update", "-o", "Acquire::http::Dl-Limit=0")
            apt.update()
            self.assertEqual(versions(apt), {"hello 1.0", "hello 2.0"})
        self.assertTrue(big.exists())

    def test_dropped_mirror(self) -> None:
        """A package whose first mirror breaks off is finished from the second, and the client does not notice."""
        self.serve()
        self.repository.add("large", "1.0", os.urandom(4_000_000))
        self.repository.publish()
        deb = self.repository.root / "pool/main/l/large/large_1.0_all.deb"
        first = self.start_origin()
        for path in sorted(Path(self.repository.root).rglob("*")):
            if path.is_file():
                first.put("/" + str(path.relative_to(self.repository.root)), content=path.read_bytes(), etag=None)
        name = "/" + str(deb.relative_to(self.repository.root))
        first.put(
            name, content=deb.read_bytes(), etag=None, script=[Answer(drop_after=1_000_000)] + [Answer(status=503)] * 9
        )
        self.vault.end()
        self.vault.write_config(
            backends=[{"type": "apt", "config": {
                "prefix": "/apt/", "mirror_urls": [first.url + "/", self.server.url + "/"], "retries": 3,
            }}]
        )  # fmt: skip
        self.vault.start()
        apt = self.client()
        apt.update()
        found = apt.download("large")
        self.assertTrue(found[0].read_bytes() == deb.read_bytes())
        self.assertEqual(len(first.requests(name)) >= 1, True)
        self.assertTrue(any(path == name for _, path, _ in self.server.requests))

    def test_wrong_package(self) -> None:
        """A package that is not what Packages says is fetched once more within the same request."""
        self.serve()
        self.client("first").update()
        path = "/pool/main/h/hello/hello_1.0_all.deb"
        good = (self.repository.root / path[1:]).read_bytes()
        bad = [good[:-1] + b"x", None]
        self.server.fault = lambda asked: bad.pop(0) if asked == path and bad else None
        apt = self.client("second")
        apt.update()
        self.assertEqual(apt.download("hello")[0].read_bytes(), good)
        self.assertEqual(self.server.count(path), 2)

    def test_wrong_package_that_comes_slowly(self) -> None:
        """So is one whose wrong bytes take seconds to come, while one that takes long is not waited for."""
        self.serve()
        self.repository.add("large", "1.0", os.urandom(3_000_000))
        self.repository.publish()
        origin = self.start_origin()
        for file in sorted(self.repository.root.rglob("*")):
            if file.is_file():
                origin.put("/" + str(file.relative_to(self.repository.root)), content=file.read_bytes(), etag=None)
        path = "/pool/main/l/large/large_1.0_all.deb"
        good = (self.repository.root / path[1:]).read_bytes()
        wrong = Answer(rate=1_000_000, content=Literal(good[:-1] + bytes([good[-1] ^ 1])))
        origin.put(path, content=good, etag=None, script=[wrong])
        small = "/pool/main/h/hello/hello_1.0_all.deb"
        origin.put(small, content=(self.repository.root / small[1:]).read_bytes(), etag=None, default=Answer(rate=50))
        self.vault.end()
        backend = self.vault.config["backends"][0]
        config = {**backend["config"], "mirror_url": origin.url + "/"}
        self.vault.write_config(backends=[{**backend, "config": config}])
        self.vault.start()
        self.client("first").update()
        time.sleep(1)
        began = time.monotonic()
        self.assertTrue(ask(self.vault.port, "/apt" + path).body == good)
        self.assertGreater(time.monotonic() - began, 2)
        self.assertEqual(len(origin.requests(path)), 2)
        began = time.monotonic()
        stream = Stream(self.vault.port, "/apt" + small)
        self.addCleanup(stream.close)
        self.assertEqual(stream.read(10), (self.repository.root / small[1:]).read_bytes()[:10])
        self.assertLess(time.monotonic() - began, 3)

    def test_replaced_package(self) -> None:
        """A package that was built again under the same name is delivered as the new index describes it."""
        self.serve()
        apt = self.client()
        apt.update()
        old = apt.download("hello")[0].read_bytes()
        self.repository.add("hello", "1.0", b"built again")
        self.repository.publish()
        time.sleep(1.2)
        apt.update()
        apt.forget()
        apt.update()
        new = apt.download("hello")[0].read_bytes()
        self.assertNotEqual(new, old)

    def test_pdiff(self) -> None:
        """apt brings its lists up to date by the differences that the repository offers."""
        repository = self.serve()
        apt = self.client("client", None, "Acquire::PDiffs=true", "Acquire::PDiffs::SizeLimit=100000")
        apt.update()
        before = {name: data for name, data in repository.indexes().items() if name.endswith("Packages")}
        repository.add("extra")
        publish_with_differences(repository, before)
        time.sleep(1.2)
        apt.update()
        self.assertEqual(versions(apt), {"hello 1.0", "extra 1.0"})
        patches = [path for _, path, status in self.server.requests if ".diff/T-" in path and status == 200]
        self.assertTrue(patches, "a patch was fetched")

    def test_crash(self) -> None:
        """After kill -9 in the middle of it all a client still gets one whole generation."""
        repository = self.serve()
        self.client("first").update()
        for number in range(2):
            repository.add("hello", f"1.{number + 1}")
            repository.publish()
            time.sleep(1.1)
            reader = self.client(f"reader{number}", None, "Acquire::Retries=0")
            with subprocess.Popen(
                ["apt-get", *[word for option in reader.options for word in ("-o", option)], "update"],
                env={**os.environ, "APT_CONFIG": str(reader.directory / "apt.conf")},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            ) as process:  # fmt: skip
                time.sleep(0.1 + 0.2 * number)
                self.vault.kill()
                self.vault.start()
                process.wait(40)
            self.client(f"after{number}").update()


def publish_with_differences(repository: Repository, before: dict[str, bytes]) -> None:
    """Publish with ``Packages.diff`` of each Packages: one patch, from what was there before."""
    original = repository.indexes

    def line(data: bytes, label: str) -> str:
        return f" {hashlib.sha256(data).hexdigest()} {len(data)} {label}\n"

    def with_differences() -> dict[str, bytes]:
        files = original()
        for name, old in before.items():
            new = files[name]
            directory = repository.directory_for(name)
            (directory / "old").write_bytes(old)
            (directory / "new").write_bytes(new)
            command = ["diff", "--ed", "old", "new"]
            patch = subprocess.run(command, cwd=directory, capture_output=True, check=False).stdout
            packed = gzip.compress(patch, mtime=0)
            label = "T-2026-01-01-0000.00-F-2025-12-31-0000.00"
            index = f"SHA256-Current: {hashlib.sha256(new).hexdigest()} {len(new)}\n"
            index += "SHA256-History:\n" + line(old, label) + "SHA256-Patches:\n" + line(patch, label)
            index += "SHA256-Download:\n" + line(packed, label + ".gz")
            files[f"{name}.diff/Index"] = index.encode()
            repository.write(f"{name}.diff/{label}.gz", packed)
        return files

    repository.indexes = with_differences  # type: ignore[method-assign]
    repository.publish()
