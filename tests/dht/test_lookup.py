"""The lookup state machine, driven by simulated peers of every character."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht.contact import Contact
from dht.lookup import ALPHA, MAX_ASKED, MAX_SPARES, SETTLED, Lookup
from dht.routing import K, Table


class Swarm:
    """Contacts with filled tables, and what each of them answers."""

    def __init__(self, count: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.contacts = [
            Contact(self.rng.randbytes(20), (f"10.0.{n >> 8}.{n & 255}", 4000)) for n in range(1, count + 1)
        ]
        self.tables: dict[bytes, Table] = {}
        for contact in self.contacts:
            table = self.tables[contact.node_id] = Table(contact.node_id)
            for other in self.rng.sample(self.contacts, len(self.contacts)):
                table.add_contact(other)

    def nearest(self, target: int, k: int = K, dead: frozenset[bytes] = frozenset()) -> list[Contact]:
        live = [contact for contact in self.contacts if contact.node_id not in dead]
        return sorted(live, key=lambda contact: contact.number ^ target)[:k]

    def drive(self, lookup: Lookup, answer: Callable[[Contact], list[Contact] | None]) -> int:
        """Answer in random order; None is a failure, sometimes preceded by slowness. Returns the most in flight."""
        waiting = lookup.start()
        slow: set[bytes] = set()
        most = len(waiting)
        while waiting and not lookup.done:
            contact = waiting.pop(self.rng.randrange(len(waiting)))
            if contact.node_id not in slow and self.rng.random() < 0.2:
                slow.add(contact.node_id)
                waiting += [contact, *lookup.slow(contact)]
                continue
            reply = answer(contact)
            waiting += lookup.failed(contact) if reply is None else lookup.answered(contact, reply)
            most = max(most, sum(each.node_id not in slow for each in waiting))
        return most


SWARM = Swarm(300, 1)


@given(st.integers(0, 2**160 - 1), st.integers(0, 299), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_lookup_finds_the_nearest_whatever_the_order_of_answers(target: int, origin: int, seed: int) -> None:
    SWARM.rng.seed(seed)
    own = SWARM.contacts[origin]
    lookup = Lookup(target, SWARM.tables[own.node_id].nearest(target, K), k=K, own_id=own.node_id)
    most = SWARM.drive(lookup, lambda contact: SWARM.tables[contact.node_id].nearest(target, K))
    # ALPHA until the nearest have settled or somebody is silent; then the rest of the k at once, so many spares, and
    # those who were among them before nearer ones were named.
    assert lookup.done and most <= 2 * K + MAX_SPARES
    expected = SWARM.nearest(target, K, frozenset({own.node_id}))
    assert lookup.result() == expected


@given(st.integers(0, 2**160 - 1), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_lookup_finds_the_nearest_though_a_fifth_of_the_peers_is_dead(target: int, seed: int) -> None:
    rng = random.Random(seed)
    dead = frozenset(contact.node_id for contact in rng.sample(SWARM.contacts, 60))
    lookup = Lookup(target, rng.sample([c for c in SWARM.contacts if c.node_id not in dead], 8), k=K)
    waiting = lookup.start()
    while waiting:
        contact = waiting.pop(rng.randrange(len(waiting)))
        if contact.node_id in dead:
            waiting += lookup.failed(contact)
        else:
            waiting += lookup.answered(contact, SWARM.tables[contact.node_id].nearest(target, K))
    expected = SWARM.nearest(target, K, dead)
    assert lookup.done
    assert len(set(lookup.result()) & set(expected)) >= K * 3 // 4 and lookup.result()[:8] == expected[:8]


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_liars_that_invent_contacts_cost_a_bounded_number_of_questions(seed: int) -> None:
    rng = random.Random(seed)

    def invent(contact: Contact) -> list[Contact]:
        return [Contact(bytes(10) + rng.randbytes(10), ("10.9.9.9", rng.randint(1, 65_535))) for _ in range(K)]

    lookup = Lookup(0, SWARM.contacts[:4], k=K)
    SWARM.rng.seed(seed)
    SWARM.drive(lookup, invent)
    assert lookup.done and lookup.asked <= MAX_ASKED


def test_a_late_answer_still_counts() -> None:
    near, far = sorted(SWARM.contacts[:2], key=lambda contact: contact.number)
    lookup = Lookup(0, [near, far], k=2, alpha=1)
    assert lookup.start() == [near]
    assert lookup.slow(near) == [far]
    assert lookup.slow(near) == []
    assert lookup.answered(near, []) == [] and not lookup.done
    lookup.answered(far, [])
    assert lookup.done and lookup.result() == [near, far]


def test_a_lookup_that_began_with_the_nearest_alone_goes_on_with_the_others_when_it_learns_of_them() -> None:
    near, *others = sorted(SWARM.contacts[:5], key=lambda contact: contact.number)
    lookup = Lookup(0, [near], k=K, alpha=1)
    assert lookup.start() == [near]
    lookup.failed(near, silent=True)
    assert lookup.done
    assert lookup.learn([near, *others]) and not lookup.done
    assert lookup.start() == others[:1]
    assert not lookup.learn([near, *others])
    for contact in others:
        lookup.answered(contact, [near])
    assert lookup.done and lookup.result() == others and lookup.asked == 5


def test_a_lookup_waits_for_the_late_but_not_for_the_overdue() -> None:
    one, two = SWARM.contacts[:2]
    lookup = Lookup(0, [one, two], k=2)
    lookup.start()
    lookup.slow(one)
    lookup.answered(two, [])
    assert not lookup.done
    lookup.overdue(one)
    assert lookup.done and lookup.result() == [two]


def test_an_overdue_answer_still_counts() -> None:
    one, two = SWARM.contacts[:2]
    lookup = Lookup(0, [one, two], k=2)
    lookup.start()
    assert lookup.overdue(one) == [] == lookup.overdue(one)
    lookup.answered(one, [])
    lookup.answered(two, [])
    assert lookup.done and set(lookup.result()) == {one, two}


def test_a_value_ends_the_lookup_at_once() -> None:
    lookup = Lookup(0, SWARM.contacts[:10], k=K)
    first, *_ = lookup.start()
    lookup.found(b"value")
    assert lookup.done and lookup.value == b"value" and lookup.answered(first, SWARM.contacts) == []


def test_answers_from_strangers_and_repeated_answers_change_nothing() -> None:
    lookup = Lookup(0, SWARM.contacts[:1], k=K)
    (asked,) = lookup.start()
    assert lookup.answered(SWARM.contacts[5], SWARM.contacts) == [] and not lookup.done
    lookup.failed(asked, hostile=True)
    assert lookup.done and lookup.hostile == [asked]
    assert lookup.answered(asked, SWARM.contacts) == [] and lookup.result() == []


def test_a_lookup_without_seeds_is_over_at_once() -> None:
    lookup = Lookup(0, [], k=K)
    assert lookup.start() == [] and lookup.done and lookup.result() == []


@pytest.mark.parametrize("disjoint", [2, 3])
def test_disjoint_paths_share_no_contact_and_find_the_nearest(disjoint: int) -> None:
    target = random.Random(4).getrandbits(160)
    lookup = Lookup(target, SWARM.contacts[:12], k=K, disjoint=disjoint)
    asked: list[Contact] = []

    def answer(contact: Contact) -> list[Contact]:
        asked.append(contact)
        return SWARM.tables[contact.node_id].nearest(target, K)

    SWARM.rng.seed(5)
    waiting = lookup.start()
    while waiting:
        contact = waiting.pop(0)
        waiting += lookup.answered(contact, answer(contact))
    assert len(asked) == len(set(asked)) and lookup.done
    assert lookup.result() == SWARM.nearest(target)


def test_colluders_on_one_path_do_not_capture_the_other() -> None:
    target = 0
    liars = frozenset(contact.node_id for contact in SWARM.contacts[::4])
    ring = [contact for contact in SWARM.contacts if contact.node_id in liars]
    captured = {1: 0, 2: 0}
    for disjoint in captured:
        for trial in range(40):
            target = random.Random(trial).getrandbits(160)
            colluding = sorted(ring, key=lambda contact: contact.number ^ target)[:K]
            own = SWARM.contacts[1 + 4 * trial % 200]
            seeds = SWARM.tables[own.node_id].nearest(target, K)
            lookup = Lookup(target, seeds, k=K, disjoint=disjoint, own_id=own.node_id)
            waiting = lookup.start()
            while waiting:
                contact = waiting.pop(0)
                known = SWARM.tables[contact.node_id].nearest(target, K)
                waiting += lookup.answered(contact, colluding if contact.node_id in liars else known)
            honest = [c for c in SWARM.nearest(target, 8) if c.node_id not in liars and c is not own]
            captured[disjoint] += not set(honest) & set(lookup.result())
    assert captured[2] <= captured[1] and captured[2] == 0


def _near(target: int, count: int, start: int = 0) -> list[Contact]:
    return [
        Contact((target ^ (number + 1)).to_bytes(20, "big"), (f"10.9.{number >> 8}.{number & 255}", 4_000))
        for number in range(start, start + count)
    ]


def test_only_alpha_are_in_flight_until_the_nearest_have_settled() -> None:
    contacts = _near(2**100, K)
    lookup = Lookup(2**100, contacts, k=K)
    asked = lookup.start()
    assert asked == contacts[:ALPHA]
    for contact in contacts[: SETTLED - 1]:
        assert len(lookup.answered(contact, [])) == 1
    assert len(lookup.answered(contacts[SETTLED - 1], [])) == K - ALPHA - (SETTLED - 1)


def test_what_only_a_liar_named_is_not_asked_and_what_others_named_as_well_is() -> None:
    liar, honest = _near(2**100, 2, start=1_000)
    invented, real = _near(2**100, 8), _near(2**100, 4, start=100)
    lookup = Lookup(2**100, [liar, honest], k=K)
    assert lookup.start() == [liar, honest]
    asked = lookup.answered(liar, [*invented, *real])
    asked += lookup.answered(honest, real)
    # Two of them have another node at their address, and one of those who are asked by then may be too late to spare.
    for _ in range(4):
        asked += lookup.failed(asked.pop(0), hostile=True)
    rest = [contact for contact in asked if contact in invented]
    assert {contact for contact in asked if contact in real} <= set(real) and len(rest) < len(invented) - 4
    while asked:
        contact = asked.pop(0)
        asked += lookup.failed(contact, hostile=True) if contact in invented else lookup.answered(contact, [])
    assert lookup.done and set(real) <= set(lookup.result())


def test_who_did_not_answer_is_told_and_who_refused_is_not() -> None:
    quick, late, mute, refusing, lying = SWARM.contacts[:5]
    lookup = Lookup(0, [quick, late, mute, refusing, lying], k=K, alpha=5)
    assert len(lookup.start()) == 5
    lookup.slow(late)
    lookup.answered(quick, [])
    lookup.failed(mute, silent=True)
    lookup.failed(refusing)
    lookup.failed(lying, hostile=True)
    lookup.overdue(late)
    assert lookup.done and lookup.result() == [quick]
    assert lookup.silent() == sorted([late, mute], key=lambda contact: contact.number)
