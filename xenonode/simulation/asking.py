"""Queries of an experiment: asked through a real searcher, and each answer held against every advert in force."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from statistics import fmean

from xenonode.search.searching import SearchAnswer
from xenonode.simulation.arrivals import draw_query
from xenonode.simulation.recall import Offers, judge
from xenonode.simulation.sampling import quantile
from xenonode.simulation.stand import EXPECTED, Stand
from xenonode.simulation.verdict import Row


class Asking:
    """All queries of a run. `rows` are in the order in which they were asked, `over` those that ended."""

    def __init__(
        self,
        stand: Stand,
        strict: bool,
        note: Callable[[str], None],
        now_s: Callable[[], float],
        look: Callable[[SearchAnswer], object],
    ) -> None:
        self._stand, self._strict, self._note, self._now_s, self._look = stand, strict, note, now_s, look
        self.rows: list[Row] = []
        self.over: list[Row] = []

    async def ask(self, rng: Random, client: int, kind: str, *, quiet: bool = False) -> Row | None:
        """One query of a class; None where nobody advertises. `look` sees the answer."""
        points = self._stand.points()
        if not points:
            self._note("nobody advertises, so nothing is asked")
            return None
        text = draw_query(rng, kind, points)
        before: Offers = {point.id: point.attributes for point in points}
        row: Row = {"t_s": self._now_s(), "client": client, "class": kind, "quiet": quiet, "query": text}
        self.rows.append(row)
        try:
            answer = await self._stand.ask(client, text, self._strict)
        except EXPECTED as error:
            row |= {"answered": False, "error": str(getattr(error, "code", "") or error)[:200], "recall": 0.0}
            self._note(f"query failed: {error}")
        else:
            self._look(answer)
            row |= self._judged(answer, before)
            if row["recall"] < 1:
                self._note(f"recall {row['recall']:.2f} ({row['hits']} of {row['expected']}): {text}")
        self.over.append(row)
        return row

    def _judged(self, answer: SearchAnswer, before: Offers) -> Row:
        after: Offers = {point.id: point.attributes for point in self._stand.points()}
        judged = judge(answer.query, [found.advert.row_id for found in answer.servers], before, after)
        return {
            "answered": True,
            "expected": judged.expected,
            "found": judged.found,
            "hits": judged.hits,
            "stale": judged.stale,
            "recall": judged.recall,
            "complete": answer.complete,
            "rpcs": answer.counts.rpcs,
            "rounds": answer.counts.rounds,
            "duration_ms": answer.duration_ms,
        }

    def figures(self) -> Row:
        """The run's row about queries."""
        answered = [row for row in self.over if row["answered"]]
        times = [row["duration_ms"] for row in answered]
        return {
            "queries": len(self.rows),
            "answered": len(answered),
            "recall_mean": fmean(row["recall"] for row in self.over) if self.over else None,
            "recall_least": min((row["recall"] for row in self.over), default=None),
            "stale": sum(row["stale"] for row in answered),
            "search_ms_median": quantile(times, 0.5),
            "search_ms_p95": quantile(times, 0.95),
            "search_rpcs_mean": fmean(row["rpcs"] for row in answered) if answered else None,
            "search_rounds_mean": fmean(row["rounds"] for row in answered) if answered else None,
        }
