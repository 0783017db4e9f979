"""A session's whole story on a network that loses, doubles and reorders, while a server and XenoCorp go and return."""

from __future__ import annotations

import pathlib

import pytest

from .test_world import begin, check_money, finish

SCRIPT = pathlib.Path(__file__).with_name("story_world.py")
SEEDS = [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10)]
"""Seed 2 found that XenoCorp, back from a crash, began a network of its own."""


@pytest.mark.parametrize("seeds", SEEDS, ids=str)
def test_nothing_is_charged_twice_and_everything_is_found_again(seeds: tuple[int, ...]) -> None:
    processes = [begin(SCRIPT, str(seed), seed) for seed in seeds]
    for seed, told in zip(seeds, [finish(process) for process in processes]):
        print(f"seed {seed}: trace {told['trace']}, {told['lost']} datagrams lost, {told['duplicated']} doubled")
        assert told["lost"] and told["duplicated"]
        for question in told["questions"]:
            assert question["equal"] and question["complete"], question
        assert any(question["expected"] for question in told["questions"])
        check_money(told["account"])
