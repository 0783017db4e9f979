"""A starting holder learns the newest of each advert that anybody honest has, whoever else claims what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from summaries_world import World, attributes

from summaries.claims import MAX_CLAIMS, MAX_SILENCES, Claims
from summaries.filter import Filter
from summaries.holder import Holder, Push, Reply
from summaries.holder_state import MAX_PUSHES
from summaries.messages import AdvertIs, Delete, Digest, Fetch, Message, NotReady, Posting, Pull, Read
from summaries.pending import MAX_GENERATIONS
from summaries.rank import Order
from summaries.schema import Schema
from summaries.trie import ROOT, is_near, keys_of

SAMPLE = [attributes(Random(seed)) for seed in range(200)]
SCHEMA = Schema.from_sample(SAMPLE, most=128)  # type: ignore[arg-type]
NAME, SEVERAL_KEYS = "price.cpu", "environment"
NOTHING = Digest(ROOT, False, 0, (), ())


@dataclass
class Replica:
    """One of the others: its rows, and what it says of them. Who lies shows what it likes, and serves what it likes."""

    rows: dict[tuple[int, int], tuple[int, bytes]] = field(default_factory=dict)  # (id, key): number, advert
    page: int = 35
    silent: frozenset[int] = frozenset()  # adverts for which it is asked in vain
    claims: dict[tuple[int, int], int] | None = None
    serves: dict[int, bytes | None] = field(default_factory=dict)

    def advert(self, id: int) -> tuple[int, bytes]:
        return max((row for (one, _), row in self.rows.items() if one == id), default=(-1, b""))

    def answer(self, question: Message) -> Message | None:
        if isinstance(question, Fetch):
            if question.id in self.silent:
                return None
            if self.claims is not None:
                advert = self.serves.get(question.id)
                return None if advert is None else AdvertIs(advert)
            return AdvertIs(self.advert(question.id)[1])
        assert isinstance(question, Pull)
        shown = self.claims if self.claims is not None else {at: seq for at, (seq, _) in self.rows.items()}
        places = sorted(shown)
        start = int(question.cursor[1]) if question.cursor else 0  # type: ignore[misc]
        end = start + self.page
        postings = tuple(Posting(*at, shown[at]) for at in places[start:end])
        return Digest(ROOT, True, 0, postings, (), (0, end, 0) if end < len(places) else ())


class Start:
    """A holder that starts among others, whose answers come in whatever order."""

    def __init__(
        self, world: World, others: dict[bytes, Replica], pick: Callable[[int], int], name: str = NAME
    ) -> None:
        self.world, self.others, self.pick = world, others, pick
        self.holder = Holder(SCHEMA, name, b"me", world.verify, incarnation=1, capacity=4_096)
        self.waiting: list[tuple[int, int, bytes, Message]] = []
        self.fetches: Counter[tuple[bytes, int]] = Counter()
        self.now_ms = world.now_ms
        self.take(self.holder.received(Read(ROOT, Filter(), Order()), b"r", 0, self.now_ms))

    def take(self, actions: list[Reply | Push]) -> None:
        for one in actions:
            if not isinstance(one, Push):
                continue
            to = [one.to] if one.to is not None else [b"me", *self.others]
            self.waiting += [(one.token, len(to), name, one.message) for name in to]
            if isinstance(one.message, Fetch) and one.to is not None:
                self.fetches[one.to, one.message.id] += 1

    def step(self) -> None:
        token, asked, name, question = self.waiting.pop(self.pick(len(self.waiting)))
        reply = NOTHING if name == b"me" else self.others[name].answer(question)
        self.take(self.holder.answered(token, asked, name, reply, self.now_ms))

    def run(self) -> Start:
        for _ in range(MAX_GENERATIONS + 1):
            while self.waiting:
                self.step()
            if self.ready:
                return self
            self.now_ms += 1_000
            self.take(self.holder.tick(self.now_ms))
        raise AssertionError("never ready")

    @property
    def ready(self) -> bool:
        return self.holder.nodes()[ROOT].ready

    def number(self, id: int, key: int) -> int:
        held = self.holder.nodes()[ROOT].rows.find(id, key)
        return -1 if held is None else held.seq


def in_turn(_: int) -> int:
    return 0


def row(world: World, raw: bytes) -> tuple[tuple[int, int], tuple[int, bytes]]:
    point = world.adverts[raw]
    return (point.id, keys_of(SCHEMA, NAME, point)[0]), (point.seq, raw)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([NAME, SEVERAL_KEYS]))
def test_every_row_that_somebody_honest_serves_is_held_and_as_new_as_anybody_honest_has_it(
    data: st.DataObject, name: str
) -> None:
    world = World(1, 1, SCHEMA)
    ids, numbers = range(1, 6), range(1, 4)
    place = {(id, seq): data.draw(st.integers(0, 3)) for id in ids for seq in numbers}
    raws = {at: world.advert(*at, SAMPLE[at[0] * 4 + sample]) for at, sample in place.items()}
    keys = {at: keys_of(SCHEMA, name, world.adverts[raw]) for at, raw in raws.items()}
    some = st.lists(st.sampled_from(sorted(raws)), max_size=12)
    others: dict[bytes, Replica] = {}
    for sender in (b"a", b"b", b"c")[: data.draw(st.integers(1, 3))]:
        rows: dict[tuple[int, int], tuple[int, bytes]] = {}
        for at in data.draw(some):
            for key in keys[at]:
                rows[at[0], key] = max(rows.get((at[0], key), (0, b"")), (at[1], raws[at]))
        others[sender] = Replica(rows, data.draw(st.integers(1, 9)), data.draw(st.frozensets(st.sampled_from(ids))))
    for sender in (b"x", b"y")[: data.draw(st.integers(0, 2))]:
        claims = {
            (at[0], key): data.draw(st.sampled_from([1, 2, 3, 4, 1 << 60]))
            for at in data.draw(some)
            for key in keys[at]
        }
        lies = st.none() | st.sampled_from([b"", b"forged", *raws.values()])
        others[sender] = Replica(claims=claims, serves={id: data.draw(lies) for id in ids})
    honest = [one for one in others.values() if one.claims is None]
    pick = data.draw(st.randoms(use_true_random=False)).randrange
    others = {sender: others[sender] for sender in data.draw(st.permutations(sorted(others)))}
    start = Start(world, others, pick, name).run()
    axis = SCHEMA.dimension(name)
    for replica in honest:
        for (id, key), (seq, _) in replica.rows.items():
            newest, _ = replica.advert(id)  # what is served, under whichever key it was shown
            if id not in replica.silent and any(is_near(axis, key, own) for own in keys[id, newest]):
                assert start.number(id, key) >= seq
    for raw in start.holder.nodes()[ROOT].rows.raw:
        assert raw in world.adverts
    liars = any(one.claims is not None for one in others.values())
    if not liars and not any(one.silent for one in honest) and all(len(set(one.rows)) <= one.page for one in honest):
        assert max(start.fetches.values(), default=1) == 1  # nobody is asked twice for what it shows at once


@pytest.mark.parametrize("first", ["old", "new", "same"])
@pytest.mark.parametrize("arrives_first", ["a", "b"])
def test_a_replica_learns_the_newest_of_each_advert_whoever_shows_it_first(first: str, arrives_first: str) -> None:
    world = World(1, 1, SCHEMA)
    old, new = (row(world, world.advert(1, seq, SAMPLE[0])) for seq in (1, 2))
    shown = {b"a": old if first == "old" else new, b"b": old if first == "new" else new}
    others = {name: Replica(dict([one])) for name, one in shown.items()}
    if arrives_first == "b":
        others = dict(reversed(others.items()))
    start = Start(world, others, in_turn).run()
    assert start.number(*old[0]) == 2
    assert start.fetches.total() <= 2
    # What is on its way is not fetched again, unless another one has a newer one.
    older_came_first = (first, arrives_first) in {("old", "a"), ("new", "b")}
    assert start.fetches.total() == (2 if older_came_first else 1)


def test_what_three_replicas_show_is_fetched_once() -> None:
    world = World(1, 1, SCHEMA)
    rows = dict(row(world, world.advert(1 + number, 1, SAMPLE[number])) for number in range(50))
    start = Start(world, {name: Replica(rows) for name in (b"a", b"b", b"c")}, Random(1).randrange).run()
    assert len(start.fetches) == 50 and start.fetches.total() == 50


@pytest.mark.parametrize("served", [None, b"", b"forged", "old"])
def test_who_claims_a_number_that_it_cannot_serve_hides_nobodys_row(served: bytes | str | None) -> None:
    world = World(1, 1, SCHEMA)
    old, new = (row(world, world.advert(1, seq, SAMPLE[0])) for seq in (1, 2))
    lie = old[1][1] if served == "old" else served
    liar = Replica(claims={old[0]: 1 << 60}, serves={1: lie})  # type: ignore[dict-item]
    start = Start(world, {b"x": liar, b"a": Replica(dict([new]))}, in_turn).run()
    assert start.number(*old[0]) == 2


def test_a_whole_leaf_is_learnt_though_its_digests_take_many_pages() -> None:
    world = World(1, 1, SCHEMA)
    rows = dict(row(world, world.advert(1 + number, 1, SAMPLE[number % 200])) for number in range(2_048))
    start = Start(world, {b"a": Replica(rows), b"b": Replica(rows)}, in_turn).run()
    assert len(start.holder.nodes()[ROOT].rows) == 2_048


def test_a_row_that_ended_while_it_was_on_its_way_does_not_come_back() -> None:
    world = World(1, 1, SCHEMA)
    at, held = row(world, world.advert(1, 1, SAMPLE[0]))
    end = world.advert(1, 2, SAMPLE[0], gone=True)
    start = Start(world, {b"a": Replica({at: held})}, in_turn)
    while not any(isinstance(one[3], Fetch) for one in start.waiting):
        start.step()
    start.take(start.holder.received(Delete(ROOT, at[1], end), b"s", 1, start.now_ms))
    assert start.run().number(*at) == -1


def test_what_finds_no_room_among_the_questions_in_flight_is_asked_later() -> None:
    world = World(1, 1, SCHEMA)
    rows = dict(row(world, world.advert(1 + number, 1, SAMPLE[number])) for number in range(3))
    start = Start(world, {b"a": Replica(rows)}, in_turn)
    state = start.holder._state
    busy = {token: next(iter(state.pushes.values())) for token in range(-MAX_PUSHES, 0)}
    state.pushes.update(busy)
    while start.waiting:
        start.step()
    assert not start.ready and not start.fetches
    for token in busy:
        del state.pushes[token]
    assert [start.run().number(*at) for at in rows] == [1, 1, 1]


def nothing(id: int, key: int) -> int:
    return -1


def test_what_one_shows_beyond_its_share_costs_nobody_elses() -> None:
    claims = Claims()
    for id in range(MAX_CLAIMS + 1):
        claims.note(1_000_000 + id, 1, 1, b"x")
    claims.note(1, 1, 1, b"a")
    asked = []
    while one := claims.next(nothing):
        asked.append(one)
        claims.answered(one[0])
    assert len(asked) == MAX_CLAIMS + 1 and asked[-1] == (1, b"a")


def test_who_stays_silent_is_asked_no_more_and_what_it_alone_showed_is_missing() -> None:
    claims = Claims()
    for id in range(2 * MAX_SILENCES):
        claims.note(id, 1, 2, b"x")
        claims.note(id, 1, 1, b"a")
    asked: Counter[bytes] = Counter()
    held: dict[int, int] = {}

    def newest(id: int, key: int) -> int:
        return held.get(id, -1)

    while one := claims.next(newest):
        asked[one[1]] += 1
        if one[1] == b"x":
            claims.unanswered(one[0])
        else:
            claims.answered(one[0])
            held[one[0]] = 1
    assert asked == {b"x": MAX_SILENCES, b"a": 2 * MAX_SILENCES}
    assert claims.missing(newest) and not claims.missing(lambda id, key: 2)


def test_who_is_silent_in_every_attempt_costs_no_row_that_another_serves() -> None:
    world = World(1, 1, SCHEMA)
    at, held = row(world, world.advert(1, 1, SAMPLE[0]))
    silent = Replica({at: (2, b"unseen")}, silent=frozenset([1]))
    start = Start(world, {b"x": silent, b"a": Replica({at: held})}, in_turn).run()
    assert start.number(*at) == 1
    assert start.fetches[b"x", 1] == MAX_GENERATIONS


def test_who_restarted_between_two_pages_has_not_told_all() -> None:
    world = World(1, 1, SCHEMA)
    rows = dict(row(world, world.advert(1 + number, 1, SAMPLE[number])) for number in range(4))
    other = Replica(rows, page=2)
    start = Start(world, {b"a": other, b"b": Replica()}, in_turn)
    while not any(isinstance(one[3], Pull) and one[3].cursor for one in start.waiting):
        start.step()
    place = next(place for place, one in enumerate(start.waiting) if isinstance(one[3], Pull) and one[3].cursor)
    token, asked, name, _ = start.waiting.pop(place)
    start.take(start.holder.answered(token, asked, name, NOTHING, start.now_ms))
    assert [start.run().number(*at) for at in rows] == [1] * 4


def test_a_reader_is_told_to_wait_until_all_has_come() -> None:
    world = World(1, 1, SCHEMA)
    start = Start(world, {b"a": Replica(dict([row(world, world.advert(1, 1, SAMPLE[0]))]))}, in_turn)
    while start.waiting:
        (reply,) = [
            one for one in start.holder.received(Read(ROOT, Filter(), Order()), b"r", 9, start.now_ms)
            if isinstance(one, Reply)
        ]  # fmt: skip
        assert isinstance(reply.message, NotReady)
        start.step()
    assert start.ready
