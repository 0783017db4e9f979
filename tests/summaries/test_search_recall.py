"""A search's answer against brute force over every published advert."""

from __future__ import annotations

from functools import cache
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest import MonkeyPatch
from summaries_queries import queries
from summaries_world import World, attributes

from summaries import execute
from summaries.asks import ABSENT, Ask, Probe
from summaries.execute import Search, SearchResult
from summaries.idset import IdSet
from summaries.messages import Accepted, AdvertIs, Answer, Child, NotReady, Row
from summaries.parse import parse
from summaries.query import Query, matches
from summaries.schema import Schema
from summaries.trie import ROOT, Prefix

Values = dict[int, dict[str, object]]


@cache
def deep() -> tuple[World, Values]:
    """2,000 adverts in one trie, capacity 32: three levels of aggregation points and more."""
    return _world(2_000, 24, ("environment",), 32)


@cache
def wide() -> tuple[World, Values]:
    """100 adverts in all eleven tries, capacity 8."""
    return _world(100, 6, None, 8)


def _world(adverts: int, nodes: int, dimensions: tuple[str, ...] | None, capacity: int) -> tuple[World, Values]:
    random = Random(7)
    values = {random.getrandbits(64): attributes(random) for _ in range(adverts)}
    schema = Schema.from_sample(list(values.values())[:500], most=256)  # type: ignore[arg-type]
    world = World(11, nodes, schema, capacity=capacity)
    raws = [world.advert(id, 1, one, ttl_s=100_000) for id, one in values.items()]
    names = list(dimensions) if dimensions else [dimension.name for dimension in schema.dimensions]
    made = world.publish_all(raws, names, 80)
    assert all(one.durable for one in made)
    world.run(30_000)  # a relaxed read asks one replica: it promises everything only once they agree
    return world, values


def check(world: World, values: Values, query: Query, **options: object) -> SearchResult:
    query = query.resolve({}, (0, 0, 0, 1_000))
    result = world.search(query, **options)
    wanted = sorted((query.order.rank(one), id) for id, one in values.items() if matches(query, one))  # type: ignore[arg-type]
    found = [(match.rank, match.id) for match in result.matches]
    assert result.complete
    if query.limit is None or query.order.by:
        assert found == wanted[: query.limit]
    else:
        assert set(found) <= set(wanted) and len(found) == min(query.limit, len(wanted))
    assert result.least_total <= len(wanted) <= max(result.most_total, result.least_total) or query.limit
    return result


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(queries, st.booleans())
def test_recall_is_whole_in_a_trie_of_three_levels(query: Query, strict: bool) -> None:
    world, values = deep()
    check(world, values, query, strict=strict, dimension="environment")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(queries, st.sampled_from([None, "cores", "price.cpu", "location", "memory.available"]))
def test_the_answer_does_not_depend_on_the_plan(query: Query, dimension: str | None) -> None:
    world, values = wide()
    check(world, values, query, dimension=dimension)


def test_the_trie_is_three_levels_deep() -> None:
    world, _ = deep()
    anchors = {prefix.length for holder in world.holders.values() for prefix, node in holder.nodes().items()
               if node.entries}  # fmt: skip
    assert {0, 6, 12} <= anchors


def test_every_claimed_zone_covers_every_row_below_it() -> None:
    world, _ = deep()
    for holder in world.holders.values():
        for prefix, node in holder.nodes().items():
            for child, zone, holders in node.children():
                for name in holders:
                    below = world.holders[name, holder.dimension].nodes().get(child)
                    assert below is None or zone.covers(below.claimed), (prefix, child)


def test_a_limit_reads_few_nodes_and_probes_only_what_it_returns() -> None:
    world, values = wide()
    result = check(world, values, parse("cores >= 4 order by price.cpu limit 3", currency="USD"))
    everything = check(world, values, parse("cores >= 4"))
    assert result.counts.probes == 3 and result.counts.rejected == 0
    assert result.counts.leaves < everything.counts.leaves


