"""Bad inputs to XenoCorp: each gets a clear error, and nothing moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from dht.envelope import seal
from dht.identity import ED25519, Signer
from xenonode.control.errors import ControlError
from xenonode.model.message import INT64_MAX
from xenonode.model.money import ReservationRequest
from xenonode.model.resources import NANO, Resources

from .world import HOUR_MS, PRICES, Meter, World, seed

MILLI = NANO // 1000


class Case:
    """A world with a client, a server, an order and a running session."""

    def __init__(self) -> None:
        self.world = World()
        self.client, self.server = self.world.member("alice", "client"), self.world.member("bob", "server")
        self.world.credit(self.client, 100 * NANO)
        self.order = self.world.ordered(self.client, 5 * NANO)
        self.reservation = self.world.reserved(self.client, self.order, self.server, 2 * NANO)
        self.meter = self.world.session(self.client, self.server, self.reservation)

    def refused(self, signer: Signer | None, method: str, **body: object) -> ControlError:
        """The refusal, having checked that no money moved and that it says what to do."""
        posted = len(self.world.posted)
        with pytest.raises(ControlError) as caught:
            self.world.do(signer, method, **body)
        assert caught.value.message and caught.value.next_step
        assert len(self.world.posted) == posted
        assert self.world.audit()["balanced"]
        return caught.value


@pytest.fixture
def case() -> Case:
    return Case()


def test_an_order_beyond_the_credit_is_refused_and_says_how_much_is_there(case: Case) -> None:
    order = case.world.order(96 * NANO).seal(case.client).raw
    error = case.refused(case.client, "order.create", order=order)
    assert error.code == "no_funds" and "95.00 USD" in error.message


def test_an_order_in_a_currency_without_money_is_refused(case: Case) -> None:
    order = case.world.order(1, currency="EUR").seal(case.client).raw
    assert "0.00 EUR" in case.refused(case.client, "order.create", order=order).message


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"made_ms": 1, "expires_ms": 2}, "expired"), ({"amount_nano": INT64_MAX}, "no_funds")],
)
def test_an_expired_or_absurd_order_is_refused(case: Case, changes: dict[str, int], code: str) -> None:
    order = dataclasses.replace(case.world.order(), **changes).seal(case.client).raw
    assert case.refused(case.client, "order.create", order=order).code == code


def test_an_order_of_an_unknown_currency_is_refused_by_name(case: Case) -> None:
    fields = {**case.world.order().to_fields(), "currency": "XAU"}
    error = case.refused(case.client, "order.create", order=seal(case.client, "order", fields).raw)
    assert "XAU" in error.message and "USD" in error.message


def test_a_flipped_bit_in_an_order_is_refused(case: Case) -> None:
    raw = bytearray(case.world.order().seal(case.client).raw)
    for index in range(0, len(raw), 7):
        raw[index] ^= 1
        assert case.refused(case.client, "order.create", order=bytes(raw)).code in ("bad_message", "not_yours")
        raw[index] ^= 1


def test_the_same_nonce_with_another_body_is_refused(case: Case) -> None:
    order = case.world.order()
    case.world.do(case.client, "order.create", order=order.seal(case.client).raw)
    other = dataclasses.replace(order, amount_nano=order.amount_nano + 1).seal(case.client).raw
    assert case.refused(case.client, "order.create", order=other).code == "other_body"


def test_a_copied_order_signed_by_somebody_else_is_refused(case: Case) -> None:
    thief = case.world.member("mallory", "client")
    case.world.credit(thief, 50 * NANO)
    order = case.world.order()
    case.world.do(case.client, "order.create", order=order.seal(case.client).raw)
    assert case.refused(thief, "order.create", order=order.seal(thief).raw).code == "other_body"


def test_somebody_elses_connection_cannot_carry_an_order(case: Case) -> None:
    order = case.world.order().seal(case.client).raw
    assert case.refused(case.server, "order.create", order=order).code == "not_yours"
    assert case.refused(None, "order.create", order=order).code == "not_identified"


def test_a_stranger_and_a_server_cannot_order(case: Case) -> None:
    stranger = ED25519.generate(seed("stranger"))
    assert case.refused(stranger, "order.create", order=case.world.order().seal(stranger).raw).code == "not_registered"
    assert case.refused(case.server, "order.create", order=case.world.order().seal(case.server).raw).code == "role"


def test_another_clients_order_is_not_shown_released_or_reserved_from(case: Case) -> None:
    other = case.world.member("mallory", "client")
    assert case.refused(other, "order.show", order=case.order).code == "unknown_order"
    request = case.world.request(case.order, case.server).seal(other).raw
    assert case.refused(other, "reserve", request=request).code == "unknown_order"


Change = Callable[[Case, ReservationRequest], ReservationRequest]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda case, r: dataclasses.replace(r, amount_nano=3 * NANO + 1), "no_funds"),
        (lambda case, r: dataclasses.replace(r, amount_nano=INT64_MAX), "no_funds"),
        (lambda case, r: dataclasses.replace(r, server=case.client.public_key), "same_party"),
        (lambda case, r: dataclasses.replace(r, server=bytes(31) + b"\1"), "not_registered"),
        (lambda case, r: dataclasses.replace(r, order=bytes(16)), "unknown_order"),
        (lambda case, r: dataclasses.replace(r, made_ms=r.made_ms + HOUR_MS), "clock"),
    ],
)
def test_a_reservation_that_cannot_be_is_refused(case: Case, change: Change, code: str) -> None:
    request = change(case, case.world.request(case.order, case.server)).seal(case.client).raw
    assert case.refused(case.client, "reserve", request=request).code == code


@pytest.mark.parametrize(
    ("constraint", "code"),
    [
        ({"rate_cap_nano_per_hour": NANO}, "rate_cap"),
        ({"server_cap_nano": NANO}, "server_cap"),
        ({"sessions_max": 1}, "sessions_max"),
        ({"allowed_servers": (bytes(32),)}, "not_allowed"),
    ],
)
def test_an_orders_constraints_bind_its_reservations(case: Case, constraint: dict[str, object], code: str) -> None:
    order = case.world.ordered(case.client, 5 * NANO, **constraint)
    if code == "sessions_max":
        case.world.reserved(case.client, order, case.server, NANO)
    request = case.world.request(order, case.server, 2 * NANO).seal(case.client).raw
    assert case.refused(case.client, "reserve", request=request).code == code


def test_an_expired_order_takes_no_reservation(case: Case) -> None:
    case.world.now_ms += 25 * HOUR_MS
    request = case.world.request(case.order, case.server).seal(case.client).raw
    assert case.refused(case.client, "reserve", request=request).code == "expired"


def test_falling_counters_are_refused(case: Case) -> None:
    case.meter.cosigned(500)
    usage = case.meter.usage(400)
    error = case.refused(case.server, "claim", claim=case.meter.claim(usage, case.meter.receipt(usage)))
    assert "counters fall" in error.message


def test_a_lower_seq_without_a_receipt_is_stale_and_with_one_is_paid(case: Case) -> None:
    early, late = case.meter.usage(400), case.meter.usage(500)
    case.meter.settle(case.meter.claim(late, None))
    assert case.refused(case.server, "claim", claim=case.meter.claim(early, None)).code == "stale"
    assert case.meter.settle(case.meter.claim(early, case.meter.receipt(early))).captured_nano == 400 * MILLI
    case.world.now_ms += 72 * HOUR_MS
    case.world.sweep()
    assert case.world.statement(case.server).balance_nano == 500 * MILLI


def test_two_usage_records_with_one_seq_are_refused_and_kept_as_proof(case: Case) -> None:
    case.meter.cosigned(100)
    case.meter.seq = 0
    case.meter.last = None
    usage = case.meter.usage(200)
    error = case.refused(case.server, "claim", claim=case.meter.claim(usage, case.meter.receipt(usage)))
    assert error.code == "equivocation"
    proofs = case.world.do(case.world.keys.operator, "fraud.list")["proofs"]
    assert [(proof["kind"], proof["suspect"]) for proof in proofs] == [("equivocation", case.server.public_key)]
    assert proofs[0]["second"] == usage


def test_a_chain_that_does_not_name_the_record_before_is_refused(case: Case) -> None:
    case.meter.cosigned(100)
    usage = case.meter.usage(200, previous=bytes(16))
    claim = case.meter.claim(usage, case.meter.receipt(usage))
    assert "chain forks" in case.refused(case.server, "claim", claim=claim).message


def test_a_due_that_the_counters_do_not_make_is_refused(case: Case) -> None:
    usage = case.meter.usage(100, due_nano=100 * MILLI + 1)
    claim = case.meter.claim(usage, case.meter.receipt(usage))
    assert case.refused(case.server, "claim", claim=claim).code == "bad_evidence"


def test_a_receipt_of_another_agreement_or_usage_is_refused(case: Case) -> None:
    usage = case.meter.usage(100)
    for wrong in ({"agreement": bytes(16)}, {"usage": bytes(16)}, {"seq": 9}):
        claim = case.meter.claim(usage, case.meter.receipt(usage, **wrong))
        assert case.refused(case.server, "claim", claim=claim).code == "bad_evidence"


def test_a_receipt_signed_by_the_server_itself_is_refused(case: Case) -> None:
    usage = case.meter.usage(100)
    forger = Meter(case.world, case.server, case.server, case.reservation)
    forger.client_sealed = case.meter.client_sealed
    claim = case.meter.claim(usage, forger.receipt(usage))
    assert case.refused(case.server, "claim", claim=claim).code == "bad_message"


def test_an_agreement_that_only_the_server_signed_is_refused(case: Case) -> None:
    usage = case.meter.usage(100)
    claim = case.meter.claim(usage, case.meter.receipt(usage), client_agreement=case.meter.server_sealed.raw)
    assert case.refused(case.server, "claim", claim=claim).code == "bad_evidence"


def test_agreements_that_differ_are_refused(case: Case) -> None:
    usage = case.meter.usage(100)
    other = case.world.session(case.client, case.server, case.reservation, hostname="other").server_sealed.raw
    claim = case.meter.claim(usage, case.meter.receipt(usage), agreement=other)
    assert "different agreements" in case.refused(case.server, "claim", claim=claim).message


def test_a_claim_from_anothers_reservation_is_refused(case: Case) -> None:
    thief = case.world.member("mallory", "server")
    meter = case.world.session(case.client, thief, case.reservation)
    usage = meter.usage(100)
    claim = meter.claim(usage, meter.receipt(usage))
    assert case.refused(thief, "claim", claim=claim).code == "not_yours"


def test_a_second_agreement_cannot_claim_from_the_same_reservation(case: Case) -> None:
    case.meter.cosigned(100)
    other = case.world.session(case.client, case.server, case.reservation, hostname="other")
    usage = other.usage(200)
    claim = other.claim(usage, other.receipt(usage))
    assert "another agreement" in case.refused(case.server, "claim", claim=claim).message


def test_agreed_resources_beyond_the_rate_cap_are_refused(case: Case) -> None:
    meter = case.world.session(case.client, case.server, case.reservation, resources=Resources(10**6, 2**30, 0, 0))
    usage = meter.usage(100)
    error = case.refused(case.server, "claim", claim=meter.claim(usage, meter.receipt(usage)))
    assert "rate cap" in error.message


def test_prices_above_the_orders_caps_are_refused(case: Case) -> None:
    caps = dataclasses.replace(PRICES, cpu_nano_per_hour=PRICES.cpu_nano_per_hour - 1)
    order = case.world.ordered(case.client, NANO, price_caps=caps)
    meter = case.world.session(case.client, case.server, case.world.reserved(case.client, order, case.server, NANO))
    usage = meter.usage(100)
    error = case.refused(case.server, "claim", claim=meter.claim(usage, meter.receipt(usage)))
    assert "price of CPU" in error.message


def test_a_claim_after_the_release_is_refused(case: Case) -> None:
    case.meter.cosigned(100, final=True)
    usage = case.meter.usage(200)
    claim = case.meter.claim(usage, case.meter.receipt(usage))
    assert case.refused(case.server, "claim", claim=claim).code == "released"


def test_only_the_operator_credits_and_only_clients_within_limits(case: Case) -> None:
    operator, entity = case.world.keys.operator, case.world.entity(case.client)
    body = {"entity": entity, "amount_nano": NANO, "currency": "USD", "nonce": bytes(16)}
    assert case.refused(case.client, "credit", **body).code == "not_operator"
    for amount in (0, -1, INT64_MAX + 1):
        assert case.refused(operator, "credit", **{**body, "amount_nano": amount}).code == "bad_message"
    assert case.refused(operator, "credit", **{**body, "amount_nano": INT64_MAX}).code == "too_much"
    assert case.refused(operator, "credit", **{**body, "currency": "XAU"}).code == "bad_message"
    assert case.refused(operator, "credit", **{**body, "entity": "nobody"}).code == "unknown_entity"
    assert case.world.do(operator, "credit", **body) == case.world.do(operator, "credit", **body)
    assert case.refused(operator, "credit", **{**body, "amount_nano": 2}).code == "other_body"


@pytest.mark.parametrize(
    "method", ["register", "order.create", "order.show", "reserve", "claim", "statement", "credit"]
)
def test_a_body_without_its_fields_is_refused(case: Case, method: str) -> None:
    signer = case.world.keys.operator if method == "credit" else case.client
    for body in ({}, dict.fromkeys(("registration", "order", "request", "claim", "currency", "entity"), 7)):
        assert case.refused(signer, method, **body).code == "bad_request"
