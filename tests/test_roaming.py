"""What a running node says of its own address, and what it does when that is another one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from xenonode import roaming
from xenonode.cli.service import ADDRESS_LOG
from xenonode.roaming import LOGGER, Roaming

SEED = ("10.0.0.1", 7_400)


class Endpoint:
    """One that loses its address and gets it back."""

    address = own_address = ("10.0.0.7", 7_410)
    observed_address, reachability = None, "direct"
    has_address = True

    def __init__(self) -> None:
        state = SimpleNamespace(likely=None)
        self.reach = SimpleNamespace(follows=False, learn=self.learn, look_out=lambda: None, state=state)
        self.announced = 0

    async def learn(self) -> None:
        """Nobody is there to ask."""

    async def examine_reachability(self) -> str:
        return self.reachability

    def known_addresses(self, most: int) -> list[tuple[str, int]]:
        return []

    def seen_at(self, host: str) -> None:
        self.address = (host, self.address[1])

    def announce(self) -> None:
        self.announced += 1


class Server:
    """A role that goes on elsewhere; `fails` so many times first."""

    def __init__(self, endpoint: Endpoint, fails: int = 0) -> None:
        self.endpoint, self.fails = endpoint, fails
        self.moves: list[str] = []
        self.shown: list[str] = []

    async def move(self, host: str) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError(98, "in use")
        self.moves.append(host)
        self.endpoint.own_address = self.endpoint.address = (host, 7_410)
        self.endpoint.has_address = True

    def seen(self, host: str) -> None:
        self.shown.append(host)


class Scene:
    """A node that looks every millisecond, and what it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: str | None) -> None:
        for name in ("LOOK_S", "FOLLOW_LOOK_S"):
            monkeypatch.setattr(roaming, name, 0.001)
        self.host = host
        monkeypatch.setattr(roaming, "host_towards", self._towards)
        self._caplog = caplog
        self.endpoint = Endpoint()

    async def _towards(self, address: tuple[str, int]) -> str | None:
        assert address == SEED
        return self.host

    def roaming(self, server: Server | None = None, profile: str = "local") -> Roaming:
        peer: Any = SimpleNamespace(endpoint=self.endpoint, seeds=[SEED], profile=profile, overlays=lambda: [1])
        return Roaming(peer, server)

    async def said(self, has_address: bool | None = None) -> list[str]:
        """What is said in a while in which this is so."""
        self._caplog.clear()
        if has_address is not None:
            self.endpoint.has_address = has_address
        await asyncio.sleep(0.3)  # three hundred looks, or a few on a busy machine
        return [record.getMessage() for record in self._caplog.records if record.name == LOGGER.name]


def test_a_node_says_once_that_its_address_is_gone_and_once_that_it_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(monkeypatch, caplog, "10.0.0.9")

    async def scenario() -> None:
        node = scene.roaming()
        looking = asyncio.create_task(node.watch())
        assert await scene.said(True) == []
        [gone] = await scene.said(False)
        assert "no longer has the address of 10.0.0.7:7410" in gone and "set udp and control" in gone
        assert "advertise = auto" in gone and "no longer" in node.reachability
        [back] = await scene.said(True)
        assert "again" in back and node.reachability == "direct"
        looking.cancel()

    asyncio.run(scenario())
    assert LOGGER.name == ADDRESS_LOG


def test_who_follows_goes_on_at_the_address_that_the_machine_has_now_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(monkeypatch, caplog, None)
    server = Server(scene.endpoint, fails=3)

    async def scenario() -> None:
        looking = asyncio.create_task(scene.roaming(server).watch())
        assert await scene.said(True) == []
        [gone] = await scene.said(False)
        assert "goes on as soon as there is one" in gone and not server.moves
        scene.host = "10.0.0.9"
        unusable, there = await scene.said()
        assert "cannot be used yet" in unusable and "10.0.0.9 now, and no longer 10.0.0.7" in there
        assert server.moves == ["10.0.0.9"] and await scene.said() == []
        looking.cancel()

    asyncio.run(scenario())


def test_who_goes_on_behind_the_same_translator_tells_others_its_address_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(monkeypatch, caplog, "10.0.0.9")
    endpoint: Any = scene.endpoint
    server = Server(endpoint)

    async def scenario() -> None:
        outside = endpoint.observed_address = ("10.9.9.9", 7_410)
        looking = asyncio.create_task(scene.roaming(server).watch())
        await scene.said()
        endpoint.observed_address = None  # as `rebind` forgets it
        await scene.said(False)
        assert server.moves == ["10.0.0.9"] and endpoint.address == ("10.0.0.9", 7_410)
        endpoint.observed_address = outside
        await scene.said()
        assert server.shown == ["10.9.9.9", "10.9.9.9"] and endpoint.address == outside
        looking.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize("host", ["127.0.0.1", SEED[0], "8.8.8.8"])
def test_an_address_that_tells_others_nothing_is_not_followed(
    host: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(monkeypatch, caplog, host)
    server = Server(scene.endpoint)

    async def scenario() -> None:
        looking = asyncio.create_task(scene.roaming(server).watch())
        await scene.said(False)
        assert not server.moves
        looking.cancel()

    asyncio.run(scenario())


def test_who_follows_tells_others_a_translators_address_and_who_does_not_keeps_to_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(monkeypatch, caplog, None)
    endpoint: Any = scene.endpoint
    server = Server(endpoint)

    async def scenario() -> None:
        fixed = asyncio.create_task(scene.roaming().watch())
        endpoint.observed_address = ("10.9.9.9", 7_410)
        await scene.said()
        assert endpoint.address == ("10.0.0.7", 7_410)
        fixed.cancel()
        following = asyncio.create_task(scene.roaming(server).watch())
        await scene.said()
        assert server.shown == ["10.9.9.9"] and endpoint.address == ("10.9.9.9", 7_410) and endpoint.announced == 1
        endpoint.observed_address = ("10.9.9.8", 7_410)
        [told] = await scene.said()
        assert "others see this node at 10.9.9.8:7410 now, and no longer at 10.9.9.9:7410" in told
        assert server.shown == ["10.9.9.9", "10.9.9.8"]
        following.cancel()

    asyncio.run(scenario())


def test_with_a_private_address_in_a_public_network_the_seeds_word_must_do_until_more_have_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(monkeypatch, caplog, "10.0.0.9")
    endpoint: Any = scene.endpoint
    server = Server(endpoint)

    async def scenario() -> None:
        node = scene.roaming(server, "public")
        for nobodys in (None, ("10.9.9.9", 7_410)):
            endpoint.reach.state.likely = nobodys
            await node.look(LOGGER)
            assert not server.shown and endpoint.address == ("10.0.0.7", 7_410)
        endpoint.reach.state.likely = ("9.9.9.9", 7_410)
        await node.look(LOGGER)
        assert server.shown == ["9.9.9.9"] and endpoint.address == ("9.9.9.9", 7_410)
        endpoint.reach.state.likely = ("9.9.9.8", 7_410)  # one voice, now that the address is one that will do
        await node.look(LOGGER)
        assert server.shown == ["9.9.9.9"]
        following = asyncio.create_task(node.watch())
        await scene.said(False)
        assert server.moves == ["10.0.0.9"]  # another private one, behind the same or another translator
        following.cancel()

    asyncio.run(scenario())
