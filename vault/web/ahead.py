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

LONGEST = 8192
"""Bytes of a head that is looked at; apt's are far shorter."""

_END = b"\r\n\r\n"
_LINE = re.compile(rb"GET ([\x21-\x7e]+) HTTP/1\.1")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\x20-\x7e]*")
_APT = b"Debian APT"
_NOT_PLAIN = (b"Authorization", b"Content-Length", b"Expect", b"Range", b"Transfer-Encoding", b"Upgrade", b"Via")
"""With one of these a request is more than a wish for a whole file."""


def heads(data: bytes) -> Iterator[tuple[bytes, Headers]]:
    """Target and fields of each of the first whole requests in what waits, as long as they are apt's plain GETs."""
    for head in data.split(_END, AHEAD)[:-1][:AHEAD]:
        line, _, rest = head.partition(b"\r\n")
        asked = _LINE.fullmatch(line)
        if asked is None or len(head) > LONGEST or _APT not in rest:
            return
        headers = Headers()
        for one in rest.split(b"\r\n"):
            name, value = _field(one)
            if not name:
                return  # it will be refused, when its turn comes
            headers.addRawHeader(name, value)
        agent = headers.getRawHeaders(b"User-Agent", [b""])[0]
        plain = not any(headers.hasHeader(name) for name in _NOT_PLAIN)
        if not agent.startswith(_APT) or len(headers.getRawHeaders(b"Host", [])) != 1 or not plain:
            return
        yield asked[1], headers


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Name and value; an empty name where this is no field, or none of apt's.

    Not by one pattern: with blanks before, within and after a value it would try each for each of the others.
    """
    name, _, value = line.partition(b":")
    value = value.strip(b" \t")
    fits = b":" in line and _NAME.fullmatch(name) and _VALUE.fullmatch(value)
    return (name, value) if fits else (b"", b"")


class Ahead:
    """What one connection has begun for the requests that wait in it."""

    def __init__(self, channel: VaultChannel) -> None:
        self._channel = channel
        self._begun: list[bytes] = []
        self._seen_all = False  # of what waits: whatever comes behind it is not looked at before its turn

    def look(self, waiting: list[bytes]) -> None:
        """See what has come behind the request that is being answered, and begin what is new of it."""
        site = self._channel.site
        # Where requests are counted, each has to wait for its turn; nor is anything begun that could not be kept.
        if self._channel.surplus or site.draining or site.request_rate.per_second is not None:
            return
        if len(waiting) == 1:
            self._seen_all = False  # the first piece behind another request
        # The last bytes are enough to see whether a head has ended: else each byte would have all be looked at again.
        if self._seen_all or _END not in b"".join(waiting[-len(_END) :]):
            return
        data = b"".join(waiting)
        found = list(heads(data))
        self._seen_all = len(found) == AHEAD or len(found) < data.count(_END)
        wanted = dict(found)
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
