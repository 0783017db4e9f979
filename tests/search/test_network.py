"""Publishing and searching over overlays: the same conversation on real sockets and under virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import permutations
from random import Random
from typing import Any

import pytest

from dht import wire
from dht.errors import PeerRefusedError, RemoteError
from dht.identity import ED25519
from summaries.dimension import Dimension
from summaries.filter import Comparison, furthest
from summaries.group import Between, Group, Member
from summaries.idset import IdSet
from summaries.parse import parse
from summaries.rank import Order
from xenonode.env import Env, LiveEnv
from xenonode.errors import XenoError
from xenonode.model.advert import advert_row_id
from xenonode.model.entity import Address
from xenonode.model.extension import SchemaExtension
from xenonode.model.resources import Resources
from xenonode.model.schema import PublishedSchema
from xenonode.peer import Peer
from xenonode.search.counting import count
from xenonode.search.growth import Growth
from xenonode.search.kinds import MEASURE
from xenonode.search.landmarks import Landmarks
from xenonode.search.placing import place
from xenonode.search.watching import watch
from xenonode.simulation.run import Simulation

from .network import Advertised, Issuing, acquainted, advertise

SERVERS = 12
Scenario = Callable[[list[Advertised], Peer], Awaitable[None]]
QUERIES = (
    "cores >= 1",
    "cpu.available >= 4000 ms/s and memory.available >= 16 GiB",
    'price.cpu <= 0.04 USD/h or country = "US"',
    "os.debian >= 12 and disk.available between [10 GiB, 400 GiB] order by price.cpu",
    "memory.total >= 8 GiB order by cost(cpu 1000 ms/s, memory 4 GiB) limit 3",
)


def on_loopback(scenario: Scenario) -> None:
    async def run() -> None:
        env = LiveEnv()
        issuing = Issuing(ED25519, env.now_ms(), Address("127.0.0.1", 1))
        made = [issuing.peer(env, number) for number in range(SERVERS)]
        await made[0][0].endpoint.open("127.0.0.1", 0)
        first = made[0][0].endpoint.address
        await made[0][0].endpoint.close()
        issuing = Issuing(ED25519, env.now_ms(), Address(*first))
        made = [issuing.peer(env, number) for number in range(SERVERS)]
        client, _, _ = issuing.peer(env, SERVERS, client=True)
        peers = [peer for peer, _, _ in made]
        try:
            await peers[0].start(first)
            await asyncio.gather(*(peer.start(("127.0.0.1", 0)) for peer in peers[1:]))
            await client.start(("127.0.0.1", 0))
            await acquainted(peers)
            await scenario(await advertise(made, Random(7)), client)
        finally:
            await client.close()
            await asyncio.gather(*(peer.close() for peer in peers))

    asyncio.run(run())


def under_virtual_time(scenario: Scenario) -> None:
    with Simulation(seed=7) as simulation:
        nodes = [simulation.add_node(f"node-{number}") for number in range(SERVERS + 1)]
        start_ms = nodes[0].env.now_ms()
        issuing = Issuing(simulation.scheme, start_ms, Address(nodes[0].host.address, 7000))
        envs: list[Env] = [node.env for node in nodes]
        made = [node.call(issuing.peer, env, number) for number, (node, env) in enumerate(zip(nodes, envs[:SERVERS]))]
        client, _, _ = issuing.peer(envs[SERVERS], SERVERS, client=True)

        async def run() -> None:
            await nodes[0].start(made[0][0].start((nodes[0].host.address, 7000)))
            for node, (peer, _, _) in zip(nodes[1:], made[1:]):
                await node.start(peer.start((node.host.address, 7000)))
            await nodes[SERVERS].start(client.start((nodes[SERVERS].host.address, 7000)))
            await nodes[SERVERS].start(scenario(await advertise(made, Random(7)), client))  # type: ignore[arg-type]
            await client.close()
            await asyncio.gather(*(peer.close() for peer, _, _ in made))

        simulation.run(run())


worlds = pytest.mark.parametrize("world", [on_loopback, under_virtual_time])


@worlds
def test_every_published_advert_is_durable_and_every_search_is_exact(world: Callable[[Scenario], None]) -> None:
    async def scenario(servers: list[Advertised], client: Peer) -> None:
        assert all(server.outcome is not None and not server.outcome.pending for server in servers)
        for text in QUERIES:
            answer = await client.searcher.search(parse(text, currency="USD"))
            found = {each.advert.server_key for each in answer.servers}
            right = {server.signer.public_key for server in servers if _matches(text, server)}
            assert answer.complete, answer.missing
            if "limit" not in text:
                assert found == right, text
            else:
                assert len(found) == min(3, len(right)) and found <= right
            ranks = [each.rank for each in answer.servers]
            assert ranks == sorted(ranks)

    world(scenario)


@worlds
def test_a_changed_advert_replaces_the_old_one_and_a_withdrawn_one_is_gone(world: Callable[[Scenario], None]) -> None:
    async def scenario(servers: list[Advertised], client: Peer) -> None:
        busy, gone = servers[3], servers[4]
        before = busy.advert
        await busy.publish(replace(before, seq=before.seq + 1, available=Resources(1, 1, 1, 1)))
        await gone.publish(replace(gone.advert, seq=gone.advert.seq + 1, gone=True))
        answer = await client.searcher.search(parse("cpu.available <= 1 ms/s"))
        assert busy.signer.public_key in {each.advert.server_key for each in answer.servers}
        everything = await client.searcher.search(parse("cores >= 1"))
        keys = [each.advert.server_key for each in everything.servers]
        assert len(keys) == len(set(keys)) == SERVERS - 1 and gone.signer.public_key not in keys

    world(scenario)


@worlds
def test_an_explanation_says_what_was_read_and_why_nothing_was_found(world: Callable[[Scenario], None]) -> None:
    async def scenario(adverts: list[Advertised], client: Peer) -> None:
        found = await client.searcher.search(parse("cores >= 1"), explain=True)
        assert found.explanation is not None and len(found.servers) == SERVERS
        assert found.explanation.nodes and found.explanation.bytes_in > found.explanation.bytes_out > 0
        nothing = await client.searcher.search(parse("cores >= 100000"), explain=True)
        assert nothing.complete and not nothing.servers and nothing.explanation is not None
        assert nothing.explanation.plan[0][0] == "cores"
        assert [(one.least, one.most > 0) for one in nothing.explanation.constraints] == [(0, False)]
        assert nothing.explanation.relaxations
        assert (await client.searcher.search(parse("cores >= 1"))).explanation is None

    world(scenario)


@worlds
def test_a_census_adds_up_what_a_search_lists(world: Callable[[Scenario], None]) -> None:
    async def scenario(servers: list[Advertised], client: Peer) -> None:
        for text in (*QUERIES[:4], ""):
            right = [server.advert for server in servers if not text or _matches(text, server)]
            for whole in (False, True):
                query = parse(text, currency="USD")
                found = (await count(client.searcher, query, group="country", whole=whole)).result
                while not found.exact:  # rows are still on their way down from a leaf that split
                    await asyncio.sleep(1)
                    found = (await count(client.searcher, query, group="country", whole=whole)).result
                assert found.exact and found.total.count == len(right), (text, found)
                assert found.total.free[1] == sum(one.available.memory_bytes for one in right)
                assert {name: one.count for name, one in found.groups.items()} == Counter(one.country for one in right)

    world(scenario)


def test_a_watch_tells_what_changes_and_reads_little_where_nothing_does() -> None:
    async def scenario(servers: list[Advertised], client: Peer) -> None:
        query = parse("cores >= 1 order by price.cpu", currency="USD")
        await asyncio.sleep(40)  # until rows are where they stay
        looks = watch(client.searcher, query, 5.0)
        first = await anext(looks)
        assert [change.event for change in first.changes] == ["appeared"] * SERVERS
        second = await anext(looks)
        assert not second.changes and second.spared >= SERVERS and second.bytes_in * 3 < first.bytes_in
        dear, gone = servers[3], servers[4]
        prices = replace(dear.advert.prices, cpu_nano_per_hour=10**12)
        await dear.publish(replace(dear.advert, seq=dear.advert.seq + 1, prices=prices))
        await gone.publish(replace(gone.advert, seq=gone.advert.seq + 1, gone=True))
        third = await anext(looks)
        told = {change.server.advert.server_key: change for change in third.changes}
        assert told[gone.signer.public_key].event == "gone"
        changed = told[dear.signer.public_key]
        assert (changed.event, changed.place) == ("changed", SERVERS - 1) and "price.cpu" in changed.changed
        assert not (await anext(looks)).changes

    under_virtual_time(scenario)


@worlds
def test_saved_ids_exclude_and_confine(world: Callable[[Scenario], None]) -> None:
    async def scenario(servers: list[Advertised], client: Peer) -> None:
        ids = [advert_row_id(server.signer.public_key) for server in servers]
        some, others = IdSet(ids[:5]), IdSet(ids[3:7])
        for text in ("cores >= 1", "cores >= 1 order by price.cpu limit 4"):
            answer = await client.searcher.search(parse(text, currency="USD"), exclude=others, within=some)
            found = IdSet(each.advert.row_id for each in answer.servers)
            assert answer.complete and len(found) == 3 and found == some - others

    world(scenario)


def test_a_network_that_runs_gains_a_dimension() -> None:
    async def scenario(servers: list[Advertised], client: Peer) -> None:
        peers = [server.peer for server in servers]
        now_ms = client.env.now_ms()
        trust = peers[0].trust
        extension = SchemaExtension.of(
            peers[0].schema, trust.network.schema_hash, Dimension("uptime", "s", "ordered", (3_600, 86_400, 172_800)),
            now_ms, now_ms + 400_000,
        )  # fmt: skip
        issuing = trust.scheme.generate(bytes([2]) * 32)
        forged = extension.seal(trust.scheme.generate(bytes(32))).raw
        with pytest.raises(RemoteError):
            peers[0].news.take(forged)
        raw = extension.seal(issuing).raw
        assert peers[0].news.take(raw) == "uptime"
        with pytest.raises(RemoteError, match="does not follow"):
            peers[0].news.take(raw)
        await asyncio.sleep(300)  # some rounds of asking
        assert all(peer.schema.epoch == 2 and peer.joined("uptime") is not None for peer in peers)
        assert peers[5].growth.of("cores").epoch == 1 and peers[5].growth.of("uptime").epoch == 2
        for number, server in enumerate(servers):
            server.publisher.schema = server.peer.schema
            old = server.advert
            soon = peers[0].env.now_ms()
            await server.publish(
                replace(
                    old, seq=old.seq + 1, issued_ms=soon, expires_ms=soon + 600_000,
                    started_ms=soon - number * 43_200_000,
                )
            )
            assert server.outcome is not None and server.outcome.durable[-1] == "uptime"
        query = parse("uptime >= 3 d", currency="USD")
        before = await client.searcher.search(query, explain=True)
        await client.news.ask(peers[7].endpoint.address)
        assert client.schema.epoch == 2 and "uptime" not in client.searcher.schema.by_name
        await asyncio.sleep(200)
        after = await client.searcher.search(query, explain=True)
        found = [{each.advert.server_key for each in one.servers} for one in (before, after)]
        assert found == [{server.signer.public_key for server in servers[6:]}] * 2
        assert before.complete and after.complete and before.explanation and after.explanation
        assert before.explanation.plan[0][0] != "uptime" and after.explanation.plan[0][0] == "uptime"
        owners = SchemaExtension.of(
            peers[2].schema, peers[2].growth.head,
            Dimension("owner", "", "ordered", tuple(range(1 << 54, 1 << 62, 1 << 54))), now_ms, now_ms,
        )  # fmt: skip
        peers[2].news.take(owners.seal(issuing).raw)
        await asyncio.sleep(300)
        for server in servers:
            assert server.peer.joined("owner") is not None
            server.publisher.schema = server.peer.schema
            await server.publish(replace(server.advert, seq=server.advert.seq + 1))
        await client.news.ask(peers[9].endpoint.address)
        owned = await client.searcher.search(parse('owner = "member-4"'), explain=True)
        assert [each.advert.server_key for each in owned.servers] == [servers[4].signer.public_key]
        assert owned.complete and owned.explanation and owned.explanation.plan[0][0] == "owner"
        assert owned.counts.leaves <= 4 and owned.counts.pruned
        again = Growth(PublishedSchema.of(peers[0].growth.of("cores"), 4, 0).schema, trust)
        assert again.restore(client.growth.stored(), client.env.now_ms()) == ["uptime", "owner"]
        both = await client.searcher.search(parse("uptime >= 3 d and cores >= 1 order by price.cpu", currency="USD"))
        assert {each.advert.server_key for each in both.servers} == found[0] and both.complete

    under_virtual_time(scenario)


def test_a_group_is_placed_for_the_least_money_as_brute_force_has_it() -> None:
    async def scenario(servers: list[Advertised], client: Peer) -> None:
        amounts = (500, 1 << 30, 1 << 30)
        anywhere = Comparison("cores", ">=", 1)
        group = Group(
            (Member("web", anywhere, amounts, count=2), Member("db", anywhere, amounts)),
            (Between("web", "web", least_us=40_000), Between("web", "db", most_us=220_000)),
        )
        found = await place(client.searcher, group)
        able = [one for one in servers if one.advert.available.cpu_ms_per_s >= 500
                and min(one.advert.available.memory_bytes, one.advert.available.disk_bytes) >= 1 << 30]  # fmt: skip
        attributes = [one.advert.attributes("x") for one in able]
        order = Order("cost", currency="USD", amounts=amounts)
        totals = [
            sum(order.rank(one) for one in chosen)  # type: ignore[arg-type]
            for chosen in permutations(attributes, 3)
            if apart(chosen[0], chosen[1]) >= 40_000
            and max(apart(chosen[0], chosen[2]), apart(chosen[1], chosen[2])) <= 220_000
        ]
        assert found.result.proved and totals
        assert found.result.total == min(totals) and len(found.servers) == 3

    on_loopback(scenario)


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    return furthest((one["location"],), other["location"])


def test_hosts_in_near_are_members_that_answer() -> None:
    async def scenario(servers: list[Advertised], client: Peer) -> None:
        host, port = servers[0].peer.endpoint.address
        answer = await client.searcher.search(parse(f"near({host}:{port}, 10000 ms)"))
        assert answer.complete and len(answer.servers) > 0
        for unknown, why in (("nobody", "no address"), ("8.8.8.8:53", "0 of 1. servers could measure")):
            with pytest.raises(XenoError, match=why) as refused:
                await client.searcher.search(parse(f"near({unknown}, 10 ms)"))
            assert refused.value.next_step

    on_loopback(scenario)


def test_a_host_that_is_no_member_is_placed_by_servers_that_measure_the_way_to_it() -> None:
    async def scenario(servers: list[Advertised], client: Peer) -> None:
        host = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = host.sockets[0].getsockname()[1]
        answer = await client.searcher.search(parse(f"near(127.0.0.1:{port}, 10000 ms)"))
        assert answer.complete and len(answer.servers) > 0
        host.close()
        again = await client.searcher.search(parse(f"near(127.0.0.1:{port}, 10000 ms) order by latency limit 3"))
        assert again.complete and len(again.servers) == 3  # remembered
        stored = client.searcher.landmarks.stored()
        other = Landmarks(client.endpoint, client.env, client._meet)
        other.restore(stored)
        assert other.stored() == stored and b"127.0.0.1" in stored
        other.restore(b"junk")
        server, closed = servers[0].peer.endpoint.address, wire.pack(["127.0.0.1", 7])
        asked = [client.endpoint.ask(server, MEASURE, closed) for _ in range(9)]
        refused = [isinstance(one, PeerRefusedError) for one in await asyncio.gather(*asked, return_exceptions=True)]
        assert any(refused) and not all(refused)  # a few at once, and no more
        for body in (["8.8.8.8", 53], ["127.0.0.1", 0], ["name", 1], [7]):
            with pytest.raises(PeerRefusedError):
                await client.endpoint.ask(servers[1].peer.endpoint.address, MEASURE, wire.pack(body))

    on_loopback(scenario)


def test_a_client_without_a_seed_says_so_and_tries_again_later() -> None:
    with Simulation(seed=7) as simulation:
        node = simulation.add_node("client")
        issuing = Issuing(simulation.scheme, node.env.now_ms(), Address("10.9.9.9", 7000))
        client, _, _ = node.call(partial(issuing.peer, client=True), node.env, 0)

        async def run() -> None:
            await client.start((node.host.address, 7000))
            for _ in range(2):
                with pytest.raises(XenoError, match="no seed") as refused:
                    await client.placement("cores")
                assert refused.value.code == "no_seed"
            await client.close()

        simulation.run(node.start(run()))  # type: ignore[arg-type]


def _matches(text: str, server: Advertised) -> bool:
    """The queries' meaning, by hand."""
    advert = server.advert
    gib, free, price = 2**30, advert.available, advert.prices.cpu_nano_per_hour
    return {
        QUERIES[0]: True,
        QUERIES[1]: free.cpu_ms_per_s >= 4000 and free.memory_bytes >= 16 * gib,
        QUERIES[2]: price <= 40_000_000 or advert.country == "US",
        QUERIES[3]: 10 * gib <= free.disk_bytes <= 400 * gib,
        QUERIES[4]: advert.total.memory_bytes >= 8 * gib,
    }[text]
