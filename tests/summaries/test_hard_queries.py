"""Queries that ask for nothing, for everything, or for too much work."""

from __future__ import annotations

import tracemalloc
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from summaries_queries import conditions
from summaries_world import attributes

from summaries.candidates import MAX_CANDIDATES, Candidates, Page
from summaries.execute import Search
from summaries.idset import IdSet
from summaries.impossible import is_impossible
from summaries.messages import Row
from summaries.parse import QueryError, parse
from summaries.query import Condition, Query, filter_of, matches
from summaries.rank import Order
from summaries.result import Tally
from summaries.schema import Schema
from summaries.trie import ROOT
from summaries.visit import Source

SAMPLE = [attributes(Random(seed)) for seed in range(200)]
SCHEMA = Schema.from_sample(SAMPLE, most=128)  # type: ignore[arg-type]


NESTED = ("(" * 10_000 + "cores >= 1" + ")" * 10_000, "(" * 10_000, "not " * 3_000 + "cores = 1")


@pytest.mark.parametrize("text", NESTED)
def test_ten_thousand_levels_are_refused_in_one_look(text: str) -> None:
    with pytest.raises(QueryError, match=r"nested deeper than|at most"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "cores >= 5 and cores <= 3",
        "cores = 5 and cores != 5",
        "memory.available > 1 GiB and not memory.available > 512 MiB",
        "price.cpu <= 1 USD/h and price.cpu >= 2 USD/h",
        "price.cpu <= 1 USD/h and price.memory <= 1 EUR/GiB/h",
        'currency = "EUR" and price.cpu <= 1 USD/h',
        'country = "US" and country = "DE"',
        'owner = "a" and not owner = "a"',
        'feature = "gpu" and not feature = "gpu"',
        "near(coord(0, 0, 0, 0), 10 ms) and near(coord(100, 0, 0, 0), 10 ms)",
        "near(coord(0, 0, 0, 0), coord(100, 0, 0, 0), 40 ms)",
        "cores < 0 or cores >= 5 and cores <= 3",
    ],
)
def test_a_contradiction_is_answered_at_once(text: str) -> None:
    search = Search(SCHEMA, parse(text), lambda raw, now: None)
    assert search.start(0) == [] and search.finished
    assert search.result.complete and not search.result.matches and search.result.most_total == 0


@pytest.mark.parametrize(
    "text",
    [
        "cores >= 3 and cores <= 3",
        'feature = "gpu" and feature = "ssd"',
        "os.linux >= 6 and os.linux < 6",
        'country != "US" and country != "DE"',
        "near(coord(0, 0, 0, 0), 50 ms) and near(coord(100, 0, 0, 0), 50 ms)",
        "cores >= 5 and cores <= 3 or cores = 4",
    ],
)
def test_what_can_be_is_asked_for(text: str) -> None:
    assert Search(SCHEMA, parse(text), lambda raw, now: None).start(0)


@settings(max_examples=150, deadline=None)
@given(conditions)
def test_no_advert_meets_what_is_called_impossible(where: Condition) -> None:
    query = Query(where, Order(), None)
    terms = filter_of(query)[0].terms
    if all(is_impossible(term) for term in terms):
        assert not any(matches(query, values) for values in SAMPLE)  # type: ignore[arg-type]


def test_a_query_for_everything_takes_bounded_memory_and_says_that_it_was_cut() -> None:
    assert MAX_CANDIDATES == 100_000
    candidates = Candidates(
        parse("cores >= 0"), lambda raw, now: None, "probe", IdSet(), None, Tally(), count(1), []
    )
    tracemalloc.start()
    whole, some = 0, 20_000
    for start in range(0, some, 100):
        rows = tuple(Row(number, 1, 0, b"contact-of-26-bytes-%06d" % number) for number in range(start, start + 100))
        whole += candidates.offer(Page("cores", ROOT, 1, Source(None)), rows)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert whole == some // 100
    assert used / some * MAX_CANDIDATES < 160 * 2**20  # however many adverts there are


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5))
def test_beyond_the_most_candidates_nothing_more_is_taken(beyond: int) -> None:
    candidates = Candidates(
        parse("cores >= 0 limit 5"), lambda raw, now: None, "none", IdSet(), None, Tally(), count(1), []
    )
    candidates._candidates = dict.fromkeys(range(-MAX_CANDIDATES, 0))  # type: ignore[arg-type]
    rows = tuple(Row(number, 1, 0, b"c") for number in range(beyond))
    assert not candidates.offer(Page("cores", ROOT, 1, Source(None)), rows)
    assert candidates.count == MAX_CANDIDATES
