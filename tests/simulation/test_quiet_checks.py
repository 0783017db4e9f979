"""What is looked at once all is quiet: who is replacing its advert breaks nothing, whoever's rows are gone does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from xenonode.simulation.crowd import Crowd
from xenonode.simulation.crowd_hosts import CrowdPeer
from xenonode.simulation.invariants.quiet import Truth, adverts_are_in_force, rows_are_held, zones_cover_rows

from .test_crowd import FEW

PERIOD_S, BEGIN_S, LOOK_S = 10.0, 75.0, 0.1


@contextmanager
def published() -> Iterator[Crowd]:
    """Forty peers, somebody of whom replaces its advert at each moment, each having published twice."""
    with Crowd(3, peers=40, dimensions=FEW, period_ms=round(1_000 * PERIOD_S)) as crowd:
        crowd.run(until=BEGIN_S)
        yield crowd


def test_a_world_in_which_somebody_replaces_its_advert_is_whole_at_every_moment() -> None:
    with published() as crowd:
        for look in range(round(PERIOD_S / LOOK_S)):
            crowd.run(until=BEGIN_S + look * LOOK_S)
            truth = Truth(crowd)
            assert rows_are_held(truth) == zones_cover_rows(truth) == ""


def test_rows_that_two_holders_lost_are_missed_though_others_are_being_replaced() -> None:
    with published() as crowd:
        truth = Truth(crowd)
        name, point, _ = next(truth.points())
        lose(truth, point.id)
        assert name in rows_are_held(Truth(crowd))


def test_rows_that_two_holders_lost_are_missed_while_their_advert_is_being_replaced() -> None:
    with published() as crowd:
        truth = Truth(crowd)
        while not any(before for _, _, before in truth.points()):
            crowd.run(until=crowd.now_s + LOOK_S)
            truth = Truth(crowd)
        name, point = next((name, point) for name, point, before in truth.points() if before)
        lose(truth, point.id)
        assert name in rows_are_held(Truth(crowd))


def test_who_came_back_and_advertises_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: CrowdPeer) -> None:
        """Publish no advert."""

    with published() as crowd:
        assert adverts_are_in_force(crowd) == ""
        crowd.servers[7].crash()
        monkeypatch.setattr(CrowdPeer, "publish", nothing)
        crowd.run(crowd.servers[7].restart())
        assert adverts_are_in_force(crowd) == "peer-7: it has published no advert since it began"


def lose(truth: Truth, id: int) -> None:
    """Take all rows of an advert in one trie from two of the holders of each prefix."""
    trie = truth.tries[0]
    nodes = [node for host in truth.hosts for node in host.running.peer.holdings[trie[0]].holder.nodes().values()]
    for key in {key for node in nodes for row, key, _ in node.rows.postings() if row == id}:
        for prefix in truth.prefixes(trie, key):
            for node in truth.nodes(trie, prefix)[:2]:
                node.rows.drop(id, key)
