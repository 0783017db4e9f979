"""The money of whole sessions, through XenoCorp's control methods."""

from __future__ import annotations

import pytest

from xenonode.control.errors import ControlError
from xenonode.corp.terms import Terms
from xenonode.model.money import OrderRelease
from xenonode.model.resources import NANO

from .world import HOUR_MS, World

MILLI = NANO // 1000


@pytest.fixture
def world() -> World:
    return World()


def parties(world: World) -> tuple:
    client, server = world.member("alice", "client"), world.member("bob", "server")
    world.credit(client, 100 * NANO)
    return client, server


def test_a_session_pays_what_was_cosigned_and_the_rest_returns_at_once(world: World) -> None:
    client, server = parties(world)
    order = world.ordered(client, 5 * NANO)
    meter = world.session(client, server, world.reserved(client, order, server, 2 * NANO))

    first = meter.cosigned(100)
    last = meter.cosigned(250, final=True)

    assert (first.captured_nano, first.cumulative_nano, first.final) == (100 * MILLI, 100 * MILLI, False)
    assert (last.captured_nano, last.cumulative_nano, last.final) == (150 * MILLI, 250 * MILLI, True)
    assert last.released_nano == 5 * NANO - 250 * MILLI
    state = world.do(client, "order.show", order=order)
    assert (state["status"], state["captured_nano"], state["free_nano"]) == ("closed", 250 * MILLI, 0)
    assert world.statement(client).balance_nano == 100 * NANO - 250 * MILLI
    assert world.statement(client).ringfenced_nano == 0
    assert world.statement(server).balance_nano == 250 * MILLI
    assert world.audit()["balanced"]


def test_every_transfer_is_reported_once_and_after_it_is_durable(world: World) -> None:
    client, server = parties(world)
    order = world.ordered(client)
    world.session(client, server, world.reserved(client, order, server)).cosigned(100, final=True)
    kinds = [transfer.kind for transfer in world.posted]
    assert kinds == ["credit", "ring_fence", "reserve", "capture", "return", "release"]
    assert len({transfer.id for transfer in world.posted}) == len(kinds)


def test_a_repeated_claim_gets_the_stored_settlement_and_moves_nothing(world: World) -> None:
    client, server = parties(world)
    meter = world.session(client, server, world.reserved(client, world.ordered(client), server))
    usage = meter.usage(100)
    claim = meter.claim(usage, meter.receipt(usage))
    first = world.do(server, "claim", claim=claim)
    posted = len(world.posted)
    assert world.do(server, "claim", claim=claim) == first
    assert len(world.posted) == posted


def test_a_repeat_after_the_end_of_the_order_still_gets_the_stored_settlement(world: World) -> None:
    client, server = parties(world)
    meter = world.session(client, server, world.reserved(client, world.ordered(client), server))
    usage = meter.usage(100, final=True)
    claim = meter.claim(usage, meter.receipt(usage), final=True)
    first = world.do(server, "claim", claim=claim)
    assert world.do(server, "claim", claim=claim) == first


def test_an_order_stays_open_while_another_session_holds_some_of_it(world: World) -> None:
    client, server = parties(world)
    other = world.member("carol", "server")
    order = world.ordered(client, 5 * NANO)
    one = world.session(client, server, world.reserved(client, order, server, NANO))
    two = world.session(client, other, world.reserved(client, order, other, NANO))
    assert one.cosigned(100, final=True).released_nano == NANO - 100 * MILLI
    assert world.do(client, "order.show", order=order)["status"] == "open"
    two.cosigned(200, final=True)
    state = world.do(client, "order.show", order=order)
    assert (state["status"], state["captured_nano"]) == ("closed", 300 * MILLI)


