"""In a whole platform: servers look for themselves, blame nobody honest, and shun whom XenoCorp has them shun."""

from __future__ import annotations

from collections.abc import Mapping

from xenonode.corp.court import VOICES_AHEAD
from xenonode.simulation.world import World

PERIODS_S = 500.0
LOOKED_S = 110.0


def test_servers_look_for_themselves_and_shun_by_xenocorps_word() -> None:
    world = World(3, servers=8, leaf_capacity=8)
    world.run(until=PERIODS_S)
    assert world.corp.running is not None
    court = world.corp.running.service.holders.court
    voices = [shows for heard in court.voices.values() for shows, _ in heard.values()]
    assert len(voices) > 100 and all(voices)
    suspect = world.servers[0].running
    assert suspect is not None
    for number in range(VOICES_AHEAD):
        court.testify(f"witness-{number}", "cores", {suspect.home.signer.public_key: False}, world.now_ms())
    world.run(until=2 * PERIODS_S)
    for host in (world.corp, *world.servers):
        assert host.running is not None
        assert [key for key, _ in host.running.peer.endpoint.shunned] == [suspect.home.signer.public_key]
        overlay = host.running.peer.endpoint.overlay("cores")
        assert host.running is suspect or suspect.peer.endpoint.overlay("cores").node_id not in overlay.table.by_id
    answer = world.run(world.clients[0].call(lambda client: client.finding.search("cores >= 1")))
    assert answer.complete and len(answer.servers) == 8
    world.close()


def test_who_hears_of_a_conviction_looks_in_all_its_dimensions_within_a_period() -> None:
    with World(3, servers=4) as world:
        world.run(until=200.0)
        suspect = world.servers[0].running
        assert world.corp.running is not None and suspect is not None
        court = world.corp.running.service.holders.court
        # Three honest servers may have spoken for it.
        for number in range(VOICES_AHEAD + 3):
            court.testify(f"witness-{number}", "cores", {suspect.home.signer.public_key: False}, world.now_ms())
        judge, looked = court.testify, dict[str, set[str]]()

        def testify(entity: str, dimension: str, seen: Mapping[bytes, bool], now_ms: int) -> None:
            looked.setdefault(entity, set()).add(dimension)
            judge(entity, dimension, seen, now_ms)

        court.testify = testify  # type: ignore[method-assign]
        world.run(until=world.now_s + LOOKED_S)
        names = {one.name for one in suspect.peer.schema.dimensions}
        assert len(names) == 11 and list(looked.values()) == [names] * 4
