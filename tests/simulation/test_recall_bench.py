"""What is promised of recall, in small: quiet, under churn and loss, with lying holders. See scripts/bench_recall."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from scripts.recall.parts import PART, asked_in_parts
from xenonode.corp.court import Court
from xenonode.simulation.errors import SimulationError
from xenonode.simulation.recall_bench.faulty import PERIOD_MS, Fleet, Score, under_churn, with_liars
from xenonode.simulation.recall_bench.lies import KINDS
from xenonode.simulation.recall_bench.questions import MANY
from xenonode.simulation.recall_bench.quiet import Quiet, Tally, bucket


def test_on_a_quiet_network_every_class_of_question_is_answered_whole_and_with_nothing_else() -> None:
    world, total = Quiet(3, 600, 12, 64), Tally()
    for kind, tally in world.run(0, 210).items():
        assert (tally.recall, tally.wrong, tally.partial) == (1.0, 0, 0), (kind, tally.worst)
        assert tally.questions == 15 and tally.due > 0
        total.add(tally)
    assert 2 * total.few >= total.questions and max(len(name) for name in total.matches) > 1
    assert sum(total.matches.values()) == total.questions == 210


def test_a_stopped_run_goes_on_where_it_was_and_comes_to_the_same(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    whole = dict(asked_in_parts(3, 100, 300))
    first = next(asked_in_parts(3, 100, 300, keep=kept))
    with kept.open("a") as file:
        file.write('{"first": 140, "end"')  # the power failed
    again = dict(asked_in_parts(3, 100, 300, keep=kept))
    assert list(again) == [PART, 2 * PART, 300] and kept.read_text().count("tallies") == 3
    assert first[0] == PART and sum(one["cheapest"].due for one in again.values()) == sum(
        one["cheapest"].due for one in whole.values()
    )
    with pytest.raises(SimulationError, match="another run"):
        next(asked_in_parts(4, 100, 300, keep=kept))


def test_the_distribution_has_a_line_for_every_number_of_matches() -> None:
    lines = [bucket(matching) for matching in (0, 1, 2, 10, 11, 100, 101, MANY, MANY + 1)]
    assert lines == [
        "0", "1", "2 to 10", "2 to 10", "11 to 100", "11 to 100", "101 to 1000", "101 to 1000", "above 1000",
    ]  # fmt: skip


def test_while_holders_come_and_go_and_datagrams_are_lost_old_adverts_are_found() -> None:
    score = under_churn(5, 60, 30, 20)
    assert score.due > 100 and score.recall >= 0.999 and not score.wrong
    assert score.partial < score.questions


def test_a_doubting_search_finds_what_a_fifth_of_lying_holders_would_hide() -> None:
    scores = _with_liars()
    assert scores["doubting"].due > 50
    assert scores["doubting"].recall >= 0.999 and not scores["doubting"].wrong
    assert scores["doubting"].recall >= scores["strict"].recall and scores["doubting"].rpcs > scores["strict"].rpcs


def test_publishers_see_every_kind_of_liar_and_convict_no_honest_holder() -> None:
    fleet = Fleet(6, 120, 15)
    network = fleet.network
    network.run(PERIOD_MS + 30_000)
    fleet.lie(len(KINDS) / 15)
    fleet.court = Court()
    network.run(3 * PERIOD_MS)
    shunned = set(fleet.court.shunned(network.now_ms))
    assert shunned <= set(network.liars) and {network.liars[one].kind for one in shunned} == set(KINDS)


def test_where_liars_are_shunned_a_strict_search_finds_what_a_doubting_one_does() -> None:
    scores = _with_liars()
    after, doubting = scores["canaries, two periods"], scores["doubting"]
    assert after.recall >= 0.999 and not after.wrong
    assert after.recall >= scores["strict"].recall and after.rpcs < doubting.rpcs


@cache
def _with_liars() -> dict[str, Score]:
    return dict(with_liars(4, 60, 50, 3, 12))
