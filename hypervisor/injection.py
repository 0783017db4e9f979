"""What one guest is told at boot, as a second archive behind the shared initramfs.

Keys, name, network and the ready-made ssh host key travel here and nowhere else: nothing of them is on the
kernel's command line, where every process of the host could read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypervisor import cpio, hostkeys
from hypervisor.environment import EnvironmentSpec


@dataclass(frozen=True, slots=True)
class GuestNetwork:
    """The guest's one interface: its address with prefix length ("10.1.2.3/24"), and its gateway, if any."""

    address: str
    gateway: str = ""


def archive(spec: EnvironmentSpec, network: GuestNetwork) -> bytes:
    """The archive to append to the image's initramfs; `spec` was validated, so no value needs quoting."""
    config = f"HOSTNAME={spec.hostname}\nADDRESS={network.address}\nGATEWAY={network.gateway}\n"
    entries = [
        cpio.directory("etc"),
        cpio.directory("etc/xeno"),
        cpio.file("etc/xeno/guest.conf", config.encode()),
        cpio.file("etc/hostname", f"{spec.hostname}\n".encode()),
        cpio.file("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {spec.hostname}\n".encode()),
        cpio.directory("etc/dropbear", 0o700),
        cpio.directory("root", 0o700),
        cpio.directory("root/.ssh", 0o700),
        cpio.file("root/.ssh/authorized_keys", "".join(f"{key}\n" for key in spec.authorized_keys).encode(), 0o600),
    ]
    if spec.ssh_host_key:
        key = hostkeys.dropbear_key(spec.ssh_host_key)
        entries.append(cpio.file("etc/dropbear/dropbear_ed25519_host_key", key, 0o600))
    return cpio.archive(entries)
