"""Staying a member: papers are renewed at half-life, and XenoCorp may be away for days. Virtual time, real messages."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import pytest

from summaries.schema import Schema
from xenonode import catalogue, membership
from xenonode.config import CorpConfig
from xenonode.control.pool import ConnectionPool
from xenonode.control.server import Server, serve
from xenonode.corp.database import MEMORY, open_database
from xenonode.corp.founding import corp_keys, found
from xenonode.corp.service import CorpService
from xenonode.corp.store import Store
from xenonode.corp.terms import Terms
from xenonode.corp_node import CORP_ANONYMOUS
from xenonode.errors import XenoError
from xenonode.first_schema import ENVIRONMENTS
from xenonode.membership import Membership
from xenonode.model.entity import Address, Registration
from xenonode.model.schema import PublishedSchema
from xenonode.simulation.disk import SimulatedDisk
from xenonode.simulation.home import AUTHORITY_TEXT, SimulatedHome, certify
from xenonode.simulation.run import Simulation
from xenonode.simulation.world import NOWHERE, World

T = TypeVar("T")
HOUR_S = 3_600
DAY_S = 24 * HOUR_S
LIFE_S = 7 * DAY_S
PORT = 7_401


@functools.cache
def small_schema() -> Schema:
    return Schema.from_sample(catalogue.schema_samples(random.Random(0), 100, ENVIRONMENTS))


class Office:
    """XenoCorp's registry on one host, one member on another; nothing else, so that weeks pass in a moment."""

    def __init__(self, simulation: Simulation) -> None:
        self.corp, self.member = simulation.add_node("corp"), simulation.add_node("server")
        env = self.corp.env
        root, self.keys = corp_keys(env.scheme, env.seed)
        address = Address(self.corp.host.address, PORT)
        config = CorpConfig(folder=NOWHERE, udp=Address(address.host, PORT + 1), control=address)
        schema = PublishedSchema.of(small_schema(), 64, env.now_ms()).seal(self.keys.issuing).raw
        self.network = found(root, self.keys, config, schema, env.now_ms())
        store = Store(open_database(MEMORY, exclusive=False), threaded=False)
        self.service = CorpService(
            self.keys, self.network, schema, store,
            scheme=env.scheme, now_ms=env.now_ms, rng=random.Random(1), certify=certify, authority_pem=AUTHORITY_TEXT,
            terms=Terms(),
        )  # fmt: skip
        self.disk = SimulatedDisk()
        self.renewals: list[Membership] = []
        self.serving: Server | None = None

    async def open(self) -> None:
        home = SimulatedHome(self.corp.env, SimulatedDisk(), self.keys.node)
        transport = home.transport(AUTHORITY_TEXT, [AUTHORITY_TEXT])
        self.serving = await serve(
            self.corp.host.address, PORT, self.service.handlers, transport=transport, anonymous=CORP_ANONYMOUS
        )

    async def shut(self) -> None:
        assert self.serving is not None
        await self.serving.close(grace_ms=0)

    async def enter(self) -> Membership:
        env = self.member.env
        return await membership.enter(SimulatedHome(env, self.disk), env, self.network, registration)

    async def stay(self, held: Membership) -> None:
        env = self.member.env
        home = SimulatedHome(env, self.disk)
        pool = ConnectionPool(home.transport(held.papers.certificate, [held.papers.authority]))
        corp = held.network
        call = partial(pool.call, corp.corp_control.pair, corp.corp_key)
        await membership.stay(home, env, held, call, registration, self.renewals.append)


def registration(network_id: bytes, now_ms: int) -> Registration:
    return Registration("server", "Example Ltd", "GB", "ops@example.org", "register 1", network_id, now_ms)


def run(story: Callable[[Office], Coroutine[Any, Any, T]]) -> T:
    with Simulation(5) as simulation:
        office = Office(simulation)

        async def whole() -> T:
            await office.corp.start(office.open())
            return await story(office)

        return simulation.run(whole())


