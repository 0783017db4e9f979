"""Sessions as clients live them: order, search, quote, lease, sign, stop, settle; and servers that set their prices.

Decides what a client of a scenario asks for, whom it tries (the cheapest that match, in turn), and what became of each
session. Everything goes through the real `Client`; an error that it raises is a session that failed, with its reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from random import Random
from typing import Any

from xenonode.client import Client, SignedQuote
from xenonode.control.errors import ControlError
from xenonode.errors import XenoError
from xenonode.model.advert import OfferedEnvironment
from xenonode.model.resources import GIB, Prices, Resources
from xenonode.server.ports import LATER
from xenonode.simulation.arrivals import draw_cores
from xenonode.simulation.lease import patiently
from xenonode.simulation.sampling import quantile, usd
from xenonode.simulation.scenario import Workload
from xenonode.simulation.stand import EXPECTED
from xenonode.simulation.world import ClientHost, ServerHost, World

DEBIAN = OfferedEnvironment("os", "debian", "12")
SERVERS_TRIED = 3
SERVERS_SOUGHT = 5
AGAIN_S = 2.0
UNLUCKY = (ControlError,)
"""A client goes on in spite of these: its server is away, or cannot serve it at the moment."""
RECEIPT_PERIOD_MS = 10_000
LEASE_SPARE_MS = 600_000
"""Beyond the session's length, so that it ends by its client's will and not by its lease."""
PRICE_BOUNDS = (0.1, 10.0)
BUSY = 0.5
"""The share of a server's CPU that is leased, from which it raises its prices."""


@dataclass(slots=True)
class SessionRow:
    """What became of one session; a row of sessions.csv."""

    number: int
    client: str
    arrived_s: float
    cores: float
    wanted_s: float
    state: str = "asking"  # asking > running > stopping > settled; or unserved, failed
    reason: str = ""
    server: str = ""
    tried: int = 0
    open_s: float | None = None  # from arrival until one could log in
    ended_s: float | None = None
    price_usd: float | None = None  # of a core-hour
    paid_usd: float | None = None

    def to_fields(self) -> dict[str, Any]:
        """By the table's columns."""
        return asdict(self)


