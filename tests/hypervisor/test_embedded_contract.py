"""The embedded default keeps the contract with real guests, through its own process."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from hypervisor import guest_image, remote

from .contract import Bench, HypervisorContract
from .machines import machine


@pytest.fixture(autouse=True, scope="module")
def image() -> None:
    guest_image.build(guest_image.default_cache())


@pytest.mark.guest
class TestEmbedded(HypervisorContract):
    def open(self, folder: Path) -> contextlib.AbstractAsyncContextManager[Bench]:
        return machine(remote.EMBEDDED)
