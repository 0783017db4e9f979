"""Measuring the way to hosts that are no members, for members who ask: by the time that a TCP connection takes.

Decides what is measured for whom, so that nobody is bothered and nobody learns more than a time: only addresses that
the network's profile admits, a few a minute for each asker and for all together, nothing twice within minutes, and
whoever did not answer is left alone. Whether a port was open or closed is not told.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dht import wire
from dht.contact import admits
from dht.coordinates import Coordinate
from dht.endpoint import Endpoint
from dht.limits import Allowance, Bucket
from dht.reply import Reply
from xenonode.env import Env
from xenonode.search.kinds import MEASURE

EACH = Allowance(1 / 5, 6)
"""For each asker: one in five seconds; a query names at most sixteen hosts, and eight servers share those."""
ALL = Allowance(1.0, 20)
OPEN_MAX = 8
ASKERS_MAX = 1_024
REMEMBERED_S = 300.0
LEFT_ALONE_S = 600.0
"""A host that did not answer may not want to."""
REMEMBERED_MAX = 1_024
CONNECT_TIMEOUT_S = 1.5
TRIES = 3
"""The least of three: what is more is waiting, not distance."""


@dataclass(frozen=True, slots=True)
class _Measured:
    rtt_us: int  # 0: no answer
    until_s: float


class Measurer:
    """One server's part."""

    def __init__(self, endpoint: Endpoint, env: Env, profile: str) -> None:
        self._endpoint, self._env, self._profile = endpoint, env, profile
        self._askers: dict[bytes, Bucket] = {}
        self._all: Bucket | None = None
        self._known: dict[tuple[str, int], _Measured] = {}
        self._open: dict[tuple[str, int], list[Reply]] = {}
        endpoint.handle(MEASURE, self._asked)

    def _asked(self, peer: object, body: bytes, reply: Reply) -> None:
        match wire.unpack(body):
            case [str(host), int(port)] if 0 < port < 65_536:
                why = self._refusal(host, reply)
                if why:
                    reply.refuse(why)
                    return
                self._measure((host, port), reply)
            case _:
                reply.refuse("name a host's address and a port")

    def _refusal(self, host: str, reply: Reply) -> str:
        """Why this is not measured, if it is not."""
        now_s = asyncio.get_running_loop().time()
        member = reply.peer.member
        if member is None:
            return "only for members"
        if not admits(host, self._profile):
            return f"no address for a network of profile {self._profile}"
        bucket = self._askers.setdefault(member.public_key, Bucket(EACH, now_s))
        if len(self._askers) > ASKERS_MAX:
            del self._askers[next(iter(self._askers))]
        self._all = self._all or Bucket(ALL, now_s)
        if not bucket.take(EACH, now_s) or not self._all.take(ALL, now_s):
            return "too many hosts to measure; ask later"
        return ""

    def _measure(self, target: tuple[str, int], reply: Reply) -> None:
        known = self._known.get(target)
        if known is not None and known.until_s > asyncio.get_running_loop().time():
            self._answer(reply, known.rtt_us)
        elif target in self._open:
            self._open[target].append(reply)
        elif len(self._open) >= OPEN_MAX:
            reply.busy(1_000)
        else:
            self._open[target] = [reply]
            self._env.spawn(self._connect(target), f"measure {target[0]}")

    async def _connect(self, target: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        times: list[float] = []
        try:
            for _ in range(TRIES):
                took_s = await _time_to(target)
                if took_s is None:
                    break  # who is silent once is not asked again
                times.append(took_s)
        finally:
            rtt_us = max(1, round(min(times) * 1e6)) if times else 0
            until_s = loop.time() + (REMEMBERED_S if times else LEFT_ALONE_S)
            if len(self._known) >= REMEMBERED_MAX:
                del self._known[next(iter(self._known))]
            self._known[target] = _Measured(rtt_us, until_s)
            for reply in self._open.pop(target):
                self._answer(reply, rtt_us)

    def _answer(self, reply: Reply, rtt_us: int) -> None:
        if not rtt_us:
            reply.refuse("the host does not answer")
        else:
            reply(wire.pack([rtt_us, *in_microseconds(self._endpoint.coordinate)]))


def in_microseconds(coordinate: Coordinate) -> tuple[int, int, int, int]:
    """A network coordinate as adverts and queries have it."""
    x, y, z = (round(value * 1_000) for value in (coordinate.x_ms, coordinate.y_ms, coordinate.z_ms))
    return x, y, z, max(0, round(coordinate.height_ms * 1_000))


async def _time_to(target: tuple[str, int]) -> float | None:
    """How long a connection takes to be accepted or refused; None where neither happens."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            transport, _ = await loop.create_connection(asyncio.Protocol, *target)
    except ConnectionRefusedError:
        return loop.time() - began_s
    except (OSError, TimeoutError, NotImplementedError):
        return None
    took_s = loop.time() - began_s
    transport.abort()
    return took_s
