"""The one UDP socket of a node: asyncio-dgram's, without its two queues.

Decides nothing: datagrams in are handed over at once, datagrams out are given to the socket or dropped and counted.
asyncio-dgram opens and owns the socket; its protocol hands over at once instead of filling a receive queue, which has
no bound, and its error queue is a counter, because an ICMP error says nothing that a time-out does not.
"""

from __future__ import annotations

import asyncio
import errno
import socket as sockets
from collections import Counter
from collections.abc import Callable, Iterable, Sized
from typing import Any

from asyncio_dgram.aio import DatagramServer, Protocol

from .contact import Address
from .datagram import MAX_DATAGRAM_BYTES

# What we ask the kernel to hold while the loop is busy; it gives what its own limit allows.
RECEIVE_BUFFER_BYTES = 4 * 2**20
# One byte more than may come shows what is too long.
READ_BYTES = MAX_DATAGRAM_BYTES + 1
# Datagrams taken in one turn of the loop: the answers to one burst of a lookup, and then others have their turn.
MAX_IN_ONE_TURN = 32
_MAPPED = "::ffff:"


class UdpSocket:
    """An open socket; `send` until `close`."""

    def __init__(
        self, stream: Any, transport: Any, arrivals: _Arrivals, direct: Any, drained: _Drained, counters: Counter[str]
    ) -> None:
        self._stream = stream
        self._arrivals = arrivals
        # The socket itself takes what it can at once, which is nearly always; the transport keeps the rest for later.
        self._direct = direct
        self._sendto = transport.sendto if direct is None else direct.sendto
        self._send_later = transport.sendto
        self._drained = drained
        self._counters = counters
        self._told = transport.get_extra_info
        # A socket of both families knows IPv4 addresses as ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2).
        self._both_families = self.bound[0] == "::"

    @classmethod
    async def bind(
        cls, host: str, port: int, deliver: Callable[[bytes, Any], None], counters: Counter[str], awaited: Sized = ()
    ) -> UdpSocket:
        """Bind to an address (port 0 takes any); OSError when that cannot be.

        While anything is `awaited` (a table of open questions), more than one datagram is read in a turn of the loop.
        """
        drained: Any = _Drained()
        nobody: Any = _Nobody()
        errors: Any = _Errors(counters)
        transport: Any
        arrivals: Any
        transport, arrivals = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Arrivals(deliver, awaited, nobody, errors, drained), local_addr=(host, port)
        )
        stream = DatagramServer(transport, nobody, errors, drained)
        # The loop takes a buffer of this size from the allocator for every datagram: its default of 256 KiB costs a
        # mapping, a page fault and an unmapping each time (measured: 47 us of a datagram's 95).
        transport.max_size = READ_BYTES
        raw, direct = transport.get_extra_info("socket"), None
        if raw is not None and hasattr(raw, "setsockopt"):
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            # What asyncio shows hides what reads and writes; another object of this descriptor would close it twice.
            direct = getattr(raw, "_sock", None)
            arrivals.receive = getattr(direct, "recvfrom", None)
        return cls(stream, transport, arrivals, direct, drained, counters)

    @property
    def bound(self) -> Address:
        """The address that the socket is bound to."""
        host, port = self._stream.sockname[:2]
        return (host, port)

    def send(self, data: bytes, address: Address) -> None:
        """Give a datagram to the socket; what it cannot take now is dropped and counted."""
        if not self._drained.is_so:
            self._counters["send-buffer-full"] += 1
            return
        self._counters["sent"] += 1
        if self._both_families and ":" not in address[0]:
            address = (_MAPPED + address[0], address[1])
        try:
            self._sendto(data, address)
        except (BlockingIOError, InterruptedError):
            self._send_later(data, address)
        except OSError:
            self._counters["send-failed"] += 1

    @property
    def has_address(self) -> bool:
        """Whether this machine (still) has the address that the socket is bound to; without it, nothing leaves."""
        if self._direct is None:
            return bool(self._told("has_address", True))  # a simulator's transport knows its host
        host = self.bound[0]
        try:
            with sockets.socket(sockets.AF_INET6 if ":" in host else sockets.AF_INET, sockets.SOCK_DGRAM) as probe:
                probe.bind((host, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL  # without descriptors or ports nothing is known of it
        return True

    def close(self) -> None:
        """The loop closes the socket in its next round."""
        self._arrivals.receive = None
        self._stream.close()


async def has_host(host: str) -> bool:
    """Whether this machine has this address."""
    try:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=(host, 0)
        )
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    transport.close()
    return True


async def host_towards(address: Address) -> str | None:
    """The address of this machine from which it would write to another now; None where no way leads there."""
    loop = asyncio.get_running_loop()
    try:
        # A socket that is connected has chosen, and nothing is sent (connect(2) on UDP; RFC 6724 says which it takes).
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=address)
    except OSError:
        return None
    host: str = transport.get_extra_info("sockname")[0]
    transport.close()
    return host


def any_host(others: Iterable[Address]) -> str:
    """What to bind to in order to ask these from whatever address this machine has: of both families where any of them
    is of IPv6 and this machine has both."""
    newer = {":" in host for host, _ in others}
    return "::" if newer == {True} or (True in newer and sockets.has_dualstack_ipv6()) else "0.0.0.0"


class _Arrivals(Protocol):
    """asyncio-dgram's protocol without its receive queue: hands over at once, so that nothing can pile up."""

    def __init__(
        self, deliver: Callable[[bytes, Any], None], awaited: Sized, nobody: Any, errors: Any, drained: Any
    ) -> None:
        super().__init__(nobody, errors, drained)
        self._deliver = deliver
        self._awaited = awaited
        self._failed = errors.put_nowait
        self.receive: Callable[[int], tuple[bytes, Any]] | None = None

    def datagram_received(self, data: bytes, address: Any) -> None:
        """A datagram, under the address that it would be answered at; and, while answers are awaited, those behind it.

        To ask the loop for each of them was a tenth of what a lookup costs; to look for more where none is likely
        would cost every server a call of the kernel for nothing.
        """
        left = MAX_IN_ONE_TURN
        while True:
            if len(address) != 2:
                host = address[0]
                address = (host[len(_MAPPED) :] if host.startswith(_MAPPED) else host, address[1])
            self._deliver(data, address)
            left -= 1
            if not left or not self._awaited or self.receive is None:
                return
            try:
                data, address = self.receive(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._failed(error)
                return


class _Nobody:
    """In the place of the receive queue, which is told of the end."""

    def put_nowait(self, item: object) -> None:
        """Nobody waits."""


class _Drained:
    """In the place of asyncio's event, in which nobody here waits: whether the transport takes more."""

    __slots__ = ("is_so",)

    def __init__(self) -> None:
        self.is_so = False

    def set(self) -> None:
        self.is_so = True

    def clear(self) -> None:
        self.is_so = False

    def is_set(self) -> bool:
        return self.is_so


class _Errors:
    """In the place of asyncio-dgram's error queue: counts what ICMP says."""

    __slots__ = ("_counters",)

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters

    def put_nowait(self, error: Exception) -> None:
        self._counters["socket-error"] += 1

    def get_nowait(self) -> Exception:
        raise asyncio.QueueEmpty
