"""Searches and their results under names: kept in the client's folder, run again, and combined as sets.

Decides the form on disk, one file a name, and what a name may be. A saved result is a set of servers' 64-bit ids as it
was when it was saved; `union`, `intersection` and `difference` make new ones (`summaries.idset.IdSet`), and a search
may be confined to some, or exclude them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce

from dht import wire
from dht.errors import RemoteError
from summaries.errors import MessageError
from summaries.idset import IdSet
from xenonode.errors import XenoError
from xenonode.server.disk import Disk

_PREFIX = "saved-"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
SAVED_MAX = 1_000
MAX_BYTES = 1 << 20
"""Eight bytes a server: more than the hundred thousand that one search may find."""
OPERATIONS = ("union", "intersection", "difference")


@dataclass(frozen=True, slots=True)
class SavedSearch:
    """A query, which servers it found, when, and whether that was all of them. A combined set has no query."""

    name: str
    query: str
    servers: IdSet
    complete: bool
    saved_ms: int


class Saved:
    """The saved searches of one client."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def keep(self, name: str, query: str, servers: IdSet, complete: bool, now_ms: int) -> SavedSearch:
        """Save under a name, in the place of what was there. Raises XenoError for a name that cannot be one."""
        if not _NAME.fullmatch(name):
            rule = "use 1 to 32 lower-case letters, digits, '-', '_' or '.', a letter or digit first"
            raise XenoError(f"{name!r} cannot be a name", rule, "name")
        if len(self.names()) >= SAVED_MAX and name not in self.names():
            raise XenoError(f"there are {SAVED_MAX} saved searches already", "remove some: xenonode saved list", "full")
        found = SavedSearch(name, query, servers, complete, now_ms)
        fields: dict[str, wire.Value] = {
            "version": 1, "query": query, "servers": servers.to_bytes(), "complete": complete, "saved_ms": now_ms,
        }  # fmt: skip
        self._disk.replace(_PREFIX + name, wire.encode(fields))
        return found

    def names(self) -> list[str]:
        return sorted(name.removeprefix(_PREFIX) for name in self._disk.names() if name.startswith(_PREFIX))

    def find(self, name: str) -> SavedSearch:
        """What is saved under a name. Raises XenoError, with the nearest name there is."""
        names = self.names()
        if name not in names:
            close = get_close_matches(name, names, 1, 0.5)
            hint = f"did you mean {close[0]}?" if close else "see yours with 'xenonode saved list'"
            raise XenoError(f"nothing is saved as {name!r}", hint, "unknown_saved")
        try:
            match wire.decode(self._disk.read(_PREFIX + name), max_bytes=MAX_BYTES):
                case {
                    "version": 1, "query": str(query), "servers": bytes(ids), "complete": bool(complete),
                    "saved_ms": int(saved_ms),
                }:  # fmt: skip
                    return SavedSearch(name, query, IdSet.from_bytes(ids), complete, saved_ms)
        except (RemoteError, MessageError):
            pass
        raise XenoError(f"what is saved as {name!r} is damaged", f"remove it: xenonode saved remove {name}", "damaged")

    def remove(self, name: str) -> None:
        """Forget a saved search. Raises XenoError where there is none."""
        if name not in self.names():
            self.find(name)
        self._disk.remove(_PREFIX + name)

    def union(self, names: Sequence[str]) -> IdSet:
        """The servers of any of these."""
        return reduce(IdSet.union, (self.find(name).servers for name in names), IdSet())

    def intersection(self, names: Sequence[str]) -> IdSet | None:
        """The servers of all of these; None for no names, which confine nothing."""
        sets = [self.find(name).servers for name in names]
        return reduce(IdSet.intersection, sets) if sets else None

    def combine(self, operation: str, first: str, second: str) -> tuple[IdSet, bool]:
        """One set from two, and whether both were complete."""
        a, b = self.find(first), self.find(second)
        made = {"union": IdSet.union, "intersection": IdSet.intersection, "difference": IdSet.difference}
        return made[operation](a.servers, b.servers), a.complete and b.complete
