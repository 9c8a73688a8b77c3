"""Short answers in plain text, for people who read them in the output of pip, docker or apt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus

from twisted.web.http import Request
from twisted.web.http_headers import Headers

from vault.errors import Missing, Moved, Slashed, Unsatisfied, UpstreamError, VaultError
from vault.web.headers import CACHE_NAME, retry_after_value

# What describes a representation that is not sent after all (RFC 9110 section 8), or how long it may be kept.
_REPRESENTATION = (
    b"Accept-Ranges",
    b"Age",
    b"Content-Digest",
    b"Content-Disposition",
    b"Content-Encoding",
    b"Content-Language",
    b"Content-Location",
    b"Content-MD5",
    b"Content-Range",
    b"Digest",
    b"Docker-Content-Digest",
    b"ETag",
    b"Expires",
    b"Last-Modified",
    b"Repr-Digest",
    b"Vary",
)
_UNSATISFIED = re.compile(r"bytes \*/[0-9]+")


def reason_phrase(status: int) -> bytes:
    """The standard phrase of a status code; empty where there is none."""
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


Form = tuple[str, bytes]
"""A Content-Type and a body."""

Fields = Sequence[tuple[bytes, bytes]]
"""Header fields."""


def plain_text(text: str, retry_after: float | None = None, form: Form | None = None) -> tuple[bytes, Headers]:
    """The body and the fields of an answer that is ``form``, else ``text`` and a line feed; no cache may keep it."""
    content_type, body = form or ("text/plain; charset=utf-8", text.encode("utf-8", "replace") + b"\n")
    headers = Headers()
    headers.setRawHeaders(b"Content-Type", [content_type.encode("ascii")])
    headers.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    headers.setRawHeaders(b"Cache-Control", [b"no-store"])
    if retry_after is not None:
        headers.setRawHeaders(b"Retry-After", [retry_after_value(retry_after)])
    return body, headers


def respond(
    request: Request, status: int, text: str, retry_after: float | None = None, form: Form | None = None
) -> None:
    """Answer ``request`` with ``form``, else ``text`` and a line feed, and finish it; no cache may keep the answer.

    ``retry_after`` (seconds) becomes a whole ``Retry-After`` between 1 and 60.  A HEAD request gets the same fields and
    no body.  Fields that describe a representation are removed.  Where a response has begun, nothing true can be said
    any more and the connection is aborted; where the client has gone, nothing happens.
    """
    if request.finished or request.channel is None or getattr(request, "aborted", False):
        return
    if request.startedWriting:
        abort = getattr(request, "abort", None)
        if abort is not None:
            abort()
        else:
            request.loseConnection()
        return
    body, headers = plain_text(text, retry_after, form)
    for name in _REPRESENTATION:
        if status == 416 and name == b"Content-Range":
            continue  # there it tells the length that the range did not meet (RFC 9110 section 15.5.17)
        request.responseHeaders.removeHeader(name)
    for field, lines in headers.getAllRawHeaders():
        request.responseHeaders.setRawHeaders(field, list(lines))
    request.setResponseCode(status, reason_phrase(status))
    request.write(body)
    request.finish()


def status_of(error: VaultError) -> int:
    """The status a client gets for ``error``.

    An upstream's 404 and 410 are told as they are; its refusal of the vault is never told as a refusal of the client
    (RFC 9110 sections 15.5.2 and 15.5.4), since clients give up or ask for a password then.
    """
    if isinstance(error, Missing):
        return 410 if error.upstream_status == 410 else error.status
    if isinstance(error, UpstreamError) and error.status in (401, 403, 407):
        return 502
    return error.status


def received_status(error: VaultError) -> int | None:
    """The status that the upstream answered this very request with, where that is what ``error`` tells of."""
    return error.upstream_status if isinstance(error, UpstreamError) and not error.remembered else None


def proxy_status(error: VaultError, status: int) -> str | None:
    """The ``Proxy-Status`` (RFC 9209) of an answer that tells of ``error`` by ``status``; None where there is none.

    An upstream's status that is passed on as it is, now or from memory, is no error of a proxy.
    """
    passed_on = isinstance(error, (Missing, Unsatisfied)) and error.upstream_status == status
    received = received_status(error)
    parameters = [] if passed_on else [f"error={error.proxy_error}"]
    if received is not None:
        parameters.append(f"received-status={received}")
    return "; ".join([CACHE_NAME, *parameters]) if parameters else None


def how_refused(error: VaultError) -> tuple[bool, str]:
    """Whether ``error`` is a stored answer, and the parameters of ``Cache-Status`` (RFC 9211) that tell of it."""
    if isinstance(error, Slashed):
        return False, f"; fwd=uri-miss; fwd-status={error.redirect}"
    if isinstance(error, Moved):
        return False, ""
    # A remembered answer is a hit; of another remembered failure only that nobody was asked is true.
    hit = error.remembered and isinstance(error, Missing)
    told = "; hit" if hit else "" if error.remembered else "; fwd=uri-miss"
    received = received_status(error)
    told += "" if received is None else f"; fwd-status={received}"
    return hit, f"{told}; detail={error.proxy_error}"


def respond_error(request: Request, error: VaultError, backend: str = "", form: Form | None = None) -> None:
    """Answer ``request`` with what went wrong, naming the ``backend`` where one is concerned, or in its own ``form``.

    429 and 503 carry ``Retry-After``, the error's own or 5 seconds.
    """
    if isinstance(error, Moved):
        request.responseHeaders.setRawHeaders(b"Location", [error.location.encode("ascii")])
        status = error.redirect if isinstance(error, Slashed) else error.status
        respond(request, status, f"The address is {error.location}")
        return
    status = status_of(error)
    retry_after = None
    if status in (429, 503):
        retry_after = 5.0 if error.retry_after is None else error.retry_after
    told = proxy_status(error, status)
    if told is not None:
        request.responseHeaders.setRawHeaders(b"Proxy-Status", [told.encode("ascii")])
    if isinstance(error, Unsatisfied) and _UNSATISFIED.fullmatch(error.content_range or ""):
        request.setHeader(b"Content-Range", (error.content_range or "").encode("ascii"))
    text = str(error) or reason_phrase(status).decode("ascii")
    respond(request, status, f"{backend}: {text}" if backend else text, retry_after, form)
