"""Configurations: what is read, what is refused, and what a message says and does not say.

This module is a backend too (``type: tests.test_config``), so that nothing here depends on those that ship.
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from vault import config as configuration
from vault.artifact import Artifact
from vault.backend import Backend
from vault.config import Config, MinFree, load, load_text
from vault.connect import tls_policy
from vault.errors import ConfigError
from vault.interfaces import IBackend
from vault.options import Options, UpstreamOptions


@dataclass(frozen=True)
class Recorded(Backend):
    """What the test backend made of its options."""

    name: str
    prefix: str
    upstreams: tuple[str, ...]
    token_url: str | None
    suites: tuple[str, ...]
    others: tuple[Options, ...]
    upstream: UpstreamOptions

    def resolve(self, path: str, headers: Mapping[str, str]) -> Artifact:
        """Nothing is asked for here."""
        raise NotImplementedError


def make_backend(name: str, options: Options) -> IBackend:
    """A backend with a key of every kind."""
    if options.flag("refuse"):
        raise ConfigError(["the backend refuses"])
    if options.flag("crash"):
        raise RuntimeError("hunter2")
    if options.flag("leave"):
        raise SystemExit("hunter2")
    if options.flag("nothing"):
        return cast(IBackend, None)
    if options.integer("even", 0) % 2:
        options.problem("even", "is odd; give an even number")
    others = options.mappings("others")
    for other in others:
        other.url("token_url", required=True)
    made = Recorded(
        name=name,
        prefix=options.prefix,
        upstreams=options.urls("base_url", "base_urls", default=("http://127.0.0.1/default/",)),
        token_url=options.url("token_url"),
        suites=options.strings("suites"),
        others=others,
        upstream=options.upstream,
    )
    options.seconds("pause", None)
    options.text("note", "none")
    return cast(IBackend, made)


BACKEND = """
backends:
- type: tests.test_config
  config:
    prefix: /files/
