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

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
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
# Once a waiting list is full, one in so many of those who come by is written down: a sample of the latest does as well
# as all of them, and among 500 nodes they are most of whom a node hears.
WAITING_SAMPLE = 8
# Contacts of a far bucket that one lookup exchanges: half a bucket an hour, so that nobody gets many in at once.
MAX_EXCHANGED = 10
LONG_AGO_MS = -(1 << 62)


class Bucket(KBucket):  # type: ignore[misc]
    """The contacts of one range of ids, longest known first, and those that wait for a place, latest last.

    Plain tuples in the place of the library's two ordered dictionaries: a node has dozens of buckets, who is in one
    seldom changes, and to look through its twenty contacts takes less than half a microsecond. A bucket's level and
    range follow from its place in the table, so that they are not kept; nothing is kept that the class can say for all.
    """

    __slots__ = ("knocks", "nodes", "replacement_nodes", "used_ms")
    max_replacement_nodes = MAX_WAITING

    def __init__(self, used_ms: int = 0) -> None:
        self.used_ms = used_ms
        self.knocks = 0
        self.nodes: tuple[Contact, ...] = ()
        self.replacement_nodes: Sequence[Contact] = ()  # replaced whole

    def touch_last_updated(self) -> None:
        """Nothing: the table keeps `used_ms` from the clock it is given."""

    def get_nodes(self) -> list[Contact]:
        """All contacts."""
        return list(self.nodes)

    def is_new_node(self, node: Contact) -> bool:
        """Whether the bucket does not hold it."""
        return self.held(node.number) is None

    def held(self, number: int) -> Contact | None:
        """The contact with this id."""
        for each in self.nodes:
            if each.number == number:
                return each
        return None

    def place(self, contact: Contact) -> None:
        """Put a contact into the bucket; one that is there under its id gives its place to it."""
        self.forget_waiting(contact)
        number = contact.number
        if self.held(number) is None:
            self.nodes = (*self.nodes, contact)
        else:
            self.nodes = tuple([contact if each.number == number else each for each in self.nodes])

    def remove(self, contact: Contact) -> None:
        """Take a contact out."""
        self.nodes = tuple([each for each in self.nodes if each.number != contact.number])

    def turns_away(self) -> bool:
        """Whether one who comes by while all places are taken is not even written down; asking counts."""
        if len(self.replacement_nodes) < self.max_replacement_nodes:
            return False
        self.knocks = (self.knocks + 1) % WAITING_SAMPLE
        return self.knocks != 0

    def wait(self, contact: Contact) -> None:
        """Remember a contact for which there is no place; the latest are kept."""
        waiting = [each for each in self.replacement_nodes if each.number != contact.number]
        waiting.append(contact)
        self.replacement_nodes = waiting[-self.max_replacement_nodes :]

    def forget_waiting(self, contact: Contact) -> bool:
        """A contact waits no more; whether it did, at this address or another."""
        left = [each for each in self.replacement_nodes if each.number != contact.number]
        waited = len(left) < len(self.replacement_nodes)
        if waited:
            self.replacement_nodes = left
        return waited

    def divided(self, is_far: Callable[[Contact], bool]) -> tuple[Bucket, Bucket]:
        """The half without our own id, and the half with it."""
        far, near = Bucket(self.used_ms), Bucket(self.used_ms)
        far.nodes = tuple([each for each in self.nodes if is_far(each)])
        near.nodes = tuple([each for each in self.nodes if not is_far(each)])
        for contact in self.replacement_nodes:
            (far if is_far(contact) else near).wait(contact)
        return far, near


