"""Starting, stopping and reconfiguring a vault the ways an operator does."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.functional.case import FunctionalCase
from tests.functional.certificates import Authority
from tests.functional.clients import ask
from tests.functional.script import MIB, Answer
from tests.functional.vault_process import (
    ROOT,
    VaultProcess,
    command_line,
    environment,
    eventually,
    free_port,
    twistd,
)


class StartTests(FunctionalCase):
    """The ways to start it, and what it says."""

    def run_to_end(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command that is expected to end by itself."""
        return subprocess.run(
            command,
            cwd=ROOT,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )

    def start_with(self, *command: str, **variables: str) -> VaultProcess:
        """Start a vault by another command; ``CONFIG`` in it stands for its configuration file."""
        directory = self.directory / "vault"
        directory.mkdir()
        config_file = str(directory / "config.yml")
        vault = VaultProcess(
            directory,
            {"backends": [self.backend()]},
            [config_file if argument == "CONFIG" else argument for argument in command],
            {name: config_file if value == "CONFIG" else value for name, value in variables.items()},
        )
        self.look_after(vault)
        vault.start()
        self.vault = vault
        return vault

    def assert_serves(self) -> None:
        """The vault does what it is for."""
        content = self.origin.put("/a", 1000)
        self.assert_whole(self.get("/a"), content)

    def test_plugin(self) -> None:
        """``twistd artifact-vault`` says where it listens and which backends it has."""
        vault = self.start_vault()
        self.assert_serves()
        self.assertIn(f"listening on http://127.0.0.1:{vault.port}", vault.log())
        [line] = [line for line in vault.log().splitlines() if "/o/" in line and "GET" not in line]
        self.assertIn("http", line)
        self.assertIn(self.origin.url, line)

    def test_tac(self) -> None:
        """``twistd -y vault.tac`` runs the file that ARTIFACT_VAULT_CONFIG names."""
        self.start_with(*twistd("-n", "--pidfile=", "-y", "vault.tac"), ARTIFACT_VAULT_CONFIG="CONFIG")
        self.assert_serves()
        self.assertEqual(self.vault.terminate(), 0)

    def test_module(self) -> None:
        """``python -m vault --config FILE --log-level DEBUG`` serves."""
        self.start_with(sys.executable, "-m", "vault", "--config", "CONFIG", "--log-level", "DEBUG")
        self.assert_serves()
        self.assertEqual(self.vault.terminate(), 0)

    def test_serve_command(self) -> None:
        """``artifact-vault serve --config FILE`` serves."""
        self.start_with(*command_line("serve", "--config", "CONFIG"))
        self.assert_serves()

    def test_without_configuration(self) -> None:
        """Without any configuration file it runs the built-in sample on port 8080."""
        try:
            socket.create_server(("127.0.0.1", 8080)).close()
        except OSError:
            raise SkipTest("port 8080 is in use") from None
        directory = self.directory / "vault"
        directory.mkdir()
        vault = VaultProcess(directory, {}, twistd("-n", "--pidfile=", "artifact-vault"), {"HOME": str(directory)})
        self.look_after(vault)
        vault.start()
        self.assertEqual(ask(8080, "/healthz").status, 200)
        self.assertIn("/archive.apache.org/", vault.log())
        self.assertIn("https://archive.apache.org/dist/", vault.log())

    def test_check_config(self) -> None:
        """``artifact-vault check-config`` accepts a good file and lists every mistake in a bad one."""
        good = self.new_vault()
        self.assertEqual(self.run_to_end(*command_line("check-config", str(good.config_file))).returncode, 0)
        sample = self.run_to_end(*command_line("check-config", str(ROOT / "config-sample.yml")))
        self.assertEqual(sample.returncode, 0, sample.stdout)
        bad = self.directory / "bad.yml"
        bad.write_text(BAD)
        checked = self.run_to_end(*command_line("check-config", str(bad)))
        self.assert_mistakes(checked, str(bad))

    def test_bad_configuration(self) -> None:
        """A wrong file is refused with every mistake, status 1 and no traceback, before anything listens."""
        bad = self.directory / "bad.yml"
        bad.write_text(BAD)
        for command in (twistd("-n", "--pidfile=", "artifact-vault"), [sys.executable, "-m", "vault"]):
            self.assert_mistakes(self.run_to_end(*command, "--config", str(bad)), str(bad))

    def assert_mistakes(self, ended: subprocess.CompletedProcess[str], file: str) -> None:
        self.assertEqual(ended.returncode, 1, ended.stdout)
        self.assertNotIn("Traceback", ended.stdout)
        for line, key in ((1, "http_port"), (2, "colour"), (5, "prefix"), (6, "base_url")):
            self.assertRegex(ended.stdout, rf"{re.escape(file)}:{line}\b.*{key}")
        self.assertNotIn("top-secret", ended.stdout)

    def test_missing_configuration_file(self) -> None:
        """A configuration file that is not there is one clear line."""
        ended = self.run_to_end(*twistd("-n", "--pidfile=", "artifact-vault", "--config", "/nonexistent/vault.yml"))
        self.assertEqual(ended.returncode, 1, ended.stdout)
        self.assertIn("/nonexistent/vault.yml", ended.stdout)
        self.assertNotIn("Traceback", ended.stdout)

    def test_port_in_use(self) -> None:
        """A port that is taken is one clear line and status 1."""
        vault = self.new_vault()
        with socket.create_server(("127.0.0.1", vault.port)):
            vault.launch()
            self.assertEqual(vault.wait(), 1)
        [line] = [line for line in vault.log().splitlines() if "INFO" not in line]
        self.assertIn(str(vault.port), line)
        self.assertIn("in use", line)

    def test_second_vault_on_the_same_cache(self) -> None:
        """A second vault on the same cache directory refuses to start, and the first goes on."""
        first = self.start_vault()
        second = self.new_vault("second", top={"cache_dir": str(first.cache_dir)})
        second.launch()
        self.assertEqual(second.wait(), 1)
        self.assertIn(str(first.cache_dir), second.log())
        self.assert_serves()

    def test_cache_directory_that_cannot_be_used(self) -> None:
        """A cache directory that is a file is one clear line and status 1."""
        blocked = self.directory / "file"
        blocked.write_bytes(b"")
        vault = self.new_vault(top={"cache_dir": str(blocked)})
        vault.launch()
        self.assertEqual(vault.wait(), 1)
        self.assertIn(str(blocked), vault.log())


