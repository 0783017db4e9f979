"""What a search may find, by the invariant that judges it: exactly what is in force, and whoever vanished for good."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from summaries.parse import parse
from summaries.query import matches
from tests.model.test_advert import ADVERT
from xenonode.model.advert import Location
from xenonode.model.resources import NO_RESOURCES
from xenonode.simulation.invariants.quiet import EVERYTHING, answer_is_whole

HERE, THERE, GONE = b"here", b"there", b"gone"


def judged(found: set[bytes], *, complete: bool = True) -> str:
    world = SimpleNamespace(vanished={GONE})
    truth: Any = SimpleNamespace(expected={HERE: 1, THERE: 1}, world=world, server=bytes.decode)
    servers = [SimpleNamespace(advert=SimpleNamespace(server_key=key)) for key in sorted(found)]
    answer: Any = SimpleNamespace(servers=servers, complete=complete, missing=[])
    return answer_is_whole(truth, "a client", "cores >= 1", answer)


@pytest.mark.parametrize("found", [{HERE, THERE}, {HERE, THERE, GONE}])
def test_what_is_in_force_and_who_vanished_may_be_found(found: set[bytes]) -> None:
    assert judged(found) == ""


@pytest.mark.parametrize("found", [{HERE}, {HERE, GONE}, {HERE, THERE, b"ghost"}])
def test_a_server_that_is_missing_or_that_is_none_breaks_it(found: set[bytes]) -> None:
    assert "a client asks" in judged(found)


def test_an_answer_with_all_of_them_has_to_call_itself_complete() -> None:
    assert "partial" in judged({HERE, THERE}, complete=False)


@pytest.mark.parametrize("text", EVERYTHING)
def test_what_everybody_is_found_by_a_sold_out_server_meets_too(text: str) -> None:
    sold_out = replace(ADVERT, available=NO_RESOURCES, location=Location(0, 0, 0, 0))
    query = parse(text, currency="USD").resolve({}, (0, 0, 0, 0))
    assert matches(query, sold_out.attributes("owner"))
