"""IPv6: a network of it alone, and one network of both families through sockets that speak both."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import Any

import pytest

from dht.contact import plain_host
from dht.endpoint import Endpoint
from dht.record import seal_record

Run = Callable[[Any], None]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


async def open_at(world: Any, host: str, advertise: str | None = None) -> Endpoint:
    signer = world.signer()
    endpoint = Endpoint(
        signer,
        world.credential_for(signer),
        world.member_check,
        network_id=world.network_id,
        now_ms=world.wall_ms,
        rng=random.Random(world.rng.random()),
    )
    await endpoint.open(host, 0, advertise=advertise)
    world.endpoints.append(endpoint)
    return endpoint


async def check_all(world: Any, nodes: list[Endpoint]) -> None:
    key, expires_ms = world.rng.randbytes(20), world.wall_ms() + 60_000
    raw = seal_record(nodes[1].signer, "cpu", key, 1, expires_ms, b"both")
    assert await nodes[1].overlay("cpu").records.put(key, raw, expires_ms) == min(8, len(nodes))
    for node in nodes:
        assert await node.overlay("cpu").records.get(key) == [raw]
        assert not node.counters["fault"]


def test_a_network_of_ipv6_alone_finds_and_keeps_records(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = [await open_at(world, "::1") for _ in range(12)]
        for node in nodes:
            await node.overlay("cpu").join([("0:0:0:0:0:0:0:1", nodes[0].address[1])])
        for node in nodes:
            assert len(await node.overlay("cpu").find(bytes(20))) == 12
        await check_all(world, nodes)

    run(scenario)


def test_nodes_of_both_families_are_one_network_with_those_of_ipv4(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = [
            await (open_at(world, "::", "127.0.0.1") if n % 2 else open_at(world, "127.0.0.1")) for n in range(10)
        ]
        for node in nodes:
            await node.overlay("cpu").join([nodes[0].address])
        for node in nodes:
            assert len(await node.overlay("cpu").find(bytes(20))) == 10
        await check_all(world, nodes)
        only_six = await open_at(world, "::1")
        await only_six.ping(("::1", nodes[1].address[1]))
        await nodes[1].ping(only_six.address)

    run(scenario)


def test_an_address_is_written_in_one_way() -> None:
    assert plain_host("0:0:0:0:0:0:0:1") == "::1" and plain_host("10.0.0.1") == "10.0.0.1"