def test_without_a_limit_what_has_much_below_it_is_read_first(monkeypatch: MonkeyPatch) -> None:
    world, _ = deep()
    monkeypatch.setattr(execute, "MAX_READS", 4)
    search = Search(world.schema, parse("cores >= 1"), lambda raw, now_ms: None, strict=False, dimension="environment")
    (root,) = search.start(0)
    points, leaves = [Prefix(bits, 6) for bits in (3, 40)], [Prefix(bits, 5) for bits in range(10, 16)]
    children = [Child(one, 0, 9, 9, 3, (b"",)) for one in points] + [Child(one, 0, 1, 1, 3, (b"",)) for one in leaves]
    assert isinstance(root, Ask)
    asked = search.answered(root, Answer(ROOT, tuple(children), (), 0, 0, len(children), 1), 0)
    assert [ask.prefix for ask in asked if isinstance(ask, Ask)] == [*points, *leaves[:2]]


def test_ids_combine_into_semi_joins() -> None:
    world, values = wide()
    gpu = check(world, values, parse('feature = "gpu"')).ids()
    big = check(world, values, parse("cores >= 16")).ids()
    both = check(world, values, parse('feature = "gpu" and cores >= 16')).ids()
    assert gpu & big == both
    without = world.search(parse("cores >= 16"), exclude=gpu)
    assert without.ids() == big - gpu
    assert isinstance(gpu | big, IdSet)


def test_a_server_that_changed_its_mind_is_no_false_result() -> None:
    world, values = _world(30, 4, ("cores",), 8)
    id, old = next((id, one) for id, one in values.items() if one["cores"] == 8)
    world.advert(id, 2, old | {"cores": 4})  # its server answers with this, the trie still has the old one
    result = world.search(parse("cores = 8"), dimension="cores")
    assert id not in result.ids() and result.counts.rejected == 1


def test_silent_servers_are_shown_by_their_leaf_and_are_not_lost() -> None:
    world, values = _world(30, 4, ("cores",), 8)
    world.current.clear()
    check(world, values, parse("cores >= 8"), dimension="cores")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), queries)
def test_lying_holders_cannot_keep_a_search_going_or_put_words_in_its_mouth(seed: int, query: Query) -> None:
    random = Random(seed)
    schema = wide()[0].schema
    search = Search(schema, query.resolve({}, (0, 0, 0, 0)), lambda raw, now: None, max_rpcs=300)
    work = list(search.start(1_000))
    asked = 0
    while work:
        ask = work.pop(random.randrange(len(work)))
        asked += 1
        if isinstance(ask, Probe):
            work += search.probed(ask, random.choice([None, b"", b"junk"]), 1_000)
            continue
        length = min(ask.prefix.length + random.randrange(1, 7), 64)
        below = Prefix(random.getrandbits(length) if length else 0, length)
        if random.random() < 0.8 and length > ask.prefix.length:
            low = length - ask.prefix.length
            below = Prefix(ask.prefix.bits << low | random.getrandbits(low), length)
        child = Child(below, random.randrange(-5, 5), 9, 9, random.randrange(9), (b"h",) * random.randrange(3))
        row = Row(random.getrandbits(4), random.getrandbits(8), random.randrange(9), b"c")
        total, mark = random.choice([1, 4, 9, 2**20]), random.randrange(3)
        reply = random.choice(
            [
                Answer(ask.prefix, (child,) * 3, (row,), 5, 0, total, mark),
                Answer(ask.prefix, (child,), (), 5, 0, 1, 0),
                Answer(ask.prefix, (), (), 5, 0, total, mark),
                Answer(ROOT, (child,), (row,), 5, 0, total, mark),
                NotReady(5),
                None,
                ABSENT,
                AdvertIs(b"junk"),
                Accepted(),
            ]
        )
        work += search.answered(ask, reply, 1_000)
    assert search.finished and not search.result.matches
    assert asked < 3_000
