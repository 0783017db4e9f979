"""What a node remembers of others is a convenience: damage to it costs an address, never the start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from xenonode.home import Home
from xenonode.known_peers import FILE, SILENT_FILE, SILENT_KEPT_MS, known_peers, remember_silent, silent_peers
from xenonode.peer import Peer
from xenonode.simulation.disk import SimulatedDisk


@pytest.mark.parametrize(
    "line", ["10&12.0.1 7400", "10.12.0.1 74&0", "10.12.0.1 0", "10.12.0.1 74000", " 7400", "7400", "", "\N{SNOWMAN} 1"]
)
def test_a_line_that_is_no_address_is_passed_over(line: str) -> None:
    disk = SimulatedDisk()
    disk.replace(FILE, f"10.0.0.1 7400\n{line}\n2001:db8::1 7400".encode())
    assert known_peers(cast(Home, SimpleNamespace(disk=disk))) == [("10.0.0.1", 7400), ("2001:db8::1", 7400)]


def test_who_was_silent_is_remembered_until_its_advert_has_ended_or_it_is_heard() -> None:
    disk = SimulatedDisk()
    home = cast(Home, SimpleNamespace(disk=disk))
    old, heard, new = ("10.0.0.1", 7410), ("10.0.0.2", 7410), ("10.0.0.3", 7410)
    peers = {heard: SimpleNamespace(session=object()), new: SimpleNamespace(session=None)}
    sessions = SimpleNamespace(peers=peers, silent=lambda: [new, old])
    peer = cast(Peer, SimpleNamespace(endpoint=SimpleNamespace(sessions=sessions)))
    remember_silent(home, peer, {old: 1_000, heard: 2_000}, 5_000)
    assert silent_peers(home, 5_000) == {old: 1_000, new: 5_000}
    assert silent_peers(home, 1_000 + SILENT_KEPT_MS) == {new: 5_000}
    disk.replace(SILENT_FILE, b"10.0.0.1 7410 x\n10.0.0.9\n\n10.0.0.4 7410 4000\n10.0.0.5 99999 1")
    assert silent_peers(home, 5_000) == {("10.0.0.4", 7410): 4_000}
