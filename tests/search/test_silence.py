"""Silence makes no network smaller: who hears a part of it says so, whether searching or publishing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from xenonode.search.searching import SearchAnswer
from xenonode.simulation.crowd import NEEDED, Crowd, CrowdHost

PEERS = 5
EVERYTHING = "cores >= 1"
LOST_S = 45.0
"""More than the half minute for which lookups leave alone whom they found silent."""


@contextmanager
def settled(peers: int = PEERS, clients: int = 1) -> Iterator[Crowd]:
    """A small network whose adverts are all durable."""
    with Crowd(seed=11, peers=peers, clients=clients, dimensions=NEEDED) as crowd:
        crowd.run(until=120)
        assert len(crowd.durable) == peers and not any(one.pending for one in crowd.durable.values())
        yield crowd


def part(crowd: Crowd, name: str, heard: set[str]) -> None:
    """From now on this host hears those alone."""
    others = {host.node.host.name for host in [*crowd.servers, *crowd.clients]} - heard - {name}
    crowd.simulation.network.partition("part", {name}, others)


def search(crowd: Crowd, host: CrowdHost) -> SearchAnswer:
    return crowd.run(host.call(lambda each: each.search(EVERYTHING)))


@pytest.mark.parametrize("heard", range(PEERS))
def test_who_hears_one_of_five_does_not_call_its_answer_complete(heard: int) -> None:
    with settled() as crowd:
        part(crowd, "client-0", {f"peer-{heard}"})
        for _ in range(3):  # the first meets silence, the others know of it
            answer = search(crowd, crowd.clients[0])
            assert not answer.complete
        crowd.simulation.network.heal("part")
        crowd.run(until=crowd.now_s + LOST_S)
        answer = search(crowd, crowd.clients[0])
        assert answer.complete and len(answer.servers) == PEERS


@pytest.mark.parametrize("peers", [1, 2, 3])
def test_a_network_is_complete_again_when_its_dead_are_forgotten(peers: int) -> None:
    with settled(peers + 1) as crowd:
        crowd.servers[-1].crash()
        crowd.run(until=crowd.now_s + 3 * crowd.period_ms / 1_000)
        answer = search(crowd, crowd.clients[0])
        assert answer.complete and len(answer.servers) == peers
        assert not any(crowd.durable[server.node.host.name].pending for server in crowd.servers[:-1])


@pytest.mark.parametrize("after_s", [0, 20, 100])
def test_a_server_that_hears_nobody_calls_nothing_durable(after_s: int) -> None:
    with settled() as crowd:
        server = crowd.servers[0]
        part(crowd, "peer-0", set())
        crowd.run(until=crowd.now_s + after_s)
        assert crowd.run(server.node.start(server.publish(), "publish")).pending
        crowd.simulation.network.heal("part")
        crowd.run(until=crowd.now_s + LOST_S)
        assert not crowd.run(server.node.start(server.publish(), "publish")).pending
