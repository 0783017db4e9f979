from __future__ import annotations

import functools
import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from summaries_world import attributes

from summaries.attributes import LARGEST, version_tuple
from summaries.dimension import Dimension, equi_depth
from summaries.errors import MessageError
from summaries.filter import Comparison, CompiledFilter, Filter, Within, closest, furthest
from summaries.point import Point, Rows, unpack_rows
from summaries.rank import Order
from summaries.schema import Schema
from summaries.zone import Zone, word_bit

SAMPLE = [attributes(Random(1)) for _ in range(1)] + [attributes(Random(seed)) for seed in range(300)]
SCHEMA = Schema.from_sample(SAMPLE, most=128)  # type: ignore[arg-type]


def point(seed: int, id: int = 1, **changes: object) -> Point:
    values = attributes(Random(seed)) | changes
    return Point.from_attributes(SCHEMA, id=id, seq=1, expires_s=100, attributes=values)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=300), st.integers(0, 2**41), st.integers(0, 2**41))
def test_codes_are_monotone_and_bins_hold_their_values(sample: list[int], a: int, b: int) -> None:
    axis = Dimension("cores", "", "ordered", equi_depth(sample, 64))
    low, high = sorted((a, b))
    assert axis.code(low) <= axis.code(high) < 4096
    assert axis.least(axis.bin(low)) <= low <= axis.greatest(axis.bin(low))


def test_equi_depth_codes_are_used_equally() -> None:
    random = Random(3)
    sample = [int(random.lognormvariate(15, 2)) for _ in range(20_000)]
    axis = Dimension("cores", "", "ordered", equi_depth(sample))
    bins = [0] * 256
    for value in sample:
        bins[axis.bin(value)] += 1
    assert max(bins) < 2 * len(sample) / 256


def test_a_schema_survives_its_fields_and_refuses_others() -> None:
    assert Schema.from_fields(SCHEMA.to_fields()) == SCHEMA
    for junk in (None, [], [1], [1, 2], [-1, []], [1, [[1, 2, 3, 4, 5]]], [1, [["a", "", "ordered", [2, 1], []]]]):
        with pytest.raises(MessageError):
            Schema.from_fields(junk)


@pytest.mark.parametrize(
    "changes",
    [
        {"cpu.available": 10**9},
        {"price.cpu": -1},
        {"price.cpu": 1 << 63},
        {"cores": 1.5},
        {"location": (0, 0, 0)},
        {"location": (3_000_000, 0, 0, 0)},
        {"location": (0, 0, 0, -1)},
        {"environments": (("shell", "x", "1"),)},
        {"unheard": 1},
        {"country": "x" * 200},
    ],
)
def test_impossible_adverts_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        point(1, **changes)


def test_the_last_sequence_number_is_refused() -> None:
    with pytest.raises(MessageError):
        Point(1, 2**64 - 1, 1, {})


@settings(max_examples=60)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
def test_a_zone_is_never_narrower_than_its_rows(seeds: list[int]) -> None:
    rows = Rows(SCHEMA)
    points = [point(seed, id=seed) for seed in seeds]
    for one in points:
        rows.put(one, one.id, b"")
    zone = Zone.of_rows(rows)
    single = [Zone.of_point(SCHEMA, one) for one in points]
    assert all(zone.covers(one) for one in single)
    united = functools.reduce(Zone.union, single, Zone.empty(SCHEMA))
    assert (united.lows, united.highs, united.box, united.environments, united.price, united.height) == (
        zone.lows, zone.highs, zone.box, zone.environments, zone.price, zone.height,
    )  # fmt: skip
    assert zone.covers(Zone.empty(SCHEMA))


