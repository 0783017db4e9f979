"""Admission control: what is free on this host, and whether a request fits into it.

Decides between a quote and a refusal with every reason, and holds capacity for quotes and agreements. Free is
the host's share, less what the host keeps, less what agreements and unexpired quotes hold. What the hypervisor
did not declare that it can enforce is refused, however much of it there is. Leaves signing to `sessions`.
Source: the poster's "Create sessions" panel: a session's creation follows a positive admission control decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypervisor.adapter import Ability, Capabilities
from hypervisor.environment import CPU_MIN_MS_PER_S, MEMORY_MIN_BYTES
from xenonode.model.advert import OfferedEnvironment
from xenonode.model.message import require
from xenonode.model.resources import NO_RESOURCES, Prices, Resources
from xenonode.model.session import QUOTE_HOLD_MS, QuoteRequest

MIB = 2**20
HOLDS_MAX = 256
"""Quotes that may be open at a time: at 60 s each, four a second, far more than one host can start guests."""
HOLDS_PER_CLIENT_MAX = 4
"""So that no single client can hold a whole host with quotes that it never takes up."""
OVERCOMMIT_MAX_PERMILLE = 4000
LEASE_MIN_MS = 10_000
"""A shorter lease would end before most environments have booted."""


@dataclass(frozen=True, slots=True)
class EnvironmentOffer:
    """An environment that clients may ask for, and the image that gives it."""

    environment: OfferedEnvironment
    image: str
    image_sha256: bytes
    memory_min_bytes: int = MEMORY_MIN_BYTES


def environment_offers(
    capabilities: Capabilities, image_sha256: Callable[[str], bytes]
) -> tuple[EnvironmentOffer, ...]:
    """All that a hypervisor's images give; `image_sha256` is the hash that stands for an image of that id."""
    return tuple(
        EnvironmentOffer(OfferedEnvironment(*each), image.id, image_sha256(image.id), image.memory_min_bytes)
        for image in capabilities.images
        for each in image.environments
    )


@dataclass(frozen=True, slots=True)
class Offer:
    """The owner's policy: what of the machine is for sale, at what price, and how far it is overcommitted.

    Overcommitment touches CPU and network only: a host that runs out of memory or disk would have to break
    agreements, one that runs out of CPU only shares it. Clients see it as a feature of the advert.
    """

    machine: Resources
    kept: Resources
    cores: int
    prices: Prices
    environments: tuple[EnvironmentOffer, ...]
    overcommit_permille: int = 1000
    sessions_max: int = 64
    lease_max_ms: int = 30 * 86_400_000
    receipt_period_min_ms: int = 1_000

    def __post_init__(self) -> None:
        lacking = self.machine.lacks(self.kept)
        require(not lacking, f"the host keeps more than the machine has: {', '.join(lacking)}")
        require(1000 <= self.overcommit_permille <= OVERCOMMIT_MAX_PERMILLE, "overcommitment must be 1.0 to 4.0")
        require(1 <= self.sessions_max <= 1024, "sessions at a time must be in 1..1024")

    @property
    def total(self) -> Resources:
        """All that can be agreed at a time."""
        left = self.machine.minus(self.kept)
        return Resources(
            left.cpu_ms_per_s * self.overcommit_permille // 1000,
            left.memory_bytes,
            left.disk_bytes,
            left.net_bit_per_s * self.overcommit_permille // 1000,
        )

    def find(self, environment: OfferedEnvironment) -> EnvironmentOffer | None:
        """The offer of exactly this environment."""
        return next((each for each in self.environments if each.environment == environment), None)


@dataclass(frozen=True, slots=True)
class Hold:
    """Capacity that an open quote keeps for its client."""

    quote: bytes
    request: bytes
    client: bytes
    resources: Resources
    until_ms: int
    raw: bytes


