"""VaultService: the running vault.  It builds the parts from the configuration, starts, reloads and stops them."""

from __future__ import annotations

import ctypes
import gc
import resource
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from vault.cache import Cache
from vault.clock import keep_timers
from vault.config import BackendConfig, Config
from vault.errors import ConfigError, StoreError
from vault.interfaces import IBackend, IRegistryBackend, IStartedBackend
from vault.kitchen import SAVING, Kitchen
from vault.listeners import Listener, ListenFailed, listen
from vault.logs import observer
from vault.metrics import CONTENT_TYPE, Figures
from vault.options import UpstreamOptions
from vault.sources import Sources
from vault.store.disk import ThreadedDisk
from vault.store.recovery import rebuild
from vault.store.store import Store
from vault.transfer import Transfer
from vault.upstream import Upstream
from vault.web.accesslog import AccessLog
from vault.web.health import Metrics
from vault.web.registry import RegistryResource
from vault.web.resource import ArtifactResource
from vault.web.root import RootResource
from vault.web.site import VaultSite
from vault.web.tunnel import Tunnels

REBUILD_AGAIN = 60.0
"""Seconds after which an index that could not be made again is tried again."""

CHECKPOINT = 5.0
"""Seconds between two looks at what running fills have not yet synced, and at the space on the disk."""

RESET = 2.0
"""Seconds within which connections that are cut off at the end must be gone."""

WORKERS = 2.0
"""Seconds for which the end waits for what is being computed: nobody is there any more who wants it."""

DISK = 5.0
"""Seconds for which the end waits for a disk at a time, which is far more than one needs that answers at all."""

SWITCH = 0.0005
"""Seconds for which a thread that computes may keep the others waiting.

The reactor's thread waits so long a few times for each request while something is computed; Python's own 5 ms would add
up to what people notice.
"""


@dataclass
class Parts:
    """What was made for one backend."""

    config: BackendConfig
    trusted: tuple[bytes, ...]
    upstreams: list[Upstream]
    kitchen: Kitchen = field(init=False)


