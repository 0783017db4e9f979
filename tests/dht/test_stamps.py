"""What a table said of a peer is remembered while the table stays as it is, and that changes nothing but the cost."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from dht.endpoint import Endpoint
from dht.handshake import Member
from dht.identity import ED25519
from dht.overlay import Overlay
from dht.peers import NOWHERE, Peer
from tests.dht.conftest import NETWORK, credential_for, member_check, wall_ms

PEERS = 90
HEARD, DROPPED, MOVED, SHUNNED, EXCHANGED, LEFT = range(6)
_SIGNER = ED25519.generate(bytes(32))
_CREDENTIAL = credential_for(_SIGNER)
# Mostly datagrams, so that buckets fill, newcomers wait, and what was remembered is used.
_STEPS = st.tuples(
    st.sampled_from([HEARD] * 60 + [DROPPED] * 6 + [MOVED, SHUNNED, EXCHANGED, EXCHANGED, LEFT]),
    st.integers(0, PEERS - 1),
)


def overlay_of(profile: str) -> Overlay:
    endpoint = Endpoint(
        _SIGNER,
        _CREDENTIAL,
        member_check,
        network_id=NETWORK,
        now_ms=wall_ms,
        rng=random.Random(1),
        profile=profile,
    )
    overlay = endpoint.overlay("cores")
    overlay.table.ksize = 4
    overlay.table.flush()
    return overlay


def peers_of(seed: int) -> list[Peer]:
    rng = random.Random(seed)
    peers: list[Peer] = []
    for number in range(PEERS):
        peer = Peer((f"9.0.{number // 3}.{number % 3 + 1}", 4_000), 0.0)
        # A third are at two places, and taken to be at the one where they were heard last.
        again = peers[number - PEERS // 3].member if number >= 2 * PEERS // 3 else None
        peer.member = again or Member(rng.randbytes(32), rng.randbytes(8), "somebody", 2**50, True)
        peers.append(peer)
    return peers


def step(overlay: Overlay, peers: list[Peer], what: int, index: int) -> None:
    peer, table = peers[index], overlay.table
    if what == HEARD:
        overlay.heard(peer)
    elif what == DROPPED:
        overlay.drop(overlay.contact_of(peer))
    elif what == MOVED:
        # The same member at another address, as `Sessions._replace` leaves it.
        peer.address = (f"9.1.{index}.1", 4_001)
        peer.met = NOWHERE
    elif what == SHUNNED:
        member = peer.member
        assert member is not None
        overlay.shun(() if overlay.shunned else [(member.public_key, member.issuer_nonce)])
    elif what == EXCHANGED:
        table.exchange([overlay.contact_of(each) for each in peers[index:]], random.Random(index))
    else:
        overlay.active = False
        table.flush()
        overlay.heard(peer)
        overlay.active = True


def state(overlay: Overlay) -> list[object]:
    return [(each.nodes, list(each.replacement_nodes), each.knocks) for each in overlay.table.levels]


@given(st.lists(_STEPS, min_size=200, max_size=600), st.integers(0, 2**16), st.sampled_from(["local", "public"]))
@settings(max_examples=60, deadline=None)
def test_a_table_is_the_same_whether_its_word_on_a_peer_is_remembered_or_asked_for_each_time(
    steps: list[tuple[int, int]], seed: int, profile: str
) -> None:
    remembers, asks = overlay_of(profile), overlay_of(profile)
    mine, theirs = peers_of(seed), peers_of(seed)
    for what, index in steps:
        step(remembers, mine, what, index)
        theirs[index].met = tuple(None if at and not at % 2 else each for at, each in enumerate(theirs[index].met))
        step(asks, theirs, what, index)
        assert state(remembers) == state(asks)
