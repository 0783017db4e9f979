"""Real peers whose roots have several groups of holders: each group answers as the root's own holders do."""

from __future__ import annotations

from random import Random

import pytest

from summaries.trie import ROOT
from xenonode.search.looking import look
from xenonode.simulation.crowd import NEEDED, Crowd, CrowdPeer

from .drawing import found

PEERS, GROUPS = 24, 3
NAME = "price.cpu"


def ready(crowd: Crowd) -> set[bytes]:
    """The ids of peers whose copy of the root would answer."""
    found = set()
    for server in crowd.servers:
        assert server.peer is not None
        node = server.peer.holdings[NAME].holder.copying.node
        if node is not None and node.ready:
            found.add(server.peer.endpoint.overlay(NAME).node_id)
    return found


@pytest.mark.timeout(600)
def test_every_group_answers_canaries_blame_nobody_and_without_copies_the_root_itself_is_read() -> None:
    with Crowd(seed=6, peers=PEERS, clients=1, dimensions=NEEDED, leaf_capacity=4, root_groups=GROUPS) as crowd:
        crowd.run(until=150)
        copies = ready(crowd)
        for group in range(1, GROUPS):
            holders = crowd.run(crowd.servers[0].call(lambda each, group=group: _holders(each, group)))
            assert set(holders) <= copies and len(holders) == 3
            assert found(crowd, group) == PEERS
        for server in crowd.servers[:6]:
            seen = crowd.run(server.call(lambda each: _looked(each)))
            assert seen and all(seen.values())
        for server in crowd.servers:  # as where the root has rows of its own
            assert server.peer is not None
            copying = server.peer.holdings[NAME].holder.copying
            copying._node = copying._learning = None
        assert found(crowd, 1) == PEERS


async def _holders(host: CrowdPeer, group: int) -> list[bytes]:
    assert host.peer is not None
    placement = await host.peer.placement(NAME)
    return [contact.node_id for contact in await placement.find(ROOT, group)]


async def _looked(host: CrowdPeer) -> dict[bytes, bool]:
    assert host.peer is not None and host.running is not None
    peer, standing = host.peer, host.running.publisher.standing[NAME]
    return await look(peer, peer.asker, peer.endpoint, NAME, standing, Random(1), GROUPS)
