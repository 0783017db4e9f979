from __future__ import annotations

import dataclasses
import gzip
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor import cpio, guest_image, hostkeys, image, injection, kernel_image
from hypervisor.environment import EnvironmentSpec
from hypervisor.errors import ImageError, InvalidSpecError

KEY = hostkeys.host_key(b"\x09" * 32)


def make_image(folder: Path) -> image.Manifest:
    (folder / "vmlinux").write_bytes(b"\x7fELF" + bytes(100))
    (folder / "initramfs").write_bytes(cpio.archive([cpio.file("init", b"#!")]))
    manifest = image.Manifest(
        "micro",
        "x86_64",
        (("os", "linux", "6.1.0"), ("os", "debian", "12")),
        1 << 20,
        image.describe_file(folder / "vmlinux", "elf"),
        image.describe_file(folder / "initramfs", "newc"),
        (("busybox-static", "1"),),
    )
    (folder / "manifest.json").write_text(manifest.to_json())
    return manifest


def test_an_image_that_is_what_its_manifest_says_is_loaded(tmp_path: Path) -> None:
    manifest = make_image(tmp_path)
    loaded = image.load_image(tmp_path)
    assert loaded.manifest == manifest
    assert loaded.manifest.offered().environments == (("os", "linux", "6.1.0"), ("os", "debian", "12"))


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    make_image(tmp_path)
    data = bytearray((tmp_path / "vmlinux").read_bytes())
    data[50] ^= 1
    (tmp_path / "vmlinux").write_bytes(data)
    with pytest.raises(ImageError, match="SHA-256"):
        image.load_image(tmp_path)


def test_a_file_of_another_size_or_a_link_is_refused(tmp_path: Path) -> None:
    make_image(tmp_path)
    (tmp_path / "initramfs").write_bytes(b"070701")
    with pytest.raises(ImageError, match="bytes"):
        image.load_image(tmp_path)
    (tmp_path / "initramfs").unlink()
    (tmp_path / "initramfs").symlink_to(tmp_path / "vmlinux")
    with pytest.raises(ImageError, match="plain file"):
        image.load_image(tmp_path)


def test_a_disk_image_with_a_header_to_guess_from_is_refused(tmp_path: Path) -> None:
    make_image(tmp_path)
    qcow2 = b"QFI\xfb\x00\x00\x00\x03" + bytes(96)
    (tmp_path / "vmlinux").write_bytes(qcow2)
    fields = json.loads((tmp_path / "manifest.json").read_text())
    described = image.describe_file(tmp_path / "vmlinux", "elf")
    fields["kernel"] = dataclasses.asdict(described)
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(ImageError, match="is not elf"):
        image.load_image(tmp_path)
    fields["kernel"]["format"] = "qcow2"
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(ImageError, match="not a format"):
        image.load_image(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"kernel": {"name": "../vmlinux", "format": "elf", "size_bytes": 4, "sha256": "0" * 64}},
        {"kernel": {"name": "vmlinux", "format": "elf", "size_bytes": 16 << 40, "sha256": "0" * 64}},
        {"kernel": {"name": "vmlinux", "format": "elf", "size_bytes": 4, "sha256": "x"}},
        {"kernel": {}},
        {"environments": [["os"]]},
    ],
)
def test_a_manifest_with_a_bad_field_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    fields = json.loads(make_image(tmp_path).to_json())
    with pytest.raises(ImageError):
        image.parse_manifest(json.dumps({**fields, **change}))


@given(st.text(max_size=100))
def test_no_text_crashes_the_manifest_reader(text: str) -> None:
    with pytest.raises(ImageError):
        image.parse_manifest(text)


def test_archives_are_what_cpio_reads(tmp_path: Path) -> None:
    entries = [
        cpio.directory("etc"),
        cpio.file("etc/a", b"hello", 0o600),
        cpio.file("etc/empty", b""),
        cpio.symlink("etc/b", "a"),
    ]
    made = cpio.archive(entries)
    assert len(made) % 512 == 0
    try:
        done = subprocess.run(["cpio", "-i", "--quiet"], input=made, cwd=tmp_path, check=True)
    except FileNotFoundError:
        pytest.fail("cpio is needed for this test: apt-get install cpio")
    assert done.returncode == 0
    assert (tmp_path / "etc" / "a").read_bytes() == b"hello"
    assert (tmp_path / "etc" / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "etc" / "b").readlink() == Path("a")


@pytest.mark.parametrize("path", ["", "/etc", "../x", "a//b", "a/./b", "a\0b", "a" * 300])
def test_a_path_that_leaves_the_archive_is_refused(path: str) -> None:
    with pytest.raises(InvalidSpecError):
        cpio.file(path, b"")


def test_a_guest_is_told_its_keys_name_and_address() -> None:
    spec = EnvironmentSpec(
        "one", "micro", 100, 64 << 20, authorized_keys=("ssh-ed25519 AAAA me",), ssh_host_key=KEY, hostname="alpha"
    )
    told = injection.archive(spec, injection.GuestNetwork("10.64.0.2/24", "10.64.0.1"))
    assert b"HOSTNAME=alpha\nADDRESS=10.64.0.2/24\nGATEWAY=10.64.0.1\n" in told
    assert b"ssh-ed25519 AAAA me\n" in told
    assert hostkeys.dropbear_key(KEY) in told
    assert b"PRIVATE" not in told


def test_modules_come_after_what_they_need() -> None:
    depends = {"net": ("failover", "virtio"), "failover": (), "virtio": ("ring",), "ring": ()}
    assert kernel_image.load_order(["net", "built_in"], depends) == ["failover", "ring", "virtio", "net"]
    with pytest.raises(ImageError):
        kernel_image.load_order(["a"], {"a": ("b",), "b": ("a",)})


def test_a_modules_needs_are_read_from_its_own_bytes() -> None:
    assert kernel_image.module_depends(b"\0license=GPL\0depends=virtio-ring,virtio\0name=x\0") == (
        "virtio_ring",
        "virtio",
    )
    assert kernel_image.module_depends(b"\0depends=\0") == ()
    assert kernel_image.module_depends(b"nothing") == ()


def test_a_kernel_is_unpacked_from_its_boot_image() -> None:
    vmlinux = b"\x7fELF" + bytes(5000)
    payload = gzip.compress(vmlinux)
    setup = bytearray(1024)
    setup[0x1F1] = 1
    setup[0x202:0x206] = b"HdrS"
    setup[0x248:0x24C] = (16).to_bytes(4, "little")
    setup[0x24C:0x250] = (len(payload) + 4).to_bytes(4, "little")
    whole = bytes(setup) + bytes(16) + payload + len(vmlinux).to_bytes(4, "little")
    assert kernel_image.unpack_kernel(whole) == vmlinux
    with pytest.raises(ImageError):
        kernel_image.unpack_kernel(whole[:-10])
    with pytest.raises(ImageError):
        kernel_image.unpack_kernel(b"MZ" + bytes(2000))


def test_the_advertised_environment_names_kernel_and_distribution() -> None:
    release = 'NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="24.04"\n'
    assert guest_image.environments(release, "6.8.0-45-generic") == (
        ("os", "linux", "6.8.0"),
        ("os", "ubuntu", "24.04"),
    )
    with pytest.raises(ImageError):
        guest_image.environments("NAME=x\n", "6.8.0")
