"""What searchers, publishers and holders say to one another, as frozen types.

Decides what each message of one dimension's trie says and what it means; forms.py decides how it is written. A holder
is an opaque packed contact. Long answers are continued by a cursor or a first item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from summaries.attributes import LARGEST
from summaries.filter import Filter
from summaries.rank import Order
from summaries.renewal import Change
from summaries.sums import Aggregate
from summaries.trie import Prefix
from summaries.zone import Zone

MAX_OFFER = 36  # postings of 28 bytes in one message
Cursor = tuple[int | bytes, ...]


@dataclass(frozen=True, slots=True)
class Child:
    """One child that passes, in an answer: who holds it, and what best-first search needs of its zone."""

    prefix: Prefix
    bound: int  # no advert below ranks lower
    count: int
    leaves: int
    known_holders: int  # how many hold it, of whom `holders` names some
    holders: tuple[bytes, ...]


class Row(NamedTuple):  # a search has thousands, and a tuple is made in a third of a frozen class's time
    """One advert that matches: enough to rank it, tell it from a newer one, and probe its server."""

    id: int
    seq: int
    rank: int
    contact: bytes


@dataclass(frozen=True, slots=True)
class Posting:
    id: int
    key: int
    seq: int


@dataclass(frozen=True, slots=True)
class EntryFact:
    """An aggregation point's entry: what one holder of a child last said of it."""

    child: Prefix
    holder: bytes
    incarnation: int
    version: int
    zone: Zone


# ----- questions


@dataclass(frozen=True, slots=True)
class Locate:
    """Where does this key belong? Here, or Moved."""

    KIND: ClassVar[int] = 1
    prefix: Prefix
    key: int


@dataclass(frozen=True, slots=True)
class Insert:
    """Hold this signed advert under this key. Accepted once every ancestor's summary includes it."""

    KIND: ClassVar[int] = 2
    prefix: Prefix
    key: int
    advert: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """This newer advert (or tombstone) of the same server supersedes the row under this key."""

    KIND: ClassVar[int] = 3
    prefix: Prefix
    key: int
    advert: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """Which children may hold, and which rows do hold, what passes the filter?

    `below` and `limit`: at most `limit` rows, none that ranks above `below`. The answer's items are its children, then
    its rows; `first` says from which item on. With `digest_only` no item is wanted, only what the digest of all is.
    """

    KIND: ClassVar[int] = 4
    prefix: Prefix
    filter: Filter
    order: Order
    limit: int = 0  # 0: no limit
    below: int = LARGEST
    holders: int = 1
    first: int = 0
    digest_only: bool = False


@dataclass(frozen=True, slots=True)
class Fetch:
    """The newest signed advert with this id."""

    KIND: ClassVar[int] = 5
    prefix: Prefix
    id: int


@dataclass(frozen=True, slots=True)
class Pull:
    """What do you hold of this trie node? For a replica that starts or restarts."""

    KIND: ClassVar[int] = 6
    prefix: Prefix
    cursor: Cursor = ()


@dataclass(frozen=True, slots=True)
class ZoneUpdate:
    """A child's holder to its parent's holders: this is what I summarise, and which bits are split."""

    KIND: ClassVar[int] = 7
    child: Prefix
    incarnation: int
    version: int
    zone: Zone
    splits: int


@dataclass(frozen=True, slots=True)
class Marked:
    """A replica to its peers: this trie node is split, at these bits of its anchor."""

    KIND: ClassVar[int] = 8
    prefix: Prefix
    splits: int


