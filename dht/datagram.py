"""Datagrams: header, MAC and replay window.

Decides which bytes are a datagram of this network and session. Leaves who the peer is to `handshake`
and what the body means to `endpoint`. Layout:

    version and type 1 | overlay 4 | session 8 | counter 8 | msgpack array | MAC 16

The session is the one that the receiver chose. Requests and replies carry a keyed BLAKE2b MAC under the
session's key for that direction; the messages of the handshake carry one under a key made of the
network's id, which only sorts out strangers. Header and that MAC are the same in every version: a HELLO of another
one is answered by VERSIONS, the versions that this node speaks, so that its sender can begin again in one of them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest

from .errors import LocalError

VERSION = 1
MAX_DATAGRAM_BYTES = 1_200
MAC_BYTES = 16
HEADER = struct.Struct(">BIQQ")
HEADER_BYTES = HEADER.size
MIN_DATAGRAM_BYTES = HEADER_BYTES + MAC_BYTES
MAX_BODY_BYTES = MAX_DATAGRAM_BYTES - MIN_DATAGRAM_BYTES
# Datagrams that may overtake one another; loopback reorders few, a path with a clog some hundred.
REPLAY_WINDOW = 512
_WINDOW_MASK = (1 << REPLAY_WINDOW) - 1

HELLO, WELCOME, COOKIE, RESET, REQUEST, REPLY, VERSIONS = (VERSION << 4 | kind for kind in range(1, 8))


def seal(type: int, overlay: int, session: int, counter: int, body: bytes, key: bytes) -> bytes:
    """A whole datagram."""
    data = HEADER.pack(type, overlay, session, counter) + body
    return data + blake2b(data, digest_size=MAC_BYTES, key=key).digest()


def genuine(data: bytes, key: bytes) -> bool:
    """Whether the MAC at the end of `data` is the key's own."""
    mac = blake2b(data[:-MAC_BYTES], digest_size=MAC_BYTES, key=key).digest()
    return compare_digest(mac, data[-MAC_BYTES:])


def network_key(network_id: bytes) -> bytes:
    """The key of the handshake's MACs: it tells this network's datagrams from other noise, no more."""
    return hashlib.sha256(b"xeno-network-1" + network_id).digest()


@lru_cache(maxsize=256)
def overlay_tag(network_id: bytes, dimension: str) -> int:
    """The overlay's four bytes in the header: SHA-256(network | dimension)[:4]."""
    digest = hashlib.sha256(len(network_id).to_bytes(4, "big") + network_id + dimension.encode()).digest()
    return int.from_bytes(digest[:4], "big")


def overlay_tags(network_id: bytes, dimensions: Iterable[str]) -> dict[str, int]:
    """The tags of a whole set of overlays; LocalError where two of them, or one and the network, have the same."""
    own = int.from_bytes(network_key(network_id)[:4], "big")
    tags: dict[str, int] = {}
    for dimension in dimensions:
        tag = overlay_tag(network_id, dimension)
        other = next((name for name, held in tags.items() if held == tag), None)
        if other is not None or tag == own:
            raise LocalError(f"overlay {dimension!r} has the tag of {other or 'the network itself'!r}: rename it")
        tags[dimension] = tag
    return tags


class ReplayWindow:
    """Which counters of a session were seen (as in RFC 4303, section 3.4.3).

    What is kept are those that were not: of a session whose datagrams come in order, none, and so no memory.
    """

    __slots__ = ("_missing", "highest")

    def __init__(self) -> None:
        self.highest = 0
        self._missing = 0  # bit n: the counter that is n below the highest

    def admit(self, counter: int) -> bool:
        """Whether this counter is new; asking notes it. Only ask once the MAC is known to be genuine."""
        ahead = counter - self.highest
        if ahead > 0:
            if ahead > 1 or self._missing:
                # A sender may jump, and a shift by a jump of 2^60 would take all memory.
                jump = min(ahead, REPLAY_WINDOW)
                self._missing = (self._missing << jump | (1 << jump) - 2) & _WINDOW_MASK
            self.highest = counter
            return True
        if ahead <= -REPLAY_WINDOW:
            return False
        bit = 1 << -ahead
        if not self._missing & bit:
            return False
        self._missing ^= bit
        return True
