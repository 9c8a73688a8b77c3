"""Typed readers for the mappings of a configuration: each mistake is noted with its place, none is raised.

A reader that finds something wrong says so to ``Problems`` and returns its default or a harmless placeholder, so that
everything else is still read and all mistakes are reported together.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, overload
from urllib.parse import urlsplit, urlunsplit

import yaml

from vault.artifact import Headers
from vault.errors import ConfigError

T = TypeVar("T")
D = TypeVar("D")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
SEGMENT = r"(?!\.{1,2}/)[A-Za-z0-9._~!$&'()*+,;=:@-]+"  # RFC 3986 pchar without percent-encoding, no dot segment
RESERVED = ("-", "v2", "healthz", "readyz", "metrics")
PLACEHOLDER_URL = "http://wrong.invalid/"
PLACEHOLDER_PREFIX = "/-/wrong/"  # no valid prefix is like it
NOT_SETTABLE = {"host", "range", "content-length", "transfer-encoding", "connection", "accept-encoding"}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of the file and its line: text as written, a list, a mapping, or None where nothing is given.

    ``hidden`` values came from the environment and are not shown; ``wrong`` ones have been reported already.
    """

    value: str | list[Setting] | dict[str, Setting] | None = field(repr=False)
    line: int
    hidden: bool = False
    wrong: bool = False


class Problems:
    """The mistakes found so far in one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, path: str, message: str) -> None:
        """Note a mistake at ``line`` in the value named by ``path``, which is empty for the file as a whole."""
        self._found.append((line, f"{self.file}:{line}: {path + ': ' if path else ''}{message}"))

    def include(self, error: ConfigError) -> None:
        """Note mistakes that somebody raised instead of noting them."""
        self._found.extend((0, line) for line in error.problems)

    def raise_any(self) -> None:
        """Raise ConfigError with every mistake, in the order of their lines, if there is one."""
        if self._found:
            raise ConfigError([text for _, text in sorted(self._found, key=lambda found: found[0])])


def plain(key: str) -> str:
    """A key as a message may show it: nothing after the characters of a name, where a value may have slipped in."""
    name = re.match(r"[\w.\[\]-]*", key)
    return key if name is None or name[0] == key else name[0] + "..."


TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")}
VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|(\{))")


def substituted(text: str, environ: Mapping[str, str]) -> str:
    """``text`` with each ``${NAME}`` and ``${NAME:-default}`` replaced, and ``$$`` read as ``$``.

    As in a shell the default stands in for an empty variable too.  Raises ValueError for a variable that is not set.
    """

    def value(match: re.Match[str]) -> str:
        dollar, name, default, unclosed = match.groups()
        if dollar:
            return "$"
        if unclosed:
            raise ValueError(
                "has a ${ that names no variable; write ${NAME} or ${NAME:-default}, and $${ for a plain ${"
            )
        if default is None and name not in environ:
            raise ValueError(
                f"the environment variable {name} is not set; set it, or give a default: ${{{name}:-value}}"
            )
        return environ.get(name) or default or ""

    return VARIABLE.sub(value, text)


def _token(quoted: re.Match[str]) -> str:
    return quoted[0] if len(quoted[1]) < 2 or quoted[1].startswith("<") else "a name"


class Document:
    """A YAML file as Settings: nothing in it is constructed, so that text stays as written and lines stay known."""

    def __init__(self, environ: Mapping[str, str], problems: Problems) -> None:
        self._environ = environ
        self._problems = problems

    def read(self, text: str) -> Setting:
        """The whole file; raises ConfigError where it is not YAML."""
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            # What the parser quotes may be part of a secret; the kinds of token it names are not.
            reason = re.sub(r"'([^']*)'", _token, error.problem or "it cannot be read")
            self._problems.add(mark.line + 1 if mark else 1, "", f"is not YAML: {reason}; check indentation and quotes")
        except yaml.YAMLError:
            self._problems.add(1, "", "is not YAML: it has control characters in it; give a plain text file")
        self._problems.raise_any()
        if root is None:
            return Setting({}, 1)
        return self._setting(root, 1, "", ())

    def _wrong(self, line: int, path: str, message: str) -> Setting:
        self._problems.add(line, path, message)
        return Setting(None, line, wrong=True)

    def _setting(self, node: yaml.Node, line: int, path: str, above: tuple[yaml.Node, ...]) -> Setting:
        if node.tag not in TAGS:
            return self._wrong(line, path, "has a YAML tag (!...); put text that starts with ! in quotes")
        if any(node is outer for outer in above):
            return self._wrong(line, path, "contains itself; write it out instead of using an alias")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line, path)
        inside = (*above, node)
        if isinstance(node, yaml.SequenceNode):
            items = [
                self._setting(item, item.start_mark.line + 1, f"{path}[{index}]", inside)
                for index, item in enumerate(node.value)
            ]
            return Setting(items, line)
        mapping: dict[str, Setting] = {}
        for key, value in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._wrong(at, path, "has a key that is not text; give a plain name")
                continue
            where = f"{path}.{plain(key.value)}" if path else plain(key.value)
            if key.value in mapping:
                self._wrong(at, where, f"is given twice, first on line {mapping[key.value].line}; give it once")
                continue
            mapping[key.value] = self._setting(value, at, where, inside)
        return Setting(mapping, line)

    def _scalar(self, node: yaml.ScalarNode, line: int, path: str) -> Setting:
        if node.tag.endswith(":null"):
            return Setting(None, line)
        try:
            text = substituted(node.value, self._environ)
        except ValueError as error:
            return self._wrong(line, path, str(error))
        # A variable that is empty gives nothing, so that the default holds.
        return Setting(text if text or not node.value else None, line, hidden="${" in node.value)


# Parsers of one value: each returns what the text means or raises ValueError with "is not X; what would be right".


def duration(text: str) -> float:
    """Seconds: a number, with s (also without), m, h or d."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)", text.strip().lower())
    if match is None:
        raise ValueError("is not a duration; give seconds, or a number with s, m, h or d, such as 90 or 5m")
    return float(match[1]) * SECONDS[match[2]]