class EarlySignalTests(FunctionalCase):
    """Signals to a vault that is still importing what it is made of."""

    def launch(self, name: str, *command: str) -> VaultProcess:
        """A vault that has just taken the signals; ``CONFIG`` in the command stands for its configuration file."""
        vault = self.new_vault(name)
        file = str(vault.config_file)
        words = [file if word == "CONFIG" else word for word in command]
        vault = VaultProcess(vault.config_file.parent, vault.config, words, {"ARTIFACT_VAULT_CONFIG": file})
        self.look_after(vault)
        vault.launch()
        # Not by the clock: until then a signal does what it does to any Python program.
        eventually(lambda: ignores(vault, signal.SIGUSR1) or vault.exited(), 20, "a vault that takes signals")
        self.assertNotIn("listening", vault.log())
        return vault

    def test_end(self) -> None:
        """SIGTERM and SIGINT end it at once, with status 0 and without a word."""
        commands = [
            twistd("-n", "--pidfile=", "artifact-vault", "--config", "CONFIG"),
            twistd("-n", "--pidfile=", "-y", "vault.tac"),
            command_line("serve", "--config", "CONFIG"),
            [sys.executable, "-m", "vault", "--config", "CONFIG"],
        ]
        for number, command in enumerate(commands):
            for ending in (signal.SIGTERM, signal.SIGINT):
                vault = self.launch(f"{number}-{ending}", *command)
                time.sleep(0.05 * number)
                vault.signal(ending)
                self.assertEqual((vault.wait(), vault.log()), (0, ""), command)

    def test_reload(self) -> None:
        """SIGHUP and SIGUSR1 do it no harm."""
        command = twistd("-n", "--pidfile=", "artifact-vault", "--config", "CONFIG")
        for harmless in (signal.SIGHUP, signal.SIGUSR1):
            vault = self.launch(f"{harmless}", *command)
            while "listening" not in vault.log() and not vault.exited():
                vault.signal(harmless)
                time.sleep(0.02)
            vault.wait_for_log("listening on")
            self.assertEqual(vault.terminate(), 0)


