"""The ledger does not grow for nothing: orders are bounded, replies are forgotten, fresh grants are not renewed."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from dht.identity import Signer
from xenonode.control.errors import ControlError
from xenonode.corp import schema
from xenonode.corp.orders import DAY_MS, OPEN_MAX, ORDER_MIN_NANO, ORDERS_A_DAY_MAX, REPLY_KEPT_MS
from xenonode.model.resources import NANO

from .world import World


class Case:
    def __init__(self) -> None:
        self.world = World()
        self.client, self.server = self.world.member("alice", "client"), self.world.member("bob", "server")
        self.world.credit(self.client, 1_000 * NANO)

    def create(self, raw: bytes) -> dict[str, Any]:
        return self.world.do(self.client, "order.create", order=raw)

    def code(self, signer: Signer, method: str, **body: Any) -> str:
        with pytest.raises(ControlError) as caught:
            self.world.do(signer, method, **body)
        return caught.value.code

    def replies(self) -> int:
        query = select(func.count()).select_from(schema.reply)
        return int(self.world.store.run_inline(lambda books: books.connection.execute(query).scalar_one()))


@pytest.fixture
def case() -> Case:
    return Case()


def test_an_order_has_a_least_amount(case: Case) -> None:
    tiny = case.world.order(ORDER_MIN_NANO - 1).seal(case.client).raw
    assert case.code(case.client, "order.create", order=tiny) == "too_small"
    case.world.ordered(case.client, ORDER_MIN_NANO)


def test_so_many_orders_of_a_client_are_open_at_once(case: Case) -> None:
    orders = [case.world.ordered(case.client, ORDER_MIN_NANO) for _ in range(OPEN_MAX)]
    further = case.world.order(ORDER_MIN_NANO).seal(case.client).raw
    assert case.code(case.client, "order.create", order=further) == "too_many"
    case.world.release(case.client, orders[0])
    case.create(further)


def test_so_many_orders_of_a_client_are_made_in_a_day(case: Case) -> None:
    for _ in range(ORDERS_A_DAY_MAX):
        case.world.release(case.client, case.world.ordered(case.client, ORDER_MIN_NANO))
    further = case.world.order(ORDER_MIN_NANO).seal(case.client).raw
    assert case.code(case.client, "order.create", order=further) == "too_many"
    case.world.now_ms += DAY_MS
    case.world.ordered(case.client, ORDER_MIN_NANO)
    other = case.world.member("carol", "client")
    case.world.credit(other, NANO)
    case.world.ordered(other, ORDER_MIN_NANO)


def test_replies_are_forgotten_once_no_repeat_of_their_request_is_taken(case: Case) -> None:
    world = case.world
    raw = world.order(NANO, expires_ms=world.now_ms + 100 * DAY_MS).seal(case.client).raw
    order = case.create(raw)["order"]
    request = world.request(order, case.server, NANO // 10).seal(case.client).raw
    first = world.do(case.client, "reserve", request=request)
    world.sweep()
    assert case.replies() == 3 and world.do(case.client, "reserve", request=request) == first
    world.now_ms += REPLY_KEPT_MS + 10 * 60_000
    world.sweep()
    assert case.replies() == 1  # the operator's credit, which has no date of its own
    assert case.code(case.client, "reserve", request=request) == "too_old"
    assert case.create(raw)["order"] == order  # the order itself remembers
    stale = world.order(NANO, made_ms=world.now_ms - REPLY_KEPT_MS - 1).seal(case.client).raw
    assert case.code(case.client, "order.create", order=stale) == "too_old"
    assert world.audit()["balanced"]


def test_a_grant_is_renewed_from_half_of_its_life_on_and_not_before(case: Case) -> None:
    world = case.world
    first = world.do(case.server, "renew")
    world.now_ms += 3 * DAY_MS
    assert world.do(case.server, "renew") == first
    world.now_ms += DAY_MS // 2
    assert world.do(case.server, "renew")["credential"] != first["credential"]


def test_a_member_has_the_ledger_audited_only_so_often_and_the_operator_always(case: Case) -> None:
    world = case.world
    for _ in range(10):
        assert world.do(case.client, "ledger.audit")["balanced"]
    assert case.code(case.client, "ledger.audit") == "busy"
    assert world.do(case.server, "ledger.audit")["balanced"]
    world.now_ms += 61_000
    assert world.do(case.client, "ledger.audit")["balanced"]
    assert all(world.audit()["balanced"] for _ in range(20))


def test_attempts_on_a_key_in_use_are_noted_so_often(case: Case) -> None:
    for number in range(40):
        raw = case.world.registration(f"eve{number}", "client").seal(case.client).raw
        assert case.code(None, "register", registration=raw) == "key_in_use"  # type: ignore[arg-type]
    assert len(case.world.do(case.world.keys.operator, "fraud.list")["proofs"]) == 16