def timeout(text: str) -> float:
    """A duration of more than nothing."""
    if (seconds := duration(text)) == 0:
        raise ValueError("would time out at once; give more than 0 seconds")
    return seconds


def byte_size(text: str) -> int:
    """Bytes, 1 or more: plain, or with KB MB GB TB (powers of 1000) or K M G T, KiB MiB GiB TiB (powers of 1024)."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kmgt])(i?)(b?)|b)?", text.strip().lower())
    if match is None:
        raise ValueError("is not a size; give bytes, or a number with KiB, MiB, GiB or TiB, such as 50GiB")
    base = 1000 if match[4] and not match[3] else 1024
    size = int(float(match[1]) * base ** (" kmgt".index(match[2]) if match[2] else 0))
    if size < 1:
        raise ValueError("is too small; give at least 1 byte")
    return size


def whole(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """A parser for whole numbers from ``minimum`` to ``maximum``."""

    def parse(text: str) -> int:
        if re.fullmatch(r"-?[0-9]{1,18}", text) and minimum <= int(text) and (maximum is None or int(text) <= maximum):
            return int(text)
        bounds = f"of {minimum} or more" if maximum is None else f"from {minimum} to {maximum}"
        raise ValueError(f"is not allowed; give a whole number {bounds}")

    return parse


def mode(owner: int) -> Callable[[str], int]:
    """A parser for octal permission bits that leave the owner ``owner``."""

    def parse(text: str) -> int:
        match = re.fullmatch(r"0?o?([0-7]{3,4})", text)
        if match is None:
            raise ValueError("is not a mode; give three octal digits after a 0, such as 0750")
        if int(match[1], 8) & owner != owner:
            raise ValueError(f"locks the vault itself out; give at least {owner:#05o}".replace("0o", "0"))
        return int(match[1], 8)

    return parse


def network(text: str) -> Network:
    """An address or a network in CIDR notation, without host bits."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        try:
            hint = f"did you mean {ipaddress.ip_network(text, strict=False)}?"
        except ValueError:
            hint = "give one such as 10.0.0.0/8 or fd00::/8"
        raise ValueError(f"is not a network; {hint}") from None


