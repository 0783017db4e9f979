"""XenoCorp's side of a schema that grows: the operator adds a dimension, XenoCorp signs it and tells its peers.

Decides the new dimension's breakpoints (equally many of the adverts that XenoCorp's own node knows in each, or a
geometric series where it knows few) and when searches begin to read it: three lives of an advert later.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from dht.identity import Signer
from summaries.attributes import ATTRIBUTES, LARGEST
from summaries.dimension import Dimension, equi_depth
from xenonode.corp.errors import RefusedError
from xenonode.corp.requests import Caller, Method, guarded
from xenonode.model.extension import BREAKPOINTS_MAX, SchemaExtension
from xenonode.peer import Peer

SEARCH_IN_MS = 1_350_000
"""Three TTLs of 450 s: by then every server that is up has heard of it and published into it."""
SEARCH_IN_MOST_MS = 7 * 86_400_000
SAMPLE_LEAST = 64
"""Fewer adverts say little of how values are spread."""


class SchemaDesk:
    """Answers `schema.show` and `schema.extend`."""

    def __init__(self, peer: Peer, issuing: Signer, operator: bytes) -> None:
        self._peer, self._issuing, self._operator = peer, issuing, operator

    @property
    def handlers(self) -> Mapping[str, Any]:
        own: dict[str, Method] = {"schema.show": self._show, "schema.extend": self._extend}
        return {name: guarded(method) for name, method in own.items()}

    async def _show(self, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
        return self._state()

    async def _extend(self, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
        if caller.public_key != self._operator:
            raise RefusedError("not_operator", "only XenoCorp's operator may do this", "use the operator's key")
        name, search_in_ms = body.get("name"), body.get("search_in_ms", SEARCH_IN_MS)
        if not isinstance(name, str) or not isinstance(search_in_ms, int):
            raise RefusedError("bad_request", "the request needs a name, and a time in milliseconds", "send them")
        if not 0 <= search_in_ms <= SEARCH_IN_MOST_MS:
            raise RefusedError("bad_request", "searches begin to read it within a week", "give a shorter time")
        growth, now_ms = self._peer.growth, self._peer.env.now_ms()
        addable = [one for one in indexable() if one not in growth.newest.by_name]
        if name not in addable:
            there = name in growth.newest.by_name
            close = get_close_matches(name, addable, 1, 0.5)
            hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(addable) or 'none is left'}"
            why = "is one already" if there else "is no attribute of adverts that has an order"
            raise RefusedError("no_dimension", f"{name!r} {why}", hint)
        dimension = Dimension(name, ATTRIBUTES[name].unit, "ordered", self._breakpoints(name))
        extension = SchemaExtension.of(growth.newest, growth.head, dimension, now_ms, now_ms + search_in_ms)
        self._peer.news.take(extension.seal(self._issuing).raw)
        return self._state()

    def _breakpoints(self, name: str) -> tuple[int, ...]:
        values = self._peer.adverts.values(name)
        if len(values) >= SAMPLE_LEAST:
            return equi_depth(values, BREAKPOINTS_MAX)
        if ATTRIBUTES[name].kind == "text":
            return tuple(range(1 << 54, 1 << 62, 1 << 54))
        steps = [int(2 ** (step / 4)) for step in range(4, 4 * LARGEST.bit_length())]
        return tuple(sorted(set(steps)))[:BREAKPOINTS_MAX]

    def _state(self) -> dict[str, Any]:
        growth = self._peer.growth
        dimensions = [
            {
                "name": one.name,
                "kind": one.kind,
                "epoch": growth.of(one.name).epoch,
                "breakpoints": len(one.breakpoints),
                "search_from_ms": growth.search_from_ms(one.name),
            }
            for one in growth.newest.dimensions
        ]
        return {"epoch": growth.newest.epoch, "hash": growth.head, "dimensions": dimensions}


def indexable() -> list[str]:
    """The attributes that can become a dimension: numbers, prices, and texts by their hash."""
    return sorted(name for name, one in ATTRIBUTES.items() if one.kind in ("number", "price", "text"))
