"""Requests that wait in a connection behind the one being answered: what they need is fetched meanwhile.

apt sends ten requests at once and reads the answers in turn.  Without this each would begin to wait for the upstream
only when the one before it was sent whole.  Nothing is answered here, and nothing noted on the connection: the cache
begins the fill that it would begin a little later, and goes on with it as with any other if the client leaves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource

from vault.outcome import How
from vault.web.request import VaultRequest
from vault.web.resource import ArtifactResource

if TYPE_CHECKING:
    from vault.web.channel import VaultChannel

log = Logger()

AHEAD = 4
"""Waiting requests of one connection that are looked after at most."""

IN_VAIN = 600.0
"""Seconds for which nothing is begun of a backend whose files cannot be kept, nor what failed when it was begun."""

_END = b"\r\n\r\n"
_LINE = re.compile(rb"GET ([\x21-\x7e]+) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e]*?)[ \t]*")
_NOT_PLAIN = (b"Authorization", b"Content-Length", b"Expect", b"Range", b"Transfer-Encoding", b"Upgrade", b"Via")
"""With one of these a request is more than a wish for a whole file."""


def heads(data: bytes) -> Iterator[tuple[bytes, Headers]]:
    """Target and fields of each of the first whole requests in what waits, as long as they are apt's plain GETs."""
    for head in data.split(_END, AHEAD)[:-1][:AHEAD]:
        line, *lines = head.split(b"\r\n")
        asked = _LINE.fullmatch(line)
        fields = [_FIELD.fullmatch(one) for one in lines]
        if asked is None or None in fields:
            return  # it will be refused, when its turn comes
        headers = Headers()
        for field in fields:
            assert field is not None
            headers.addRawHeader(field[1], field[2])
        agent = headers.getRawHeaders(b"User-Agent", [b""])[0]
        plain = not any(headers.hasHeader(name) for name in _NOT_PLAIN)
        if not agent.startswith(b"Debian APT") or len(headers.getRawHeaders(b"Host", [])) != 1 or not plain:
            return
        yield asked[1], headers


class Ahead:
    """What one connection has begun for the requests that wait in it."""

    def __init__(self, channel: VaultChannel) -> None:
        self._channel = channel
        self._begun: list[bytes] = []

    def look(self, waiting: list[bytes]) -> None:
        """See what has come behind the request that is being answered, and begin what is new of it."""
        site = self._channel.site
        # Where requests are counted, each has to wait for its turn; nor is anything begun that could not be kept.
        if self._channel.surplus or site.draining or site.request_rate.per_second is not None:
            return
        data = b"".join(waiting)
        if _END not in data:
            return
        wanted = dict(heads(data))
        new = [target for target in wanted if target not in self._begun]
        self._begun = list(wanted)  # what is no longer ahead may come again
        for target in new:
            try:
                self._begin(target, wanted[target])
            except Exception:  # it is said when the request is answered; the one before it is answered first
                log.failure("looking ahead went wrong")

    def _begin(self, target: bytes, headers: Headers) -> None:
        request = VaultRequest(self._channel)
        request.method, request.uri, request.clientproto = b"GET", target, b"HTTP/1.1"
        request.requestHeaders = headers
        request.client, request.host = self._channel.getPeer(), self._channel.getHost()
        if not request.allowed():
            return
        resource: IResource = self._channel.site.resource.getChildWithDefault(b"", request)
        if not isinstance(resource, ArtifactResource):
            return
        in_vain = self._channel.site.begun_in_vain
        # A body that passes through is fetched for one client alone, and what fails is asked for again in its turn: to
        # have begun it early was in vain.  That is learnt once for all connections.
        backend, failing = f"backend {resource.backend.name}", target.decode("ascii")
        if in_vain.get(backend) is not None or in_vain.get(failing) is not None:
            return

        def ended(how: How | None) -> None:
            if how is None:
                in_vain.note(failing, IN_VAIN)
            elif how is How.BYPASS:
                in_vain.note(backend, IN_VAIN)

        resource.begin(request).addCallback(ended)
