"""Metrics count what happened, in the form that Prometheus reads, and no peer can make them grow."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from dht.metrics import REPUBLISH_ALARM_MS, Histogram, republish_alarm
from dht.record import seal_record
from dht.tracing import trace

Run = Callable[[Callable[[Any], Any]], None]
LINE = re.compile(r'^[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+$')


def test_a_histogram_is_cumulative_and_keeps_the_sum() -> None:
    histogram = Histogram((1, 10))
    for value in (0.5, 1, 5, 50):
        histogram.add(value)
    assert list(histogram.samples("h", "")) == [
        ("h_bucket", 'le="1"', 2),
        ("h_bucket", 'le="10"', 3),
        ("h_bucket", 'le="+Inf"', 4),
        ("h_sum", "", 56.5),
        ("h_count", "", 4),
    ]


def test_the_text_counts_what_was_asked_and_looked_up(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(4, ["cpu", 'odd "name"'])
        await nodes[1].overlay("cpu").find(bytes(20))
        for line in nodes[0].metrics().splitlines():
            assert line.startswith("# ") or LINE.match(line.replace('\\"', "")), line
        values = dict(line.rsplit(" ", 1) for line in nodes[0].metrics().splitlines() if line[0] != "#")
        assert int(values['xeno_dht_requests_total{overlay="cpu",kind="find"}']) > 0
        assert values['xeno_dht_contacts{overlay="cpu"}'] == "3"
        asked = dict(line.rsplit(" ", 1) for line in nodes[1].metrics().splitlines() if line[0] != "#")
        assert int(asked['xeno_dht_lookup_ms_count{overlay="cpu"}']) > 0

    run(scenario)


def test_unknown_kinds_are_one_series(run: Run) -> None:
    async def scenario(world: Any) -> None:
        one, two = await world.grow(2, ["cpu"])
        overlay = two.overlay("cpu")
        before = set(overlay.measures.requests)
        for kind in (*range(-60, -20), *range(100)):
            peer = two.sessions.peers[one.address]
            two.answering.handle(peer, overlay.tag, kind, b"", _Mute())
        assert set(overlay.measures.requests) - before <= {"unknown", "application"}

    run(scenario)


class _Mute:
    """A reply that nobody hears."""

    used = False

    def __call__(self, body: bytes = b"") -> None: ...

    def refuse(self, reason: str) -> None: ...

    refuse_unless_used = refuse


def test_late_republication_raises_an_alarm_that_names_the_overlay(run: Run) -> None:
    async def scenario(world: Any) -> None:
        late_ms = 0
        node = await world.open(now_ms=lambda: world.wall_ms() + late_ms)
        overlay, expires_ms = node.overlay("cpu"), world.wall_ms() + 3_600_000
        await overlay.records.put(bytes(20), seal_record(node.signer, "cpu", bytes(20), 1, expires_ms, b""), expires_ms)
        assert republish_alarm(node) == ""
        late_ms = 1_800_000 + REPUBLISH_ALARM_MS
        assert "'cpu'" in republish_alarm(node)

    run(scenario)


def test_a_traced_lookup_names_each_question_and_its_answer(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(8, ["cpu"])
        hops, found = await trace(nodes[3].overlay("cpu"), bytes(20), 20)
        assert {hop.contact for hop in hops} == set(found) and len(hops) == 7
        assert all(hop.took_ms is not None and "contacts" in hop.answer for hop in hops)

    run(scenario)
