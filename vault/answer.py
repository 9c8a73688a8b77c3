"""Answer: an upstream's head, with a body that can be streamed, paused and aborted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from vault.artifact import Head
from vault.errors import Timeout, Unavailable, UpstreamError

DRAIN_LIMIT = 64 * 1024


class _Receiver(Protocol):
    """Hands an answer's body on, and watches that it does not stand still."""

    def __init__(self, answer: Answer, clock: IReactorTime, idle_timeout: float) -> None:
        self._answer = answer
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._last = clock.seconds()
        self._paused = False
        self._watch: IDelayedCall | None = clock.callLater(idle_timeout, self._look)

    def dataReceived(self, data: bytes) -> None:
        self._last = self._clock.seconds()
        self._answer.on_data(data)

    def pause(self) -> None:
        self._paused = True
        if self.transport is not None:
            self.transport.pauseProducing()  # type: ignore[attr-defined]  # the body's transport is a push producer

    def resume(self) -> None:
        self._paused = False
        self._last = self._clock.seconds()
        if self.transport is not None:
            self.transport.resumeProducing()  # type: ignore[attr-defined]  # see pause

    def _look(self) -> None:
        idle = 0.0 if self._paused else self._clock.seconds() - self._last
        if idle < self._idle_timeout:
            self._watch = self._clock.callLater(self._idle_timeout - idle, self._look)
        else:
            self._watch = None
            self._answer.end(Timeout(f"{self._answer.host} sent nothing for {self._idle_timeout:g} s"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.stop_watching()
        if reason.check(ResponseDone):
            self._answer.end(None)
        elif reason.check(PotentialDataLoss):
            self._answer.delimited = False
            self._answer.end(None)
        else:
            self._answer.end(Unavailable(f"{self._answer.host} closed the connection in the middle of the body"))

    def stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None


class Answer:
    """An upstream's answer: its head now, its body when ``deliver`` is called.

    ``url`` is where it came from, ``asked`` the URL before redirects.  ``length`` is the body's length in bytes, None
    while unknown; ``delimited`` is False where only the closing of the
    connection ends the body, so that nothing tells a whole one from a cut one (RFC 9112 section 8).
    It is an IPushProducer of the body.
    """

    def __init__(
        self, head: Head, length: int | None, delimited: bool, url: str, response: Any, raw: Any, clock: IReactorTime,
        idle_timeout: float, release: Callable[[], None],
    ) -> None:  # fmt: skip
        self.head = head
        self.length = length
        self.delimited = delimited
        self.url = url
        self.asked = url
        self.host = urlsplit(url).netloc.rpartition("@")[2]
        self.on_data: Callable[[bytes], None] = lambda data: None
        self._on_end: Callable[[UpstreamError | None], None] = lambda error: None
        self._response = response
        self._raw = raw
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._release: Callable[[], None] | None = release
        self._receiver: _Receiver | None = None
        self._ended = False

    @property
    def status(self) -> int:
        """The status code."""
        return self.head.status

    def deliver(self, on_data: Callable[[bytes], None], on_end: Callable[[UpstreamError | None], None]) -> None:
        """Stream the body to ``on_data``; ``on_end`` gets None after a body that ended as its framing says."""
        self.on_data = on_data
        self._on_end = on_end
        self._receiver = _Receiver(self, self._clock, self._idle_timeout)
        self._response.deliverBody(self._receiver)

    def hurry(self, seconds: float) -> None:
        """Give the body up where no byte comes for so long: somebody else has it too.  Before ``deliver``."""
        self._idle_timeout = min(self._idle_timeout, seconds)

    def end(self, error: UpstreamError | None) -> None:
        """The body has ended, or ends here because of ``error``."""
        if self._ended:
            return
        on_end = self._on_end
        self.abort()
        on_end(error)

    def abort(self) -> None:
        """Want no more of the body: the connection is closed unless the body is at its end."""
        if self._ended:
            return
        self._ended = True
        self.on_data = lambda data: None
        self._on_end = lambda error: None
        if self._receiver is None:
            # An unread body would keep its connection, paused, for ever: reading it is what ends it.
            self._receiver = _Receiver(self, self._clock, self._idle_timeout)
            self._response.deliverBody(self._receiver)
        self._receiver.stop_watching()
        transport = transport_of(self._raw)
        if transport is not None:
            transport.abortConnection()
        if self._release is not None:
            release, self._release = self._release, None
            release()

    def discard(self) -> None:
        """Want nothing of the body; a short one is read so that the connection can be used again."""
        if self.length is not None and self.length <= DRAIN_LIMIT:
            self.deliver(lambda data: None, lambda error: None)
        else:
            self.abort()

    def pauseProducing(self) -> None:
        """Send nothing for now."""
        if self._receiver is not None and not self._ended:
            self._receiver.pause()

    def resumeProducing(self) -> None:
        """Go on sending."""
        if self._receiver is not None and not self._ended:
            self._receiver.resume()

    def stopProducing(self) -> None:
        """Want no more."""
        self.abort()


def transport_of(response: Any) -> Any:
    """The transport a response is being read from; None when it has been read, or cannot be told.

    Twisted gives no way to abort a response whose head has come (twisted#8227): this looks where it keeps it.
    """
    proxy = getattr(response, "_transport", None)
    return getattr(proxy, "_producer", None)
