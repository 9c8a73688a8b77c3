"""Short bodies that are at hand: given at once, without all that following a body at a client's pace takes."""

from __future__ import annotations

from collections.abc import Sequence

from vault.body import TOGETHER, Part
from vault.interfaces import IBody
from vault.sendfile import plain_transport
from vault.web.request import VaultRequest


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
