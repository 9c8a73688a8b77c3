"""Explanation: which of the vault's errors a library's exception means, and its error type of RFC 9209."""

from __future__ import annotations

import errno
from urllib.parse import urlsplit

from OpenSSL import SSL
from twisted.internet import error as net
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from vault.connect import MAX_HEAD
from vault.errors import (
    BrokenAnswer,
    ConnectionRefused,
    CutAnswer,
    NameNotFound,
    ProxyRefused,
    Timeout,
    TLSFailed,
    Unavailable,
    UpstreamError,
)
from vault.handover import BadCertificate, Late
from vault.proxy import TunnelLate, TunnelRefused

UNVERIFIED = ("VerificationError", "CertificateError")
"""What service_identity raises."""

NO_TLS = ("wrong version number", "packet length too long", "unknown protocol")
"""What OpenSSL says of an answer in plain text."""


def explained(error: BaseException, host: str, proxy: str | None = None) -> UpstreamError:
    """One of our errors for what a request failed with; with a ``proxy`` that was what it tried to connect to.

    ``host`` is called what its URL says, with the port if that has one.
    """
    peer = proxy or host
    if isinstance(error.__cause__, (Late, net.ConnectingCancelledError)):
        error = error.__cause__  # what was being waited for when there was no time left
    if isinstance(error, UpstreamError):
        return error
    for cause in causes(error):
        if isinstance(cause, UpstreamError):
            return cause
        if isinstance(cause, (net.DNSLookupError, net.UnknownHostError)):
            name = f"of {proxy}" if proxy else urlsplit(f"//{host}").hostname
            return NameNotFound(f"the name {name} could not be resolved")
        if isinstance(cause, ValueError) and str(cause).startswith("invalid hostname"):
            return BrokenAnswer(f"{host} is no host name that can be looked up: letters, digits, hyphens and dots")
        if isinstance(cause, (net.TimeoutError, net.TCPTimedOutError)):
            return Timeout(f"no connection to {peer} within the connect timeout").named("connection_timeout")
        if isinstance(cause, net.ConnectingCancelledError):
            return Timeout(f"no connection to {peer} in time").named("connection_timeout")
        if isinstance(cause, Late):
            tunnel = isinstance(cause, TunnelLate)
            what = f"{peer} has opened no tunnel to {host}" if tunnel else f"the TLS handshake of {host} did not end"
            when = "within the connect timeout" if cause.waited_out else "in time"
            return Timeout(f"{what} {when}").named("connection_timeout")
        if isinstance(cause, net.ConnectError):
            return ConnectionRefused(f"no connection to {peer}: {_reason(cause)}").named(_kind_of_refusal(cause))
        if isinstance(cause, TunnelRefused):
            return unknown_to(peer) if cause.unknown else ConnectionRefused(str(cause))
        if isinstance(cause, (SSL.Error, BadCertificate)) or type(cause).__name__ in UNVERIFIED:
            reason = _reason(cause)
            if isinstance(cause, SSL.Error) and cause is not error and "certificate" not in reason:
                kind = "tls_alert_received" if "alert" in reason else "tls_protocol_error"
                return Unavailable(f"the TLS connection to {host} broke: {reason}").named(kind)
            wrong = f"the certificate or TLS handshake of {host} is not acceptable: {reason}"
            if any(words in reason for words in NO_TLS):
                wrong = (
                    f"{host} seems not to speak TLS ({reason}); check whether its URL is to begin with https or http"
                )
            failed = TLSFailed(wrong)
            if isinstance(cause, SSL.Error) and "certificate" not in reason:
                failed.named("tls_alert_received" if "alert" in reason else "tls_protocol_error")
            return failed
        if isinstance(cause, net.ConnectionLost | net.ConnectionDone | net.ConnectionAborted):
            if isinstance(error, ResponseFailed) and not isinstance(error, ResponseNeverReceived):
                if type(cause) is net.ConnectionAborted:  # the vault itself does that
                    large = CutAnswer(f"{host} answered with a head larger than {MAX_HEAD // 1024} KiB")
                    return large.named("http_response_header_section_size")
                return CutAnswer(f"{host} ended its answer within the head, or sent too long a line in it")
            how = "within the TLS handshake" if cause is error else "without an answer"
            return Unavailable(f"{host} closed the connection {how}").named("connection_terminated")
    if isinstance(error, ResponseFailed):
        return BrokenAnswer(f"{host} sent something that is not HTTP")
    return BrokenAnswer(f"the answer of {host} could not be read ({type(error).__name__})")


def unknown_to(proxy: str) -> ProxyRefused:
    """The error for a 407 of the proxy of this name."""
    return ProxyRefused(f"{proxy} answered 407: it does not let this vault through; check the backend's proxy setting")


def causes(error: BaseException) -> list[BaseException]:
    """The error and all that Twisted's failures name as its reasons."""
    found = [error]
    for reason in getattr(error, "reasons", None) or []:
        if isinstance(reason, Failure) and reason.value is not None:
            found += causes(reason.value)
    return found


def _kind_of_refusal(error: net.ConnectError) -> str:
    if isinstance(error, net.NoRouteError) or error.osError in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return "destination_ip_unroutable"
    return "connection_refused" if isinstance(error, net.ConnectionRefusedError) else "destination_unavailable"


def _reason(error: BaseException) -> str:
    if isinstance(error, SSL.Error):
        details = error.args[0] if error.args else []
        return ", ".join(str(item[-1]) for item in details if item) or "the handshake failed"
    if type(error).__name__ == "VerificationError":
        return "its certificate is for another name"
    text = getattr(error, "string", None) or str(error) or type(error).__name__
    return str(text)