def test_the_least_price_is_exact_where_rows_round_prices_alike() -> None:
    rows, prices = Rows(SCHEMA), (100_000_003, 100_000_001, 100_000_002, 200_000_000)
    for number, price in enumerate(prices):
        rows.put(point(number, id=number, **{"price.cpu": price}), number, b"")
    column = rows.array["attributes"][:, SCHEMA.column["price.cpu"]]
    assert len(set(column.tolist())) == 2 and Zone.of_rows(rows).price == min(prices)


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.data())
def test_what_matches_passes_its_zone_and_its_row_filter(seed: int, data: st.DataObject) -> None:
    one = point(seed)
    name = data.draw(st.sampled_from(sorted(SCHEMA.column)))
    value = one.number(name) + data.draw(st.integers(-3, 3))
    operator = data.draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">="]))
    host = (*(data.draw(st.integers(-10**5, 10**5)) for _ in range(3)), 100)
    tests = (
        Comparison(name, operator, value, "USD" if name.startswith("price") else "", data.draw(st.booleans())),
        Within((host,), furthest([host], one.location) + data.draw(st.integers(-1, 1))),
    )
    filter_ = Filter((tests,))
    rows = Rows(SCHEMA)
    rows.put(one, 0, b"")
    zone = Zone.of_rows(rows)
    compiled = CompiledFilter(SCHEMA, filter_)
    matching = filter_.matches(one.attributes)
    assert compiled.select(rows) == ([0] if matching else [])
    assert compiled.passes(zone) or not matching
    assert closest([host], zone) <= furthest([host], one.location)
    assert Filter.from_fields(filter_.to_fields()) == filter_


@given(
    st.integers(0, 10**6),
    st.sampled_from(["price.cpu", "cores", "uptime", "cost", "latency", "memory.available"]),
    st.booleans(),
)
def test_no_point_ranks_below_its_zone(seed: int, by: str, descending: bool) -> None:
    order = Order(by, descending, "USD", (250, 1 << 28, 1 << 30), ((5, 6, 7, 8),) if by == "latency" else ())
    one = point(seed)
    assert order.bound(SCHEMA, Zone.of_point(SCHEMA, one)) <= order.rank(one.attributes)
    assert Order.from_fields(order.to_fields()) == order


def test_what_all_servers_have_hides_few_countries_from_a_zone() -> None:
    features = ("x86_64", "arm64", "general", "compute", "memory", "storage", "local-disk", "accelerated")
    usual = functools.reduce(lambda bits, word: bits | word_bit("feature", word), features, 0)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    countries = [word_bit("country", one + other) for one in letters for other in letters]
    assert sum(bool(one & usual) for one in countries) < 0.05 * len(countries)


def test_rows_keep_their_columns_through_replacement_and_removal() -> None:
    rows, random, kept = Rows(SCHEMA), Random(9), {}
    for step in range(400):
        one = point(step % 50, id=step % 40)
        if random.random() < 0.4:
            rows.drop(one.id, one.id)
            kept.pop(one.id, None)
        else:
            rows.put(one, one.id, str(step).encode())
            kept[one.id] = (one, str(step).encode())
    assert {id: (rows.find(id, id), rows.raw_of(id)) for id in kept} == kept
    assert len(rows) == len(kept)
    packed = unpack_rows(SCHEMA, rows.to_bytes())
    assert sorted(packed["id"].tolist()) == sorted(kept)
    for row in packed:
        one = kept[int(row["id"])][0]
        assert float(row["attributes"][0]) == pytest.approx(one.number(SCHEMA.ordered[0].name))


def test_a_leaf_that_handed_its_rows_down_gives_their_room_back_and_keeps_what_is_left() -> None:
    rows, all_points = Rows(SCHEMA), [point(number % 50, id=number) for number in range(1_000)]
    for one in all_points:
        rows.put(one, one.id, b"raw %d" % one.id)
    full = rows.array.base.nbytes, sys.getsizeof(rows._places)
    for one in all_points[3:]:
        rows.drop(one.id, one.id)
    empty = rows.array.base.nbytes, sys.getsizeof(rows._places)
    assert empty[0] * 50 < full[0] and empty[1] * 50 < full[1]
    assert [rows.find(number, number) for number in range(4)] == [*all_points[:3], None]
    assert sorted(unpack_rows(SCHEMA, rows.to_bytes())["id"].tolist()) == [0, 1, 2]
    rows.put(all_points[9], 9, b"again")
    assert len(rows) == 4 and rows.raw_of(9) == b"again"


def test_versions_compare_by_their_numbers() -> None:
    assert version_tuple("6.10") > version_tuple("6.9") > version_tuple("6") == version_tuple("6.0.0")
    assert max(version_tuple("9" * 60)) < LARGEST
