"""The ledger against a model of a few dictionaries, over random histories (I1 to I5, I9)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from xenonode.control.errors import ControlError
from xenonode.corp import accounts, transfers
from xenonode.corp.errors import RefusedError
from xenonode.corp.orders import ORDER_MIN_NANO
from xenonode.corp.terms import Terms
from xenonode.model.errors import ModelError
from xenonode.model.message import INT64_MAX
from xenonode.model.resources import NANO

from .world import Meter, World

MILLI = NANO // 1000
FEE_BASIS_POINTS = 150


@dataclass
class Hold:
    """A reservation in the model."""

    order: bytes
    server: int
    amount: int
    meter: Meter
    captured: int = 0
    due: int = 0
    live: bool = True


@dataclass
class Model:
    """What everybody has, by the rules in words."""

    balance: int = 0
    credited: int = 0
    free: dict[bytes, int] = field(default_factory=dict)
    status: dict[bytes, str] = field(default_factory=dict)
    holds: dict[bytes, Hold] = field(default_factory=dict)

    def live(self, order: bytes) -> list[Hold]:
        return [hold for hold in self.holds.values() if hold.order == order and hold.live]

    def end(self, hold: Hold, *, close: bool) -> None:
        hold.live = False
        self.free[hold.order] += hold.amount - hold.captured
        if self.status[hold.order] == "closing" or (close and not self.live(hold.order)):
            self.close(hold.order)

    def close(self, order: bytes) -> None:
        self.balance += self.free[order]
        self.free[order] = 0
        self.status[order] = "closing" if self.live(order) else "closed"


class LedgerMachine(RuleBasedStateMachine):
    """One client, two servers, any order of events, replays included."""

    orders = Bundle("orders")
    holds = Bundle("holds")
    said = Bundle("said")

    @initialize()
    def found(self) -> None:
        self.world = World(terms=Terms(fee_basis_points=FEE_BASIS_POINTS))
        self.model = Model()
        self.client = self.world.member("alice", "client")
        self.servers = [self.world.member(name, "server") for name in ("bob", "carol")]
        self.entity = self.world.entity(self.client)

    def say(self, signer: Any, method: str, **body: Any) -> dict[str, Any] | None:
        """A request's reply; None when it was refused."""
        self.world.now_ms += 1
        try:
            return self.world.do(signer, method, **body)
        except ControlError:
            return None

    @rule(target=said, milli=st.integers(1, 5000))
    def credit(self, milli: int) -> Any:
        body = {"entity": self.entity, "amount_nano": milli * MILLI, "currency": "USD", "nonce": self.world.nonce()}
        reply = self.say(self.world.keys.operator, "credit", **body)
        self.model.balance += milli * MILLI
        self.model.credited += milli * MILLI
        assert reply == {"balance_nano": self.model.balance}
        return self.world.keys.operator, "credit", body, reply

    @rule(target=orders, milli=st.integers(1, 6000))
    def order(self, milli: int) -> Any:
        reply = self.say(self.client, "order.create", order=self.world.order(milli * MILLI).seal(self.client).raw)
        assert (reply is not None) == (ORDER_MIN_NANO <= milli * MILLI <= self.model.balance)
        if reply is None:
            return multiple()
        self.model.balance -= milli * MILLI
        self.model.free[reply["order"]] = milli * MILLI
        self.model.status[reply["order"]] = "open"
        return reply["order"]

    @rule(target=holds, order=orders, server=st.integers(0, 1), milli=st.integers(1, 3000))
    def reserve(self, order: bytes, server: int, milli: int) -> Any:
        amount, model = milli * MILLI, self.model
        allowed = amount <= model.free[order] and model.status[order] == "open" and len(model.live(order)) < 8
        try:
            reservation = self.world.reserved(self.client, order, self.servers[server], amount)
        except ControlError:
            assert not allowed
            return multiple()
        assert allowed
        model.free[order] -= amount
        meter = self.world.session(self.client, self.servers[server], reservation)
        model.holds[reservation] = Hold(order, server, amount, meter)
        return reservation

    @rule(target=said, reservation=holds, milli=st.integers(0, 4000), final=st.booleans())
    def claim(self, reservation: bytes, milli: int, final: bool) -> Any:
        hold = self.model.holds[reservation]
        before = (hold.meter.seq, hold.meter.last)
        usage = hold.meter.usage(milli, final=final)
        body = {"claim": hold.meter.claim(usage, hold.meter.receipt(usage), final=final)}
        server = self.servers[hold.server]
        reply = self.say(server, "claim", **body)
        rising = milli * MILLI >= hold.due
        assert (reply is not None) == (hold.live and rising)
        if reply is None:
            hold.meter.seq, hold.meter.last = before
            return multiple()
        hold.due = milli * MILLI
        hold.captured = min(hold.amount, milli * MILLI)
        if final:
            self.model.end(hold, close=True)
        return server, "claim", body, reply

    @rule(order=orders)
    def release(self, order: bytes) -> None:
        self.world.release(self.client, order)
        if self.model.status[order] != "closed":
            self.model.close(order)

    @rule(reservation=consumes(holds))
    def give_up(self, reservation: bytes) -> None:
        hold = self.model.holds[reservation]
        self.world.give_up(self.servers[hold.server], reservation)
        if hold.live:
            self.model.end(hold, close=False)

    @rule(again=said)
    def replay(self, again: Any) -> None:
        signer, method, body, reply = again
        assert self.say(signer, method, **body) == reply

    @rule(identifier=st.binary(min_size=16, max_size=16))
    def ask_for_what_is_not_there(self, identifier: bytes) -> None:
        assert self.say(self.client, "order.show", order=identifier) is None
        request = self.world.request(identifier, self.servers[0]).seal(self.client).raw
        assert self.say(self.client, "reserve", request=request) is None

    @rule(kind=st.sampled_from(("itself", "currency", "overflow", "zero", "overdraft")))
    def post_what_must_not_be(self, kind: str) -> None:
        mine, eur = accounts.client(self.entity, "USD"), accounts.client(self.entity, "EUR")
        outside, order = accounts.external("USD"), accounts.order(bytes(16), self.entity, "USD")
        moves = {
            "itself": (mine, mine, 1),
            "currency": (mine, eur, 1),
            "overflow": (outside, mine, INT64_MAX - self.model.credited + 1),
            "zero": (outside, mine, 0),
            "overdraft": (mine, order, self.model.balance + 1),
        }
        with pytest.raises((ModelError, RefusedError)):
            self.world.store.run_inline(
                lambda books: books.post([transfers.make("credit", f"bad {kind}", *moves[kind], "test", 0)])
            )

    @invariant()
    def everything_agrees(self) -> None:
        if not hasattr(self, "model"):
            return
        model = self.model
        report = self.world.audit()
        assert report["balanced"], report["faults"]
        mine = self.world.statement(self.client)
        assert mine.balance_nano == model.balance == sum(line.amount_nano for line in mine.lines)
        held = sum(hold.amount - hold.captured for hold in model.holds.values() if hold.live)
        assert mine.ringfenced_nano == held + sum(model.free.values())
        for order, free in model.free.items():
            state = self.world.do(self.client, "order.show", order=order)
            assert (state["status"], state["free_nano"]) == (model.status[order], free)
            mine = [hold for hold in model.holds.values() if hold.order == order]
            assert state["captured_nano"] == sum(hold.captured for hold in mine)
            assert state["reserved_nano"] == sum(hold.amount - hold.captured for hold in mine if hold.live)
        for number, server in enumerate(self.servers):
            mine = [hold.captured for hold in model.holds.values() if hold.server == number]
            fees = sum(captured * FEE_BASIS_POINTS // 10_000 for captured in mine)
            assert self.world.statement(server).balance_nano == sum(mine) - fees


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