class VaultService(Service):
    """``reread`` gives the configuration again, for SIGHUP; ``log_level`` is stronger than the configuration's."""

    log = Logger()

    def __init__(
        self,
        config: Config,
        reread: Callable[[], Config],
        reactor: Any,
        log_level: str | None = None,
        log_stream: TextIO | None = None,
    ) -> None:
        keep_timers(reactor)
        self._config = self._started = config
        self._reread = reread
        self._reactor = reactor
        self._level = log_level
        self._instance = secrets.token_hex(6)
        level = log_level or config.log_level
        self._observer = None if log_stream is None else observer(log_stream, level, config.log_format)
        self._logs_to_terminal = log_stream is sys.__stdout__
        self._disk = ThreadedDisk(reactor)
        self._store = Store(config.cache_dir, config.cache, self._disk, reactor, time.time)
        self._transfers: dict[str, Transfer] = {}
        self._workers = ThreadedDisk(reactor, threads=2)
        self._parts: dict[str, Parts] = {}
        self._retired: list[Cache] = []
        self._figures = Figures(
            self._store.totals,
            lambda: len(self._transfers),
            lambda: [part.config.backend for part in self._parts.values()],
        )
        self._listeners: list[Listener] = []
        self._care: LoopingCall | None = None
        self._cared: Deferred[LoopingCall] | None = None
        self._site: VaultSite | None = None
        self._rebuilding = False
        self._tried: object = None  # the index that was made again last, or could not be
        self._rebuild_again = 0.0
        self._ending = False

    def setServiceParent(self, parent: Any) -> None:
        """Also take signals, where it is twistd's application, and put our log observer in the place of twistd's."""
        if isinstance(parent, Componentized):
            self._take_signals()
            if self._observer is not None:
                parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    # -- starting ---------------------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Open the store and listen; where that cannot be, say why in one line and raise what twistd ends by."""
        super().startService()
        raise_descriptor_limit()
        keep_buffers()
        self._take_signals()  # before anybody is told that it listens, also where it is not twistd's own application
        try:
            self._store.open()
            self._site = self._make_site()
            self._listeners = listen(self._config, self._site, self._reactor)
        except (StoreError, ListenFailed) as error:
            if isinstance(error, ListenFailed):
                ensureDeferred(self._store.close())  # at once: there are no fills to wait for
            self._tell_why(error)
            raise
        for listener in self._listeners:
            self.log.info("listening on {address}", address=listener.address)
        self._care = LoopingCall(self._look_after)
        self._care.clock = self._reactor
        self._cared = self._care.start(CHECKPOINT, now=False)
        self._complete_index()
        self._reactor.callWhenRunning(self._take_signals)  # the reactor has set its own by then
        gc.freeze()  # what the start made stays: the collector need not look at it again
        sys.setswitchinterval(SWITCH)

    def _tell_why(self, error: Exception) -> None:
        # On the terminal, if there still is one, and in the log, if that is not the same terminal.  What is raised must
        # be an Exception for twistd to remove its pid file and, as a daemon, to tell the process that waits for it.
        (sys.__stderr__ or sys.stderr).write(f"{error}\n")
        if not self._logs_to_terminal:
            self.log.critical("{error}", error=error)
        told = sys.excepthook
        sys.excepthook = lambda kind, value, trace: None if value is error else told(kind, value, trace)

    def _complete_index(self) -> None:
        # At the start, or later where the disk was too full then, or the index is damaged.
        if not self._store.rebuilding or self._rebuilding:
            return
        if self._store.index is not self._tried or self._reactor.seconds() >= self._rebuild_again:
            self._rebuilding, self._tried = True, self._store.index
            rebuilt = ensureDeferred(rebuild(self._store, self._disk))
            rebuilt.addErrback(lambda failure: self.log.failure("rebuilding the index failed", failure))
            rebuilt.addBoth(self._completed)

    def _completed(self, unused: object) -> None:
        self._rebuilding = False
        self._rebuild_again = self._reactor.seconds() + REBUILD_AGAIN

    def _make_site(self) -> VaultSite:
        config = self._config
        return VaultSite(
            self._make_root(config),
            reactor=self._reactor,
            now=time.time,
            limits=config.limits,
            access_log=AccessLog(config.log_format),
            access_allow=config.access_allow,
            tunnels=Tunnels(self._reactor, config.connect_allow),
        )

    def _make_root(self, config: Config) -> RootResource:
        parts: dict[str, Parts] = {}
        for backend in config.backends:
            known = self._parts.get(backend.name)
            same = known is not None and known.config == backend and known.trusted == trusted(backend)
            parts[backend.name] = known if known is not None and same else self._make_parts(backend)
            self.log.info(
                "backend {name}: {prefix} is {kind} {upstream}",
                name=backend.name,
                prefix=backend.prefix,
                kind=backend.type,
                upstream=", ".join(backend.backend.upstreams),
            )
        gone = [known for name, known in self._parts.items() if parts.get(name) is not known]
        self._parts = parts
        self._retired = [cache for cache in self._retired if cache.busy]
        for old in gone:
            ended = old.kitchen.stop()
            if old.config.backend.name in parts:
                parts[old.config.backend.name].kitchen.follow(ended)
            self._retired += old.kitchen.caches
            for upstream in old.upstreams:
                ensureDeferred(upstream.close())
        resources = [self._make_resource(part.config.backend, part.kitchen) for part in parts.values()]
        return RootResource(resources, self._store.problems, Metrics(self._figures.exposition, CONTENT_TYPE))

    def _make_resource(self, backend: IBackend, kitchen: Kitchen) -> ArtifactResource:
        if IRegistryBackend.providedBy(backend):
            return RegistryResource(backend, kitchen, self._reactor, time.time, instance=self._instance)
        return ArtifactResource(backend, kitchen, self._reactor, time.time, instance=self._instance)

    def _make_parts(self, config: BackendConfig) -> Parts:
        parts = Parts(config, trusted(config), [])
        parts.kitchen = self._make_kitchen(config.backend, config.upstream, parts.upstreams)
        return parts

    def _make_kitchen(self, backend: IBackend, options: UpstreamOptions, upstreams: list[Upstream]) -> Kitchen:
        upstream = Upstream(self._reactor, options, backend.upstreams, time.time, self._instance)
        upstreams.append(upstream)
        sources = Sources(backend, upstream, self._reactor, time.time)
        cache = Cache(sources, self._store, self._reactor, time.time, self._transfers)
        members = {
            member.backend.name: self._make_kitchen(member.backend, member.options, upstreams)
            for member in backend.members
        }
        kitchen = Kitchen(cache, sources, self._store, self._workers, time.time, members)
        if IStartedBackend.providedBy(backend):
            backend.started(kitchen)
        return kitchen

    def _take_signals(self) -> None:
        # twistd would end the process by the signal itself; a clean stop is status 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *unused: self._reactor.callFromThread(self._stop_reactor))
        signal.signal(signal.SIGHUP, lambda *unused: self._reactor.callFromThread(self.reload))
        signal.signal(signal.SIGUSR1, lambda *unused: self._reactor.callFromThread(self.reopen_log))

    def _stop_reactor(self) -> None:
        if self.running and not self._ending:
            self._ending = True
            self._reactor.stop()
        elif self._site is not None:
            self._site.abort_all()  # asked a second time: whoever asks does not want to wait
            self._disk.stopping = True

    async def _look_after(self) -> None:
        try:
            await self._store.checkpoint()
            await self._disk.run(self._store.tidy)
            self._complete_index()
        except Exception:  # housekeeping goes on, whatever happened to it once
            self.log.failure("housekeeping failed")

    # -- reloading --------------------------------------------------------------------------------------------------

    def reopen_log(self) -> None:
        """Go on in a new log file where the old one was moved away."""
        try:
            if self._observer is not None:
                self._observer.reopen()
        except OSError as error:
            text = "the log file {file} cannot be opened again: {reason}; the log goes on in the old one"
            self.log.error(text, file=error.filename, reason=error.strerror)

    def reload(self) -> None:
        """Take over a changed configuration; a wrong one is refused and the old one stays.  Reopen the log file too."""
        self.reopen_log()
        try:
            config = self._reread()
        except ConfigError as error:
            for problem in error.problems:
                self.log.error("the configuration was not taken over: {problem}", problem=problem)
            return
        where = ("listen", "http_host", "http_port", "cache_dir")
        fixed = [name for name in where if getattr(config, name) != getattr(self._started, name)]
        if fixed:
            self.log.warn("a change of {names} needs a restart", names=", ".join(fixed))
        self._config = config
        if self._observer is not None:
            self._observer.level = self._level or config.log_level
            self._observer.form = config.log_format
        self._store.reconfigure(config.cache)
        if self._site is not None:
            self._site.reconfigure(
                root=self._make_root(config),
                limits=config.limits,
                access_log=AccessLog(config.log_format),
                access_allow=config.access_allow,
                tunnels=Tunnels(self._reactor, config.connect_allow),
            )
        self.log.info("the configuration was read again from {file}", file=config.file)

    # -- stopping ---------------------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Stop listening, give transfers their time, leave what is partly filled resumable."""
        super().stopService()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        self.log.info("stopping")
        if self._care is not None and self._care.running:
            self._care.stop()
        await DeferredList([listener.close() for listener in self._listeners], consumeErrors=True)
        if self._site is not None:
            drained = self._site.drain()
            if not drained.called:
                try:
                    await drained.addTimeout(max(0.01, self._config.shutdown_timeout), self._reactor)
                except DeferredTimeout:
                    self.log.warn("transfers did not end in time; they are cut off")
            await self._cut_off(self._site)
        self._disk.stopping = True  # nobody is there any more who waits for a file to be read through
        saved = DeferredList([part.kitchen.stop() for part in self._parts.values()])
        await self._within(DISK, ensureDeferred(self._end_fills()))
        await self._within(SAVING, saved)
        if self._cared is not None:
            await self._within(DISK, self._cared)  # what it is just doing uses the index
        await self._store.close()
        for upstream in [upstream for part in self._parts.values() for upstream in part.upstreams]:
            await upstream.close()
        self._workers.stop(WORKERS)
        self._disk.stop(WORKERS)
        self.log.info("stopped")

    async def _end_fills(self) -> None:
        caches = [*self._retired, *(cache for part in self._parts.values() for cache in part.kitchen.caches)]
        for cache in caches:
            cache.stopping = True
        for cache in caches:
            await cache.stop()  # one after the other: they share the table of what is being fetched

    async def _within(self, seconds: float, over: Deferred[Any]) -> None:
        try:
            await (over if over.called else over.addTimeout(seconds, self._reactor))
        except DeferredTimeout:
            return
        except Exception:
            self.log.failure("stopping goes on after this")  # the index is to be closed whatever went wrong

    async def _cut_off(self, site: VaultSite) -> None:
        # Resets and access log lines come with a turn of the reactor; a process that ends before closes the sockets in
        # an orderly way, and what has no length then looks whole.
        site.abort_all()
        await self._within(RESET, site.drain())


def trusted(config: BackendConfig) -> tuple[bytes, ...]:
    """The certificates that a backend trusts: their file may have new content under its old name."""

    def files(backend: IBackend, options: UpstreamOptions) -> Iterator[Path | None]:
        yield options.ca_file
        for member in backend.members:
            yield from files(member.backend, member.options)

    found = []
    for file in files(config.backend, config.upstream):
        try:
            found.append(b"" if file is None else file.read_bytes())
        except OSError:  # removed since the configuration was read; whoever needs it will say so
            found.append(b"")
    return tuple(found)


def raise_descriptor_limit() -> None:
    """Allow as many open files as the system lets us: a client takes two, and the usual soft limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return


def keep_buffers() -> None:
    """Let the C library keep the memory of receive buffers instead of giving it back after each, where it is glibc.

    Taking it anew from the kernel, page by page, costs a fifth of a fast fill's time.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_threshold, 4 * 1024 * 1024)
    mallopt(trim_threshold, 16 * 1024 * 1024)
