"""debootstrap through the vault, and the machine's own mirror where it has one."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.functional.apt_case import AptCase
from tests.functional.case import FunctionalCase
from tests.functional.clients import ask, together
from tests.functional.repository import Apt, architecture, need

SCRIPT = """mirror_style release
download_style apt
finddebs_style from-indices
variants - minbase
work_out_debs () {
    required="$(get_debs Priority: required)"
    base=""
}
"""


def debootstrap(directory: Path, keyring: Path, url: str) -> subprocess.CompletedProcess[bytes]:
    """Download what a minimal system of the suite ``test`` has."""
    script = directory / "script"
    script.write_text(SCRIPT)
    command = ["debootstrap", "--download-only", "--variant=minbase", f"--keyring={keyring}", "test"]
    return subprocess.run(
        [*command, str(directory / "target"), url, str(script)],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=90, check=False,
    )  # fmt: skip


class DebootstrapTests(AptCase):
    """A minimal system."""

    def test_two_at_once(self) -> None:
        """Two debootstraps at the same time on an empty cache have the upstream send each file once."""
        need("debootstrap", "wget")
        repository = self.serve()
        for number in range(6):
            repository.add(f"package{number}", f"1.{number}~rc+1", bytes(100_000))
        repository.publish()

        def work(number: int) -> subprocess.CompletedProcess[bytes]:
            directory = self.directory / f"system{number}"
            directory.mkdir()
            return debootstrap(directory, self.keys.public, f"{self.vault.url}/apt/")

        for done in together(2, work):
            self.assertEqual(done.returncode, 0, (done.stdout + done.stderr).decode())
        for number in range(2):
            archives = self.directory / f"system{number}/target/var/cache/apt/archives"
            self.assertEqual(len(list(archives.glob("*.deb"))), 7)
        sent = [path for method, path, status in self.server.requests if status == 200 and method == "GET"]
        self.assertEqual(sorted(sent), sorted(set(sent)))
        # apt spells ~ and + in another way, and finds the same entries.
        apt = self.client()
        apt.update()
        before = len(self.server.requests)
        apt.download("package3")
        self.assertEqual([one for one in self.server.requests[before:] if one[2] == 200], [])


def own_mirror() -> tuple[str, str, str, str]:
    """URL, suite, component and keyring of a mirror that this machine uses; skips the test where it has none."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n\n".join(file.read_text(errors="replace") for file in files if file.is_file())
    for stanza in re.split(r"\n\s*\n", text):
        lines = (line for line in stanza.splitlines() if not line.startswith("#"))
        fields = dict(re.findall(r"^([A-Za-z-]+):\s*(.+)$", "\n".join(lines), re.MULTILINE))
        if fields.get("URIs", "").startswith("http") and {"Suites", "Components", "Signed-By"} <= fields.keys():
            first = [fields[name].split()[0] for name in ("URIs", "Suites", "Components", "Signed-By")]
            return first[0], first[1], first[2], first[3]
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[[^]]*signed-by=(\S+?)[^]]*\]\s+)?(https?://\S+)\s+(\S+)\s+(\S+)", line)
        if match is not None:
            return match[2], match[3], match[4], match[1] or ""
    raise SkipTest("this machine has no APT mirror configured")


class SmokeTests(FunctionalCase):
    """The mirror that this machine itself uses."""

    timeout = 300

    def test_own_mirror(self) -> None:
        """apt updates and downloads a small package from a real archive through the vault, cold and warm."""
        need("apt-get")
        url, suite, component, keyring = own_mirror()
        try:
            urllib.request.urlopen(f"{url.rstrip('/')}/dists/{suite}/InRelease", timeout=10).close()
        except (OSError, urllib.error.URLError) as error:
            raise SkipTest(f"this machine's APT mirror cannot be reached: {error}") from error
        config = {"prefix": "/own/", "mirror_url": url.rstrip("/") + "/"}
        vault = self.start_vault(backends=[{"type": "apt", "config": config}])
        option = f"[signed-by={keyring}] " if keyring else ""
        source = f"deb {option}{vault.url}/own/ {suite} {component}\n"
        for name in ("cold", "warm"):
            apt = Apt(self.directory / name, source, f"APT::Architecture={architecture()}")
            apt.update()
            self.assertEqual(len(apt.download("hostname")), 1)
        self.assertIn(" HIT own ", vault.log())
        self.assertEqual(ask(vault.port, f"/own/dists/{suite}/no-such-file").status, 404)
        shutil.rmtree(self.directory / "warm")
