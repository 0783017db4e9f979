"""Whom a search asks for one trie node, wherever among the replicas it begins."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summaries.answer import named
from summaries.asks import REPLICAS
from summaries.trie import ROOT, Prefix
from summaries.visit import Source, Visit, sources_of


@pytest.mark.parametrize("turn", range(REPLICAS))
@pytest.mark.parametrize("there_are", range(1, REPLICAS + 1))
def test_a_small_network_is_read_as_far_as_it_goes(there_are: int, turn: int) -> None:
    visit, asked = Visit(0, ROOT), list[int]()
    visit.prepare(True, turn)
    while asking := visit.next_sources():
        for source, digest_only in asking:
            asked.append(source.replica)
            if source.replica < there_are:
                for whole in visit.answered(source, 7, digest_only):
                    visit.answered(whole, 7, False)
            else:
                visit.miss(source, digest_only, absent=True)
    assert visit.is_over and visit.is_complete
    assert len([replica for replica in asked if replica < there_are]) == min(there_are, 2)
    assert len(asked) == len(set(asked))


def test_no_further_node_to_ask_does_not_stand_in_for_holders_that_are_known() -> None:
    visit = Visit(0, ROOT, known_holders=6, holders=(b"first",))
    visit.prepare(True, 0)
    heard = 0
    while asking := visit.next_sources():
        for source, digest_only in asking:
            if heard == 3:  # the one that is named, and two that were found
                visit.miss(source, digest_only, absent=True)
                continue
            heard += 1
            visit.answered(source, 7, digest_only)
    assert visit.is_over and not visit.is_complete


@pytest.mark.parametrize("known, most, told", [(1, 2, 1), (4, 2, 2), (5, 2, 5), (6, 1, 6)])
def test_where_former_holders_are_known_all_are_named(known: int, most: int, told: int) -> None:
    holders = [bytes([number]) for number in range(known)]
    assert len(set(named(holders, ROOT, b"reader", most))) == told


@pytest.mark.parametrize("named", [(), (b"one", b"two"), (b"one", b"two", b"three")])
def test_searches_spread_evenly_over_whom_they_may_ask(named: tuple[bytes, ...]) -> None:
    shares: Counter[Source] = Counter()
    for turn in range(1_200):
        shares[sources_of(Prefix(5, 4), named, turn)[0]] += 1
    there_are = len(named) or REPLICAS
    assert len(shares) == there_are
    assert all(abs(share - 1_200 / there_are) <= 120 / there_are for share in shares.values())


@given(st.integers(0, 1 << 32), st.integers(0, 3), st.integers(3, 7))
def test_everybody_has_a_chance_and_those_who_are_named_come_first(turn: int, named: int, replicas: int) -> None:
    holders = [bytes([one]) for one in range(named)]
    sources = sources_of(Prefix(5, 4), holders, turn, replicas)
    assert {source.holder for source in sources[:named]} == set(holders)
    assert sorted(source.replica for source in sources[named:]) == list(range(replicas))
