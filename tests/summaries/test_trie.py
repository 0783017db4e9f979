from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from summaries_world import attributes

from summaries.errors import MessageError
from summaries.point import Point
from summaries.schema import Schema
from summaries.trie import (
    ROOT,
    Prefix,
    cover,
    destination,
    is_near,
    keys_of,
    needed_splits,
    path_bits,
    split_bit,
    trie_key,
)

SCHEMA = Schema.from_sample([attributes(Random(seed)) for seed in range(200)])  # type: ignore[misc]
keys = st.integers(0, 2**64 - 1)


@given(keys, st.integers(0, 64))
def test_a_prefix_contains_its_keys_and_knows_its_parent(key: int, length: int) -> None:
    prefix = Prefix(key >> (64 - length), length)
    assert prefix.contains(key) and prefix.first <= key <= prefix.last
    parent = prefix.parent
    if length:
        assert parent is not None and parent.is_anchor and parent.covers(prefix) and 1 <= length - parent.length <= 6
        assert destination(parent, path_bits(prefix), key).covers(prefix)
        assert destination(parent, path_bits(prefix), key) == prefix or prefix.length == 64
    else:
        assert parent is None


@given(st.lists(keys, max_size=60, unique=True), st.integers(1, 8))
def test_splits_leave_no_child_above_capacity_within_a_level(found: list[int], capacity: int) -> None:
    bits = needed_splits(ROOT, found, capacity)
    leaves: dict[Prefix, int] = {}
    for key in found:
        where = destination(ROOT, bits, key)
        leaves[where] = leaves.get(where, 0) + 1
    assert all(count <= capacity or where.length == 6 for where, count in leaves.items())


@given(st.lists(keys, min_size=2, max_size=40, unique=True), st.data())
def test_splits_of_fewer_rows_are_among_those_of_more(found: list[int], data: st.DataObject) -> None:
    some = data.draw(st.lists(st.sampled_from(found), unique=True))
    fewer, more = needed_splits(ROOT, some, 4), needed_splits(ROOT, found, 4)
    assert fewer & ~more == 0


@given(keys, keys)
def test_a_cover_holds_exactly_its_range(a: int, b: int) -> None:
    first, last = min(a, b), max(a, b)
    found = cover(first, last)
    assert found[0].first == first and found[-1].last == last and len(found) <= 126
    assert all(one.last + 1 == two.first for one, two in pairwise(found))


def test_no_two_trie_nodes_share_a_key() -> None:
    prefixes = [ROOT, Prefix(0, 1), Prefix(0, 2), Prefix(1, 1), Prefix(1, 2), Prefix(0, 64)]
    made = {trie_key(net, epoch, name, p) for net in (b"a", b"ab") for epoch in (1, 2) for name in ("c", "bc")
            for p in prefixes}  # fmt: skip
    assert len(made) == 2 * 2 * 2 * len(prefixes) and all(len(key) == 20 for key in made)
    assert split_bit(Prefix(0, 6)) == 1 and split_bit(Prefix(1, 1)) == 4


def test_impossible_prefixes_are_refused() -> None:
    for bits, length in ((2, 1), (0, 65), (-1, 3), (0, -1)):
        with pytest.raises(MessageError):
            Prefix(bits, length)


def test_every_dimension_gives_keys_and_a_small_change_keeps_them_near() -> None:
    values = attributes(Random(4))
    one = Point.from_attributes(SCHEMA, id=7, seq=1, expires_s=1, attributes=values)  # type: ignore[arg-type]
    for dimension in SCHEMA.dimensions:
        found = keys_of(SCHEMA, dimension.name, one)
        assert len(found) == (len({dimension.environment_code(e) for e in one.environments})
                              if dimension.name == "environment" else 1)  # fmt: skip
        assert all(0 <= key < 1 << 64 and is_near(dimension, key, key) for key in found)
    axis = SCHEMA.dimension("price.cpu")
    here = keys_of(SCHEMA, "price.cpu", one)[0]
    far = dict(values) | {"price.cpu": axis.greatest(250)}
    other = Point.from_attributes(SCHEMA, id=7, seq=1, expires_s=1, attributes=far)  # type: ignore[arg-type]
    assert not is_near(axis, here, keys_of(SCHEMA, "price.cpu", other)[0])
