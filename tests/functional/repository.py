"""A small signed APT repository that tests build: dpkg-deb, apt-ftparchive, gpg with a throw-away key."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import time
from email.utils import formatdate
from pathlib import Path

from twisted.trial.unittest import SkipTest

TOOLS = {"dpkg-deb": "dpkg", "apt-ftparchive": "apt-utils", "gpg": "gnupg"}


def need(*tools: str) -> None:
    """Skip the test where one of these programs is not installed."""
    for tool in tools:
        if shutil.which(tool) is None:
            raise SkipTest(f"{tool} is not installed")


def run(*command: str, directory: Path | None = None, data: bytes | None = None, **variables: str) -> bytes:
    """The output of a command that succeeds."""
    done = subprocess.run(
        command,
        cwd=directory,
        input=data,
        capture_output=True,
        env={**os.environ, **variables},
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command} failed: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout


class Keys:
    """A key of its own in a directory of its own; ``public`` is the file for ``signed-by``."""

    def __init__(self, directory: Path) -> None:
        need(*TOOLS)
        self.home = directory / "gnupg"
        self.home.mkdir(mode=0o700)
        self.public = directory / "key.gpg"
        self._gpg("--quick-gen-key", "--passphrase", "", "Test <test@example.invalid>", "ed25519", "sign", "never")
        self.public.write_bytes(self._gpg("--export"))

    def _gpg(self, *arguments: str, data: bytes | None = None) -> bytes:
        options = ("--batch", "--no-tty", "--pinentry-mode", "loopback", "--digest-algo", "SHA512")
        return run("gpg", *options, *arguments, data=data, GNUPGHOME=str(self.home))

    def inline(self, data: bytes) -> bytes:
        """Clear-signed."""
        return self._gpg("--passphrase", "", "--clearsign", data=data)

    def detached(self, data: bytes) -> bytes:
        """A signature beside."""
        return self._gpg("--passphrase", "", "--armor", "--detach-sign", data=data)

    def close(self) -> None:
        """End gpg's agent."""
        subprocess.run(
            ["gpgconf", "--kill", "all"], env={**os.environ, "GNUPGHOME": str(self.home)}, check=False, timeout=10
        )


def build_deb(directory: Path, name: str, version: str, payload: bytes = b"", script: str = "") -> Path:
    """A binary package without dependencies."""
    tree = directory / f"tree-{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / f"usr/share/{name}").mkdir(parents=True)
    (tree / f"usr/share/{name}/data").write_bytes(payload or f"{name} {version}\n".encode())
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: T <t@example.invalid>\n"
    (tree / "DEBIAN/control").write_text(control + f"Priority: required\nSection: misc\nDescription: test {name}\n")
    deb = directory / f"{name}_{version.replace(':', '%3a')}_all.deb"
    run("dpkg-deb", "-Znone", "--root-owner-group", "-b", str(tree), str(deb))
    shutil.rmtree(tree)
    return deb


