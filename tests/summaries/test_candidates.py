"""Which adverts a search shows, when holders disagree about them or have handed them on."""

from __future__ import annotations

from itertools import count
from random import Random

from summaries_world import World, attributes

from summaries.asks import Ask, Probe
from summaries.candidates import Candidates, Page
from summaries.idset import IdSet
from summaries.messages import AdvertIs, Fetch, Moved, Row
from summaries.parse import parse
from summaries.result import Match, Tally
from summaries.schema import Schema
from summaries.trie import Prefix, keys_of
from summaries.visit import Source

SAMPLE = [attributes(Random(seed)) for seed in range(60)]
SCHEMA = Schema.from_sample(SAMPLE, most=128)  # type: ignore[arg-type]
NAME = "price.cpu"
LEAF, BELOW = Prefix(0, 1), Prefix(0, 2)
HONEST, LIAR = Source(b"honest"), Source(b"liar")
NOW_MS = 1_000_000


class Finishing:
    """A search's last step: one server with one advert, holders that say what a test wants."""

    def __init__(self, text: str = "cores >= 0") -> None:
        self.world = World(1, 1, SCHEMA)
        self.raw = self.world.advert(7, 3, SAMPLE[0])
        self.point = self.world.adverts[self.raw]
        self.out: list[Ask | Probe] = []
        self.query = parse(text, currency="USD")
        self.candidates = Candidates(
            self.query, self.world.verify, "probe", IdSet(), None, Tally(), count(1), self.out
        )

    def offer(self, row: Row, source: Source, prefix: Prefix = LEAF) -> None:
        self.candidates.offer(Page(NAME, prefix, 1, source), (row,))

    def answer(self, holders: dict[bytes | None, object], servers: dict[bytes, bytes | None]) -> tuple[Match, ...]:
        self.candidates.finish(10**18)
        while self.out:
            one = self.out.pop(0)
            if isinstance(one, Probe):
                self.candidates.probed(one, servers.get(one.contact), NOW_MS, 5)
            else:
                reply = holders.get(one.holder)
                self.candidates.fetched(one, reply, NOW_MS)  # type: ignore[arg-type]
            self.candidates.finish(10**18)
        return self.candidates.found()

    @property
    def row(self) -> Row:
        return Row(7, 3, 5, self.point.contact)


def test_an_advert_that_was_handed_down_is_fetched_where_it_is_now() -> None:
    finishing = Finishing()
    finishing.offer(finishing.row, HONEST)
    holders = {b"honest": Moved(BELOW), None: AdvertIs(finishing.raw)}
    assert [one.id for one in finishing.answer(holders, {})] == [7]
    assert not finishing.candidates.unverified


def test_moved_answers_lead_down_and_nowhere_else_and_come_to_an_end() -> None:
    finishing = Finishing()
    finishing.offer(finishing.row, LIAR)
    assert not finishing.answer({b"liar": Moved(Prefix(1, 1)), None: Moved(BELOW)}, {})
    assert list(finishing.candidates.unverified) == [7]


def test_a_forged_newer_row_hides_no_server() -> None:
    for first, second in ((HONEST, LIAR), (LIAR, HONEST)):
        finishing = Finishing()
        forged = Row(7, 2**60, 10**9, b"nowhere")
        for source in (first, second):
            finishing.offer(forged if source is LIAR else finishing.row, source)
        found = finishing.answer({b"liar": AdvertIs(b"junk")}, {finishing.point.contact: finishing.raw})
        assert [(one.id, one.seq) for one in found] == [(7, 3)]
        # Nor does it afterwards: the server itself has answered.
        finishing.offer(forged, LIAR)
        assert [one.seq for one in finishing.answer({}, {})] == [3]


def test_a_silent_server_is_shown_by_an_honest_holder_whatever_others_forge() -> None:
    finishing = Finishing()
    finishing.offer(finishing.row, HONEST)
    holders = {b"honest": AdvertIs(finishing.raw), b"liar": AdvertIs(b"")}
    assert [one.seq for one in finishing.answer(holders, {})] == [3]
    finishing.offer(Row(7, 2**60, 0, b"nowhere"), LIAR)
    assert [one.seq for one in finishing.answer(holders, {})] == [3]


def test_a_server_that_answers_with_junk_is_shown_by_a_holder_or_not_at_all() -> None:
    for held, seqs in ((True, [3]), (False, [])):
        finishing = Finishing()
        finishing.offer(finishing.row, HONEST)
        holders = {b"honest": AdvertIs(finishing.raw if held else b"junk")}
        found = finishing.answer(holders, {finishing.point.contact: b"junk"})  # type: ignore[arg-type]
        assert [one.seq for one in found] == seqs
        assert not finishing.candidates.is_busy and finishing.candidates.count == len(seqs)


def test_a_forged_rank_does_not_push_a_server_out_of_the_best() -> None:
    finishing = Finishing("cores >= 0 order by cores limit 1")
    finishing.offer(Row(7, 4, 10**12, b"nowhere"), LIAR)
    finishing.offer(finishing.row, HONEST)
    finishing.offer(Row(8, 1, 10**6, b"other"), HONEST)
    found = finishing.answer({}, {finishing.point.contact: finishing.raw})
    assert [one.id for one in found] == [7]


