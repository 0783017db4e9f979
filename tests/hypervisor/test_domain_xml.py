from __future__ import annotations

from xml.etree import ElementTree as tree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.domain_xml import (
    METADATA_NAMESPACE,
    BridgePort,
    DomainPlan,
    ForwardedPort,
    domain_xml,
    quota_us,
    share_ms_per_s,
)
from hypervisor.errors import InvalidSpecError

MIB = 1 << 20
PORT = BridgePort("xb0123abcd", "xt0123abcd01", "52:54:00:01:23:01")
FILES = {"kernel_path": "/g/kernel", "initrd_path": "/g/initrd", "console_path": "/g/console.log"}


def plan(kind: str = "qemu", **changes: object) -> DomainPlan:
    fields: dict[str, object] = {
        "owner": "0123abcd",
        "id": "one",
        "memory_bytes": 128 * MIB,
        "memory_max_bytes": 256 * MIB,
        "virtual_cpus": 1,
        **FILES,
    }
    return DomainPlan(kind, **{**fields, **changes})  # type: ignore[arg-type]


def test_an_emulated_guest_on_a_bridge_is_exactly_this() -> None:
    text = domain_xml(plan(cpu_ms_per_s=300, network=PORT, disk_path="/g/disk.raw", disk_byte_per_s=2_000_000))
    assert text == (
        '<domain type="qemu"><name>xeno-0123abcd-one</name>'
        '<metadata><xeno:guest xmlns:xeno="urn:xenonode:guest:1" owner="0123abcd" id="one" /></metadata>'
        '<memory unit="KiB">262144</memory><currentMemory unit="KiB">131072</currentMemory><vcpu>1</vcpu>'
        "<cputune><global_period>100000</global_period><global_quota>30000</global_quota></cputune>"
        '<os><type arch="x86_64" machine="q35">hvm</type><kernel>/g/kernel</kernel><initrd>/g/initrd</initrd>'
        "<cmdline>console=ttyS0 panic=1 quiet mitigations=off no_timer_check cryptomgr.notests init_on_alloc=0"
        '</cmdline></os><features><acpi /></features><cpu mode="maximum" />'
        "<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>"
        '<devices><controller type="usb" model="none" />'
        '<disk type="file" device="disk"><driver name="qemu" type="raw" /><source file="/g/disk.raw" />'
        '<target dev="vda" bus="virtio" /><iotune><read_bytes_sec>2000000</read_bytes_sec>'
        "<write_bytes_sec>2000000</write_bytes_sec></iotune></disk>"
        '<interface type="bridge"><mac address="52:54:00:01:23:01" /><source bridge="xb0123abcd" />'
        '<target dev="xt0123abcd01" /><model type="virtio" /><port isolated="yes" /></interface>'
        '<serial type="file"><source path="/g/console.log" append="on" /><target port="0" /></serial>'
        '<memballoon model="virtio" /></devices></domain>'
    )


def test_a_xen_guest_is_exactly_this() -> None:
    assert domain_xml(plan("xen", network=PORT)) == (
        '<domain type="xen"><name>xeno-0123abcd-one</name>'
        '<metadata><xeno:guest xmlns:xeno="urn:xenonode:guest:1" owner="0123abcd" id="one" /></metadata>'
        '<memory unit="KiB">262144</memory><currentMemory unit="KiB">131072</currentMemory><vcpu>1</vcpu>'
        '<os><type arch="x86_64" machine="xenpvh">xenpvh</type><kernel>/g/kernel</kernel><initrd>/g/initrd</initrd>'
        "<cmdline>console=hvc0 panic=1 quiet mitigations=off no_timer_check cryptomgr.notests init_on_alloc=0"
        "</cmdline></os>"
        "<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>"
        '<devices><interface type="bridge"><mac address="52:54:00:01:23:01" /><source bridge="xb0123abcd" />'
        '<target dev="xt0123abcd01" /><port isolated="yes" /></interface>'
        '<console type="pty"><target type="xen" port="0" /></console></devices></domain>'
    )


def test_a_guest_without_privileges_is_reached_through_one_forwarded_port_and_reaches_nothing() -> None:
    text = domain_xml(plan(network=ForwardedPort("127.0.0.1", 2222, "52:54:00:01:23:01")))
    assert "user,id=net0,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:2222-10.0.2.15:22" in text
    assert "<interface" not in text


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "one'/><x>"},
        {"owner": ""},
        {"kind": "vmware"},
        {"kernel_path": "relative"},
        {"kernel_path": "/g/../etc/shadow"},
        {"initrd_path": "/g/a b"},
        {"memory_bytes": 0},
        {"memory_bytes": 512 * MIB},
        {"virtual_cpus": 0},
    ],
)
def test_a_plan_with_a_bad_field_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidSpecError):
        plan(**changes)  # type: ignore[arg-type]


def test_a_port_with_a_bad_field_is_refused() -> None:
    for host, port, mac in (("::1", 2222, PORT.mac), ("127.0.0.1", 22, PORT.mac), ("127.0.0.1", 2222, "x")):
        with pytest.raises(InvalidSpecError):
            ForwardedPort(host, port, mac)
    with pytest.raises(InvalidSpecError):
        BridgePort("br0;reboot", "tap", PORT.mac)


@given(st.text(max_size=60), st.text(max_size=60), st.sampled_from(["qemu", "kvm", "xen", "test"]))
def test_no_hostile_name_or_path_becomes_structure(id: str, path: str, kind: str) -> None:
    try:
        made = plan(kind, id=id, kernel_path=path)
    except InvalidSpecError:
        return
    domain = tree.fromstring(domain_xml(made))
    assert domain.findtext("name") == f"xeno-0123abcd-{id}"
    [guest] = domain.findall(f"metadata/{{{METADATA_NAMESPACE}}}guest")
    assert guest.get("id") == id
    assert {child.tag for child in domain} <= {
        *("name", "metadata", "memory", "currentMemory", "vcpu", "os", "features", "cpu", "devices"),
        *("on_poweroff", "on_reboot", "on_crash"),
    }


@given(st.integers(10, 1_024_000))
def test_a_share_comes_back_from_its_quota(share: int) -> None:
    assert share_ms_per_s(quota_us(share)) == share
