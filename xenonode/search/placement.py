"""Where the trie nodes of one dimension live: the R nodes nearest to each one's key.

Decides how long a lookup's answer is believed. Sources: search.md of the design gives R = 3 and 15 s for cached
paths; a lookup asks for more than R, because the nearest of eight that answered are the nearest there are, while
the nearest of three often are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dht.contact import Contact
from dht.overlay import Overlay
from summaries.trie import Prefix

REPLICAS = 3
LOOKED_UP = 8
REMEMBERED_S = 30.0
"""Twice the rebuild period: a holder that left is noticed by its silence, one that came is told by the next lookup."""
PREFIXES_REMEMBERED_MAX = 4_096


class Placement:
    """Finds and remembers the holders of prefixes."""

    def __init__(self, overlay: Overlay, key_of: Callable[[Prefix], bytes], replicas: int = REPLICAS) -> None:
        self.overlay, self.replicas = overlay, replicas
        self._key_of = key_of
        self._known: dict[Prefix, tuple[float, list[Contact]]] = {}
        self._finding: dict[Prefix, asyncio.Future[list[Contact]]] = {}

    def remembered(self, prefix: Prefix) -> list[Contact] | None:
        """The holders, if they were looked up a moment ago."""
        found = self._known.get(prefix)
        if found is None or found[0] < asyncio.get_running_loop().time():
            return None
        return found[1]

    async def find(self, prefix: Prefix) -> list[Contact]:
        """The holders, by a lookup if need be; who asks while one is under way shares it."""
        known = self.remembered(prefix)
        if known is not None:
            return known
        under_way = self._finding.get(prefix)
        if under_way is not None:
            return await asyncio.shield(under_way)
        loop = asyncio.get_running_loop()
        promise = self._finding[prefix] = loop.create_future()
        contacts: list[Contact] = []
        try:
            contacts = (await self.overlay.find(self._key_of(prefix), LOOKED_UP))[: self.replicas]
            if contacts:
                if len(self._known) >= PREFIXES_REMEMBERED_MAX:
                    self._known.pop(next(iter(self._known)))
                self._known[prefix] = (loop.time() + REMEMBERED_S, contacts)
        finally:
            del self._finding[prefix]
            if not promise.done():
                promise.set_result(contacts)
        return contacts

    def forget(self, prefix: Prefix) -> None:
        """A holder did not answer: look it up again next time."""
        self._known.pop(prefix, None)

    def may_hold(self, prefix: Prefix, holder: bytes) -> bool:
        """Whether a node is near enough to a prefix's key to speak for it: among the nearest that we know."""
        number = int.from_bytes(self._key_of(prefix), "big")
        nearest = self.overlay.known(self._key_of(prefix), LOOKED_UP)
        if len(nearest) < LOOKED_UP:
            return True
        contact = Contact.unpack(holder)
        return contact.number ^ number <= nearest[-1].number ^ number
