from __future__ import annotations

from dataclasses import replace
from random import Random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from summaries_world import World, attributes

from summaries.cost import CostTest
from summaries.errors import MessageError
from summaries.filter import Comparison, Filter, Within
from summaries.forms import from_fields, to_fields
from summaries.holder import Reply
from summaries.messages import (
    Accepted,
    AdvertIs,
    Answer,
    Child,
    Delete,
    Digest,
    EntryFact,
    Fetch,
    Here,
    Insert,
    Locate,
    Marked,
    Moved,
    NotReady,
    Offer,
    Outline,
    Outlined,
    Overview,
    Posting,
    Pull,
    Read,
    Refused,
    Renew,
    Row,
    Stale,
    SumUpdate,
    Tallied,
    Tally,
    TallyChild,
    TallyPart,
    Wanted,
    ZoneUpdate,
)
from summaries.rank import Order
from summaries.renewal import Change
from summaries.schema import Schema
from summaries.size import packed_size
from summaries.sums import Aggregate, Priced, Sketch
from summaries.trie import ROOT, Prefix
from summaries.zone import Zone

ZONE = Zone(bytes(9), b"\xff" * 9, 2**64 - 1, (-32768,) * 3 + (32767,) * 3, 65535, 2**63 - 1, 2**32 - 1, 3)  # type: ignore[arg-type]
DEEP = Prefix(2**64 - 1, 64)
FILTER = Filter(
    (
        (Comparison("price.cpu", "<=", 5, "USD"), Comparison("os.linux", ">=", (6, 1), negated=True)),
        (Comparison("country", "=", "DE"), Within(((1, -2, 3, 4),), 5)),
        (CostTest((1, 2, 3), "<=", 4, "USD", True),),
    )
)
SKETCH = Sketch((0,) * 5 + (2**32 - 1, 200, 0, 0, 1) + (0,) * 22, 0, 2**63 - 1)
PRICED = (Priced("EUR", 3, (SKETCH,) * 4), Priced("USD", 4, (SKETCH,) * 4))
AGGREGATE = Aggregate(2**32 - 1, (1, 2, 3, 2**63 - 1), PRICED)
MESSAGES = [
    Locate(DEEP, 2**64 - 1),
    Insert(Prefix(1, 1), 2**63, bytes(1040)),
    Delete(ROOT, 0, b"x"),
    Renew(Prefix(1, 1), 2**63, 2**64 - 1, 2**60, True, (Change(0, b"ab"), Change(7, b"c", 0), Change(1_039, b""))),
    Read(DEEP, FILTER, Order("cost", True, "USD", (1, 2, 3)), 5, -7, 2, 9, True),
    Read(ROOT, Filter(), Order("latency", hosts=((1, -2, 3, 4),))),
    Read(ROOT, FILTER, Order("weighted", currency="USD", amounts=(1, 2, 3), weights=(("cost", 700), ("latency", 300)))),
    Tally(DEEP, FILTER, "region", True, 7, True),
    SumUpdate(DEEP, 2**64 - 1, 2**64 - 1, AGGREGATE),
    Tallied(DEEP, (TallyPart("eu", 5, 6, AGGREGATE),), (TallyChild(DEEP, 1, 2, (b"h" * 26,)),), 9, 2**64 - 1, True),
    Fetch(ROOT, 2**64 - 1),
    Pull(ROOT, (1, 0, 6, b"holder")),
    ZoneUpdate(DEEP, 2**64 - 1, 2**64 - 1, ZONE, 2**63 - 1),
    Marked(ROOT, 1),
    Accepted(3),
    Offer(DEEP, (Posting(1, 2, 3),)),
    Wanted((0, 3)),
    Moved(DEEP),
    Moved(DEEP, (b"h" * 26, b"i" * 38)),
    Here(),
    Stale(2**64 - 2),
    Answer(ROOT, (), (), 5, 6, 3, 4),
    Answer(
        ROOT, (Child(DEEP, -1, 2, 3, 4, (b"h" * 38,)),), (Row(1, 2, -4, b"c"), Row(2, 9, 300, b"")), 5, 6, 3, 2**64 - 1
    ),
    Overview(ROOT, 3),
    Outline(ROOT, (Outlined(DEEP, ZONE, 2**32 - 1, 3, (b"h" * 26,)),), 5, True),
    AdvertIs(b""),
    Digest(ROOT, True, 1, (Posting(1, 2, 3),), (EntryFact(DEEP, b"h", 1, 2, ZONE),), ()),
    NotReady(100),
    Refused("why"),
]
junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=9),
    max_leaves=30,
)


def test_every_message_survives_its_fields_and_its_size_is_known() -> None:
    for message in MESSAGES:
        fields = to_fields(message)
        packed = msgpack.packb(fields)
        assert len(packed) == packed_size(fields), message
        assert from_fields(msgpack.unpackb(packed)) == message


def test_a_zone_of_the_former_form_may_hold_any_word_unless_it_held_none() -> None:
    """It had one of 64 bits a word, others than ours, as an integer."""
    for former, words in ((0, 0), (1, 2**256 - 1), (2**64 - 1, 2**256 - 1)):
        fields = to_fields(ZoneUpdate(DEEP, 1, 1, ZONE, 0))
        fields[4][8] = former
        update = from_fields(msgpack.unpackb(msgpack.packb(fields)))
        assert update == ZoneUpdate(DEEP, 1, 1, replace(ZONE, words=words), 0)
        assert from_fields(to_fields(update)) == update
    for neither in (-1, 2**64, True, b"w" * 33, None):
        fields[4][8] = neither
        with pytest.raises(MessageError):
            from_fields(fields)


@given(junk | st.tuples(st.integers(0, 27), junk).map(lambda pair: [pair[0], *(pair[1] or [])]
       if isinstance(pair[1], list) else list(pair)))  # fmt: skip
def test_any_value_is_decoded_or_refused(value: object) -> None:
    try:
        message = from_fields(value)
    except MessageError:
        return
    assert from_fields(to_fields(message)) == message


@given(st.sampled_from(MESSAGES), st.data())
def test_a_message_with_one_field_replaced_never_crashes_a_holder(message: object, data: st.DataObject) -> None:
    fields = to_fields(message)  # type: ignore[arg-type]
    where = fields
    while True:  # walk to some place in the nested lists and put junk there
        place = data.draw(st.integers(0, len(where) - 1))
        if isinstance(where[place], list) and where[place] and data.draw(st.booleans()):
            where = where[place]
            continue
        where[place] = data.draw(junk)
        break
    try:
        broken = from_fields(fields)
    except MessageError:
        return
    holder = next(iter(WORLD.holders.values()))
    before = holder.statistics()["rows"]
    actions = holder.received(broken, b"stranger", 1, 1_000)
    assert all(isinstance(action.message, tuple(map(type, MESSAGES))) for action in actions)
    assert sum(isinstance(action, Reply) for action in actions) <= 257
    assert holder.statistics()["rows"] == before


WORLD = World(1, 1, Schema.from_sample([attributes(Random(seed)) for seed in range(50)]))  # type: ignore[misc]
