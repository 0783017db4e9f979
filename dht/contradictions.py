"""Equivocation: two records of one owner with one sequence number and two contents, or two adverts of one server.

Decides what is told of them, and to whom: each pair once, to every listener, with both as they were signed, which
prove the fraud to anybody. Leaves finding them to `shelf` (a holder is given both) and `walk` (two holders differ),
and to whoever verifies adverts; and what becomes of the owner to the listeners.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from .aging import Aging
from .envelope import Envelope, contradicts
from .record import Record

# Pairs remembered, so that a repeated lie is told once; a member may write 60 records a minute to one holder.
MAX_TOLD = 4_096


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A proof: `first` and `second` are signed by `owner` under one sequence number."""

    owner: bytes
    seq: int
    first: bytes
    second: bytes


class Contradictions:
    """All that one endpoint has met."""

    def __init__(self, counters: Counter[str], on_fault: Callable[[Exception], None]) -> None:
        self._counters = counters
        self._on_fault = on_fault
        self._listeners: list[Callable[[Contradiction], None]] = []
        self._told: Aging[bytes, None] = Aging()

    def listen(self, callback: Callable[[Contradiction], None]) -> None:
        """Call this with each proof, from now on."""
        self._listeners.append(callback)

    def note(self, one: Record, other: Record) -> None:
        """Two records with one owner, key and sequence number; the same two are told once."""
        if one.owner == other.owner and one.seq == other.seq:
            self._tell(one.owner, one.seq, one.envelope, other.envelope)

    def note_signed(self, one: Envelope, other: Envelope) -> None:
        """Two of anything that a member may sign only once a sequence number, such as its adverts."""
        if contradicts(one, other):
            self._tell(one.key, one.seq, one, other)

    def _tell(self, owner: bytes, seq: int, one: Envelope, other: Envelope) -> None:
        if one.id == other.id:
            return
        pair = b"".join(sorted((one.id, other.id)))
        if pair in self._told:
            return
        self._told[pair] = None
        if len(self._told) > MAX_TOLD:
            self._told.pop_oldest()
        self._counters["equivocations"] += 1
        first, second = sorted((one.raw, other.raw))
        for listener in self._listeners:
            try:
                listener(Contradiction(owner, seq, first, second))
            except Exception as fault:
                self._on_fault(fault)
