"""In a whole platform: servers look for themselves, blame nobody honest, and shun whom XenoCorp has them shun."""

from __future__ import annotations

from xenonode.corp.court import VOICES_AHEAD
from xenonode.simulation.world import World

PERIODS_S = 500.0


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
