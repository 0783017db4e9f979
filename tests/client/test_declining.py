"""Quotes that come to nothing hold nothing, whoever let them go; and start records that could mislead are none."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from xenonode.control.errors import ControlError
from xenonode.errors import XenoError
from xenonode.model.errors import ModelError
from xenonode.model.resources import GIB, Resources
from xenonode.model.session import Start

from .test_ssh import start
from .world import CONTROL, LEASE_MS, SMALL, World, run_virtually


def held(world: World) -> int:
    return len(world.manager._admission._holds)


def test_a_quote_that_is_declined_or_refused_holds_nothing() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        quote, raw = await world.quote()
        assert held(world) == 1
        await world.sessions.decline(world.server.public_key, CONTROL, raw)
        assert held(world) == 0
        with pytest.raises(XenoError, match="not held"):
            await world.begin(quoted=(quote, raw))
        again = await world.quote()
        with pytest.raises(XenoError, match="could cost"):
            await world.begin(quoted=again, lease_ms=1_000 * LEASE_MS)
        assert held(world) == 0
        with pytest.raises(ModelError, match="receipt period"):
            await world.begin(receipt_period_ms=1)
        assert held(world) == 0

        async def spoiling(key: bytes, address: Any, method: str, body: dict[str, Any]) -> dict[str, Any]:
            body = {**body, "agreement": b"junk"} if method == "session.create" else body
            return await world.client_to_server(key, address, method, body)

        world.sessions._call_server = world.sessions._opening._call_server = spoiling
        with pytest.raises(XenoError, match="the server refused"):
            await world.begin()
        assert held(world) == 0 and world.state()["reserved_nano"] == 0

    run_virtually(scenario())


def test_nobody_declines_anothers_quote() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        _, raw = await world.quote()
        world.service._desk.decline(world.server.public_key, raw)
        assert held(world) == 1

    run_virtually(scenario())


def test_a_resize_that_quotes_are_in_the_way_of_says_until_when() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        view = await world.begin()
        signing = asyncio.create_task(world.sessions.cosign(view.session))
        free = world.manager._admission.free(world.now_ms())
        await world.quote(Resources(free.cpu_ms_per_s, SMALL.memory_bytes, SMALL.disk_bytes, SMALL.net_bit_per_s))
        wanted = replace(SMALL, cpu_ms_per_s=SMALL.cpu_ms_per_s * 2)
        with pytest.raises(ControlError, match="held by quotes, the last one of which ends in 60 s"):
            await world.sessions.command(view.session, "resize", wanted)
        await asyncio.sleep(61)
        assert (await world.sessions.command(view.session, "resize", wanted)).resources == wanted
        with pytest.raises(ControlError) as caught:
            await world.sessions.command(view.session, "resize", replace(wanted, memory_bytes=10_000 * GIB))
        assert "held by quotes" not in caught.value.message
        signing.cancel()

    run_virtually(scenario())


@pytest.mark.parametrize(
    "wrong",
    [
        {"agreement": b"short"},
        {"environment_id": ""},
        {"environment_id": "a\nb"},
        {"ssh_host": "host.example"},
        {"ssh_host": "-oProxyCommand=sh"},
        {"ssh_port": 0},
        {"ssh_host": ""},
        {"ssh_port": 65_536},
        {"ssh_host_key": ""},
        {"ssh_host_key": "ssh-ed25519 " + "A" * 60 + "\n* ssh-ed25519 " + "B" * 60},
        {"started_ms": -1},
    ],
    ids=str,
)
def test_a_start_record_that_could_mislead_ssh_is_none(wrong: dict[str, object]) -> None:
    good = start("127.0.0.1", 2222)
    assert isinstance(good, Start) and isinstance(start("::1", 22), Start)
    assert replace(good, ssh_host="", ssh_port=0, ssh_host_key="").ssh_host == ""
    with pytest.raises(ModelError):
        replace(good, **wrong)  # type: ignore[arg-type]