class Admission:
    """Keeps the books of one host's capacity. Synchronous; knows no clock."""

    def __init__(self, offer: Offer, capabilities: Capabilities) -> None:
        self.offer = offer
        self.capabilities = capabilities
        self._holds: dict[bytes, Hold] = {}
        self._sessions: dict[bytes, Resources] = {}

    def refusals(self, request: QuoteRequest, client: bytes, now_ms: int) -> tuple[str, ...]:
        """Every reason against `request`, and what would fit; empty when it can be quoted."""
        self._expire(now_ms)
        wanted, reasons = request.resources, []
        offered = self.offer.find(request.environment)
        if offered is None:
            names = "; ".join(str(each.environment) for each in self.offer.environments) or "none"
            reasons.append(f"environment: {request.environment} is not offered; offered: {names}")
        if not LEASE_MIN_MS <= request.lease_ms <= self.offer.lease_max_ms:
            bounds = f"{LEASE_MIN_MS // 1000} s to {self.offer.lease_max_ms // 1000} s"
            reasons.append(f"lease: {request.lease_ms // 1000} s wanted, {bounds} allowed")
        if len(self._sessions) + len(self._holds) >= self.offer.sessions_max:
            reasons.append(f"sessions: all {self.offer.sessions_max} are taken")
        if sum(hold.client == client for hold in self._holds.values()) >= HOLDS_PER_CLIENT_MAX:
            reasons.append(f"quotes: {HOLDS_PER_CLIENT_MAX} of yours are open; use one, or let one run out")
        elif len(self._holds) >= HOLDS_MAX:
            reasons.append(f"quotes: all {HOLDS_MAX} are open; ask again in {QUOTE_HOLD_MS // 1000} s")
        reasons += unenforceable(wanted, self.capabilities)
        if offered is not None and wanted.memory_bytes < offered.memory_min_bytes:
            least = _mib(offered.memory_min_bytes)
            reasons.append(f"memory: {_mib(wanted.memory_bytes)} wanted, the image needs {least}")
        free = self.free(now_ms)
        lacking = free.lacks(wanted)
        for name in lacking:
            reasons.append(f"{_words(name, wanted)} wanted, {_words(name, free).partition(': ')[2]} free")
        if lacking:
            reasons.append(_would_fit(free, wanted))
        return tuple(reasons)

    def hold(self, hold: Hold) -> None:
        """Keep capacity for a quote just given."""
        self._holds[hold.quote] = hold

    def held(self, quote: bytes, client: bytes, now_ms: int) -> Hold | None:
        """The open hold of this quote, if it is this client's."""
        self._expire(now_ms)
        hold = self._holds.get(quote)
        return hold if hold is not None and hold.client == client else None

    def release(self, quote_raw: bytes, client: bytes) -> None:
        """The client will not use this signed quote, or may not: what it held is free at once."""
        for quote in [id for id, hold in self._holds.items() if hold.raw == quote_raw and hold.client == client]:
            del self._holds[quote]

    def repeated(self, request: bytes, now_ms: int) -> Hold | None:
        """The hold that this very request got already, so that a repeated request does not hold twice."""
        self._expire(now_ms)
        return next((hold for hold in self._holds.values() if hold.request == request), None)

    def agree(self, quote: bytes, session: bytes, resources: Resources) -> None:
        """A quote became an agreement: its hold becomes the session's."""
        self._holds.pop(quote, None)
        self._sessions[session] = resources

    def keep(self, session: bytes, resources: Resources | None) -> None:
        """What a session holds from now on; None gives it all back. Not refused: it is so already."""
        if resources is None:
            self._sessions.pop(session, None)
        else:
            self._sessions[session] = resources

    def resize_refusals(self, session: bytes, wanted: Resources, now_ms: int) -> tuple[str, ...]:
        """Every reason why a session cannot have `wanted` instead of what it holds."""
        reasons = unenforceable(wanted, self.capabilities)
        own = self._sessions.get(session, NO_RESOURCES)
        room = self.free(now_ms) + own
        for name in room.lacks(wanted):
            reasons.append(f"{_words(name, wanted)} wanted, {_words(name, room).partition(': ')[2]} to be had")
        if room.lacks(wanted) and not (self.available + own).lacks(wanted):
            wait_s = -(-max(hold.until_ms - now_ms for hold in self._holds.values()) // 1000)
            reasons.append(f"the rest is held by quotes, the last one of which ends in {wait_s} s: try again then")
        return tuple(reasons)

    def free(self, now_ms: int) -> Resources:
        """What a new quote may take."""
        self._expire(now_ms)
        return _less(self.offer.total, [*self._sessions.values(), *(hold.resources for hold in self._holds.values())])

    @property
    def available(self) -> Resources:
        """What the advert says is available: agreements count, quotes do not.

        Quotes live for a minute, and anybody may ask for one: if they counted, asking would make a host's
        advert and the summaries above it swing.
        """
        return _less(self.offer.total, list(self._sessions.values())) if self._sessions else self.offer.total

    def _expire(self, now_ms: int) -> None:
        for quote in [hold.quote for hold in self._holds.values() if hold.until_ms <= now_ms]:
            del self._holds[quote]


def unenforceable(wanted: Resources, capabilities: Capabilities) -> list[str]:
    """What of `wanted` this hypervisor did not declare that it can enforce."""
    reasons, able = [], capabilities.abilities
    if wanted.cpu_ms_per_s < CPU_MIN_MS_PER_S:
        reasons.append(f"cpu: {wanted.cpu_ms_per_s} ms/s is below the smallest share, {CPU_MIN_MS_PER_S} ms/s")
    if wanted.cpu_ms_per_s % 1000 and Ability.CPU_QUOTA not in able:
        reasons.append("cpu: this host gives whole CPUs only; ask for a multiple of 1000 ms/s")
    if wanted.net_bit_per_s and Ability.NET_CAP not in able:
        reasons.append("net: this host cannot hold a guest to a network rate; ask for none (0)")
    if wanted.disk_bytes and Ability.DISK not in able:
        reasons.append("disk: this host gives no disks; ask for none (0)")
    return reasons


def _less(total: Resources, held: list[Resources]) -> Resources:
    taken = NO_RESOURCES
    for each in held:
        taken = taken + each
    return Resources(*(max(0, all_ - its) for all_, its in zip(total.amounts, taken.amounts)))


def _would_fit(free: Resources, wanted: Resources) -> str:
    fitting = Resources(*(min(each) for each in zip(free.amounts, wanted.amounts)))
    if fitting.cpu_ms_per_s < CPU_MIN_MS_PER_S or fitting.memory_bytes < MEMORY_MIN_BYTES:
        return "would fit: nothing at the moment; choose another server"
    names = ("cpu_ms_per_s", "memory_bytes", "disk_bytes", "net_bit_per_s")
    return "would fit: " + ", ".join(_words(name, fitting) for name in names)


def _words(name: str, amount: Resources) -> str:
    value: int = getattr(amount, name)
    if name == "cpu_ms_per_s":
        return f"cpu: {value} ms/s"
    if name == "net_bit_per_s":
        return f"net: {value} bit/s"
    return f"{name.removesuffix('_bytes')}: {_mib(value)}"


def _mib(value: int) -> str:
    return f"{value // MIB} MiB" if value % MIB == 0 else f"{value} B"
