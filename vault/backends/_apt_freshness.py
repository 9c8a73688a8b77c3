"""When the upstream is asked what it has of a suite: because a client asks, or so that it is recent when one does.

A client never waits for long while there is something to serve.  Behind what it is served the suite is refreshed, and
all that clients use are refreshed now and then without any of them asking, or a machine that updates once a day would
get what was new the day before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from vault.backends._apt_refresh import refresh
from vault.backends._apt_suite import Suite
from vault.freshness import since
from vault.interfaces import IKitchen
from vault.outcome import How

if TYPE_CHECKING:
    from vault.backends.apt import AptBackend

PATIENCE = 0.5
"""Seconds within which a refresh that an old generation is due is answered by its outcome; else by the old one.

Who updates just after a new generation was published wants that.
"""

EXPIRED_PATIENCE = 8.0
"""The same where what is served has expired (``Valid-Until``): clients can do nothing with it."""

REST = 10.0
"""Seconds for which the upstream is not asked again after it failed to answer, nor waited for after it was too slow.

Whose refresh was too slow does not matter: who updates five suites is to wait once.
"""

RECENT = 5.0
"""Seconds for which nobody is asked again, however a client insists."""

PAUSE = 1.0
"""Seconds between two suites that are refreshed unasked: the upstream is to have one after another."""


def refresh_once(backend: AptBackend, kitchen: IKitchen, suite: Suite) -> Deferred[None]:
    """Refresh a suite, or wait for the refresh that is under way."""
    return kitchen.once(f"refresh {suite.path}", lambda: refresh(backend, kitchen, suite))


def refresh_behind(backend: AptBackend, kitchen: IKitchen, suite: Suite) -> None:
    """Refresh a suite while nobody waits."""
    kitchen.behind(f"refresh {suite.path}", lambda: refresh_once(backend, kitchen, suite))


async def freshen(backend: AptBackend, kitchen: IKitchen, suite: Suite, insist: bool) -> tuple[How, str | None]:
    """See to it that what is served of a suite is recent enough; raises the reason where there is nothing."""
    now = kitchen.now()
    age = since(suite.checked, now)
    if suite.current is None:
        if age < backend.negative_ttl:
            return How.HIT, None  # it has none, as was just said
        await refresh_once(backend, kitchen, suite)
        return How.MISS, None
    expired = suite.expired(now)
    if age < (RECENT if expired else backend.ttl):
        if insist and age > RECENT:
            refresh_behind(backend, kitchen, suite)
        return How.HIT, None
    if suite.failure is not None and since(suite.tried, now) < REST:
        return How.STALE, suite.failure.proxy_error
    soon = not expired and age < backend.ttl + backend.stale_while_revalidate
    if soon or since(backend.state.late, now) < REST:
        refresh_behind(backend, kitchen, suite)
        return How.STALE, "refreshing"
    try:
        await kitchen.within(EXPIRED_PATIENCE if expired else PATIENCE, refresh_once(backend, kitchen, suite))
    except TimeoutError:
        backend.state.late = kitchen.now()
        return How.STALE, "timeout"
    if suite.failure is not None:
        return How.STALE, suite.failure.proxy_error
    return How.REVALIDATED, None


async def keep_fresh(backend: AptBackend, kitchen: IKitchen) -> None:
    """Refresh the suites in use, each an interval after the upstream was last asked for it; for ever."""
    interval = backend.refresh_interval
    await backend.begin(kitchen)
    while True:
        now = kitchen.now()
        used = [suite for suite in backend.state.suites.values() if suite.current and suite.in_use(now)]
        next_one = max(used, key=lambda suite: _unasked(suite, now), default=None)
        wait = interval if next_one is None else interval - _unasked(next_one, now)
        if next_one is not None and wait <= 0:
            await refresh_once(backend, kitchen, next_one)
        # Whatever becomes known meanwhile was asked for by a client, and is not due before.
        await kitchen.sleep(max(PAUSE, min(wait, interval)))


def _unasked(suite: Suite, now: float) -> float:
    """Seconds since the upstream was last asked for a suite."""
    return min(since(suite.checked, now), since(suite.tried, now))
