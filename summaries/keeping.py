"""Taking adverts in and out of the leaves that one node holds.

Decides whether a row is accepted, is elsewhere by now, or is older than what is held: rule 4 of holder.py, nothing is
taken on trust. Whoever inserted is answered by climbing.py, once every summary above includes the row.
"""

from __future__ import annotations

from summaries.climbing import Climbing
from summaries.errors import MessageError
from summaries.handing import Handing
from summaries.holder_state import REBUILD_MS, RETRY_MS, HolderState
from summaries.messages import Accepted, Delete, Insert, Moved, NotReady, Renew, Stale
from summaries.node import Waiter
from summaries.point import MAX_ADVERT_BYTES, Point
from summaries.recovering import Recovering
from summaries.renewal import changed
from summaries.trie import is_near, keys_of
from summaries.zone import Zone, zone_of

MAX_ROWS = 65_536  # all nodes of a dimension together: 6 MB of columns beside 64 MB of adverts


class Keeping:
    """Rows in leaves."""

    def __init__(self, state: HolderState, climbing: Climbing, handing: Handing, recovering: Recovering) -> None:
        self._state, self._climbing, self._handing, self._recovering = state, climbing, handing, recovering
        self._rows = 0

    def count(self) -> None:
        """Count all rows anew: in between, only those that come are counted."""
        self._rows = sum(len(node.rows) for node in self._state.nodes.values())

    def insert(self, message: Insert, request: object, now_ms: int) -> None:
        point = self._checked(message, now_ms)
        if point.gone or point.expires_s <= self._state.wall_ms(now_ms) // 1000:
            raise MessageError("the advert has expired or is a tombstone")
        own_keys, zone = self._derive(point)
        if not any(is_near(self._state.axis, message.key, own) for own in own_keys):
            raise MessageError("the key is not this advert's")
        node = self._recovering.node(message.prefix, now_ms)
        where = node.destination(message.key)
        if where != node.prefix:
            self._state.reply(request, Moved(where))
            return
        held = node.rows.find(point.id, message.key)
        buried = node.tombstones.get((point.id, message.key), (-1, 0))[0]
        newest = max(held.seq if held else -1, buried)
        if point.seq < newest or point.seq == buried:
            # Who hears Stale drops its older row: not before every summary includes the newer one.
            seen = held is None or held.seq < newest or (node.settled and node.is_covered)
            self._state.reply(request, Stale(newest) if seen else NotReady(RETRY_MS))
            return
        if held is not None and held.seq == point.seq:
            if node.rows.raw_of(point.id, message.key) != message.advert:
                raise MessageError("two adverts with one sequence number")
        elif held is None and self._rows >= MAX_ROWS:
            self._state.reply(request, NotReady(REBUILD_MS))
            return
        else:
            node.rows.put(point, message.key, message.advert)
            self._rows += held is None
        node.zone = node.zone.union(zone) if not node.zone.count else node.zone.widened(zone, held is None, 0)
        self._climbing.wait(node, Waiter(request, zone))
        self._handing.split(node, now_ms)
        self._climbing.settle(node, now_ms)

    def delete(self, message: Delete, request: object, now_ms: int) -> None:
        point = self._checked(message, now_ms)
        node = self._state.nodes.get(message.prefix)
        if node is None:
            self._state.reply(request, Accepted())
            return
        held = node.rows.find(point.id, message.key)
        # A tombstone removes its own sequence number too; an advert only older rows.
        last = point.seq if point.gone else point.seq - 1
        if last >= 0:
            node.bury(point.id, message.key, last, now_ms)
        if held is not None and held.seq <= last:
            if point.gone:
                node.rows.drop(point.id, message.key)
            else:
                node.leave(point.id, message.key, now_ms)
        where = node.destination(message.key)
        self._state.reply(request, Accepted(node.splits) if where == node.prefix else Moved(where))

    def renew(self, message: Renew, request: object, now_ms: int) -> None:
        node = self._state.nodes.get(message.prefix)
        held = node.rows.find(message.id, message.key) if node is not None else None
        if node is None or held is None or held.seq != message.seq:
            raise MessageError("what this changes is not held")
        advert = changed(node.rows.raw_of(message.id, message.key) or b"", message.changes)
        if len(advert) > MAX_ADVERT_BYTES:  # no message could hand it on, or show it
            raise MessageError("the changed advert is too long")
        if message.deletes:
            self.delete(Delete(message.prefix, message.key, advert), request, now_ms)
        else:
            self.insert(Insert(message.prefix, message.key, advert), request, now_ms)

    def _checked(self, message: Insert | Delete, now_ms: int) -> Point:
        if not message.prefix.contains(message.key):
            raise MessageError("the key is not under this prefix")
        point = self._state.verify(message.advert, self._state.wall_ms(now_ms))
        if point is None:
            raise MessageError("the advert does not verify")
        return point

    def _derive(self, point: Point) -> tuple[list[int], Zone]:
        """An advert's own keys and zone."""
        epoch, derived = self._state.schema.epoch, point.derived
        if (epoch, self._state.dimension) not in derived:
            derived[epoch, self._state.dimension] = keys_of(self._state.schema, self._state.dimension, point)
        return derived[epoch, self._state.dimension], zone_of(self._state.schema, point)
