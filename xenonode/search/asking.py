"""Carrying the questions of the state machines in `summaries` to the holders of trie nodes.

Decides nothing; one home for what a search and a publication both need. A question whose holders are known costs
no task: one call, one callback. Only a lookup, or an overlay that must be joined first, is a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from dht import wire
from dht.contact import Contact
from dht.errors import DhtError, LocalError
from summaries.asks import ABSENT, Ask, Outcome
from summaries.errors import MessageError
from summaries.forms import from_fields, to_fields
from summaries.messages import Refused, Renew
from summaries.trie import ROOT
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.search.kinds import TRIE
from xenonode.search.placement import Placement

Done = Callable[[Outcome], None]
Failed = Callable[[XenoError], None]
Slow = Callable[[], None]


class Places(Protocol):
    """Where the trie nodes of each dimension are: implemented by a node's `Peer`."""

    def joined(self, dimension: str) -> Placement | None:
        """The placement of a dimension whose overlay this node has joined."""

    async def placement(self, dimension: str) -> Placement:
        """The same, joining the overlay first if need be. Raises XenoError."""


class Asker:
    """`carry(ask, done)`: `done` gets the outcome exactly once, and never from within `carry`.

    Where the overlay cannot be joined, `failed` gets the reason instead; without it, that is no answer like others.
    `slow` is called, at most once and before `done`, when who is asked takes longer than it should.
    """

    def __init__(self, places: Places, env: Env) -> None:
        self._places, self._env = places, env
        self.bytes_out = self.bytes_in = 0  # of questions and answers, for who explains a search

    def carry(self, ask: Ask, done: Done, failed: Failed | None = None, slow: Slow | None = None) -> None:
        """Send one question, after the wait that it asks for."""
        if ask.after_ms:
            asyncio.get_running_loop().call_later(ask.after_ms / 1000, self._send, ask, done, failed, slow)
        else:
            self._send(ask, done, failed, slow)

    def _send(self, ask: Ask, done: Done, failed: Failed | None, slow: Slow | None) -> None:
        placement = self._places.joined(ask.dimension)
        if placement is not None:
            if ask.holder is not None:
                self._call(placement, ask, Contact.unpack(ask.holder), done, slow)
                return
            holders = placement.remembered(ask.prefix, ask.key) or placement.told(ask.prefix, ask.named, ask.key)
            if holders is not None:
                self._to_replica(placement, ask, holders, done, slow)
                return
        self._env.spawn(self._locate(ask, done, failed, slow), f"holders of {ask.dimension} {ask.prefix}")

    async def _locate(self, ask: Ask, done: Done, failed: Failed | None, slow: Slow | None) -> None:
        try:
            placement = await self._places.placement(ask.dimension)
        except XenoError as error:
            if failed is None:
                done(None)
            else:
                failed(error)
            return
        if ask.holder is not None:
            self._call(placement, ask, Contact.unpack(ask.holder), done, slow)
        else:
            self._to_replica(placement, ask, await placement.find(ask.prefix, ask.key), done, slow)

    def _to_replica(
        self, placement: Placement, ask: Ask, holders: list[Contact], done: Done, slow: Slow | None
    ) -> None:
        rest = [each for each in holders if each.packed not in ask.exclude]
        if ask.replica < len(rest):
            self._call(placement, ask, rest[ask.replica], done, slow)
        else:
            # Nobody at all is a network that cannot be reached; too few is one that is small.
            asyncio.get_running_loop().call_soon(done, ABSENT if holders else None)

    def _call(self, placement: Placement, ask: Ask, contact: Contact, done: Done, slow: Slow | None) -> None:
        if placement.shuns(contact):
            asyncio.get_running_loop().call_soon(done, None)
            return

        def heard(answer: bytes | None, error: DhtError | None) -> None:
            if answer is None:
                placement.forget(ask.prefix, ask.key)
                done(None)
                return
            self.bytes_in += len(answer)
            try:
                message = from_fields(wire.unpack(answer))
            except (DhtError, MessageError):
                done(None)
            else:
                if isinstance(message, Refused) and ask.prefix == ROOT and not isinstance(ask.message, Renew):
                    placement.forget(ask.prefix, ask.key)  # others are nearer, perhaps
                done(message)

        try:
            body = wire.pack(to_fields(ask.sent))
            self.bytes_out += len(body)
            placement.overlay.ask_then(contact, TRIE, body, heard, slow=slow)
        except LocalError:  # the endpoint is closing, or has more calls open than it may
            asyncio.get_running_loop().call_soon(done, None)
