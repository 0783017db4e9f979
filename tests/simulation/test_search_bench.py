"""The search benchmark compares what is comparable: the same answers, and tries that publishing would have grown."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

import pytest

from xenonode.simulation.search_bench import figure
from xenonode.simulation.search_bench.adverts import ADVERT_BYTES
from xenonode.simulation.search_bench.bench import (
    BEST_PLAN,
    CLASSES,
    METHODS,
    PLACEMENT,
    Bench,
    Row,
    differences,
    prepare,
)
from xenonode.simulation.search_bench.even import drawn_share, even_share
from xenonode.simulation.search_bench.stream import load
from xenonode.simulation.search_bench.traffic import PERIOD_S, traffic

SIZE, SEED, QUERIES = 1_200, 7, 6
FIELDS = {
    "adverts", "class", "method", "queries", "rpcs_mean", "rpcs_p95", "rounds_p95", "control_kb_mean",
    "client_cpu_ms", "recall", "wasted", "busiest_share", "even_share", "drawn_share",
}  # fmt: skip


@cache
def bench() -> Bench:
    return prepare(SEED, SIZE, count().__next__, capacity=128)


@cache
def rows(kind: str) -> tuple[Row, ...]:
    return tuple(bench().run([kind], METHODS, SEED, QUERIES))


@pytest.mark.parametrize("kind", CLASSES)
def test_every_method_returns_the_same_verified_answers(kind: str) -> None:
    assert [(row.method, row.recall, row.wrong) for row in rows(kind)] == [(method, 1.0, 0) for method in METHODS]


def test_every_method_places_groups_for_the_least_money() -> None:
    found = rows(PLACEMENT)
    assert [(row.method, row.recall, row.wrong) for row in found] == [
        (method, 1.0, 0) for method in METHODS if method in ("xenosearch", "xenosearch-strict") or "central" in method
    ]
    assert found[0].rounds_p95 > found[-1].rounds_p95 and found[0].matches_median == 3


def test_only_the_bloom_filters_fetch_adverts_in_vain() -> None:
    assert all(not row.wasted for kind in CLASSES for row in rows(kind) if row.method != "bloom-2003")
    assert any(row.wasted for kind in CLASSES for row in rows(kind) if row.method == "bloom-2003")


def test_a_strict_search_asks_more_and_takes_no_more_rounds_on_a_quiet_network() -> None:
    for kind in CLASSES:
        relaxed, strict = rows(kind)[:2]
        assert strict.rpcs_mean > relaxed.rpcs_mean and strict.rounds_p95 <= relaxed.rounds_p95 + 1


def test_the_planner_chooses_nearly_as_well_as_who_tried_every_trie() -> None:
    (best,) = bench().run(["conjunction"], [BEST_PLAN], SEED, QUERIES)
    assert (best.recall, best.wrong) == (1.0, 0)
    assert best.rpcs_mean <= rows("conjunction")[0].rpcs_mean <= 1.3 * best.rpcs_mean


def test_a_row_has_the_fields_that_were_promised_and_a_line_in_the_table(tmp_path: Path) -> None:
    row = rows("conjunction")[0]
    assert set(row.to_fields()) >= FIELDS
    figure.write_csv(rows("conjunction"), tmp_path / "rows.csv")
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 1 + len(METHODS)


@pytest.mark.parametrize("slowest", [1, 10_000])
def test_the_figure_shows_every_line_however_far_apart_they_are(tmp_path: Path, slowest: int) -> None:
    ours, slow = rows("conjunction")[:2], [row for row in rows("conjunction") if row.method == "bloom-2003"]
    slow = [replace(row, time_ms_mean=slowest * row.time_ms_mean) for row in slow]
    figure.draw_png([*ours, *slow], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.timeout(1_200)  # half a minute of processor time, which a busy machine gives late
def test_a_bulk_load_is_what_publishing_leads_to() -> None:
    assert differences(SEED, 5_000, ["cores"], count().__next__, capacity=512) == []


def test_so_are_the_copies_of_a_root() -> None:
    assert differences(SEED, 600, ["cores"], count().__next__, capacity=128, root_groups=3) == []


def test_copies_of_roots_give_the_same_answers_by_as_many_questions() -> None:
    methods = ["xenosearch-strict", "xenosearch-strict-cold"]
    alone = list(bench().run(["nearest"], methods, SEED, QUERIES))
    copied = list(prepare(SEED, SIZE, count().__next__, 128, 4).run(["nearest"], methods, SEED, QUERIES))
    assert all((row.recall, row.wrong) == (1.0, 0) for row in alone + copied)
    assert [row.rpcs_mean for row in copied] == pytest.approx([row.rpcs_mean for row in alone], rel=0.1)
    assert [row.rounds_mean for row in copied] == pytest.approx([row.rounds_mean for row in alone], rel=0.1)


def test_the_busiest_share_stands_beside_what_no_spreading_gets_below() -> None:
    for row in rows("union"):
        assert row.even_share <= row.drawn_share <= 1 and row.even_share <= row.busiest_share
    assert all(row.even_share == 1 for row in rows("union") if "central" in row.method)
    asked = [5] * 100
    assert even_share(asked, 50) == 0.1 < drawn_share(asked, 50) < 0.3
    assert drawn_share([50] * 10, 50) == 1.0


def test_every_method_says_what_it_was_run_with() -> None:
    assert all(bench().parameters(METHODS)[method] for method in METHODS)


def test_no_search_asks_fewer_holders_than_the_least_that_have_its_answers() -> None:
    for row in rows("conjunction"):
        if row.method.startswith("xenosearch"):
            assert 0 < row.leaves_least_mean <= row.rpcs_mean


def test_staying_advertised_costs_what_changes_and_not_three_copies_of_the_advert() -> None:
    copies = 3 * ADVERT_BYTES / PERIOD_S
    rate, messages = traffic(SEED, 150, "cores", count().__next__, capacity=256, nodes=20)
    assert rate < 0.75 * copies and messages >= 6 / PERIOD_S


def test_a_stream_of_searches_tells_who_is_busiest() -> None:
    relaxed, strict = (load(bench(), SEED, 20, strict=strict) for strict in (False, True))
    assert 0 < relaxed.median_share <= relaxed.busiest_share <= 1
    assert strict.questions_mean > relaxed.questions_mean
