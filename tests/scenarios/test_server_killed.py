"""A XenoServer that is killed again and again under a running session: the guest lives, and nothing is paid twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from dht.identity import ED25519
from xenonode.agent import sign_for_all
from xenonode.client import Client, SessionView, SignedQuote
from xenonode.control.errors import ControlError
from xenonode.demo.processes import run_inside
from xenonode.demo.story import BURN_CPU
from xenonode.model.advert import OfferedEnvironment
from xenonode.model.resources import Resources
from xenonode.model.session import UsageRecord

from .live import Live, children, need_hosting, until

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]
KILLS = 20
LOOKS_INSIDE_EVERY = 5
PERIOD_MS = 3_000
MIB = 2**20
SHARE = Resources(120, 128 * MIB, 16 * MIB, 1_000_000)
LEASE_MS = 30 * 60_000


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    need_hosting()
    made = Live(tmp_path_factory.mktemp("killed"), servers=1)
    try:
        made.start()
        yield made
    finally:
        made.close()
    assert made.leftovers() == []


async def quoted(live: Live, client: Client) -> SignedQuote:
    offer = await client.servers.advert(live.plan.servers[0].control)
    linux = next(each for each in offer.advert.environments if each.name == "linux")
    wanted = OfferedEnvironment(linux.kind, linux.name, linux.version)
    quote = await client.servers.quote(offer.server_key, SHARE, wanted, LEASE_MS)
    assert isinstance(quote, SignedQuote), quote
    return quote


async def crash(live: Live, rng: random.Random) -> None:
    """Kill -9 the server at any moment of its two periods, at times its hypervisor's process with it, and start it."""
    [place] = live.plan.servers
    await asyncio.sleep(rng.uniform(0, 2 * PERIOD_MS / 1000))
    pid = live.process(place).pid
    hypervisors = children(pid)
    assert hypervisors
    if rng.random() < 0.2:
        for each in hypervisors:  # it alone: the server starts another one by itself
            os.kill(each, signal.SIGKILL)
        await asyncio.sleep(rng.uniform(0, 2))
        return
    both = rng.random() < 0.4
    await live.network.kill(place)
    if both:
        for each in hypervisors:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
    await asyncio.sleep(rng.uniform(0, 1))
    await live.network.start_server(0)


async def patiently(ask: Any, *arguments: Any) -> Any:
    """Ask a server that may have lost its hypervisor's process a moment ago, as a client would."""
    for _ in range(20):
        try:
            return await ask(*arguments)
        except ControlError:
            await asyncio.sleep(0.5)
    return await ask(*arguments)


async def next_record(client: Client, session: str, after: UsageRecord | None) -> UsageRecord:
    """The next usage record after one."""

    async def newer() -> UsageRecord | None:
        found: UsageRecord | None = await patiently(client.sessions.usage, session)
        return found if found is not None and (after is None or found.seq > after.seq) else None

    found: UsageRecord = await until(newer)
    return found


async def settled(live: Live, client: Client, order: str, session: str, due_nano: int) -> None:
    """Every party's books say the same, and it is what the final record says."""

    async def state_at_rest() -> dict[str, Any] | None:
        state = await client.orders.show(order)
        return None if any(each["status"] == "live" for each in state["reservations"]) else state

    state = await until(state_at_rest)
    settlements = await client.sessions.settlements(session)
    assert state["captured_nano"] == due_nano == sum(each.captured_nano for each in settlements)
    assert [each.cumulative_nano for each in settlements][-1:] == ([due_nano] if settlements else [])
    audit = await live.audit()
    assert audit["balanced"] and audit["debits_nano"] == audit["credits_nano"], audit["faults"]


