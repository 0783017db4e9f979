from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor import calls, hostkeys
from hypervisor.adapter import Ability, Capabilities, Handle, OfferedImage, Running
from hypervisor.embedded import has_virtualisation, owner_tag
from hypervisor.environment import EnvironmentSpec, State, Usage
from hypervisor.errors import HypervisorError, InvalidSpecError, RemoteError
from hypervisor.guest_record import GuestRecord, GuestRecords, add_base, from_json, never_fall, to_json
from hypervisor.host_process import dispatch


def through(value: dict[str, Any]) -> dict[str, Any]:
    frame = calls.encode_frame({"id": 1, "result": value})
    assert calls.frame_length(frame[:4]) == len(frame) - 4
    decoded: dict[str, Any] = calls.decode_frame(frame[4:])["result"]
    return decoded


SPEC = EnvironmentSpec(
    "one", "micro", 300, 64 << 20, authorized_keys=("ssh-ed25519 AAAA",), ssh_host_key=hostkeys.host_key(bytes(32))
)
USAGE = Usage(5, State.PAUSED, 1, 2, None, 4, 5, 6)


def test_everything_that_crosses_comes_back_the_same() -> None:
    capabilities = Capabilities(
        "x", "kvm", 2, 3, frozenset({Ability.PAUSE}), (OfferedImage("m", (("os", "linux", "6"),), 1),), ("n",)
    )
    running = Running(Handle("one", "h", 22, "k"), State.RUNNING, None, 5)
    assert calls.spec_from_fields(through(calls.spec_to_fields(SPEC))) == SPEC
    assert calls.usage_from_fields(through(calls.usage_to_fields(USAGE))) == USAGE
    assert calls.capabilities_from_fields(through(calls.capabilities_to_fields(capabilities))) == capabilities
    assert calls.running_from_fields(through(calls.running_to_fields(running))) == running


class Untouchable:
    """A host that no bad call may reach: its methods exist and must not be called."""

    def __getattr__(self, name: str) -> Any:
        def reached(*arguments: object, **named: object) -> None:
            raise AssertionError(f"{name} was reached")

        return reached


@pytest.mark.parametrize(
    "request_fields",
    [
        {"method": "createXML", "parameters": {"xml": "<domain/>"}},
        {"method": "create", "parameters": {"spec": "<domain/>"}},
        {"method": "create", "parameters": {"spec": {**calls.spec_to_fields(SPEC), "xml": "<domain/>"}}},
        {"method": "create", "parameters": {"spec": {**calls.spec_to_fields(SPEC), "name": "../x"}}},
        {"method": "pause", "parameters": {}},
        {"method": "pause", "parameters": {"id": 5}},
        {"method": "resize", "parameters": {"id": "one", "cpu_ms_per_s": "9"}},
        {"method": "usage", "parameters": {"ids": "one"}},
        {"method": "usage", "parameters": {"ids": ["x"] * 2000}},
        {"method": "usage"},
        {},
    ],
)
def test_a_call_that_does_not_exist_or_has_other_fields_is_refused(request_fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpecError):
        dispatch(Untouchable(), {"id": 1, **request_fields})  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_frame_reader(body: bytes) -> None:
    try:
        fields = calls.decode_frame(body)
    except HypervisorError:
        return
    assert type(fields["id"]) is int


def test_an_oversized_frame_is_refused() -> None:
    with pytest.raises(RemoteError):
        calls.frame_length(b"\xff\xff\xff\xff")


def test_a_record_comes_back_without_the_secret_key() -> None:
    record = GuestRecord(SPEC, Handle("one", "10.64.0.2", 22, "k"), 3, State.SAVED, USAGE, USAGE)
    text = to_json(record)
    assert "PRIVATE" not in text
    read = from_json(text)
    assert (read.handle, read.index, read.state, read.base, read.last) == (record.handle, 3, State.SAVED, USAGE, USAGE)
    assert (read.spec.name, read.spec.ssh_host_key) == ("one", "")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 2}', '{"version": 1, "spec": 5}'])
def test_a_broken_record_is_named_as_such(text: str) -> None:
    with pytest.raises(RemoteError):
        from_json(text)


def test_counters_of_earlier_lives_are_added_and_what_cannot_be_measured_stays_so() -> None:
    current = Usage(9, State.RUNNING, 10, 7, None, 1, 1, 1)
    summed = add_base(USAGE, current)
    assert (summed.cpu_ns, summed.net_rx_bytes, summed.net_tx_bytes, summed.memory_bytes) == (11, None, 5, 7)
    assert add_base(None, current) == current


def test_a_sample_that_was_handed_out_is_never_fallen_behind(tmp_path: Any) -> None:
    records = GuestRecords(tmp_path / "guests")
    records.store(GuestRecord(SPEC, Handle("one"), 1, State.RUNNING))
    records.note("one", USAGE)
    record = GuestRecords(tmp_path / "guests").load("one")
    assert record is not None
    assert record.last == USAGE
    ending = never_fall(record.last, Usage(9, State.RUNNING, 0, 0, None, 0, 0, 0))
    assert (ending.cpu_ns, ending.net_tx_bytes, ending.net_rx_bytes) == (1, 4, None)
    (records.folder("one") / "usage.json").write_text("{")
    cut_short = records.load("one")
    assert cut_short is not None
    assert cut_short.last is None
    records.remove("one")
    assert records.ids() == []


def test_virtualisation_is_read_from_whole_flags() -> None:
    assert has_virtualisation("flags\t: fpu svm sse\n")
    assert not has_virtualisation("flags\t: fpu svm_lock sse\nmodel name: vmx\n")


def test_two_folders_have_two_owners(tmp_path: Any) -> None:
    first, second = owner_tag(tmp_path / "a"), owner_tag(tmp_path / "b")
    assert first != second
    assert len(first) == 8
    assert int(first, 16) >= 0
