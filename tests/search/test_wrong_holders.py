"""Who is not among a root's three nearest stands for none of them: else searches are called complete that miss rows."""

from __future__ import annotations

import asyncio

import pytest

from summaries.holder import Push
from summaries.messages import Overview
from summaries.trie import ROOT
from xenonode.search.holding import monotonic_ms
from xenonode.search.searching import SearchAnswer
from xenonode.simulation.crowd import NEEDED, Crowd, CrowdPeer

NAME = "price.cpu"
EVERYTHING = "price.cpu >= 0 USD/h order by price.cpu"


def root_holders(crowd: Crowd) -> list[CrowdPeer]:
    """The three peers nearest to the root's key, of all there are."""
    placement = crowd.servers[0].peer and crowd.servers[0].peer.joined(NAME)
    assert placement is not None
    key = int.from_bytes(placement._key_of(ROOT, 0), "big")

    def distance(server: CrowdPeer) -> int:
        assert server.peer is not None
        return int.from_bytes(server.peer.endpoint.overlay(NAME).node_id, "big") ^ key

    return sorted(crowd.servers, key=distance)[:3]


def cut(crowd: Crowd, name: str, others: list[CrowdPeer], heal_s: float) -> None:
    """For so long this host does not hear those."""
    network = crowd.simulation.network
    network.partition("cut", {name}, {one.node.host.name for one in others if one.node.host.name != name})

    async def heal() -> None:
        await asyncio.sleep(heal_s)
        network.heal("cut")

    crowd.servers[-1].node.start(heal(), "heal")


def search(crowd: Crowd) -> SearchAnswer:
    return crowd.run(crowd.clients[0].call(lambda each: each.search(EVERYTHING)))


def pending(crowd: Crowd, server: CrowdPeer) -> bool:
    published = crowd.run(server.node.start(server.publish(), "publish"))
    assert published is not None
    return NAME in published.pending


@pytest.mark.parametrize("heal_s", [1.0, 4.0, 60.0])
@pytest.mark.parametrize("acquainted", [True, False])
def test_what_is_published_while_a_roots_holders_are_silent_is_theirs_or_not_yet_durable(
    heal_s: float, acquainted: bool
) -> None:
    with Crowd(
        seed=1, peers=12, clients=1, dimensions=NEEDED, advertising=False, acquainted=acquainted
    ) as crowd:
        crowd.run(until=1)
        publisher = crowd.servers[0]
        cut(crowd, publisher.node.host.name, root_holders(crowd), heal_s)
        waits = pending(crowd, publisher)
        assert waits == (heal_s > 30)
        if not waits:
            answer = search(crowd)
            assert answer.complete and len(answer.servers) == 1


@pytest.mark.parametrize("acquainted", [True, False])
def test_a_reader_who_does_not_hear_a_roots_holders_gets_no_whole_answer_from_others(acquainted: bool) -> None:
    with Crowd(
        seed=2, peers=16, clients=1, dimensions=NEEDED, advertising=False, acquainted=acquainted
    ) as crowd:
        crowd.run(until=1)
        holders, client = root_holders(crowd), crowd.clients[0].node.host.name
        cut(crowd, client, holders, 20)
        assert not search(crowd).complete  # and whoever was asked in their place does not remember an empty root
        crowd.run(until=crowd.now_s + 60)
        assert not any(pending(crowd, server) for server in crowd.servers)
        cut(crowd, client, holders, 60)
        assert not search(crowd).complete
        crowd.run(until=crowd.now_s + 100)
        answer = search(crowd)
        assert answer.complete and len(answer.servers) == 16


@pytest.mark.parametrize("seed", [3, 4])
def test_while_a_network_grows_by_several_at_once_a_whole_answer_has_all_that_is_durable(seed: int) -> None:
    with Crowd(seed=seed, peers=4, clients=1, dimensions=NEEDED) as crowd:
        crowd.run(until=100)
        search(crowd)
        for _ in range(3):
            crowd.run(_grow(crowd, 4))
            durable = [name for name, one in crowd.durable.items() if NAME not in one.pending]
            answer = search(crowd)
            assert answer.complete and len(answer.servers) == len(durable) == len(crowd.servers)


async def _grow(crowd: Crowd, count: int) -> None:
    await asyncio.gather(*(crowd.add() for _ in range(count)))


def test_two_of_a_roots_holders_that_are_gone_are_replaced() -> None:
    with Crowd(seed=5, peers=12, clients=1, dimensions=NEEDED) as crowd:
        crowd.run(until=100)
        gone = root_holders(crowd)[:2]
        for server in gone:
            server.crash()
        left = [server for server in crowd.servers if server not in gone]
        crowd.run(until=crowd.now_s + 10)
        assert not search(crowd).complete  # who is left may have been the one that a quorum went without
        crowd.run(until=crowd.now_s + 2 * crowd.period_ms / 1_000)
        answer = search(crowd)
        assert answer.complete and {one.udp for one in left} <= {one.advert.advert.udp for one in answer.servers}
        assert not any(crowd.durable[server.node.host.name].pending for server in left)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_holder_that_has_forgotten_does_not_take_strangers_word_that_a_root_is_empty(seed: int) -> None:
    with Crowd(seed=seed, peers=24, clients=1, dimensions=NEEDED, advertising=False, acquainted=True) as crowd:
        crowd.run(until=1)
        forgetful, silent, unreached = root_holders(crowd)
        others = [one for one in crowd.servers if one not in (forgetful, silent, unreached)]
        for server in others:
            if server is others[-1]:  # its advert is durable by the word of the other two
                crowd.simulation.network.partition("late", {server.node.host.name}, {unreached.node.host.name})
            assert not pending(crowd, server)
        crowd.simulation.network.heal("late")
        cut(crowd, forgetful.node.host.name, [silent], 3.0)
        crowd.run(forget(forgetful, others[0]))
        crowd.run(until=crowd.now_s + 6)
        for _ in range(10):
            answer = search(crowd)
            assert len(answer.servers) == len(others) or not answer.complete
            crowd.run(until=crowd.now_s + 1)


def forget(server: CrowdPeer, reader: CrowdPeer) -> asyncio.Task[None]:
    """Its memory of the dimension is gone, as after a crash; and somebody asks for the root, so that it recovers."""
    assert server.peer is not None and reader.peer is not None
    holding = server.peer.holdings[NAME]
    holding._holder = None
    sender = reader.peer.endpoint.overlay(NAME).contact.packed

    async def asked() -> None:
        made = holding.holder.received(Overview(ROOT), sender, 1, monotonic_ms())
        holding._perform([each for each in made if isinstance(each, Push)])
        holding.wake()

    return server.node.start(asked(), "forget")


@pytest.mark.parametrize("seed", range(1, 7))
def test_who_was_a_holder_of_a_root_before_and_is_again_learns_what_it_missed(seed: int) -> None:
    """In a network that grew one by one, the first servers hold each root for a while, and then others do."""
    with Crowd(seed=seed, peers=3, clients=1, dimensions=NEEDED) as crowd:
        crowd.run(until=20)
        for _ in range(9):
            crowd.run(_grow(crowd, 1))
            crowd.run(until=crowd.now_s + 2)
        assert len(search(crowd).servers) == 12
        gone = root_holders(crowd)[:2]
        for server in gone:
            server.crash()
        partial = 0
        for _ in range(40):
            answer = search(crowd)
            # Their own adverts are in force, too, while others keep them.
            assert len(answer.servers) == 12 or not answer.complete
            partial += not answer.complete
            crowd.run(until=crowd.now_s + 1)
        assert partial < 20
