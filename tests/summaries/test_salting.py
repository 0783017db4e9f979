"""Several tries of one dimension: each finds by itself what was acknowledged, and none needs another."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from summaries_world import World, attributes, label

from summaries.canary import Canary, way
from summaries.errors import MessageError
from summaries.execute import SearchResult
from summaries.forms import from_fields, to_fields
from summaries.messages import AtCopy, Message, Overview, Pull, Salted
from summaries.parse import parse
from summaries.publish import Posting, Publication
from summaries.roots import RootReading, RootView
from summaries.salting import draws, salts_of
from summaries.schema import Schema
from summaries.trie import MAX_TRIES, ROOT, Prefix

SAMPLE = [attributes(Random(seed)) for seed in range(200)]
SCHEMA = Schema.from_sample(SAMPLE, most=128)  # type: ignore[arg-type]
NAME = "price.cpu"
TRIES = 3
EVERYTHING = parse("cores >= 0")
SLOW = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def world(seed: int, *, nodes: int = 20, capacity: int = 8, loss: float = 0.0, duplicates: float = 0.0) -> World:
    return World(seed, nodes, SCHEMA, capacity=capacity, loss=loss, duplicates=duplicates, tries={NAME: TRIES})


def advert(held: World, id: int, seq: int = 1) -> bytes:
    return held.advert(id, seq, SAMPLE[(id + 7 * seq) % len(SAMPLE)], ttl_s=3_000)


def publish(
    held: World, ids: range, seq: int = 1, stood: dict[tuple[int, int], tuple[Posting, ...]] | None = None
) -> set[int]:
    """Publish to every trie; those that all acknowledged. `stood` is where adverts stand, by id and trie."""
    stood = {} if stood is None else stood
    raws = {id: advert(held, id, seq) for id in ids}
    made: dict[tuple[int, int], Publication] = {
        (id, salt): held.publish(NAME, raw, stood.get((id, salt), ()), salt=salt)
        for id, raw in raws.items()
        for salt in range(TRIES)
    }
    held.run(until=lambda: all(one.finished for one in made.values()))
    stood.update({place: one.postings for place, one in made.items()})
    return {id for id in ids if all(made[id, salt].durable for salt in range(TRIES))}


def search(held: World, salt: int, turn: int = 0, roots: dict[str, RootView] | None = None) -> SearchResult:
    return held.search(EVERYTHING, dimension=NAME, turn=turn, salts={NAME: salt}, roots=roots)


def ids(result: SearchResult) -> set[int]:
    return {match.id for match in result.matches}


@SLOW
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05, 0.15]))
def test_every_trie_finds_what_was_acknowledged_while_leaves_split_and_rows_move(seed: int, loss: float) -> None:
    held = world(seed, loss=loss, duplicates=0.05)
    acknowledged: set[int] = set()
    stood: dict[tuple[int, int], tuple[Posting, ...]] = {}
    for first, seq in ((0, 1), (15, 1), (0, 2), (30, 1), (15, 2)):
        acknowledged |= publish(held, range(first, first + 15), seq, stood)
        for salt in range(TRIES):
            result = search(held, salt, held.random.getrandbits(32))
            assert acknowledged <= ids(result) or not result.complete, (first, salt)
    held.loss = 0.0
    held.run(90_000)
    assert len(acknowledged) > 25
    for turn in range(2 * TRIES):
        result = search(held, turn % TRIES, turn)
        assert acknowledged <= ids(result) and result.complete


@SLOW
@given(st.integers(0, 10_000))
def test_no_trie_needs_another(seed: int) -> None:
    held = world(seed)
    assert publish(held, range(40)) == set(range(40))
    held.run(60_000)  # no row is on its way any more
    lost = [trie for trie in held.labels() if trie in (NAME, label(NAME, 2))]
    for name in held.names:  # every holder of two tries forgets all it had of them
        for trie in lost:
            held.start(name, trie)
    assert ids(search(held, 1)) == set(range(40))
    assert not ids(search(held, 0)) and not ids(search(held, 2))
    assert publish(held, range(40), 2) == set(range(40))  # each period
    assert all(ids(search(held, salt)) == set(range(40)) for salt in range(TRIES))


def test_what_one_trie_did_not_acknowledge_is_not_published() -> None:
    held = world(5)
    assert publish(held, range(20)) == set(range(20))
    held.run(60_000)
    held.down = set(held.nearest(NAME, ROOT, 1)[:2])
    others = [set(held.nearest(NAME, ROOT, salt)[:3]) & held.down for salt in (0, 2)]
    assert not any(others)
    assert publish(held, range(20, 21)) == set()
    held.down = set()
    assert publish(held, range(20, 21), 2) == {20}


def test_remembered_roots_are_those_of_the_trie_that_is_read() -> None:
    held = world(6)
    publish(held, range(60))
    held.run(60_000)
    views = {}
    for salt in range(TRIES):
        reading = RootReading(NAME, 0, 0, salt)
        asks = reading.start(held.now_ms)
        while asks:
            ask, heard = asks.pop(), list[object]()
            held.ask(ask, heard.append)
            held.run(until=lambda heard=heard: bool(heard))  # type: ignore[misc]
            asks += reading.answered(ask, heard[0])  # type: ignore[arg-type]
        assert reading.view is not None and reading.view.salt == salt
        views[salt] = {NAME: reading.view}
    for salt in range(TRIES):
        warm, other = (search(held, salt, roots=views[(salt + one) % TRIES]) for one in (0, 1))
        assert ids(warm) == ids(other) == set(range(60)) and warm.complete and other.complete
        assert warm.counts.root_age_ms > 0 and other.counts.root_age_ms == 0


def test_each_trie_counts_the_same() -> None:
    held = world(8)
    publish(held, range(30))
    held.run(60_000)
    counted = [held.census(EVERYTHING, dimension=NAME, salts={NAME: salt}) for salt in range(TRIES)]
    assert {(one.least, one.most) for one in counted} == {(30, 30)}


def test_canaries_look_at_the_holders_of_one_trie() -> None:
    held, stood = world(7), dict[tuple[int, int], tuple[Posting, ...]]()
    publish(held, range(30), 1, stood)
    for salt in range(TRIES):
        [posting] = stood[3, salt]
        holders = {prefix: held.nearest(NAME, prefix, salt)[:3] for prefix in way(posting.leaf)}
        point = held.adverts[held.current[b"server-3".ljust(26, b".")]]
        canary = Canary(NAME, point, posting, 1, holders, Random(salt), salt=salt)

        def send(asks: list[object], canary: Canary = canary) -> None:
            for ask in asks:
                held.ask(ask, lambda reply, ask=ask: send(canary.answered(ask, reply)))  # type: ignore[misc,arg-type]

        send(canary.start())  # type: ignore[arg-type]
        held.run(until=lambda canary=canary: canary.finished)  # type: ignore[misc]
        assert set(canary.seen) == {one for some in holders.values() for one in some} and all(canary.seen.values())


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(2, MAX_TRIES), max_size=3), st.integers(1, 8))
def test_all_tries_and_groups_are_as_likely(tries: dict[str, int], groups: int) -> None:
    numbers = draws(tries, groups)
    assert numbers == 1 or tries or groups > 1
    if numbers > 5_000:
        return
    for name, count in tries.items():
        drawn = Counter(salts_of(tries, number)[name] for number in range(numbers))
        assert set(drawn) == set(range(count)) and len(set(drawn.values())) == 1
    assert set(Counter(number % groups for number in range(numbers)).values()) == {numbers // groups}


def test_a_question_to_a_trie_is_wrapped_once() -> None:
    question = Salted(2, Overview(Prefix(5, 6)))
    assert from_fields(to_fields(question)) == question
    wrong: list[Message] = [Salted(0, Pull(ROOT)), Salted(MAX_TRIES, Pull(ROOT))]
    wrong += [Salted(1, Salted(1, Pull(ROOT))), Salted(1, AtCopy(Overview(ROOT)))]  # type: ignore[arg-type]
    for message in wrong:
        with pytest.raises(MessageError):
            from_fields(to_fields(message))
