"""Short bodies that are at hand: given at once, without all that following a body at a client's pace takes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vault.body import TOGETHER, Part
from vault.interfaces import IBody
from vault.sendfile import Cork, plain_transport
from vault.web.request import VaultRequest

AT_ONCE = 4 * 1024 * 1024
"""The most that is given to a socket at once: it takes no more of it anyway."""


def at_hand(body: IBody, parts: Sequence[Part]) -> bytes | None:
    """The ``parts`` of a body, where they are short and can be had without waiting; None where ``Delivery`` is needed.

    It is also the one to deal with a file that is too short.
    """
    if not body.complete:
        return None
    spans = [(part[0], body.size if part[1] is None else part[1]) for part in parts if isinstance(part, tuple)]
    if sum(stop - start for start, stop in spans) > TOGETHER:
        return None
    pieces: list[bytes] = []
    for part in parts:
        if isinstance(part, tuple):
            start, stop = spans.pop(0)
            piece = body.at_hand(start, stop - start)
            if piece is None or len(piece) != stop - start:
                return None
            pieces.append(piece)
        else:
            pieces.append(part)
    return b"".join(pieces)


def give(request: VaultRequest, data: bytes) -> None:
    """Write the whole of a body; the head goes out with it."""
    request.write(data)
    transport = plain_transport(request)
    if transport is not None and transport._tempDataBuffer:
        transport.doWrite()  # now, and not when the reactor has asked whether the socket takes it


def send(request: VaultRequest, body: IBody, parts: Sequence[Part]) -> Sequence[Part]:
    """Have the kernel send what is in memory, as far as the client's socket takes it; the parts that are left over.

    Those are for ``Delivery``, which also deals with whatever is wrong.  A body that goes out whole needs no more.
    """
    transport = plain_transport(request)
    if transport is None or body.descriptor is None or not body.complete or transport.dataBuffer:
        return parts
    if transport._tempDataBuffer or len(parts) != 1 or not isinstance(parts[0], tuple):
        return parts
    start, stop = parts[0][0], body.size if parts[0][1] is None else parts[0][1]
    if not 0 < stop - start <= AT_ONCE or stop > body.on_disk or body.ready(start, stop - start) < stop - start:
        return parts
    cork = Cork(transport.socket)
    request.write(b"")  # the head
    transport.doWrite()
    sent = 0
    if not (transport.dataBuffer or transport._tempDataBuffer):
        try:
            sent = os.sendfile(transport.fileno(), body.descriptor, start, stop - start)
        except OSError:
            sent = 0
    cork.draw()
    request.sentLength += sent  # what Request.write would count
    return [(start + sent, stop)] if start + sent < stop else []
