"""The journal survives a crash at every byte, notices damage, and stays bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dht import wire
from xenonode.model.money import Reservation
from xenonode.model.session import Agreement
from xenonode.server import journal as journals
from xenonode.server.disk import FolderDisk
from xenonode.server.errors import DamagedError
from xenonode.server.frames import HEADER_BYTES, frame, read_frames
from xenonode.server.journal import NAME, Journal
from xenonode.server.session_state import STOPPED, Session, requested

from .world import CLIENT, ISSUER, LINUX, PRICES, SERVER, SMALL, SSH_KEY, Files, MemoryDisk


def session(number: int) -> Session:
    reservation = Reservation(
        b"r" * 16, b"o" * 16, CLIENT.public_key, SERVER.public_key, 10**9, "USD", 10**9, None, 10**12, 1000
    )
    agreement = Agreement(
        client=CLIENT.public_key,
        server=SERVER.public_key,
        reservation=reservation.seal(ISSUER).id,
        quote=b"q" * 16,
        advert=b"a" * 16,
        advert_seq=1,
        resources=SMALL,
        environment=LINUX,
        image_sha256=bytes(32),
        prices=PRICES,
        receipt_period_ms=5000,
        exposure_nano=1000,
        audit_policy="standard",
        authorized_keys=(SSH_KEY,),
        hostname="guest",
        made_ms=1,
    )
    return requested(number.to_bytes(16, "big"), agreement, reservation, b"raw", "micro", number)


def test_what_was_put_is_found_again_whole() -> None:
    files = Files()
    journal = Journal(MemoryDisk(files))
    journal.put(session(1))
    journal.put(replace(session(1), reason="newer"))
    journal.count("run", 7)
    again = Journal(MemoryDisk(files))
    assert again.sessions == {session(1).id: replace(session(1), reason="newer")}
    assert again.counter("run") == 7 and again.counter("never") == 0


def test_a_tail_torn_at_any_byte_loses_only_what_was_not_acknowledged() -> None:
    files = Files()
    journal = Journal(MemoryDisk(files))
    journal.put(session(1))
    whole = len(files.content[NAME])
    journal.put(session(2))
    data = files.content[NAME]
    for cut in range(whole, len(data)):
        files.content[NAME] = data[:cut]
        assert list(Journal(MemoryDisk(files)).sessions) == [session(1).id], cut
        assert files.content[NAME] == data[:whole], "the torn tail is cut off, so that appending works"


def test_a_flipped_byte_is_never_read_as_something_else() -> None:
    files = Files()
    journal = Journal(MemoryDisk(files))
    for number in (1, 2, 3):
        journal.put(session(number))
    data = files.content[NAME]
    first = len(data) // 3
    for position in range(0, 2 * first, 7):
        files.content[NAME] = data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]
        with pytest.raises(DamagedError):
            Journal(MemoryDisk(files))


def test_the_file_is_compacted_and_closed_sessions_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "COMPACT_MIN_BYTES", 20_000)
    monkeypatch.setattr(journals, "CLOSED_MAX", 3)
    files = Files()
    journal = Journal(MemoryDisk(files))
    journal.count("run", 5)
    forgotten: list[bytes] = []
    for number in range(200):
        forgotten += journal.put(replace(session(number % 8), agreed_ms=number, state=STOPPED, closed=number % 8 < 5))
        assert len(files.content[NAME]) < 60_000
    again = Journal(MemoryDisk(files))
    assert again.counter("run") == 5 and forgotten
    assert len([each for each in again.sessions.values() if each.closed]) == 3
    assert {5, 6, 7} <= {int.from_bytes(id, "big") for id in again.sessions}
    assert again.sessions[(7).to_bytes(16, "big")].agreed_ms == 199


def test_a_newer_journal_is_refused_by_name() -> None:
    files = Files({NAME: frame(wire.encode({"version": 2, "counter": "run", "value": 1}))})
    with pytest.raises(DamagedError, match="another version"):
        Journal(MemoryDisk(files))


def test_frames_find_their_way_and_a_lone_header_is_a_torn_tail() -> None:
    data = frame(b"one") + frame(b"")
    assert read_frames(data, "f") == ([b"one", b""], len(data))
    assert read_frames(data + frame(b"two")[:HEADER_BYTES], "f") == ([b"one", b""], len(data))


def test_a_real_folder_keeps_what_it_was_given(tmp_path: Path) -> None:
    folder = tmp_path
    disk = FolderDisk(folder)
    disk.append("log", b"a")
    disk.append("log", b"b")
    disk.replace("other", b"c")
    disk.replace("other", b"d")
    assert (disk.read("log"), disk.read("other"), disk.read("none")) == (b"ab", b"d", b"")
    assert disk.names() == ["log", "other"]
    assert (folder / "log").stat().st_mode & 0o777 == 0o600
