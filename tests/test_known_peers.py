"""What a node remembers of others is a convenience: damage to it costs an address, never the start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from xenonode.home import Home
from xenonode.known_peers import FILE, known_peers
from xenonode.simulation.disk import SimulatedDisk


@pytest.mark.parametrize(
    "line", ["10&12.0.1 7400", "10.12.0.1 74&0", "10.12.0.1 0", "10.12.0.1 74000", " 7400", "7400", "", "\N{SNOWMAN} 1"]
)
def test_a_line_that_is_no_address_is_passed_over(line: str) -> None:
    disk = SimulatedDisk()
    disk.replace(FILE, f"10.0.0.1 7400\n{line}\n2001:db8::1 7400".encode())
    assert known_peers(cast(Home, SimpleNamespace(disk=disk))) == [("10.0.0.1", 7400), ("2001:db8::1", 7400)]
