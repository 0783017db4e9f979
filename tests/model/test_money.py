"""Amounts as text, and what money messages refuse."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dht import wire
from xenonode.model.errors import MessageError, ModelError
from xenonode.model.message import INT64_MAX
from xenonode.model.money import PurchaseOrder, ReservationRequest, format_amount, parse_amount
from xenonode.model.resources import CURRENCIES, NANO, Prices

ORDER = PurchaseOrder(bytes(16), NANO, "USD", 1, 2, (), None, None, None, 1)


@given(st.integers(1, INT64_MAX), st.sampled_from(CURRENCIES))
def test_an_amount_reads_as_it_was_written(nano: int, currency: str) -> None:
    assert parse_amount(format_amount(nano, currency)) == (nano, currency)


@given(st.integers(-(2**70), 2**70))
@example(0)
def test_an_amount_is_written_exactly(nano: int) -> None:
    digits, currency = format_amount(nano, "USD").split(" ")
    whole, fraction = digits.lstrip("-").split(".")
    assert currency == "USD" and 2 <= len(fraction) <= 9
    assert int(whole) * NANO + int(fraction.ljust(9, "0")) == abs(nano)
    assert digits.startswith("-") == (nano < 0)


@given(st.text(max_size=40))
def test_any_text_is_an_amount_or_a_clear_refusal(text: str) -> None:
    try:
        nano, currency = parse_amount(text)
    except ModelError as error:
        assert str(error)
    else:
        assert 0 < nano <= INT64_MAX and currency in CURRENCIES


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-1 USD", "more than zero"),
        ("0 USD", "more than zero"),
        ("1e400 USD", "no amount"),
        ("nan USD", "no amount"),
        ("0.0000000001 USD", "nine decimals"),
        ("9223372037 USD", "can hold"),
        ("5 XAU", "XAU"),
        ("5", "(none)"),
        ("", "(none)"),
        ("1_000 USD", "no amount"),
        ("٣ USD", "no amount"),
        ("5 USD USD", "USD USD"),
    ],
)
def test_what_is_no_amount_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse_amount(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_nano": 0},
        {"amount_nano": INT64_MAX + 1},
        {"currency": "XAU"},
        {"expires_ms": 1},
        {"nonce": b"short"},
        {"allowed_servers": (b"short",)},
        {"sessions_max": 0},
        {"price_caps": Prices("EUR", 1, 1, 1, 1)},
    ],
)
def test_an_order_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        dataclasses.replace(ORDER, **changes)  # type: ignore[arg-type]


def test_an_order_survives_the_wire() -> None:
    order = dataclasses.replace(ORDER, price_caps=Prices("USD", 1, 2, 3, 4), allowed_servers=(bytes(32),))
    fields = wire.decode(wire.encode(order.to_fields()))
    assert isinstance(fields, dict) and PurchaseOrder.from_fields(fields) == order


def test_a_field_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(MessageError, match="amount_nano"):
        PurchaseOrder.from_fields({**ORDER.to_fields(), "amount_nano": "5"})
    with pytest.raises(MessageError, match="amount_nano"):
        PurchaseOrder.from_fields({**ORDER.to_fields(), "amount_nano": True})


def test_a_lease_has_a_bound() -> None:
    with pytest.raises(ModelError, match="lease"):
        ReservationRequest(bytes(16), bytes(16), bytes(32), 1, 1, 400 * 86_400_000, 1)