class Table(RoutingTable):  # type: ignore[misc]
    """The contacts of one overlay, around our own id; every method is synchronous and does no I/O.

    Only the bucket around our own id splits, so each bucket but the last holds the ids that share exactly so
    many leading bits with ours: `levels[bits]`. `buckets` are the same in the order of their ranges.
    """

    def __init__(self, own_id: bytes, *, ksize: int = K, profile: str = "local") -> None:
        self.profile = profile
        self.number = int.from_bytes(own_id, "big")
        self._count = 0
        # The library's own makes a node of our id to keep, in each of the tables; and they are many.
        self.ksize = ksize
        self.flush()

    @property
    def node(self) -> Node:
        """Ourselves, as the library has it."""
        return Node(self.number.to_bytes(ID_BITS // 8, "big"))

    def flush(self) -> None:
        """Forget everything."""
        self.levels: list[Bucket] = [Bucket()]
        self._used_ms = LONG_AGO_MS  # no bucket's is less: each tick asks, and this seldom has to be looked for
        self._count = 0
        self.changed()

    def changed(self) -> None:
        """Who was found held or absent must be looked for again: its stamp is neither of these any more."""
        self.held, self.absent = object(), object()

    @property
    def buckets(self) -> list[Bucket]:
        """All buckets in the order of their ranges: a far one is below us where our own id has a one."""
        below: list[Bucket] = []
        above: list[Bucket] = []
        for level, bucket in enumerate(self.levels[:-1]):
            (below if self.number >> ID_BITS - 1 - level & 1 else above).append(bucket)
        return [*below, self.levels[-1], *reversed(above)]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Contact]:
        return (contact for bucket in self.buckets for contact in bucket.nodes)

    def get(self, contact: Contact) -> Contact | None:
        """What is held under the contact's id: itself, or the same member at another address."""
        number, levels = contact.number, self.levels
        shared_bits = ID_BITS - (self.number ^ number).bit_length()
        bucket = levels[shared_bits] if shared_bits < len(levels) else levels[-1]
        for each in bucket.nodes:  # `held` without another step: each datagram comes by
            if each.number == number:
                return each
        return None

    @property
    def by_id(self) -> dict[bytes, Contact]:
        """All contacts by node id."""
        return {contact.node_id: contact for contact in self}

    def get_bucket_for(self, node: Contact | Node) -> int:
        """The index of the bucket that the node belongs to."""
        return self.index_of(node.long_id)

    def index_of(self, number: int) -> int:
        """The index of the bucket whose range holds this id."""
        return self.buckets.index(self.levels[self._level(number)])

    def range_of(self, bucket: Bucket) -> tuple[int, int]:
        """The least and the greatest id that belong into this one of our buckets."""
        level, is_last = self.levels.index(bucket), bucket is self.levels[-1]
        bits = ID_BITS - level - (not is_last)
        low = (self.number >> bits ^ (not is_last)) << bits
        return low, low + (1 << bits) - 1

    def split_bucket(self, index: int) -> None:
        """Split the bucket around our own id, the last level; `index` is the library's, and always that one's."""
        own, bits = self.number, ID_BITS - len(self.levels) + 1  # in which an id of this bucket may differ from ours
        self.levels[-1:] = self.levels[-1].divided(lambda contact: (own ^ contact.number).bit_length() == bits)
        self.changed()

    def knock(self, node: Contact) -> None:
        """`add_contact` for one that was turned away since the last change: it waits at best."""
        bucket = self.levels[self._level(node.number)]
        if len(bucket.nodes) >= self.ksize and bucket is not self.levels[-1] and not bucket.turns_away():
            self._wait(bucket, node)

    def add_contact(self, node: Contact, *, capped: bool = True) -> bool:
        """Take in a contact that has just answered; whether it is now in a bucket (else it waits, or is capped).

        `capped=False` is for what is known to be true: nobody fills the table with places of its own then.
        """
        number = node.number
        bucket = self.levels[self._level(number)]
        if bucket.held(number) is not None:
            # The id is certified, so this is the same member, perhaps at a new address.
            bucket.nodes = tuple([node if each.number == number else each for each in bucket.nodes])
            self.changed()
            return True
        if number == self.number:
            return False
        if len(bucket.nodes) >= self.ksize and bucket is not self.levels[-1]:
            if not bucket.turns_away():
                self._wait(bucket, node)
            return False
        if capped and self._capped(bucket, group(node.address, self.profile)):
            return False
        while len(bucket.nodes) >= self.ksize:
            if bucket is not self.levels[-1]:
                self._wait(bucket, node)
                return False
            self.split_bucket(-1)
            bucket = self.levels[self._level(number)]
        bucket.place(node)
        self._count += 1
        self.changed()
        return True

    def fill(self, contacts: Sequence[Contact]) -> None:
        """`add_contact` for many that are known to be true, uncapped: a simulator fills a million places."""
        levels: list[list[Contact]] = [[] for _ in range(ID_BITS + 1)]
        own = self.number
        for contact in contacts:
            levels[ID_BITS - (own ^ contact.number).bit_length()].append(contact)
        different = len({contact.number for contact in contacts})
        if self._count or levels[ID_BITS] or different < len(contacts) or max(map(len, levels)) > self.ksize:
            for contact in contacts:  # somebody is known already, or is ourselves, or has to wait
                self.add_contact(contact, capped=False)
            return
        deepest, left = 0, len(contacts)
        while left > self.ksize:
            left -= len(levels[deepest])
            deepest += 1
        buckets = [Bucket() for _ in range(deepest + 1)]
        for level, bucket in enumerate(buckets[:-1]):
            bucket.nodes = tuple(levels[level])
        # In the order in which they came, as if the bucket had been split whenever it was full.
        near = [each for each in contacts if (own ^ each.number).bit_length() <= ID_BITS - deepest]
        buckets[-1].nodes = tuple(near)
        self.levels, self._used_ms, self._count = buckets, LONG_AGO_MS, len(contacts)
        self.changed()

    def remove_contact(self, node: Contact) -> Contact | None:
        """Drop a contact that stopped answering; the waiting contact that should be asked to take its place."""
        bucket = self.levels[self._level(node.number)]
        bucket.forget_waiting(node)
        if bucket.held(node.number) != node:
            return None
        bucket.remove(node)
        self._count -= 1
        self.changed()
        while bucket.replacement_nodes:
            waiting = bucket.replacement_nodes[-1]
            bucket.replacement_nodes = bucket.replacement_nodes[:-1]
            if not self._capped(bucket, group(waiting.address, self.profile)):
                return waiting
        return None

    def far_buckets(self) -> list[Bucket]:
        """The full buckets that are not near our own id: who is in them is a choice among many."""
        return [bucket for bucket in self.levels[:-2] if len(bucket.nodes) >= self.ksize]

    def exchange(self, found: Iterable[Contact], rng: random.Random) -> bool:
        """Put contacts that a lookup of ours has met into full far buckets, for those of the most crowded places.

        Whoever comes first fills a table, and stays, since nobody is evicted for a newcomer. A few exchanges now and
        then among those whom we looked for ourselves make a table a sample of all places, whoever was there first.
        """
        left = MAX_EXCHANGED
        for node in found:
            bucket = self.levels[self._level(node.number)]
            if not left or bucket.held(node.number) is not None or bucket not in self.far_buckets():
                continue
            crowds = Counter(group(each.address, self.profile) for each in self)
            most = max(crowds[group(each.address, self.profile)] for each in bucket.nodes)
            place = group(node.address, self.profile)
            if crowds[place] + 1 > most or self._capped(bucket, place):
                continue
            crowded = [each for each in bucket.nodes if crowds[group(each.address, self.profile)] == most]
            bucket.remove(rng.choice(crowded))
            bucket.place(node)
            self.changed()
            left -= 1
        return left < MAX_EXCHANGED

    def nearest(self, target: int, k: int) -> list[Contact]:
        """The k known contacts nearest to an id, nearest first."""
        return sorted(self.around(target, k), key=lambda contact: contact.number ^ target)

    def around(self, target: int, k: int) -> list[Contact]:
        """`nearest` in an order of no meaning, for whoever sorts them anyway.

        The target's own level is nearest to it; all deeper ones differ from it first where our own id does, and then
        each one above. So only the last that is needed, of which some are left out, has to be looked at in detail.
        """
        levels, level = self.levels, self._level(target)
        found: list[Contact] = []
        group, deeper = levels[level : level + 1], levels[level + 1 :]
        while True:
            near: list[Contact] = []
            for bucket in group:
                near += bucket.nodes
            excess = len(found) + len(near) - k
            if excess > 0:
                if k == 1:
                    return [min(near, key=lambda contact: contact.number ^ target)]
                near.sort(key=lambda contact: contact.number ^ target)
                del near[-excess:]
            found += near
            if excess >= 0:
                return found
            if deeper:
                group, deeper = deeper, []
            elif level:
                level -= 1
                group = levels[level : level + 1]
            else:
                return found

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
        if now_ms < self._used_ms:  # the clock was set back
            self._used_ms = now_ms

    def touch_all(self, moment_ms: Callable[[], int]) -> None:
        """Say of each bucket, in the order of their ranges, when a lookup went through it."""
        for bucket in self.buckets:
            bucket.used_ms = moment_ms()
        self._used_ms = LONG_AGO_MS

    def idle_buckets(self, before_ms: int) -> list[Bucket]:
        """The buckets that no lookup went through since."""
        if self._used_ms < before_ms:
            self._used_ms = min(bucket.used_ms for bucket in self.levels)
        if self._used_ms >= before_ms:
            return []
        return [bucket for bucket in self.buckets if bucket.used_ms < before_ms]

    def is_near(self, contact: Contact) -> bool:
        """Whether this contact is held in the bucket around our own id, or the one beside it."""
        return any(bucket.held(contact.number) is not None for bucket in self.levels[-2:])

    def groups(self) -> dict[object, int]:
        """How many contacts each place holds."""
        return dict(Counter(group(contact.address, self.profile) for contact in self))

    def at(self, address: Address) -> list[Contact]:
        """The contacts that answer at this address."""
        return [contact for contact in self if contact.address == address]

    def _level(self, number: int) -> int:
        shared_bits = ID_BITS - (self.number ^ number).bit_length()
        deepest = len(self.levels) - 1
        return shared_bits if shared_bits < deepest else deepest

    def _wait(self, bucket: Bucket, node: Contact) -> None:
        """Let a contact wait, unless its place has all that it may have here; the table's cap is for when it enters."""
        if bucket.replacement_nodes and bucket.replacement_nodes[-1] is node:
            return
        others = [each for each in bucket.replacement_nodes if each.number != node.number]
        if len(others) == len(bucket.replacement_nodes):
            place = group(node.address, self.profile)
            if (
                self._count_of(place, bucket.nodes) >= MAX_GROUP_IN_BUCKET
                or self._count_of(place, others) >= MAX_GROUP_IN_BUCKET
            ):
                return
        bucket.replacement_nodes = [*others, node][-bucket.max_replacement_nodes :]

    def _capped(self, bucket: Bucket, place: object) -> bool:
        """Whether one place has all that it may have; counted when it matters, which is once for each newcomer."""
        if self._count_of(place, bucket.nodes) >= MAX_GROUP_IN_BUCKET:
            return True
        if len(self) < MAX_GROUP_IN_TABLE:
            # Fewer contacts than that cannot be too many of one place.
            return False
        return sum([self._count_of(place, each.nodes) for each in self.levels]) >= MAX_GROUP_IN_TABLE

    def _count_of(self, place: object, contacts: Iterable[Contact]) -> int:
        profile = self.profile
        if profile == "local":
            return sum([contact.address == place for contact in contacts])
        return sum([group(contact.address, profile) == place for contact in contacts])
