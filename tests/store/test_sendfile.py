"""The same deliveries over real sockets, where the kernel copies the file's bytes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from unittest import skipIf

from twisted.internet import task
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from tests.store.fakes import InlineDisk
from tests.store.socket_case import DATA, SocketCase, clock
from vault.artifact import Head
from vault.body import TOGETHER, ClientGone
from vault.errors import Truncated
from vault.sendfile import plain_transport, socket_below, unsent_bytes, without_pacing
from vault.store.body import OpenFile, StoredBody


class SendfileTests(SocketCase):
    async def test_whole(self) -> None:
        """A stored entry arrives whole."""
        await self.deliver(self.stored(), (0, None))
        await self.check(DATA)

    async def test_parts(self) -> None:
        """Several spans and the literal bytes between them arrive in their order."""
        parts = [b"first", (2_000_000, 2_900_000), b"second", (5, 6), b"x" * 200_000, (0, 1_000_000), b"end"]
        await self.deliver(self.stored(), *parts)
        await self.check(b"".join(part if isinstance(part, bytes) else DATA[part[0] : part[1]] for part in parts))

    async def test_growing(self) -> None:
        """A body that grows while it is sent arrives whole."""
        body = self.growing()
        done = self.deliver(body, (0, None))
        for size in (1, 2, 1000, 1_000_000, 1_000_001, 2_500_000, len(DATA)):
            body.publish(size)
            await task.deferLater(clock, 0.005)
        body.finish()
        await done
        await self.check(DATA)

    async def test_window_after_file(self) -> None:
        """Bytes that are only in memory come after those that the kernel sends, not between them."""
        body = self.growing()
        done = self.deliver(body, (0, None))
        body.publish(2_000_000)
        body.spill(DATA[2_000_000:2_100_000], DATA[2_100_000:2_100_001])
        await task.deferLater(clock, 0.005)
        body.spill(DATA[2_100_001:])
        body.finish()
        await done
        await self.check(DATA)

    async def test_slow_client(self) -> None:
        """A client that stops reading for a while gets everything in the end."""
        self.stop_reading()
        done = self.deliver(self.stored(), (0, None))
        await task.deferLater(clock, 0.05)
        self.assertLess(self.request.sentLength, len(DATA))
        self.client.transport.resumeProducing()
        await done
        await self.check(DATA)

    def corked(self) -> bool:
        """Whether the kernel holds back what fills no segment."""
        return bool(self.server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))

    @skipIf(not hasattr(socket, "TCP_CORK"), "Linux has TCP_CORK")
    async def test_full_segments(self) -> None:
        """What follows without a break goes out in full segments, and the last one at once."""
        self.stop_reading()
        done = self.deliver(self.stored(), (0, None))
        await task.deferLater(clock, 0.05)
        self.assertTrue(self.corked())
        self.client.transport.resumeProducing()
        await done
        self.assertFalse(self.corked())
        await self.check(DATA)

    @skipIf(not hasattr(socket, "TCP_CORK"), "Linux has TCP_CORK")
    async def test_with_the_head(self) -> None:
        """A complete body begins in the segment in which what comes before it ends; a growing one may have to wait."""
        for body in (self.stored(), self.growing()):
            pieces: list[bytes] = []
            self.client.dataReceived = pieces.append  # type: ignore[method-assign]  # to see what comes at once
            for head in (b"first head", b"head of the next on the same connection"):
                pieces.clear()
                done = self.deliver(body, head, (0, 100_000))
                await task.deferLater(clock, 0.02)
                if isinstance(body, StoredBody):
                    self.assertGreater(len(pieces[0]), len(head))
                else:
                    self.assertEqual(pieces, [head])
                    body.publish(100_000)
                    await task.deferLater(clock, 0.02)
                await done
                self.assertTrue(b"".join(pieces) == head + DATA[:100_000])
                self.assertFalse(self.corked())
                if not isinstance(body, StoredBody):
                    break

    @skipIf(not hasattr(socket, "TCP_CORK"), "Linux has TCP_CORK")
    async def test_growing_in_time(self) -> None:
        """What may be followed by nothing for a while is held back for nothing."""
        self.stop_reading()
        body = self.growing()
        body.publish(len(DATA))
        done = self.deliver(body, (0, None))
        await task.deferLater(clock, 0.05)
        self.assertLess(self.request.sentLength, len(DATA))
        self.assertFalse(self.corked())
        self.client.transport.resumeProducing()
        body.finish()
        await done
        await self.check(DATA)

    async def test_no_descriptor(self) -> None:
        """Where the process can open nothing more just then, the client gets the rest as soon as it can."""
        real, calls = socket.dup, []

        def full(descriptor: int) -> int:
            calls.append(descriptor)
            if len(calls) < 3:
                raise OSError(errno.EMFILE, "Too many open files")
            return real(descriptor)

        self.patch(socket, "dup", full)
        self.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        await self.deliver(self.stored(), (0, None))
        await self.check(DATA)
        self.assertEqual(len(calls), 3)

    async def test_stalled_client(self) -> None:
        """A client that takes nothing for too long is cut off."""
        self.stop_reading()
        with self.assertRaises(ClientGone):
            await self.deliver(self.stored(), (0, None), stall=0.2)

    async def test_slow_and_steady(self) -> None:
        """A client that takes a little all the time is not, though the kernel seldom reports room for more."""
        for chunked in (False, True):
            self.request.chunked = chunked
            self.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
            self.client.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            self.client.transport.pauseProducing()
            done = self.deliver(self.stored(), (0, None), stall=0.4)
            for _ in range(60):
                await task.deferLater(clock, 0.02)
                with contextlib.suppress(BlockingIOError):
                    self.client.data += self.client.transport.socket.recv(4000)
            self.assertFalse(done.called, done)
            self.client.transport.resumeProducing()
            await done
            await self.client.has(len(DATA))
            self.assertTrue(self.client.data == DATA)
            self.client.data.clear()

    async def test_stalled_between_parts(self) -> None:
        """So is one that stops taking where literal bytes are to go before the next span."""
        self.stop_reading()
        parts = [part for offset in range(200) for part in (b"x" * 50_000, (offset, offset + 1))]
        done = self.deliver(self.stored(), *parts, stall=0.2)
        done.addTimeout(2, clock, onTimeoutCancel=lambda result, seconds: self.delivery.broken() or "left waiting")
        with self.assertRaises(ClientGone):
            self.assertIsNone(await done)

    async def test_full_between_parts(self) -> None:
        """A socket that is full when a part begins that lies before the last one gets that part, and no more."""
        real, calls = os.sendfile, []

        def full_once(*arguments: int) -> int:
            calls.append(arguments)
            if len(calls) == 2:
                raise BlockingIOError
            return real(*arguments)

        self.patch(os, "sendfile", full_once)
        size = 2 * TOGETHER
        await self.deliver(self.stored(), (100, 100 + size), b"--", (0, size))
        await self.check(DATA[100 : 100 + size] + b"--" + DATA[:size])
        self.assertEqual(len(calls), 3)

    async def test_short_body(self) -> None:
        """A short body goes out with its head, at once."""
        real, calls = os.sendfile, []
        self.patch(os, "sendfile", lambda *arguments: calls.append(arguments) or real(*arguments))
        await self.deliver(self.stored(), (100, 100 + TOGETHER))
        self.assertEqual(len(self.request.channel.transport._tempDataBuffer), 0)
        await self.check(DATA[100 : 100 + TOGETHER])
        self.assertEqual(calls, [])

    async def test_client_gone(self) -> None:
        """A client that breaks the connection ends the delivery."""
        body = self.growing()
        done = self.deliver(body, (0, None))
        body.publish(1_000_000)
        await self.client.has(1)
        self.client.transport.abortConnection()
        with self.assertRaises(ClientGone):
            await done
        self.assertEqual(body.readers, set())

    async def test_breaks_off(self) -> None:
        """A body that breaks off ends the delivery with that, after what was there."""
        body = self.growing()
        done = self.deliver(body, (0, None))
        body.publish(100_000)
        body.fail(Truncated("the upstream broke off"))
        with self.assertRaises(Truncated):
            await done
        await self.check(DATA[:100_000])

    async def test_short_file(self) -> None:
        """A stored file that has become shorter ends the delivery, after what is left of it."""
        body = self.stored()
        os.truncate(self.path, 50_000)
        with self.assertRaises(Truncated):
            await self.deliver(body, (0, None))
        await self.check(DATA[:50_000])

    async def test_limited(self) -> None:
        """A limited client gets what it is allowed at a time, and in the end everything."""
        granted: list[int] = []

        class Limit:
            def allowance(self, address: str, wanted: int) -> tuple[int, float]:
                if len(granted) % 3 == 2:
                    granted.append(0)
                    return 0, 0.001
                granted.append(min(wanted, 100_000))
                return granted[-1], 0.0

        await self.deliver(self.stored(), (0, None), limit=Limit())
        await self.check(DATA)
        self.assertEqual(sum(granted), len(DATA))

    async def test_waits_for_the_medium(self) -> None:
        """Bytes that the kernel never says it has in memory are sent all the same, once they were read."""
        warmed: list[int] = []

        class Cold(StoredBody):
            def ready(self, offset: int, count: int) -> int:
                return 0

            def warm(self, offset: int, count: int) -> Deferred[None]:
                warmed.append(offset)
                if len(warmed) > 200:
                    raise ZeroDivisionError("it is warmed again and again")
                return super().warm(offset, count)

        body = Cold(Head(), len(DATA), "", OpenFile(os.open(self.path, os.O_RDONLY)), InlineDisk())
        await self.deliver(body, (0, None))
        await self.check(DATA)

    async def test_chunked(self) -> None:
        """A response that is sent in chunks does not take the kernel's shortcut, and arrives whole."""
        self.request.chunked = True
        self.assertIsNone(plain_transport(self.request))
        await self.deliver(self.stored(), (0, None))
        await self.check(DATA)

    @skipIf(not hasattr(socket, "TCP_CONGESTION"), "the system's congestion control cannot be chosen")
    async def test_pacing(self) -> None:
        """A client on this machine is sent to without pacing; one elsewhere by what the machine's owner has chosen."""
        before = self.congestion()
        self.server.getPeer = lambda: IPv4Address("TCP", "192.0.2.1", 1)
        without_pacing(self.server)
        self.assertEqual(self.congestion(), before)
        del self.server.getPeer
        without_pacing(self.server)
        self.assertEqual(self.congestion(), b"reno")

    def congestion(self) -> bytes:
        """The congestion control of the server's socket."""
        return self.server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")

    async def test_unsent(self) -> None:
        """What waits is what the client's kernel has not taken; a transport that is no socket holds nothing known."""
        self.stop_reading()
        self.request.write(bytes(5_000_000))
        await task.deferLater(clock, 0.05)
        self.assertGreater(unsent_bytes(socket_below(self.server)), 1_000_000)
        self.client.transport.resumeProducing()
        await self.client.has(5_000_000)
        await task.deferLater(clock, 0.05)
        self.assertEqual(unsent_bytes(self.server), 0)
        self.assertEqual(unsent_bytes(object()), 0)
