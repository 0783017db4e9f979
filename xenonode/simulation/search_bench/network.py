"""A network in memory for the searches' real code: no loss, no delay but rounds, every message packed and counted.

Decides who holds a trie node (the R of the simulated nodes that are nearest its key, as the overlay would say) and
what is counted: questions, bytes, rounds (a question that waits for another's answer is one round later), the
client's processor time. Leaves lookups out: where holders are is what the overlay caches, and every method needs it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dht import wire
from dht.contact import Contact
from summaries.asks import ABSENT, REPLICAS, Ask, Outcome, Probe
from summaries.execute import Search
from summaries.forms import from_fields, to_fields
from summaries.holder import DEFAULT_CAPACITY, Action, Holder, Push, Reply
from summaries.messages import Accepted, Answer, Fetch, Message, Overview, Question, Read, Salted
from summaries.node import TrieNode
from summaries.publish import Before, Posting, Publication
from summaries.roots import RootReading, RootView
from summaries.salting import salts_of
from summaries.trie import ROOT, Prefix, trie_key
from xenonode.simulation.search_bench.adverts import NOW_MS, AdvertSet

NETWORK_ID = b"search benchmark"
CLIENTS = 64  # that ask in turn: with fewer, chance makes one replica the favourite of most
CLOCK_LOOKS = 100
TICKS_MAX = 600  # of one second, in which a publication must end


@dataclass(slots=True)
class Cost:
    """What one query cost."""

    questions: int = 0  # to holders, without answer pages
    pages: int = 0  # of answers, after a reply's first
    proofs: int = 0  # adverts fetched or probed that are answers
    wasted: int = 0  # adverts fetched or probed that are not
    rounds: int = 0  # without proofs
    waits: int = 0  # for further pages, where `rounds` leaves that out
    control_bytes: int = 0
    answer_bytes: int = 0  # rows; the adverts of answers cost every method the same
    client_cpu_ns: int = 0
    asked: Counter[bytes] = field(default_factory=Counter)  # questions by node


@dataclass(slots=True)
class Client:
    """One that asks; each remembers roots of its own."""

    contact: bytes
    roots: dict[str, RootView] = field(default_factory=dict)
    salts: dict[str, int] = field(default_factory=dict)  # which trie it reads of those dimensions that have several


@dataclass(slots=True)
class _Delivery:
    step: int
    sender: bytes
    target: bytes
    dimension: str
    message: Question
    done: Callable[[Outcome, int], None]


class IndexNetwork:
    """`nodes` simulated nodes that hold the tries of one set of adverts."""

    def __init__(
        self, adverts: AdvertSet, seed: int, nodes: int, cpu_ns: Callable[[], int], capacity: int = DEFAULT_CAPACITY,
        root_groups: int = 1, tries: Mapping[str, int] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        rng = Random(seed)
        self.adverts, self.schema, self.capacity, self.root_groups = adverts, adverts.schema, capacity, root_groups
        self.tries = tries
        self._cpu_ns = cpu_ns
        self.clock_ns = min(-cpu_ns() + cpu_ns() for _ in range(CLOCK_LOOKS))  # what a look at the clock takes
        self.now_ms = NOW_MS
        self._contacts = [
            Contact(rng.randbytes(20), (f"10.200.{number >> 8}.{number & 255}", 4_000)).packed
            for number in range(nodes)
        ]
        self._ids: NDArray[np.uint64] = np.array(
            [int.from_bytes(contact[:8], "big") for contact in self._contacts], dtype=np.uint64
        )
        self._near: dict[tuple[str, Prefix, int], tuple[bytes, ...]] = {}
        self.holders: dict[tuple[bytes, str, int], Holder] = {}
        self._queue: deque[_Delivery] = deque()
        self._known: deque[Callable[[], None]] = deque()  # answers that a push needs no question for
        self._open: dict[int, _Delivery] = {}
        self._requests = 0
        self._step = 0
        self.messages = self.message_bytes = 0
        self.root_cost = Cost()
        self._rng, self._made = rng, 0
        self.clients = [self.new_client() for _ in range(CLIENTS)]
        self.client, self._turn = self.clients[0], 0  # whose turn it is

    def nearest(self, dimension: str, prefix: Prefix, group: int = 0) -> tuple[bytes, ...]:
        """The R nodes nearest the key of a trie node, or of a copy of it.

        Distinct 64 leading bits decide; ids are random, so they differ.
        """
        found = self._near.get((dimension, prefix, group))
        if found is None:
            key = trie_key(NETWORK_ID, self.schema.epoch, dimension, prefix, group)
            distance = self._ids ^ np.uint64(int.from_bytes(key[:8], "big"))
            count = min(REPLICAS, len(distance))
            places = np.argpartition(distance, count - 1)[:count]
            ordered = sorted(places.tolist(), key=lambda place: int(distance[place]))
            found = self._near[dimension, prefix, group] = tuple(self._contacts[place] for place in ordered)
        return found

    def holder(self, contact: bytes, dimension: str, salt: int = 0) -> Holder:
        """One node's part in one of a dimension's tries; made when first asked for."""
        found = self.holders.get((contact, dimension, salt))
        if found is None:
            found = self.holders[contact, dimension, salt] = Holder(
                self.schema, dimension, contact, self.adverts.verify, incarnation=1, capacity=self.capacity,
                root_groups=1 if dimension in self.tries else self.root_groups,
            )  # fmt: skip
        return found

    def install(self, dimension: str, nodes: dict[Prefix, TrieNode], salt: int = 0) -> None:
        """Give every trie node of a bulk load to its holders. They share it, which is right while nothing changes."""
        for prefix, node in nodes.items():
            for contact in self.nearest(dimension, prefix, salt):
                self.holder(contact, dimension, salt).install(node)
        copied = not len(nodes[ROOT].rows) and dimension not in self.tries
        for group in range(1, self.root_groups) if copied else ():
            for contact in self.nearest(dimension, ROOT, group):
                self.holder(contact, dimension).copying.install(nodes[ROOT], self.now_ms)

    # ----- running the state machines

    def search(self, search: Search, cost: Cost) -> None:
        """Run a search to its end."""
        answers: dict[int, int] = {}  # id -> probes and fetches made for it

        def send(asks: Sequence[Ask | Probe], step: int) -> None:
            for ask in asks:
                if isinstance(ask, Probe):
                    cost.proofs += 1
                    answers[ask.id] = answers.get(ask.id, 0) + 1
                    advert = self.adverts.current.get(ask.contact)
                    took(lambda ask=ask, advert=advert: search.probed(ask, advert, self.now_ms, 1_000), step + 1)  # type: ignore[misc]
                else:
                    self._ask(ask, cost, step, lambda reply, at, ask=ask: heard(ask, reply, at))  # type: ignore[misc]

        def heard(ask: Ask, reply: Outcome, step: int) -> None:
            took(lambda: search.answered(ask, reply, self.now_ms), step + 1)

        def took(what: Callable[[], list[Ask | Probe]], step: int) -> None:
            began = self._cpu_ns()
            asks = what()
            cost.client_cpu_ns += self._cpu_ns() - began - self.clock_ns
            send(asks, step)

        took(lambda: search.start(self.now_ms), 1)
        self._pump()
        found = {match.id for match in search.result.matches}
        cost.wasted = sum(count for id, count in answers.items() if id not in found)
        cost.proofs -= cost.wasted

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return len(self._contacts)

    def new_client(self) -> Client:
        """One who has not searched yet; it is its turn."""
        self.client = Client(Contact(self._rng.randbytes(20), ("10.250.0.1", 4_000)).packed)
        self._made += 1  # not by lot: of very many clients as many read each trie
        self.client.salts = salts_of(self.tries, self._made)
        return self.client

    def turn(self) -> int:
        """Drawn by each search: where among the replicas it starts."""
        return self._rng.getrandbits(32)

    def group(self) -> int:
        """Drawn as well: which group of a root's holders it reads, as one of very many clients."""
        return self._rng.randrange(self.root_groups) if self.root_groups > 1 else 0

    def group_of(self, dimension: str) -> int:
        """The same for one dimension: where there are several tries, roots have one group."""
        return 0 if dimension in self.tries else self.group()

    def next_client(self) -> Client:
        """It is the next one's turn."""
        self._turn += 1
        self.client = self.clients[self._turn % len(self.clients)]
        return self.client

    def read_roots(self) -> None:
        """Let every client look at every dimension's root, and remember it."""
        for _ in self.clients:
            self.read_roots_of(self.next_client(), [one.name for one in self.schema.dimensions], self.root_cost)

    def read_roots_of(self, client: Client, names: Sequence[str], cost: Cost) -> None:
        """Let a client look at the roots that it does not remember."""
        for name in names:
            if name in client.roots:
                continue
            reading = RootReading(name, self.turn(), self.group_of(name), client.salts.get(name, 0))
            asks = reading.start(self.now_ms)
            while asks:
                ask = asks.pop()
                asks += reading.answered(ask, self.ask(ask, cost, 1))
            if reading.view is not None:
                client.roots[name] = reading.view

    def holds(self, contact: bytes) -> str:
        """What a node holds, for display."""
        held = [
            f"{name}{'#' + str(salt) if salt else ''} {prefix}"
            for (one, name, salt), holder in sorted(self.holders.items(), key=lambda pair: pair[0]) if one == contact
            for prefix in sorted(holder.nodes())
        ]  # fmt: skip
        return ", ".join(held)

    def ask(self, ask: Ask, cost: Cost, step: int) -> Outcome:
        """One question and its answer, at once: for methods that are no state machine."""
        heard: list[Outcome] = []
        self._ask(ask, cost, step, lambda reply, at: heard.append(reply))
        self._pump()
        return heard[0]

    def publish(
        self, dimension: str, place: int, previous: tuple[Posting, ...] = (), before: Before | None = None,
        salt: int = 0,
    ) -> Publication:  # fmt: skip
        """Publish one advert in one dimension, in the place of its last one, and wait until it is durable."""
        point, raw = self.adverts.adverts[place]
        publication = Publication(self.schema, dimension, point, raw, previous, before=before, salt=salt)
        cost = Cost()

        def send(asks: Sequence[Ask]) -> None:
            for ask in asks:
                self._ask(ask, cost, 1, lambda reply, at, ask=ask: send(publication.answered(ask, reply)))  # type: ignore[misc]

        send(publication.start())
        for _ in range(TICKS_MAX):
            self._pump()
            if publication.finished:
                break
            self.tick()
        return publication

    def settle(self) -> None:
        """Let time pass until what splits has handed its rows down."""
        for _ in range(TICKS_MAX):
            nodes = (node for holder in self.holders.values() for node in holder.nodes().values())
            if not any(node.is_split and len(node.rows) for node in nodes):
                break
            self.tick()

    def tick(self) -> None:
        """A second passes at every holder."""
        self.now_ms += 1_000
        for (contact, dimension, salt), holder in self.holders.items():
            self._perform(contact, dimension, holder.tick(self.now_ms), 1, salt)
        self._pump()

    def _ask(self, ask: Ask, cost: Cost, step: int, done: Callable[[Outcome, int], None]) -> None:
        target = ask.holder
        if target is None:
            near = [one for one in self.nearest(ask.dimension, ask.prefix, ask.key) if one not in ask.exclude]
            if ask.replica >= len(near):
                done(ABSENT, step - 1)
                return
            target = near[ask.replica]
        message = ask.message
        if isinstance(message, Overview):
            cost.questions += 1
        elif isinstance(message, Read):
            cost.pages += is_page(message)
            cost.questions += not is_page(message)
            cost.rounds = max(cost.rounds, step)
        elif isinstance(message, Fetch):
            cost.proofs += 1
        cost.asked[target] += 1
        began = self._cpu_ns()
        packed = wire.pack(to_fields(ask.sent))
        cost.client_cpu_ns += self._cpu_ns() - began - self.clock_ns
        cost.control_bytes += len(packed)

        def heard(reply: Outcome, at: int) -> None:
            if isinstance(reply, Message):
                raw = wire.pack(to_fields(reply))
                rows = len(raw) - len(wire.pack(to_fields(replace(reply, rows=())))) if isinstance(reply, Answer) else 0
                cost.control_bytes += len(raw) - rows
                cost.answer_bytes += rows
                began = self._cpu_ns()
                from_fields(wire.unpack(raw))
                cost.client_cpu_ns += self._cpu_ns() - began - self.clock_ns
            done(reply, at)

        self._queue.append(_Delivery(step, self.client.contact, target, ask.dimension, ask.sent, heard))

    def _pump(self) -> None:
        while self._queue or self._known:
            if self._known:
                self._known.popleft()()
                continue
            one = self._queue.popleft()
            self._requests += 1
            self._open[self._requests] = one
            packed = wire.pack(to_fields(one.message))
            self.messages += 1
            self.message_bytes += len(packed)
            question = from_fields(wire.unpack(packed))
            salt = 0
            if isinstance(question, Salted):
                salt, question = question.salt, question.question
            holder = self.holder(one.target, one.dimension, salt)
            actions = holder.received(question, one.sender, self._requests, self.now_ms)
            self._perform(one.target, one.dimension, actions, one.step, salt)

    def _perform(self, name: bytes, dimension: str, actions: Sequence[Action], step: int, salt: int) -> None:
        for action in actions:
            if isinstance(action, Reply):
                asked = self._open.pop(action.request, None)  # type: ignore[call-overload]
                if asked is not None:
                    self.messages += 1
                    self.message_bytes += len(wire.pack(to_fields(action.message)))
                    asked.done(action.message, asked.step)
            else:
                self._push(name, dimension, action, step, salt)

    def _push(self, name: bytes, dimension: str, push: Push, step: int, salt: int) -> None:
        targets = (push.to,) if push.to else self.nearest(dimension, push.prefix, salt or push.group)
        sent = Salted(salt, push.message) if salt else push.message  # type: ignore[arg-type]
        for target in targets:

            def heard(reply: Outcome, at: int, target: bytes = target) -> None:
                message = reply if isinstance(reply, Message) else None
                holder = self.holder(name, dimension, salt)
                actions = holder.answered(push.token, len(targets), target, message, self.now_ms)
                self._perform(name, dimension, actions, at, salt)

            if target in push.have:
                self._known.append(partial(heard, Accepted(), step))
            else:
                self._queue.append(_Delivery(step + 1, name, target, dimension, sent, heard))


def is_page(message: Read) -> bool:
    """Whether a question only continues an answer."""
    return message.first > 0
