"""What a guest wrote to its console while nobody measured it is cut when its host is looked at again."""

from __future__ import annotations

import asyncio
from typing import Any

from hypervisor.guest_files import CONSOLE_MAX_BYTES, CONSOLE_NAME
from hypervisor.guest_record import RECORD_NAME

from .machines import machine


def test_a_console_that_grew_while_the_server_was_away_is_cut_at_the_next_start() -> None:
    async def scenario() -> None:
        async with machine("test:///default", cpu_ms_per_s=1000) as bench:
            first: Any = bench
            await first.hypervisor.create(first.spec("talkative"))
            (record,) = first.folder.rglob(RECORD_NAME)
            log = record.with_name(CONSOLE_NAME)  # as a guest of QEMU has it, all its life
            log.write_bytes(b"old\n" * CONSOLE_MAX_BYTES + b"the end")
            await first.hypervisor.reconcile()
            assert log.stat().st_size <= CONSOLE_MAX_BYTES and log.read_bytes().endswith(b"the end")

    asyncio.run(scenario())