def test_a_guest_outlives_twenty_crashes_of_its_server_and_is_paid_for_once(live: Live) -> None:
    rng = random.Random(20)

    async def scenario() -> None:
        client = await live.member("20 USD")
        order = (await client.orders.place(client.orders.sign("5 USD")))["order"]
        view = await client.lease(order, await quoted(live, client), receipt_period_ms=PERIOD_MS)
        refused: list[str] = []
        signing = asyncio.ensure_future(sign_for_all(client, refused.append))
        login = await client.ssh_command(view.session)
        await run_inside(login, BURN_CPU)
        begun = await next_record(client, view.session, None)
        record, uptime_s = begun, await uptime(login)
        for number in range(KILLS):
            await crash(live, rng)
            found = await next_record(client, view.session, record)
            assert found.usage.fell_below(record.usage) == () and found.due_nano >= record.due_nano
            assert found.until_ms >= record.until_ms
            record = found
            shown: SessionView = await patiently(client.sessions.show, view.session)
            assert (shown.state, shown.ssh) == ("running", view.ssh), shown
            if (number + 1) % LOOKS_INSIDE_EVERY == 0:
                assert await client.ssh_command(view.session) == login  # the same address; the host key below
                now_s = await uptime(login)
                assert now_s > uptime_s
                uptime_s = now_s
        signed = receipts(client, view.session)
        assert signed >= record.seq - 3, (signed, record.seq)
        spent_ms = ((record.usage.cpu_ns or 0) - (begun.usage.cpu_ns or 0)) / 1e6
        share = spent_ms / ((record.until_ms - begun.until_ms) / 1000) / SHARE.cpu_ms_per_s
        assert 0.7 < share < 1.05, f"{share:.2f} of the agreed CPU was counted"
        held = (record.usage.memory_byte_s or 0) / ((record.until_ms - begun.until_ms) / 1000 * SHARE.memory_bytes)
        assert 0.7 < held < 1.2
        await client.sessions.end(view.session)
        await signing
        final = await client.sessions.usage(view.session)
        assert final is not None and final.final
        await settled(live, client, order, view.session, final.due_nano)
        assert (await client.orders.show(order))["status"] == "closed"
        assert not [line for line in refused if "is refused" in line], refused

    live.run(scenario())


def test_a_server_that_dies_while_a_guest_boots_or_ends_finishes_both(live: Live) -> None:
    rng = random.Random(21)

    async def scenario() -> None:
        client = await live.member("20 USD")
        order = (await client.orders.place(client.orders.sign("5 USD")))["order"]
        quote = await quoted(live, client)
        opening = asyncio.ensure_future(client.lease(order, quote, receipt_period_ms=PERIOD_MS))

        def agreed() -> list[str]:
            return [each.id.hex() for each in client.records.sessions() if not each.closed and each.server_agreement]

        [session] = await until(agreed)
        signing = asyncio.ensure_future(sign_for_all(client, lambda text: None))
        await asyncio.sleep(rng.uniform(0.5, 2.5))  # a boot takes four seconds
        await live.network.kill(live.plan.servers[0])
        await live.network.start_server(0)
        with suppress(ControlError):
            await opening

        async def shown() -> SessionView:
            view: SessionView = await patiently(client.sessions.show, session)
            return view

        async def is_running() -> bool:
            return (await shown()).state == "running"

        async def is_closed() -> bool:
            return (await shown()).closed

        await until(is_running, 120)
        assert await uptime(await client.ssh_command(session)) > 0
        stopping = asyncio.ensure_future(client.sessions.end(session))
        await asyncio.sleep(rng.uniform(0.2, 1.5))
        await live.network.kill(live.plan.servers[0])
        await live.network.start_server(0)
        with suppress(ControlError):
            await stopping
        await until(is_closed)
        await signing
        final = await client.sessions.usage(session)
        assert final is not None and final.final
        await settled(live, client, order, session, final.due_nano)

    live.run(scenario())


async def uptime(login: list[str]) -> float:
    """Seconds since the guest began, by its own word; ssh checks that its host key is the one that was signed for."""
    return float((await run_inside(login, "cat /proc/uptime")).split()[0])


def receipts(client: Client, session: str) -> int:
    """The number of the last usage record that the client signed for."""
    raw = client.records.find(session).accepted_usage
    return UsageRecord.open(raw, ED25519)[0].seq if raw else 0
