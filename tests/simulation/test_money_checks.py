"""What a watch says of transfers: money that came back may be spent again, and nobody spends what he does not hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from xenonode.corp import accounts
from xenonode.corp.transfers import Transfer, captured, credited, released, reserved, returned, ring_fenced
from xenonode.simulation.checking import paid_and_held
from xenonode.simulation.invariants.money import MoneyChecks

USD = "USD"


def order(number: int) -> accounts.Account:
    return accounts.order(number.to_bytes(16), "client-1", USD)


def reservation(number: int) -> accounts.Account:
    return accounts.reservation(number.to_bytes(16), "client-1", USD)


def round_trip(number: int, amount: int, set_aside: int, paid: int) -> list[Transfer]:
    """An order of `amount`, of which `set_aside` is reserved and `paid` captured; the rest comes back."""
    return [
        ring_fenced(order(number), amount, 0),
        reserved(order(number), reservation(number), set_aside, 0),
        *captured(reservation(number), "server-1", f"claim-{number}", paid, 0, 0),
        *returned(reservation(number), order(number), set_aside - paid, 0),
        *released(order(number), "end", amount - paid, 0),
    ]


def wrong_of(transfers: list[Transfer]) -> str:
    world: Any = SimpleNamespace(transfers=[])
    checks, wrong = MoneyChecks(world), ""
    for each in transfers:  # looked at each time, as a watch does
        world.transfers.append(each)
        wrong = wrong or checks.transfers()
    return wrong


def test_money_that_came_back_is_ordered_with_again_and_again() -> None:
    transfers = [credited("client-1", USD, 12, "first", 0)]
    for number in range(8):
        transfers += round_trip(number, amount=5, set_aside=3, paid=1)
    assert sum(each.amount_nano for each in transfers if each.kind == "ring_fence") > 12
    assert wrong_of(transfers) == ""
    more = round_trip(8, amount=5, set_aside=3, paid=1)
    assert wrong_of(transfers + more) == "client:client-1:USD: ring_fence of 5 nano, where 4 are held"


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_no_account_gives_more_than_it_holds(credit: int, amount: int, set_aside: int, paid: int) -> None:
    transfers = [
        credited("client-1", USD, credit, "first", 0),
        ring_fenced(order(1), amount, 0),
        reserved(order(1), reservation(1), set_aside, 0),
        *captured(reservation(1), "server-1", "claim", paid, 0, 0),
    ]
    assert (wrong_of(transfers) == "") == (credit >= amount >= set_aside >= paid)


def test_a_transfer_that_is_made_twice_is_told() -> None:
    credit = credited("client-1", USD, 12, "first", 0)
    assert wrong_of([credit, credit]) == f"transfer {credit.id} (credit) was made twice"


def test_what_reservations_paid_and_hold_is_summed_by_order() -> None:
    first, second = round_trip(1, amount=9, set_aside=7, paid=4), round_trip(2, amount=5, set_aside=3, paid=1)
    names = [order(number).id for number in (1, 2)]
    assert paid_and_held(first + second) == {names[0]: (4, 0), names[1]: (1, 0)}
    unreturned = [each for each in second if each.kind != "return"]
    assert paid_and_held(first + unreturned) == {names[0]: (4, 0), names[1]: (1, 2)}
    twice = captured(reservation(1), "server-1", "another claim", 3, 1, 0)
    assert paid_and_held([*first, *twice])[names[0]] == (7, -3)
