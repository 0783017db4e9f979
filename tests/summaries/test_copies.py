"""Copies of roots: whoever reads one group of holders misses nothing that was acknowledged."""

from __future__ import annotations

from collections import deque
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from summaries_world import World, attributes

from summaries.answer import digest
from summaries.copying import CONFIRM_MS
from summaries.execute import SearchResult
from summaries.filter import Filter
from summaries.holder import Holder, Push
from summaries.messages import Accepted, Answer, AtCopy, NotReady, Overview, Pull, Read, ZoneUpdate
from summaries.node import TrieNode
from summaries.parse import parse
from summaries.point import Rows
from summaries.publish import Publication
from summaries.rank import Order
from summaries.roots import RootReading
from summaries.schema import Schema
from summaries.trie import LEVEL_BITS, ROOT, Prefix, trie_key
from summaries.zone import Zone

SAMPLE = [attributes(Random(seed)) for seed in range(200)]
SCHEMA = Schema.from_sample(SAMPLE, most=128)  # type: ignore[arg-type]
NAME = "price.cpu"
GROUPS = 3
EVERYTHING = parse("cores >= 0")
QUESTION = Read(ROOT, Filter(()), Order())


def world(seed: int, *, nodes: int = 30, capacity: int = 8, loss: float = 0.0, duplicates: float = 0.0) -> World:
    return World(seed, nodes, SCHEMA, capacity=capacity, loss=loss, duplicates=duplicates, root_groups=GROUPS)


def publish(held: World, ids: range) -> list[Publication]:
    raws = [held.advert(id, 1, SAMPLE[id % len(SAMPLE)], ttl_s=3_000) for id in ids]
    return held.publish_all(raws, [NAME])


def search(held: World, turn: int) -> SearchResult:
    return held.search(EVERYTHING, dimension=NAME, turn=turn, group=turn % GROUPS)


def ids(result: SearchResult) -> set[int]:
    return {match.id for match in result.matches}


def group(held: World, number: int) -> list[bytes]:
    return held.nearest(NAME, ROOT, number)[:3]


def copies(held: World, number: int) -> list[bool]:
    """Whether each holder of a group's copy would answer."""
    nodes = [held.holders[name, NAME].copying.node for name in group(held, number)]
    return [node is not None and node.ready for node in nodes]


def settled(seed: int, count: int = 60) -> World:
    """A trie whose root has no rows left, and whose copies have been asked for once."""
    held = world(seed)
    assert all(one.durable for one in publish(held, range(count)))
    held.run(60_000)
    assert all(all(copies(held, number)) for number in range(1, GROUPS))
    return held


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05, 0.15]))
def test_every_group_finds_what_was_acknowledged_while_leaves_split(seed: int, loss: float) -> None:
    held = world(seed, loss=loss, duplicates=0.05)
    acknowledged: set[int] = set()
    for first in range(0, 60, 15):
        made = publish(held, range(first, first + 15))
        acknowledged |= {one.point.id for one in made if one.durable}
        for turn in range(4):
            result = search(held, held.random.getrandbits(32) + turn)
            assert acknowledged <= ids(result) or result.unreachable, (first, turn)
    held.loss = 0.0
    held.run(90_000)
    assert len(acknowledged) > 30
    for turn in range(12):
        result = search(held, turn)
        assert acknowledged <= ids(result) and not result.unreachable


def test_while_the_root_is_a_leaf_its_own_holders_answer() -> None:
    held = world(1, capacity=64)
    assert all(one.durable for one in publish(held, range(20)))
    for turn in range(12):
        result = search(held, turn)
        assert ids(result) == set(range(20)) and not result.unreachable
    held.run(60_000)
    assert not any(any(copies(held, number)) for number in range(1, GROUPS))


def test_copies_answer_for_a_root_whose_own_holders_are_silent() -> None:
    held = settled(2)
    held.down = set(group(held, 0))
    for turn in range(3 * GROUPS):
        result = search(held, turn)
        if not held.down & set(group(held, turn % GROUPS)):
            assert ids(result) == set(range(60)) and not result.unreachable


def test_one_voice_of_a_copy_is_not_enough() -> None:
    held = settled(3)
    for number in range(1, GROUPS):
        held.down |= set(group(held, number)[:2]) - set(group(held, 0))
    for turn in range(12):
        result = search(held, turn)
        assert ids(result) == set(range(60)) and not result.unreachable


def test_what_widens_is_acknowledged_once_a_quorum_of_each_group_knows() -> None:
    held = settled(4)
    silent = set(group(held, 1)[:2])
    assert not silent & {*group(held, 0), *group(held, 2)}
    held.down = silent
    values = {**SAMPLE[0], "memory.total": 1 << 50, "memory.available": 1 << 50}
    publication = held.publish(NAME, held.advert(1_000, 1, values))
    held.run(5_000)
    assert not publication.durable
    held.down = set()
    held.run(60_000)
    assert publication.durable or held.publish_all([held.advert(1_000, 2, values)], [NAME])[0].durable
    for turn in range(12):
        assert 1_000 in ids(search(held, turn))


def test_a_copy_that_starts_anew_learns_from_the_roots_own_holders() -> None:
    held = settled(5)
    for name in group(held, 1):
        if name not in group(held, 0):
            held.restart(name)
    for turn in range(12):
        result = search(held, turn)
        assert ids(result) == set(range(60)) and not result.unreachable
    held.run(30_000)
    assert all(copies(held, 1))