class Repository:
    """A suite ``test`` with the component ``main`` below ``root``; ``publish`` makes the next generation of it."""

    def __init__(
        self, root: Path, keys: Keys, by_hash: bool = True, in_release: bool = True, flat: bool = False
    ) -> None:
        self.root = root
        self.keys = keys
        self.by_hash = by_hash
        self.in_release = in_release
        self.suite = root if flat else root / "dists/test"
        self.packages = self.suite if flat else self.suite / "main/binary-all"
        self.pool = root if flat else root / "pool/main"
        self.flat = flat
        self.serial = 0
        for directory in (self.suite, self.packages, self.pool):
            directory.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, version: str = "1.0", payload: bytes = b"") -> Path:
        """Put a package into the pool, in the place of one of the same name and version."""
        deb = build_deb(self.pool, name, version, payload)
        target = self.pool / name[0] / name / deb.name if not self.flat else self.pool / deb.name
        target.parent.mkdir(parents=True, exist_ok=True)
        deb.replace(target)
        return target

    def indexes(self) -> dict[str, bytes]:
        """The index files as they should be now, by path below the suite."""
        listed = run("apt-ftparchive", "packages", "." if self.flat else "pool", directory=self.root)
        architectures = ["all"] if self.flat else ["all", architecture()]
        files: dict[str, bytes] = {}
        for one in architectures:
            base = "" if self.flat else f"main/binary-{one}/"
            files[base + "Packages"] = listed
            files[base + "Packages.gz"] = gzip.compress(listed, mtime=0)
            files[base + "Packages.xz"] = lzma.compress(listed)
            files[base + "Packages.bz2"] = bz2.compress(listed)
        if not self.flat:
            files["main/i18n/Translation-en"] = f"Package: none{self.serial}\n\n".encode()
        return files

    def publish(self, date: float | None = None, indexes: bool = True, release: bool = True, gpg: bool = True) -> None:
        """Write index files, then the Release files; any of the three can be left as it was."""
        self.serial += 1
        when = time.time() if date is None else date
        files = self.indexes()
        names = [name for name in files if not name.endswith("Packages")]
        text = f"Origin: Test\nSuite: test\nCodename: test\nX-Serial: {self.serial}\n"
        text += f"Date: {formatdate(when, usegmt=True).replace('GMT', 'UTC')}\nArchitectures: all {architecture()}\n"
        text += "Components: main\n" + ("Acquire-By-Hash: yes\n" if self.by_hash else "")
        for field, algorithm in (("MD5Sum", "md5"), ("SHA256", "sha256")):
            text += field + ":\n"
            for name, data in files.items():
                text += f" {hashlib.new(algorithm, data).hexdigest()} {len(data)} {name}\n"
        if indexes:
            for name in names:
                self.write(name, files[name])
                if self.by_hash:
                    for field, algorithm in (("MD5Sum", "md5"), ("SHA256", "sha256")):
                        base = Path(name).parent / "by-hash" / field / hashlib.new(algorithm, files[name]).hexdigest()
                        self.write(str(base), files[name])
        if release:
            self.write("Release", text.encode())
            if self.in_release:
                self.write("InRelease", self.keys.inline(text.encode()))
        if gpg:
            self.write("Release.gpg", self.keys.detached((self.suite / "Release").read_bytes()))

    def directory_for(self, name: str) -> Path:
        """A directory for what is worked out about an index file."""
        directory = self.root.parent / "work" / name.replace("/", "-")
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def write(self, name: str, data: bytes) -> None:
        """Replace one file in one step; its time is some seconds ago, as of what has been published for a while."""
        path = self.suite / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_bytes(data)
        stamp = time.time() - 1000 + self.serial
        os.utime(new, (stamp, stamp))
        new.replace(path)


def architecture() -> str:
    """This machine's architecture as dpkg calls it."""
    return run("dpkg", "--print-architecture").decode().strip()


class Apt:
    """A client: apt-get in directories of its own, with one sources.list."""

    def __init__(self, directory: Path, sources: str, *options: str) -> None:
        need("apt-get")
        self.directory = directory
        for name in (
            "state/lists/partial",
            "cache/archives/partial",
            "etc/preferences.d",
            "etc/apt.conf.d",
            "log",
            "tmp",
        ):
            (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / "status").touch()
        (directory / "etc/sources.list").write_text(sources)
        self.options = (
            f"Dir::Etc={directory}/etc", f"Dir::State={directory}/state", f"Dir::State::status={directory}/status",
            f"Dir::Cache={directory}/cache", f"Dir::Log={directory}/log", "Dir::Etc::sourceparts=/dev/null",
            f"Dir::Etc::sourcelist={directory}/etc/sources.list", "APT::Sandbox::User=root",
            "Acquire::Languages=en", "Debug::NoLocking=1", *options,
        )  # fmt: skip
        (directory / "apt.conf").write_text(f'Dir::Etc "{directory}/etc"; Dir::Etc::parts "apt.conf.d";\n')

    def run(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        """Run apt-get; what it says is in ``stdout``, errors included."""
        command = ["apt-get", "-q"]
        for option in self.options:
            command += ["-o", option]
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        variables = {
            **kept,
            "APT_CONFIG": str(self.directory / "apt.conf"),
            "LC_ALL": "C",
            "TMPDIR": str(self.directory / "tmp"),
        }
        return subprocess.run(
            [*command, *arguments], cwd=self.directory / "tmp", env=variables, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False,
        )  # fmt: skip

    def update(self) -> bytes:
        """``apt-get update`` that must succeed without a word of trouble; what it said."""
        done = self.run("update")
        if done.returncode or b"\nW:" in done.stdout or b"\nE:" in done.stdout or b"Err:" in done.stdout:
            raise AssertionError(done.stdout.decode(errors="replace"))
        return done.stdout

    def download(self, *packages: str) -> list[Path]:
        """``apt-get download``; the files it brought."""
        before = set((self.directory / "tmp").glob("*.deb"))
        done = self.run("download", *packages)
        if done.returncode:
            raise AssertionError(done.stdout.decode(errors="replace"))
        return sorted(set((self.directory / "tmp").glob("*.deb")) - before)

    def forget(self) -> None:
        """Have no lists and no packages any more."""
        for name in ("state/lists", "cache/archives"):
            shutil.rmtree(self.directory / name)
            (self.directory / name / "partial").mkdir(parents=True)
        for deb in (self.directory / "tmp").glob("*.deb"):
            deb.unlink()
