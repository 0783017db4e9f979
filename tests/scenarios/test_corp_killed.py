"""The real XenoCorp process, killed in mid-claim: what it acknowledged stays, and each claim settles once.

Three servers' claim pumps send over real control connections, as XenoServers do; the sessions behind them are chains
of co-signed usage whose next record is claimed as soon as the last one is settled, so that claims are always on their
way. The store's own kill test is tests/corp/test_durability.py.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from dht.identity import ED25519
from xenonode import membership
from xenonode.control.pool import ConnectionPool
from xenonode.home import LiveHome
from xenonode.membership import Membership
from xenonode.model.advert import OfferedEnvironment
from xenonode.model.entity import Registration
from xenonode.model.money import Claim, Reservation, ReservationRequest, Settlement
from xenonode.model.resources import CPU_HOUR_NS, NANO, Prices, Resources, Usage, due_nano
from xenonode.model.session import Agreement, Receipt, UsageRecord
from xenonode.server.claiming import ClaimPump
from xenonode.server.journal import Journal
from xenonode.server.ports import ControlCorp
from xenonode.server.releasing import Releases
from xenonode.server.session_events import ClaimRefused, ClaimSettled, Event
from xenonode.server.session_state import PendingClaim, Session

from .live import Live, until

pytestmark = pytest.mark.timeout(600)
KILLS = 20
SERVERS, SESSIONS = 3, 4
PRICES = Prices("USD", NANO, 0, 0, 0)
SHARE = Resources(500, 2**28, 0, 0)
HELD_NANO = 2 * NANO
RECORD_CPU_NS = CPU_HOUR_NS // 10_000
"""A record's worth: small, so that no chain uses up its reservation."""
BETWEEN_S = 1.5
HOUR_MS = 3_600_000


@dataclass
class Chain:
    """One session as far as claims see it: `claim` is under way, `settlements` were acknowledged."""

    server: Claimer
    reservation: bytes
    client_agreement: bytes
    server_agreement: bytes
    id: bytes
    sign_receipt: Any
    claim: PendingClaim | None = None
    previous: bytes | None = None
    seq: int = 0
    due_nano: int = 0
    settlements: dict[bytes, bytes] = field(default_factory=dict)
    claims: dict[bytes, bytes] = field(default_factory=dict)
    finished: bool = False

    def next(self, *, final: bool = False) -> None:
        """Use a little more, have it co-signed, and claim it."""
        self.seq += 1
        used = Usage(self.seq * RECORD_CPU_NS, 0, 0, 0, 0, 0, 0)
        self.due_nano = due_nano(used, PRICES)
        now_ms = self.server.env.now_ms()
        record = UsageRecord(self.id, self.seq, used, self.due_nano, now_ms, self.previous, bytes(32), final).seal(
            self.server.home.signer
        )
        self.previous = record.id
        receipt = Receipt(self.id, record.id, self.seq, True, "", now_ms)
        proof = self.server_agreement, self.client_agreement, record.raw, self.sign_receipt(receipt)
        claim = Claim(self.reservation, *proof, final).seal(self.server.home.signer)
        self.claims[claim.id] = claim.raw
        self.claim = PendingClaim(claim.id, claim.raw, self.seq, True, final)


class Claimer:
    """One server: its membership, its connections, and its claim pump."""

    def __init__(self, live: Live, number: int) -> None:
        self.env = live.env
        self.home = LiveHome(live.folder / f"claimer-{number}")
        self.number = number
        self.chains: dict[bytes, Chain] = {}
        self.stopping = False
        self.held: Membership
        self.pump: ClaimPump

    async def join(self, live: Live) -> None:
        network = (live.plan.corp.folder / "network.xeno").read_bytes()
        self.held = await membership.enter(self.home, self.env, network, self._registration)
        papers = self.held.papers
        self.pool = ConnectionPool(self.home.transport(papers.certificate, [papers.authority]))
        sessions = cast("Any", lambda: self.chains)
        releases = Releases(Journal(self.home.disk), self.home.signer, self.env.now_ms)
        self.pump = ClaimPump(
            ControlCorp(self.call), self.held.trust, sessions, self._apply, releases,
            wall_ms=self.env.now_ms, rng=random.Random(self.number),
        )  # fmt: skip

    def _registration(self, network_id: bytes, now_ms: int) -> Registration:
        name = f"Claimer {self.number}"
        return Registration("server", name, "GB", f"c{self.number}@example.org", "test", network_id, now_ms)

    async def call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        network = self.held.network
        return await self.pool.call(network.corp_control.pair, network.corp_key, method, body)

    async def _apply(self, id: bytes, event: Event) -> Session:
        chain = self.chains[id]
        assert not isinstance(event, ClaimRefused), event
        assert isinstance(event, ClaimSettled) and chain.claim is not None
        assert event.settlement.cumulative_nano == chain.due_nano
        chain.settlements[chain.claim.id] = event.raw
        final, chain.claim = chain.claim.final, None
        if final:
            chain.finished = True
        else:
            chain.next(final=self.stopping)
            self.pump.wake()
        return cast("Session", chain)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    pytest.importorskip("libcloud", reason="the first schema is drawn from the catalogue")
    made = Live(tmp_path / "net", servers=1)
    try:
        made.run(made.network.start_corp())
        yield made
    finally:
        made.close()
    assert made.leftovers() == []