def test_a_copy_that_nobody_tells_of_anything_is_forgotten() -> None:
    held = settled(6)
    name = group(held, 1)[0]
    held.nearest(NAME, ROOT, 1).remove(name)  # as where others are nearer by now
    held.run(90_000)
    assert held.holders[name, NAME].copying.node is None


def test_a_root_is_read_ahead_from_copies_or_from_itself() -> None:
    for held in (settled(7), world(8, capacity=64)):
        publish(held, range(60, 80))
        for turn in range(GROUPS):
            reading = RootReading(NAME, turn, turn)
            asked: set[int] = set()

            def send(asks: list, held: World = held, reading: RootReading = reading, asked: set[int] = asked) -> None:  # type: ignore[type-arg]
                for ask in asks:
                    asked.add(ask.group)
                    held.ask(ask, lambda reply, ask=ask: send(reading.answered(ask, reply)))  # type: ignore[misc]

            send(reading.start(held.now_ms))
            held.run(until=lambda reading=reading: reading.finished)  # type: ignore[misc]
            assert reading.view is not None and turn in asked
            assert reading.view.has_rows == (0 in asked and held.capacity == 64)


def test_a_copy_holds_roots_and_zones_alone() -> None:
    held = settled(9)
    name = group(held, 1)[0]
    holder = held.holders[name, NAME]
    [reply] = holder.received(AtCopy(QUESTION), b"reader", 1, held.now_ms)
    assert isinstance(reply.message, Answer)  # type: ignore[union-attr]
    elsewhere = Read(Prefix(0, 6), Filter(()), Order())
    for question in (AtCopy(elsewhere), AtCopy(Overview(Prefix(0, 1)))):
        [reply] = holder.received(question, b"reader", 2, held.now_ms)
        assert not isinstance(reply.message, (Answer, NotReady, Accepted))  # type: ignore[union-attr]
    alone = World(1, 4, SCHEMA)
    [reply] = alone.holders[alone.names[0], NAME].received(AtCopy(QUESTION), b"reader", 3, alone.now_ms)
    assert not isinstance(reply.message, (Answer, NotReady))  # type: ignore[union-attr]


def test_an_older_claim_narrows_no_newer_one_at_a_copy() -> None:
    held = settled(10)
    holder = held.holders[group(held, 1)[0], NAME]
    node = holder.copying.node
    assert node is not None
    child = next(iter(sorted(node.entries)))
    claimant, entry = sorted(node.entries[child].items())[0]
    older = ZoneUpdate(child, entry.incarnation, entry.version - 1, entry.zone, 0)
    [reply] = holder.received(AtCopy(older), claimant, 1, held.now_ms)
    assert not isinstance(reply.message, Accepted)  # type: ignore[union-attr]
    same = ZoneUpdate(child, entry.incarnation, entry.version, entry.zone, 0)
    [reply] = holder.received(AtCopy(same), claimant, 2, held.now_ms)
    assert isinstance(reply.message, Accepted)  # type: ignore[union-attr]


@pytest.mark.parametrize("groups", [1, 2, 64])
def test_each_group_has_a_key_of_its_own(groups: int) -> None:
    keys = {trie_key(b"net", 1, NAME, prefix, one) for prefix in (ROOT, Prefix(0, 6)) for one in range(groups)}
    assert len(keys) == 2 * groups


@pytest.mark.parametrize("lost", [2, 3])
def test_copies_notice_that_a_roots_own_holders_lost_their_memory_together(lost: int) -> None:
    """A quorum that knows no split takes rows again; copies that had heard "split" once showed none of these."""
    held = settled(5, 40)
    for name in group(held, 0)[:lost]:
        held.restart(name)
    held.run(40_000)
    assert all(one.durable for one in publish(held, range(100, 106)))
    held.run(CONFIRM_MS + 5_000)
    for turn in range(2 * GROUPS):
        result = search(held, turn)
        assert set(range(100, 106)) <= ids(result) or result.unreachable, turn


@pytest.mark.parametrize("holders", [3, 4])
def test_a_copy_of_a_full_root_learns_all_of_it_from_three_that_answer_alike(holders: int) -> None:
    """One budget of pages for all three was spent before any of them had told all."""
    rng, held = Random(1), world(1)
    zone = Zone.of_point(SCHEMA, held.adverts[held.advert(1, 1, SAMPLE[0])])
    root = TrieNode(ROOT, SCHEMA, Rows(SCHEMA))
    root.ready, root.splits = True, (1 << 63) - 1
    children = [Prefix(number, LEVEL_BITS) for number in range(1 << LEVEL_BITS)]
    for child in children:
        for _ in range(holders):
            root.hear(child, rng.randbytes(26), 1_000, rng.randrange(1, 9_999), zone, 1_000)
    copy = Holder(SCHEMA, NAME, b"me".ljust(26), lambda raw, wall_ms: None, incarnation=1, root_groups=GROUPS)
    claim = AtCopy(ZoneUpdate(children[0], 1_000, 1, zone, 0))
    waiting = deque(one for one in copy.received(claim, rng.randbytes(26), 1, 1_000) if isinstance(one, Push))
    while waiting:
        push = waiting.popleft()
        assert isinstance(push.message, Pull)
        for name in [push.to] if push.to else [b"r0", b"r1", b"r2"]:
            told = copy.answered(push.token, 1 if push.to else 3, name, digest(root, push.message), 1_000)
            waiting.extend(one for one in told if isinstance(one, Push))
    assert copy.copying.node is not None and copy.copying.node.ready
