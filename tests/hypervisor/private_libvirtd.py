"""A libvirtd of our own, in namespaces of its own, that ends with the test: nothing of the host is touched."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000
START_S = 20.0

# /sys must show the new network namespace; the control groups are mounted below it and are kept.
SCRIPT = """
set -e
mkdir {folder}/cgroup
mount --rbind /sys/fs/cgroup {folder}/cgroup
mount -t sysfs sysfs /sys
mount --rbind {folder}/cgroup /sys/fs/cgroup
for place in /run/libvirt /var/lib/libvirt /etc/libvirt; do mkdir -p $place; mount -t tmpfs tmpfs $place; done
cp {folder}/qemu.conf /etc/libvirt/qemu.conf
ip link set lo up
echo $$ > {folder}/inside
exec libvirtd --config {folder}/libvirtd.conf
"""
QEMU_CONF = """user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
stdio_handler = "file"
namespaces = []
"""
LIBVIRTD_CONF = """unix_sock_dir = "{folder}"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
"""


@contextlib.contextmanager
def private_libvirtd() -> Iterator[str]:
    """The URI of a fresh libvirtd; while it lasts, this thread is in its network namespace."""
    with tempfile.TemporaryDirectory(prefix="xeno-libvirtd-") as folder:
        place = Path(folder)
        (place / "qemu.conf").write_text(QEMU_CONF)
        (place / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(folder=folder))
        (place / "script").write_text(SCRIPT.format(folder=folder))
        command = ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
        with (place / "log").open("wb") as log:
            daemon = subprocess.Popen(
                [*command, "tini", "-s", "--", "sh", str(place / "script")], stdout=log, stderr=log
            )
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            socket = place / "libvirt-sock"
            deadline = time.monotonic() + START_S
            while not socket.exists():
                assert daemon.poll() is None and time.monotonic() < deadline, (place / "log").read_text()
                time.sleep(0.05)
            inside = _network_namespace_of_child(daemon.pid)
            _enter(inside)
            os.close(inside)
            try:
                yield f"qemu+unix:///system?socket={socket}"
            finally:
                _enter(home)
        finally:
            os.close(home)
            daemon.kill()
            daemon.wait()


def _network_namespace_of_child(process_id: int) -> int:
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    return os.open(f"/proc/{children[0]}/ns/net", os.O_RDONLY)


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
