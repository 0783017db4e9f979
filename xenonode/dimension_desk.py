"""For a server's owner: which dimensions' overlays it takes part in, and leaving or entering one while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from xenonode.control.errors import ControlError
from xenonode.control.server import Caller, Handler
from xenonode.errors import XenoError
from xenonode.peer import Peer


class DimensionDesk:
    """Answers `owner.dimensions`, `owner.leave` and `owner.enter`; `note` keeps what was left for the next start."""

    def __init__(self, peer: Peer, owner: bytes, note: Callable[[list[str]], None]) -> None:
        self._peer, self._owner = peer, owner
        peer.on_left = note
        self._turn = asyncio.Lock()

    def handlers(self) -> Mapping[str, Handler]:
        """For `xenonode.control.server.serve`."""
        return {"owner.dimensions": self._show, "owner.leave": self._leave, "owner.enter": self._enter}

    async def _show(self, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
        self._owner_only(caller)
        return {"dimensions": [self._state(each.name) for each in self._peer.schema.dimensions]}

    async def _leave(self, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
        name = self._named(caller, body)
        async with self._turn:
            try:
                handed = await self._peer.leave(name)
            except XenoError as error:
                raise ControlError(error.code, error.message, error.next_step) from error
        return {
            **self._state(name),
            "records_handed_on": handed.records - handed.records_lost,
            "records_not_taken": handed.records_lost,
            "adverts_handed_on": handed.rows - handed.rows_pending,
            "adverts_not_taken": handed.rows_pending,
        }

    async def _enter(self, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
        name = self._named(caller, body)
        async with self._turn:
            try:
                await self._peer.enter(name)
            except XenoError as error:
                raise ControlError(error.code, error.message, error.next_step) from error
        return self._state(name)

    def _state(self, name: str) -> dict[str, Any]:
        held, placement = self._peer.holdings.get(name), self._peer.joined(name)
        tries = () if held is None else (held, *held.salted)
        counts = [one.holder.statistics() for one in tries]
        return {
            "dimension": name,
            "joined": name not in self._peer.left and placement is not None,
            "contacts": 0 if placement is None else len(placement.overlay.table),
            "trie_nodes": sum(each["nodes"] for each in counts),
            "adverts": sum(each["rows"] for each in counts),
            "records": 0 if placement is None else placement.overlay.records.holdings[0],
        }

    def _named(self, caller: Caller, body: dict[str, Any]) -> str:
        self._owner_only(caller)
        name, known = body.get("dimension"), [each.name for each in self._peer.schema.dimensions]
        if not isinstance(name, str) or name not in known:
            raise ControlError("no_dimension", f"There is no dimension {name!r}.", f"Take one of {', '.join(known)}.")
        return name

    def _owner_only(self, caller: Caller) -> None:
        if caller.public_key != self._owner:
            raise ControlError("not_owner", "Only this server's owner may do this.", "Use the server's own key.")