def ignores(vault: VaultProcess, number: int) -> bool:
    """True where a process ignores a signal (proc(5), SigIgn)."""
    try:
        status = Path(f"/proc/{vault.pid}/status").read_text()
    except OSError:
        return False
    found = re.search(r"^SigIgn:\s*([0-9a-f]+)", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


class DaemonTests(FunctionalCase):
    """twistd without -n: a process that goes into the background."""

    def daemonise(self, vault: VaultProcess, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run twistd until it leaves the daemon alone; pid file and log are in the vault's directory."""
        beside = vault.config_file.parent
        files = (f"--pidfile={beside / 'pid'}", f"--logfile={beside / 'daemon.log'}")
        rest = options or ("artifact-vault", "--config", str(vault.config_file))
        return subprocess.run(
            twistd(*files, *rest),
            cwd=ROOT,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def assert_refused(self, vault: VaultProcess, reason: str) -> None:
        """The start fails with status 1; why is said on the terminal and in the log, and nothing is left."""
        ended = self.daemonise(vault)
        self.assertEqual(ended.returncode, 1, ended)
        self.assertIn(reason, ended.stderr)
        eventually(lambda: not (vault.config_file.parent / "pid").exists(), what="no pid file")
        log = (vault.config_file.parent / "daemon.log").read_text()
        self.assertEqual(len([line for line in log.splitlines() if reason in line]), 1, log)
        self.assertNotIn("Traceback", log + ended.stderr)

    def test_port_in_use(self) -> None:
        """A port that is taken does not leave the terminal waiting."""
        vault = self.new_vault()
        with socket.create_server(("127.0.0.1", vault.port)):
            self.assert_refused(vault, f"cannot listen on 127.0.0.1:{vault.port}")

    def test_cache_directory(self) -> None:
        """Neither does a cache directory that cannot be used, or that another vault uses."""
        blocked = self.directory / "blocked"
        blocked.mkdir()
        (blocked / ".vault").write_bytes(b"")
        self.assert_refused(self.new_vault(top={"cache_dir": str(blocked)}), f"cache directory {blocked}/.vault")
        first = self.start_vault(name="first")
        second = self.new_vault("second", top={"cache_dir": str(first.cache_dir)})
        self.assert_refused(second, f"the cache directory {first.cache_dir}")


BAD = """\
http_port: 99999
colour: blue
backends:
  - type: http
    config: {prefix: files,
             base_url: gopher://example.invalid/, password: top-secret}
"""


class ReloadTests(FunctionalCase):
    """SIGHUP rereads the configuration."""

    def test_good_file(self) -> None:
        """A new backend is served after SIGHUP, and downloads in progress are not disturbed."""
        content = self.origin.put("/slow", 2 * MIB, default=Answer(rate=2 * MIB))
        self.origin.put("/a", 1000)
        self.start_vault()
        slow = self.stream("/slow")
        slow.read(1000)
        more = {"type": "http", "config": {"prefix": "/more/", "base_url": self.origin.url + "/"}}
        self.vault.write_config(backends=[self.backend(), more])
        self.vault.signal(signal.SIGHUP)
        eventually(lambda: ask(self.vault.port, "/more/a").status == 200, what="the new backend")
        self.assertTrue(slow.rest() == content.read(1000, content.size))

    def test_bad_file(self) -> None:
        """A bad file is refused with its mistakes, and the old configuration stays."""
        content = self.origin.put("/a", 1000)
        self.start_vault()
        self.vault.config_file.write_text(BAD)
        self.vault.signal(signal.SIGHUP)
        self.vault.wait_for_log(r"config\.yml:2\b.*colour")
        self.assert_whole(self.get("/a"), content)

    def test_at_once(self) -> None:
        """SIGHUP is taken from the moment that the log says where it listens, and never ends the vault."""
        for attempt in range(3):
            vault = self.new_vault(f"early-{attempt}")
            vault.launch()
            while "listening" not in vault.log() and not vault.exited():
                pass  # not a moment later
            vault.signal(signal.SIGHUP)
            vault.wait_for_log("was read again")
            vault.terminate()

    def reload(self, **changes: Any) -> list[str]:
        """Change the configuration and let the vault read it again; what it logs of that."""
        before = len(self.vault.log())
        self.vault.write_config(**changes)
        self.vault.signal(signal.SIGHUP)
        eventually(lambda: "was read again" in self.vault.log()[before:], what="a reload")
        return self.vault.log()[before:].splitlines()

    def test_modes(self) -> None:
        """New modes hold for what is stored from then on."""
        content = self.origin.put("/dir/a", 1000)
        self.start_vault()
        self.reload(cache={"file_mode": "0600", "dir_mode": "0700"})
        self.get("/dir/a")
        self.wait_until_kept("/dir/a", content)
        file = self.kept("/dir/a")
        self.assertEqual([stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)], [0o600, 0o700])

    def test_certificates_changed(self) -> None:
        """New certificates under the name of the old file are trusted after SIGHUP."""
        old, new = Authority(self.directory / "old"), Authority(self.directory / "new")
        origin = self.start_origin(tls=new.server_context())
        contents = [origin.put(name, 1000) for name in ("/a", "/b")]
        ca_file = self.directory / "ca.pem"
        ca_file.write_bytes(old.ca_file.read_bytes())
        self.start_vault(base_url=origin.url + "/", ca_file=str(ca_file))
        self.assertEqual(self.get("/a").status, 502)
        ca_file.write_bytes(new.ca_file.read_bytes())
        self.reload()
        self.assert_whole(self.get("/b"), contents[1])

    def test_restart_needed(self) -> None:
        """It is said each time that a change needs a restart, until the change is taken back."""
        self.start_vault()
        before = self.vault.config["cache_dir"]
        for directory, told in ((before + "2", True), (before + "2", True), (before, False)):
            log = self.reload(cache_dir=directory)
            self.assertEqual(any("cache_dir needs a restart" in line for line in log), told, log)


class StopTests(FunctionalCase):
    """SIGTERM, while clients are being served."""

    def test_two_signals(self) -> None:
        """Two signals at once are one end, and no error."""
        self.start_vault()
        self.vault.signal(signal.SIGTERM)
        self.vault.signal(signal.SIGINT)
        self.assertEqual(self.vault.wait(), 0)

    def test_cut_off(self) -> None:
        """A response that is cut off ends by a reset, so that nobody takes it for whole, and has its log line."""
        self.origin.put("/a", 30 * MIB, default=Answer(framing="chunked"))
        self.start_vault()
        self.get("/a")
        self.wait_until_stored("/a")
        clients = []
        for number in range(5):
            client = socket.socket()
            self.addCleanup(client.close)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(10)
            client.connect(("127.0.0.1", self.vault.port))
            client.sendall(f"GET /o/a HTTP/1.0\r\nUser-Agent: cut/{number}\r\n\r\n".encode())
            self.assertIn(b" 200 ", client.recv(100))
            clients.append(client)
        self.assertEqual(self.vault.terminate(), 0)
        for number, client in enumerate(clients):
            self.assertRaises(ConnectionResetError, read_to_the_end, client)
            self.assertRegex(self.vault.log(), f'"cut/{number}" .* aborted')


def read_to_the_end(client: socket.socket) -> None:
    """Read until the end of file, or an error."""
    while client.recv(1 << 20):
        pass


class ListenTests(FunctionalCase):
    """Any endpoint of Twisted's will do."""

    def test_unix_socket(self) -> None:
        """It listens on a unix socket."""
        path = self.directory / "socket"
        content = self.origin.put("/a", 1000)
        port = free_port()
        self.vault = self.new_vault(top={"listen": [f"unix:{path}", f"tcp:{port}:interface=127.0.0.1"]})
        self.vault.start()
        eventually(path.is_socket, what="the socket")
        done = self.run_client("curl", "-q", "-sS", "--unix-socket", str(path), "http://vault/o/a")
        self.assertEqual(done.stdout, content.whole(), done.stderr)
        self.assert_whole(ask(port, "/o/a"), content)
        self.assertEqual(ask(port, "/healthz").status, 200)

    def test_tls(self) -> None:
        """It speaks TLS on an ssl endpoint, and a body that is cut there is noticed too."""
        authority = Authority(self.directory / "ca")
        pem, port = authority.server_file, free_port()
        content = self.origin.put("/a", 3 * MIB)
        self.origin.put("/cut", MIB, script=[Answer(drop_after=100_000)], default=Answer(drop_after=0))
        endpoint = f"ssl:{port}:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
        self.vault = self.new_vault(top={"listen": [endpoint]}, retries=0)
        self.vault.start()
        self.assertIn(f"listening on https://127.0.0.1:{port}", self.vault.log())
        curl = ("curl", "-q", "-sS", "--cacert", str(authority.ca_file))
        for _ in range(2):
            done = self.run_client(*curl, f"https://127.0.0.1:{port}/o/a")
            self.assertTrue(done.stdout == content.whole(), done.stderr)
        self.assertNotEqual(self.run_client(*curl, f"https://127.0.0.1:{port}/o/cut").returncode, 0)


class PassedSocketTests(FunctionalCase):
    """Sockets that were opened before the vault was started, as systemd passes them."""

    def start_passing(self, passed: socket.socket, endpoint: str, names: str = "vault") -> VaultProcess:
        """A vault that is handed a socket as sd_listen_fds(3) says."""
        vault = self.new_vault(f"vault-{len(list(self.directory.iterdir()))}", top={"listen": [endpoint]})
        environ = f"os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES={names!r})"
        code = f"import os, sys; os.dup2({passed.fileno()}, 3); {environ}; os.execv(sys.argv[1], sys.argv[1:])"
        command = twistd("-n", "--pidfile=", "artifact-vault", "--config", str(vault.config_file))
        vault = VaultProcess(vault.config_file.parent, vault.config, [sys.executable, "-c", code, *command])
        self.look_after(vault)
        vault.launch(pass_fds=[passed.fileno()])
        return vault

    def test_passed(self) -> None:
        """It serves on a socket that it is handed."""
        for family, host, which, names in (
            (socket.AF_INET, "127.0.0.1", "name=vault", "vault"),
            (socket.AF_INET6, "::1", "name=vault", "vault"),
            (socket.AF_INET, "127.0.0.1", "index=0", ""),  # as systemd-socket-activate does it
        ):
            with socket.create_server((host, 0), family=family) as passed:
                domain = family.name.removeprefix("AF_")
                vault = self.start_passing(passed, f"systemd:domain={domain}:{which}", names)
                vault.wait_for_log("listening on")
                with socket.create_connection(passed.getsockname()[:2]) as client:
                    client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                    self.assertIn(b" 200 ", client.recv(100))
                self.assertEqual(vault.terminate(), 0)

    def test_passed_again(self) -> None:
        """Who connects while the vault is restarted waits, and is served by the next one."""
        path = str(self.directory / "socket")
        for family, address, domain in ((socket.AF_UNIX, path, "UNIX"), (socket.AF_INET, ("127.0.0.1", 0), "INET")):
            with socket.create_server(address, family=family) as passed:
                vault = self.start_passing(passed, f"systemd:domain={domain}:index=0")
                vault.wait_for_log("listening on")
                self.assertEqual(vault.terminate(), 0)
                with socket.socket(family) as client:
                    client.settimeout(20)
                    client.connect(passed.getsockname())
                    client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                    vault = self.start_passing(passed, f"systemd:domain={domain}:index=0")
                    self.assertIn(b" 200 ", client.recv(100))
                self.assertEqual(vault.terminate(), 0)

    def test_not_as_described(self) -> None:
        """A socket that is not what the endpoint says is one clear line and status 1."""
        path = str(self.directory / "socket")
        for passed, endpoint, told in (
            (socket.create_server(("127.0.0.1", 0)), "domain=INET6:index=0", "domain=INET$"),
            (socket.create_server(path, family=socket.AF_UNIX), "domain=INET:index=0", "domain=UNIX$"),
            (socket.create_server(("::1", 0), family=socket.AF_INET6), "domain=UNIX:index=0", "domain=INET6$"),
            (socket.create_server(("127.0.0.1", 0)), "domain=INET:index=1", "passed no such socket"),
            (socket.create_server(("127.0.0.1", 0)), "domain=INET:name=other", "passed no such socket"),
            (socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "domain=INET:index=0", "takes no connections"),
        ):
            with passed:
                vault = self.start_passing(passed, f"systemd:{endpoint}")
                self.assertEqual(vault.wait(), 1, vault.log())
                [line] = [line for line in vault.log().splitlines() if "INFO" not in line]
                self.assertRegex(line, f"^cannot listen on systemd:{endpoint}: .*{told}")


class HealthTests(FunctionalCase):
    """What supervisors and logs see."""

    def test_health(self) -> None:
        """/healthz and /readyz answer without any upstream."""
        self.origin.stop()
        self.start_vault()
        self.assertEqual(ask(self.vault.port, "/healthz").status, 200)
        self.assertEqual(ask(self.vault.port, "/readyz").status, 200)

    def test_access_log(self) -> None:
        """Each request is one line in combined format with the cache result."""
        self.origin.put("/a", 1000)
        self.start_vault()
        for path in ("/a", "/none"):
            self.get(path, {"User-Agent": "tester/1"})
        self.wait_until_stored("/a")
        self.get("/a", {"Range": "bytes=0-9"})
        self.vault.wait_for_log(r'"GET /o/a HTTP/1\.1" 206 10 ".*HIT')
        self.vault.wait_for_log(r'127\.0\.0\.1 - - \[[^]]+\] "GET /o/a HTTP/1\.1" 200 1000 "-" "tester/1" MISS')
        self.vault.wait_for_log(r'"GET /o/none HTTP/1\.1" 404 ')
        self.assertEqual(len(re.findall(r'"GET /o/a HTTP/1\.1" 200', self.vault.log())), 1)

    def test_access_log_of_an_aborted_request(self) -> None:
        """A client that leaves early has its line too."""
        self.origin.put("/a", 4 * MIB, default=Answer(rate=4 * MIB))
        self.start_vault()
        stream = self.stream("/a")
        stream.read(1000)
        stream.close()
        self.vault.wait_for_log(r'"GET /o/a HTTP/1\.1" .*abort')

    def test_json_log(self) -> None:
        """With ``log_format: json`` every line is a JSON object."""
        self.origin.put("/a", 1000)
        vault = self.start_vault(top={"log_format": "json"})
        self.get("/a")
        eventually(lambda: "/o/a" in vault.log(), what="the access log's line")
        time.sleep(0.1)
        self.assertEqual(vault.terminate(), 0)
        for line in vault.log().splitlines():
            self.assertIsInstance(json.loads(line), dict)
