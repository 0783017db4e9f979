"""Addresses of servers that a member met in its last run, kept so that the next start finds the network by them.

Without them the network file's seeds, and so XenoCorp, would have to answer before anybody could search. A client keeps
those who were silent, too: one that was killed is in answers and in others' tables until its advert ends, and would
cost every run its time-outs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from xenonode.home import Home
from xenonode.model.entity import Address
from xenonode.peer import Peer

LOGGER = logging.getLogger("xenonode.known_peers")
FILE = "peers"
"""In the member's state, one address a line."""
SILENT_FILE = "silent"
"""In a client's state: an address and since when, in ms, a line."""
KEPT_MAX = 64
SILENT_KEPT_MS = 450_000
"""An advert's life: whoever was killed is in nobody's answer any more by then."""


def known_peers(home: Home) -> list[tuple[str, int]]:
    """Servers seen in the last run; a line that is no address is passed over."""
    lines = home.disk.read(FILE).decode("ascii", "replace").splitlines()
    return [pair for line in lines if (pair := _pair(line)) is not None]


def silent_peers(home: Home, now_ms: int) -> dict[tuple[str, int], int]:
    """Who was silent in earlier runs, and since when; damaged and old lines are passed over."""
    found = {}
    for line in home.disk.read(SILENT_FILE).decode("ascii", "replace").splitlines():
        where, _, since = line.rpartition(" ")
        pair = _pair(where)
        if pair is not None and since.isdigit() and 0 <= now_ms - int(since[:20]) < SILENT_KEPT_MS:
            found[pair] = int(since[:20])
    return found


def remember_silent(home: Home, peer: Peer, before: Mapping[tuple[str, int], int], now_ms: int) -> None:
    """Keep who was silent for the next start: the new ones, and those of before that were not heard since."""
    sessions = peer.endpoint.sessions
    unheard = {
        pair: since_ms for pair, since_ms in before.items()
        if (known := sessions.peers.get(pair)) is None or known.session is None
    }  # fmt: skip
    kept = {**dict.fromkeys(sessions.silent(), now_ms), **unheard}
    if kept == dict(before):
        return
    newest = sorted(kept.items(), key=lambda one: (-one[1], one[0]))[:KEPT_MAX]
    _keep(home, SILENT_FILE, [f"{host} {port} {since_ms}" for (host, port), since_ms in newest])


def _pair(line: str) -> tuple[str, int] | None:
    """The address that a line names, if it does."""
    host, _, port = line.rpartition(" ")
    known = port.isdigit() and 0 < int(port[:6]) < 65_536
    address = Address.parse(f"{host}:{port}") if known else None
    return None if address is None else address.pair


def remember_peers(home: Home, peer: Peer) -> None:
    """Keep the addresses of servers for the next start; where none was met, those of the last run stay."""
    lines = [f"{host} {port}" for host, port in peer.endpoint.known_addresses(KEPT_MAX)]
    if lines:
        _keep(home, FILE, lines)


def _keep(home: Home, file: str, lines: list[str]) -> None:
    try:
        home.disk.replace(file, "\n".join(lines).encode())
    except OSError as error:
        LOGGER.warning("the list of known peers was not kept: %s", error)
