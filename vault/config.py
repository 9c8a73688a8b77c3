"""A YAML file to one frozen Config, or to every mistake in it, each with file, line and key."""

from __future__ import annotations

import difflib
import importlib
import importlib.resources
import ipaddress
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vault import backends
from vault.document import Document, Problems
from vault.endpoints import clashing, endpoint
from vault.errors import ConfigError
from vault.interfaces import IBackend
from vault.levels import LOG_LEVELS
from vault.options import PLACEHOLDER_PREFIX, Options, Section, UpstreamOptions
from vault.values import Network, authority, byte_size, directory, mode, network, rate, timeout, unscoped

LOG_FORMATS = ("text", "json")
ALIASES = {"dockerhub": "oci"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class MinFree:
    """How much of the disk stays free: ``percent`` of it or ``size`` bytes, the other being 0."""

    percent: float = 0.0
    size: int = 0

    def bytes(self, total: int) -> int:
        """The bytes to keep free on a disk of ``total`` bytes."""
        return self.size or int(total * self.percent / 100)


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """The bounds of the cache on disk: bytes, and permission bits of what is made there."""

    max_size: int
    min_free: MinFree
    dir_mode: int
    file_mode: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may take: rates for each address (None: any), connections in all, timeouts in seconds."""

    requests_per_second: float | None
    bytes_per_second: int | None
    max_clients: int
    header_timeout: float
    idle_timeout: float
    stall_timeout: float


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """One backend, ready to use; ``type`` is as configured, aliases resolved."""

    type: str
    name: str
    prefix: str
    upstream: UpstreamOptions
    backend: IBackend


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration.  ``file`` is its name for people; ``access_allow`` is empty where everyone may ask.

    ``connect_allow`` has the hosts and ports that CONNECT may lead to.
    """

    file: str
    http_host: str
    http_port: int
    listen: tuple[str, ...]
    cache_dir: Path
    log_level: str
    log_format: str
    shutdown_timeout: float
    offline: bool
    cache: CacheOptions
    limits: Limits
    access_allow: tuple[Network, ...]
    connect_allow: tuple[tuple[str, int], ...]
    backends: tuple[BackendConfig, ...]


def load(path: str | Path, environ: Mapping[str, str]) -> Config:
    """The configuration in a file; raises ConfigError with every mistake in it."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}; give a readable YAML file"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text; give a YAML file in UTF-8"]) from error
    return load_text(text, str(path), environ)


def built_in(environ: Mapping[str, str]) -> Config:
    """The sample configuration that comes with the package."""
    text = importlib.resources.files("vault").joinpath("config-sample.yml").read_text("utf-8")
    return load_text(text, "config-sample.yml", environ)


def load_text(text: str, name: str, environ: Mapping[str, str]) -> Config:
    """The configuration in ``text``, called ``name`` in messages; raises ConfigError with every mistake in it."""
    problems = Problems(name)
    root = Section(Document(environ, problems).read(text), "", problems)
    offline = root.flag("offline")
    config = Config(
        file=name,
        http_host=root.parsed("http_host", _host, "localhost"),
        http_port=root.integer("http_port", 8080, maximum=65535),
        listen=root.parsed_items("listen", lambda text: endpoint(text, environ)),
        cache_dir=root.parsed("cache_dir", directory, Path("/tmp/artifact_vault_cache")),  # noqa: S108 - the contract
        log_level=root.parsed("log_level", lambda text: _choice(text.upper(), LOG_LEVELS), "INFO"),
        log_format=root.parsed("log_format", lambda text: _choice(text, LOG_FORMATS), "text"),
        shutdown_timeout=root.seconds("shutdown_timeout", 30.0),
        offline=offline,
        cache=_cache(root.section("cache")),
        limits=_limits(root, root.section("limits")),
        access_allow=root.section("access").parsed_items("allow", network),
        connect_allow=root.parsed_items("connect_allow", authority, less=True),
        backends=_backends(root, offline, problems),
    )
    _keep_apart(root, problems)
    root.close()
    problems.raise_any()
    return config


def _keep_apart(root: Section, problems: Problems) -> None:
    """Note the elements of ``listen`` that want what another has."""
    written = root.setting("listen").value
    items = {f"listen[{index}]": item for index, item in enumerate(written)} if isinstance(written, list) else {}
    texts = [(path, item.value) for path, item in items.items() if isinstance(item.value, str)]
    for path, other in clashing(texts):
        problems.add(items[path].line, path, f"listens where {other} does already; leave one of the two out")


def _cache(section: Section) -> CacheOptions:
    return CacheOptions(
        max_size=section.parsed("max_size", byte_size, 50 * 1024**3),
        min_free=section.parsed("min_free", _min_free, MinFree(percent=5.0)),
        dir_mode=section.parsed("dir_mode", mode(0o700), 0o750),
        file_mode=section.parsed("file_mode", mode(0o600), 0o640),
    )


def _limits(root: Section, section: Section) -> Limits:
    if root.given("max_clients") and section.given("max_clients"):
        section.problem("max_clients", "is given here and as max_clients at the top; give it once")
    outer = root.integer("max_clients", 1000, minimum=1)
    return Limits(
        requests_per_second=section.parsed("requests_per_second", rate, None),
        bytes_per_second=section.parsed("bytes_per_second", byte_size, None),
        max_clients=section.integer("max_clients", outer, minimum=1),
        header_timeout=section.parsed("header_timeout", timeout, 30.0),
        idle_timeout=section.parsed("idle_timeout", timeout, 60.0),
        stall_timeout=section.parsed("stall_timeout", timeout, 60.0),
    )


def _backends(root: Section, offline: bool, problems: Problems) -> tuple[BackendConfig, ...]:
    items = root.items("backends")
    written = root.setting("backends")
    if root.usable and not written.wrong and not written.emptied and written.value in (None, []):
        root.problem("backends", "names no backend; give a list with at least one, each with type and config")
    taken: dict[str, str] = {}
    found = []
    for item, path in items:
        section = Section(item, path, problems)
        options = Options(section.setting("config"), section.at("config"), problems, offline)
        for mapping, other, where in (
            (section, options, "below config"),
            (options, section, "beside config"),
            (options, root, "at the top level"),
            (root, options, f"below {options.path}"),
            (root, section, f"below {section.path}"),
        ):
            mapping.near(other, where)
        found.append(_backend(section, options, problems, taken))
        section.close()
    return tuple(backend for backend in found if backend is not None)


def _backend(section: Section, options: Options, problems: Problems, taken: dict[str, str]) -> BackendConfig | None:
    """One backend, None where it cannot be made; ``taken`` has the prefixes and names of those before."""
    options.name = _backend_name(section, options, taken)
    section.require("type", f"one of {', '.join(_types())}")
    kind = section.text("type")
    make = None if kind is None else _maker(section, kind)
    if kind is None or make is None:
        return None
    try:
        backend = make(options.name, options)
        missing = sorted(name for name in IBackend.names() if not hasattr(backend, name))
    except ConfigError as error:
        problems.include(error)
        return None
    except (Exception, SystemExit) as error:  # whatever somebody else's module raises; its text may have a secret in it
        section.problem("type", f"its make_backend failed ({type(error).__name__}); mend that module, or take another")
        return None
    if missing:
        what = f"{type(backend).__name__} without {', '.join(missing)}"
        section.problem("type", f"its make_backend returned no backend ({what}); mend that module, or take another")
        return None
    options.close()
    return BackendConfig(ALIASES.get(kind, kind), options.name, options.prefix, options.upstream, backend)


def _backend_name(section: Section, options: Options, taken: dict[str, str]) -> str:
    prefix_known = options.prefix != PLACEHOLDER_PREFIX
    first = taken.setdefault(options.prefix, section.path)
    if prefix_known and first != section.path:
        options.problem("prefix", f"is the prefix of {first} too; give each backend its own")
        prefix_known = False
    name = section.parsed("name", _name, None)
    if name is None and prefix_known and not section.given("name"):
        name = options.prefix.strip("/").replace("/", "-")
        if not NAME.fullmatch(name):
            section.problem("name", "is missing and the prefix does not make one; give letters, digits, . _ or -")
            name = None
    # Prefixes begin with a slash and names do not, so that one table holds both.
    if name is not None and (first := taken.setdefault(name, section.path)) != section.path:
        section.problem("name", f"is the name of {first} too; give each backend its own")
    return name or "wrong"


def _types() -> list[str]:
    """The values of ``type`` that need no dot: the modules there are, and the aliases of those."""
    modules = sorted(module.name for module in pkgutil.iter_modules(backends.__path__) if module.name[0] != "_")
    return modules + [alias for alias, name in ALIASES.items() if name in modules]


def _maker(section: Section, kind: str) -> Callable[[str, Options], IBackend] | None:
    known = _types()
    hidden = section.setting("type").hidden
    if kind in known:
        name = f"{backends.__name__}.{ALIASES.get(kind, kind)}"
    elif re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", kind):
        name = kind
    else:
        near = [] if hidden else difflib.get_close_matches(kind, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(known)} or a module's dotted name"
        section.problem("type", f"is not a known type; {hint}")
        return None
    shown = "its module" if hidden else name
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever somebody else's module raises while it is imported
        why = type(error).__name__ if hidden else f"{type(error).__name__}: {error}"
        section.problem("type", f"{shown} cannot be imported ({why}); give a module that can")
        return None
    make: Callable[[str, Options], IBackend] | None = getattr(module, "make_backend", None)
    if not callable(make):
        section.problem("type", f"{shown} has no make_backend(name, options); give a backend's module")
        return None
    return make


# Parsers of one value, as those in ``vault.options``.


def _choice(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ValueError(f"is not allowed; give one of {', '.join(choices)}")
    return text


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("is not a name; give letters, digits, . _ or -, the first a letter or digit")
    return text


def _host(text: str) -> str:
    if unscoped(text):
        raise ValueError("is a link-local address without its interface; put that behind it, such as fe80::1%eth0")
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", text):
            raise ValueError("is not a host; give a name or address alone, such as localhost, 0.0.0.0 or ::") from None
    return text


def _min_free(text: str) -> MinFree:
    if (match := re.fullmatch(r"([0-9]{1,2}(?:\.[0-9]+)?)\s*%", text)) is not None:
        return MinFree(percent=float(match[1]))
    try:
        return MinFree(size=0 if text == "0" else byte_size(text))
    except ValueError:
        raise ValueError("is neither a percentage below 100 nor a size; give one such as 5% or 10GiB") from None
