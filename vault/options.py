"""Typed readers for the mappings of a configuration: each mistake is noted with its place, none is raised.

A reader that finds something wrong says so to ``Problems`` and returns its default or a harmless placeholder, so that
everything else is still read and all mistakes are reported together.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, overload

from vault.artifact import Headers
from vault.document import Problems, Setting, plain
from vault.values import (
    NOT_SETTABLE,
    Telling,
    base_url,
    byte_size,
    certificate_file,
    duration,
    header_value,
    line,
    proxy_url,
    timeout,
    truth,
    url_prefix,
    user_name,
    web_url,
    whole,
)

T = TypeVar("T")
D = TypeVar("D")

PLACEHOLDER_URL = "http://wrong.invalid/"
PLACEHOLDER_PREFIX = "/-/wrong/"  # no valid prefix is like it
EMPTIED = "has become empty with its environment variable; give the variable a value, or leave the key out"


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
        self._near: list[tuple[Section, str]] = []
        self._settings: dict[str, Setting] = {}
        if isinstance(setting.value, dict):
            self._settings = setting.value
        elif setting.emptied:
            problems.add(setting.line, path, EMPTIED)
        elif setting.value is not None:
            problems.add(setting.line, path, "is not a mapping; give keys with values, one a line")
        self.usable = not setting.wrong and not setting.emptied and isinstance(setting.value, (dict, type(None)))

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
            # Where there is an @ there may be a user name and password before it.
            if secret or setting.hidden or "@" in setting.value:
                message = f"the value {error.discreet if isinstance(error, Telling) else error}"
            else:
                message = f"{setting.value[:80]!r} {error}"
            self._problems.add(setting.line, path, message)
            return default

    def parsed(self, key: str, parse: Callable[[str], T], default: D, secret: bool = False) -> T | D:
        """What ``parse`` makes of the text; it raises ValueError with what follows the value in the message."""
        return self._value(self.setting(key), self.at(key), parse, default, secret)

    def items(self, key: str, less: bool = False) -> list[tuple[Setting, str]]:
        """The elements of a list, each with its path.

        A list that has elements, but none with a value, is a mistake unless ``less``: nothing is allowed by it then.
        """
        setting = self.setting(key)
        if isinstance(setting.value, list):
            if setting.value and not less and all(item.value is None and not item.wrong for item in setting.value):
                self.problem(key, "has no element with a value; give it one, or leave the key out")
                return []
            return [(item, f"{self.at(key)}[{index}]") for index, item in enumerate(setting.value)]
        if setting.value is not None:
            self.problem(key, "is not a list; give one element a line, each after '- '")
        elif setting.emptied and not less:
            self.problem(key, EMPTIED)
        return []

    def parsed_items(
        self, key: str, parse: Callable[[str], T], secret: bool = False, less: bool = False
    ) -> tuple[T, ...]:
        """What ``parse`` makes of each element of a list that has a value; ``less`` as for ``items``."""
        values = [self._value(item, path, parse, None, secret) for item, path in self.items(key, less)]
        return tuple(value for value in values if value is not None)

    def keys(self) -> tuple[str, ...]:
        """Every key there is."""
        return tuple(self._settings)

    def section(self, key: str) -> Section:
        """A mapping in this one, empty where it is not given."""
        part = Section(self.setting(key), self.at(key), self._problems)
        self._parts.append(part)
        self.near(part, f"below {key}")
        part.near(self, f"below {self.path}" if self.path else "at the top level")
        return part

    def near(self, other: Section, where: str) -> None:
        """Let unknown keys that ``other`` knows be told to belong there, which is ``where`` as seen from here."""
        self._near.append((other, where))

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
                place = next((where for other, where in self._near if key in other._asked), None)
                self.problem(
                    key, f"is not a known key; {known}" if place is None else f"does not belong here; put it {place}"
                )
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
        self._by_pattern: set[str] = set()
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
            ttl=base.ttl if self._is_mapping("ttl") else self.seconds("ttl", base.ttl),
            negative_ttl=self.seconds("negative_ttl", base.negative_ttl),
            username=self.parsed("username", user_name, None, secret=True),
            password=self.parsed("password", line, None, secret=True),
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

    def _is_mapping(self, key: str) -> bool:
        return isinstance(self.setting(key).value, dict)

    def durations(self, key: str) -> tuple[tuple[str, float], ...]:
        """A mapping of patterns to durations (seconds), in the file's order; of ``ttl`` nothing where it is one."""
        self._by_pattern.add(key)
        if key == "ttl" and not self._is_mapping(key):
            return ()
        section = self.section(key)
        values = [(pattern, section.seconds(pattern, None)) for pattern in section.keys()]  # noqa: SIM118 - no mapping
        return tuple((pattern, seconds) for pattern, seconds in values if seconds is not None)

    def close(self) -> None:
        """Also note a ``ttl`` by pattern where nobody knows patterns."""
        if self._is_mapping("ttl") and "ttl" not in self._by_pattern:
            self.seconds("ttl", None)
        super().close()

    def _headers(self) -> Headers:
        section, fields = self.section("headers"), []
        first: dict[str, str] = {}
        for name in section.keys():  # noqa: SIM118 - a Section is not a mapping
            value = section.parsed(name, header_value, None, secret=True)
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
                section.problem(name, "is not a field name; give one such as X-Token")
            elif name.lower() in NOT_SETTABLE:
                section.problem(name, "cannot be set; the vault sends this field itself")
            elif name.lower() == "authorization" and self.given("username"):
                section.problem(name, "is given beside username and password; give one of the two")
            elif first.setdefault(name.lower(), name) != name:
                section.problem(name, f"is the same field as {first[name.lower()]}; give it once")
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
        elif not self.given(plural) and not self.setting(plural).emptied and not default:
            self.require(key, f"a URL that starts with http:// or https://, or {plural}, a list of such")
        one = self.parsed(key, base_url, None, secret=True)
        found = self.parsed_items(plural, base_url, secret=True) or ((one,) if one else ())
        if not found and isinstance(value := self.setting(plural).value, list) and not value:
            self.problem(plural, "is empty; give at least one URL")
        wrong = self.given(key) or self.given(plural)
        return found or (() if wrong else tuple(default)) or (PLACEHOLDER_URL,)

    def mappings(self, key: str) -> tuple[Options, ...]:
        """A list of mappings, each with readers of its own; what they leave out of ``upstream`` is as here."""
        parts = []
        for item, path in self.items(key):
            if item.value is None and not item.wrong:
                self._problems.add(item.line, path, "has no value; give it keys with values, or leave it out")
            else:
                parts.append(Options(item, path, self._problems, parent=self))
        self._parts.extend(parts)
        return tuple(parts)
