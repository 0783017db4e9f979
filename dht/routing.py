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
# Against eclipse: contacts from one /24 or /48 in a bucket, and in the whole table.
MAX_GROUP_IN_BUCKET = 2
MAX_GROUP_IN_TABLE = 10


class Bucket(KBucket):  # type: ignore[misc]
    """The contacts of one range of ids, longest known first, and those that wait for a place."""

    def __init__(self, low: int, high: int, ksize: int, used_ms: int = 0) -> None:
        self.used_ms = used_ms
        super().__init__(low, high, ksize)
        self.max_replacement_nodes = MAX_WAITING
        # The same contacts by number: distances are sorted as plain integers, twice as fast as with a key.
        self.by_number: dict[int, Contact] = {}

    def touch_last_updated(self) -> None:
        """Nothing: the table keeps `used_ms` from the clock it is given."""

    def place(self, contact: Contact) -> None:
        """Put a contact into the bucket."""
        self.replacement_nodes.pop(contact.node_id, None)
        self.nodes[contact.node_id] = contact
        self.by_number[contact.number] = contact

    def displace(self, contact: Contact) -> None:
        """Take a contact out of the bucket."""
        del self.nodes[contact.node_id], self.by_number[contact.number]

    def wait(self, contact: Contact) -> None:
        """Remember a contact for which there is no place; the latest are kept."""
        waiting = self.replacement_nodes
        waiting.pop(contact.node_id, None)
        waiting[contact.node_id] = contact
        if len(waiting) > self.max_replacement_nodes:
            waiting.popitem(last=False)

    def split(self) -> tuple[Bucket, Bucket]:
        low, high = self.range
        middle = (low + high) // 2
        halves = (Bucket(low, middle, self.ksize, self.used_ms), Bucket(middle + 1, high, self.ksize, self.used_ms))
        for contact in self.nodes.values():
            halves[contact.number > middle].place(contact)
        for contact in self.replacement_nodes.values():
            halves[contact.number > middle].wait(contact)
        return halves


class Table(RoutingTable):  # type: ignore[misc]
    """The contacts of one overlay, around our own id; every method is synchronous and does no I/O.

    Only the bucket around our own id splits, so each bucket but the last holds the ids that share exactly so
    many leading bits with ours: `levels[bits]`. `buckets` are the same in the order of their ranges.
    """

    def __init__(self, own_id: bytes, *, ksize: int = K, profile: str = "local") -> None:
        self.profile = profile
        self.number = int.from_bytes(own_id, "big")
        self.by_id: dict[bytes, Contact] = {}
        self._groups: Counter[object] = Counter()
        super().__init__(None, ksize, Node(own_id))

    def flush(self) -> None:
        """Forget everything."""
        whole = Bucket(0, 2**ID_BITS - 1, self.ksize)
        self.buckets: list[Bucket] = [whole]
        self.levels: list[Bucket] = [whole]
        self.by_id.clear()
        self._groups.clear()

    def __len__(self) -> int:
        return len(self.by_id)

    def get_bucket_for(self, node: Contact | Node) -> int:
        """The index of the bucket that the node belongs to."""
        return self.index_of(node.long_id)

    def index_of(self, number: int) -> int:
        """The index of the bucket whose range holds this id."""
        return self.buckets.index(self.levels[self._level(number)])

    def split_bucket(self, index: int) -> None:
        """Split the bucket around our own id, the last level."""
        one, two = self.buckets[index].split()
        self.buckets[index : index + 1] = [one, two]
        self.levels[-1:] = [one, two] if two.range[0] <= self.number else [two, one]

    def add_contact(self, node: Contact) -> bool:
        """Take in a contact that has just answered; whether it is now in a bucket (else it waits, or is capped)."""
        known = self.by_id.get(node.node_id)
        if known is not None:
            if known != node:
                self._move(known, node)
            return True
        if node.number == self.number:
            return False
        bucket = self.levels[self._level(node.number)]
        place = group(node.address, self.profile)
        if place in self._groups and self._capped(bucket, place):
            return False
        while len(bucket.nodes) >= self.ksize:
            if bucket is not self.levels[-1]:
                bucket.wait(node)
                return False
            self.split_bucket(self.buckets.index(bucket))
            bucket = self.levels[self._level(node.number)]
        bucket.place(node)
        self.by_id[node.node_id] = node
        self._groups[place] += 1
        return True

    def remove_contact(self, node: Contact) -> Contact | None:
        """Drop a contact that stopped answering; the waiting contact that should be asked to take its place."""
        bucket = self.levels[self._level(node.number)]
        bucket.replacement_nodes.pop(node.node_id, None)
        if self.by_id.get(node.node_id) != node:
            return None
        bucket.displace(node)
        del self.by_id[node.node_id]
        self._leave_group(node)
        if not bucket.replacement_nodes:
            return None
        waiting: Contact = bucket.replacement_nodes.popitem()[1]
        return waiting

    def nearest(self, target: int, k: int) -> list[Contact]:
        """The k known contacts nearest to an id, nearest first."""
        levels = self.levels
        level = self._level(target)
        found = _by_distance(levels[level : level + 1], target)
        if len(found) < k:
            # All deeper levels differ from the target first where our own id does.
            found += _by_distance(levels[level + 1 :], target)
            while len(found) < k and level:
                level -= 1
                found += _by_distance(levels[level : level + 1], target)
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
        self.levels[self._level(target)].used_ms = now_ms

    def idle_buckets(self, before_ms: int) -> list[Bucket]:
        """The buckets that no lookup went through since."""
        return [bucket for bucket in self.buckets if bucket.used_ms < before_ms]

    def is_near(self, contact: Contact) -> bool:
        """Whether this contact is held in the bucket around our own id, or the one beside it."""
        return any(contact.number in bucket.by_number for bucket in self.levels[-2:])

    def groups(self) -> dict[object, int]:
        """How many contacts each place holds."""
        return dict(self._groups)

    def at(self, address: Address) -> list[Contact]:
        """The contacts that answer at this address."""
        return [contact for contact in self.by_id.values() if contact.address == address]

    def _level(self, number: int) -> int:
        shared_bits = ID_BITS - (self.number ^ number).bit_length()
        deepest = len(self.levels) - 1
        return shared_bits if shared_bits < deepest else deepest

    def _move(self, known: Contact, node: Contact) -> None:
        """The id is certified, so this is the same member at a new address."""
        self._leave_group(known)
        bucket = self.levels[self._level(node.number)]
        bucket.nodes[node.node_id] = bucket.by_number[node.number] = self.by_id[node.node_id] = node
        self._groups[group(node.address, self.profile)] += 1

    def _leave_group(self, contact: Contact) -> None:
        place = group(contact.address, self.profile)
        self._groups[place] -= 1
        if not self._groups[place]:
            del self._groups[place]

    def _capped(self, bucket: Bucket, place: object) -> bool:
        held = self._groups[place]
        if held < MAX_GROUP_IN_BUCKET:
            return False
        if held >= MAX_GROUP_IN_TABLE:
            return True
        here = sum(group(contact.address, self.profile) == place for contact in bucket.nodes.values())
        return here >= MAX_GROUP_IN_BUCKET


def _by_distance(buckets: list[Bucket], target: int) -> list[Contact]:
    if len(buckets) == 1:
        by_number = buckets[0].by_number
    else:
        by_number = {number: contact for bucket in buckets for number, contact in bucket.by_number.items()}
    distances = [number ^ target for number in by_number]
    distances.sort()
    return [by_number[distance ^ target] for distance in distances]
