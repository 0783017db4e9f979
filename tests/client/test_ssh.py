"""Logging in: whose key, with which rights, and which host key is trusted."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from hypervisor.hostkeys import host_key, public_line
from xenonode.client.ssh import own_key, ssh_argv
from xenonode.env import LiveEnv
from xenonode.errors import XenoError
from xenonode.model.session import Start

HOST_KEY = public_line(host_key(bytes(32)))


def start(host: str, port: int) -> Start:
    return Start(bytes(16), "xs-1", host, port, HOST_KEY, 0)


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "id"
    line = own_key(path, LiveEnv())
    assert line.startswith("ssh-ed25519 ") and own_key(path, LiveEnv()) == line
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    derived = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True).stdout
    assert derived.split()[:2] == line.split()[:2]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_that_others_can_read_is_refused_with_the_command_that_helps(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "id"
    own_key(path, LiveEnv())
    path.chmod(mode)
    with pytest.raises(XenoError) as caught:
        own_key(path, LiveEnv())
    assert caught.value.next_step == f"chmod 600 {path}"


def test_a_folder_and_a_missing_public_half_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(XenoError, match="is no file"):
        own_key(tmp_path, LiveEnv())
    path = tmp_path / "id"
    own_key(path, LiveEnv())
    path.with_name("id.pub").unlink()
    with pytest.raises(XenoError, match="No such file"):
        own_key(path, LiveEnv())
    with pytest.raises(XenoError, match="cannot be used"):
        own_key(tmp_path / "absent" / "id", LiveEnv())


def test_a_public_half_without_a_private_one_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "id"
    path.with_name("id.pub").write_text("ssh-ed25519 AAAA of a crash")
    line = own_key(path, LiveEnv())
    assert path.exists() and line != "ssh-ed25519 AAAA of a crash"


@pytest.mark.parametrize(
    ("host", "port", "line"),
    [
        ("10.64.0.2", 22, f"10.64.0.2 {HOST_KEY}\n"),
        ("192.0.2.7", 20_000, f"[192.0.2.7]:20000 {HOST_KEY}\n"),
        ("2001:db8::7", 20_000, f"[2001:db8::7]:20000 {HOST_KEY}\n"),
    ],
)
def test_only_the_signed_host_key_is_trusted_and_nothing_of_the_users_own(
    tmp_path: Path, host: str, port: int, line: str
) -> None:
    known = tmp_path / "known"
    known.write_text("left over from another session")
    argv = ssh_argv(start(host, port), tmp_path / "id", known)
    assert known.read_text() == line
    assert argv[0] == "ssh" and argv[-1] == f"root@{host}" and argv[argv.index("-p") + 1] == str(port)
    assert argv[argv.index("-F") + 1] == "/dev/null"
    for option in ("StrictHostKeyChecking=yes", f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=/dev/null"):
        assert option in argv
    found = subprocess.run(["ssh-keygen", "-F", line.split()[0], "-f", str(known)], capture_output=True, check=False)
    assert found.returncode == 0
