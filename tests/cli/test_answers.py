"""What people read where a search found nobody."""

from __future__ import annotations

from summaries.explain import Explanation
from summaries.parse import parse
from summaries.result import Counts
from xenonode.cli.searching import _nothing
from xenonode.search.searching import SearchAnswer


def answer(counts: Counts, explanation: Explanation | None = None) -> SearchAnswer:
    return SearchAnswer(parse("cores >= 1"), (), True, (), 0, 0, counts, 1.0, explanation)


def test_conditions_that_contradict_one_another_are_told_from_what_nobody_offers() -> None:
    assert "contradict" in _nothing(answer(Counts()))
    assert "--explain" in _nothing(answer(Counts(rpcs=3)))
    assert _nothing(answer(Counts(rpcs=3), Explanation((), ()))) == "No server offers that."
