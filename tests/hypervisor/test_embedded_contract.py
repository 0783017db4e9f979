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


@pytest.mark.guest
class TestEmbeddedWithoutBridge(HypervisorContract):
    """As on a machine where no bridge may be made: user-mode networking, which measures no traffic."""

    def open(self, folder: Path) -> contextlib.AbstractAsyncContextManager[Bench]:
        return machine(remote.EMBEDDED, user_network=True)

    # What does not depend on the network is proved above; each of these would boot guests again.
    test_the_agreed_cpu_share_holds_while_another_guest_burns_beside_it = None  # type: ignore[assignment]
    test_memory_is_resized_within_its_ceiling_and_seen_inside = None  # type: ignore[assignment]
    test_a_guest_is_stopped_with_its_last_usage_readable = None  # type: ignore[assignment]