def test_an_unsigned_tail_waits_72_hours_and_never_exceeds_the_exposure(world: World) -> None:
    client, server = parties(world)
    reservation = world.reserved(client, world.ordered(client), server, 2 * NANO)
    meter = world.session(client, server, reservation)
    meter.cosigned(100)
    waiting = meter.unsigned(1000)
    assert (waiting.captured_nano, waiting.cumulative_nano) == (0, 100 * MILLI)
    world.now_ms += 72 * HOUR_MS - 1
    world.sweep()
    assert world.statement(server).balance_nano == 100 * MILLI
    world.now_ms += 1
    world.sweep()
    exposure = 2 * NANO * 5 // 100
    assert world.statement(server).balance_nano == 100 * MILLI + exposure
    world.sweep()
    assert meter.unsigned(1100).captured_nano == 0
    world.now_ms += 73 * HOUR_MS
    world.sweep()
    assert world.statement(server).balance_nano == 100 * MILLI + exposure
    assert world.audit()["balanced"]


def test_a_repeat_of_a_claim_that_waited_tells_what_was_captured_in_the_end(world: World) -> None:
    client, server = parties(world)
    meter = world.session(client, server, world.reserved(client, world.ordered(client), server, 2 * NANO))
    claim = meter.claim(meter.usage(50, final=True), None, final=True)
    assert meter.settle(claim).captured_nano == 0
    world.now_ms += 72 * HOUR_MS
    world.sweep()
    settled = meter.settle(claim)
    assert (settled.captured_nano, settled.final) == (50 * MILLI, True)


def test_a_receipt_that_comes_late_settles_at_once_and_ends_the_wait(world: World) -> None:
    client, server = parties(world)
    meter = world.session(client, server, world.reserved(client, world.ordered(client), server, 2 * NANO))
    usage = meter.usage(300)
    meter.settle(meter.claim(usage, None))
    assert meter.settle(meter.claim(usage, meter.receipt(usage))).captured_nano == 300 * MILLI
    world.now_ms += 80 * HOUR_MS
    world.sweep()
    assert world.statement(server).balance_nano == 300 * MILLI


def test_more_than_the_reservation_is_never_paid_however_much_was_cosigned(world: World) -> None:
    client, server = parties(world)
    meter = world.session(client, server, world.reserved(client, world.ordered(client), server, NANO))
    assert meter.cosigned(1001).cumulative_nano == NANO
    assert meter.cosigned(5000, final=True).captured_nano == 0
    assert world.audit()["balanced"]


def test_a_rejecting_receipt_pays_nothing_and_keeps_the_reservation(world: World) -> None:
    client, server = parties(world)
    order = world.ordered(client)
    meter = world.session(client, server, world.reserved(client, order, server))
    usage = meter.usage(100, final=True)
    refused = meter.receipt(usage, accepted=False, reason="the guest was down")
    settled = meter.settle(meter.claim(usage, refused, final=True))
    assert (settled.captured_nano, settled.final) == (0, False)
    assert world.do(client, "order.show", order=order)["reservations"][0]["status"] == "live"


def test_the_fee_is_rounded_once_and_leaves_with_the_capture() -> None:
    world = World(terms=Terms(fee_basis_points=250))
    client, server = parties(world)
    meter = world.session(client, server, world.reserved(client, world.ordered(client), server))
    fees = [meter.cosigned(step).fee_nano for step in (1, 3, 10)] + [meter.cosigned(333, final=True).fee_nano]
    due = 333 * MILLI
    assert sum(fees) == due * 250 // 10_000
    assert world.statement(server).balance_nano == due - sum(fees)
    assert world.audit()["balanced"]


def test_an_abandoned_reservation_returns_after_lease_and_grace_and_not_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xenonode.corp.sweep.OUTAGE_MS", 1000 * HOUR_MS)
    client, server = parties(world)
    order = world.ordered(client, 5 * NANO)
    world.reserved(client, order, server, 2 * NANO)
    began_ms = world.now_ms
    world.now_ms += 24 * HOUR_MS
    world.sweep()
    assert world.do(client, "order.show", order=order)["status"] == "closing"
    assert world.statement(client).balance_nano == 98 * NANO
    world.now_ms = began_ms + HOUR_MS + 7 * 24 * HOUR_MS - 1
    world.sweep()
    assert world.statement(client).balance_nano == 98 * NANO
    world.now_ms += 1
    world.sweep()
    assert world.statement(client).balance_nano == 100 * NANO
    assert world.do(client, "order.show", order=order)["status"] == "closed"
    assert world.audit()["balanced"]