async def opened(live: Live, client: Any, order: str, server: Claimer) -> Chain:
    """A reservation and an agreement, as a session's beginning makes them."""
    signer, key = client._home.signer, server.home.signer.public_key
    request = ReservationRequest(
        live.env.rng("test").randbytes(16), bytes.fromhex(order), key, HELD_NANO, 10 * NANO, HOUR_MS, live.env.now_ms()
    )
    raw = (await client.member.call_corp("reserve", {"request": request.seal(signer).raw}))["reservation"]
    _, reservation = Reservation.open(raw, ED25519)
    agreement = Agreement(
        signer.public_key, key, reservation.id, bytes(16), bytes(16), 1, SHARE,
        OfferedEnvironment("os", "linux", "6.1"), bytes(32), PRICES, 60_000, NANO, "standard",
        ("ssh-ed25519 AAAA test",), "guest", live.env.now_ms(),
    )  # fmt: skip
    ours, theirs = agreement.seal(signer), agreement.seal(server.home.signer)
    return Chain(server, reservation.id, ours.raw, theirs.raw, ours.id, lambda receipt: receipt.seal(signer).raw)


def test_twenty_kills_in_mid_claim_lose_nothing_and_settle_each_claim_once(live: Live) -> None:
    rng = random.Random(20)

    async def scenario() -> None:
        client = await live.member("100 USD")
        order = (await client.orders.place(client.orders.sign("50 USD", sessions_max=SERVERS * SESSIONS)))["order"]
        servers = [Claimer(live, number) for number in range(SERVERS)]
        for server in servers:
            await server.join(live)
            for _ in range(SESSIONS):
                chain = await opened(live, client, order, server)
                server.chains[chain.id] = chain
                chain.next()
        pumps = [asyncio.ensure_future(server.pump.run()) for server in servers]
        chains = [chain for server in servers for chain in server.chains.values()]
        interrupted = 0

        def acknowledged() -> int:
            return sum(len(chain.settlements) for chain in chains)

        def more_than(before: int) -> bool:
            return acknowledged() > before

        for _ in range(KILLS):
            await until(partial(more_than, acknowledged()))
            await asyncio.sleep(rng.uniform(0, BETWEEN_S))
            await live.network.kill(live.plan.corp)
            interrupted += sum(chain.claim is not None for chain in chains)
            await live.network.start_corp()
        assert interrupted >= KILLS  # claims were on their way each time
        for server in servers:
            server.stopping = True
        await until(lambda: all(chain.finished for chain in chains))
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        await check_books(live, client, order, servers)
        for server in servers:
            await server.pool.close()
            server.home.leave()

    live.run(scenario())


async def check_books(live: Live, client: Any, order: str, servers: list[Claimer]) -> None:
    """Every acknowledgement stands as it was given, and the money moved once."""
    captured = 0
    for server in servers:
        for chain in server.chains.values():
            assert chain.settlements.keys() == chain.claims.keys()
            found = [Settlement.open(raw, ED25519)[0] for raw in chain.settlements.values()]
            assert sum(each.captured_nano for each in found) == chain.due_nano == found[-1].cumulative_nano
            captured += chain.due_nano
            for id in list(chain.claims)[:: max(1, len(chain.claims) // 5)]:  # asked again, the same bytes come back
                assert (await server.call("claim", {"claim": chain.claims[id]}))["settlement"] == chain.settlements[id]
    state = await client.orders.show(order)
    assert state["captured_nano"] == captured and state["status"] == "closed"
    assert state["captured_nano"] + state["released_nano"] == state["amount_nano"]
    audit = await live.audit()
    assert audit["balanced"] and audit["debits_nano"] == audit["credits_nano"], audit["faults"]
