"""What a running node says of its own address."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from xenonode.cli.service import ADDRESS_LOG
from xenonode.node import ADDRESS_LOGGER, Node


class Endpoint:
    """One that loses its address and gets it back."""

    address, observed_address, reachability = ("10.0.0.7", 7_410), None, "direct"
    has_address = True


def test_a_node_says_once_that_its_address_is_gone_and_once_that_it_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("xenonode.node.ADDRESS_LOOK_S", 0.001)
    endpoint = Endpoint()
    node = Node.__new__(Node)
    node.peer = SimpleNamespace(endpoint=endpoint)  # type: ignore[assignment]

    async def said_while(has_address: bool) -> list[str]:
        caplog.clear()
        endpoint.has_address = has_address
        await asyncio.sleep(0.1)
        return [record.getMessage() for record in caplog.records if record.name == ADDRESS_LOGGER.name]

    async def scenario() -> Any:
        looking = asyncio.create_task(node._stay_reachable())
        assert await said_while(True) == []
        [gone] = await said_while(False)
        assert "no longer has the address of 10.0.0.7:7410" in gone and "set udp and control" in gone
        assert "no longer" in node._reachability()
        [back] = await said_while(True)
        assert "again" in back and node._reachability() == "direct"
        looking.cancel()

    asyncio.run(scenario())
    assert ADDRESS_LOGGER.name == ADDRESS_LOG
