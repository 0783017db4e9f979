"""Where a host is that is no member: asked of servers, which measure the way to it, and fitted to their coordinates.

Decides whom to ask, how many answers are enough, and how long an estimate is believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from dht import wire
from dht.contact import Address
from dht.endpoint import Endpoint
from dht.errors import DhtError
from summaries.filter import Coordinate
from summaries.trilateration import LEAST_LANDMARKS, locate
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.search.kinds import MEASURE

ASKED = 10
"""Servers asked about one host: more than twice the unknowns, so that a few wrong ones do not decide."""
TIMEOUT_MS = 6_000
"""Three connections of 1.5 s at the most, and the way there."""
BELIEVED_MS = 3_600_000
REMEMBERED_MAX = 256
Meet = Callable[[], Awaitable[Sequence[Address]]]


class Landmarks:
    """Estimates of hosts' coordinates, remembered for an hour. `meet` names servers that may be asked."""

    def __init__(self, endpoint: Endpoint, env: Env, meet: Meet) -> None:
        self._endpoint, self._env, self._meet = endpoint, env, meet
        self._known: dict[str, tuple[Coordinate, int]] = {}
        self.on_change: Callable[[], None] = lambda: None

    async def place(self, host: str, address: Address) -> Coordinate:
        """A host's estimated coordinate. Raises XenoError where too few servers can tell."""
        known = self._known.get(host)
        if known is not None and known[1] > self._env.now_ms():
            return known[0]
        servers = list(await self._meet())
        some = self._env.rng("landmarks").sample(servers, min(ASKED, len(servers)))
        answers = await asyncio.gather(*(self._ask(server, address) for server in some))
        measured = [each for each in answers if each is not None]
        if len(measured) < LEAST_LANDMARKS:
            raise XenoError(
                f"near: {host} is no member, and {len(measured)} of {len(some)} servers could measure the way to it",
                "name a port at which it answers, or a member ('xenonode peers' lists some), or use coord(x, y, z, h)",
                "unknown_host",
            )
        found = locate(measured).place
        if len(self._known) >= REMEMBERED_MAX:
            del self._known[next(iter(self._known))]
        self._known[host] = found, self._env.now_ms() + BELIEVED_MS
        self.on_change()
        return found

    def stored(self) -> bytes:
        """What is remembered, for the next start."""
        return wire.encode({host: [*place, until_ms] for host, (place, until_ms) in sorted(self._known.items())})

    def restore(self, stored: bytes) -> None:
        """Take in what an earlier run stored; anything else is passed over."""
        try:
            found = wire.decode(stored) if stored else {}
        except DhtError:
            return
        for host, entry in (found if isinstance(found, dict) else {}).items():
            match entry:
                case [int(x), int(y), int(z), int(height), int(until_ms)]:
                    self._known[host] = (x, y, z, height), until_ms

    async def _ask(self, server: Address, address: Address) -> tuple[Coordinate, int] | None:
        try:
            answer = await self._endpoint.ask(server, MEASURE, wire.pack([*address]), timeout_ms=TIMEOUT_MS)
            match wire.unpack(answer):
                case [int(rtt_us), int(x), int(y), int(z), int(height)] if rtt_us > 0 and height >= 0:
                    return (x, y, z, height), rtt_us
        except DhtError:
            pass  # it may not, does not want to, or is gone
        return None
