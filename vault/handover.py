"""Handover: what a new connection gets through before the real protocol has it: a proxy's tunnel, a TLS handshake.

Nothing of it is left between the two afterwards, so that bytes pass as fast as without.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import ref

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

FAULTS = {
    9: "its certificate, or one that signed it, is not valid yet",
    10: "its certificate, or one that signed it, has expired",
    18: "its certificate is self-signed",
    19: "its certificate is signed by an authority that the vault does not know",
    20: "its certificate is signed by an authority that the vault does not know",
    21: "its certificate is signed by an authority that the vault does not know",
}
"""What is wrong with a certificate, by OpenSSL's ``X509_V_ERR_...``."""


class Late(Exception):
    """A stage did not end in time; ``waited_out`` is False where whoever waited gave up before its time was over."""

    def __init__(self, waited_out: bool) -> None:
        super().__init__()
        self.waited_out = waited_out


class HandshakeLate(Late):
    """The TLS handshake did not end."""


class BadCertificate(Exception):
    """The upstream's certificate is not acceptable; the message says why."""


class Stage(Protocol):
    """The first protocol of a connection.  ``factory`` makes the real one, with which ``ready`` fires."""

    transport: Any
    place = "protocol"
    """The transport's attribute that holds its protocol."""

    def __init__(self, factory: IProtocolFactory, ready: Deferred[IProtocol]) -> None:
        self._factory = factory
        self._ready: Deferred[IProtocol] | None = ready

    def hand_over(self) -> IProtocol | None:
        """Let the real protocol have the connection; None where nobody wants it any more."""
        ready, self._ready = self._ready, None
        protocol = None if ready is None else self._factory.buildProtocol(self.transport.getPeer())
        if protocol is None or ready is None:
            self.transport.abortConnection()
            if ready is not None:
                ready.errback(NoProtocol())
            return None
        setattr(self.transport, self.place, protocol)  # what startTLS and the endpoints' own wrappers do
        protocol.makeConnection(self.transport)
        ready.callback(protocol)
        return protocol

    def fail(self, error: Exception) -> None:
        """Give up the connection."""
        ready, self._ready = self._ready, None
        if self.transport is not None:
            self.transport.abortConnection()
        if ready is not None:
            ready.errback(error)

    def lost(self, reason: Failure) -> Exception | Failure:
        """What to fail with where the connection was lost."""
        return reason

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell who waits."""
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.errback(self.lost(reason))


@implementer(IStreamClientEndpoint)
class StagedEndpoint(ABC):
    """Connects by ``inner``; what then has to be got through may take ``seconds``, else it fails with ``late``."""

    late: type[Late] = Late

    def __init__(self, reactor: Any, inner: IStreamClientEndpoint, seconds: float) -> None:
        self._reactor = reactor
        self._inner = inner
        self._seconds = seconds

    @abstractmethod
    def stage(self, factory: IProtocolFactory, ready: Deferred[IProtocol]) -> Stage:
        """What has to be got through."""

    def wrapped(self, factory: IProtocolFactory) -> IProtocolFactory:
        """The factory of the stages with what is below them."""
        return factory

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol once all is got through."""
        stages: list[Stage] = []
        timers: list[Any] = []

        def give_up(waited_out: bool) -> None:
            connecting.cancel()
            for stage in tuple(stages):
                stage.fail(self.late(waited_out))

        def over(result: Any) -> Any:
            for timer in timers:
                if timer.active():
                    timer.cancel()
            stages.clear()  # what belongs to the connection would keep itself
            return result

        def make() -> Stage:
            stages.append(self.stage(protocolFactory, ready))
            timers.append(self._reactor.callLater(self._seconds, give_up, True))
            return stages[-1]

        ready: Deferred[IProtocol] = Deferred(lambda cancelled: give_up(False))
        ready.addBoth(over)
        factory = Factory.forProtocol(make)
        factory.noisy = False
        connecting = self._inner.connect(self.wrapped(factory))
        # It keeps nothing of the connection, which holds it by its factory.
        connecting.addCallbacks(
            lambda connected: None, lambda failure: None if ready.called else ready.errback(failure)
        )
        return ready


def _shake_hands(connection: ref[SSL.Connection]) -> None:
    """Go on with a handshake; a close_notify, which Twisted does not expect in one, becomes the end that it is."""
    shaking = connection()
    assert shaking is not None  # it is what was called
    try:
        SSL.Connection.do_handshake(shaking)
    except SSL.ZeroReturnError as error:
        raise SSL.SysCallError(-1, "Unexpected EOF") from error


@implementer(IHandshakeListener)
class _Handshake(Stage):
    """Waits for the end of the handshake, which the TLS protocol below makes."""

    place = "wrappedProtocol"

    def connectionMade(self) -> None:
        connection = self.transport.getHandle()
        connection.do_handshake = partial(_shake_hands, ref(connection))

    def handshakeCompleted(self) -> None:
        """The real protocol can begin, unless the connection is just being given up."""
        if not self.transport.disconnecting:
            self.hand_over()

    def lost(self, reason: Failure) -> Exception | Failure:
        """Say of a certificate what is wrong with it."""
        code = 0
        if reason.check(SSL.Error) is not None:
            with suppress(AttributeError):  # pyOpenSSL tells it only so
                code = SSL._lib.SSL_get_verify_result(self.transport.getHandle()._ssl)  # type: ignore[attr-defined]
        return BadCertificate(FAULTS[code]) if code in FAULTS else reason


class TLSEndpoint(StagedEndpoint):
    """Connects by TLS: fires after the handshake, or fails with HandshakeLate, BadCertificate or what TLS raises."""

    late = HandshakeLate

    def __init__(
        self, reactor: Any, inner: IStreamClientEndpoint, seconds: float, creator: IOpenSSLClientConnectionCreator
    ) -> None:
        super().__init__(reactor, inner, seconds)
        self._creator = creator

    def stage(self, factory: IProtocolFactory, ready: Deferred[IProtocol]) -> Stage:
        """The handshake."""
        return _Handshake(factory, ready)

    def wrapped(self, factory: IProtocolFactory) -> IProtocolFactory:
        """TLS is below it."""
        below: IProtocolFactory = TLSMemoryBIOFactory(self._creator, True, factory, self._reactor)
        return below
