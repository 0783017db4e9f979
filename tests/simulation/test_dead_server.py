"""A server that was killed a moment ago costs whoever searches less than its time-outs would."""

from __future__ import annotations

import pytest

from xenonode.search.searching import SearchAnswer
from xenonode.simulation.world import World

SERVERS = 12
MOST = 2.0
"""Times what the same search takes while all are there; the time-outs alone would be 2 and 4 s."""


@pytest.mark.parametrize("text", ["cores >= 1", "cores >= 1 order by price.cpu limit 4"])
def test_a_dead_server_does_not_keep_a_search_waiting(text: str) -> None:
    """Whichever it is: it may hold what is read, match, both or neither; for a new client and for one that met it."""

    def ask(world: World) -> SearchAnswer:
        return world.run(world.ask(text))

    def without(number: int) -> tuple[SearchAnswer, SearchAnswer]:
        return world.what_if(lambda fork: _after(fork, number))

    def _after(fork: World, number: int) -> tuple[SearchAnswer, SearchAnswer]:
        fork.servers[number].crash()
        fork.run(until=fork.now_s + 1)
        cold = ask(fork)
        fork.run(until=fork.now_s + 20)
        return cold, ask(fork)

    with World(seed=7, servers=SERVERS, clients=1) as world:
        world.run(until=120)
        cold, warm = world.what_if(lambda fork: (ask(fork), ask(fork)))
        silent = 0
        for number in range(0, SERVERS, 2):
            new, known = without(number)
            for answer, usual in ((new, cold), (known, warm)):
                assert answer.complete and len(answer.servers) == len(usual.servers)
                assert answer.duration_ms <= MOST * usual.duration_ms
                silent += sum(each.rtt_ms is None for each in answer.servers)
        assert silent  # some of the dead matched, and their last adverts were shown
