"""A search that goes on tells who fell silent, who answers again, and whose last advert ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from summaries.parse import parse
from xenonode.search.watching import ENDED, changes, watch
from xenonode.simulation.crowd import NEEDED, Crowd, CrowdHost

PEERS = 5
EVERY_S = 5.0
LOOKS = 200


def test_a_watch_tells_who_fell_silent_and_whose_advert_ended() -> None:
    told: list[tuple[str, str, tuple[str, ...]]] = []
    with Crowd(seed=11, peers=PEERS, clients=1, dimensions=NEEDED) as crowd:
        crowd.run(until=120)
        names = {server.signer.public_key: server.node.host.name for server in crowd.servers}

        async def look(host: CrowdHost) -> None:
            assert host.peer is not None
            left = LOOKS
            async for seen in watch(host.peer.searcher, parse("cores >= 1"), EVERY_S):
                told.extend((one.event, names[one.server.advert.server_key], one.changed) for one in seen.changes)
                left -= 1
                if not left:
                    return

        client = crowd.clients[0]
        looking = client.node.start(look(client), "watch")
        crowd.run(until=crowd.now_s + 20)
        assert sorted(told) == [("appeared", f"peer-{number}", ()) for number in range(PEERS)]
        told.clear()
        crowd.simulation.network.partition("away", {"client-0"}, {"peer-1"})
        crowd.servers[4].crash()
        crowd.run(until=crowd.now_s + 60)
        assert sorted(told) == [("silent", "peer-1", ()), ("silent", "peer-4", ())]
        told.clear()
        crowd.simulation.network.heal("away")
        crowd.run(until=crowd.now_s + 60)
        assert told == [("answering", "peer-1", ())]
        told.clear()
        crowd.run(looking)
        assert ("gone", "peer-4", (ENDED,)) in told and {name for _, name, _ in told} == {"peer-4"}


def test_who_answered_each_look_did_not_fall_silent_however_far_apart_looks_are() -> None:
    def look(*servers: Any) -> Any:
        return SimpleNamespace(servers=servers, complete=True)

    def server(rtt_ms: float | None) -> Any:
        advert = SimpleNamespace(advert=SimpleNamespace(expires_ms=450_000), attributes={}, server_key=b"key")
        return SimpleNamespace(advert=advert, rank=0, rtt_ms=rtt_ms)

    for rtt_ms, why in ((5.0, ()), (None, (ENDED,))):
        _, seen = changes({}, look(server(5.0)), 0)
        _, seen = changes(seen, look(server(rtt_ms)), 300_000)
        (gone,), _ = changes(seen, look(), 600_000)
        assert (gone.event, gone.changed) == ("gone", why)
