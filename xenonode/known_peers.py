"""Addresses of servers that a member met in its last run, kept so that the next start finds the network by them.

Without them the network file's seeds, and so XenoCorp, would have to answer before anybody could search.
"""

from __future__ import annotations

import logging

from xenonode.home import Home
from xenonode.model.entity import Address
from xenonode.peer import Peer

LOGGER = logging.getLogger("xenonode.known_peers")
FILE = "peers"
"""In the member's state, one address a line."""
KEPT_MAX = 64


def known_peers(home: Home) -> list[tuple[str, int]]:
    """Servers seen in the last run; a line that is no address is passed over."""
    found = []
    for line in home.disk.read(FILE).decode("ascii", "replace").splitlines():
        host, _, port = line.rpartition(" ")
        if port.isdigit() and 0 < int(port) < 65_536 and (address := Address.parse(f"{host}:{port}")) is not None:
            found.append(address.pair)
    return found


def remember_peers(home: Home, peer: Peer) -> None:
    """Keep the addresses of servers for the next start; where none was met, those of the last run stay."""
    lines = [f"{host} {port}" for host, port in peer.endpoint.known_addresses(KEPT_MAX)]
    if not lines:
        return
    try:
        home.disk.replace(FILE, "\n".join(lines).encode())
    except OSError as error:
        LOGGER.warning("the list of known peers was not kept: %s", error)
