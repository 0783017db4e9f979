"""One look of a publisher for its own advert: carries a canary's questions to the holders of one posting's way.

Decides nothing about answers: `summaries.canary` does. Holders are told by their keys, as XenoCorp knows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from dht.contact import Contact
from dht.endpoint import Endpoint
from summaries.asks import Ask, Outcome
from summaries.canary import Canary, way
from summaries.point import Point
from summaries.publish import Posting
from summaries.trie import ROOT, Prefix
from xenonode.search.asking import Asker, Places

LOOK_TIMEOUT_S = 20.0
"""Ten time-outs of a question; all are asked at once, and whoever was not heard by then is not told of."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an advert stands in one dimension since it was acknowledged there."""

    point: Point
    tries: tuple[tuple[Posting, ...], ...]  # its postings in each trie of the dimension


async def look(
    places: Places,
    asker: Asker,
    endpoint: Endpoint,
    dimension: str,
    standing: Standing,
    rng: Random,
    root_groups: int = 1,
) -> dict[bytes, bool]:
    """Which holders, by key, show the advert to who asks as readers do. Raises XenoError."""
    placement = await places.placement(dimension)
    salt = rng.randrange(len(standing.tries)) if len(standing.tries) > 1 else 0
    posting = rng.choice(standing.tries[salt])

    async def others(prefix: Prefix, group: int = 0) -> list[bytes]:
        found = await placement.find(prefix, salt or group)
        return [one.packed for one in found if one.node_id != placement.overlay.node_id]

    holders = {prefix: await others(prefix) for prefix in way(posting.leaf)}
    group = rng.randrange(1, root_groups) if root_groups > 1 and len(standing.tries) == 1 else 0
    copied = await others(ROOT, group) if group else []
    canary = Canary(dimension, standing.point, posting, standing.point.seq, holders, rng, copied, group, salt)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send(asks: Sequence[Ask]) -> None:
        for ask in asks:
            asker.carry(ask, partial(heard, ask))
        if canary.finished and not done.done():
            done.set_result(None)

    def heard(ask: Ask, outcome: Outcome) -> None:
        send(canary.answered(ask, outcome))

    send(canary.start())
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            await done
    except TimeoutError:
        pass  # some were silent, which is no lie
    seen: dict[bytes, bool] = {}
    for holder, shows in canary.seen.items():
        peer = endpoint.peer(Contact.unpack(holder).address)
        if peer is not None and peer.member is not None:
            key = peer.member.public_key
            seen[key] = shows and seen.get(key, True)
    return seen


def members_of(answer: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    """Whom XenoCorp says to shun; nothing in an answer of another form."""
    pairs = answer.get("shunned")
    return [(one[0], one[1]) for one in pairs if _is_pair(one)] if isinstance(pairs, list) else []


def _is_pair(one: object) -> bool:
    return isinstance(one, list) and len(one) == 2 and all(isinstance(part, bytes) for part in one)
