"""Keeping one advert in one dimension's trie: a state machine over asks.

Decides under which keys the advert is posted, when a posting may stay where it is (sticky keys:
while its own code moved by no more than one bin), and when it counts as published: a quorum of the
leaf's replicas accepted it, each only after its ancestors' summaries include it. A move is insert,
wait for the acknowledgement, then delete; so a reader finds the server at every moment.

             Moved                       quorum             old postings
  LOCATE ------------> INSERT at R -----------------> DELETE -----------> done
     ^   Here            |  | too few accepted
     |___________________|  v bounded tries, then failed ("accepted, not yet durable" if any did)

Where the last advert stands already only its changes are sent (renewal.py), and the whole to whoever refuses them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from summaries.asks import REPLICAS, Absent, Ask, Outcome
from summaries.holder import quorum
from summaries.messages import Accepted, Delete, Here, Insert, Locate, Moved, NotReady, Refused, Renew, Stale
from summaries.point import Point
from summaries.renewal import changes_of
from summaries.schema import Schema
from summaries.trie import ROOT, Prefix, is_near, keys_of

MAX_MOVES = 24  # Moved answers followed in one try: twice the depth of any trie
MAX_TRIES = 6  # of one posting, each from the root: about ten seconds with the delays below
RETRY_MS = 250
MAX_POSTINGS = 32  # an advert offers at most 32 environments


@dataclass(frozen=True, slots=True)
class Posting:
    """Where an advert stands in a trie: kept from one publication to the next."""

    key: int
    leaf: Prefix


@dataclass(frozen=True, slots=True)
class Before:
    """The advert that the last publication left where it stands."""

    seq: int
    advert: bytes


@dataclass(slots=True)
class _Task:
    """One key to insert under or delete from."""

    key: int
    leaf: Prefix
    delete: bool
    stands: bool = False  # the advert before this one was posted there, under this key
    state: str = "ready"  # ready, locating, writing, done, failed
    tries: int = 0
    moves: int = 0
    accepted: int = 0
    failed: int = 0
    absent: int = 0
    open: int = 0
    generation: int = 0
    deeper: Prefix | None = None
    ways: list[Moved] = field(default_factory=list)  # where the holders that were asked say that the key belongs
    named: tuple[bytes, ...] = ()  # who holds the leaf or aggregation point that we go to, if two told
    wait_ms: int = RETRY_MS
    refused: list[str] = field(default_factory=list)


class Publication:
    """Publishes, moves or withdraws one verified advert in one dimension, in its trie of number `salt`.

    `previous` are the postings that the last publication of this server left. A tombstone advert
    (`point.gone`) withdraws them all.
    """

    def __init__(
        self,
        schema: Schema,
        dimension: str,
        point: Point,
        advert: bytes,
        previous: tuple[Posting, ...] = (),
        replicas: int = REPLICAS,
        before: Before | None = None,
        salt: int = 0,
    ) -> None:
        self.dimension, self.point, self._salt = dimension, point, salt
        self._advert, self._replicas = advert, replicas
        self._before_seq = before.seq if before else 0
        self._changes = changes_of(before.advert, advert) if before else ()
        axis = schema.dimension(dimension)
        own = [] if point.gone else keys_of(schema, dimension, point)[:MAX_POSTINGS]
        kept: dict[int, Posting] = {}
        for key in own:
            near = [posting for posting in previous if is_near(axis, posting.key, key) and posting.key not in kept]
            same = [posting for posting in near if posting.key == key]
            posting = (same or near or [Posting(key, ROOT)])[0]
            kept[posting.key] = posting
        self._inserts = [_Task(each.key, each.leaf, False, each in previous) for each in kept.values()]
        gone = [posting for posting in previous if posting.key not in kept]
        self._deletes = [_Task(posting.key, posting.leaf, True, True) for posting in gone]
        self._asks: dict[int, tuple[_Task, int]] = {}
        self._number = 0
        self._deleting = False
        self._out: list[Ask] = []

    def start(self) -> list[Ask]:
        for task in self._inserts:
            self._begin(task)
        self._advance()
        return self._flush()

    def answered(self, ask: Ask, reply: Outcome) -> list[Ask]:
        """Take in the reply to an ask (None: no answer; ABSENT: no such replica)."""
        task, generation = self._asks.pop(ask.number, (None, 0))
        if task is not None and task.generation == generation and task.state in ("locating", "writing"):
            if task.state == "locating":
                self._located(task, ask, reply)
            elif isinstance(ask.message, Renew) and isinstance(reply, Refused):
                task.open -= 1  # it holds another advert, or knows no changes
                self._ask(task, ask.prefix, self._whole(task), ask.replica)
            else:
                self._wrote(task, reply)
        self._advance()
        return self._flush()

    @property
    def finished(self) -> bool:
        """Whether nothing more comes. Where a new posting failed the old ones stand, until the next publication."""
        begun = self._inserts + (self._deletes if self._deleting else [])
        return all(task.state in ("done", "failed") for task in begun)

    @property
    def durable(self) -> bool:
        """Whether a quorum acknowledged every posting: from now on every strict search finds it."""
        return all(task.state == "done" for task in self._inserts)

    @property
    def accepted(self) -> bool:
        """Whether at least one holder accepted every posting, though perhaps too few to be durable."""
        return all(task.state == "done" or task.accepted for task in self._inserts)

    @property
    def postings(self) -> tuple[Posting, ...]:
        """What to hand to the next publication: what stands now, and what could not be deleted yet."""
        left = [task for task in self._deletes if task.state != "done"]
        return tuple(Posting(task.key, task.deeper or task.leaf) for task in self._inserts + left)

    # ----- one posting

    def _begin(self, task: _Task, after_ms: int = 0) -> None:
        task.generation += 1
        task.accepted = task.failed = task.absent = task.open = 0
        if task.leaf == ROOT and not task.stands:
            self._locate(task, ROOT, after_ms)
        else:
            self._write(task, after_ms)

    def _locate(self, task: _Task, anchor: Prefix, after_ms: int = 0) -> None:
        """Ask two of an aggregation point's holders for the way: one that lies could lead every advert astray."""
        task.state, task.leaf = "locating", anchor
        task.generation += 1
        task.open, task.ways, task.wait_ms = 0, [], RETRY_MS
        for turn in range(2):
            self._ask(task, anchor, Locate(anchor, task.key), (task.tries + turn) % self._replicas, after_ms)

    def _write(self, task: _Task, after_ms: int = 0) -> None:
        task.state = "writing"
        task.generation += 1
        task.accepted = task.failed = task.absent = task.open = 0
        message: Insert | Delete | Renew = self._whole(task)
        if task.stands and self._changes:
            id, seq = self.point.id, self._before_seq
            message = Renew(task.leaf, task.key, id, seq, task.delete, self._changes)
        for replica in range(self._replicas):
            self._ask(task, task.leaf, message, replica, after_ms)

    def _whole(self, task: _Task) -> Insert | Delete:
        return (Delete if task.delete else Insert)(task.leaf, task.key, self._advert)

    def _located(self, task: _Task, ask: Ask, reply: Outcome) -> None:
        task.open -= 1
        anchor = ask.prefix
        if isinstance(reply, Here) or (isinstance(reply, NotReady) and anchor != ROOT):
            task.ways.append(Moved(anchor))  # not ready: a leaf that nobody has created yet; inserting creates it
        elif isinstance(reply, Moved) and self._is_deeper(reply.prefix, anchor, task):
            task.ways.append(reply)
        elif isinstance(reply, NotReady):
            task.wait_ms = max(task.wait_ms, reply.retry_ms)
        if task.open:
            return
        if not task.ways:
            self._retry(task, task.wait_ms)
            return
        # Who stops too early is put right by Moved; who goes too deep makes leaves that should not be.
        where = min((way.prefix for way in task.ways), key=_depth)
        told = [way.holders for way in task.ways if way.prefix == where]
        # One alone could name its like; of what one liar and one honest holder name the nearest are the right ones.
        task.named = tuple(dict.fromkeys(sum(told, ()))) if len(told) > 1 and all(told) else ()
        if where.is_anchor and where != anchor:
            self._locate(task, where)
        else:
            task.leaf = where
            self._write(task)

    def _wrote(self, task: _Task, reply: Outcome) -> None:
        task.open -= 1
        if isinstance(reply, (Accepted, Stale)):
            task.accepted += 1
        elif isinstance(reply, Absent):
            task.absent += 1
        elif isinstance(reply, Moved) and self._is_deeper(reply.prefix, task.leaf, task):
            task.deeper = reply.prefix if task.deeper is None else max(task.deeper, reply.prefix, key=_depth)
        else:
            task.failed += 1
        present = self._replicas - task.absent
        if task.delete and task.deeper is not None and task.open == 0:
            self._go_deeper(task)
        elif task.accepted >= quorum(present) and not (task.delete and task.open):
            task.state = "done"
        elif task.deeper is not None and task.accepted + task.open < quorum(present):
            self._go_deeper(task)
        elif task.open == 0:
            self._retry(task, RETRY_MS)

    def _go_deeper(self, task: _Task) -> None:
        task.moves += 1
        if task.deeper is None or task.moves > MAX_MOVES:
            self._retry(task, RETRY_MS)
            return
        task.leaf, task.deeper, task.named = task.deeper, None, ()
        self._write(task)

    def _retry(self, task: _Task, after_ms: int) -> None:
        task.tries += 1
        if task.tries >= MAX_TRIES:
            task.state = "failed"
            return
        # A cached leaf may be long gone; the root knows the way. Each try waits longer.
        task.leaf, task.deeper, task.stands, task.named = ROOT, None, False, ()
        self._begin(task, after_ms * task.tries)

    def _is_deeper(self, where: Prefix, than: Prefix, task: _Task) -> bool:
        return where.length > than.length and where.contains(task.key)

    def _advance(self) -> None:
        """Delete old postings once every new one is durable: never before."""
        if self._deleting or not self.durable:
            return
        self._deleting = True
        for task in self._deletes:
            self._begin(task)

    def _ask(
        self, task: _Task, prefix: Prefix, message: Locate | Insert | Delete | Renew, replica: int, after_ms: int = 0
    ) -> None:
        self._number += 1
        self._asks[self._number] = (task, task.generation)
        task.open += 1
        self._out.append(
            Ask(
                self._number, self.dimension, prefix, message, None, replica, (), after_ms, task.named, salt=self._salt
            )
        )

    def _flush(self) -> list[Ask]:
        out, self._out = self._out, []
        return out


def _depth(prefix: Prefix) -> int:
    return prefix.length
