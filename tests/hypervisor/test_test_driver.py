"""libvirt's own test driver keeps the contract: the real API, without guests that run code."""

from __future__ import annotations

import contextlib
from pathlib import Path

from .contract import Bench, HypervisorContract
from .machines import machine


class TestTestDriver(HypervisorContract):
    def open(self, folder: Path) -> contextlib.AbstractAsyncContextManager[Bench]:
        return machine("test:///default", cpu_ms_per_s=1000)
