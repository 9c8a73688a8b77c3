"""What can go wrong, each error with the HTTP status and the RFC 9209 error type a client is told.

The docstring of a class is the sentence its readers are told about the kind of failure; the message says what happened
this time.  Library exceptions are turned into these at the edge where they arise (``vault.upstream``, ``vault.store``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self


class VaultError(Exception):
    """Something the vault can explain to a person.

    ``status`` is the HTTP status a client gets, ``proxy_error`` the error type that is registered for it (RFC 9209
    section 2.3), and ``retry_after`` (seconds, at most 60) goes into ``Retry-After`` when the failure may pass.
    ``remembered`` is True where nobody was asked for it: it is told from memory, or by what the vault was told earlier.
    """

    status: ClassVar[int] = 500
    proxy_error: str = "proxy_internal_error"
    remembered = False

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def named(self, proxy_error: str) -> Self:
        """This error, with an error type that says more than its class's."""
        self.proxy_error = proxy_error
        return self


class ConfigError(VaultError):
    """The configuration is wrong: ``problems`` has one readable line for each mistake."""

    proxy_error = "proxy_configuration_error"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class BadRequest(VaultError):
    """The request cannot be understood or is refused for safety."""

    status = 400
    proxy_error = "http_request_error"


class Moved(VaultError):
    """What is asked for has another address; ``location`` is a reference to it (RFC 9110 section 10.2.2)."""

    status = 301

    def __init__(self, location: str) -> None:
        super().__init__(f"The address is {location}")
        self.location = location


class Slashed(Moved):
    """The upstream says, with the status ``redirect``, that the address of what is asked for ends with a slash.

    ``location`` is relative to what was asked for; ``query`` is the one that it has, with its question mark.
    """

    def __init__(self, location: str, query: str = "", redirect: int = 301) -> None:
        super().__init__(location)
        self.query = query
        self.redirect = redirect

    @property
    def permanent(self) -> bool:
        """True where the address without the slash is not to be used any more (RFC 9110 section 15.4)."""
        return self.redirect in (301, 308)


class UpstreamError(VaultError):
    """The upstream did not give what was asked for.

    ``upstream_status`` is the status it answered with where that is what is wrong, and ``redirected`` is True where a
    redirect had led to who failed.
    """

    status = 502
    proxy_error = "http_protocol_error"
    upstream_status: int | None = None
    redirected = False


class BrokenAnswer(UpstreamError):
    """The upstream answered with something that cannot be right."""


class OtherVersion(BrokenAnswer):
    """The upstream has something else under that name than what is known to be wanted."""


class Unsatisfied(BrokenAnswer):
    """The upstream says that it has none of the bytes of a range (416), though it was asked for the whole.

    ``content_range`` is what it says of the length of the whole (RFC 9110 section 15.5.17), if anything.
    """

    status = 416

    def __init__(self, message: str, content_range: str | None = None) -> None:
        super().__init__(message)
        self.content_range = content_range


class CutAnswer(BrokenAnswer):
    """The upstream's answer ended within its head, or has a head larger than is taken."""

    proxy_error = "http_response_incomplete"


class Refused(UpstreamError):
    """The upstream refuses the vault itself (401 or 403): its credentials or rights are wrong, not the client's.

    ``with_credentials`` is True where who refuses was given credentials with the request.
    """

    proxy_error = "proxy_configuration_error"

    def __init__(self, message: str, with_credentials: bool = False) -> None:
        super().__init__(message)
        self.with_credentials = with_credentials


class ProxyRefused(UpstreamError):
    """The proxy on the way to the upstream does not know the vault (407), whatever the upstream itself would say."""

    proxy_error = "proxy_configuration_error"


class Missing(UpstreamError):
    """There is no such thing: the upstream says so (404 or 410), or it is known from what else it says.

    ``let_go`` is True where a copy was kept until now, which has been removed because it has long been so.
    """

    status = 404
    proxy_error = "destination_not_found"
    let_go = False

    def __init__(self, message: str, upstream_status: int | None = None) -> None:
        super().__init__(message)
        self.upstream_status = upstream_status


class Unavailable(UpstreamError):
    """The upstream cannot be reached or cannot answer now; it may pass."""

    status = 503
    proxy_error = "destination_unavailable"


class Overloaded(Unavailable):
    """The upstream answers that it cannot answer now (429 or 5xx)."""


class ConnectionRefused(Unavailable):
    """No connection to the upstream could be made."""

    proxy_error = "connection_refused"


class NameNotFound(Unavailable):
    """The upstream's host name could not be resolved."""

    proxy_error = "dns_error"


class Timeout(Unavailable):
    """The upstream did not answer in time."""

    proxy_error = "http_response_timeout"


class Crowded(Timeout):
    """No connection to the upstream became free in time."""

    proxy_error = "connection_limit_reached"


class NotYet(Unavailable):
    """What is wanted is still on its way from the upstream, after as long as clients wait for an answer."""

    proxy_error = "http_response_timeout"


class TLSFailed(UpstreamError):
    """The upstream's certificate or TLS handshake is not acceptable."""

    proxy_error = "tls_certificate_error"


class ForbiddenTarget(UpstreamError):
    """A redirect led to an address that the vault must not contact."""

    proxy_error = "destination_ip_prohibited"


class Abandoned(Unavailable):
    """The vault itself gave up asking one upstream, since another has what is wanted."""


class LeftAlone(Unavailable):
    """The upstream has asked not to be asked for a while (``Retry-After``)."""

    remembered = True


class Offline(Unavailable):
    """The vault is told not to ask upstream, and has nothing stored."""

    remembered = True


class Truncated(UpstreamError):
    """A body ended before its end, or turned out to be wrong: what was handed out of it is not whole."""

    proxy_error = "http_response_incomplete"


class DigestMismatch(Truncated):
    """The body is complete but is not the one its digest names."""


class Unfit(Truncated):
    """The body is complete but cannot be what was asked for, such as a web page in place of a document."""

    proxy_error = "http_protocol_error"


class NotStored(VaultError):
    """The client wants nothing but a stored copy (``only-if-cached``), and there is none that would do."""

    status = 504
    proxy_error = "proxy_internal_response"
    remembered = True


class StoreError(VaultError):
    """The cache directory cannot be used."""

    status = 503
    proxy_error = "proxy_internal_error"


class Stopping(VaultError):
    """The vault is being stopped: what would take long was given up."""

    status = 503
