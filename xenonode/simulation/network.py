"""The simulated network: hosts with addresses, and the fate of every datagram and stream segment.

Decides: who can reach whom, when a thing sent arrives, and whether it is lost, doubled, late or damaged. Every draw is
a hash of (seed, source, destination, how many this pair has sent), so adding a node does not reshuffle the others'
draws. No state is kept per link, only that count for the pairs which have talked (an integer in the source's dict).
Leaves to others: the transports (`datagrams`, `streams`), the choice of a world's latencies and faults.
Source: the simulator's list of network faults; Linux for the errors that sockets give.
"""

from __future__ import annotations

import errno
import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from xenonode.simulation.datagrams import LARGEST_DATAGRAM_BYTES, open_datagrams
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.loop import INCARNATION, Incarnation, VirtualLoop
from xenonode.simulation.streams import connect, listen
from xenonode.simulation.trace import Trace

MILLION = 1_000_000
LOOPBACK_NS = 10_000  # a host to itself: 10 us, about what a loopback datagram takes
FIRST_EPHEMERAL_PORT, LAST_PORT = 32_768, 65_535  # Linux's default range begins there
OWN_ADDRESSES = frozenset({None, "", "0.0.0.0", "127.0.0.1", "localhost"})  # all of them mean "this host" here
_DRAWS = struct.Struct("<8I")
_PAIR = struct.Struct("<8s8sQ")
DATAGRAM_TRACE = struct.Struct("<8sH8sHq")


@dataclass(frozen=True, slots=True)
class Conditions:
    """How links behave. Chances are in parts per million, times in microseconds."""

    latency_us: int = 20_000  # one way
    jitter_us: int = 0  # added evenly from 0 up to this
    loss_ppm: int = 0
    duplicate_ppm: int = 0
    reorder_ppm: int = 0  # held back by up to reorder_us, so that later ones overtake it
    reorder_us: int = 50_000
    corrupt_ppm: int = 0  # one bit of the payload is flipped (datagrams only: TCP's checksum would drop it)
    mtu_bytes: int = LARGEST_DATAGRAM_BYTES  # longer datagrams vanish
    extra_us: int = 0  # a delay on top of the way's own
    bandwidth_bit_per_s: int | None = None  # of the sender's uplink, shared by all it sends
    calm: bool = field(init=False, compare=False, repr=False)  # nothing but jitter is left to chance, nor to a queue

    def __post_init__(self) -> None:
        chance = self.loss_ppm or self.duplicate_ppm or self.reorder_ppm or self.corrupt_ppm
        object.__setattr__(self, "calm", not chance and not self.extra_us and self.bandwidth_bit_per_s is None)
        chances = (self.loss_ppm, self.duplicate_ppm, self.reorder_ppm, self.corrupt_ppm)
        if not all(0 <= chance <= MILLION for chance in chances):
            raise SimulationError(f"a chance is out of 0..{MILLION} ppm: {chances}")
        if min(self.latency_us, self.jitter_us, self.reorder_us, self.mtu_bytes, self.extra_us) < 0:
            raise SimulationError(f"a time or a size is negative: {self}")
        if self.bandwidth_bit_per_s is not None and self.bandwidth_bit_per_s <= 0:
            raise SimulationError("bandwidth_bit_per_s must be above 0, or None for no limit")


class Host:
    """One machine: an address, its open ports, and which life of its node is running."""

    __slots__ = (
        "address",
        "datagram_ports",
        "identity",
        "incarnation",
        "listeners",
        "name",
        "next_port",
        "place",
        "sent",
        "uplink_free_ns",
    )

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.identity = hashlib.blake2b(name.encode(), digest_size=8).digest()
        self.incarnation: Incarnation | None = None
        self.datagram_ports: dict[int, Any] = {}
        self.listeners: dict[int, Any] = {}
        self.sent: dict[bytes, int] = {}  # by the destination's identity
        self.next_port = FIRST_EPHEMERAL_PORT
        self.uplink_free_ns = 0
        self.place: Any = None  # what the network's `latency_us` notes of it: each datagram asks

    @property
    def up(self) -> bool:
        """Whether its operating system would answer: a host without a node (a test's own) always does."""
        return self.incarnation is None or self.incarnation.alive

    def choose_port(self, taken: dict[int, Any], port: int) -> int:
        """Return `port` if it is free, or for 0 the next free ephemeral one."""
        if port and port in taken:
            raise OSError(errno.EADDRINUSE, f"port {port} of {self.address} is in use")
        for _ in range(LAST_PORT - FIRST_EPHEMERAL_PORT + 1):
            if port:
                return port
            candidate = self.next_port
            self.next_port = candidate + 1 if candidate < LAST_PORT else FIRST_EPHEMERAL_PORT
            if candidate not in taken:
                return candidate
        raise OSError(errno.EADDRINUSE, f"every ephemeral port of {self.address} is in use")


