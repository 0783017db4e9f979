"""Hypothesis strategies for queries, in the form that the parser gives them."""

from __future__ import annotations

from hypothesis import strategies as st

from summaries.cost import CostTest
from summaries.filter import Comparison
from summaries.query import Condition, Near, Query, conjunction, disjunction, negation
from summaries.rank import Order

GIB = 1 << 30
operators = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])


def _number(name: str, values: st.SearchStrategy[int]) -> st.SearchStrategy[Comparison]:
    return st.builds(Comparison, st.just(name), operators, values)


def _price(name: str, most: int) -> st.SearchStrategy[Comparison]:
    return st.builds(Comparison, st.just(name), operators, st.integers(0, most), st.sampled_from(["USD", "USD", "EUR"]))


tests: st.SearchStrategy[Condition] = st.one_of(
    _number("cores", st.sampled_from([2, 4, 8, 16, 32, 64, 5])),
    _number("cpu.available", st.integers(0, 64_000)),
    _number("memory.available", st.integers(0, 256).map(lambda n: n * GIB // 2)),
    _number("disk.available", st.integers(0, 1000).map(lambda n: n * GIB)),
    _number("net.available", st.integers(0, 10**9)),
    _number("uptime", st.integers(0, 10**6)),
    _price("price.cpu", 80_000_000),
    _price("price.memory", 10_000_000),
    st.builds(Comparison, st.just("country"), st.sampled_from(["=", "!="]), st.sampled_from(["DE", "GB", "FR"])),
    st.builds(Comparison, st.just("feature"), st.sampled_from(["=", "!="]), st.sampled_from(["gpu", "ssd"])),
    st.builds(Comparison, st.just("os.linux"), operators, st.sampled_from([(6, 1), (5, 10), (6, 1, 3), (6,), (7,)])),
    st.builds(Comparison, st.just("platform.jvm"), operators, st.sampled_from([(11,), (17,)])),
    st.builds(Comparison, st.just("os"), st.sampled_from(["=", "!="]), st.sampled_from(["linux", "debian", "bsd"])),
    st.builds(
        CostTest,
        st.tuples(st.integers(1, 4_000), st.sampled_from([0, GIB, 8 * GIB]), st.sampled_from([0, 50 * GIB])),
        operators,
        st.integers(0, 400_000_000),
        st.sampled_from(["USD", "USD", "EUR"]),
    ),
    st.builds(
        Near,
        st.lists(
            st.tuples(*[st.integers(-100_000, 100_000)] * 3, st.integers(0, 5_000)), min_size=1, max_size=3
        ).map(tuple),
        st.integers(0, 200_000),
    ),
)
conditions: st.SearchStrategy[Condition] = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: conjunction(*parts)),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: disjunction(*parts)),
        inner.map(negation),
    ),
    max_leaves=8,
)


@st.composite
def _queries(draw: st.DrawFn) -> Query:
    where = draw(conditions)
    by = draw(st.sampled_from(["", "", "cores", "uptime", "price.cpu", "latency", "weighted"]))
    order = Order(by, draw(st.booleans()) if by else False)
    if by == "weighted":
        weight = st.integers(0, 3_000)
        weights = draw(st.tuples(*(st.tuples(st.just(name), weight) for name in ("cost", "latency", "price.memory"))))
        order = Order(by, order.descending, amounts=(500, 4 * GIB, 0), weights=weights)
    limit = draw(st.none() | st.integers(1, 40))
    query = Query(where, order, limit)
    if order.is_priced:
        from summaries.parse import parse
        from summaries.query import print_query

        query = parse(print_query(query))  # which decides the currency
    return query


queries = _queries()
