"""ArtifactResource: GET and HEAD of artifacts, as RFC 9110 and RFC 9111 have them, from the body the cache finds."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from vault.artifact import Artifact, Head
from vault.body import ClientGone, Delivery, Part
from vault.errors import Slashed, Truncated, VaultError
from vault.freshness import age, directives_of, only_if_cached
from vault.interfaces import IBackend, IBody, IKitchen, IRecipe
from vault.outcome import Asked, Found, How
from vault.web import conditional, ranges
from vault.web.accesslog import redact
from vault.web.errors import how_refused, respond, respond_error, status_of
from vault.web.headers import CACHE_NAME, cache_status, not_modified_fields, repr_digest, response_fields
from vault.web.request import VaultRequest
from vault.web.short import at_hand, give, send

OF_WHOLE_CONTENT = (b"Content-Digest", b"Content-MD5")
"""Fields that describe the bytes of one message (RFC 9530 section 2): what was said of all is not true of a part."""

HELD = 512 * 1024
"""The bytes of a body passed through that may wait for its end; less than what makes the upstream pause."""

OF_STORED_COPIES = (How.HIT, How.JOINED, How.STALE, How.REVALIDATED)


@dataclass(slots=True)
class Reply:
    """What is about to be sent: ``parts`` of a body ``length`` bytes long in all, None where that is not known."""

    status: int
    parts: list[Part]
    length: int | None
    content_range: str | None = None
    content_type: str | None = None


class _Glance:
    """A reader that only looks: it holds a body for a client that waits, or tells it that nobody will read it."""

    def __init__(self) -> None:
        self.offset = 0


class ArtifactResource(Resource):
    """One backend's artifacts.  ``path`` is what follows the prefix: canonical, percent-encoded, with its query."""

    isLeaf = True
    log = Logger()

    def __init__(
        self, backend: IBackend, kitchen: IKitchen, reactor: Any, now: Callable[[], float], path: str = "",
        instance: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        self.backend = backend
        self.kitchen = kitchen
        self._reactor = reactor
        self._now = now
        self._path = path
        self._instance = instance

    def at(self, path: str) -> ArtifactResource:
        """The resource of one path."""
        return ArtifactResource(self.backend, self.kitchen, self._reactor, self._now, path, self._instance)

    def render_GET(self, request: VaultRequest) -> int:
        """Answer with the artifact; also for HEAD."""
        request.backend = self.backend.name
        ensureDeferred(self._answer(request)).addErrback(request.processingFailed)
        return NOT_DONE_YET

    def render_HEAD(self, request: VaultRequest) -> int:
        """Answer with the artifact's head."""
        return self.render_GET(request)

    def begin(self, request: VaultRequest) -> Deferred[How | None]:
        """Begin to fetch what a request will need that waits for its turn; fires with None where it failed.

        What goes wrong will go wrong again when the request is answered, and be said then.
        """

        def wrong(failure: Failure) -> None:
            if not failure.check(VaultError):
                self.log.failure("looking ahead went wrong", failure)

        return ensureDeferred(self._begin(request)).addErrback(wrong)

    async def _begin(self, request: VaultRequest) -> How:
        headers = request.joined_headers()
        wanted = self._wanted(headers)
        asked = self._asked(request, headers)
        if isinstance(wanted, Artifact):
            found = await self.kitchen.find(wanted, asked)
        else:
            # What recipes note is of requests that are answered, and no client has asked for this twice.
            notes = {name: deepcopy(note) for name, note in asked.notes.items() if name != "client"}
            found = await wanted.find(self.kitchen, replace(asked, notes=notes))
        _unread(found)
        return found.how

    async def _answer(self, request: VaultRequest) -> None:
        try:
            headers = request.joined_headers()
            if self._instance and self._instance in headers.get("via", ""):
                request.setHeader(b"Proxy-Status", f"{CACHE_NAME}; error=proxy_loop_detected".encode("ascii"))
                self._say(request, 508, "This request came from this very server: its upstream leads back to it.")
                return
            wanted = self._wanted(headers)
            asked = self._asked(request, headers)
            if isinstance(wanted, Artifact):
                found = await self.kitchen.find(wanted, asked)
            else:
                found = await wanted.find(self.kitchen, asked)
        except VaultError as error:
            self._refuse(request, error)
            return
        if request.channel is None or request.aborted:
            _unread(found)
            return
        try:
            await self._serve(request, headers, found)
        except VaultError as error:
            self._refuse(request, error)

    def _wanted(self, headers: dict[str, str]) -> Artifact | IRecipe:
        return self.backend.resolve(self._path, headers)

    def _asked(self, request: VaultRequest, headers: dict[str, str]) -> Asked:
        directives = directives_of(headers.get("cache-control", ""))
        no_cache = "no-cache" in directives or directives.get("max-age") == "0"
        assert request.channel is not None
        return Asked(request.method == b"HEAD", no_cache, request.channel.notes, only_if_cached(directives))

    def _refuse(self, request: VaultRequest, error: VaultError) -> None:
        hit, told = how_refused(error)
        # A target in absolute form may be the upstream's own, without the prefix: there the relative one is right.
        if isinstance(error, Slashed) and request.absolute_form() is None:
            error = copy(error)  # others may be told of it as well
            error.location = (self.backend.prefix + self._path).partition("?")[0] + "/" + error.query
        request.cache_result = "HIT" if hit else "MISS"
        request.setHeader(b"X-Cache", request.cache_result.encode("ascii"))
        request.setHeader(b"Cache-Status", f"{CACHE_NAME}{told}".encode("ascii"))
        respond_error(request, error, self.backend.name, self.backend.refusal(status_of(error), error))

    def _say(self, request: VaultRequest, status: int, text: str) -> None:
        respond(request, status, text, form=self.backend.refusal(status, VaultError(text)))

    async def _serve(self, request: VaultRequest, headers: dict[str, str], found: Found) -> None:
        head = self._head(found)
        method = request.method.decode("ascii")
        if conditional.evaluate(method, headers, head, found.exact_date):
            self._set_fields(request, found, head, only_for_304=True)
            request.setResponseCode(304)
            _unread(found)
            request.finish()
            return
        reply = None
        if method == "GET" and "range" in headers and found.ranges and conditional.range_applies(headers, head):
            reply = await self._ranged(request, headers["range"], found, head)
            if reply is None and request.finished:
                return
            if request.channel is None or request.aborted:
                _unread(found)
                return
        if reply is None:
            if method == "GET" and found.body.length is None and _ends_unseen(request):
                await self._come_to_its_end(request, found.body)
                found.stored = found.stored and found.body.complete
                if request.channel is None or request.aborted:
                    _unread(found)
                    return
            reply = Reply(head.status, [(0, found.body.length)], found.body.length)
        self._set_fields(request, found, head)
        if reply.status == 206:
            for name in OF_WHOLE_CONTENT:
                request.responseHeaders.removeHeader(name)
        if reply.content_range is not None:
            request.setHeader(b"Content-Range", reply.content_range.encode("ascii"))
        if reply.content_type is not None:
            request.setHeader(b"Content-Type", reply.content_type.encode("ascii"))
        if reply.length is not None:
            request.setHeader(b"Content-Length", b"%d" % reply.length)
        elif request.clientproto == b"HTTP/1.0" or (not found.delimited and not _chunked_on_unix(request)):
            request.end_by_closing()  # as the upstream's own answer: nothing truer can be said to the client
        request.setResponseCode(reply.status)
        if method == "HEAD":
            _unread(found)
            request.write(b"")
            request.finish()
            return
        await self._deliver(request, found, reply)

    async def _deliver(self, request: VaultRequest, found: Found, reply: Reply) -> None:
        limit = request.site.byte_rate if request.site.byte_rate.per_second else None
        stall = request.site.limits.stall_timeout
        try:
            short = at_hand(found.body, reply.parts) if limit is None and request.channel is not None else None
            if short is not None:
                give(request, short)
                left: Sequence[Part] = []
            else:
                left = reply.parts if limit is not None else send(request, found.body, reply.parts)
            if left:
                await Delivery(request, found.body, left, self._reactor, stall, limit).start()
            else:
                _unread(found)  # nobody will read it again for this request
        except ClientGone:
            request.abort()
        except Truncated as error:
            self.log.warn("cut off {uri}: {error}", uri=redact(request.uri.decode("latin-1")), error=str(error))
            request.abort()
        except OSError as error:
            uri = redact(request.uri.decode("latin-1"))
            self.log.error("reading {uri} from disk: {error}", uri=uri, error=str(error))
            request.abort()
        else:
            request.finish()

    async def _come_to_its_end(self, request: VaultRequest, body: IBody, enough: int | None = None) -> None:
        """Wait until the body is whole, so that its length can be told, or has the byte at ``enough``.

        What the disk does not take has no place to wait in: of that no more than HELD bytes are waited for.  Raises
        Truncated where the end never comes.
        """
        holder = _Glance()
        body.attach(holder)
        request.notifyFinish().addBoth(lambda over: body.detach(holder))
        while not body.complete and body.size - body.on_disk < HELD and (enough is None or body.size <= enough):
            await body.grown(body.size)
        holder.offset = 2**63  # the client's own reader holds it from here on

    async def _ranged(self, request: VaultRequest, asked: str, found: Found, head: Head) -> Reply | None:
        """The reply to a Range request; None for the whole body, or when it is answered already (416)."""
        body = found.body
        if body.length is None:
            if found.how is How.BYPASS or (ranges.first_offset(asked) is None and not asked.startswith("bytes=-")):
                return None
            # Which bytes these are can be said once the length is known, or of a part that has come.
            part = ranges.closed(asked)
            await self._come_to_its_end(request, body, None if part is None else part[1] - 1)
            if body.length is None and part is not None and part[1] <= body.size:
                return Reply(206, [part], part[1] - part[0], ranges.content_range(*part, None))
            if body.length is None:
                found.stored = False
                return None  # it outgrew the disk
        length = body.length
        try:
            spans = ranges.parse(asked, length)
        except ranges.Unsatisfiable:
            self._set_outcome(request, found, head)  # and nothing else of the whole: this is about its length alone
            _unread(found)
            request.setHeader(b"Content-Range", ranges.unsatisfied_range(length).encode("ascii"))
            self._say(request, 416, f"The artifact has {length} bytes; none of those asked for.")
            return None
        if spans is None or (len(spans) > 1 and found.how is How.BYPASS):
            return None
        if len(spans) > 1:
            kind = head.get("Content-Type") or "application/octet-stream"
            multipart = ranges.Multipart(spans, length, kind, secrets.token_hex(16))
            parts: list[Part] = []
            for preamble, span in zip(multipart.preambles, spans, strict=True):
                parts += [preamble, span]
            parts.append(multipart.closing)
            return Reply(206, parts, multipart.content_length, None, multipart.header.decode("ascii"))
        start, stop = spans[0]
        if not body.complete and found.how is not How.BYPASS and found.ahead is not None:
            direct = await found.ahead(start, stop)
            if direct is not None:
                found.body, found.how, found.fwd, found.fwd_status = direct, How.BYPASS, "partial", 206
                found.stored = found.collapsed = False  # it was asked for alone, and is read by nobody else
        return Reply(206, [(start, stop)], stop - start, ranges.content_range(start, stop, length))

    def _head(self, found: Found) -> Head:
        head = found.head or found.body.head
        if head.etag is None and found.body.sha256 is not None:
            return _tagged(head, found.body.sha256)
        return head

    def _set_fields(self, request: VaultRequest, found: Found, head: Head, only_for_304: bool = False) -> None:
        aged = found.how in OF_STORED_COPIES or head.get("Age") is not None
        fields = response_fields(
            head, age=age(head, self._now()) if aged else None, accept_ranges=found.body.length is not None or aged
        )
        if only_for_304:
            fields = not_modified_fields(fields)
        seen: set[bytes] = set()
        for name, value in fields:
            if name.lower() in seen:
                request.responseHeaders.addRawHeader(name, value)
            else:
                request.responseHeaders.setRawHeaders(name, [value])
                seen.add(name.lower())
        if found.body.sha256 is not None and found.body.complete:
            request.setHeader(b"Repr-Digest", repr_digest(found.body.sha256))
        self._set_outcome(request, found, head)

    def _set_outcome(self, request: VaultRequest, found: Found, head: Head) -> None:
        """Say how the answer came about."""
        request.cache_result = found.how.x_cache
        request.setHeader(b"X-Cache", found.how.x_cache.encode("ascii"))
        status = cache_status(
            found.how, existing=head.get("Cache-Status"), fwd=found.fwd, fwd_status=found.fwd_status,
            stored=found.stored, collapsed=found.collapsed, ttl=None if found.ttl is None else int(found.ttl),
            detail=found.detail,
        )  # fmt: skip
        request.setHeader(b"Cache-Status", status.encode("latin-1"))


_GLANCE = _Glance()


@lru_cache(256)
def _tagged(head: Head, sha256: str) -> Head:
    """With a validator of our own, so that what the upstream gave none for can be resumed and revalidated."""
    return head.with_headers({"ETag": f'"sha256-{sha256}"'})


def _ends_unseen(request: VaultRequest) -> bool:
    """True where only closing ends a body, on a socket that knows no reset: a cut body would look whole."""
    return request.clientproto == b"HTTP/1.0" and isinstance(request.client, UNIXAddress)


def _chunked_on_unix(request: VaultRequest) -> bool:
    """True where a body that only closing ended is to be chunked, since otherwise a cut one would look whole."""
    return request.clientproto != b"HTTP/1.0" and isinstance(request.client, UNIXAddress)


def _unread(found: Found) -> None:
    """Nobody will read this body: where it only passes through, its connection is given back."""
    found.body.attach(_GLANCE)
    found.body.detach(_GLANCE)
