"""Stream sockets of the simulated network, as asyncio transports: reliable, ordered, with flow control and resets.

Decides: what TCP would make of the network's fates. A lost or blocked segment is sent again after a time-out that
doubles, and what follows waits behind it; a peer that lost its memory answers with a reset; one without power is
silent.
States of a transport: open -> closing (flushing, then FIN) -> closed; abort and reset go to closed at once.
Source: RFC 9293 for FIN and RST; Linux's tcp_retries2, tcp_syn_retries and 200 ms minimum for the figures.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import errno
import struct
from typing import TYPE_CHECKING, Any

from xenonode.simulation.loop import INCARNATION

if TYPE_CHECKING:
    from xenonode.simulation.network import Host, Network

Address = tuple[str, int]
SEGMENT_BYTES = 16_384  # one event for each: a compromise between a real segment (1,460) and the number of events
HIGH_WATER_BYTES, LOW_WATER_BYTES = 65_536, 16_384  # asyncio's own defaults
FIRST_RETRY_NS, LONGEST_RETRY_NS, RETRIES = 200_000_000, 120_000_000_000, 15  # Linux: gives up after about 924 s
SYN_RETRIES = 6  # Linux: 1 + 2 + 4 + ... s, gives up after 127 s
STREAM_TRACE = struct.Struct("<8sH8sHqB")


class StreamTransport(asyncio.Transport):
    """One end of a connection. Runs its protocol in the context of whoever connected or listened."""

    def __init__(
        self, network: Network, host: Host, local: Address, remote: Address, context: contextvars.Context
    ) -> None:
        super().__init__({"sockname": local, "peername": remote})
        self._network, self.host, self.local, self.remote, self.context = network, host, local, remote, context
        self._incarnation = context.get(INCARNATION)
        self._protocol: Any = None
        self.peer: StreamTransport
        self.last_arrival_ns = 0
        self._outgoing: collections.deque[bytes | None] = collections.deque()  # None is FIN
        self._received: collections.deque[bytes | None] = collections.deque()  # while reading is paused
        self._unread_bytes = 0  # written here and not yet taken by the peer's protocol
        self._high, self._low = HIGH_WATER_BYTES, LOW_WATER_BYTES
        self._retry: asyncio.TimerHandle | None = None
        self._retries = 0
        self._writing_paused = self._reading_paused = self._eof_written = self._closing = self._closed = False

    @property
    def alive(self) -> bool:
        """Whether the life of the node that holds this end goes on."""
        return self._incarnation is None or self._incarnation.alive

    def begin(self, protocol: Any) -> None:
        """Give this end its protocol (in this end's context)."""
        self._protocol = protocol
        protocol.connection_made(self)
        if self._received:
            self._network.loop.call_soon(self._deliver_held, context=self.context)

    # Writing
    def write(self, data: Any) -> None:
        """Send bytes, in order, for as long as it takes."""
        if self._eof_written:
            raise RuntimeError("cannot write after write_eof")
        if self._closing or not self.alive or not data:
            return
        whole = bytes(data)
        self._outgoing.extend(whole[start : start + SEGMENT_BYTES] for start in range(0, len(whole), SEGMENT_BYTES))
        self._unread_bytes += len(whole)
        self._pump()
        if self._unread_bytes > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        """Say that nothing more will be written; reading goes on."""
        if not self._eof_written and not self._closing and self.alive:
            self._eof_written = True
            self._outgoing.append(None)
            self._pump()

    def can_write_eof(self) -> bool:
        """Say that half-closing works."""
        return True

    def _pump(self) -> None:
        while self._outgoing and self._retry is None and not self._closed:
            segment = self._outgoing[0]
            arrival_ns = self._try(segment)
            if arrival_ns is None:
                self._wait_to_retry()
                return
            self._retries = 0
            self._outgoing.popleft()
            self._network.loop.call_at_ns(arrival_ns, self.peer.arrive, segment, context=self.peer.context)
        if self._closing and not self._outgoing and not self._closed:
            self._network.loop.call_soon(self._lost, None, context=self.context)

    def _try(self, segment: bytes | None) -> int | None:
        network, peer = self._network, self.peer
        if network.blocked(self.host, peer.host):
            return None
        if not peer.alive:
            if peer.host.up:  # restarted: it has never heard of this connection
                self._network.loop.call_at_ns(
                    2 * self._one_way_ns() + network.loop.now_ns, self.reset, context=self.context
                )
            return None
        if self.local[0] != self.host.address or peer.local[0] != peer.host.address:
            return None  # a host has moved: nothing gets through to the address that the connection is bound to
        arrival_ns = self._fate(len(segment or b""))
        if arrival_ns is None:
            return None
        self.last_arrival_ns = arrival_ns = max(arrival_ns, self.last_arrival_ns)
        ends = (self.host.identity, self.local[1], peer.host.identity, peer.local[1])
        network.trace.note("stream", STREAM_TRACE.pack(*ends, arrival_ns, segment is None), segment or b"")
        return arrival_ns

    def _fate(self, size_bytes: int) -> int | None:
        network = self._network
        size_bytes = min(size_bytes, network.conditions_of(self.host, self.peer.host).mtu_bytes)
        return network.arrival_ns(self.host, self.peer.host, size_bytes, network.draw(self.host, self.peer.host))

    def _one_way_ns(self) -> int:
        return self._network.latency_ns(self.host, self.peer.host)

    def _wait_to_retry(self) -> None:
        self._retries += 1
        if self._retries > RETRIES:
            timed_out = TimeoutError(errno.ETIMEDOUT, "connection timed out")
            self._network.loop.call_soon(self._lost, timed_out, context=self.context)
            return
        delay_ns = min(FIRST_RETRY_NS << (self._retries - 1), LONGEST_RETRY_NS)
        self._retry = self._network.loop.call_at_ns(
            self._network.loop.now_ns + delay_ns, self._again, context=self.context
        )

    def _again(self) -> None:
        self._retry = None
        self._pump()

    def taken(self, size_bytes: int) -> None:
        """Hear (from the peer's end) that its protocol took bytes: room for more."""
        self._unread_bytes -= size_bytes
        if self._writing_paused and self._unread_bytes <= self._low and not self._closed:
            self._writing_paused = False
            self._network.loop.call_soon(self._protocol.resume_writing, context=self.context)

    # Reading
    def arrive(self, segment: bytes | None) -> None:
        """Receive a segment (called by the loop in this end's context)."""
        if self._closing:
            if segment is not None and not self._network.blocked(self.host, self.peer.host):
                when_ns = self._network.loop.now_ns + self._one_way_ns()
                self._network.loop.call_at_ns(when_ns, self.peer.reset, context=self.peer.context)
        elif self._reading_paused or self._received or self._protocol is None:
            # On a host that is held up, what was sent first may be handled after what was sent next.
            self._received.append(segment)
        else:
            self._deliver(segment)

    def _deliver(self, segment: bytes | None) -> None:
        if segment is not None:
            self.peer.taken(len(segment))
            self._protocol.data_received(segment)
        elif not self._protocol.eof_received():
            self.close()

    def pause_reading(self) -> None:
        """Hold what arrives; the peer's writer stops at its high-water mark."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Deliver what was held, and go on."""
        if self._reading_paused:
            self._reading_paused = False
            self._network.loop.call_soon(self._deliver_held, context=self.context)

    def _deliver_held(self) -> None:
        while self._received and not self._reading_paused and not self._closing:
            self._deliver(self._received.popleft())

    def is_reading(self) -> bool:
        """Say whether what arrives is delivered."""
        return not self._reading_paused and not self._closing

    # Ending
    def close(self) -> None:
        """Flush, send FIN, and end."""
        if self._closing or not self.alive or self._network.loop.is_closed():
            return
        self._closing = True
        if not self._eof_written:
            self._outgoing.append(None)
        self._pump()

    def abort(self) -> None:
        """End at once: the peer hears of a reset."""
        if self._closed or not self.alive or self._network.loop.is_closed():
            return
        if not self._network.blocked(self.host, self.peer.host):
            when_ns = max(self.last_arrival_ns, self._network.loop.now_ns + self._one_way_ns())
            self._network.loop.call_at_ns(when_ns, self.peer.reset, context=self.peer.context)
        self._closing = True
        self._outgoing.clear()
        self._network.loop.call_soon(self._lost, None, context=self.context)

    def reset(self) -> None:
        """Hear of a reset (in this end's context)."""
        self._lost(ConnectionResetError(errno.ECONNRESET, "connection reset by peer"))

    def _lost(self, error: Exception | None) -> None:
        if self._closed:
            return
        self._closing = self._closed = True
        self._outgoing.clear()
        self._received.clear()
        if self._retry is not None:
            self._retry.cancel()
        if self._protocol is not None:
            self._protocol.connection_lost(error)

    def is_closing(self) -> bool:
        """Say whether the end is closing or closed."""
        return self._closing

    def get_protocol(self) -> Any:
        """Return the protocol that receives."""
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        """Let another protocol receive."""
        self._protocol = protocol

    def get_write_buffer_size(self) -> int:
        """Return the bytes written and not yet taken by the peer."""
        return self._unread_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return (low, high)."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks at which the protocol is asked to pause and resume."""
        self._high = high if high is not None else (HIGH_WATER_BYTES if low is None else 4 * low)
        self._low = low if low is not None else self._high // 4


class _ListeningSocket:
    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        return self._address


class Listener(asyncio.AbstractServer):
    """A listening port; the loop's server object."""

    def __init__(self, network: Network, host: Host, port: int, factory: Any) -> None:
        self._network, self.host, self.port, self.factory = network, host, port, factory
        self.context = contextvars.copy_context()
        self.sockets: tuple[_ListeningSocket, ...] = (_ListeningSocket((host.address, port)),)

    def close(self) -> None:
        """Stop listening; open connections go on."""
        if self.host.listeners.get(self.port) is self:
            del self.host.listeners[self.port]
        self.sockets = ()

    async def wait_closed(self) -> None:
        """Return: closing takes no time here."""

    def is_serving(self) -> bool:
        """Say whether the port is open."""
        return bool(self.sockets)

    async def start_serving(self) -> None:
        """Return: a listener listens from the start."""

    async def serve_forever(self) -> None:
        """Wait until cancelled."""
        try:
            await self._network.loop.create_future()
        finally:
            self.close()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop."""
        return self._network.loop


def listen(network: Network, factory: Any, where: Any, port: int | None, options: dict[str, Any]) -> Listener:
    """Open a listening port on the running node's host."""
    network.refuse_options(options)
    host = network.own_host()
    if not network.is_of(where, host):
        raise OSError(errno.EADDRNOTAVAIL, f"{where} is not an address of {host.name}")
    chosen = host.choose_port(host.listeners, port or 0)
    listener = host.listeners[chosen] = Listener(network, host, chosen, factory)
    return listener


async def connect(
    network: Network, factory: Any, where: Any, port: int, options: dict[str, Any]
) -> tuple[StreamTransport, Any]:
    """Shake hands with a listener, as the loop's create_connection does."""
    network.refuse_options(options)
    source, destination = network.own_host(), network.resolve(where)
    for attempt in range(SYN_RETRIES + 1):
        arrival_ns = back_ns = None
        if destination.up and not network.blocked(source, destination) and not network.blocked(destination, source):
            arrival_ns = network.arrival_ns(source, destination, 0, network.draw(source, destination))
            back_ns = network.arrival_ns(destination, source, 0, network.draw(destination, source))
        if arrival_ns is not None and back_ns is not None:
            answer_ns = arrival_ns + back_ns - network.loop.now_ns
            return await _shake_hands(network, factory, (source, destination, port), arrival_ns, answer_ns)
        await asyncio.sleep(1 << attempt)
    raise TimeoutError(errno.ETIMEDOUT, f"no answer from {where}:{port}")


async def _shake_hands(
    network: Network, factory: Any, ends: tuple[Host, Host, int], arrival_ns: int, answer_ns: int
) -> tuple[StreamTransport, Any]:
    source, destination, port = ends
    loop = network.loop
    local = (source.address, source.choose_port({}, 0))
    client = StreamTransport(network, source, local, (destination.address, port), contextvars.copy_context())
    established: asyncio.Future[Any] = loop.create_future()

    def answer() -> None:
        if established.cancelled():
            if hasattr(client, "peer"):  # else nobody had listened there
                client.abort()
        elif client.is_closing():
            established.set_exception(ConnectionResetError(errno.ECONNRESET, "connection reset by peer"))
        elif hasattr(client, "peer"):
            protocol = factory()
            client.begin(protocol)
            established.set_result(protocol)
        else:
            established.set_exception(
                ConnectionRefusedError(errno.ECONNREFUSED, f"{destination.address}:{port} refused")
            )

    def accept() -> None:
        if destination.listeners.get(port) is not listener or listener is None:
            return
        server = StreamTransport(network, destination, client.remote, local, contextvars.copy_context())
        client.peer, server.peer = server, client
        server.last_arrival_ns = answer_ns
        server.begin(listener.factory())

    listener = destination.listeners.get(port)
    if listener is not None:  # in the server's context: a crash before the arrival leaves the client without an answer
        loop.call_at_ns(arrival_ns, accept, context=listener.context)
    loop.call_at_ns(answer_ns, answer, context=client.context)
    return client, await established
