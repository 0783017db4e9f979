"""Telling and asking what follows the schema that one has: by its hash, of any peer, in pieces of a datagram.

Decides how often a node asks, and whom. What comes back is checked against XenoCorp's signature, so it does not matter
who told it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dht import wire
from dht.contact import Address, address_text
from dht.endpoint import Endpoint
from dht.errors import DhtError, RemoteError
from dht.reply import Reply
from xenonode.env import Env
from xenonode.model.extension import SchemaExtension
from xenonode.search.growth import Growth
from xenonode.search.kinds import SCHEMA

REFRESH_S = 60.0
"""News reach everybody within some minutes, while an advert in a new trie has 22 of them until searches read it."""
PIECE_BYTES = 900
EXTENSIONS_A_ROUND_MAX = 32
ASKED_A_ROUND = 2
"""Peers asked in one round: one may be behind as well, or lie that there is nothing."""
LOGGER = logging.getLogger("xenonode.search")


class News:
    """One node's part in spreading extensions. `grown(name)` is called for each new dimension."""

    def __init__(self, endpoint: Endpoint, growth: Growth, env: Env, grown: Callable[[str], None]) -> None:
        self._endpoint, self._growth, self._env, self._grown = endpoint, growth, env, grown
        endpoint.handle(SCHEMA, self._asked)

    async def stay_informed(self) -> None:
        """Ask now and then, until cancelled."""
        rng = self._env.rng("schema")
        while True:
            await asyncio.sleep(REFRESH_S * rng.uniform(0.5, 1.5))
            known = self._endpoint.known_addresses(64)
            for address in rng.sample(known, min(ASKED_A_ROUND, len(known))):
                await self.ask(address)

    async def ask(self, address: Address) -> list[str] | None:
        """Take over what a peer knows and we do not: the new dimensions; None where it did not answer as it should."""
        names: list[str] = []
        try:
            while len(names) < EXTENSIONS_A_ROUND_MAX and (raw := await self._fetch(address)):
                names.append(self.take(raw))
        except DhtError as error:
            LOGGER.info("no news of the schema from %s: %s", address_text(address), error)
            return None
        return names

    def take(self, raw: bytes) -> str:
        """Add an extension, and tell who waits for it. Raises RemoteError for one that does not follow."""
        name = self._growth.take(raw, self._env.now_ms())
        LOGGER.info("the schema has grown to epoch %d by %s", self._growth.newest.epoch, name)
        self._grown(name)
        return name

    async def _fetch(self, address: Address) -> bytes:
        """What follows our schema, whole; empty where the peer knows of nothing. Raises DhtError."""
        head, whole = self._growth.head, b""
        while True:
            answer = await self._endpoint.ask(address, SCHEMA, wire.pack([head, len(whole)]))
            match wire.unpack(answer):
                case [int(total), bytes(piece)] if total <= SchemaExtension.MAX_BYTES and (piece or not total):
                    whole += piece
                    if len(whole) >= total:
                        return whole
                case _:
                    raise RemoteError("no answer to a question for the schema")

    def _asked(self, peer: object, body: bytes, reply: Reply) -> None:
        match wire.unpack(body):
            case [bytes(head), int(offset)] if offset >= 0:
                raw = self._growth.after(head)
                reply(wire.pack([len(raw), raw[offset : offset + PIECE_BYTES]]))
            case _:
                raise RemoteError("a question for the schema names what it has, and an offset")