def rate(text: str) -> float:
    """A number above 0."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or float(text) == 0:
        raise ValueError("is not a rate; give a number above 0, or leave it out for no limit")
    return float(text)


def truth(text: str) -> bool:
    """True or false in one of the YAML 1.1 spellings."""
    if text.lower() not in FLAGS:
        raise ValueError("is not a truth value; give true or false")
    return FLAGS[text.lower()]


def url_prefix(text: str) -> str:
    """A backend's URL path prefix."""
    if not re.fullmatch(rf"/(?:{SEGMENT}/)+", text):
        raise ValueError(
            "is not a prefix; it starts and ends with / and has plain segments between (no //, dot segment, %, ?, #"
            " or space), such as /files/"
        )
    if text.split("/")[1] in RESERVED:
        raise ValueError(f"is taken by the vault itself; use none of {', '.join(f'/{name}/' for name in RESERVED)}")
    return text


def web_url(text: str) -> str:
    """An http or https URL without credentials, query and fragment; its path is at least ``/``."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+", text):
        raise ValueError("is not a URL; give one that starts with http:// or https://, such as https://host/path/")
    if "@" in parts.netloc:
        raise ValueError("has a user name or password in it; give them with the keys username and password")
    if "?" in text or "#" in text:
        raise ValueError("has a query or a fragment; give only what is before the ? or #")
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", "", ""))


def base_url(text: str) -> str:
    """A ``web_url`` that ends with a slash, so that a path can be put after it."""
    url = web_url(text)
    return url if url.endswith("/") else url + "/"


def proxy_url(text: str) -> str:
    """The URL of an HTTP proxy, with ``user:password@`` where it wants them."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "http" and parts.hostname and parts.port != 0 and parts.path in ("", "/")
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", text) or "?" in text or "#" in text:
        raise ValueError("is not the URL of a proxy; only http:// is supported, such as http://proxy.example:3128")
    return text


