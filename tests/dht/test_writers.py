"""What a member may bring of others is bounded; what was replaced does not come back."""

from __future__ import annotations

from dht.identity import ED25519
from dht.record import Record, open_record, seal_record
from dht.replaced import MAX_REPLACED, Replaced
from dht.writers import MAX_BROUGHT, MAX_BROUGHT_PER_MINUTE, MAX_ENTITIES, Writers

SIGNER = ED25519.generate(bytes(range(32)))
KEY = bytes(20)


def _record(seq: int, expires_ms: int) -> Record:
    return open_record(seal_record(SIGNER, "cpu", KEY, seq, expires_ms, b""), ED25519, "cpu", KEY, 0)


def test_a_member_brings_so_many_a_minute_and_so_many_in_all() -> None:
    writers, far_ms = Writers(), 10**9
    brought = [writers.may_bring("a", far_ms, 0) for _ in range(MAX_BROUGHT_PER_MINUTE + 1)]
    assert brought == [True] * MAX_BROUGHT_PER_MINUTE + [False]
    assert writers.may_bring("b", far_ms, 0)
    taken = sum(writers.may_bring("a", far_ms, minute * 60_000) for minute in range(1, 60) for _ in range(50))
    assert taken == MAX_BROUGHT - MAX_BROUGHT_PER_MINUTE
    assert writers.may_bring("a", far_ms + 1, far_ms)  # what it brought has run out


def test_entities_remembered_are_bounded() -> None:
    writers = Writers()
    for number in range(MAX_ENTITIES + 10):
        writers.may_bring(str(number), 10, 0)
    assert len(writers) == MAX_ENTITIES


def test_what_was_replaced_is_stale_until_it_would_have_run_out() -> None:
    replaced, old = Replaced(), _record(1, 1_000)
    replaced.note(KEY, old, _record(2, 500))
    replaced.note(KEY, _record(2, 500), _record(3, 400))
    assert replaced.is_stale(KEY, old, 600) and replaced.is_stale(KEY, _record(2, 900), 600)
    assert not replaced.is_stale(KEY, _record(3, 900), 600) and not replaced.is_stale(bytes([1]) * 20, old, 600)
    assert not replaced.is_stale(KEY, old, 1_000) and len(replaced) == 0


def test_a_newer_record_that_lives_longer_needs_no_memory_and_the_memory_is_bounded() -> None:
    replaced = Replaced()
    replaced.note(KEY, _record(1, 500), _record(2, 1_000))
    assert len(replaced) == 0
    old, new = _record(1, 1_000), _record(2, 500)
    for number in range(MAX_REPLACED + 10):
        replaced.note(number.to_bytes(20, "big"), old, new)
    assert len(replaced) == MAX_REPLACED
