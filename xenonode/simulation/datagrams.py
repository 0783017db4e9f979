"""A datagram socket of the simulated network, as an asyncio transport."""

from __future__ import annotations

import asyncio
import contextvars
import errno
from typing import TYPE_CHECKING, Any

from xenonode.simulation.loop import INCARNATION

if TYPE_CHECKING:
    from xenonode.simulation.network import Host, Network

Address = tuple[str, int]
LARGEST_DATAGRAM_BYTES = 65_507
"""65,535 less the IPv4 and UDP headers; a kernel answers EMSGSIZE above it."""


class DatagramTransport(asyncio.DatagramTransport):
    """One bound port. Runs its protocol in the context of whoever opened it."""

    def __init__(self, network: Network, host: Host, port: int, peer: Address | None, protocol: Any) -> None:
        super().__init__({"sockname": (host.address, port), "peername": peer})
        self._network, self._host, self._port, self._peer = network, host, port, peer
        self._bound = host.address
        self._protocol = protocol
        self._incarnation = INCARNATION.get()
        self._closing = False
        self.context = contextvars.copy_context()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As everywhere; and `has_address`, which says whether the host still has the address that is bound."""
        return self._bound == self._host.address if name == "has_address" else super().get_extra_info(name, default)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Hand a datagram to the network."""
        if self._closing or (self._incarnation is not None and not self._incarnation.alive):
            return
        if self._bound != self._host.address:
            raise OSError(errno.ENETUNREACH, f"{self._host.name} no longer has the address {self._bound}")
        if len(data) > LARGEST_DATAGRAM_BYTES:
            self._later(self._protocol.error_received, OSError(errno.EMSGSIZE, "message too long"))
            return
        to = addr if addr is not None else self._peer
        if to is None:
            raise ValueError("this socket is not connected: sendto needs an address")
        self._network.send_datagram(self._host, self._port, bytes(data), (to[0], to[1]), self._refused)

    def arrive(self, data: bytes, source: Address) -> None:
        """Receive a datagram (called by the network, in this transport's context)."""
        if not self._closing and (self._peer is None or source == self._peer):
            self._network.statistics.delivered += 1
            self._protocol.datagram_received(data, source)

    def _refused(self) -> None:
        if not self._closing and self._peer is not None:  # the kernel tells connected sockets only
            self._protocol.error_received(ConnectionRefusedError(errno.ECONNREFUSED, "connection refused"))

    def _later(self, callback: Any, *args: Any) -> None:
        self._network.loop.call_soon(callback, *args, context=self.context)

    def close(self) -> None:
        """Close the port; the protocol hears of it at the next step."""
        if self._closing or (self._incarnation is not None and not self._incarnation.alive):
            return
        self._closing = True
        if self._host.datagram_ports.get(self._port) is self:
            del self._host.datagram_ports[self._port]
        if not self._network.loop.is_closed():
            self._later(self._protocol.connection_lost, None)

    def abort(self) -> None:
        """Close at once; a datagram socket has nothing to flush."""
        self.close()

    def is_closing(self) -> bool:
        """Say whether the port is closed."""
        return self._closing

    def get_protocol(self) -> Any:
        """Return the protocol that receives."""
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        """Let another protocol receive."""
        self._protocol = protocol

    def get_write_buffer_size(self) -> int:
        """Return 0: what is sent has left."""
        return 0


def open_datagrams(network: Network, factory: Any, local: Any, remote: Any, options: dict[str, Any]) -> Any:
    """Bind a port of the running node's host and return (transport, protocol), as the loop's method does."""
    network.refuse_options(options)
    host = network.own_host()
    if local is not None and not network.is_of(local[0], host):
        raise OSError(errno.EADDRNOTAVAIL, f"{local[0]} is not an address of {host.name}")
    peer = None if remote is None else (network.resolve(remote[0]).address, remote[1])
    port = host.choose_port(host.datagram_ports, 0 if local is None else local[1])
    protocol = factory()
    transport = DatagramTransport(network, host, port, peer, protocol)
    host.datagram_ports[port] = transport
    protocol.connection_made(transport)
    return transport, protocol
