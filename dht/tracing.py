"""A lookup that remembers whom it asked, how long each took and what it answered: for an operator's eyes.

Decides nothing about the lookup, which is a `Walk` as any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .contact import Contact
from .errors import DhtError
from .peers import Call
from .walk import Walk

if TYPE_CHECKING:
    from .overlay import Overlay


@dataclass(frozen=True, slots=True)
class Hop:
    """One question of a lookup; `took_ms` is None when no answer came before the lookup was over."""

    contact: Contact
    asked_ms: float
    took_ms: float | None
    answer: str
    distance_bits: int


class TracedWalk(Walk):
    """`Walk` for the nodes nearest to a key; `hops` in the order in which they were asked."""

    def __init__(self, overlay: Overlay, key: bytes, on_done: Callable[[list[Contact]], None], *, k: int) -> None:
        super().__init__(overlay, key, on_done, k=k)
        self._target = int.from_bytes(key, "big")
        self._asked: dict[bytes, Hop] = {}

    @property
    def hops(self) -> list[Hop]:
        """Whom it asked so far."""
        return list(self._asked.values())

    def _go_on(self, contacts: list[Contact]) -> None:
        for contact in contacts:
            bits = (contact.number ^ self._target).bit_length()
            self._asked[contact.node_id] = Hop(contact, self._now_ms(), None, "no answer", bits)
        super()._go_on(contacts)

    def _answered(self, call: Call, error: DhtError | None, body: bytes) -> None:
        if error is not None:
            self._note(call.contact, str(error))
        super()._answered(call, error, body)

    def _read(self, call: Call, body: bytes) -> list[Contact]:
        try:
            contacts = super()._read(call, body)
        except DhtError as error:
            self._note(call.contact, f"nonsense: {error}")
            raise
        new = sum(contact.node_id not in self._asked for contact in contacts)
        self._note(call.contact, f"{len(contacts)} contacts, {new} not asked before")
        return contacts

    def _note(self, contact: Contact | None, answer: str) -> None:
        hop = None if contact is None else self._asked.get(contact.node_id)
        if hop is not None and hop.took_ms is None:
            took_ms = self._now_ms() - hop.asked_ms
            self._asked[hop.contact.node_id] = Hop(hop.contact, hop.asked_ms, took_ms, answer, hop.distance_bits)

    def _now_ms(self) -> float:
        return (self._endpoint.time() - self._began_s) * 1_000


async def trace(overlay: Overlay, key: bytes, k: int) -> tuple[list[Hop], list[Contact]]:
    """Look the nodes nearest to a key up; every question on the way, and what was found."""
    future = overlay.endpoint.loop.create_future()
    walk = TracedWalk(overlay, key, lambda found: None if future.done() else future.set_result(found), k=k)
    walk.begin()
    found: list[Contact] = await future
    return walk.hops, found
