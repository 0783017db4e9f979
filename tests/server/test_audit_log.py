"""The audit log: every change to its past is found, and named."""

from __future__ import annotations

import pytest

from dht.identity import ED25519
from xenonode.server.audit_log import (
    CHECKPOINTS_NAME,
    NAME,
    AuditLog,
    Verdict,
    entries,
    split_checkpoints,
    verify,
)
from xenonode.server.errors import DamagedError

from .world import CLIENT, SERVER, Files, MemoryDisk


def sample(count: int = 8) -> tuple[Files, AuditLog]:
    files = Files()
    log = AuditLog(MemoryDisk(files), SERVER, ED25519)
    for number in range(count):
        log.add("start", b"s" * 16, {"number": number, "reasons": ["a", "b"]}, 1000 + number)
    return files, log


def check(data: bytes, checkpoints: list[bytes], heads: tuple[bytes, ...] = ()) -> Verdict:
    return verify(data, SERVER.public_key, checkpoints, ED25519, heads=heads)


def split(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        end = at + 36 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at:end])
        at = end
    return found


def test_every_flipped_byte_of_the_log_is_found_with_its_entry() -> None:
    files, log = sample()
    last = log.sign_checkpoint(5000)
    data, ends, at = files.content[NAME], [], 0
    for each in split(data):
        at += len(each)
        ends.append(at)
    for position in range(len(data)):
        damaged = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        verdict = check(damaged, [last])
        entry = next(number for number, end in enumerate(ends) if position < end)
        assert not verdict.sound and verdict.entry == entry, position


def test_every_flipped_byte_of_a_checkpoint_is_found() -> None:
    files, log = sample()
    raw = log.sign_checkpoint(5000)
    for position in range(len(raw)):
        damaged = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        assert not check(files.content[NAME], [damaged]).sound, position
    assert not verify(files.content[NAME], CLIENT.public_key, [raw], ED25519).sound, "another's checkpoint"


def test_deletion_reordering_and_truncation_are_found() -> None:
    files, log = sample()
    raw = log.sign_checkpoint(5000)
    parts = split(files.content[NAME])
    assert check(b"".join(parts), [raw]).sound
    for number in range(len(parts)):
        assert not check(b"".join(parts[:number] + parts[number + 1 :]), [raw]).sound, "deletion"
        assert not check(b"".join(parts[:number]), [raw]).sound, "truncation"
    for number in range(len(parts) - 1):
        swapped = [*parts[:number], parts[number + 1], parts[number], *parts[number + 2 :]]
        assert not check(b"".join(swapped), [raw]).sound, "reordering"


def test_a_history_written_anew_does_not_match_checkpoints_or_witnessed_heads() -> None:
    files, log = sample()
    raw, head = log.sign_checkpoint(5000), log.head
    forged_files = Files()
    forged = AuditLog(MemoryDisk(forged_files), SERVER, ED25519)
    for number in range(9):
        forged.add("start", b"s" * 16, {"number": number + (number == 3), "reasons": ["a", "b"]}, 1000 + number)
    data = forged_files.content[NAME]
    assert check(data, []).sound
    assert not check(data, [raw]).sound
    assert not check(data, [], heads=(head,)).sound
    assert check(files.content[NAME], [raw], heads=(head,)).sound


def test_the_log_goes_on_after_a_restart_and_a_torn_write() -> None:
    files, log = sample()
    data, signed = files.content[NAME], files.content[CHECKPOINTS_NAME]
    parts = split(data)
    for cut in range(1, len(parts[-1])):
        torn = Files({NAME: data[:-cut], CHECKPOINTS_NAME: signed})
        again = AuditLog(MemoryDisk(torn), SERVER, ED25519)
        assert again.length == 7
    again.add("stop", b"", {}, 2000)
    assert [entry["kind"] for entry in entries(torn.content[NAME])] == ["start"] * 7 + ["stop"]
    for cut in range(1, 40):
        torn = Files({NAME: data, CHECKPOINTS_NAME: signed[:-cut]})
        AuditLog(MemoryDisk(torn), SERVER, ED25519).sign_checkpoint(9000)
        assert check(data, split_checkpoints(torn.content[CHECKPOINTS_NAME])).sound
    assert log.length == 8


def test_a_damaged_log_is_not_opened_and_not_touched() -> None:
    files, log = sample()
    log.sign_checkpoint(5000)
    damaged = bytearray(files.content[NAME])
    damaged[3] ^= 0x10
    files.content[NAME] = bytes(damaged)
    with pytest.raises(DamagedError):
        AuditLog(MemoryDisk(files), SERVER, ED25519)
    assert files.content[NAME] == bytes(damaged), "the evidence stays"


def test_checkpoints_come_every_minute_and_every_thousand_entries() -> None:
    files, log = sample(0)
    for number in range(1100):
        log.add("start", b"", {}, number)
    assert len(split_checkpoints(files.content[CHECKPOINTS_NAME])) == 2
    log.add("start", b"", {}, 70_000)
    assert len(split_checkpoints(files.content[CHECKPOINTS_NAME])) == 3
