"""Adverts that stand when a crowd begins: where publications would have put them, found at once, and renewed."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from summaries.schema import ENVIRONMENT, LOCATION
from xenonode.simulation.crowd import SPREAD_S, Crowd
from xenonode.simulation.nearest import Nearest

FEW = ("cores", "memory.available", "disk.available", "net.available", "price.cpu", ENVIRONMENT, LOCATION)
QUERY = "cores >= 4 and price.cpu <= 1 USD/h"
Leaves = dict[str, dict[tuple[int, int], set[tuple[int, int]]]]


def leaves(crowd: Crowd, holders_least: int) -> Leaves:
    """By dimension, which rows so many holders have in which leaf, by id and key."""
    found: Leaves = {}
    for name in FEW:
        held: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for server in crowd.servers:
            assert server.peer is not None
            for prefix, node in server.peer.holdings[name].holder.nodes().items():
                held.setdefault(prefix, []).extend((id, key) for id, key, _ in node.rows.postings())
        found[name] = {
            prefix: {row for row in rows if rows.count(row) >= holders_least} for prefix, rows in held.items() if rows
        }
    return found


@given(st.integers(1, 60), st.integers(0, (1 << 160) - 1), st.integers(1, 5), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_nearest_are_those_of_brute_force(members: int, key: int, count: int, rng: Random) -> None:
    numbers = [rng.getrandbits(160) for _ in range(members)]
    found = [numbers[place] for place in Nearest(numbers)(key, count)]
    assert found == sorted(numbers, key=lambda number: number ^ key)[:count]


@pytest.mark.parametrize("tries", [{}, {"cores": 2}])
def test_adverts_stand_where_publications_put_them(tries: dict[str, int]) -> None:
    with Crowd(5, peers=40, dimensions=FEW, leaf_capacity=8, established=True, tries=tries) as established:
        established.run(established.begin())
        assert established.questions() == 0
        built = leaves(established, 3)
    with Crowd(5, peers=40, dimensions=FEW, leaf_capacity=8, tries=tries) as crowd:
        crowd.run(crowd.begin())
        crowd.run(until=crowd.now_s + 60)
        assert not any(published.pending for published in crowd.durable.values())
        assert built == leaves(crowd, 2)


def test_what_stands_is_found_at_once_renewed_within_a_period_and_outlives_its_holders() -> None:
    with Crowd(6, peers=40, dimensions=FEW, leaf_capacity=8, period_ms=60_000, established=True) as crowd:
        crowd.run(crowd.begin())
        before = {each.server_key: each.advert.seq for each in crowd.adverts()}
        assert len(before) == 40

        def found() -> set[bytes]:
            answer = crowd.run(crowd.clients[0].call(lambda own: own.search(QUERY)))
            assert answer.complete
            return {each.advert.server_key for each in answer.servers}

        def expected() -> set[bytes]:
            return {
                each.server_key
                for each in crowd.adverts()
                if each.advert.cores >= 4 and each.advert.prices.cpu_nano_per_hour <= 1_000_000_000
            }

        assert found() == expected() and len(expected()) > 10
        crowd.run(until=crowd.now_s + 70)
        assert all(each.advert.seq > before[each.server_key] for each in crowd.adverts())
        assert not any(published.pending for published in crowd.durable.values())
        assert found() == expected()
        for server in crowd.servers[::8]:
            server.crash()
        crowd.run(until=crowd.now_s + 200)  # what the dead advertised has ended
        assert found() == expected() and len(crowd.adverts()) == 35


def test_who_advertises_has_met_the_holders_of_its_leaves() -> None:
    with Crowd(8, peers=250, clients=0, dimensions=FEW, leaf_capacity=64, established=True) as crowd:
        crowd.run(crowd.open())
        assert crowd.acquaintances is not None
        lives = crowd.acquaintances._lives

        def strangers() -> int:
            owners = {point.id: verified.server_key for verified, point in crowd.in_force()}
            by_key = {server.signer.public_key: lives[server.udp.pair] for server in crowd.servers}
            pairs = [
                (by_key[owners[id]], lives[holder.udp.pair])
                for holder in crowd.servers
                for name in FEW
                for node in holder.peer.holdings[name].holder.nodes().values()  # type: ignore[union-attr]
                for id, _, _ in node.rows.postings()
            ]
            assert len(pairs) >= 3 * len(FEW) * 250
            return sum(not (one.has_met(other) or other.has_met(one)) for one, other in pairs if one is not other)

        before = crowd.acquaintances
        crowd.acquaintances = None
        crowd.run(crowd.establish())
        assert strangers() > 10
        crowd.acquaintances = before
        crowd.run(crowd.establish())
        assert strangers() == 0


def test_whoever_publishes_before_its_renewal_is_due_renews_a_period_later() -> None:
    with Crowd(7, peers=12, dimensions=FEW, period_ms=60_000, established=True) as crowd:
        crowd.run(crowd.begin())
        numbers = crowd.probe("numbers", 1, lambda: {each.server_key: each.advert.seq for each in crowd.adverts()})
        crowd.run(crowd.publish_all())
        crowd.run(until=crowd.now_s + 70)
        for key in numbers[0][1]:
            changed = [at for (_, before), (at, after) in pairwise(numbers) if before[key] != after[key]]
            later = [(before, after) for before, after in pairwise(changed) if after > SPREAD_S + 2]
            assert later and all(59 <= after - before <= 61 for before, after in later), changed
