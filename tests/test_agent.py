"""The agent signs for every session that is open, also for new ones, and ends with the last."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from dht.errors import EnvelopeError
from xenonode import agent
from xenonode.client import Client
from xenonode.control.errors import ControlError


class Sessions:
    """A client whose sessions end when their usage was signed often enough; a call may fail first."""

    def __init__(self, failures: int, failure: Exception | None = None) -> None:
        self.open = {b"\x01": failures}
        self.failure = failure or ControlError("unreachable", "no answer", "try again")
        self.signed: list[str] = []
        self.records = SimpleNamespace(sessions=self._sessions)
        self.sessions = self

    def _sessions(self) -> list[SimpleNamespace]:
        known = sorted({*self.open, *(bytes.fromhex(id) for id in self.signed)})
        return [SimpleNamespace(id=id, closed=id not in self.open) for id in known]

    async def cosign(self, id: str, *, tell: agent.Tell) -> None:
        key = bytes.fromhex(id)
        if self.open[key] > 0:
            self.open[key] -= 1
            raise self.failure
        if key == b"\x01":
            self.open[b"\x02"] = 0  # a session that begins while the agent works
            await asyncio.sleep(0.01)
        self.signed.append(id)
        del self.open[key]


def run(client: Sessions) -> list[str]:
    told: list[str] = []
    asyncio.run(agent.sign_for_all(cast(Client, client), told.append))
    return told


def test_it_signs_for_old_and_new_sessions_and_ends() -> None:
    client = Sessions(0)
    run(client)
    assert client.signed == ["01", "02"]


def test_a_server_that_does_not_answer_is_asked_again() -> None:
    client = Sessions(1)
    told = run(client)
    assert client.signed == ["01", "02"]
    assert any("trying again" in line for line in told)


@pytest.mark.parametrize("failure", [EnvelopeError("malformed msgpack"), KeyError("state")], ids=repr)
def test_an_answer_that_makes_no_sense_keeps_no_other_session_from_being_signed_for(failure: Exception) -> None:
    client = Sessions(1, failure)
    client.open[b"\x03"] = 0  # on another server
    told = run(client)
    assert client.signed == ["03", "01", "02"]
    assert any("makes no sense" in line for line in told)


def test_without_open_sessions_it_ends_at_once() -> None:
    client = Sessions(0)
    client.open.clear()
    assert run(client) == []
