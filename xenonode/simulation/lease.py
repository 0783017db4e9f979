"""A client's paid session in a simulated world, from the order to the settlement, by the client's own code.

Decides only how patient its user is: who is told "later" repeats the same request a little later. Leaves to its user
what is done meanwhile, and with `account` what all parties say of the money.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from xenonode.agent import sign_for_all
from xenonode.client import Client, SignedQuote
from xenonode.control.errors import ControlError
from xenonode.corp.transfers import CAPTURE, CREDIT, FEE
from xenonode.errors import XenoError
from xenonode.model.advert import OfferedEnvironment
from xenonode.model.money import Statement
from xenonode.model.resources import Resources
from xenonode.model.session import UsageRecord
from xenonode.simulation.errors import SimulationError

if TYPE_CHECKING:
    from xenonode.simulation.world import ClientHost, ServerHost, World

T = TypeVar("T")
SMALL = Resources(250, 2**29, 2**30, 1_000_000)
DEBIAN = OfferedEnvironment("os", "debian", "12")
RECEIPT_PERIOD_MS = 10_000
LEASE_MS = 1_800_000
AGAIN_S = 1.0


REFUSED_OR_AWAY = (ControlError, XenoError, OSError)
"""A user who is patient without end asks again after any of these."""


async def patiently(
    call: Callable[[], Coroutine[Any, Any, T]],
    errors: tuple[type[Exception], ...] = REFUSED_OR_AWAY,
    again_s: float = AGAIN_S,
) -> T:
    """Do as errors tell their reader: repeat the same request a little later, until none of these comes."""
    while True:
        try:
            return await call()
        except errors:
            await asyncio.sleep(again_s)


class Lease:
    """One session of a client on one server, paid from an order of its own."""

    def __init__(self, world: World, host: ClientHost, server: ServerHost) -> None:
        self.world, self.host, self.server = world, host, server
        self.order = self.id = ""

    async def open(self) -> None:
        """Order, find the server, agree, start; the client's agent signs for usage from then on."""
        await self.host.call(self._open)
        self.host.node.call(self.host.node.env.spawn, sign_for_all(self.host.client, lambda text: None), "agent")

    async def _open(self, client: Client) -> None:
        state = await client.orders.place(client.orders.sign("5 USD"))
        self.order = state["order"]
        control = self.server.config.control
        advert = await client.servers.advert(f"{control.host}:{control.port}")
        quote = await client.servers.quote(advert.server_key, SMALL, DEBIAN, LEASE_MS)
        if not isinstance(quote, SignedQuote):
            raise SimulationError(f"refused: {quote}")
        view = await client.lease(self.order, quote, receipt_period_ms=RECEIPT_PERIOD_MS)
        self.id = view.session

    async def stop(self) -> None:
        """End it, however often it takes until the server answers."""

        async def end(client: Client) -> None:
            while not (await patiently(lambda: client.sessions.end(self.id))).closed:  # noqa: ASYNC110  # as a user would
                await asyncio.sleep(AGAIN_S)

        await self.host.call(end)

    async def account(self) -> dict[str, Any]:
        """What XenoCorp's audit, the ledger's transfers, and the statements of client and server say of it."""
        state = await self.host.call(lambda client: patiently(lambda: client.orders.show(self.order)))
        mine: Statement = await self.host.call(lambda client: patiently(lambda: client.orders.statement("USD")))
        running = self.server.running
        if running is None:
            raise SimulationError(f"{self.server.node.host.name} is down")
        telling = patiently(lambda: running._call_corp("statement", {"currency": "USD"}))
        raw = (await self.server.node.start(telling))["statement"]
        theirs, _ = Statement.open(raw, self.world.corp.trust.scheme)
        audit = await self.world.corp.operate(lambda operator: operator.audit())
        record = self.host.client.records.find(self.id)
        usage, _ = UsageRecord.open(record.accepted_usage, self.world.corp.trust.scheme)
        transfers = self.world.transfers
        moved = {
            kind: sum(each.amount_nano for each in transfers if each.kind == kind) for kind in (CREDIT, CAPTURE, FEE)
        }
        return {
            "balanced": audit["balanced"],
            "debits": audit["debits_nano"],
            "credits": audit["credits_nano"],
            "faults": audit["faults"],
            "order": {name: value for name, value in state.items() if name.endswith("_nano") or name == "status"},
            "due": usage.due_nano,
            "final": usage.final,
            "cpu_ns": usage.usage.cpu_ns,
            "transferred": moved,
            "repeated": len(transfers) - len({each.id for each in transfers}),
            "client": {"balance": mine.balance_nano, "ringfenced": mine.ringfenced_nano},
            "server": {"balance": theirs.balance_nano},
        }


def settled_once(account: dict[str, Any]) -> str:
    """What is wrong with one ended session's money, as every party to it tells it; empty when nothing is."""
    order, moved = account["order"], account["transferred"]
    paid = moved["capture"] + moved["fee"]
    held = (
        (account["balanced"] and not account["faults"], f"the audit finds {account['faults']}"),
        (account["debits"] == account["credits"], "debits and credits differ"),
        (account["repeated"] == 0, "a transfer was made twice"),
        (account["final"] and account["due"] > 0, "the last usage that the client signed is not final"),
        (paid == account["due"] == order["captured_nano"], f"{paid} nano paid of {account['due']} due"),
        (order["captured_nano"] <= order["amount_nano"], "more was captured than ordered"),
        (order["status"] == "closed" and order["reserved_nano"] == 0, f"the order is {order['status']}"),
        (order["released_nano"] == order["amount_nano"] - paid, "the order's rest did not come back"),
        (account["client"] == {"balance": moved["credit"] - paid, "ringfenced": 0}, "the client's statement is wrong"),
        (account["server"] == {"balance": moved["capture"]}, "the server's statement is wrong"),
    )
    return "; ".join(detail for good, detail in held if not good)