"""


def certificate(directory: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key as two PEM files in a new directory."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + datetime.timedelta(days=36500))
    path = Path(directory)
    path.mkdir()
    (path / "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (path / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return path / "cert.pem", path / "key.pem"


class ConfigTestCase(SynchronousTestCase):
    """Short ways to load a text and to see what is wrong with it."""

    def read(self, text: str, environ: Mapping[str, str] | None = None) -> Config:
        return load_text(text, "vault.yml", environ or {})

    def problems(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        error = self.assertRaises(ConfigError, self.read, text, environ)
        for problem in error.problems:
            self.assertRegex(problem, r"\Avault\.yml:\d+: .*[;?]", "each line has its place and says what is right")
        return list(error.problems)

    def problem(self, text: str, environ: Mapping[str, str] | None = None) -> str:
        problems = self.problems(text, environ)
        self.assertEqual(len(problems), 1, problems)
        return problems[0]

    def options(self, lines: str, environ: Mapping[str, str] | None = None) -> Recorded:
        return cast(Recorded, self.read(BACKEND + self.indented(lines), environ).backends[0].backend)

    def option_problem(self, lines: str, environ: Mapping[str, str] | None = None) -> str:
        return self.problem(BACKEND + self.indented(lines), environ)

    def indented(self, lines: str) -> str:
        return "".join(f"    {line}\n" for line in lines.splitlines())


class TopLevelTests(ConfigTestCase):
    """The keys outside the backends."""

    def test_defaults(self) -> None:
        """A configuration with nothing but a backend has the documented defaults."""
        config = self.read(BACKEND)
        self.assertEqual((config.file, config.http_host, config.http_port), ("vault.yml", "localhost", 8080))
        self.assertEqual((config.listen, config.cache_dir), ((), Path("/tmp/artifact_vault_cache")))
        self.assertEqual((config.log_level, config.log_format, config.offline), ("INFO", "text", False))
        self.assertEqual((config.shutdown_timeout, config.access_allow), (30.0, ()))
        self.assertEqual(config.cache, configuration.CacheOptions(50 * 1024**3, MinFree(percent=5.0), 0o750, 0o640))
        self.assertEqual(config.limits, configuration.Limits(None, None, 1000, 30.0, 60.0, 60.0))

    def test_everything_given(self) -> None:
        """Each key takes the place of its default."""
        config = self.read(
            "http_host: '::1'\nhttp_port: 0\nlog_level: debug\nlog_format: json\nshutdown_timeout: 1.5\noffline: yes\n"
            "access: {allow: [10.0.0.0/8, '::1']}\n"
            "limits: {requests_per_second: 0.5, bytes_per_second: 1M, header_timeout: 1, stall_timeout: 2m}" + BACKEND
        )
        self.assertEqual((config.http_host, config.http_port, config.shutdown_timeout), ("::1", 0, 1.5))
        self.assertEqual((config.log_level, config.log_format, config.offline), ("DEBUG", "json", True))
        self.assertEqual(config.access_allow, (ip_network("10.0.0.0/8"), ip_network("::1/128")))
        self.assertEqual(config.limits, configuration.Limits(0.5, 1024**2, 1000, 1.0, 60.0, 120.0))

    def test_key_without_value(self) -> None:
        """A key without a value has its default."""
        self.assertEqual(self.read("http_port:\ncache:\nlimits:\nlisten:\naccess:" + BACKEND), self.read(BACKEND))

    def test_home(self) -> None:
        """A cache directory may begin with the home directory's sign."""
        self.assertEqual(self.read("cache_dir: ~/cache" + BACKEND).cache_dir, Path.home() / "cache")

    def test_sizes(self) -> None:
        """Sizes are bytes, or have a unit by 1000 or 1024."""
        sizes = {"5": 5, "1K": 1024, "1KB": 1000, "1KiB": 1024, "2m": 2 * 1024**2, "1.5 GiB": 3 * 1024**3 // 2}
        sizes |= {"1TB": 10**12, "1T": 1024**4, "10B": 10}
        for text, size in sizes.items():
            self.assertEqual(self.read(f"cache: {{max_size: {text}}}{BACKEND}").cache.max_size, size, text)

    def test_min_free(self) -> None:
        """What stays free is a part of the disk or a size."""
        for text, size in {"10%": 100, "12.5%": 125, "2K": 2048, "0": 0, "0%": 0}.items():
            config = self.read(f"cache: {{min_free: {text}}}{BACKEND}")
            self.assertEqual(config.cache.min_free.bytes(1000), size, text)

    def test_modes(self) -> None:
        """Modes are octal, quoted or not."""
        for text in ("0700", "'0700'", "700", "0o700"):
            self.assertEqual(self.read(f"cache: {{dir_mode: {text}}}{BACKEND}").cache.dir_mode, 0o700, text)
        self.assertEqual(self.read(f"cache: {{dir_mode: 02770}}{BACKEND}").cache.dir_mode, 0o2770)

    def test_mode_that_locks_out(self) -> None:
        """A mode must leave the vault its own rights."""
        self.assertIn("at least 0700", self.problem("cache: {dir_mode: 0650}" + BACKEND))
        self.assertIn("at least 0600", self.problem("cache: {file_mode: 0440}" + BACKEND))

    def test_durations(self) -> None:
        """Durations are seconds, or have a unit."""
        for text, seconds in {"0": 0, "2.5": 2.5, "10s": 10, "5m": 300, "2h": 7200, "1d": 86400}.items():
            self.assertEqual(self.read(f"shutdown_timeout: {text}{BACKEND}").shutdown_timeout, seconds, text)

    def test_max_clients(self) -> None:
        """The limit of connections may stand at the top or among the limits, but not in both."""
        self.assertEqual(self.read("max_clients: 7" + BACKEND).limits.max_clients, 7)
        self.assertEqual(self.read("limits: {max_clients: 8}" + BACKEND).limits.max_clients, 8)
        self.assertIn("give it once", self.problem("max_clients: 7\nlimits: {max_clients: 7}" + BACKEND))

    def test_wrong_values(self) -> None:
        """A value of the wrong kind is refused, shown, and what would be right is said."""
        for line, wrong, right in [
            ("http_port: 65536", "http_port: '65536'", "from 0 to 65535"),
            ("http_port: web", "'web'", "whole number"),
            ("http_host: localhost:80", "'localhost:80'", "alone"),
            ("log_level: LOUD", "'LOUD'", "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
            ("log_format: xml", "'xml'", "text, json"),
            ("shutdown_timeout: soon", "'soon'", "5m"),
            ("shutdown_timeout: -1", "'-1'", "seconds"),
            ("offline: maybe", "'maybe'", "true or false"),
            ("max_clients: 0", "'0'", "1 or more"),
            ("cache: {max_size: 5 bananas}", "cache.max_size: '5 bananas'", "50GiB"),
            ("cache: {max_size: 0}", "'0'", "at least 1 byte"),
            ("cache: {max_size: " + "9" * 400 + "}", "cache.max_size: '999", "at most"),
            ("cache: {max_size: 9000000 T}", "'9000000 T'", "at most"),
            ("limits: {bytes_per_second: " + "9" * 5000 + "}", "'999", "at most"),
            ("limits: {requests_per_second: " + "9" * 400 + "}", "'999", "leave it out"),
            ("shutdown_timeout: " + "9" * 400, "'999", "at most 36500d"),
            ("http_port: " + "9" * 5000, "'999", "from 0 to 65535"),
            ('cache_dir: "/a\\0b"', "cache_dir: has a character in it that is no text", "leave it out"),
            ('cache_dir: "/a\\ud800b"', "cache_dir: has a character in it that is no text", "leave it out"),
            ("cache_dir: ''", "cache_dir: '' is empty", "/var/cache/"),
            ("cache_dir: ' '", "cache_dir: ' ' is empty", "/var/cache/"),
            ("cache_dir: ~nobody-of-that-name/a", "unknown home", "starts with /"),
            ("cache_dir: /dev/null", "is a file (/dev/null), not a directory", "another path"),
            ("cache_dir: /dev/null/cache/a", "leads through a file (/dev/null)", "another path"),
            ("http_host: fe80::1", "'fe80::1' is a link-local address", "%eth0"),
            ("cache: {min_free: 100%}", "'100%'", "5%"),
            ("cache: {dir_mode: rwx}", "'rwx'", "0750"),
            ("limits: {requests_per_second: 0}", "'0'", "leave it out"),
            ("limits: {stall_timeout: 0}", "'0'", "more than 0"),
            ("access: {allow: [10.1.2.3/8]}", "access.allow[0]: '10.1.2.3/8'", "did you mean 10.0.0.0/8?"),
            ("access: {allow: [everyone]}", "'everyone'", "10.0.0.0/8"),
            ("access: {allow: 10.0.0.0/8}", "access.allow: is not a list", "- "),
            ("cache: big", "cache: is not a mapping", "keys with values"),
            ("http_port: [1]", "http_port: is not a single value", "number"),
        ]:
            message = self.problem(line + BACKEND)
            self.assertTrue(message.startswith("vault.yml:1: "), message)
            self.assertIn(wrong, message)
            self.assertIn(right, message.partition("; ")[2], line)


class EndpointTests(ConfigTestCase):
    """Endpoint descriptions in ``listen``."""

    def listen(self, *descriptions: str) -> str:
        return "listen:\n" + "".join(f"- '{description}'\n" for description in descriptions) + BACKEND

    def test_good(self) -> None:
        """TCP, Unix and systemd endpoints are taken as they are, and nothing is bound or looked up."""
        good = ("tcp:0", r"tcp:8080:interface=\:\:1", "tcp6:8081", "unix:/nowhere/socket:mode=660")
        good += ("systemd:domain=INET:index=0", "systemd:domain=INET:name=0", "systemd:domain=UNIX:name=vault")
        good += (r"unix:/nowhere/a\\:mode=660", r"unix:/nowhere/a\:b\=c\=d")
        self.assertEqual(self.read(self.listen(*good)).listen, good)

    def test_tls(self) -> None:
        """A TLS endpoint with a certificate and its key is taken."""
        cert, key = certificate(self.mktemp())
        text = f"ssl:0:privateKey={key}:certKey={cert}"
        self.assertEqual(self.read(self.listen(text)).listen, (text,))

    def test_tls_files(self) -> None:
        """A TLS endpoint whose files are missing, no PEM, or do not belong together is refused by name."""
        cert, key = certificate(self.mktemp())
        _, other = certificate(self.mktemp())
        missing = cert.with_name("missing.pem").absolute()
        self.assertIn(f"needs {missing}", self.problem(self.listen(f"ssl:0:privateKey={key}:certKey={missing}")))
        for wrong in (f"ssl:0:privateKey={key}", f"ssl:0:privateKey={other}:certKey={cert}"):
            self.assertIn("no PEM certificate and key", self.problem(self.listen(wrong)))
        self.assertIn("no directory", self.problem(self.listen(f"tls:{missing}")))
        self.assertIn("no directory", self.problem(self.listen(f"tls:/{'a' * 5000}:1")))

    def test_wrong(self) -> None:
        """A description that nothing can listen on is refused with an example of its kind."""
        for text, right in [
            ("http:80", "tcp, tcp6, ssl, tls, unix, systemd"),
            ("8080", "such as tcp:8080"),
            ("tcp", "no port"),
            ("tcp:70000", "from 0 to 65535"),
            ("tcp:" + "9" * 5000, "from 0 to 65535"),
            ("tcp:\u00b2", "from 0 to 65535"),
            ("tcp:80:nonsense=1", "tcp:8080:interface"),
            ("unix:", "unix:/run/"),
            ("unix:/x:mode=z", "octal digits, such as 660"),
            ("tls::443", "tls:DIRECTORY"),
            ("systemd:domain=INET", "index=0"),
        ]:
            self.assertIn(right, self.problem(self.listen(text)))

    def test_what_is_wrong(self) -> None:
        """It is said in the file's own words what is wrong, not in those of the program that reads it."""
        for text, wrong, right in [
            ("tcp:8080:interface=::1", "more colons than arguments", r"as \:, such as tcp:8443:interface=\:\:1"),
            ("tcp6:8080:interface=2001:db8::1", "more colons than arguments", r"tcp6:8443:interface=\:\:1"),
            ("tcp:8080:interface=2001:db8:1:2:3:4:5:6", "more colons than arguments", r"\:"),
            ("tcp:[::1]:8080", "more colons than arguments", r"\:"),
            ("unix:/run/a:b:c:d:e", "more colons than arguments", r"\:"),
            (r"tcp:8080:interface=[\:\:1]", "in brackets", "leave them out"),
            (r"tcp:8080:interface=fe80\:\:1", "link-local", "%eth0"),
            ("tcp:interface=127.0.0.1", "has no port", "such as tcp:8080"),
            ("tcp:http", "has no port", "such as tcp:8080"),
            ("tcp:8080:port=8081", "gives port twice", "leave one"),
            ("tcp:8080:interfaces=127.0.0.1", "tcp does not take (interfaces)", "known are port, interface, backlog"),
            ("tcp:8080:backlog=many", "no number for backlog", "such as 1024"),
            ("unix:/run/x:mode=rw", "no number for mode", "octal"),
            ("systemd:domain=INET:index=first", "no number for index", "such as 0"),
            ("systemd:domain=INET:index=0:backlog=5", "systemd does not take (backlog)", "index"),
        ]:
            for environ in ({}, {"LISTEN_FDS": "1"}):
                message = self.problem(self.listen(text), environ)
                self.assertIn(wrong, message)
                self.assertIn(right, message.partition("; ")[2], text)
                self.assertNotIn("()", message)
                self.assertNotIn("invalid literal", message)

    def test_not_passed(self) -> None:
        """Under systemd a socket that it has not passed is missed at once."""
        for text in ("systemd:domain=INET:index=999", "systemd:domain=INET:name=nobody"):
            self.assertIn("has not passed", self.problem(self.listen(text), {"LISTEN_FDS": "1"}))
            told = self.problem(self.listen(text), {"LISTEN_FDS": "1", "LISTEN_PID": "1"})
            self.assertIn("was passed to another process than this one (LISTEN_PID); have what starts", told)

    def test_twice(self) -> None:
        """Two elements that no system could serve both are refused, and both are named."""
        for first, second in [
            ("tcp:8080", "tcp:8080"),
            ("tcp:8080", "tcp:port=08080:interface=127.0.0.1"),
            (r"tcp:8080:interface=\:\:1", r"tcp6:8080:interface=0\:0\:0\:0\:0\:0\:0\:1"),
            ("tcp:8080:interface=localhost", "tcp:8080:interface=localhost"),
            ("unix:/run/vault", "unix:address=/run/vault:mode=600"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET6:index=0"),
        ]:
            message = self.problem(self.listen(first, second))
            self.assertIn("vault.yml:3: listen[1]: listens where listen[0] does already; leave one", message)

    def test_not_twice(self) -> None:
        """What may well be listened on together is taken."""
        for good in [
            ("tcp:0", "tcp:0"),
            ("tcp:8080:interface=127.0.0.1", "tcp:8080:interface=192.0.2.1"),
            ("tcp:8080", r"tcp:8080:interface=\:\:1"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=1"),
            ("unix:/run/vault", "unix:/run/vault2"),
        ]:
            self.assertEqual(self.read(self.listen(*good)).listen, good)


class FileTests(ConfigTestCase):
    """Files, YAML and where a mistake is."""

    def test_file(self) -> None:
        """A file is read by its path, a byte order mark at its begin notwithstanding."""
        path = Path(self.mktemp())
        path.write_bytes(b"\xef\xbb\xbf" + BACKEND.encode())
        self.assertEqual(load(path, {}).file, str(path))

    def test_unreadable(self) -> None:
        """A file that is missing, a directory, or no text is refused."""
        path = Path(self.mktemp())
        self.assertIn("cannot be read: No such file", str(self.assertRaises(ConfigError, load, path, {})))
        self.assertIn("Is a directory", str(self.assertRaises(ConfigError, load, "/", {})))
        path.write_bytes(b"\xff\xfe\xff")
        self.assertIn("UTF-8", str(self.assertRaises(ConfigError, load, path, {})))

    def test_not_yaml(self) -> None:
        """Text that is not YAML is refused with the line where it stops being so."""
        self.assertTrue(self.problem("http_port: 1\nlisten: [").startswith("vault.yml:2: is not YAML: expected"))
        self.assertIn("control characters", self.problem("\0"))
        self.assertIn("is not a mapping", self.problem("- http_port"))

    def test_tab(self) -> None:
        """A tab in the indentation is called one."""
        message = self.problem("cache:\n\tmax_size: 1" + BACKEND)
        self.assertIn("vault.yml:2: is not YAML: a tab stands where YAML wants spaces; ", message)

    def test_merge_key(self) -> None:
        """A merge key, which YAML 1.2 has no more, is refused with what is to be done."""
        message = self.problem("cache: &c {max_size: 1}\nlimits:\n  <<: *c" + BACKEND)
        self.assertIn("vault.yml:3: limits: has a merge key (<<); write the keys out", message)
        self.assertIn("vault.yml:1: has a merge key", self.problem("<<: {http_port: 1}" + BACKEND))

    def test_yaml_error_keeps_secrets(self) -> None:
        """A password that YAML takes for an alias or a tag is not shown."""
        for text in ("*hunter2", "!hunter2", "!hunter2!x", "!!hunter2 x"):
            self.assertNotIn("hunter2", self.option_problem(f"username: u\npassword: {text}"))
        self.assertNotIn("hunter2", "".join(self.problems("{password:hunter2}")))

    def test_absurd(self) -> None:
        """A file that only a machine would write is refused, in one line."""
        bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"a{level + 1}: &a{level + 1} [{', '.join([f'*a{level}'] * 10)}]\n" for level in range(9)
        )
        for text, wrong in (
            ("[" * 3000 + "]" * 3000, "nested too deeply"),
            ("listen: " + "[" * 3000, "nested too deeply"),
            ("- " * 3000 + "x", "nested too deeply"),
            ("{a: " * 3000 + "}" * 3000, "nested too deeply"),
            (bomb, "fewer aliases"),
            ('a: "\\U00110000"', "is not YAML"),
            ("%YAML " + "1" * 5000 + ".1\n---\na: b", "is not YAML"),
        ):
            self.assertIn(wrong, self.problem(text))

    def test_empty(self) -> None:
        """An empty file is refused: there is nothing to serve."""
        for text in ("", "# nothing", "backends:", "backends: []"):
            self.assertIn("names no backend", self.problem(text))

    def test_duplicate_key(self) -> None:
        """A key given twice is refused, with both lines."""
        self.assertIn(
            "vault.yml:3: http_port: is given twice, first on line 1",
            self.problem("http_port: 1\n\nhttp_port: 2" + BACKEND),
        )

    def test_unknown_key(self) -> None:
        """An unknown key is refused, and the nearest known one is named."""
        self.assertIn(
            "1: http_prot: is not a known key; did you mean http_port?", self.problem("http_prot: 1" + BACKEND)
        )
        self.assertIn("known are allow", self.problem("access: {zzz: 1}" + BACKEND))
        self.assertIn("backends[0].nam: is not", self.problem(BACKEND + "  nam: x"))
        self.assertIn(
            "backends[0].config.base_ulr: is not a known key; did you mean base_url?",
            self.option_problem("base_ulr: http://127.0.0.1/"),
        )

    def test_misplaced_key(self) -> None:
        """A key that is known elsewhere is told where it belongs."""
        for text, place in (
            (BACKEND + "    name: x", "backends[0].config.name: does not belong here; put it beside config"),
            (BACKEND + "  ttl: 5", "backends[0].ttl: does not belong here; put it below config"),
            (BACKEND + "  base_url: http://x/", "backends[0].base_url: does not belong here; put it below config"),
            (BACKEND + "    cache_dir: /x", "config.cache_dir: does not belong here; put it at the top level"),
            ("ttl: 5" + BACKEND, "1: ttl: does not belong here; put it below backends[0].config"),
            ("type: http" + BACKEND, "1: type: does not belong here; put it below backends[0]"),
            ("max_size: 5" + BACKEND, "1: max_size: does not belong here; put it below cache"),
            ("cache: {cache_dir: /x}" + BACKEND, "cache.cache_dir: does not belong here; put it at the top level"),
        ):
            self.assertIn(place, self.problem(text))

    def test_two_documents(self) -> None:
        """A file with a second document in it is refused as that."""
        message = self.problem(f"http_port: 1{BACKEND}---\nhttp_port: 2\n")
        self.assertIn("vault.yml:6: begins a second document here (---); put all into one", message)

    def test_everything_at_once(self) -> None:
        """Every mistake is reported, in the order of the lines."""
        problems = self.problems(
            "http_port: x\nhttp_hots: y\ncache:\n  max_size: z\nbackends:\n- type: tests.test_config\n"
            "  config:\n    base_url: ftp://127.0.0.1/\n    even: 3\n- type: nothing\n"
        )
        self.assertEqual(
            [re.findall(r":(\d+): ([^:]*):", problem)[0] for problem in problems],
            [
                ("1", "http_port"),
                ("2", "http_hots"),
                ("4", "cache.max_size"),
                ("7", "backends[0].config.prefix"),
                ("8", "backends[0].config.base_url"),
                ("9", "backends[0].config.even"),
                ("10", "backends[1].config.prefix"),
                ("10", "backends[1].type"),
            ],
        )

    def test_alias(self) -> None:
        """A value may be repeated by a YAML alias, but contain itself it may not."""
        config = self.read("shutdown_timeout: &t 7\nlimits: {idle_timeout: *t}" + BACKEND)
        self.assertEqual(config.limits.idle_timeout, 7)
        self.assertIn("contains itself", self.problem("listen: &l [*l]" + BACKEND))


class EnvironmentTests(ConfigTestCase):
    """Variables in values."""

    def test_replaced(self) -> None:
        """A variable is replaced anywhere in a value, more than once, and typed by its key."""
        config = self.read("http_port: ${PORT}\ncache_dir: /${A}/x${B}" + BACKEND, {"PORT": "81", "A": "a", "B": "b"})
        self.assertEqual((config.http_port, config.cache_dir), (81, Path("/a/xb")))

    def test_default(self) -> None:
        """A variable that is missing or empty has its default."""
        for environ in ({}, {"PORT": ""}):
            self.assertEqual(self.read("http_port: ${PORT:-82}" + BACKEND, environ).http_port, 82)
        self.assertEqual(self.read("http_port: ${PORT:-82}" + BACKEND, {"PORT": "83"}).http_port, 83)

    def test_empty(self) -> None:
        """A value that becomes empty counts as not given."""
        upstream = self.options("username: ${USER_NAME:-}\npassword: ${PASSWORD:-}\nproxy: ${PROXY}", {"PROXY": ""})
        self.assertEqual(upstream.upstream, UpstreamOptions())

    def test_list_that_becomes_empty(self) -> None:
        """A list whose elements all become empty is refused: it would mean everyone, or the default."""
        self.assertEqual(self.read("access: {allow: []}" + BACKEND).access_allow, ())
        one = self.read('access: {allow: ["${X}", 10.0.0.0/8]}' + BACKEND, {"X": ""})
        self.assertEqual(one.access_allow, (ip_network("10.0.0.0/8"),))
        for text in ('["${X}"]', '["${Y:-}"]', '["${X}", ~]', "[~]", "\n  -", '"${X}"', '"${Y:-}"'):
            for key in ("listen", "access.allow"):
                line = f"listen: {text}" if key == "listen" else "access:\n  allow: " + text.replace("  -", "    -")
                message = self.problem(line + BACKEND, {"X": ""})
                self.assertRegex(message, rf"\Avault\.yml:[123]: {key}: (has no element|has become empty).*; ")
        self.assertIn("suites: has no element with a value", self.option_problem('suites: ["${X:-}"]'))

    def test_list_in_which_empty_means_less(self) -> None:
        """Where a list allows something that is else refused, one that becomes empty allows nothing."""
        for text in ('["${X:-}"]', '"${X:-}"', "[~]"):
            self.assertEqual(self.read(f"connect_allow: {text}{BACKEND}").connect_allow, ())

    def test_mapping_that_becomes_empty(self) -> None:
        """A mapping in whose place a variable stands is refused, also where the variable is empty."""
        for line in ('access: "${X:-}"', 'limits: "${X:-}"'):
            self.assertIn("has become empty", self.problem(line + BACKEND))
        self.assertIn("headers: has become empty", self.option_problem('headers: "${X:-}"'))
        for text in ('backends: "${X:-}"', 'backends: ["${X:-}"]', "backends: [~]"):
            self.assertIn("backends: has ", self.problem(text))

    def test_missing(self) -> None:
        """A missing variable without a default is refused by its name."""
        message = self.problem("http_port: ${PORT}" + BACKEND)
        self.assertIn("vault.yml:1: http_port: the environment variable PORT is not set", message)

    def test_dollar(self) -> None:
        """Two dollar signs stand for one, and one alone for itself."""
        made = self.options("suites: ['$${HOME}', '$HOME', 'a$$b', '$']", {"HOME": "/root"})
        self.assertEqual(made.suites, ("${HOME}", "$HOME", "a$b", "$"))

    def test_dollar_in_default(self) -> None:
        """So they do in a default, where no other variable can be: that would be taken for text."""
        self.assertEqual(self.options("suites: ['${A:-a$$b}', '${A:-$${b}']").suites, ("a$b", "${b"))
        for text in ("${A:-${B}}", "${A:-x${B:-y}}", "${A:-$$${B}}"):
            for environ in ({}, {"A": "1", "B": "2"}):
                message = self.option_problem(f"note: '{text}'", environ)
                self.assertIn("config.note: has a ${ in the default of A, where no variable can be; ", message)

    def test_keys_are_left_alone(self) -> None:
        """A variable in a key is not replaced."""
        self.assertIn("not a known key", self.problem("${KEY}: 1" + BACKEND, {"KEY": "http_port"}))

    def test_malformed(self) -> None:
        """A brace that does not close is refused."""
        self.assertIn("names no variable", self.option_problem("note: a${b"))

    def test_values_are_not_shown(self) -> None:
        """What came from the environment is not shown in a message."""
        missing = "/hunter2/key.pem"
        for line, value, right in (
            ("http_port: ${SECRET}", "hunter2", "from 0 to 65535"),
            ("listen: ['ssl:1:privateKey=${SECRET}:certKey=/nowhere']", missing, "(No such file or directory)"),
            ("listen: ['ssl:1:privateKey=/nowhere:certKey=${SECRET}']", missing, "(No such file or directory)"),
            ("listen: ['tcp:1:interface=::1:${SECRET}=1']", "hunter2", "more colons than arguments"),
            ("listen: ['tcp:1:${SECRET}=1']", "hunter2", "does not take; known are"),
            ("access: {allow: ['${SECRET}']}", "10.77.3.4/8", "give one such as 10.0.0.0/8"),
        ):
            message = self.problem(line + BACKEND, {"SECRET": value})
            self.assertNotRegex(message, "hunter2|10[.]77")
            self.assertIn(right, message)
        self.assertNotIn("10.64", self.problem("access: {allow: ['${NET}']}" + BACKEND, {"NET": "10.77.3.4/10"}))

    def test_type_is_not_shown(self) -> None:
        """A type from the environment is not shown, whatever is wrong with it."""
        for value, right in (
            ("hunter2", "is not a known type; give one of "),
            ("htpp", "is not a known type; give one of "),
            ("tests.hunter2", "its module cannot be imported (ModuleNotFoundError); "),
            ("vault.errors", "its module has no make_backend"),
        ):
            message = self.problem(BACKEND.replace("tests.test_config", "${TYPE}"), {"TYPE": value})
            self.assertIn(right, message)
            self.assertNotRegex(message, "hunter2|htpp|errors")

    def test_users_are_not_shown(self) -> None:
        """What may have a user name and password in it is not shown, wherever it was written."""
        for line in (
            "connect_allow: ['bob:hunter2@h:443']",
            "connect_allow: ['https://u:hunter2@h']",
            "access: {allow: ['u:hunter2@10.0.0.1/8']}",
            "listen: ['tcp:1:u=hunter2@h']",
            "http_host: u:hunter2@h",
            "cache: {max_size: 'u:hunter2@h'}",
        ):
            self.assertNotIn("hunter2", self.problem(line + BACKEND))
        self.assertNotIn("hunter2", self.option_problem("pause: 'u:hunter2@h'"))
        self.assertNotIn("hunter2", self.problem(BACKEND.replace("/files/", "'http://u:hunter2@h/'")))
        images = BACKEND.replace("tests.test_config", "oci") + self.indented("namespace: 'u:hunter2@h'")
        self.assertIn("namespace: the value is not the name of a registry", self.problem(images))


class BackendTests(ConfigTestCase):
    """The list of backends and the keys that all have."""

    def two(self, first: str, second: str) -> str:
        return f"backends:\n- {{type: tests.test_config, {first}}}\n- {{type: tests.test_config, {second}}}\n"

    def test_made(self) -> None:
        """A backend is made by its module, with its name and prefix."""
        backend = self.read(BACKEND).backends[0]
        self.assertEqual((backend.type, backend.name, backend.prefix), ("tests.test_config", "files", "/files/"))
        made = cast(Recorded, backend.backend)
        self.assertEqual((made.name, made.prefix, made.upstream), ("files", "/files/", UpstreamOptions()))

    def test_name(self) -> None:
        """A name may be given; else it is the prefix, inner slashes being hyphens."""
        config = self.read(self.two("config: {prefix: /a/b.c/}", "name: other, config: {prefix: /a/}"))
        self.assertEqual([backend.name for backend in config.backends], ["a-b.c", "other"])

    def test_wrong_names(self) -> None:
        """Names are unique and safe as directory names."""
        same = self.two("name: x, config: {prefix: /a/}", "config: {prefix: /x/}")
        self.assertIn("3: backends[1].name: is the name of backends[0] too", self.problem(same))
        for name in ("../x", ".x", "a/b", "a b", "-"):
            self.assertIn("is not a name", self.problem(BACKEND + f"  name: {name!r}"))
        self.assertIn("the prefix does not make one", self.problem(BACKEND.replace("/files/", "/~me/")))

    def test_wrong_prefixes(self) -> None:
        """A prefix is a plain path between slashes that neither the vault nor another backend serves."""
        for prefix in ("/", "x/", "/x", "/a//b/", "/../x/", "/a/./", "/%41/", "/a b/", "/a?b/", "/a#b/", "/ä/", "//"):
            self.assertIn("is not a prefix", self.problem(BACKEND.replace("/files/", f"'{prefix}'")), prefix)
        for prefix in ("/-/", "/v2/", "/healthz/", "/readyz/", "/metrics/", "/v2/library/"):
            self.assertIn("is taken by the vault", self.problem(BACKEND.replace("/files/", prefix)))
        same = self.two("config: {prefix: /a/}", "config: {prefix: /a/}")
        self.assertIn("3: backends[1].config.prefix: is the prefix of backends[0] too", self.problem(same))
        self.assertIn("prefix: is missing", self.problem(BACKEND.replace("prefix", "#")))

    def test_types(self) -> None:
        """An unknown type is refused with the types there are; a module must be one of a backend."""
        message = self.problem(BACKEND.replace("tests.test_config", "nonsense"))
        self.assertIn("backends[0].type: is not a known type; give one of ", message)
        self.assertIn("did you mean http?", self.problem(BACKEND.replace("tests.test_config", "htpp")))
        self.assertIn(
            "cannot be imported (ModuleNotFoundError", self.problem(BACKEND.replace("test_config", "nothing"))
        )
        self.assertIn("has no make_backend", self.problem(BACKEND.replace("tests.test_config", "vault.errors")))
        self.assertIn("type: is missing; give one of ", self.problem("backends: [{config: {prefix: /a/}}]"))

    def test_backend_refuses(self) -> None:
        """What a backend raises is reported as what it notes is."""
        error = self.assertRaises(ConfigError, self.options, "refuse: true")
        self.assertEqual(error.problems, ["the backend refuses"])

    def test_backend_crashes(self) -> None:
        """A backend that cannot be made is one more mistake of the file, without what may be a secret in it."""
        for line, wrong in (
            ("crash: true", "its make_backend failed (RuntimeError); "),
            ("leave: true", "its make_backend failed (SystemExit); "),
            ("nothing: true", "its make_backend returned no backend (NoneType without authorize, "),
        ):
            problems = self.problems("http_prot: 1" + BACKEND + self.indented(line))
            self.assertIn("http_prot", problems[0])
            self.assertIn("vault.yml:3: backends[0].type: " + wrong, problems[1])
            self.assertNotIn("hunter2", "".join(problems))

    def test_make_backend_of_another_kind(self) -> None:
        """What is called make_backend must be a function of a name and options."""
        for make, wrong in (
            (lambda: None, "its make_backend failed (TypeError)"),
            ("text", "has no make_backend"),
            (Recorded, "its make_backend failed (TypeError)"),
        ):
            self.patch(sys.modules[__name__], "make_backend", make)
            self.assertIn(wrong, self.problem(BACKEND))

    def test_upstream(self) -> None:
        """Every backend takes the common keys."""
        cert, _ = certificate(self.mktemp())
        upstream = self.options(
            f"ttl: 1h\nnegative_ttl: 0\nusername: u\npassword: 0123\nheaders: {{X-A: a, X-B: yes}}\nca_file: {cert}\n"
            "proxy: http://u:p@127.0.0.1:3128\nconnect_timeout: 1\nfirst_byte_timeout: 2\nidle_timeout: 3\n"
            "stale_while_revalidate: 0\nretries: 0\nmax_connections: 5\nbandwidth: 1MB\noffline: true"
        ).upstream
        expected = UpstreamOptions(
            3600.0, 0.0, "u", "0123", (("X-A", "a"), ("X-B", "yes")), "http://u:p@127.0.0.1:3128", cert,
            1.0, 2.0, 3.0, 0.0, 0, 5, 1000000, True,
        )  # fmt: skip
        self.assertEqual(upstream, expected)

    def test_offline(self) -> None:
        """The vault's being offline holds for every backend."""
        self.assertTrue(self.read("offline: true" + BACKEND).backends[0].upstream.offline)
        self.assertTrue(self.read("offline: true" + BACKEND + "    offline: false").backends[0].upstream.offline)

    def test_wrong_upstream(self) -> None:
        """Common keys with wrong values are refused, and none of these values is shown."""
        for lines, right in [
            ("ttl: {hunter2: 1}", "ttl: is not a single value"),
            ("username: hunter2", "without password"),
            ("password: hunter2", "without username"),
            ("username: 'u:hunter2'\npassword: p", "colon"),
            ('username: u\npassword: "hunter2\\n"', "line break"),
            ("headers: {host: hunter2}", "headers.host: cannot be set"),
            ("headers: {Accept-Encoding: hunter2}", "cannot be set"),
            ("headers: {X: hunter2€}", "headers.X: the value has a character"),
            ("headers: {X: hunter2\u00e4}", "plain ASCII"),
            ("headers: {Proxy-Authorization: hunter2}", "cannot be set"),
            ("username: u\npassword: p\nheaders: {authorization: hunter2}", "headers.authorization: is given beside"),
            ('headers: {X: "a\\r\\nhunter2"}', "headers.X: the value has a line break"),
            ("headers: {'X: hunter2': b}", "is not a field name"),
            ("headers: {X-Token: hunter2, x-token: hunter2}", "headers.x-token: is the same field as X-Token; give it"),
            ("headers: [hunter2]", "headers: is not a mapping"),
            ("proxy: https://u:hunter2@127.0.0.1/", "only http:// is supported"),
            ("proxy: u:hunter2@127.0.0.1", "http://proxy.example:3128"),
            ("proxy: http://hunter2:x/", "is not the URL of a proxy"),
            ("base_url: https://u:hunter2@127.0.0.1/", "username and password"),
            ("base_urls: ['https://hunter2@127.0.0.1/']", "username and password"),
            ("connect_timeout: 0", "more than 0"),
            ("max_connections: 0", "1 or more"),
            ("retries: -1", "0 or more"),
            ("bandwidth: fast", "such as 50GiB"),
        ]:
            message = self.option_problem(lines)
            self.assertIn(right, message)
            self.assertNotIn("hunter2", message)

    def test_ca_file(self) -> None:
        """A file of certificates must be there and have one."""
        path = Path(self.mktemp())
        self.assertIn("cannot be read (No such file or directory)", self.option_problem(f"ca_file: {path}"))
        self.assertIn("unknown home", self.option_problem("ca_file: ~nobody-of-that-name/a"))
        cert, key = certificate(self.mktemp())
        pem = cert.read_text()
        damaged = pem.replace(pem[60:100], "A" * 40)
        for text, wrong in (
            ("nothing", "no certificate"),
            (pem.replace(" CERTIFICATE", " TRUSTED CERTIFICATE"), "openssl x509"),
            (key.read_text(), "no certificate"),
            (pem + damaged, "damaged certificate in it, number 2"),
            (pem[:200], "no certificate"),
        ):
            path.write_text(text)
            self.assertIn(wrong, self.option_problem(f"ca_file: {path}"))
        self.assertIn("no certificate", self.option_problem("ca_file: /dev/zero"))
        self.assertIn("is a directory; give one PEM file", self.option_problem("ca_file: /"))

    def test_ca_file_is_used(self) -> None:
        """Certificates count wherever they stand in the file, between keys and comments."""
        cert, key = certificate(self.mktemp())
        path = Path(self.mktemp())
        path.write_text(f"# mine\n{key.read_text()}{cert.read_text()}more\n{cert.read_text()}")
        self.assertEqual(self.options(f"ca_file: {path}").upstream.ca_file, path)
        tls_policy(path)

    def test_secrets_are_not_shown(self) -> None:
        """The representation of a configuration has no secret in it."""
        lines = "username: hunter2\npassword: hunter2\nheaders: {X: hunter2}\nproxy: http://u:hunter2@127.0.0.1/"
        config = self.read(BACKEND + self.indented(lines))
        self.assertNotIn("hunter2", repr(config))


class OptionsTests(ConfigTestCase):
    """What a backend reads for itself."""

    def test_urls(self) -> None:
        """One URL or a list of them is taken, each made to end with a slash."""
        self.assertEqual(self.options("base_url: HTTP://127.0.0.1").upstreams, ("http://127.0.0.1/",))
        self.assertEqual(
            self.options("base_urls: [http://127.0.0.1/a, 'https://[::1]:8443/b/']").upstreams,
            ("http://127.0.0.1/a/", "https://[::1]:8443/b/"),
        )
        self.assertEqual(self.options("").upstreams, ("http://127.0.0.1/default/",))

    def test_url(self) -> None:
        """A URL that is no base keeps its end."""
        self.assertEqual(self.options("token_url: http://127.0.0.1/token").token_url, "http://127.0.0.1/token")

    def test_wrong_urls(self) -> None:
        """URLs that nothing can be fetched from are refused."""
        for url in ("ftp://127.0.0.1/", "127.0.0.1", "http://", "http://127.0.0.1:x/", "http://[::1/", "'http://a b/'"):
            self.assertIn("is not a URL", self.option_problem(f"base_url: {url}"))
        self.assertIn("[fe80::1%eth0]", self.option_problem("base_url: http://[fe80::1]:8000/"))
        for url in ("http://127.0.0.1/?", "'http://127.0.0.1/#a'", "http://127.0.0.1/?a=b"):
            self.assertIn("query or a fragment", self.option_problem(f"base_url: {url}"))
        self.assertIn("base_urls: is empty", self.option_problem("base_urls: []"))
        both = "base_url: http://127.0.0.1/\nbase_urls: [http://127.0.0.1/]"
        self.assertIn("base_urls: is given beside base_url", self.option_problem(both))

    def test_urls_that_become_empty(self) -> None:
        """A list of URLs without a value is refused once; what stands for a URL is given or not."""
        for text in ('["${X:-}"]', "[~]", '"${X:-}"'):
            self.assertIn("backends[0].config.base_urls: has ", self.option_problem(f"base_urls: {text}"))
        self.assertEqual(self.options('base_urls: ["${X:-}", http://127.0.0.1/]').upstreams, ("http://127.0.0.1/",))
        self.assertEqual(self.options('base_url: "${X:-}"').upstreams, ("http://127.0.0.1/default/",))
        text = BACKEND.replace("tests.test_config", "http") + self.indented('base_urls: "${X:-}"')
        self.assertIn("backends[0].config.base_urls: has become empty", self.problem(text))

    def test_mappings_that_become_empty(self) -> None:
        """A list of mappings without a value is refused, and so is each element without one."""
        for text in ('["${X:-}"]', "[~]", '"${X:-}"'):
            self.assertIn("backends[0].config.others: has ", self.option_problem(f"others: {text}"))
            images = BACKEND.replace("tests.test_config", "oci") + self.indented(f"repositories: {text}")
            self.assertIn("backends[0].config.repositories: has ", self.problem(images))
        for text in ('"${X:-}"', "~"):
            message = self.option_problem(f"others: [{{token_url: http://127.0.0.1/}}, {text}]")
            self.assertIn("backends[0].config.others[1]: has no value", message)

    def test_mappings(self) -> None:
        """A mapping in a list has readers of its own, which take over everything but the credentials."""
        common = "retries: 9\nusername: u\npassword: p\nheaders: {X: a}\n"
        made = self.options(common + "others:\n- token_url: http://127.0.0.1/\n  max_connections: 3")
        self.assertEqual(made.others[0].upstream, UpstreamOptions(retries=9, max_connections=3))
        self.assertEqual(made.upstream.username, "u")
        self.assertEqual((made.others[0].name, made.others[0].prefix), ("files", "/files/"))

    def test_wrong_mappings(self) -> None:
        """A mistake in a mapping in a list is named by its place."""
        message = self.option_problem("others:\n- token_url: http://127.0.0.1/\n- {}")
        self.assertIn("vault.yml:8: backends[0].config.others[1].token_url: is missing", message)
        message = self.option_problem("others:\n- token_url: http://127.0.0.1/\n  tokn: x")
        self.assertIn("vault.yml:8: backends[0].config.others[0].tokn: is not a known key", message)


class SampleTests(ConfigTestCase):
    """The configuration that comes with the package."""

    def text(self) -> str:
        return (Path(sys.modules["vault"].__path__[0]) / "config-sample.yml").read_text("utf-8")

    def comparable(self, config: Config) -> Any:
        backends = tuple(replace(backend, backend=cast(IBackend, None)) for backend in config.backends)
        return replace(config, file="", backends=backends)

    def test_built_in(self) -> None:
        """The built-in configuration has a backend of each kind, on the default port."""
        config = configuration.built_in({})
        kinds = {backend.prefix: backend.type for backend in config.backends}
        wanted = {"/archive.apache.org/": "http", "/pypi/": "pypi", "/dockerhub/": "oci", "/ubuntu/": "apt"}
        self.assertEqual(kinds, wanted)
        self.assertEqual((config.http_host, config.http_port), ("localhost", 8080))

    def test_uncommented(self) -> None:
        """Every key in a comment has its default as value."""
        text, count = re.subn(r"(?m)^( *)#((?:  )*[a-z_]+:)", r"\1\2", self.text())
        self.assertGreater(count, 30)
        self.assertEqual(self.comparable(self.read(text)), self.comparable(configuration.built_in({})))