def test_of_a_replica_that_makes_rows_up_only_a_few_are_looked_into_and_none_makes_the_answer_partial() -> None:
    finishing = Finishing()
    finishing.offer(finishing.row, LIAR)
    finishing.offer(finishing.row, HONEST)
    for number in range(100):
        finishing.offer(Row(1_000 + number, 1, 0, b""), LIAR)
    asked: list[Ask | Probe] = []
    finishing.out = finishing.candidates._out = _Noting(asked)
    found = finishing.answer({b"liar": AdvertIs(b"junk")}, {finishing.point.contact: finishing.raw})
    assert [one.id for one in found] == [7] and not finishing.candidates.unverified
    assert len(asked) <= 1 + 32 + 4  # the honest one, what was under way at once, and no more


class _Noting(list[Ask | Probe]):
    """Questions to be sent, all of them remembered."""

    def __init__(self, every: list[Ask | Probe]) -> None:
        super().__init__()
        self._every = every

    def append(self, one: Ask | Probe) -> None:
        super().append(one)
        self._every.append(one)


def test_a_holder_says_where_it_has_handed_a_row() -> None:
    world = World(3, 8, SCHEMA, capacity=2)
    raws = [world.advert(1 + number, 1, SAMPLE[number]) for number in range(30)]
    world.publish_all(raws, [NAME])
    world.run(30_000)
    told = 0
    for (_, dimension), holder in world.holders.items():
        for prefix, node in holder.nodes().items() if dimension == NAME else ():
            for id, (key, _) in node.handed.items():
                (reply,) = holder.received(Fetch(prefix, id), b"r", 1, world.now_ms)
                assert isinstance(reply.message, Moved) and reply.message.prefix.contains(key)  # type: ignore[union-attr]
                assert key in keys_of(SCHEMA, NAME, world.adverts[raws[id - 1]])
                told += 1
    assert told


def asked_twice(finishing: Finishing) -> tuple[Probe, Ask]:
    """A server is slow: its advert is asked of the holder as well."""
    finishing.offer(finishing.row, HONEST)
    finishing.candidates.finish(10**18)
    [probe] = finishing.out
    finishing.out.clear()
    finishing.candidates.slow(probe.number)
    [fetch] = finishing.out
    finishing.out.clear()
    assert isinstance(probe, Probe) and isinstance(fetch, Ask) and isinstance(fetch.message, Fetch)
    return probe, fetch


def test_a_slow_server_is_shown_by_its_holder_and_is_right_about_itself_when_it_answers() -> None:
    finishing = Finishing()
    probe, fetch = asked_twice(finishing)
    newer = finishing.world.advert(7, 4, SAMPLE[1])
    finishing.candidates.fetched(fetch, AdvertIs(finishing.raw), NOW_MS)
    assert not finishing.candidates.is_busy
    [match] = finishing.candidates.found()
    assert (match.seq, match.round_trip_us) == (3, None)
    finishing.candidates.probed(probe, newer, NOW_MS, 5)
    [match] = finishing.candidates.found()
    assert (match.seq, match.round_trip_us) == (4, 5)


def test_the_servers_own_answer_stays_when_its_holder_is_the_slower_one() -> None:
    finishing = Finishing()
    probe, fetch = asked_twice(finishing)
    newer = finishing.world.advert(7, 4, SAMPLE[1])
    finishing.candidates.probed(probe, newer, NOW_MS, 5)
    assert not finishing.candidates.is_busy
    finishing.candidates.fetched(fetch, AdvertIs(finishing.raw), NOW_MS)
    assert [match.seq for match in finishing.candidates.found()] == [4]


def test_a_slow_server_is_waited_for_where_nobody_else_has_its_advert() -> None:
    finishing = Finishing()
    probe, fetch = asked_twice(finishing)
    finishing.candidates.fetched(fetch, None, NOW_MS)
    assert finishing.candidates.is_busy and not finishing.candidates.unverified
    finishing.candidates.probed(probe, finishing.raw, NOW_MS, 5)
    assert not finishing.candidates.is_busy and len(finishing.candidates.found()) == 1


def test_a_server_that_stays_silent_and_whose_holders_are_silent_is_named_once() -> None:
    finishing = Finishing()
    probe, fetch = asked_twice(finishing)
    finishing.candidates.probed(probe, None, NOW_MS, None)
    assert finishing.candidates.is_busy and not finishing.out
    finishing.candidates.fetched(fetch, None, NOW_MS)
    assert not finishing.candidates.is_busy and list(finishing.candidates.unverified) == [7]


def test_a_slow_server_that_no_longer_matches_by_its_own_word_is_left_out_even_late() -> None:
    finishing = Finishing("cores >= 0")
    probe, fetch = asked_twice(finishing)
    finishing.candidates.fetched(fetch, AdvertIs(finishing.raw), NOW_MS)
    gone = finishing.world.advert(7, 4, SAMPLE[1], gone=True)
    finishing.candidates.probed(probe, gone, NOW_MS, 5)
    assert not finishing.candidates.found() and not finishing.candidates.is_busy