LOOPBACK = Conditions(latency_us=0)


@dataclass(slots=True)
class Statistics:
    """Datagrams by fate."""

    sent: int = 0
    delivered: int = 0
    lost: int = 0
    blocked: int = 0
    duplicated: int = 0
    corrupted: int = 0


class Network:
    """All hosts and the ether between them. Attaches itself to the loop."""

    def __init__(
        self,
        loop: VirtualLoop,
        seed: int,
        trace: Trace,
        conditions: Conditions | None = None,
        latency_us: Callable[[Host, Host], int] | None = None,
    ) -> None:
        self.loop, self.trace = loop, trace
        self.conditions = conditions if conditions is not None else Conditions()
        self.latency_us = latency_us  # by place; replaces conditions.latency_us
        self.conditions_between: Callable[[Host, Host], Conditions] | None = None  # for links that differ
        self.statistics = Statistics()
        self.bites: Counter[str] = Counter()  # how often each disturbance met a packet, by the disturbance's name
        self.clogs: dict[str, tuple[str, int]] = {}  # by host: what it is called, and until when packets wait (ns)
        self.translated: dict[str, set[tuple[str, int]]] = {}  # hosts behind a translator: where each has sent to
        key = hashlib.blake2b(str(seed).encode(), digest_size=32, person=b"xeno-sim-network").digest()
        # What all draws begin with: a copy costs half of what a new one does, and each datagram draws.
        self._keyed = hashlib.blake2b(key=key, digest_size=32)
        self._by_name: dict[str, Host] = {}
        self._by_address: dict[str, Host] = {}
        self._moves = 0
        self._partitions: dict[str, tuple[frozenset[str], frozenset[str], bool]] = {}
        loop.network = self

    # Hosts
    def add_host(self, name: str, address: str | None = None) -> Host:
        """Add a machine. Addresses spread over many /24 blocks, as those of independent servers would."""
        number = len(self._by_name) + 1
        address = address or f"10.{number & 255}.{number >> 8 & 255}.{1 + (number >> 16)}"
        if name in self._by_name or address in self._by_address:
            raise SimulationError(f"host {name} or address {address} exists already")
        host = self._by_name[name] = self._by_address[address] = Host(name, address)
        return host

    def resolve(self, where: Any) -> Host:
        """Return the host with this address or name; the usual local addresses mean the caller's own."""
        if where in OWN_ADDRESSES:
            return self.own_host()
        host = self._by_address.get(where) or self._by_name.get(where)
        if host is None:
            raise OSError(errno.EHOSTUNREACH, f"no simulated host has the address or name {where!r}")
        return host

    def is_of(self, where: Any, host: Host) -> bool:
        """Whether this is an address or a name of this host now."""
        try:
            return self.resolve(where) is host
        except OSError:
            return False

    def names(self) -> dict[bytes, str]:
        """Every host's name by its identity, to read traces with."""
        return {host.identity: name for name, host in self._by_name.items()}

    def own_host(self) -> Host:
        """Return the host of the running node; code outside of any node runs on a host of its own."""
        incarnation = INCARNATION.get()
        name = "outside" if incarnation is None else incarnation.node
        if name not in self._by_name and incarnation is None:
            return self.add_host(name, "10.255.255.254")
        return self._by_name[name]

    def crash(self, host: Host) -> None:
        """Cut the power: no packet leaves, ports close, tasks stop where they are."""
        if host.incarnation is not None:
            self.loop.bury(host.incarnation)
        host.datagram_ports.clear()
        host.listeners.clear()

    def move(self, host: Host) -> str:
        """Give a host another address; nobody has the old one from now on.

        What is open on a host that is up stays bound to the old one: nothing gets in or out there any more.
        """
        host.datagram_ports.clear()
        host.listeners.clear()
        del self._by_address[host.address]
        self._moves += 1
        # No host begins with a last number so high: two of a large world would share an address, and one be cut off.
        host.address = f"10.{self._moves & 255}.{self._moves >> 8 & 255}.254"
        assert host.address not in self._by_address
        self._by_address[host.address] = host
        return host.address

    # Reachability
    def partition(self, name: str, left: Iterable[str], right: Iterable[str], *, symmetric: bool = True) -> None:
        """Block everything from the hosts named `left` to those named `right` (and back, if symmetric) until healed."""
        self._partitions[name] = (frozenset(left), frozenset(right), symmetric)

    def heal(self, name: str) -> None:
        """End a partition."""
        del self._partitions[name]

    def blocked(self, source: Host, destination: Host) -> bool:
        """Say whether a partition stands between the two, in this direction."""
        for name, (left, right, symmetric) in self._partitions.items():
            here, there = source.name, destination.name
            if (here in left and there in right) or (symmetric and here in right and there in left):
                self.bites[name.partition(" ")[0]] += 1
                return True
        return False

    def _translator_drops(self, source: Host, source_port: int, destination: Host, port: int) -> bool:
        """Whether a translator stands before the destination and does not know the sender."""
        if source.name in self.translated:
            self.translated[source.name].add((destination.address, port))
        opened = self.translated.get(destination.name)
        if opened is None or source is destination or (source.address, source_port) in opened:
            return False
        self.bites["nat"] += 1
        return True

    # Fates
    def draw(self, source: Host, destination: Host) -> tuple[int, ...]:
        """Return eight 32-bit numbers for what this pair sends next."""
        count = source.sent.get(destination.identity, 0)
        source.sent[destination.identity] = count + 1
        pair = _PAIR.pack(source.identity, destination.identity, count)
        drawn = self._keyed.copy()
        drawn.update(pair)
        return _DRAWS.unpack(drawn.digest())

    def arrival_ns(self, source: Host, destination: Host, size_bytes: int, draws: tuple[int, ...]) -> int | None:
        """Return when a packet sent now arrives, or None if it is lost."""
        conditions = self.conditions_of(source, destination)
        if draws[0] * MILLION >> 32 < conditions.loss_ppm:
            self.bites["loss"] += 1
            return None
        if size_bytes > conditions.mtu_bytes:
            self.bites["mtu"] += 1
            return None
        leaves_ns = self.loop.now_ns
        if conditions.bandwidth_bit_per_s is not None:
            leaves_ns = (
                max(leaves_ns, source.uplink_free_ns) + size_bytes * 8_000_000_000 // conditions.bandwidth_bit_per_s
            )
            source.uplink_free_ns = leaves_ns
        delay_ns = self.latency_ns(source, destination) + (draws[1] * conditions.jitter_us * 1_000 >> 32)
        if draws[2] * MILLION >> 32 < conditions.reorder_ppm:
            self.bites["reordering"] += 1
            delay_ns += draws[3] * conditions.reorder_us * 1_000 >> 32
        if conditions.extra_us:
            self.bites["delay"] += 1
            delay_ns += conditions.extra_us * 1_000
        return self._unclogged_ns(source, destination, leaves_ns + delay_ns) if self.clogs else leaves_ns + delay_ns

    def _unclogged_ns(self, source: Host, destination: Host, arrival_ns: int) -> int:
        """When a packet arrives that waits for both its ends' clogs: all that waited arrive at once, in order."""
        for host in (source, destination):
            name, until_ns = self.clogs.get(host.name, ("", 0))
            if until_ns > arrival_ns and source is not destination:
                self.bites[name] += 1
                arrival_ns = until_ns
        return arrival_ns

    def latency_ns(self, source: Host, destination: Host) -> int:
        """Return the one-way delay of an undisturbed packet."""
        if source is destination:
            return LOOPBACK_NS
        if self.latency_us is not None:
            return self.latency_us(source, destination) * 1_000
        return self.conditions_of(source, destination).latency_us * 1_000

    def conditions_of(self, source: Host, destination: Host) -> Conditions:
        """Return what holds between the two now."""
        if source is destination:
            return LOOPBACK
        return self.conditions if self.conditions_between is None else self.conditions_between(source, destination)

    def send_datagram(
        self, source: Host, source_port: int, data: bytes, to: tuple[str, int], refused: Callable[[], None]
    ) -> None:
        """Decide a datagram's fate, trace it, and schedule its arrival; `refused` hears of a closed port."""
        destination = self._by_address.get(to[0]) or (self.own_host() if to[0] in OWN_ADDRESSES else None)
        self.statistics.sent += 1
        if destination is None or (self._partitions and self.blocked(source, destination)):
            self.statistics.blocked += 1
            return
        if self.translated and self._translator_drops(source, source_port, destination, to[1]):
            self.statistics.blocked += 1
            return
        if source is destination or self.conditions_between is not None:
            conditions = self.conditions_of(source, destination)
        else:
            conditions = self.conditions
        if conditions.calm and len(data) <= conditions.mtu_bytes and not self.clogs:
            # The pair's count goes on, so that what is drawn once chance returns does not depend on this.
            sent, identity = source.sent, destination.identity
            count = sent.get(identity, 0)
            sent[identity] = count + 1
            if source is destination or self.latency_us is not None:
                due_ns = self.loop.now_ns + self.latency_ns(source, destination)
            else:
                due_ns = self.loop.now_ns + conditions.latency_us * 1_000
            if conditions.jitter_us:
                # The second of what `draw` would return.
                pair = _PAIR.pack(source.identity, identity, count)
                drawn = self._keyed.copy()
                drawn.update(pair)
                due_ns += int.from_bytes(drawn.digest()[4:8], "little") * conditions.jitter_us * 1_000 >> 32
            header = DATAGRAM_TRACE.pack(source.identity, source_port, destination.identity, to[1], due_ns)
            self.trace.note("datagram", header, data)
            self._schedule(source, source_port, data, destination, to[1], due_ns, refused)
            return
        draws = self.draw(source, destination)
        arrival_ns = self.arrival_ns(source, destination, len(data), draws)
        header = DATAGRAM_TRACE.pack(source.identity, source_port, destination.identity, to[1], arrival_ns or -1)
        self.trace.note("datagram", header, data)
        if arrival_ns is None:
            self.statistics.lost += 1
            return
        if data and draws[4] * MILLION >> 32 < conditions.corrupt_ppm:
            self.statistics.corrupted += 1
            self.bites["corruption"] += 1
            damaged = bytearray(data)
            damaged[draws[5] % len(data)] ^= 1 << draws[5] % 8
            data = bytes(damaged)
        self._schedule(source, source_port, data, destination, to[1], arrival_ns, refused)
        if draws[6] * MILLION >> 32 < conditions.duplicate_ppm:
            self.statistics.duplicated += 1
            self.bites["duplication"] += 1
            again_ns = arrival_ns + (draws[7] * conditions.reorder_us * 1_000 >> 32)
            self._schedule(source, source_port, data, destination, to[1], again_ns, refused)

    def _schedule(
        self,
        source: Host,
        source_port: int,
        data: bytes,
        destination: Host,
        port: int,
        when_ns: int,
        refused: Callable[[], None],
    ) -> None:
        transport = destination.datagram_ports.get(port)
        if transport is not None:  # in the receiver's own context: if it dies first, the loop drops the arrival
            self.loop.deliver_at_ns(when_ns, transport, data, (source.address, source_port))
        elif destination.up:
            self.loop.call_at_ns(2 * when_ns - self.loop.now_ns, refused)

    # What the loop's methods do
    def refuse_options(self, options: dict[str, Any]) -> None:
        """Refuse what changes meaning and is not simulated; tuning options are ignored, as a kernel may."""
        for name in ("sock", "ssl", "local_addr"):
            if options.get(name) is not None:
                raise SimulationError(f"the simulated network has no {name}={options[name]!r}")

    async def create_datagram_endpoint(
        self, protocol_factory: Any, local_addr: Any = None, remote_addr: Any = None, **options: Any
    ) -> Any:
        """Open a datagram socket."""
        return open_datagrams(self, protocol_factory, local_addr, remote_addr, options)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        """Listen for streams."""
        return listen(self, protocol_factory, host, port, options)

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        """Connect a stream."""
        return await connect(self, protocol_factory, host, port, options)