class Leases:
    """All sessions of an experiment; none without a `world`, since peers alone have nobody who is paid."""

    def __init__(
        self, world: World | None, workload: Workload, note: Callable[[str], None], now_s: Callable[[], float]
    ) -> None:
        self._world, self._workload, self._note, self._now_s = world, workload, note, now_s
        self.all: list[SessionRow] = []
        self.paid: dict[int, tuple[str, int]] = {}
        """Of each settled session, by its number: its order, and what its client was told it paid, in nano-units."""
        self._wind_up = asyncio.Event()

    def figures(self) -> dict[str, Any]:
        """The run's row about sessions."""
        opened = [lease.open_s for lease in self.all if lease.open_s is not None]
        counts = {f"sessions_{state}": self.count(state) for state in ("settled", "unserved", "failed")}
        return {"sessions": len(self.all), **counts, "session_open_s_median": quantile(opened, 0.5)}

    def open(self) -> int:
        """Sessions that run now."""
        return sum(lease.state in ("running", "stopping") for lease in self.all)

    def count(self, state: str) -> int:
        """Sessions of which this became."""
        return sum(lease.state == state for lease in self.all)

    def wind_up(self) -> None:
        """End all that run, as their clients would."""
        self._wind_up.set()

    async def one(self, rng: Random) -> None:
        """One session from beginning to end."""
        workload = self._workload
        assert self._world is not None  # a scenario with sessions has the whole platform
        host = rng.choice(self._world.clients)
        length_s = rng.expovariate(1 / workload.session_mean_s)
        cores = round(draw_cores(rng, workload), 3)
        lease = SessionRow(len(self.all), host.node.host.name, self._now_s(), cores, length_s)
        self.all.append(lease)
        try:
            await host.call(lambda client: self._live(host, client, lease))
        except EXPECTED as error:
            lease.state = "failed" if lease.server else "unserved"
            lease.reason = str(getattr(error, "code", "") or error)[:200]
            self._note(f"session {lease.number} of {lease.client}: {lease.state}: {error}")

    async def _live(self, host: ClientHost, client: Client, lease: SessionRow) -> None:
        cores_ms = max(1, round(lease.cores * 1000))
        memory = max(GIB // 4, round(lease.cores * self._workload.session_gib_per_core * GIB))
        wanted = Resources(cores_ms, memory, GIB, 1_000_000)
        signed = client.orders.sign(f"{self._workload.session_budget_usd:.2f} USD")
        order = await _placed(client, signed)
        text = (
            f"cpu.available >= {cores_ms} ms/s and memory.available >= {memory} B and disk.available >= 1 GiB"
            f" and net.available >= 1 Mbps and os.debian >= 12 order by price.cpu limit {SERVERS_SOUGHT}"
        )
        answer = await client.finding.search(text, strict=self._workload.strict)
        quote = None
        for found in answer.servers[:SERVERS_TRIED]:
            lease.tried += 1
            client.records.keep_found([found.advert])  # another session's search may have taken its place
            lease_ms = round(lease.wanted_s * 1000) + LEASE_SPARE_MS
            try:
                quote = await client.servers.quote(found.advert.server_key, wanted, DEBIAN, lease_ms)
            except EXPECTED as error:
                lease.reason = str(getattr(error, "code", "") or error)[:200]
                continue
            if isinstance(quote, SignedQuote):
                break
            lease.reason = "; ".join(quote.reasons)[:200]
        if not isinstance(quote, SignedQuote):
            with contextlib.suppress(*EXPECTED):
                await client.orders.release(order)
            raise XenoError(lease.reason or "nobody offers it", "", "unserved")
        lease.server = self._name(quote.server)
        lease.price_usd = usd(quote.quote.prices.cpu_nano_per_hour)
        view = await client.lease(order, quote, receipt_period_ms=RECEIPT_PERIOD_MS)
        lease.state, lease.reason, lease.open_s = "running", "", self._now_s() - lease.arrived_s
        cosigning = patiently(lambda: client.sessions.cosign(view.session), UNLUCKY, AGAIN_S)
        host.node.env.spawn(cosigning, "cosign")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wind_up.wait(), lease.wanted_s)
        lease.state = "stopping"
        ending = partial(patiently, lambda: client.sessions.end(view.session), UNLUCKY, AGAIN_S)
        while not (ended := await ending()).closed:  # noqa: ASYNC110  # it is XenoCorp's to settle
            await asyncio.sleep(AGAIN_S)
        self.paid[lease.number] = order, ended.settled_nano
        lease.state, lease.ended_s, lease.paid_usd = "settled", self._now_s(), usd(ended.settled_nano)
        lease.reason = ended.reason

    def _name(self, key: bytes) -> str:
        for server in self._world.servers if self._world is not None else ():
            if server.running is not None and server.running.home.signer.public_key == key:
                return server.node.host.name
        return key.hex()[:16]


async def _placed(client: Client, order: bytes) -> str:
    """The id of a signed order, once XenoCorp answers: the same bytes each time, so that it is never two orders."""
    while True:
        try:
            return str((await client.orders.place(order))["order"])
        except ControlError as error:
            if error.code not in LATER:
                raise
        await asyncio.sleep(AGAIN_S)


class Market:
    """Servers that follow the market: idle ones get cheaper, busy ones dearer, within bounds of their first price."""

    def __init__(self, world: World, workload: Workload) -> None:
        self._world, self._workload = world, workload
        self._factors: dict[str, float] = {}

    async def go_on(self) -> None:
        """Set prices anew, again and again."""
        while True:
            await asyncio.sleep(self._workload.reprice_every_s)
            for server in self._world.servers:
                self._reprice(server)

    def _reprice(self, server: ServerHost) -> None:
        running = server.running
        if running is None:
            return
        step, name = self._workload.reprice_step, server.node.host.name
        offer = running.admission.offer
        used = 1 - running.admission.available.cpu_ms_per_s / max(1, offer.total.cpu_ms_per_s)
        factor = self._factors.get(name, 1.0)
        if used == 0:
            factor = max(PRICE_BOUNDS[0], factor * (1 - step))
        elif used > BUSY:
            factor = min(PRICE_BOUNDS[1], factor * (1 + step))
        self._factors[name] = factor
        first = server.shape.prices
        prices = Prices(first.currency, *(max(1, round(price * factor)) for price in first.amounts))
        if prices != offer.prices:
            running.admission.offer = replace(offer, prices=prices)
            running.advertiser.changed()
