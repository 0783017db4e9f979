"""Configuration: what is read, from where, and what is refused by name."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenonode import config, units
from xenonode.errors import ConfigError, XenoError
from xenonode.folder import StateFolder, write_atomically
from xenonode.model.entity import Address
from xenonode.model.resources import Resources
from xenonode.setting_tables import ROLES, settings_of

SERVER = """version = 1
network = "network.xeno"
[owner]
legal_name = "Example Ltd"
country = "GB"
email = "ops@example.org"
proof_reference = "register 1"
[share]
cpu = "250 ms/s"
memory = "512 MiB"
net = "100 Mbps"
[prices]
cpu = "0.02 USD/h"
memory = "0.004 USD/GiB/h"
"""


def server_file(tmp_path: Path, text: str = SERVER) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(text)
    return path


def test_units_written_out_become_integers(tmp_path: Path) -> None:
    found = config.load(server_file(tmp_path), "server", {}, {})
    assert found.share == Resources(250, 512 * 2**20, 2**30, 100_000_000)
    assert found.prices.currency == "USD"
    assert found.prices.cpu_nano_per_hour == 20_000_000
    assert found.prices.memory_nano_per_gib_hour == 4_000_000


def test_paths_in_a_file_start_from_its_folder(tmp_path: Path) -> None:
    assert config.load(server_file(tmp_path), "server", {}, {}).network == tmp_path / "network.xeno"


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    path = server_file(tmp_path)
    environ = {"XENONODE_SHARE_CPU": "300 ms/s", "XENONODE_SHARE_MEMORY": "1 GiB"}
    found = config.load(path, "server", {"share.cpu": "350 ms/s"}, environ)
    assert (found.share.cpu_ms_per_s, found.share.memory_bytes) == (350, 2**30)
    origins = {row.name: (row.value, row.origin) for row in config.effective(found)}
    assert origins["share.cpu"] == ("350 ms/s", "flag")
    assert origins["share.memory"] == ("1 GiB", "environment XENONODE_SHARE_MEMORY")
    assert origins["share.net"] == ("100 Mbps", f"file {path}")
    assert origins["share.disk"] == ("1 GiB", "default")


@pytest.mark.parametrize(
    ("line", "message", "next_step"),
    [
        ("shares.cpu = '1 ms/s'", "unknown setting 'shares.cpu'", "share.cpu"),
        ("hypervisr = 'embed'", "unknown setting 'hypervisr'", "hypervisor"),
        ("udp = '127.0.0.1:7411'", "port 7411 is used twice", "a port of its own"),
        ("control = '0.0.0.0:7411'", "every address of this machine", "that others reach"),
        ("control = 'myhost:7411'", "myhost is no IP address", "that others reach"),
        ("udp = '127.0.0.1:70000'", "udp", "received"),
        ("udp = 7000", "udp", "received"),
        ("advertise = '0.0.0.0'", "advertise", "router"),
        ("advertise = 'myhost'", "advertise", "router"),
        ("region = ''", "region", "searches"),
        ("receipt_period = '0 s'", "receipt_period", "sign"),
        ("features = [1]", "features", "words"),
    ],
)
def test_a_wrong_line_is_refused_by_name(tmp_path: Path, line: str, message: str, next_step: str) -> None:
    path = server_file(tmp_path, SERVER.replace("version = 1", f"version = 1\n{line}"))
    with pytest.raises(ConfigError) as caught:
        config.load(path, "server", {}, {})
    assert message in caught.value.message
    assert next_step in caught.value.next_step


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("version = 1", "", "does not say its version"),
        ("version = 1", "version = 2", "reads version 1"),
        ("version = 1", "version = true", "reads version 1"),
        ("version = 1", "version = = 1", "no TOML"),
        ('"250 ms/s"', '"250"', "no quantity with a unit"),
        ('"250 ms/s"', "250", "must be a text in quotes"),
        ('"250 ms/s"', '"-250 ms/s"', "no quantity"),
        ('"250 ms/s"', '"0 ms/s"', "out of bounds"),
        ('"250 ms/s"', '"2000 ms/s"', "more than 1 cores give"),
        ('"512 MiB"', '"512 MiBs"', "is not one of"),
        ('"512 MiB"', '"99999999999999 TiB"', "too large"),
        ('"0.02 USD/h"', '"0.02 XYZ/h"', "currency XYZ"),
        ('"0.02 USD/h"', '"0.02 USD/GiB/h"', "not a price per h"),
        ('"0.02 USD/h"', '"1e400 USD/h"', "no price"),
        ('"0.02 USD/h"', '"0.0000000001 USD/h"', "nine decimals"),
        ('"0.004 USD/GiB/h"', '"0.004 EUR/GiB-h"', "in one currency"),
        ('legal_name = "Example Ltd"', "", "owner.legal_name is not set"),
    ],
)
def test_a_wrong_value_is_refused_with_its_reason(tmp_path: Path, before: str, after: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        config.load(server_file(tmp_path, SERVER.replace(before, after)), "server", {}, {})


def test_others_are_told_the_address_of_the_router_that_forwards_the_ports(tmp_path: Path) -> None:
    plain = config.load(server_file(tmp_path), "server", {}, {})
    behind = config.load(server_file(tmp_path), "server", {"advertise": "192.0.2.7"}, {})
    assert (plain.host, behind.host, behind.control) == (plain.control.host, "192.0.2.7", plain.control)
    assert plain.shown_control == plain.control and behind.shown_control.host == "192.0.2.7"
    other = config.load(server_file(tmp_path), "server", {"advertise_control": "192.0.2.8:17411"}, {})
    assert other.shown_control.pair == ("192.0.2.8", 17411) and other.control == plain.control
    for wrong in ("192.0.2.8", "0.0.0.0:1", "192.0.2.8:0"):
        with pytest.raises(ConfigError, match="advertise_control"):
            config.load(server_file(tmp_path), "server", {"advertise_control": wrong}, {})


def test_unknown_variables_and_flags_are_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = server_file(tmp_path)
    with pytest.raises(ConfigError) as caught:
        config.load(path, "server", {}, {"XENONODE_SHARE_CPUS": "1 ms/s"})
    assert "XENONODE_SHARE_CPU=" in caught.value.next_step
    with pytest.raises(ConfigError, match=r"share\.cpus"):
        config.load(path, "server", {"share.cpus": "1 ms/s"}, {})


def test_the_environment_of_another_role_is_no_error(tmp_path: Path) -> None:
    path = server_file(tmp_path)
    assert config.load(path, "server", {}, {"XENONODE_FEE_BASIS_POINTS": "1"}) == config.load(path, "server", {}, {})


@pytest.mark.parametrize("role", ROLES)
def test_the_example_of_each_role_is_a_valid_configuration(tmp_path: Path, role: config.Role) -> None:
    path = tmp_path / "example.toml"
    path.write_text(config.example(role))
    config.load(path, role, {}, {})
    for setting in settings_of(role):
        assert f"{setting.name.rpartition('.')[2]} = " in path.read_text()


def test_what_save_writes_load_reads(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "corp.toml"
    values = {"folder": tmp_path / "state", "udp": Address("127.0.0.1", 9000), "control": "127.0.0.1:9001"}
    config.save(path, values)
    found = config.load(path, "corp", {}, {})
    assert (found.folder, found.udp, found.control.port) == (tmp_path / "state", Address("127.0.0.1", 9000), 9001)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_dimensions_with_several_tries_are_read_from_a_list_or_a_line(tmp_path: Path) -> None:
    path = tmp_path / "corp.toml"
    config.save(path, {"folder": tmp_path / "state"})
    assert config.load(path, "corp", {}, {}).tries == ()
    wanted = (("location", 2), ("price.cpu", 8))
    for given_ in (["price.cpu 8", "location 2"], "location 2, price.cpu 8"):
        config.save(path, {"folder": tmp_path / "state", "tries": given_})
        assert config.load(path, "corp", {}, {}).tries == wanted
    for wrong in ("price.cpu", "price.cpu 1", "price.cpu 17", "cores 2, cores 3", "cores two", [4], 4):
        with pytest.raises(ConfigError, match="tries"):
            config.load(path, "corp", {"tries": wrong}, {})


def test_a_missing_or_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "absent.toml", "corp", {}, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path, "corp", {}, {})
    (tmp_path / "huge.toml").write_bytes(b"#" * 70_000)
    with pytest.raises(ConfigError, match="larger than"):
        config.load(tmp_path / "huge.toml", "corp", {}, {})


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(b"version = 1\n" + data)
    try:
        config.load(path, "corp", {}, {})
    except ConfigError as error:
        assert error.message and error.next_step


@given(st.integers(0, 2**62))
def test_exact_quantities_survive_being_written(amount: int) -> None:
    cpu_ms_per_s = amount % 10**6
    assert units.parse_cpu(units.format_cpu(cpu_ms_per_s)) == cpu_ms_per_s
    duration_ms = amount % 10**12
    assert units.parse_duration_ms(units.format_duration(duration_ms)) == duration_ms
    nano = amount
    assert units.parse_price(units.format_price(nano, "USD", "h"), units.CPU_HOUR) == (nano, "USD")
    mebibytes = amount % 4000 * 2**20
    assert units.parse_bytes(units.format_bytes(mebibytes)) == mebibytes


def test_a_folder_open_to_others_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state").prepare()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.path.chmod(0o750)
    with pytest.raises(XenoError) as caught:
        folder.prepare()
    assert caught.value.next_step == f"chmod 0700 {folder.path}"


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    program = (
        "import sys, pathlib\n"
        "from xenonode.errors import XenoError\n"
        "from xenonode.folder import StateFolder\n"
        "try:\n"
        "    with StateFolder(pathlib.Path(sys.argv[1])).lock(): print('locked')\n"
        "except XenoError as error: print(error.message)\n"
    )

    def other() -> str:
        return subprocess.run(
            [sys.executable, "-c", program, str(folder.path)], capture_output=True, text=True, check=True
        ).stdout

    with folder.lock():
        assert folder.holder() == os.getpid()
        assert f"in use by process {os.getpid()}" in other()
    assert folder.holder() is None
    assert other() == "locked\n"


def test_a_file_is_replaced_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    with pytest.raises(OSError):
        write_atomically(tmp_path / "absent" / "file", b"three")
