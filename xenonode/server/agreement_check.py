"""Every check that stands between a client's signed agreement and a launch.

Decides whether an agreement is what this server quoted, what XenoCorp reserved money for, and what the client
signed. Leaves to `dht.envelope` that the signatures are right, and to `admission` whether the quote is held.
All that is wrong is reported together, so that a client need not find out piece by piece.
"""

from __future__ import annotations

from hypervisor.environment import CPU_MIN_MS_PER_S, MEMORY_MIN_BYTES, EnvironmentSpec
from hypervisor.errors import InvalidSpecError
from xenonode.model.entity import CLOCK_TOLERANCE_MS
from xenonode.model.money import Reservation
from xenonode.model.resources import rate_nano_per_hour
from xenonode.model.session import Agreement, Quote, exposure_limit_nano
from xenonode.server.admission import LEASE_MIN_MS, Offer
from xenonode.server.session_rules import MONEY_MARGIN_MS

LASTS_MIN_MS = 4 * MONEY_MARGIN_MS
"""A reservation that full use would empty in less than a minute is refused: it would stop as soon as it starts."""


def agreement_faults(
    agreement: Agreement,
    reservation: Reservation,
    reservation_id: bytes,
    quote: Quote,
    quote_id: bytes,
    *,
    client: bytes,
    server: bytes,
    offer: Offer,
    now_ms: int,
) -> tuple[str, ...]:
    """Everything that is wrong with an agreement; empty when it may be signed."""
    faults = []

    def check(right: bool, fault: str) -> None:
        if not right:
            faults.append(fault)

    check(agreement.client == client, "the agreement names another client than the one who brought it")
    check(agreement.server == server, "the agreement names another server")
    check(agreement.quote == quote_id, "the agreement names another quote")
    check(quote.client == client, "the quote was given to another client")
    check(quote.held_until_ms > now_ms, "the quote is no longer held; ask for another")
    for field in ("advert", "advert_seq", "resources", "environment", "image_sha256", "prices"):
        check(getattr(agreement, field) == getattr(quote, field), f"{field} is not what was quoted")
    least_ms = offer.receipt_period_min_ms
    often = f"receipts every {agreement.receipt_period_ms} ms are more than this server takes: every {least_ms} ms"
    check(agreement.receipt_period_ms >= least_ms, often)
    check(abs(agreement.made_ms - now_ms) <= CLOCK_TOLERANCE_MS, "it was made at another time; check the clocks")

    image = offer.find(agreement.environment)
    check(image is not None, f"{agreement.environment} is not offered")
    if image is not None:
        check(agreement.image_sha256 == image.image_sha256, "the image is not the one offered")

    check(agreement.reservation == reservation_id, "the agreement names another reservation")
    check(reservation.client == client, "the reservation is another client's")
    check(reservation.server == server, "the reservation names another server")
    faults += _money_faults(agreement, reservation)
    left_ms = reservation.lease_until_ms - now_ms
    check(left_ms >= LEASE_MIN_MS, f"the reservation ends in {left_ms // 1000} s")
    check(left_ms <= offer.lease_max_ms + CLOCK_TOLERANCE_MS, "the lease is longer than this server allows")
    faults += _spec_faults(agreement)
    return tuple(faults)


def _money_faults(agreement: Agreement, reservation: Reservation) -> list[str]:
    prices, faults = agreement.prices, []
    if prices.currency != reservation.currency:
        faults.append(f"prices are in {prices.currency}, the reservation is in {reservation.currency}")
    rate = rate_nano_per_hour(agreement.resources, prices)
    cap = reservation.rate_cap_nano_per_hour
    if rate > cap:
        faults.append(f"{rate} nano-units an hour are above the reservation's cap, {cap}")
    if rate * LASTS_MIN_MS // 3_600_000 > reservation.amount_nano:
        faults.append(f"the reservation would last less than {LASTS_MIN_MS // 1000} s; reserve more")
    caps = reservation.price_caps
    if caps is not None and any(price > cap for price, cap in zip(prices.amounts, caps.amounts)):
        faults.append("a price is above the cap of the purchase order")
    limit = exposure_limit_nano(reservation.amount_nano, cap)
    if not 0 < agreement.exposure_nano <= limit:
        faults.append(f"the exposure must be 1 to {limit} nano-units, not {agreement.exposure_nano}")
    return faults


def _spec_faults(agreement: Agreement) -> list[str]:
    """What a hypervisor would refuse of the keys and the host name, found before money is at stake."""
    try:
        EnvironmentSpec(
            name="check",
            image="check",
            cpu_ms_per_s=CPU_MIN_MS_PER_S,
            memory_bytes=MEMORY_MIN_BYTES,
            authorized_keys=agreement.authorized_keys,
            hostname=agreement.hostname,
        )
    except InvalidSpecError as error:
        return [error.message]
    return []
