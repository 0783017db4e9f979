"""The light world: search peers of the real code, warm-started, that publish, search, crash, and can be branched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from dht.identity import ED25519
from dht.peers import Greeting
from summaries.schema import ENVIRONMENT, LOCATION
from xenonode.simulation.crowd import Crowd, CrowdHost
from xenonode.simulation.errors import BranchError, SimulationError
from xenonode.simulation.scenario_file import load
from xenonode.simulation.stand import PeersStand
from xenonode.simulation.warm import known_members

FEW = ("cores", "memory.available", "disk.available", "net.available", "price.cpu", ENVIRONMENT, LOCATION)
QUERY = "cores >= 16 and price.cpu <= 0.05 USD/h"


def expected(crowd: Crowd) -> set[bytes]:
    return {
        each.server_key
        for each in crowd.adverts()
        if each.advert.cores >= 16 and each.advert.prices.cpu_nano_per_hour <= 50_000_000
    }


async def found(host: CrowdHost) -> tuple[set[bytes], bool]:
    answer = await host.call(lambda own: own.search(QUERY))
    return {each.advert.server_key for each in answer.servers}, answer.complete


def history(seed: int) -> str:
    with Crowd(seed, peers=24, dimensions=FEW) as crowd:
        crowd.run(until=70)
        crowd.run(found(crowd.clients[0]))
        return crowd.trace.hexdigest()


def test_what_is_published_is_found_and_a_seed_repeats() -> None:
    with Crowd(1, peers=24, dimensions=FEW) as crowd:
        wanted = crowd.probe("adverts", 10, lambda: len(crowd.adverts()))
        crowd.run(until=70)
        assert not any(published.pending for published in crowd.durable.values())
        assert [at for at, _ in wanted] == [10.0 * number for number in range(8)]
        assert wanted[0][1] == 0 and wanted[-1][1] == len(crowd.servers) == 24
        assert crowd.run(found(crowd.clients[0])) == (expected(crowd), True)
        assert expected(crowd)
        assert crowd.trace.hexdigest() == history(1) != history(2)


def test_peers_come_go_and_come_back() -> None:
    with Crowd(2, peers=16, clients=2, dimensions=FEW) as crowd:
        crowd.run(until=65)
        gone, back = crowd.servers[3], crowd.servers[12]
        gone.crash()
        back.crash()
        newcomer = crowd.run(crowd.add())
        crowd.run(back.restart())
        crowd.run(until=crowd.now_s + 30)
        assert gone.peer is None and back.peer is not None and newcomer.peer is not None
        assert len(crowd.adverts()) == 16
        keys, _ = crowd.run(found(crowd.clients[1]))
        assert keys >= expected(crowd)


def test_who_comes_after_somebody_was_forgotten_has_a_name_of_its_own(tmp_path: Path) -> None:
    # It had that of the last one, which is there already.
    path = tmp_path / "few.toml"
    text = f'kind = "peers"\nduration_s = 5\n[nodes]\nservers = 3\ndimensions = {len(FEW)}\n'
    path.write_text(text, encoding="utf-8")
    stand = PeersStand(load(path), 1)
    with stand.world as crowd:
        crowd.run(crowd.begin())
        stand.forget(crowd.servers[0])
        first, second = crowd.run(crowd.add()), stand.add()
        assert [each.node.host.name for each in (first, second)] == ["peer-3", "peer-4"]
        assert first.running is not None and second.running is None


def test_a_branch_happens_elsewhere() -> None:
    def crash_half(crowd: Crowd) -> int:
        for server in crowd.servers[::2]:
            server.crash()
        crowd.run(until=crowd.now_s + 5)
        return len(crowd.adverts())

    def fail(crowd: Crowd) -> None:
        raise ValueError("a branch's own mistake")

    with Crowd(3, peers=12, dimensions=FEW) as crowd:
        crowd.run(until=65)
        before, now_s = crowd.trace.hexdigest(), crowd.now_s
        assert crowd.what_if(crash_half) == 6
        branches = [crowd.branch(lambda world: os.getpid()) for _ in range(3)]
        assert len({branch.result() for branch in branches} - {os.getpid()}) == 3
        with pytest.raises(BranchError, match="a branch's own mistake"):
            crowd.what_if(fail)
        with pytest.raises(BranchError, match="status 7"):
            crowd.what_if(lambda world: os._exit(7))
        assert (crowd.trace.hexdigest(), crowd.now_s, len(crowd.adverts())) == (before, now_s, 12)
        after = crowd.step(3)
        assert now_s < after < now_s + 60


def greetings(crowd: Crowd) -> int:
    """Handshakes that peers began while everybody published."""
    begun = 0
    for server in crowd.servers:
        assert server.peer is not None
        handshakes = server.peer.endpoint.sessions.greetings
        greet = handshakes._send_hello

        def counted(greeting: Greeting, greet: Callable[[Greeting], None] = greet) -> None:
            nonlocal begun
            begun += not greeting.attempts
            greet(greeting)

        handshakes._send_hello = counted  # type: ignore[method-assign]
    crowd.run(crowd.publish_all())
    return begun


def test_peers_of_a_warm_world_have_greeted_those_in_their_tables_and_a_peer_that_came_back_greets_anew() -> None:
    with Crowd(5, peers=24, dimensions=FEW) as crowd, Crowd(5, peers=24, dimensions=FEW, acquainted=False) as cold:
        crowd.run(crowd.open())
        cold.run(cold.open())
        assert greetings(crowd) == 0 < greetings(cold)
        back = crowd.servers[3]
        back.crash()
        crowd.run(back.restart())
        assert back.peer is not None
        other = crowd.servers[4].peer
        assert other is not None
        crowd.run(back.node.start(back.peer.endpoint.ping(other.endpoint.address)))
        sessions = other.endpoint.sessions.peers[back.peer.endpoint.address]
        assert sessions.session is not None and sessions.former is not None  # a new one beside that of before


def test_real_signatures_are_an_option() -> None:
    with Crowd(4, peers=6, dimensions=FEW, scheme=ED25519) as crowd:
        crowd.run(until=65)
        assert crowd.run(found(crowd.clients[0])) == (expected(crowd), True)


def test_a_schema_needs_what_keys_are_built_from() -> None:
    with pytest.raises(SimulationError, match="location"):
        Crowd(5, peers=2, dimensions=FEW[:-1])


def test_warm_tables_name_all_of_the_near_and_twenty_of_the_far() -> None:
    rng = Random(1)
    numbers = [rng.getrandbits(160) for _ in range(300)]
    tables = dict(known_members(numbers, 1))
    assert sorted(tables) == list(range(300))
    for place, known in tables.items():
        assert len(set(known)) == len(known) and place not in known
        shared = [160 - (numbers[place] ^ number).bit_length() for number in numbers]
        for bits in range(160):
            subtree = [other for other in range(300) if shared[other] == bits and other != place]
            assert sum(other in subtree for other in known) == min(20, len(subtree))
    assert dict(known_members(numbers, 1)) == tables
    assert list(known_members([5], 1)) == [(0, [])]
