"""A network in memory with time, loss, crashes and liars, for the real holders, publications and searches.

Decides who holds a prefix (the R live nodes that are nearest its key: lookups are assumed to find them), how long a
datagram takes and when it is lost, and when nodes tick. Light: no endpoints, no lookups, so that curves over many
worlds are drawn in minutes; the whole platform under faults is for the other simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from heapq import heappop, heappush
from random import Random
from typing import cast

from dht.contact import Contact
from summaries.asks import ABSENT, Ask, Outcome, Probe
from summaries.canary import Canary
from summaries.execute import Search
from summaries.holder import Action, Holder, Push, Reply
from summaries.messages import Accepted, Message, Question, Salted
from summaries.point import Point
from summaries.publish import Posting, Publication
from summaries.schema import Schema
from summaries.trie import Prefix, trie_key
from xenonode.simulation.recall_bench.lies import Liar

TIMEOUT_MS = 2_000
Trie = tuple[str, int]
"""A dimension, and which of its tries."""
PATIENCE = 2  # times that a question is sent before it counts as unanswered, as the endpoint does
NEAR = 8  # nodes nearest to a prefix that are heard on its behalf: placement's NEAR
LEAST_MS, MOST_MS = 10, 80  # one way


class FaultyNetwork:
    """`nodes` holders of `dimensions`, R replicas each."""

    def __init__(
        self, schema: Schema, dimensions: tuple[str, ...], seed: int, nodes: int, replicas: int, capacity: int,
        verify: Callable[[bytes, int], Point | None], now_ms: int, loss: float = 0.0, root_groups: int = 1,
        tries: int = 1,
    ) -> None:  # fmt: skip
        self.schema, self.dimensions, self.replicas, self.capacity = schema, dimensions, replicas, capacity
        self.random, self.loss, self.now_ms, self._verify = Random(seed), loss, now_ms, verify
        self.root_groups, self.tries = root_groups, {name: tries for name in dimensions if tries > 1}
        self.nodes = [
            Contact(self.random.randbytes(20), (f"10.200.{number >> 8}.{number & 255}", 4_000)).packed
            for number in range(nodes)
        ]
        self._numbers = {name: int.from_bytes(name[:20], "big") for name in self.nodes}
        self.down: set[bytes] = set()
        self.liars: dict[bytes, Liar] = {}
        self.shunned: frozenset[bytes] = frozenset()  # whom XenoCorp has everybody leave alone
        self.holders: dict[tuple[bytes, Trie], Holder] = {}
        self.current: dict[bytes, bytes] = {}  # a server's contact -> the advert that it shows
        self.questions = 0
        self._near: dict[tuple[str, Prefix, int], list[bytes]] = {}
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        for name in self.nodes:
            self._start(name)
        self._tick()

    # ----- nodes

    @property
    def each(self) -> list[Trie]:
        """Every trie of every dimension."""
        return [(dimension, salt) for dimension in self.dimensions for salt in range(self.tries.get(dimension, 1))]

    def _start(self, name: bytes) -> None:
        for trie in self.each:
            self.holders[name, trie] = Holder(
                self.schema, trie[0], name, self._verify, incarnation=self.now_ms, capacity=self.capacity,
                may_hold=lambda prefix, one, trie=trie: one in self._nearest(trie[0], prefix, trie[1]),  # type: ignore[misc]
                turn=lambda prefix, trie=trie: self._turn(name, trie, prefix),  # type: ignore[misc]
                root_groups=1 if self.tries else self.root_groups, replicas=self.replicas,
            )  # fmt: skip

    def crash(self, name: bytes) -> None:
        """It is silent from now on; others find the next nearest in its place."""
        self.down.add(name)
        self._near.clear()

    def restart(self, name: bytes) -> None:
        """It comes back with nothing."""
        self.down.discard(name)
        self._near.clear()
        self._start(name)

    def shun(self, names: Iterable[bytes]) -> None:
        """From now on nobody asks or believes these; others are nearest in their place."""
        if (shunned := frozenset(names)) != self.shunned:
            self.shunned = shunned
            self._near.clear()

    def nearest(self, dimension: str, prefix: Prefix, group: int = 0) -> list[bytes]:
        """The R live nodes that are nearest the key of a prefix or of a copy of it."""
        return self._nearest(dimension, prefix, group)[: self.replicas]

    def _nearest(self, dimension: str, prefix: Prefix, group: int = 0) -> list[bytes]:
        found = self._near.get((dimension, prefix, group))
        if found is None:
            key_of = trie_key(b"recall", self.schema.epoch, dimension, prefix, group)
            salted = sha256(dimension.encode() + key_of).digest()
            key = int.from_bytes(salted[:20], "big")
            up = [name for name in self.nodes if name not in self.down and name not in self.shunned]
            found = self._near[dimension, prefix, group] = sorted(up, key=lambda name: self._numbers[name] ^ key)[:NEAR]
        return found

    def _turn(self, name: bytes, trie: Trie, prefix: Prefix) -> int:
        near = self.nearest(trie[0], prefix, trie[1])
        return near.index(name) if name in near else self.replicas

    def _tick(self) -> None:
        for (name, trie), holder in self.holders.items():
            if name not in self.down and not holder.is_empty:
                self._act(name, trie, holder.tick(self.now_ms))
        self.later(1_000, self._tick)

    # ----- time and messages

    def later(self, delay_ms: int, what: Callable[[], None]) -> None:
        """Do something after a while."""
        self._count += 1
        heappush(self._queue, (self.now_ms + delay_ms, self._count, what))

    def run(self, duration_ms: int = 0, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass: so long, or until something is so."""
        end = self.now_ms + duration_ms
        while not until():
            if duration_ms and self._queue[0][0] > end:
                self.now_ms = end
                return
            self.now_ms, _, what = heappop(self._queue)
            what()

    def _delay_ms(self) -> int:
        return self.random.randrange(LEAST_MS, MOST_MS)

    def _rpc(
        self, source: bytes, target: bytes, dimension: str, message: Question, done: Callable[[Message | None], None]
    ) -> None:
        finished: list[bool] = []

        def answer(reply: Message) -> None:
            if self.random.random() >= self.loss:
                self.later(self._delay_ms(), lambda: finish(reply))

        def finish(reply: Message | None) -> None:
            if not finished:
                finished.append(True)
                done(reply)

        def arrive() -> None:
            if target in self.down or finished:
                return
            trie, asked = (dimension, 0), message
            if isinstance(message, Salted):
                trie, asked = (dimension, message.salt), message.question
            liar, holder = self.liars.get(target), self.holders[target, trie]
            lie = None if liar is None else liar.instead(holder, asked, source, self.now_ms)
            if lie is not None:
                answer(lie)
            else:
                self._act(target, trie, holder.received(asked, source, answer, self.now_ms))

        def send(times: int) -> None:
            if finished:
                return
            if times == PATIENCE:
                finish(None)
                return
            self.questions += 1
            if self.random.random() >= self.loss:
                self.later(self._delay_ms(), arrive)
            self.later(TIMEOUT_MS // PATIENCE, lambda: send(times + 1))

        send(0)

    def _act(self, name: bytes, trie: Trie, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Reply):
                cast(Callable[[Message], None], action.request)(action.message)
            else:
                self._push(name, trie, action)

    def _push(self, name: bytes, trie: Trie, push: Push) -> None:
        dimension, salt = trie
        targets = [push.to] if push.to else self.nearest(dimension, push.prefix, salt or push.group)
        holder = self.holders[name, trie]  # its life: a restart makes another
        sent = Salted(salt, push.message) if salt else push.message  # type: ignore[arg-type]

        def heard(target: bytes, reply: Message | None) -> None:
            if name not in self.down and self.holders[name, trie] is holder:
                actions = holder.answered(push.token, len(targets), target, reply, self.now_ms)
                self._act(name, trie, actions)

        for target in targets:
            if target in push.have:
                self.later(0, lambda target=target: heard(target, Accepted()))  # type: ignore[misc]
            else:
                self._rpc(name, target, dimension, sent, lambda reply, target=target: heard(target, reply))  # type: ignore[misc]

    def _ask(self, source: bytes, ask: Ask, done: Callable[[Outcome], None]) -> None:
        if ask.after_ms:
            self.later(ask.after_ms, lambda: self._ask(source, replace(ask, after_ms=0), done))
            return
        target = ask.holder
        if target is None:
            nearest = self.nearest(ask.dimension, ask.prefix, ask.key)
            near = [name for name in nearest if name not in ask.exclude]
            if ask.replica >= len(near):
                self.later(0, lambda: done(ABSENT))
                return
            target = near[ask.replica]
        if target in self.shunned:
            self.later(0, lambda: done(None))
            return
        self._rpc(source, target, ask.dimension, ask.sent, done)

    # ----- driving the state machines

    def publish(self, point: Point, raw: bytes, trie: Trie, before: tuple[Posting, ...]) -> Publication:
        """Begin to publish an advert in one trie."""
        publication = Publication(self.schema, trie[0], point, raw, before, self.replicas, salt=trie[1])

        def send(asks: list[Ask]) -> None:
            for ask in asks:
                self._ask(point.contact, ask, lambda reply, ask=ask: send(publication.answered(ask, reply)))  # type: ignore[misc]

        send(publication.start())
        return publication

    def look(self, source: bytes, canary: Canary, done: Callable[[], None]) -> None:
        """Have a publisher look for its advert."""

        def send(asks: list[Ask]) -> None:
            for ask in asks:
                self._ask(source, ask, lambda reply, ask=ask: heard(ask, reply))  # type: ignore[misc]

        def heard(ask: Ask, reply: Outcome) -> None:
            send(canary.answered(ask, reply))
            if canary.finished:
                done()

        send(canary.start())

    def search(self, search: Search) -> None:
        """Run a search to its end."""

        def send(asks: list[Ask | Probe]) -> None:
            for ask in asks:
                if isinstance(ask, Ask):
                    self._ask(b"reader", ask, lambda reply, ask=ask: send(search.answered(ask, reply, self.now_ms)))  # type: ignore[misc]
                else:
                    self._probe(ask, lambda raw, ask=ask: send(search.probed(ask, raw, self.now_ms, 1)))  # type: ignore[misc]

        send(search.start(self.now_ms))
        self.run(until=lambda: search.finished)

    def _probe(self, probe: Probe, done: Callable[[bytes | None], None]) -> None:
        self.questions += 1
        lost = self.random.random() < self.loss**PATIENCE or probe.contact not in self.current
        if lost:
            self.later(TIMEOUT_MS, lambda: done(None))
        else:
            self.later(2 * self._delay_ms(), lambda: done(self.current[probe.contact]))
