"""Remembered roots change no answer; an explanation's bounds contain the truth."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from summaries_queries import queries
from summaries_world import World
from test_search_recall import check, deep, wide

from summaries.explain import describe, why_empty
from summaries.packing import Packable, pack_rows, row_width, unpack_rows
from summaries.parse import parse
from summaries.plan import constrained
from summaries.query import Query, filter_of, matches
from summaries.roots import ROOT_LIFE_MS, RootReading, RootView

rows = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 2), st.integers(1 - 2**63, 2**63 - 1), st.binary(max_size=38)
    ),
    max_size=30,
)


def read_roots(world: World, names: tuple[str, ...]) -> dict[str, RootView]:
    views = {}
    for name in names:
        reading = RootReading(name)

        def send(asks: list, reading: RootReading = reading) -> None:  # type: ignore[type-arg]
            for ask in asks:
                world.ask(ask, lambda reply, ask=ask: send(reading.answered(ask, reply)))

        send(reading.start(world.now_ms))
        world.run(until=lambda reading=reading: reading.finished)  # type: ignore[misc]
        if reading.view is not None:
            views[name] = reading.view
    return views


@given(rows)
def test_packed_rows_are_unpacked_alike_and_no_wider_than_said(packable: list[Packable]) -> None:
    packed = pack_rows(packable)
    assert unpack_rows(packed, 100) == packable
    assert not packable or len(packed) == 19 + len(packable) * row_width(packable)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(queries, st.booleans())
def test_remembered_roots_change_no_answer(query: Query, strict: bool) -> None:
    world, values = wide()
    resolved = query.resolve({}, (0, 0, 0, 1_000))
    roots = read_roots(world, constrained(world.schema, resolved))
    check(world, values, query, strict=strict, roots=roots)


def test_a_strict_search_notices_what_a_remembered_root_lacks() -> None:
    world, values = deep()
    view = read_roots(world, ("environment",))["environment"]
    old = RootView("environment", view.read_ms, view.children[:3])
    check(world, values, parse("cores >= 4"), dimension="environment", roots={"environment": old}, strict=True)


def test_an_old_root_is_not_believed() -> None:
    world, _ = deep()
    view = read_roots(world, ("environment",))["environment"]
    assert view.is_fresh(world.now_ms) and not view.is_fresh(view.read_ms + ROOT_LIFE_MS)


def test_the_bounds_of_a_constraint_and_of_a_relaxation_contain_the_truth() -> None:
    world, values = wide()
    query = parse("cores >= 64 and cpu.available >= 64000 ms/s and memory.available >= 250 GiB")
    result = check(world, values, query)
    assert not result.matches
    schema = world.schema
    counts, relaxations = why_empty(schema, filter_of(query)[0].terms, read_roots(world, constrained(schema, query)))
    assert counts and relaxations
    for one in counts:
        truth = sum(matches(parse(one.constraint), attributes) for attributes in values.values())  # type: ignore[arg-type]
        assert one.least <= truth <= one.most, one
    assert [one.share for one in relaxations] == sorted(one.share for one in relaxations)
    for relaxed in relaxations:
        truth = sum(matches(parse(relaxed.to), attributes) for attributes in values.values())  # type: ignore[arg-type]
        assert truth >= 1, relaxed  # whoever made it possible meets it


def test_of_alternatives_one_that_is_relaxed_is_enough() -> None:
    world, values = wide()
    query = parse('cores >= 64 and memory.available >= 900 GiB or country = "DE" and feature = "tape"')
    assert not check(world, values, query).matches
    schema = world.schema
    counts, relaxations = why_empty(schema, filter_of(query)[0].terms, read_roots(world, constrained(schema, query)))
    assert [one.constraint for one in counts] == [
        "cores >= 64", "memory.available >= 900 GiB", 'country = "DE"', 'feature = "tape"',
    ]  # fmt: skip
    germans = sum(one["country"] == "DE" for one in values.values())
    [no_tape] = [one for one in relaxations if one.constraint == 'feature = "tape"']
    assert not no_tape.to and no_tape.most >= germans
    both = parse('region = "moon" and cores >= 64 or region = "moon" and cores < 64')
    _, relaxations = why_empty(schema, filter_of(both)[0].terms, read_roots(world, constrained(schema, both)))
    [anywhere] = [one for one in relaxations if one.constraint == 'region = "moon"']
    assert anywhere.most >= len(values)


def test_an_explanation_names_the_plan_and_every_node_that_was_read() -> None:
    from summaries.execute import Search

    world, _ = wide()
    query = parse("cores >= 4")
    search = Search(world.schema, query, world.verify, dimension="cores")
    work = search.start(world.now_ms)
    while work:
        ask = work.pop()
        replies: list = []  # type: ignore[type-arg]
        if hasattr(ask, "message"):
            world.ask(ask, replies.append)
            world.run(until=lambda replies=replies: bool(replies))  # type: ignore[misc]
            work += search.answered(ask, replies[0], world.now_ms)
        else:
            work += search.probed(ask, world.probe(ask), world.now_ms)
    explanation = search.explanation
    assert explanation.plan == (("cores", describe(filter_of(query)[0])),)
    assert len(explanation.nodes) == search.result.counts.aggregation_points + search.result.counts.leaves