def test_an_outage_of_xenocorp_postpones_the_end_by_its_own_length(world: World) -> None:
    client, server = parties(world)
    order = world.ordered(client, 5 * NANO)
    world.reserved(client, order, server, 2 * NANO)
    began_ms, away_ms = world.now_ms, 30 * 24 * HOUR_MS
    world.sweep()
    world.now_ms = began_ms + away_ms
    world.sweep()
    meter = world.session(client, server, world.do(client, "order.show", order=order)["reservations"][0]["reservation"])
    assert meter.cosigned(100).captured_nano == 100 * MILLI


def test_a_server_that_gives_up_frees_the_money_at_once(world: World) -> None:
    client, server = parties(world)
    order = world.ordered(client, 5 * NANO)
    reservation = world.reserved(client, order, server, 2 * NANO)
    world.give_up(server, reservation)
    world.give_up(server, reservation)
    state = world.do(client, "order.show", order=order)
    assert (state["free_nano"], state["status"]) == (5 * NANO, "open")
    stranger = world.member("mallory", "server")
    with pytest.raises(ControlError, match="another server"):
        world.give_up(stranger, reservation)


def test_releasing_an_order_returns_what_no_session_holds_and_the_rest_later(world: World) -> None:
    client, server = parties(world)
    order = world.ordered(client, 5 * NANO)
    meter = world.session(client, server, world.reserved(client, order, server, 2 * NANO))
    state = world.release(client, order)
    assert (state["status"], state["released_nano"], state["reserved_nano"]) == ("closing", 3 * NANO, 2 * NANO)
    with pytest.raises(ControlError, match="closing"):
        world.reserved(client, order, server)
    meter.cosigned(500, final=True)
    assert world.statement(client).balance_nano == 100 * NANO - 500 * MILLI
    assert world.do(client, "order.show", order=order)["status"] == "closed"


def test_the_same_history_makes_the_same_bytes() -> None:
    def history() -> tuple:
        world = World()
        client, server = parties(world)
        meter = world.session(client, server, world.reserved(client, world.ordered(client), server))
        usage = meter.usage(100, final=True)
        claim = meter.claim(usage, meter.receipt(usage), final=True)
        return world.do(server, "claim", claim=claim), world.do(client, "order.list"), world.posted

    assert history() == history()


def test_status_and_lists_tell_how_much_there_is(world: World) -> None:
    client, server = parties(world)
    order = world.ordered(client)
    reservation = world.reserved(client, order, server)
    counts = world.do(None, "status")
    assert counts["members"] == {"client": 1, "server": 1}
    assert (counts["orders_open"], counts["reservations_live"], counts["transfers"]) == (1, 1, 3)
    assert counts["issuing_until_ms"] == world.now_ms + 90 * 24 * HOUR_MS
    (listed,) = world.do(client, "order.list")["orders"]
    assert listed == world.do(client, "order.show", order=order)
    assert [each["reservation"] for each in listed["reservations"]] == [reservation]
    assert world.do(server, "order.list") == {"orders": []}


def test_a_closing_order_passes_on_at_once_what_each_session_leaves(world: World) -> None:
    client, server = parties(world)
    order = world.ordered(client, 5 * NANO)
    one, two = (world.session(client, server, world.reserved(client, order, server, 2 * NANO)) for _ in range(2))
    wish = OrderRelease(order, world.now_ms).seal(client).raw
    world.do(client, "order.release", release=wish)
    one.cosigned(500, final=True)
    state = world.do(client, "order.release", release=wish)
    assert (state["status"], state["free_nano"], state["released_nano"]) == ("closing", 0, NANO + 1500 * MILLI)
    two.cosigned(1000, final=True)
    assert world.statement(client).balance_nano == 100 * NANO - 1500 * MILLI
    assert world.audit()["balanced"]
