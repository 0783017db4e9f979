"""Heartbeats that send what changed: the same rows as whole adverts leave, and the whole to whoever lacks the base."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from summaries_world import World, attributes

from summaries.errors import MessageError
from summaries.messages import Delete, Insert, Message, Renew
from summaries.point import MAX_ADVERT_BYTES
from summaries.publish import Before, Posting, Publication
from summaries.query import Query
from summaries.renewal import Change, changed, changes_of
from summaries.schema import Schema

NAME = "disk.available"
SCHEMA = Schema.from_sample([attributes(Random(number)) for number in range(200)], most=128)  # type: ignore[arg-type]
adverts = st.binary(min_size=200, max_size=300)


@given(adverts, st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=30))
def test_what_is_sent_makes_the_new_advert_of_the_old_one(old: bytes, edits: list[tuple[int, int]]) -> None:
    new = bytearray(old)
    for place, value in edits:
        new[place] = value
    changes = changes_of(old, bytes(new))
    assert not changes or changed(old, changes) == bytes(new)
    assert changes or bytes(new) == old or 5 * len(edits) > len(old) // 2


splices = st.lists(st.tuples(st.integers(0, 599), st.integers(0, 9), st.binary(max_size=9)), max_size=6)


@given(st.integers(0, 2**32), splices)
def test_one_that_grew_or_shrank_is_sent_by_what_changed(seed: int, edits: list[tuple[int, int, bytes]]) -> None:
    old = new = Random(seed).randbytes(600)  # in which eight bytes stand once
    for place, removed, data in sorted(edits, reverse=True):
        new = new[:place] + data + new[place + removed :]
    changes = changes_of(old, new)
    assert changed(old, changes) == new
    # Eight equal bytes tell where both go on, so changes nearer to one another are one.
    told = sum(len(one.data) for one in changes)
    assert told <= sum(len(data) + 8 for _, _, data in edits) or len(old) == len(new)


@given(adverts, adverts, st.integers(0, 40))
def test_whatever_is_sent_makes_the_new_advert(old: bytes, new: bytes, zeros: int) -> None:
    for one, other in ((old, new), (bytes(zeros) + old, old), (old, old[:100] + bytes(zeros) + old[100:])):
        changes = changes_of(one, other)
        assert not changes or changed(one, changes) == other


@given(adverts, adverts)
def test_what_is_not_worth_while_is_sent_whole(old: bytes, new: bytes) -> None:
    changes = changes_of(old, new)
    assert sum(len(one.data) for one in changes) <= len(new) // 2
    assert not changes or changed(old, changes) == new


def test_a_change_beyond_the_end_or_before_another_one_is_refused() -> None:
    for changes in ((Change(2, b"xy"),), (Change(3, b"", 1),), (Change(1, b"x"), Change(0, b"y"))):
        with pytest.raises(MessageError):
            changed(b"abc", changes)
    assert changed(b"abc", (Change(0, b"", 1), Change(2, b"xy", 0))) == b"bxyc"


class Heard(World):
    """A world that notes what is sent to holders about rows."""

    def __init__(self) -> None:
        super().__init__(5, 8, SCHEMA)
        self.sent: list[type[Message]] = []
        self.values = attributes(Random(1))

    def rpc(self, source: bytes, target: bytes, dimension: str, message: Message, done: object) -> None:  # type: ignore[override]
        if source == b"searcher" and isinstance(message, (Insert, Delete, Renew)):
            self.sent.append(type(message))
        super().rpc(source, target, dimension, message, done)  # type: ignore[arg-type]

    def heartbeat(self, seq: int, postings: tuple[Posting, ...] = (), before: Before | None = None) -> Publication:
        """Publish an advert that differs from others in its number alone."""
        point = self.adverts[self.advert(1, seq, self.values)]
        raw = raw_of(seq)
        self.adverts[raw], self.current[point.contact] = point, raw
        self.sent.clear()
        publication = self.publish(NAME, raw, postings, before)
        self.run(until=lambda: publication.finished)
        self.run(1_000)
        assert publication.durable
        return publication

    def raws(self) -> list[bytes | None]:
        nodes = [node for (_, name), holder in self.holders.items() if name == NAME for node in holder.nodes().values()]
        return [node.rows.raw_of(1) for node in nodes if len(node.rows)]


def raw_of(seq: int) -> bytes:
    return b"advert" + seq.to_bytes(8, "big") + bytes(seq) + Random(1).randbytes(600)  # each is longer than the last


def test_a_heartbeat_sends_changes_and_every_holder_has_the_whole_advert() -> None:
    world = Heard()
    first = world.heartbeat(1)
    assert set(world.sent) == {Insert}
    world.heartbeat(2, first.postings, Before(1, raw_of(1)))
    assert world.sent == [Renew] * 3
    assert world.raws() == [raw_of(2)] * 3
    assert [match.seq for match in world.search(Query(), dimension=NAME).matches] == [2]


def test_a_holder_that_lacks_the_last_advert_is_sent_the_whole() -> None:
    world = Heard()
    first = world.heartbeat(1)
    second = world.heartbeat(2, first.postings, Before(1, raw_of(1)))
    missed = world.heartbeat(4, second.postings, Before(3, raw_of(3)))  # the third was never heard of
    assert world.sent == [Renew] * 3 + [Insert] * 3
    assert world.raws() == [raw_of(4)] * 3 and missed.durable


def test_a_row_that_moves_is_deleted_by_changes_too() -> None:
    world = Heard()
    first = world.heartbeat(1)
    old = world.values["disk.available"]
    world.values["disk.available"] = 0 if old else 10**15
    second = world.heartbeat(2, first.postings, Before(1, raw_of(1)))
    assert set(world.sent) <= {Insert, Renew} and world.raws() == [raw_of(2)] * 3
    assert [posting.key for posting in second.postings] != [posting.key for posting in first.postings]
    assert len(world.search(Query(), dimension=NAME).matches) == 1


def test_no_changes_make_an_advert_that_no_message_could_carry() -> None:
    world = Heard()
    posting = world.heartbeat(1).postings[0]
    holder = next(
        one for (_, name), one in world.holders.items()
        if name == NAME and any(node.rows.find(1, posting.key) for node in one.nodes().values())
    )  # fmt: skip

    def renewed_by(seq: int, data: bytes) -> None:
        before = raw_of(1)
        world.adverts[data] = replace(world.adverts[before], seq=seq)
        message = Renew(posting.leaf, posting.key, 1, 1, False, (Change(0, data, len(before)),))
        holder.received(message, b"anybody", seq, world.now_ms)

    renewed_by(3, bytes(MAX_ADVERT_BYTES + 1))
    assert world.raws() == [raw_of(1)] * 3
    renewed_by(2, bytes(MAX_ADVERT_BYTES))
    assert bytes(MAX_ADVERT_BYTES) in world.raws()
