"""An advert that ends while its search waits for others leaves a place that somebody else might have had."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from summaries.parse import parse
from xenonode.search.searching import SearchAnswer, Searcher
from xenonode.simulation.crowd import NEEDED, Crowd, CrowdHost

PEERS = 6


@pytest.mark.parametrize(("text", "left", "complete"), [
    ("cores >= 1 order by price.cpu limit 5", 4, False),
    ("cores >= 1 limit 5", 4, False),
    ("cores >= 1 order by price.cpu limit 6", 5, False),  # for all that it read, there may be a seventh
    ("cores >= 1 order by price.cpu limit 7", 5, True),
    ("cores >= 1", 5, True),
])  # fmt: skip
def test_who_asked_for_so_many_is_told_that_one_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, text: str, left: int, complete: bool
) -> None:
    answered = Searcher._answer

    def at_the_first_ones_end(searcher: Searcher, query: Any, search: Any, *rest: Any) -> SearchAnswer:
        env, matches = searcher.env, search.result.matches
        ends_ms = min(searcher._adverts.verify(one.advert, env.now_ms())[0].advert.expires_ms for one in matches)
        searcher.env = SimpleNamespace(now_ms=lambda: ends_ms)  # type: ignore[assignment]
        try:
            return answered(searcher, query, search, *rest)
        finally:
            searcher.env = env

    async def asked(host: CrowdHost) -> SearchAnswer:
        assert host.peer is not None
        return await host.peer.searcher.search(parse(text, currency="USD"))

    with Crowd(seed=11, peers=PEERS, clients=1, dimensions=NEEDED) as crowd:
        crowd.run(until=120)
        monkeypatch.setattr(Searcher, "_answer", at_the_first_ones_end)
        answer = crowd.run(until=crowd.clients[0].call(asked))
    assert (len(answer.servers), answer.complete) == (left, complete)
    assert complete or "whose advert ended" in answer.missing[0]
