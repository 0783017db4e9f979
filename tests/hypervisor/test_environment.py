from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor import hostkeys, metering
from hypervisor.environment import TRANSITIONS, Action, EnvironmentSpec, State, Usage, after
from hypervisor.errors import ERRORS_BY_CODE, InvalidSpecError, StateError, from_code

MIB = 1 << 20


def spec(**changes: object) -> EnvironmentSpec:
    fields: dict[str, object] = {"name": "one", "image": "micro", "cpu_ms_per_s": 100, "memory_bytes": 64 * MIB}
    return EnvironmentSpec(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "../etc"},
        {"name": "a" * 41},
        {"name": "one\n"},
        {"name": "one-"},
        {"image": "a/b"},
        {"hostname": "a b"},
        {"cpu_ms_per_s": 0},
        {"cpu_ms_per_s": True},
        {"cpu_ms_per_s": 1.5},
        {"memory_bytes": 1},
        {"memory_max_bytes": 1},
        {"boot_cpu_ms_per_s": 50},
        {"disk_bytes": -1},
        {"net_bit_per_s": 1 << 60},
        {"authorized_keys": ("ssh-ed25519 AAAA\nssh-ed25519 BBBB",)},
        {"authorized_keys": ('command="x" ssh-ed25519 AAAA',)},
        {"authorized_keys": ("ssh-ed25519 AAAA",) * 33},
        {"ssh_host_key": "no key"},
    ],
)
def test_a_field_outside_its_bounds_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidSpecError):
        spec(**changes)


@given(st.text())
def test_no_hostile_name_gets_through(name: str) -> None:
    try:
        accepted = spec(name=name)
    except InvalidSpecError:
        return
    assert accepted.name.isascii()
    assert all(char.isalnum() or char == "-" for char in name)


def test_the_host_key_is_not_shown() -> None:
    key = hostkeys.host_key(b"\x01" * 32)
    assert "PRIVATE" not in repr(spec(ssh_host_key=key))


def test_every_action_that_the_table_lacks_is_refused() -> None:
    for state in State:
        for action in Action:
            if (state, action) in TRANSITIONS:
                assert after(state, action) is TRANSITIONS[state, action]
            else:
                with pytest.raises(StateError):
                    after(state, action)


def test_errors_cross_the_pipe_as_themselves() -> None:
    for code, kind in ERRORS_BY_CODE.items():
        rebuilt = from_code(code, "text", "step")
        assert type(rebuilt) is kind
        assert str(rebuilt) == "text. Next: step"


@given(st.binary(min_size=32, max_size=32))
def test_host_keys_come_back_from_their_text(seed: bytes) -> None:
    text = hostkeys.host_key(seed)
    assert text == hostkeys.host_key(seed)
    assert hostkeys.public_line(text).startswith("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI")
    assert hostkeys.dropbear_key(text)[19:51] == seed


def test_openssh_reads_our_keys_and_we_read_openssh_keys(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.write_text(hostkeys.host_key(b"\x05" * 32))
    ours.chmod(0o600)
    shown = subprocess.run(["ssh-keygen", "-y", "-f", str(ours)], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[:2] == hostkeys.public_line(ours.read_text()).split()
    theirs = tmp_path / "theirs"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(theirs)], check=True)
    public = (tmp_path / "theirs.pub").read_text().split()[:2]
    assert hostkeys.public_line(theirs.read_text()).split() == public


@given(st.text(max_size=200))
def test_no_text_crashes_the_host_key_reader(text: str) -> None:
    begin, end = "-----BEGIN OPENSSH PRIVATE KEY-----\n", "-----END OPENSSH PRIVATE KEY-----\n"
    with pytest.raises(InvalidSpecError):
        hostkeys.public_line(begin + text + end)


def test_memory_is_charged_for_the_smaller_of_two_samples() -> None:
    earlier = Usage(1000, State.RUNNING, 5, 100)
    later = Usage(3000, State.RUNNING, 9, 200)
    totals = metering.advance(metering.first(earlier), earlier, later)
    assert (totals.memory_byte_ms, totals.cpu_ns, totals.net_rx_bytes) == (200_000, 9, None)


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12)), min_size=1))
def test_totals_never_fall(samples: list[tuple[int, int, int]]) -> None:
    usages = [Usage(at, State.RUNNING, cpu, memory) for at, cpu, memory in samples]
    totals = metering.first(usages[0])
    for earlier, later in itertools.pairwise(usages):
        grown = metering.advance(totals, earlier, later)
        assert (grown.cpu_ns or 0) >= (totals.cpu_ns or 0)
        assert (grown.memory_byte_ms or 0) >= (totals.memory_byte_ms or 0)
        totals = grown