def test_papers_are_renewed_at_half_life_for_weeks_and_the_member_stays_the_same() -> None:
    async def story(office: Office) -> None:
        held = await office.member.start(office.enter())
        office.member.env.spawn(office.stay(held), "stay")
        for _ in range(35 * 24):
            await asyncio.sleep(HOUR_S)
            now = office.renewals[-1] if office.renewals else held
            left_ms = now.credential.expires_ms - office.member.env.now_ms()
            assert left_ms >= (LIFE_S // 2 - HOUR_S) * 1000
        assert 9 <= len(office.renewals) <= 10
        for renewed in office.renewals:
            before, after = held.credential, renewed.credential
            assert (after.entity, after.issuer_nonce, after.role) == (before.entity, before.issuer_nonce, before.role)
            assert str(after.expires_ms).encode() in renewed.papers.certificate
        stored = membership.stored(SimulatedHome(office.member.env, office.disk))
        assert stored == office.renewals[-1].papers

    run(story)


def test_a_member_outlives_an_outage_of_three_days_and_renews_when_it_ends() -> None:
    async def story(office: Office) -> None:
        held = await office.member.start(office.enter())
        office.member.env.spawn(office.stay(held), "stay")
        await asyncio.sleep(3 * DAY_S)
        await office.corp.start(office.shut())
        await asyncio.sleep(3 * DAY_S)
        assert not office.renewals
        again = await office.member.start(office.enter())  # a restart meanwhile
        assert again.credential == held.credential
        await office.corp.start(office.open())
        await asyncio.sleep(membership.RENEW_CHECK_S + 60)
        (renewed,) = office.renewals
        assert renewed.credential.expires_ms > held.credential.expires_ms

    run(story)


def test_after_an_outage_longer_than_its_credential_a_running_member_registers_again_by_itself() -> None:
    async def story(office: Office) -> None:
        held = await office.member.start(office.enter())
        office.member.env.spawn(office.stay(held), "stay")
        await asyncio.sleep(DAY_S)
        await office.corp.start(office.shut())
        await asyncio.sleep(9 * DAY_S)
        with pytest.raises(
            XenoError, match=r"credential expired .* ago.*registering with XenoCorp at .* failed"
        ) as caught:
            await office.member.start(office.enter())
        assert caught.value.code == "unreachable" and caught.value.next_step
        await office.corp.start(office.open())
        await asyncio.sleep(membership.RENEW_CHECK_S + 60)
        (renewed,) = office.renewals
        assert renewed.credential.issuer_nonce == held.credential.issuer_nonce
        assert renewed.credential.entity == held.credential.entity

    run(story)


def test_without_a_way_to_register_expired_papers_say_what_to_do() -> None:
    async def story(office: Office) -> None:
        await office.member.start(office.enter())
        await asyncio.sleep(8 * DAY_S)
        env = office.member.env
        with pytest.raises(XenoError, match="credential expired") as caught:
            await membership.enter(SimulatedHome(env, office.disk), env, office.network, None)
        assert caught.value.next_step == "run: xenonode register"

    run(story)


def test_a_server_and_a_client_that_were_off_for_days_go_on_and_are_told_when_their_papers_expired() -> None:
    with World(3, servers=1) as world:
        world.run(world.begin())
        (server,), (client,) = world.servers, world.clients

        def expires_ms() -> tuple[int, int]:
            assert server.running is not None
            return server.running.held.credential.expires_ms, client.client.member.held.credential.expires_ms

        async def days(count: int) -> None:
            server.crash()
            world.corp.crash()
            await asyncio.sleep(count * DAY_S)

        async def story() -> None:
            first = expires_ms()
            await days(4)
            await world.corp.restart()
            await server.restart()
            assert await client.call(lambda each: each.orders.list_all()) == []  # renews with its first call
            second = expires_ms()
            assert min(second) > max(first)
            await days(8)
            with pytest.raises(XenoError, match="credential expired"):
                await server.restart()
            server.crash()
            await world.corp.restart()
            await server.restart()
            # The connection of eight days ago is found lost, and replaced unseen.
            assert await client.call(lambda each: each.orders.list_all()) == []
            assert min(expires_ms()) > max(second)

        world.run(story())
