"""The simulator's benchmark at its smallest: every contender answers; a size is the same under another hash seed."""

from __future__ import annotations

import json

import pytest

from dht.contact import Contact
from scripts.simulator_benchmark.report import main, wanted
from scripts.simulator_benchmark.sizes import lookups
from xenonode.simulation.overlays import OverlayNode


def test_the_benchmark_measures_rates_and_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    small = "--sizes 12 --lookups 40 --rate-nodes 40 --rounds 1 --batch 5 --queries 2 --seed 3 --repeat --json"
    assert main(small.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    told = json.loads(lines[-1])
    assert {"wire_trace", "wire", "stock_kademlia"} < told["rpcs_per_core_s"].keys()
    assert all(rate > 0 for rate in told["rpcs_per_core_s"].values())
    *published, looked_up = told["runs"]
    assert [each["kind"] for each in told["runs"]] == ["publish", "renew", "lookups"]
    for each in published:
        assert (each["nodes"], each["overlays"], each["adverts"], each["partial"]) == (12, 8, 12, 0)
    assert (looked_up["nodes"], looked_up["nearest_found"]) == (40, looked_up["lookups"])
    assert all({"cpu_s", "wall_s", "rss_mb", "rpcs", "trace"} < each.keys() for each in told["runs"])
    assert sum("hash seed: the same" in line for line in lines) == 3


def test_sizes_choose_what_is_run() -> None:
    assert wanted("1000,10000,50000", "", "") == [
        ("publish", 1_000), ("renew", 1_000), ("renew", 10_000), ("lookups", 50_000),
    ]  # fmt: skip
    assert wanted("500", "", "") == [("publish", 500), ("renew", 500)]
    assert wanted("", "2000,2000", "40") == [("publish", 2_000), ("lookups", 40)]


def test_too_few_nodes_for_each_to_ask_once_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("--rate-nodes 19 --rounds 1 --batch 10", "--batch 0", "--rounds 0"):
        with pytest.raises(SystemExit, match="2"):
            main(words.split())
        assert "each asks once" in capsys.readouterr().err


def test_lookups_that_find_nothing_are_counted_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(node: OverlayNode, dimension: str, key: bytes) -> list[Contact]:
        return []

    monkeypatch.setattr(OverlayNode, "find", find)
    assert lookups(8, 8, 1, 3, 64, 0)["nearest_found"] == 0


def test_sizes_that_are_no_numbers_are_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--sizes", "many"], ["--sizes", "-5"], ["--lookups", "1"]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert "whole numbers" in capsys.readouterr().err
