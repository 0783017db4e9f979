"""The journal survives a crash at every byte and a disk without room, notices damage, and stays bounded."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dht import wire
from xenonode.model.money import Reservation
from xenonode.model.session import Agreement
from xenonode.server import journal as journals
from xenonode.server.disk import FolderDisk
from xenonode.server.errors import DamagedError, NotKeptError
from xenonode.server.frames import HEADER_BYTES, frame, read_frames
from xenonode.server.journal import NAME, Journal, Spent
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
    for number in range(200):
        journal.put(replace(session(number % 8), agreed_ms=number, state=STOPPED, closed=number % 8 < 5))
        for id in journal.surplus:
            journal.forget(id)
        assert len(files.content[NAME]) < 60_000
    again = Journal(MemoryDisk(files))
    assert again.counter("run") == 5
    assert len([each for each in again.sessions.values() if each.closed]) == 3
    assert {5, 6, 7} <= {int.from_bytes(id, "big") for id in again.sessions}
    assert again.sessions[(7).to_bytes(16, "big")].agreed_ms == 199


def test_a_file_that_has_no_room_to_be_written_anew_goes_on_and_an_operator_hears_of_it_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journals, "COMPACT_MIN_BYTES", 20_000)
    files = Files(cramped=True)
    journal = Journal(MemoryDisk(files))
    for number in range(100):
        journal.put(replace(session(1), agreed_ms=number))
        assert Journal(MemoryDisk(files)).sessions[session(1).id].agreed_ms == number
    size = len(files.content[NAME])
    assert size > 60_000 and files.refused <= size // 20_000, "it is not tried with every record"
    assert len(caplog.records) == 1 and "make room" in caplog.text
    files.cramped = False
    for number in range(100):
        journal.put(replace(session(1), agreed_ms=number))
    assert len(files.content[NAME]) < 25_000 and Journal(MemoryDisk(files)).sessions[session(1).id].agreed_ms == 99


class JournalMachine(RuleBasedStateMachine):
    """A journal on a disk that has room, or too little, or none: what it took is found again, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.least = pytest.MonkeyPatch()
        self.least.setattr(journals, "COMPACT_MIN_BYTES", 500)
        self.least.setattr(journals, "COMPACT_FACTOR", 1)
        self.least.setattr(journals, "CLOSED_MAX", 2)
        self.files = Files()
        self.journal = Journal(MemoryDisk(self.files))
        self.sessions: dict[bytes, Session] = {}
        self.spent: dict[bytes, Spent] = {}
        self.counters: dict[str, int] = {}

    def teardown(self) -> None:
        self.least.undo()

    def taken(self, write: Callable[[], object]) -> bool:
        try:
            write()
        except NotKeptError:
            assert self.files.full
            return False
        return True

    @rule(full=st.booleans(), cramped=st.booleans())
    def room_changes(self, full: bool, cramped: bool) -> None:
        self.files.full, self.files.cramped = "." if full else "", cramped

    @rule(number=st.integers(0, 5), agreed_ms=st.integers(0, 9), closed=st.booleans(), forgets=st.booleans())
    def put(self, number: int, agreed_ms: int, closed: bool, forgets: bool) -> None:
        record = session(number)
        before = self.sessions.get(record.id)
        ended = closed or (before is not None and before.closed)
        record = replace(record, agreed_ms=agreed_ms, state=STOPPED, closed=ended)
        if self.taken(lambda: self.journal.put(record)):
            self.sessions[record.id] = record
        for id in self.journal.surplus if forgets else []:
            assert self.sessions[id].closed
            if self.taken(partial(self.journal.forget, id)):
                del self.sessions[id]

    @rule(number=st.integers(0, 3), release=st.binary(max_size=3))
    def spend(self, number: int, release: bytes) -> None:
        id, spent = bytes([number]) * 16, Spent(b"c" * 32, 10**12, release)
        if self.taken(lambda: self.journal.spend(id, spent, 0)):
            self.spent[id] = spent

    @rule(name=st.sampled_from(["run", "seq"]), value=st.integers(0, 10**6))
    def count(self, name: str, value: int) -> None:
        if self.taken(lambda: self.journal.count(name, value)):
            self.counters[name] = value

    @rule()
    def restart(self) -> None:
        self.journal = Journal(MemoryDisk(self.files))

    @invariant()
    def what_was_taken_is_found_again(self) -> None:
        for journal in (self.journal, Journal(MemoryDisk(self.files))):
            assert journal.spent == self.spent
            assert {name: journal.counter(name) for name in self.counters} == self.counters
        assert journal.sessions == self.sessions
        assert len(self.journal.surplus) == max(0, sum(each.closed for each in self.sessions.values()) - 2)


JournalMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestJournals = JournalMachine.TestCase


def test_a_newer_journal_is_refused_by_name() -> None:
    files = Files({NAME: frame(wire.encode({"version": 2, "counter": "run", "value": 1}))})
    with pytest.raises(DamagedError, match="another version"):
        Journal(MemoryDisk(files))


def test_frames_find_their_way_and_a_lone_header_is_a_torn_tail() -> None:
    data = frame(b"one") + frame(b"")
    assert read_frames(data, "f") == ([b"one", b""], len(data))
    assert read_frames(data + frame(b"two")[:HEADER_BYTES], "f") == ([b"one", b""], len(data))


def test_a_replacement_that_finds_no_room_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    disk = FolderDisk(tmp_path)
    disk.replace("journal", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            disk.replace("journal", bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert disk.read("journal") == b"old" and [each.name for each in tmp_path.iterdir()] == ["journal"]


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
