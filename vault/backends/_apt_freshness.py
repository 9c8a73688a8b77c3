"""When the upstream is asked what it has of a suite: because a client asks, or so that it is recent when one does.

A client never waits for long while there is something to serve.  Behind what it is served the suite is refreshed, and
all that clients use are refreshed now and then without any of them asking, or a machine that updates once a day would
get what was new the day before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vault.backends._apt_refresh import refresh
from vault.backends._apt_suite import Suite
from vault.interfaces import IKitchen
from vault.outcome import How

if TYPE_CHECKING:
    from vault.backends.apt import AptBackend

PATIENCE = 0.5
"""Seconds within which a refresh that an old generation is due is answered by its outcome; else by the old one.

Who updates just after a new generation was published wants that.
"""

REST = 10.0
"""Seconds for which the upstream is not asked again after it failed to answer, nor waited for after it was too slow.

Whose refresh was too slow does not matter: who updates five suites is to wait once.
"""

RECENT = 5.0
"""Seconds for which nobody is asked again, however a client insists."""


async def freshen(backend: AptBackend, kitchen: IKitchen, suite: Suite, insist: bool) -> tuple[How, str | None]:
    """See to it that what is served of a suite is recent enough; raises the reason where there is nothing."""
    now = kitchen.now()
    age = now - suite.checked

    async def anew() -> None:
        await refresh(backend, kitchen, suite)

    name = f"refresh {suite.path}"
    if suite.current is None:
        if age < backend.negative_ttl:
            return How.HIT, None  # it has none, as was just said
        await kitchen.once(name, anew)
        return How.MISS, None
    if age < backend.ttl:
        if insist and age > RECENT:
            kitchen.behind(name, lambda: kitchen.once(name, anew))
        return How.HIT, None
    if suite.failure is not None and now - suite.tried < REST:
        return How.STALE, suite.failure.proxy_error
    if age < backend.ttl + backend.stale_while_revalidate or now - backend.state.late < REST:
        kitchen.behind(name, lambda: kitchen.once(name, anew))
        return How.STALE, "refreshing"
    try:
        await kitchen.within(PATIENCE, kitchen.once(name, anew))
    except TimeoutError:
        backend.state.late = kitchen.now()
        return How.STALE, "timeout"
    if suite.failure is not None:
        return How.STALE, suite.failure.proxy_error
    return How.REVALIDATED, None
