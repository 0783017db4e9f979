"""One overlay's routing table: the library's buckets with its defects mended and its trust removed.

Decides which contacts are kept. Leaves asking them to `overlay`. From `kademlia` (Maymounkov and
Mazieres 2002): RoutingTable, KBucket and Node. Mended here:
- find_neighbors stopped when one side ran dry (recall about 0.5): all buckets are walked, nearest first;
- get_bucket_for and split disagreed by one: both ends of a range are inclusive everywhere;
- a peer that fits no bucket was "new" at every message and was pinged for it: adding does no I/O;
- a full bucket pushed its head out: a live contact is never evicted, newcomers wait in a bounded list;
- far buckets were split by depth: only the bucket around our own id is, as in the paper's section 2.4.
Time is handed in, because the library's buckets read a clock of their own.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kademlia.node import Node
from kademlia.routing import KBucket, RoutingTable

from .contact import Contact, group

if TYPE_CHECKING:
    from .contact import Address

# Maymounkov and Mazieres 2002, section 2.3.
K = 20
ID_BITS = 160
# Newcomers waiting for a place in a full bucket; one bucket's worth is enough to replace all of it.
MAX_WAITING = K
# security.md, eclipse: contacts from one /24 or /48 in a bucket, and in the whole table.
MAX_GROUP_IN_BUCKET = 2
MAX_GROUP_IN_TABLE = 10


class Bucket(KBucket):  # type: ignore[misc]
    """The contacts of one range of ids, longest known first, and those that wait for a place."""

    def __init__(self, low: int, high: int, ksize: int, used_ms: int = 0) -> None:
        self.used_ms = used_ms
        super().__init__(low, high, ksize)
        self.max_replacement_nodes = MAX_WAITING

    def touch_last_updated(self) -> None:
        """Nothing: the table keeps `used_ms` from the clock it is given."""

    def split(self) -> tuple[Bucket, Bucket]:
        low, high = self.range
        middle = (low + high) // 2
        halves = (Bucket(low, middle, self.ksize, self.used_ms), Bucket(middle + 1, high, self.ksize, self.used_ms))
        for contact in self.nodes.values():
            halves[contact.long_id > middle].nodes[contact.id] = contact
        for contact in self.replacement_nodes.values():
            halves[contact.long_id > middle].replacement_nodes[contact.id] = contact
        return halves


class Table(RoutingTable):  # type: ignore[misc]
    """The contacts of one overlay, around our own id; every method is synchronous and does no I/O."""

    def __init__(self, own_id: bytes, *, ksize: int = K, profile: str = "local") -> None:
        self.profile = profile
        self.by_id: dict[bytes, Contact] = {}
        self._groups: Counter[object] = Counter()
        super().__init__(None, ksize, Node(own_id))

    def flush(self) -> None:
        """Forget everything."""
        self.buckets: list[Bucket] = [Bucket(0, 2**ID_BITS - 1, self.ksize)]
        self.by_id.clear()
        self._groups.clear()

    def __len__(self) -> int:
        return len(self.by_id)

    def get_bucket_for(self, node: Contact | Node) -> int:
        """The index of the bucket that the node belongs to."""
        return self.index_of(node.long_id)

    def index_of(self, number: int) -> int:
        """The index of the bucket whose range holds this id."""
        for index, bucket in enumerate(self.buckets):
            if number <= bucket.range[1]:
                return index
        raise ValueError("an id of more than 160 bits")

    def add_contact(self, node: Contact) -> bool:
        """Take in a contact that has just answered; whether it is now in a bucket (else it waits, or is capped)."""
        known = self.by_id.get(node.node_id)
        if known is node or known == node:
            return True
        if node.node_id == self.node.id:
            return False
        index = self.get_bucket_for(node)
        bucket = self.buckets[index]
        place = group(node.address, self.profile)
        if known is not None:
            # The id is certified, so this is the same member at a new address.
            self._groups[group(known.address, self.profile)] -= 1
            bucket.nodes[node.node_id] = node
        else:
            if self._capped(bucket, place):
                return False
            while len(bucket.nodes) >= self.ksize and bucket.has_in_range(self.node):
                self.split_bucket(index)
                index = self.get_bucket_for(node)
                bucket = self.buckets[index]
            if len(bucket.nodes) >= self.ksize:
                bucket.add_node(node)
                return False
            bucket.replacement_nodes.pop(node.node_id, None)
            bucket.nodes[node.node_id] = node
        self.by_id[node.node_id] = node
        self._groups[place] += 1
        return True

    def has_room_for(self, node: Contact) -> bool:
        """Whether `add_contact` would put an unknown contact into a bucket."""
        bucket = self.buckets[self.get_bucket_for(node)]
        if self._capped(bucket, group(node.address, self.profile)):
            return False
        return len(bucket.nodes) < self.ksize or bool(bucket.has_in_range(self.node))

    def remove_contact(self, node: Contact) -> Contact | None:
        """Drop a contact that stopped answering; the waiting contact that should be asked to take its place."""
        bucket = self.buckets[self.get_bucket_for(node)]
        bucket.replacement_nodes.pop(node.node_id, None)
        if self.by_id.get(node.node_id) != node:
            return None
        del self.by_id[node.node_id], bucket.nodes[node.node_id]
        place = group(node.address, self.profile)
        self._groups[place] -= 1
        if not self._groups[place]:
            del self._groups[place]
        if not bucket.replacement_nodes:
            return None
        waiting: Contact = bucket.replacement_nodes.popitem()[1]
        return waiting

    def nearest(self, target: int, k: int) -> list[Contact]:
        """The k known contacts nearest to an id, nearest first."""
        found: list[Contact] = []
        # Ranges are aligned, so whole buckets order by the distance of their nearest corner.
        for bucket in sorted(self.buckets, key=lambda each: _corner_distance(each.range, target)):
            if bucket.nodes:
                found += sorted(bucket.nodes.values(), key=lambda contact: contact.number ^ target)
                if len(found) >= k:
                    break
        return found[:k]

    def find_neighbors(self, node: Node, k: int | None = None, exclude: Node | None = None) -> list[Contact]:
        """The library's name for `nearest`."""
        wanted = k or self.ksize
        found = self.nearest(node.long_id, wanted + 2)
        return [
            contact
            for contact in found
            if contact.node_id != node.id and (exclude is None or contact.node_id != exclude.id)
        ][:wanted]

    def touch(self, target: int, now_ms: int) -> None:
        """Note that a lookup went through the target's bucket."""
        self.buckets[self.index_of(target)].used_ms = now_ms

    def idle_buckets(self, before_ms: int) -> list[Bucket]:
        """The buckets that no lookup went through since."""
        return [bucket for bucket in self.buckets if bucket.used_ms < before_ms]

    def groups(self) -> dict[object, int]:
        """How many contacts each place holds."""
        return dict(self._groups)

    def at(self, address: Address) -> list[Contact]:
        """The contacts that answer at this address."""
        return [contact for contact in self.by_id.values() if contact.address == address]

    def _capped(self, bucket: Bucket, place: object) -> bool:
        held = self._groups.get(place, 0)
        if held < MAX_GROUP_IN_BUCKET:
            return False
        if held >= MAX_GROUP_IN_TABLE:
            return True
        here = sum(group(contact.address, self.profile) == place for contact in bucket.nodes.values())
        return int(here) >= MAX_GROUP_IN_BUCKET


def _corner_distance(bounds: tuple[int, int], target: int) -> int:
    low, high = bounds
    size = high - low
    return (low ^ target) & ~size
