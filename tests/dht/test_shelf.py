"""What one node holds: bounded whatever is written, newest wins, gone when it expires."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dht.envelope import seal
from dht.errors import EnvelopeError, LocalError
from dht.identity import ED25519
from dht.record import MAX_LIFE_MS, Record, open_record, owned_key, seal_record
from dht.shelf import KNOWN, MAX_OWNERS_PER_KEY, MAX_RECORDS_PER_OWNER, MAX_WRITES_PER_MINUTE, STORED, Shelf

OWNERS = [ED25519.generate(bytes([n]) * 32) for n in range(1, 4)]
KEYS = [bytes([n]) * 20 for n in range(4)]


def record(
    owner: int = 0, key: bytes = KEYS[0], seq: int = 1, expires_ms: int = 100_000, payload: bytes = b""
) -> Record:
    raw = seal_record(OWNERS[owner], "cpu", key, seq, expires_ms, payload)
    return open_record(raw, ED25519, "cpu", key, 0)


def test_newest_wins_and_replays_are_refused() -> None:
    shelf = Shelf()
    assert shelf.put(KEYS[0], record(seq=2), 0) == STORED
    assert shelf.put(KEYS[0], record(seq=2), 0) == KNOWN
    assert shelf.put(KEYS[0], record(seq=1), 0) == "stale"
    assert shelf.put(KEYS[0], record(seq=2, payload=b"x"), 0).startswith("conflict")
    assert shelf.put(KEYS[0], record(seq=3), 0) == STORED
    assert [each.seq for each in shelf.get(KEYS[0], 0)] == [3]


def test_what_expires_is_gone_and_weighs_nothing() -> None:
    shelf = Shelf()
    shelf.put(KEYS[0], record(expires_ms=500), 0)
    assert shelf.get(KEYS[0], 499) and not shelf.get(KEYS[0], 500)
    assert shelf.put(KEYS[1], record(key=KEYS[1], expires_ms=500), 600) == "expired"
    assert shelf.used_bytes == 0 and len(shelf) == 0 and shelf.all_keys() == []


def test_a_flood_by_one_owner_keeps_no_more_than_its_quota() -> None:
    shelf, kept = Shelf(), 0
    for n in range(400):
        key = n.to_bytes(20, "big")
        kept += shelf.put(key, record(key=key), n) == STORED
    assert kept == min(MAX_OWNERS_PER_KEY, MAX_RECORDS_PER_OWNER, MAX_WRITES_PER_MINUTE)
    for n in range(400):
        key = n.to_bytes(20, "big")
        kept += shelf.put(key, record(key=key), 70_000 + n) == STORED
    assert kept == MAX_RECORDS_PER_OWNER == len(shelf)


def test_all_owners_together_fill_no_more_than_the_bound() -> None:
    shelf = Shelf(max_bytes=3_000)
    outcomes = [shelf.put(KEYS[n], record(owner=n, key=KEYS[n]), 0) for n in range(3)]
    assert outcomes == [STORED, STORED, "full"] and shelf.used_bytes <= 3_000


def test_a_plain_record_cannot_be_moved_and_an_advert_can() -> None:
    raw = seal_record(OWNERS[0], "cpu", KEYS[0], 1, 100, b"x")
    for dimension, key, now_ms in (("memory", KEYS[0], 0), ("cpu", KEYS[1], 0), ("cpu", KEYS[0], 100)):
        with pytest.raises(EnvelopeError):
            open_record(raw, ED25519, dimension, key, now_ms)
    advert = seal(OWNERS[0], "advert", {"seq": 1, "expires_ms": 100}).raw
    assert open_record(advert, ED25519, "any", KEYS[3], 0).owner == OWNERS[0].public_key


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"seq": 1},
        {"seq": -1, "expires_ms": 5},
        {"seq": True, "expires_ms": 5},
        {"seq": 1, "expires_ms": b""},
        {"seq": 1, "expires_ms": 2 * MAX_LIFE_MS},
    ],
)
def test_an_envelope_without_a_sane_sequence_and_expiry_is_no_record(body: dict[str, int]) -> None:
    with pytest.raises(EnvelopeError):
        open_record(seal(OWNERS[0], "advert", body).raw, ED25519, "cpu", KEYS[0], 0)


def test_squatters_on_a_key_cannot_keep_its_one_owner_out() -> None:
    shelf = Shelf()
    key = owned_key("cpu", OWNERS[0].public_key, "profile")
    for n in range(100):
        squatter = ED25519.generate(n.to_bytes(32, "big"))
        raw = seal_record(squatter, "cpu", key, 1, 100_000, b"")
        shelf.put(key, open_record(raw, ED25519, "cpu", key, 0), 0)
    assert len(shelf) == MAX_OWNERS_PER_KEY
    raw = seal_record(OWNERS[0], "cpu", key, 1, 100_000, b"mine", name="profile")
    assert shelf.put(key, open_record(raw, ED25519, "cpu", key, 0), 0) == STORED
    held = shelf.get_of(key, OWNERS[0].public_key, 0)
    assert held is not None and held.payload == b"mine"


def test_a_value_of_one_writer_is_refused_to_everybody_else() -> None:
    key = owned_key("cpu", OWNERS[0].public_key, "profile")
    with pytest.raises(LocalError):
        seal_record(OWNERS[1], "cpu", key, 1, 100, b"", name="profile")
    body = {"overlay": "cpu", "key": key, "seq": 1, "expires_ms": 100, "payload": b"", "name": "profile"}
    with pytest.raises(EnvelopeError, match="one writer"):
        open_record(seal(OWNERS[1], "dht-record", body).raw, ED25519, "cpu", key, 0)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_flood_never_drops_a_live_record_of_an_owner_who_holds_less(data: st.DataObject) -> None:
    """Whatever is written: eviction takes from those who held more than the writer then holds."""
    shelf = Shelf(max_bytes=data.draw(st.integers(3_000, 12_000)))
    writes = st.tuples(st.integers(0, 2), st.sampled_from(KEYS), st.integers(0, 6), st.integers(0, 400))
    for n, (owner, key, seq, size_bytes) in enumerate(data.draw(st.lists(writes, max_size=30))):
        new = record(owner, key, seq, 100_000 + n, bytes(size_bytes))
        before = {(at, each.owner) for at in KEYS for each in shelf.get(at, n)}
        weights = {each.public_key: shelf.bytes_of(each.public_key.hex()) for each in OWNERS}
        outcome = shelf.put(key, new, n, limited=False)
        after = {(at, each.owner) for at in KEYS for each in shelf.get(at, n)}
        assert shelf.used_bytes <= shelf.max_bytes
        assert shelf.used_bytes == sum(shelf.bytes_of(each.public_key.hex()) for each in OWNERS)
        for _, loser in before - after:
            assert outcome == STORED and loser != new.owner
            assert weights[loser] > shelf.bytes_of(new.payer)


def test_a_flooder_pays_for_newcomers_and_nobody_pays_for_a_flooder() -> None:
    shelf = Shelf(max_bytes=20_000)
    for n in range(64):
        key = n.to_bytes(20, "big")
        shelf.put(key, record(0, key, 1, 90_000), 0, limited=False)
    assert shelf.put(KEYS[1], record(1, KEYS[1]), 0) == STORED and shelf.evictions == 1
    assert shelf.put(KEYS[2], record(2, KEYS[2]), 0) == STORED
    for n in range(64, 128):
        key = n.to_bytes(20, "big")
        assert shelf.put(key, record(0, key), 0, limited=False).startswith(("full", "quota"))
    assert shelf.get(KEYS[1], 0) and shelf.get(KEYS[2], 0)


def test_all_keys_of_an_entity_share_its_quotas() -> None:
    shelf, outcomes = Shelf(), []
    for n in range(150):
        key = n.to_bytes(20, "big")
        outcomes.append(shelf.put(key, replace(record(n % 3, key), account="server-1"), 30_000 * n // 60))
    assert outcomes.count(STORED) == MAX_RECORDS_PER_OWNER == len(shelf)
    assert shelf.put(KEYS[1], replace(record(1, KEYS[1]), account="server-2"), 0) == STORED


def test_an_entity_of_many_keys_does_not_drop_the_records_of_one_that_holds_less() -> None:
    """By keys each of its owners is the lightest; by entities it is the one that pays."""
    crowd = [ED25519.generate(bytes([0, n]) * 16) for n in range(60)]
    shelf = Shelf(max_bytes=40_000)
    mine = [n.to_bytes(20, "big") for n in range(10)]
    for key in mine:
        assert shelf.put(key, replace(record(0, key), account="honest"), 0) == STORED
    for n, owner in enumerate(crowd):
        key = (1_000 + n).to_bytes(20, "big")
        new = open_record(seal_record(owner, "cpu", key, 1, 100_000, b""), ED25519, "cpu", key, 0)
        shelf.put(key, replace(new, account="by crowd"), 0)
    assert all(shelf.get(key, 0) for key in mine)
    assert shelf.bytes_of("by crowd") > shelf.bytes_of("honest")
    later = replace(record(2, KEYS[3]), account="newcomer")
    assert shelf.put(KEYS[3], later, 0) == STORED and all(shelf.get(key, 0) for key in mine)


def test_a_neighbour_may_bring_more_than_one_owner_may_hold() -> None:
    shelf = Shelf()
    for n in range(200):
        key = n.to_bytes(20, "big")
        assert shelf.put(key, replace(record(0, key), account="by neighbour"), 0) == STORED
    assert len(shelf) == 200 and shelf.bytes_of("by neighbour") == shelf.used_bytes


def test_who_wrote_a_record_answers_for_it_once_it_brings_it_itself() -> None:
    shelf = Shelf()
    for n in range(MAX_RECORDS_PER_OWNER):
        key = n.to_bytes(20, "big")
        shelf.put(key, replace(record(0, key), account="by neighbour"), 0, limited=False)
    first = (0).to_bytes(20, "big")
    assert shelf.put(first, replace(record(0, first), account="owner"), 0) == KNOWN
    assert shelf.bytes_of("owner") and shelf.used_bytes == shelf.bytes_of("owner") + shelf.bytes_of("by neighbour")
    newer = replace(record(0, (1).to_bytes(20, "big"), seq=2), account="owner")
    assert shelf.put((1).to_bytes(20, "big"), newer, 0) == STORED
    assert shelf.bytes_of("owner") == 2 * shelf.used_bytes // MAX_RECORDS_PER_OWNER
    shelf.expire(100_000)
    assert shelf.used_bytes == shelf.bytes_of("owner") == shelf.bytes_of("by neighbour") == 0


class ShelfMachine(RuleBasedStateMachine):
    """Random writes and time, against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf()
        self.model: dict[tuple[bytes, bytes], Record] = {}
        # What was replaced by something that ends sooner: until when, and the least number that may follow.
        self.replaced: dict[tuple[bytes, bytes], tuple[int, int]] = {}
        self.now_ms = 0

    @rule(
        owner=st.integers(0, 2),
        key=st.sampled_from(KEYS),
        seq=st.integers(0, 4),
        life_ms=st.integers(1, 3_000),
        account=st.sampled_from(["", "one", "two"]),
    )
    def write(self, owner: int, key: bytes, seq: int, life_ms: int, account: str) -> None:
        new = replace(record(owner, key, seq, self.now_ms + life_ms), account=account)
        name = (key, new.owner)
        held, (until_ms, least) = self.model.get(name), self.replaced.get(name, (0, 0))
        outcome = self.shelf.put(key, new, self.now_ms, limited=False)
        if seq > held.seq if held is not None else until_ms <= self.now_ms or seq >= least:
            assert outcome == STORED
            self.model[name] = new
            if held is not None:
                self.replaced[name] = (max(held.expires_ms, until_ms), seq)
        else:
            assert outcome != STORED

    @rule(step_ms=st.integers(0, 2_000))
    def wait(self, step_ms: int) -> None:
        self.now_ms += step_ms
        self.model = {name: kept for name, kept in self.model.items() if kept.expires_ms > self.now_ms}

    @invariant()
    def agrees(self) -> None:
        for key in KEYS:
            held = {each.owner: each for each in self.shelf.get(key, self.now_ms)}
            assert held == {owner: kept for (at, owner), kept in self.model.items() if at == key}
        assert len(self.shelf) == len(self.model)
        assert (self.shelf.used_bytes == 0) == (not self.model)
        payers = ["one", "two", *(each.public_key.hex() for each in OWNERS)]
        assert self.shelf.used_bytes == sum(self.shelf.bytes_of(each) for each in payers)


TestShelfMachine = ShelfMachine.TestCase
TestShelfMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


@given(st.integers(0, 1))
def test_records_are_read_in_the_order_of_their_owners(first: int) -> None:
    shelf = Shelf()
    for owner in (first, 1 - first):
        shelf.put(KEYS[0], record(owner), 0)
    assert [each.owner for each in shelf.get(KEYS[0], 0)] == sorted(OWNERS[n].public_key for n in (0, 1))
