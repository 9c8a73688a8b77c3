"""How long a client waits for what is to come from an index."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from vault.errors import NotYet
from vault.interfaces import IKitchen

T = TypeVar("T")

LONGEST_WAIT = 10.0
"""Seconds after which a client that still has no page is told to ask again, while the page goes on being fetched.

pip and poetry leave a server that says nothing for 15 s, uv one for 30 s; told 503, all of them ask again.
"""

PAUSE = 2.0
"""Seconds after which such a client may ask again: soon, since it then waits for the same fetch."""


async def soon(kitchen: IKitchen, what: str, begin: Callable[[], Awaitable[T]]) -> T:
    """What ``begin()`` gives; raises NotYet where that takes longer than clients wait, and it goes on.

    ``what`` says what it is that they wait for.
    """
    try:
        return await kitchen.in_time(LONGEST_WAIT, begin)
    except TimeoutError:
        message = f"{what} has not come from the index within {LONGEST_WAIT:g} s; it goes on coming, ask again"
        raise NotYet(message, PAUSE) from None
