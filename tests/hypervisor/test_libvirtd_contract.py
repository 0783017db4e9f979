"""QEMU through a libvirt daemon keeps the contract, with real guests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hypervisor import guest_image

from .contract import Bench, HypervisorContract
from .machines import machine
from .private_libvirtd import private_libvirtd


@pytest.fixture(autouse=True, scope="module")
def image() -> None:
    guest_image.build(guest_image.default_cache())


@pytest.mark.guest
class TestLibvirtd(HypervisorContract):
    @contextlib.asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[Bench]:
        with private_libvirtd() as uri:
            async with machine(uri, guest_user="root") as bench:
                yield bench
