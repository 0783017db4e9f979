"""Split bits are for ever: what a stranger, one lying holder, and two that agree can do to a trie with them."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from summaries_world import World, attributes

from summaries.filter import Filter
from summaries.holder import Holder, Push, Reply
from summaries.messages import (
    Accepted,
    Digest,
    Insert,
    Locate,
    Marked,
    Message,
    Moved,
    Pull,
    Read,
    Refused,
    ZoneUpdate,
)  # fmt: skip
from summaries.node import TrieNode
from summaries.parse import parse
from summaries.point import Point, Rows
from summaries.publish import Publication
from summaries.rank import Order
from summaries.schema import Schema
from summaries.trie import ROOT, Prefix, keys_of, needed_splits, region, split_bit
from summaries.zone import Zone

SAMPLE = [attributes(Random(seed)) for seed in range(200)]
SCHEMA = Schema.from_sample(SAMPLE, most=128)  # type: ignore[arg-type]
NAME = "price.cpu"
EVERYTHING = (1 << 63) - 1
DEEP = Prefix(5, 6)


def leaf(prefix: Prefix = ROOT) -> Holder:
    """A holder with one empty leaf."""
    holder = Holder(
        SCHEMA, NAME, b"me", lambda raw, now: None, incarnation=1, may_hold=lambda prefix, one: one != b"stranger"
    )
    for push in holder.received(Read(prefix, Filter(), Order()), b"reader", 0, 1_000):
        if isinstance(push, Push):
            holder.answered(push.token, 1, b"me", Digest(prefix, False, 0, (), ()), 1_000)
    return holder


def tell(holder: Holder, message: Message, sender: bytes) -> Message | None:
    replies = [one.message for one in holder.received(message, sender, 9, 1_000) if isinstance(one, Reply)]
    return replies[0] if replies else None


def zone_of(child: Prefix, splits: int = EVERYTHING) -> ZoneUpdate:
    zone = Zone(bytes(len(SCHEMA.ordered)), b"\xff" * len(SCHEMA.ordered), count=9, leaves=1)
    return ZoneUpdate(child, 1, 1, zone, splits)


def test_a_stranger_cannot_split_a_leaf() -> None:
    holder = leaf()
    assert isinstance(tell(holder, Marked(ROOT, EVERYTHING), b"stranger"), Refused)
    assert isinstance(tell(holder, zone_of(DEEP), b"stranger"), Refused)
    assert not holder.nodes()[ROOT].splits and not holder.nodes()[ROOT].votes


def test_one_holder_cannot_split_a_leaf_however_often_and_in_whatever_message_it_says_so() -> None:
    holder = leaf()
    for message in (Marked(ROOT, EVERYTHING), zone_of(DEEP), zone_of(Prefix(0, 1)), Marked(ROOT, 1)) * 3:
        assert isinstance(tell(holder, message, b"liar"), Accepted)
    assert not holder.nodes()[ROOT].splits


def test_two_holders_that_agree_are_believed_in_what_they_agree_on() -> None:
    holder = leaf()
    tell(holder, Marked(ROOT, EVERYTHING), b"one")
    tell(holder, zone_of(Prefix(0, 1)), b"other")
    assert holder.nodes()[ROOT].splits == region(Prefix(0, 1))
    tell(holder, Marked(ROOT, 1), b"other")
    assert holder.nodes()[ROOT].splits == region(Prefix(0, 1)) | 1


def test_who_asks_for_the_way_is_told_who_holds_the_child() -> None:
    holder = leaf()
    for sender in (b"one", b"other"):
        tell(holder, zone_of(Prefix(0, 1), 0), sender)
        tell(holder, Marked(ROOT, 1), sender)
    assert tell(holder, Locate(ROOT, 5), b"publisher") == Moved(Prefix(0, 1), (b"one", b"other"))
    assert tell(holder, Locate(ROOT, 1 << 63), b"publisher") == Moved(Prefix(1, 1))


@pytest.mark.parametrize(
    ("length", "holders", "named"),
    [(1, (b"c", b"b"), {b"a", b"b", b"c"}), (1, (), set()), (2, (b"c",), set()), (0, (), set())],
    ids=["both", "one names nobody", "one leads deeper", "one is silent"],
)
def test_a_publisher_goes_by_the_holders_that_two_name(
    length: int, holders: tuple[bytes, ...], named: set[bytes]
) -> None:
    point = Point.from_attributes(SCHEMA, id=1, seq=1, expires_s=9, attributes=SAMPLE[0])  # type: ignore[arg-type]
    key = keys_of(SCHEMA, NAME, point)[0]
    publication = Publication(SCHEMA, NAME, point, b"advert")
    first, other = publication.start()
    assert not publication.answered(first, Moved(Prefix(key >> 63, 1), (b"a", b"b")))
    asks = publication.answered(other, Moved(Prefix(key >> 64 - length, length), holders) if length else None)
    assert len(asks) == 3 and all(isinstance(ask.message, Insert) and set(ask.named) == named for ask in asks)


def test_that_a_child_exists_is_no_proof_of_a_split() -> None:
    # Anybody can insert somebody's advert far below, at holders who then honestly tell of it.
    holder = leaf()
    for sender in (b"one", b"other", b"third"):
        assert isinstance(tell(holder, zone_of(DEEP, 0), sender), Accepted)
    node = holder.nodes()[ROOT]
    assert not node.splits and [child for child, _, _ in node.children()] == [DEEP]


def test_a_parent_cannot_split_its_children_by_an_acknowledgement_nor_a_peer_by_its_digest() -> None:
    world = World(1, 1, SCHEMA)
    raw = world.advert(1, 1, SAMPLE[0])
    key = keys_of(SCHEMA, NAME, world.adverts[raw])[0]
    child = Prefix(key >> 63, 1)
    holder = Holder(SCHEMA, NAME, b"me", world.verify, incarnation=1)
    (pull,) = holder.received(Insert(child, key, raw), b"server", 0, world.now_ms)
    assert isinstance(pull, Push) and isinstance(pull.message, Pull)
    holder.answered(pull.token, 3, b"liar", Digest(child, True, EVERYTHING, (), ()), world.now_ms)
    holder.answered(pull.token, 3, b"me", Digest(child, False, 0, (), ()), world.now_ms)
    (climb,) = holder.answered(pull.token, 3, b"honest", Digest(child, False, 0, (), ()), world.now_ms)
    assert isinstance(climb, Push) and isinstance(climb.message, ZoneUpdate)
    holder.answered(climb.token, 3, b"liar", Accepted(EVERYTHING), world.now_ms)
    holder.answered(climb.token, 3, b"honest", Accepted(1), world.now_ms)
    assert holder.nodes()[child].ready and not holder.nodes()[child].splits


class Shredders(World):
    """Some nodes say in every message that everything is split."""

    liars: frozenset[bytes] = frozenset()

    def act(self, name: bytes, dimension: str, actions: list[Reply | Push]) -> None:
        if name in self.liars:
            actions = [replace(one, message=_shred(one.message)) for one in actions]  # type: ignore[arg-type]
        super().act(name, dimension, actions)


def _shred(message: Message) -> Message:
    if isinstance(message, (Accepted, Marked, ZoneUpdate, Digest)):
        return replace(message, splits=EVERYTHING)
    return message


@pytest.mark.parametrize("seed", [1, 2])
def test_a_shredder_among_the_holders_leaves_the_tries_of_the_others_as_they_must_be(seed: int) -> None:
    world = Shredders(seed, 10, SCHEMA, capacity=8)
    liar = world.nearest(NAME, ROOT)[0]
    world.liars = frozenset([liar])
    raws = [world.advert(1 + number, 1, SAMPLE[number]) for number in range(60)]
    assert all(one.durable for one in world.publish_all(raws, [NAME]))
    world.run(40_000)
    keys = [keys_of(SCHEMA, NAME, world.adverts[raw])[0] for raw in raws]
    needed, found = needed_splits(ROOT, keys, 8), set()
    for name in world.names:
        for prefix, node in world.holders[name, NAME].nodes().items():
            if name != liar and node.is_split and prefix.length < 6:
                found.add(prefix)
                assert needed & split_bit(prefix), prefix
    assert len(found) > 5
    result = world.search(parse("cores >= 0"), dimension=NAME)
    assert result.complete and len(result.matches) == 60


def test_who_has_moved_has_one_voice_and_believes_itself() -> None:
    for who, others in ((b"l" * 20, 0), (b"i" * 20, 1)):
        holder = Holder(SCHEMA, NAME, b"i" * 20 + b"address", lambda raw, now: None, incarnation=1)
        holder.install(TrieNode(ROOT, SCHEMA, Rows(SCHEMA), ready=True))
        for address in (b"former", b"latter"):
            tell(holder, Marked(ROOT, 1), who + address)
        assert holder.nodes()[ROOT].splits == others
