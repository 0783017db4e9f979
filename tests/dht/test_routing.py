"""The routing table: exact neighbours, live contacts stay, one place cannot fill it."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from dht.contact import Contact
from dht.routing import MAX_EXCHANGED, MAX_GROUP_IN_TABLE, MAX_WAITING, K, Table


def contacts(count: int, seed: int) -> list[Contact]:
    rng = random.Random(seed)
    return [Contact(rng.randbytes(20), (f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", 4000)) for n in range(count)]


@given(st.integers(0, 2**32), st.integers(1, 400), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_nearest_is_exact_over_everything_that_the_table_holds(seed: int, count: int, k: int) -> None:
    table = Table(random.Random(seed).randbytes(20))
    for contact in contacts(count, seed):
        table.add_contact(contact)
    target = random.Random(seed + 1).getrandbits(160)
    expected = sorted(table.by_id.values(), key=lambda contact: contact.number ^ target)[:k]
    assert table.nearest(target, k) == expected


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_idle_buckets_are_those_that_no_lookup_went_through_whatever_the_clock_does(seed: int) -> None:
    rng = random.Random(seed)
    table, known, now_ms = Table(rng.randbytes(20)), contacts(200, seed + 1), 0
    works = {
        "touch": lambda: table.touch(table.number ^ rng.getrandbits(rng.randrange(1, 161)), now_ms),
        "add": lambda: table.add_contact(known.pop()) if known else None,
        "fill": lambda: table.fill(known[:25]),
        "touch all": lambda: table.touch_all(lambda: now_ms - rng.randrange(1_000)),
        "flush": table.flush,
    }
    for name in rng.choices(list(works), (40, 10, 4, 4, 6), k=200):
        now_ms += rng.randrange(100) if rng.random() < 0.95 else -rng.randrange(2_000)
        works[name]()
        before_ms = now_ms - rng.randrange(500)
        assert table.idle_buckets(before_ms) == [each for each in table.buckets if each.used_ms < before_ms]


@given(st.integers(0, 2**32), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_buckets_cover_every_id_once_and_agree_with_the_index(seed: int, count: int) -> None:
    table = Table(random.Random(seed).randbytes(20))
    for contact in contacts(count, seed):
        table.add_contact(contact)
    low = 0
    for index, bucket in enumerate(table.buckets):
        first, last = table.range_of(bucket)
        assert first == low
        low = last + 1
        assert table.index_of(first) == table.index_of(last) == index
        assert len(bucket.nodes) <= K and len(bucket.replacement_nodes) <= MAX_WAITING
        assert all(first <= contact.number <= last for contact in bucket.nodes)
    assert low == 2**160
    assert sum(len(bucket.nodes) for bucket in table.buckets) == len(table)


@given(st.integers(0, 2**32), st.integers(0, 300), st.integers(0, 160), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_table_that_is_filled_at_once_is_the_same_as_one_filled_by_one_after_the_other(
    seed: int, count: int, most: int, again: bool
) -> None:
    own, rng = random.Random(seed).randbytes(20), random.Random(seed + 1)
    number = int.from_bytes(own, "big")
    # As many of each distance as there is room for, or more; near ones, too, as in no random sample.
    lengths = [rng.randrange(160 - most, 160) for _ in range(count)] if most else []
    numbers = [number ^ (1 << length | rng.getrandbits(length)) for length in lengths]
    known = [Contact(each.to_bytes(20, "big"), ("10.0.0.1", 1 + place)) for place, each in enumerate(numbers)]
    known += known[:1] if again else []
    at_once, singly = Table(own), Table(own)
    at_once.fill(known)
    for contact in known:
        singly.add_contact(contact, capped=False)
    assert len(at_once) == len(singly)
    assert [(each.nodes, list(each.replacement_nodes)) for each in at_once.levels] == [
        (each.nodes, list(each.replacement_nodes)) for each in singly.levels
    ]


def test_the_neighbours_of_our_own_id_are_all_kept() -> None:
    known = contacts(2_000, 3)
    table = Table(bytes(20))
    for contact in known:
        table.add_contact(contact)
    assert table.nearest(0, K) == sorted(known, key=lambda contact: contact.number)[:K]


def test_a_live_contact_is_never_evicted_and_a_waiting_one_gets_a_free_place() -> None:
    table = Table(b"\x00" * 20)
    far = [Contact(b"\xff" + bytes([n]) + bytes(18), (f"10.0.0.{n + 1}", 1)) for n in range(120)]
    results = [table.add_contact(contact) for contact in far]
    assert results == [True] * K + [False] * 100
    assert list(table.by_id.values()) == far[:K]
    assert table.remove_contact(far[0]) == far[-1]
    assert far[0].node_id not in table.by_id and len(table) == K - 1
    assert table.remove_contact(far[0]) is None


def test_a_contact_that_is_removed_and_returns_is_taken_in_again() -> None:
    table = Table(bytes(20))
    (contact,) = contacts(1, 5)
    for _ in range(3):
        assert table.add_contact(contact) and table.add_contact(contact)
        assert len(table) == 1
        table.remove_contact(contact)
        assert len(table) == 0 and not table.groups()


def test_a_member_at_a_new_address_takes_its_old_place() -> None:
    table = Table(bytes(20))
    old, new = Contact(b"\x05" * 20, ("10.0.0.1", 1)), Contact(b"\x05" * 20, ("10.0.0.2", 2))
    assert table.add_contact(old) and table.add_contact(new)
    assert table.nearest(0, 5) == [new] and table.groups() == {("10.0.0.2", 2): 1}
    assert table.remove_contact(old) is None and len(table) == 1


def test_one_network_block_fills_no_bucket_and_no_table_in_public_but_may_locally() -> None:
    rng = random.Random(9)
    block = [Contact(rng.randbytes(20), (f"8.8.8.{n}", 4000)) for n in range(1, 200)]
    public, local = Table(bytes(20), profile="public"), Table(bytes(20), profile="local")
    for contact in block:
        public.add_contact(contact)
        local.add_contact(contact)
    assert len(public) <= MAX_GROUP_IN_TABLE
    assert all(len(bucket.nodes) <= 2 for bucket in public.buckets)
    assert len(local) > 5 * K / 2


def test_our_own_id_is_never_a_contact() -> None:
    table = Table(b"\x01" * 20)
    assert not table.add_contact(Contact(b"\x01" * 20, ("10.0.0.1", 1)))


def test_the_library_names_work_too() -> None:
    table = Table(bytes(20))
    known = contacts(50, 1)
    for contact in known:
        table.add_contact(contact)
    first = table.nearest(0, 1)[0]
    assert first not in table.find_neighbors(first, 10)
    assert len(table.find_neighbors(table.node, 10, exclude=first)) == 10
    assert not table.is_new_node(first)


def test_an_exchange_takes_from_crowded_places_and_leaves_the_neighbourhood_alone() -> None:
    rng = random.Random(5)
    table = Table(bytes(20), profile="public")
    crowd = [Contact(bytes((0x80 | n,)) + rng.randbytes(19), (f"12.0.{n // 2}.{n % 2 + 1}", 4_000)) for n in range(20)]
    near = [Contact(bytes(2) + rng.randbytes(18), (f"13.0.{n}.1", 4_000)) for n in range(15)]
    middle = [Contact(bytes((0x40 | n,)) + rng.randbytes(19), (f"14.0.{n}.1", 4_000)) for n in range(20)]
    assert all(table.add_contact(each) for each in [*crowd, *near, *middle])
    assert len(table.far_buckets()) >= 1 and not table.add_contact(Contact(b"\xff" * 20, ("15.0.0.1", 4_000)))
    fresh = [Contact(bytes((0xC0 | n,)) + rng.randbytes(19), (f"15.0.{n}.1", 4_000)) for n in range(30)]
    twins = [Contact(b"\xfe" + rng.randbytes(19), (f"12.0.{n}.9", 4_000)) for n in range(10)]
    before = len(table)
    assert not table.exchange(twins, rng), "who comes from a place that is there already changes nothing"
    assert table.exchange([*twins, *fresh], rng) and len(table) == before
    kept = set(table)
    assert len(kept & set(fresh)) == MAX_EXCHANGED == len(set(crowd) - kept)
    # One of each pair first: nothing is taken from a place that has one contact while another has two.
    assert len({each.address[0].rsplit(".", 1)[0] for each in set(crowd) & kept}) == 10
    assert set(near) <= kept and set(middle) <= kept
