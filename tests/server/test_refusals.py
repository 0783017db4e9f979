"""Whoever is refused again and again does not fill the server's disk."""

from __future__ import annotations

from dht.identity import ED25519
from xenonode.server.audit_log import NAME, AuditLog, entries
from xenonode.server.refusals import PERIOD_MS, WRITTEN_MAX, Refusals

from .world import Files, MemoryDisk


def test_a_flood_of_refusals_is_counted_and_the_count_is_told() -> None:
    disk = MemoryDisk(Files())
    log = AuditLog(disk, ED25519.generate(bytes(32)), ED25519)
    refusals = Refusals(log, "refused")
    for _ in range(10 * WRITTEN_MAX):
        refusals.note(b"", b"c" * 32, ("too much",), 1_000_000)
    assert log.length == WRITTEN_MAX
    refusals.note(b"", b"d" * 32, ("memory",), 1_000_000 + PERIOD_MS)
    told, last = entries(disk.read(NAME))[-2:]
    assert (told["kind"], told["body"]) == ("refused_more", {"count": 9 * WRITTEN_MAX})
    assert (last["kind"], last["body"]) == ("refused", {"client": b"d" * 32, "reasons": ["memory"]})


def test_few_refusals_are_all_written_whenever_they_come() -> None:
    disk = MemoryDisk(Files())
    refusals = Refusals(AuditLog(disk, ED25519.generate(bytes(32)), ED25519), "refused")
    for minute in (5, 6, 6, 2, 9):  # the clock may be set back
        refusals.note(b"", b"c" * 32, (str(minute),), minute * PERIOD_MS)
    assert [each["body"] for each in entries(disk.read(NAME))] == [
        {"client": b"c" * 32, "reasons": [str(minute)]} for minute in (5, 6, 6, 2, 9)
    ]
