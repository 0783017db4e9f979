"""What people read beside an answer, and where there is none."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from summaries.explain import Explanation
from summaries.group import GroupResult
from summaries.parse import parse
from summaries.result import Counts
from xenonode.cli import command
from xenonode.cli.command import Run
from xenonode.cli.output import Output
from xenonode.cli.placing import _impossible
from xenonode.cli.searching import _nothing, _worth
from xenonode.client.plan import read_plan
from xenonode.search.placing import PlacedGroup
from xenonode.search.searching import FoundServer, SearchAnswer


def answer(counts: Counts, explanation: Explanation | None = None) -> SearchAnswer:
    return SearchAnswer(parse("cores >= 1"), (), True, (), 0, 0, counts, 1.0, explanation)


def test_conditions_that_contradict_one_another_are_told_from_what_nobody_offers() -> None:
    assert "contradict" in _nothing(answer(Counts()))
    assert "--explain" in _nothing(answer(Counts(rpcs=3)))
    assert _nothing(answer(Counts(rpcs=3), Explanation((), ()))) == "No server offers that."


def test_a_server_that_did_not_answer_is_told_of_beside_the_answer() -> None:
    live, silent = (SimpleNamespace(rtt_ms=rtt_ms) for rtt_ms in (1.5, None))
    found = replace(answer(Counts(rpcs=3)), servers=cast("tuple[FoundServer, ...]", (live, silent)))
    assert "1 server has not answered" in _worth(found)
    assert "answered" not in _worth(replace(found, servers=cast("tuple[FoundServer, ...]", (live,))))


def test_a_partial_answer_says_what_is_missing_and_when_to_ask_again() -> None:
    worth = _worth(replace(answer(Counts(rpcs=3)), complete=False, missing=("cores root",)))
    assert worth.startswith("PARTIAL (0 servers") and "cores root" in worth and "ask again" in worth


def test_whoever_waits_long_is_told_once_that_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(for_s: float) -> None:
        with Run(Output(as_json=False), None, {}).waiting():
            await asyncio.sleep(for_s)

    monkeypatch.setattr(command, "WAITING_SAID_S", 0.05)
    asyncio.run(wait(0.0))
    assert "still asking" not in capsys.readouterr().err
    asyncio.run(wait(0.2))
    assert capsys.readouterr().err.count("still asking") == 1


def test_a_group_that_cannot_be_placed_names_the_search_that_shows_why() -> None:
    group = read_plan(b'[[member]]\nname = "web"\ncpu = "300 ms/s"\nmemory = "128 GiB"\n')
    result = GroupResult((), 0, True, ("web",), (0,), 0, ())
    error = _impossible(group, PlacedGroup(result, {}, (), 3, 1, 1.0))
    assert "'web' alone" in error.message
    query = shlex.split(error.next_step)[-1]
    assert parse(query) == parse('cpu.available >= 300 ms/s and memory.available >= 128 GiB and currency = "USD"')
