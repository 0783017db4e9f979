"""A live node survives mutated datagrams; `scripts/fuzz` sends a million of them."""

from __future__ import annotations

from .live_node import run

DATAGRAMS = 20_000


def test_a_live_node_survives_mutated_datagrams() -> None:
    report = run(DATAGRAMS)
    assert not report.complaints, report
    assert report.sealed == DATAGRAMS // 2
