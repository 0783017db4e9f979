"""Real peers with several tries of one dimension: a server is published to each, and each is searched and looked at."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from summaries.asks import Ask, Outcome
from summaries.messages import Overview, Refused
from summaries.trie import ROOT
from xenonode.search.looking import look
from xenonode.simulation.crowd import NEEDED, Crowd, CrowdHost, CrowdPeer

from .drawing import found

PEERS, TRIES = 16, 3
NAME = "price.cpu"


@pytest.mark.timeout(600)
def test_each_trie_is_found_whole_and_canaries_blame_nobody() -> None:
    with Crowd(seed=6, peers=PEERS, clients=1, dimensions=NEEDED, leaf_capacity=4, tries={NAME: TRIES}) as crowd:
        crowd.run(until=150)
        published = [server.running.publisher for server in crowd.servers if server.running is not None]
        assert all(not one.pending(one.last.seq) for one in published if one.last is not None)
        assert all(len(one.standing[NAME].tries) == TRIES for one in published)
        assert all(len(one.standing["cores"].tries) == 1 for one in published)
        for salt in range(TRIES):
            assert found(crowd, salt) == PEERS
        rows = [[0] * TRIES for _ in crowd.servers]
        for held, server in zip(rows, crowd.servers):
            assert server.peer is not None
            first = server.peer.holdings[NAME]
            for salt, holding in enumerate((first, *first.salted)):
                held[salt] = sum(len(node.rows) for node in holding.holder.nodes().values())
        assert all(sum(one) >= 2 * PEERS for one in zip(*rows)) and len({tuple(one) for one in zip(*rows)}) == TRIES
        for server in crowd.servers[:4]:
            for seed in range(3):
                seen = crowd.run(server.call(lambda each, seed=seed: _looked(each, seed)))  # type: ignore[misc]
                assert seen and all(seen.values())
        assert isinstance(crowd.run(crowd.clients[0].call(_asked_too_high)), Refused)
        for server in crowd.servers:  # all that other tries have is lost
            assert server.peer is not None
            first = server.peer.holdings[NAME]
            for holding in (first, *first.salted[1:]):
                holding._holder = None
        assert found(crowd, 1) == PEERS


async def _asked_too_high(host: CrowdHost) -> Outcome:
    """What the root's holders say to who asks them for a trie that there is not."""
    assert host.peer is not None
    heard: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    host.peer.asker.carry(Ask(1, NAME, ROOT, Overview(ROOT), salt=TRIES), heard.set_result)
    return await heard


async def _looked(host: CrowdPeer, seed: int) -> dict[bytes, bool]:
    assert host.peer is not None and host.running is not None
    peer, standing = host.peer, host.running.publisher.standing[NAME]
    return await look(peer, peer.asker, peer.endpoint, NAME, standing, Random(seed))
