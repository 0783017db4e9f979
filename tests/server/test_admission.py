"""Admission control: capacity is never sold twice, and a no says everything at once."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hypervisor.adapter import Ability, Capabilities
from hypervisor.simulated import ALL_ABILITIES, MICRO
from xenonode.model.advert import OfferedEnvironment
from xenonode.model.resources import NO_RESOURCES, Resources
from xenonode.model.session import QuoteRequest
from xenonode.server.admission import HOLDS_PER_CLIENT_MAX, Admission, Hold, Offer, environment_offers

from .world import GIB, LINUX, MACHINE, PRICES, SMALL

CLIENT, OTHER = b"c" * 32, b"d" * 32


def capabilities(abilities: frozenset[Ability] = ALL_ABILITIES) -> Capabilities:
    return Capabilities("simulated:///", "simulated", 4, 8 * GIB, abilities, (MICRO,))


def admission(*, overcommit_permille: int = 1000, abilities: frozenset[Ability] = ALL_ABILITIES) -> Admission:
    able = capabilities(abilities)
    environments = environment_offers(able, lambda id: bytes(32))
    kept = Resources(1000, GIB, 0, 0)
    return Admission(Offer(MACHINE, kept, 4, PRICES, environments, overcommit_permille), able)


def request(resources: Resources, environment: OfferedEnvironment = LINUX, lease_ms: int = 600_000) -> QuoteRequest:
    return QuoteRequest(bytes(16), bytes(32), resources, environment, lease_ms, 0)


def hold(books: Admission, number: int, resources: Resources, until_ms: int = 60_000, client: bytes = CLIENT) -> None:
    id = number.to_bytes(16, "big")
    books.hold(Hold(id, id, client, resources, until_ms, b"raw"))


def test_a_refusal_names_every_reason_and_what_would_fit() -> None:
    books = admission()
    wanted = Resources(5000, 9 * GIB, 0, 10**9)
    reasons = books.refusals(request(wanted, OfferedEnvironment("os", "winxp", "5.1"), 1), CLIENT, 0)
    cpu = "cpu: 5000 ms/s wanted, 3000 ms/s free"
    for beginning in ("environment:", "lease:", cpu, "memory:", "net:", "would fit:"):
        assert any(reason.startswith(beginning) for reason in reasons), beginning
    assert "memory 7168 MiB" in reasons[-1].replace(":", "")


def test_what_the_hypervisor_cannot_enforce_is_refused_however_much_there_is() -> None:
    books = admission(abilities=frozenset())
    reasons = " ".join(books.refusals(request(SMALL), CLIENT, 0))
    assert "whole CPUs only" in reasons and "network rate" in reasons and "no disks" in reasons
    assert not books.refusals(request(Resources(1000, GIB, 0, 0)), CLIENT, 0)


def test_a_quote_holds_its_capacity_until_it_expires() -> None:
    books = admission()
    hold(books, 1, Resources(3000, GIB, 0, 0))
    assert books.refusals(request(SMALL), OTHER, 59_999)
    assert books.available.cpu_ms_per_s == 3000, "the advert does not swing with quotes"
    assert books.held((1).to_bytes(16, "big"), OTHER, 0) is None, "another client's quote"
    assert not books.refusals(request(SMALL), OTHER, 60_000)


def test_one_client_cannot_hold_a_host_with_quotes() -> None:
    books = admission()
    for number in range(HOLDS_PER_CLIENT_MAX):
        hold(books, number, Resources(10, 2**24, 0, 0))
    assert any("of yours are open" in each for each in books.refusals(request(SMALL), CLIENT, 0))
    assert not books.refusals(request(SMALL), OTHER, 0)


def test_overcommitment_stretches_cpu_and_network_but_never_memory() -> None:
    plain, stretched = admission().offer.total, admission(overcommit_permille=2000).offer.total
    assert stretched.cpu_ms_per_s == 2 * plain.cpu_ms_per_s and stretched.memory_bytes == plain.memory_bytes


resources = st.builds(
    Resources, st.integers(10, 3000), st.integers(2**26, 7 * GIB), st.integers(0, 10**11), st.integers(0, 10**8)
)
steps = st.lists(
    st.tuples(st.sampled_from(["quote", "agree", "end", "resize", "wait"]), resources, st.integers(0, 4)), max_size=40
)


@given(steps)
def test_capacity_is_never_oversold(steps: list[tuple[str, Resources, int]]) -> None:
    books, now_ms = admission(), 0
    quotes: dict[int, tuple[Resources, int]] = {}
    sessions: dict[int, Resources] = {}
    for number, (action, wanted, which) in enumerate(steps):
        if action == "quote" and not books.refusals(request(wanted), bytes([which]) * 32, now_ms):
            hold(books, number, wanted, now_ms + 60_000, bytes([which]) * 32)
            quotes[number] = (wanted, which)
        elif action == "agree" and quotes:
            chosen = sorted(quotes)[which % len(quotes)]
            wanted, client = quotes.pop(chosen)
            if books.held(chosen.to_bytes(16, "big"), bytes([client]) * 32, now_ms):
                books.agree(chosen.to_bytes(16, "big"), bytes([chosen]), wanted)
                sessions[chosen] = wanted
        elif action == "end" and sessions:
            gone = sorted(sessions)[which % len(sessions)]
            books.keep(bytes([gone]), None)
            del sessions[gone]
        elif action == "resize" and sessions:
            chosen = sorted(sessions)[which % len(sessions)]
            if not books.resize_refusals(bytes([chosen]), wanted, now_ms):
                books.keep(bytes([chosen]), wanted)
                sessions[chosen] = wanted
        elif action == "wait":
            now_ms += 20_000 * which
        total = NO_RESOURCES
        for held in sessions.values():
            total = total + held
        assert not books.offer.total.lacks(total)
        assert books.available == books.offer.total.minus(total)


def test_more_kept_than_there_is_is_refused() -> None:
    offer = admission().offer
    try:
        replace(offer, kept=replace(MACHINE, cpu_ms_per_s=4001))
    except ValueError as error:
        assert "cpu_ms_per_s" in str(error)
    else:
        raise AssertionError("accepted")


def test_an_agreement_takes_over_its_quotes_capacity_and_counts_once() -> None:
    books = admission()
    hold(books, 1, SMALL)
    books.agree((1).to_bytes(16, "big"), b"session", SMALL)
    assert books.free(0) == books.available == books.offer.total.minus(SMALL)