def directory(text: str) -> Path:
    """An absolute path, ``~`` expanded."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("names an unknown home directory; give a path that starts with /") from None


def certificate_file(text: str) -> Path:
    """A PEM file with at least one certificate."""
    path = Path(text).expanduser()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ValueError("has no certificate in it; give a PEM file") from error
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}); give a readable PEM file") from error
    return path


def header_value(text: str) -> str:
    """A field value (RFC 9110 section 5.5)."""
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        raise ValueError("has a line break or control character in it; give one line of text")
    return text


def user_name(text: str) -> str:
    """A user-id of basic authentication (RFC 7617 section 2)."""
    if ":" in header_value(text):
        raise ValueError("has a colon in it, which basic authentication does not allow; give the password separately")
    return text


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """What every backend can say about the way to its upstream.

    Times are seconds, ``bandwidth`` is bytes a second.  None means: by kind of resource (``ttl``), no limit
    (``bandwidth``), not used (the others).
    """

    ttl: float | None = None
    negative_ttl: float = 10.0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    headers: Headers = field(default=(), repr=False)
    proxy: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    connect_timeout: float = 10.0
    first_byte_timeout: float = 60.0
    idle_timeout: float = 60.0
    stale_while_revalidate: float = 60.0
    retries: int = 4
    max_connections: int = 32
    bandwidth: int | None = None
    offline: bool = False


class Section:
    """A mapping of the file: its readers know where they are and remember which keys are known."""

    def __init__(self, setting: Setting, path: str, problems: Problems) -> None:
        self.path = path
        self._problems = problems
        self._line = setting.line
        self._asked: dict[str, None] = {}
        self._parts: list[Section] = []
        self._settings: dict[str, Setting] = {}
        if isinstance(setting.value, dict):
            self._settings = setting.value
        elif setting.value is not None:
            problems.add(setting.line, path, "is not a mapping; give keys with values, one a line")
        self.usable = not setting.wrong and isinstance(setting.value, (dict, type(None)))

    def at(self, key: str) -> str:
        """The path of a key."""
        return f"{self.path}.{plain(key)}" if self.path else plain(key)

    def problem(self, key: str, message: str) -> None:
        """Note that something is wrong with ``key``; an empty one means the whole mapping."""
        line = self._settings[key].line if key in self._settings else self._line
        self._problems.add(line, self.at(key) if key else self.path, message)

    def setting(self, key: str) -> Setting:
        """The value of ``key`` as it stands, None in it where nothing is given; the key counts as known."""
        self._asked[key] = None
        return self._settings.get(key) or Setting(None, self._line)

    def given(self, key: str) -> bool:
        """Whether the key has a value, even a wrong one."""
        setting = self.setting(key)
        return setting.value is not None or setting.wrong

    def require(self, key: str, what: str) -> None:
        """Note a mistake if the key has no value."""
        if self.usable and not self.given(key):
            self.problem(key, f"is missing; give {what}")

    def _value(self, setting: Setting, path: str, parse: Callable[[str], T], default: D, secret: bool) -> T | D:
        if setting.value is None:
            return default
        if not isinstance(setting.value, str):
            self._problems.add(setting.line, path, "is not a single value; give text or a number")
            return default
        try:
            return parse(setting.value)
        except ValueError as error:
            shown = "the value" if secret or setting.hidden else repr(setting.value[:80])
            self._problems.add(setting.line, path, f"{shown} {error}")
            return default

    def parsed(self, key: str, parse: Callable[[str], T], default: D, secret: bool = False) -> T | D:
        """What ``parse`` makes of the text; it raises ValueError with what follows the value in the message."""
        return self._value(self.setting(key), self.at(key), parse, default, secret)

    def items(self, key: str) -> list[tuple[Setting, str]]:
        """The elements of a list, each with its path."""
        setting = self.setting(key)
        if isinstance(setting.value, list):
            return [(item, f"{self.at(key)}[{index}]") for index, item in enumerate(setting.value)]
        if setting.value is not None:
            self.problem(key, "is not a list; give one element a line, each after '- '")
        return []

    def parsed_items(self, key: str, parse: Callable[[str], T], secret: bool = False) -> tuple[T, ...]:
        """What ``parse`` makes of each element of a list."""
        values = [self._value(item, path, parse, None, secret) for item, path in self.items(key)]
        return tuple(value for value in values if value is not None)

    def keys(self) -> tuple[str, ...]:
        """Every key there is."""
        return tuple(self._settings)

    def section(self, key: str) -> Section:
        """A mapping in this one, empty where it is not given."""
        part = Section(self.setting(key), self.at(key), self._problems)
        self._parts.append(part)
        return part

    @overload
    def text(self, key: str, default: None = None) -> str | None: ...

    @overload
    def text(self, key: str, default: str) -> str: ...

    def text(self, key: str, default: str | None = None) -> str | None:
        """Text as written; numbers and truth values count as text too."""
        return self.parsed(key, str, default)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        return self.parsed(key, truth, default)

    def integer(self, key: str, default: D, minimum: int = 0, maximum: int | None = None) -> int | D:
        """A whole number within bounds, which are allowed themselves."""
        return self.parsed(key, whole(minimum, maximum), default)

    def seconds(self, key: str, default: D) -> float | D:
        """A duration in seconds, 0 or more."""
        return self.parsed(key, duration, default)

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        return self.parsed_items(key, str)

    def close(self) -> None:
        """Note each key that nobody asked for, here and in the mappings read from here."""
        for key in self._settings:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, 1)
                known = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(self._asked))}"
                self.problem(key, f"is not a known key; {known}")
        for part in self._parts:
            part.close()


class Options(Section):
    """The ``config`` of a backend: its readers, and what every backend has (``prefix``, ``upstream``).

    ``name`` is the backend's; the configuration sets it before ``make_backend`` is called.
    """

    def __init__(
        self, setting: Setting, path: str, problems: Problems, offline: bool = False, parent: Options | None = None
    ) -> None:
        super().__init__(setting, path, problems)
        self.name: str = parent.name if parent else ""
        self.prefix: str
        self.upstream: UpstreamOptions
        if parent:
            self.prefix = parent.prefix
        else:
            self.require("prefix", "the URL path it is to serve, such as /files/")
            self.prefix = self.parsed("prefix", url_prefix, PLACEHOLDER_PREFIX)
        self.upstream = self._upstream(parent.upstream if parent else UpstreamOptions(offline=offline))

    def _upstream(self, base: UpstreamOptions) -> UpstreamOptions:
        # Credentials are not taken over from ``base``: they belong to one upstream.
        for key, other in (("username", "password"), ("password", "username")):
            if self.given(key) and not self.given(other):
                self.problem(key, f"is given without {other}; give both or none")
        return replace(
            base,
            ttl=self.seconds("ttl", base.ttl),
            negative_ttl=self.seconds("negative_ttl", base.negative_ttl),
            username=self.parsed("username", user_name, None, secret=True),
            password=self.parsed("password", header_value, None, secret=True),
            headers=self._headers(),
            proxy=self.parsed("proxy", proxy_url, base.proxy, secret=True),
            ca_file=self.parsed("ca_file", certificate_file, base.ca_file),
            connect_timeout=self.parsed("connect_timeout", timeout, base.connect_timeout),
            first_byte_timeout=self.parsed("first_byte_timeout", timeout, base.first_byte_timeout),
            idle_timeout=self.parsed("idle_timeout", timeout, base.idle_timeout),
            stale_while_revalidate=self.seconds("stale_while_revalidate", base.stale_while_revalidate),
            retries=self.integer("retries", base.retries),
            max_connections=self.integer("max_connections", base.max_connections, minimum=1),
            bandwidth=self.parsed("bandwidth", byte_size, base.bandwidth),
            offline=self.flag("offline", base.offline) or base.offline,
        )

    def _headers(self) -> Headers:
        section, fields = self.section("headers"), []
        for name in section.keys():  # noqa: SIM118 - a Section is not a mapping
            value = section.parsed(name, header_value, None, secret=True)
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
                section.problem(name, "is not a field name; give one such as X-Token")
            elif name.lower() in NOT_SETTABLE:
                section.problem(name, "cannot be set; the vault sends this field itself")
            elif value is not None:
                fields.append((name, value))
        return tuple(fields)

    def url(self, key: str, required: bool = False, default: str | None = None) -> str | None:
        """One http or https URL (see ``web_url``), as it stands."""
        if required:
            self.require(key, "a URL that starts with http:// or https://")
        return self.parsed(key, web_url, PLACEHOLDER_URL if self.given(key) or required else default, secret=True)

    def urls(self, key: str, plural: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        """The base URLs given by ``key`` (one) or ``plural`` (a list in the order to try); each ends with ``/``."""
        if self.given(key) and self.given(plural):
            self.problem(plural, f"is given beside {key}; give one of the two")
        elif not self.given(plural) and not default:
            self.require(key, f"a URL that starts with http:// or https://, or {plural}, a list of such")
        one = self.parsed(key, base_url, None, secret=True)
        found = self.parsed_items(plural, base_url, secret=True) or ((one,) if one else ())
        if not found and isinstance(value := self.setting(plural).value, list) and not value:
            self.problem(plural, "is empty; give at least one URL")
        wrong = self.given(key) or self.given(plural)
        return found or (() if wrong else tuple(default)) or (PLACEHOLDER_URL,)

    def mappings(self, key: str) -> tuple[Options, ...]:
        """A list of mappings, each with readers of its own; what they leave out of ``upstream`` is as here."""
        parts = tuple(Options(item, path, self._problems, parent=self) for item, path in self.items(key))
        self._parts.extend(parts)
        return parts
