"""A client that is killed at any step of opening a session loses neither the session nor its money, and processes that
share its folder lose nothing of each other's."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xenonode.client.records import Records, Reserving
from xenonode.client.sessions import Sessions
from xenonode.control.errors import ControlError
from xenonode.errors import XenoError
from xenonode.server.disk import FolderDisk

from ..server.world import MemoryDisk
from .test_records import CONTROL, record
from .world import World, run_virtually

STEPS = 40
NOTED = Reserving(b"i" * 16, b"request", CONTROL)


class Killed(BaseException):
    """What kill -9 is to a coroutine: nothing in it may answer."""


class Life:
    """One process of the client, which ends before or after its n-th effect on the outside."""

    def __init__(self, world: World, step: int) -> None:
        self.world, self.left = world, step
        self.files = world.client_disk.files
        disk = MemoryDisk(self.files)
        self._replace, self._remove = disk.replace, disk.remove
        disk.replace, disk.remove = self.replace, self.remove  # type: ignore[method-assign]
        self.sessions: Sessions = world.client_of(call_corp=self.call_corp, call_server=self.call_server)
        self.sessions._records._disk = self.sessions._opening._records._disk = disk

    def passes(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def replace(self, name: str, data: bytes) -> None:
        self.passes()
        self._replace(name, data)
        self.passes()

    def remove(self, name: str) -> None:
        self.passes()
        self._remove(name)
        self.passes()

    async def call_corp(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        self.passes()
        answer = await self.world.client_to_corp(method, body)
        self.passes()
        return answer

    async def call_server(self, key: bytes, address: Any, method: str, body: dict[str, Any]) -> dict[str, Any]:
        self.passes()
        answer = await self.world.client_to_server(key, address, method, body)
        self.passes()
        return answer


async def killed_at(step: int) -> str:
    world = World()
    await world.boot()
    life = Life(world, step)
    try:
        await world.begin(life.sessions)
        return "not killed"
    except Killed:
        life.files.held.clear()
    again = world.client_of()
    await again.recover()
    for each in again._records.sessions():
        with contextlib.suppress(XenoError):  # 'never began' is what 'session show' says of it
            await again.show(each.id.hex())
    await asyncio.sleep(5)
    assert world.corp.audit()["balanced"]
    assert not [name for name in life.files.content if name.startswith("reserving-")]
    known = [each for each in again._records.sessions() if not each.closed]
    hosted = [each for each in world.manager.sessions.values() if not each.closed]
    if not hosted:
        assert not known and world.state()["reserved_nano"] == 0
        return "given back"
    assert [each.id for each in known] == [each.id for each in hosted]
    assert (await again.end(hosted[0].id.hex())).closed
    assert world.state()["reserved_nano"] == 0
    return "found again"


def test_a_client_killed_at_any_step_has_its_session_or_its_money() -> None:
    outcomes = []
    for step in range(1, STEPS):
        outcomes.append(run_virtually(killed_at(step)))
        if outcomes[-1] == "not killed":
            break
    assert outcomes[-1] == "not killed" and {"given back", "found again"} < set(outcomes), outcomes


def test_what_waits_for_a_server_that_is_away_is_asked_for_again() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        life = Life(world, 6)  # order.show, the note, and XenoCorp's reservation
        with pytest.raises(Killed):
            await world.begin(life.sessions)
        life.files.held.clear()
        assert world.state()["reserved_nano"] > 0
        again, world.server_away = world.client_of(), True
        await again.recover()
        assert world.state()["reserved_nano"] > 0
        world.server_away = False
        await again.recover()
        await asyncio.sleep(5)
        assert world.state()["reserved_nano"] == 0

    run_virtually(scenario())


def test_a_reservation_that_a_living_process_asks_for_is_left_to_it() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        other = world.client_of()

        async def meanwhile(method: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = await world.client_to_corp(method, body)
            await other.recover()
            return answer

        view = await world.begin(world.client_of(call_corp=meanwhile))
        assert view.state == "running" and world.state()["reserved_nano"] > 0

    run_virtually(scenario())


def test_a_refused_reservation_leaves_no_note_and_a_lost_answer_does() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        names: list[list[str]] = []
        for code in ("sessions_max", "unreachable"):

            async def refusing(method: str, body: dict[str, Any], code: str = code) -> dict[str, Any]:
                answer = await world.client_to_corp(method, body)
                if method == "reserve":
                    raise ControlError(code, "as the test wants it")
                return answer

            with pytest.raises(ControlError, match="as the test"):
                await world.begin(world.client_of(call_corp=refusing))
            names.append([each for each in world.client_disk.names() if each.startswith("reserving-")])
        assert [len(each) for each in names] == [0, 1]

    run_virtually(scenario())


def _hold_until_killed(folder: Path, ready: Any) -> None:
    with Records(FolderDisk(folder)).reserving(NOTED):
        ready.set()
        signal.pause()


@contextlib.contextmanager
def _process(target: Any, *arguments: Any) -> Iterator[Any]:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def test_the_kernel_lets_go_of_what_a_killed_process_held(tmp_path: Path) -> None:
    ready = multiprocessing.get_context("fork").Event()
    records = Records(FolderDisk(tmp_path))
    with _process(_hold_until_killed, tmp_path, ready) as process:
        assert ready.wait(10)
        with records.abandoned() as found:
            assert not found
        process.kill()
        process.join()
        with records.abandoned() as found:
            assert [noted for noted, _ in found] == [NOTED]
            found[0][1]()
    with records.abandoned() as found:
        assert not found
    assert not list(tmp_path.iterdir())


def _change(folder: Path, field: str, times: int) -> None:
    records = Records(FolderDisk(folder))
    for _ in range(times):
        records.change(record(1).id, lambda now: replace(now, **{field: getattr(now, field) + b"."}))
        records.keep_found([])


def test_two_processes_that_change_one_record_lose_nothing(tmp_path: Path) -> None:
    records = Records(FolderDisk(tmp_path))
    records.keep(record(1))
    with _process(_change, tmp_path, "start", 100) as one, _process(_change, tmp_path, "accepted_usage", 100) as two:
        one.join(30)
        two.join(30)
        assert one.exitcode == two.exitcode == 0
    assert (len(records.find("01").start), len(records.find("01").accepted_usage)) == (100, 100)


def test_an_agent_that_was_overtaken_does_not_take_back_a_later_usage_record() -> None:
    async def scenario() -> None:
        world = World()
        await world.boot()
        view = await world.begin()
        signing = asyncio.create_task(world.sessions.cosign(view.session))
        await asyncio.sleep(6)
        early = world.sessions._records.find(view.session).accepted_usage
        await asyncio.sleep(12)
        late = world.sessions._records.find(view.session)
        assert early and late.accepted_usage != early
        assert world.sessions._accepted(late, 1, early) == late
        signing.cancel()

    run_virtually(scenario())