@dataclass(frozen=True, slots=True)
class Offer:
    """A holder that split, to a child's holders: which of these rows do you still want?"""

    KIND: ClassVar[int] = 9
    prefix: Prefix
    postings: tuple[Posting, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """All children with their zones, from the `first` on: for a reader who will ask about them more than once."""

    KIND: ClassVar[int] = 10
    prefix: Prefix
    first: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """What do the adverts that pass come to? With `group`, apart by that attribute of theirs.

    With `whole`, children all of whose adverts certainly pass are answered for by what they last said they come to.
    Items are parts, then children, from the `first` on. Peers that are older than this kind refuse it.
    """

    KIND: ClassVar[int] = 11
    prefix: Prefix
    filter: Filter
    group: str = ""
    whole: bool = False
    first: int = 0
    digest_only: bool = False


@dataclass(frozen=True, slots=True)
class SumUpdate:
    """A child's holder to its parent's holders: this is what all adverts below me come to."""

    KIND: ClassVar[int] = 12
    child: Prefix
    incarnation: int
    number: int
    aggregate: Aggregate


@dataclass(frozen=True, slots=True)
class Renew:
    """Insert (or Delete) the advert that these changes make of the one with this id and `seq` under this key.

    Who does not hold that one refuses, as do peers that are older than this kind: then the whole advert is sent.
    """

    KIND: ClassVar[int] = 13
    prefix: Prefix
    key: int
    id: int
    seq: int
    deletes: bool
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class AtCopy:
    """Asked of who holds a copy of a root. If it is one of the root's own holders as well, that is another trie node.

    Peers that are older than this kind refuse it.
    """

    KIND: ClassVar[int] = 14
    question: Read | Overview | ZoneUpdate


TrieQuestion = (
    Locate | Insert | Delete | Renew | Read | Fetch | Pull | ZoneUpdate | Marked | Offer | Overview | Tally | SumUpdate
)


@dataclass(frozen=True, slots=True)
class Salted:
    """Asked of who holds a trie node of another of its dimension's tries, the one of this number (salting.py).

    Peers that are older than this kind refuse it.
    """

    KIND: ClassVar[int] = 15
    salt: int
    question: TrieQuestion


# ----- answers


@dataclass(frozen=True, slots=True)
class Accepted:
    """Done, and visible to every strict search. `splits` are the answerer's bits of that level."""

    KIND: ClassVar[int] = 16
    splits: int = 0


@dataclass(frozen=True, slots=True)
class Moved:
    """Not here any more: that prefix is split, try this one below it. To Locate: with those who told of it."""

    KIND: ClassVar[int] = 17
    prefix: Prefix
    holders: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Here:
    KIND: ClassVar[int] = 18


@dataclass(frozen=True, slots=True)
class Stale:
    """A newer advert of the same id and key is held already."""

    KIND: ClassVar[int] = 19
    seq: int


@dataclass(frozen=True, slots=True)
class Answer:
    """To Read: some of what passes. `matched` rows match here in all; `pruned` children were ruled out.

    `total` items answer the question. `digest` is of all of them: pages of equal digest fit together, and a replica
    with the same digest has nothing to add.
    """

    KIND: ClassVar[int] = 20
    prefix: Prefix
    children: tuple[Child, ...]
    rows: tuple[Row, ...]
    matched: int
    pruned: int
    total: int
    digest: int


@dataclass(frozen=True, slots=True)
class AdvertIs:
    """To Fetch; empty when there is none."""

    KIND: ClassVar[int] = 21
    advert: bytes


@dataclass(frozen=True, slots=True)
class Digest:
    """To Pull."""

    KIND: ClassVar[int] = 22
    prefix: Prefix
    known: bool
    splits: int
    postings: tuple[Posting, ...]
    entries: tuple[EntryFact, ...]
    next: Cursor = ()


@dataclass(frozen=True, slots=True)
class NotReady:
    """I should hold this trie node and have not got it yet: ask another, or me later."""

    KIND: ClassVar[int] = 23
    retry_ms: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """To Offer: the places in its list of those that are not held, and visible to searches, yet."""

    KIND: ClassVar[int] = 25
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Outlined:
    """One child in an outline."""

    prefix: Prefix
    zone: Zone
    mark: int  # of all its holders
    known_holders: int
    holders: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Outline:
    """To Overview: some of `total` children; of a leaf, itself."""

    KIND: ClassVar[int] = 26
    prefix: Prefix
    children: tuple[Outlined, ...]
    total: int
    has_rows: bool  # whether there are rows here, too: a leaf, or one that splits


@dataclass(frozen=True, slots=True)
class TallyPart:
    """Adverts that pass, by their group's name; `age_ms` is 0 for rows, else how old a child's word is."""

    name: str
    age_ms: int
    leaves: int  # how many leaves were not read for it
    aggregate: Aggregate


@dataclass(frozen=True, slots=True)
class TallyChild:
    """A child that may hold some that pass, and must be asked: at most `count`."""

    prefix: Prefix
    count: int
    known_holders: int
    holders: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Tallied:
    """To Tally: some of `total` items. `splitting`: rows are on their way down, and may count twice."""

    KIND: ClassVar[int] = 27
    prefix: Prefix
    parts: tuple[TallyPart, ...]
    children: tuple[TallyChild, ...]
    total: int
    digest: int
    splitting: bool


@dataclass(frozen=True, slots=True)
class Refused:
    KIND: ClassVar[int] = 24
    reason: str


Question = TrieQuestion | AtCopy | Salted
Result = Accepted | Moved | Here | Stale | Answer | AdvertIs | Digest | NotReady | Refused | Wanted | Outline | Tallied
Message = Question | Result
