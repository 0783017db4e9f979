"""A network in memory for the summaries' pure cores: delays, loss and duplicates from a seed.

Every message goes through its positional list and its size is checked, so what passes here fits a
datagram. Nearness is XOR distance of node ids, as in the overlay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from heapq import heappop, heappush
from random import Random
from types import MappingProxyType

from summaries.asks import ABSENT, Ask, Outcome, Probe
from summaries.census import Census, CensusResult
from summaries.execute import Search, SearchResult
from summaries.forms import from_fields, to_fields
from summaries.holder import Holder, Push, Reply
from summaries.messages import Accepted, Message, Salted
from summaries.point import Point
from summaries.publish import Before, Posting, Publication
from summaries.query import Query
from summaries.schema import Schema
from summaries.size import MAX_MESSAGE_BYTES, packed_size
from summaries.trie import Prefix, trie_key

TIMEOUT_MS = 2_500
GIB = 1 << 30


def attributes(random: Random) -> dict[str, object]:
    cores = random.choice([2, 4, 8, 8, 16, 32, 64])
    memory = cores * random.choice([1, 2, 4]) * GIB
    disk = random.randrange(10, 1000) * GIB
    net = random.choice([10**7, 10**8, 10**8, 10**9])
    price = max(1, int(random.lognormvariate(17, 0.5)))
    environments = {("os", "linux", random.choice(["5.10", "6.1", "6.1.3", "6.10"]))}
    if random.random() < 0.4:
        environments.add(("os", "debian", random.choice(["11", "12"])))
    if random.random() < 0.2:
        environments.add(("platform", "jvm", random.choice(["11", "17", "21"])))
    if random.random() < 0.05:
        environments.add(("os", "bsd", "14.1"))
    centre = random.choice([(0, 0, 0), (90_000, 10_000, 5_000), (-40_000, 70_000, 0)])
    place = tuple(int(random.gauss(middle, 9_000)) for middle in centre)
    return {
        "cpu.total": cores * 1000,
        "cpu.available": random.randrange(0, cores * 1000 + 1, 50),
        "cores": cores,
        "memory.total": memory,
        "memory.available": random.randrange(0, memory + 1, GIB // 4),
        "disk.total": disk,
        "disk.available": random.randrange(0, disk + 1, GIB),
        "net.total": net,
        "net.available": random.randrange(0, net + 1, 10**6),
        "price.cpu": price,
        "price.memory": price // 7,
        "price.disk": price // 50,
        "price.net": random.choice([0, 10**7, 2 * 10**7]),
        "currency": random.choice(["USD", "USD", "USD", "EUR"]),
        "country": random.choice(["DE", "GB", "US", "JP"]),
        "region": random.choice(["eu", "us", "asia"]),
        "owner": f"owner-{random.randrange(20)}",
        "feature": tuple(sorted(random.sample(["gpu", "ssd", "ipv6"], random.randrange(3)))),
        "uptime": random.randrange(10**6),
        "environments": tuple(sorted(environments)),
        "location": (*place, random.randrange(0, 4_000)),
    }


def label(dimension: str, salt: int) -> str:
    return f"{dimension}#{salt}" if salt else dimension


def parted(trie: str) -> tuple[str, int]:
    dimension, _, salt = trie.partition("#")
    return dimension, int(salt or 0)


class World:
    def __init__(
        self, seed: int, nodes: int, schema: Schema, *, capacity: int = 32, loss: float = 0.0, duplicates: float = 0.0,
        root_groups: int = 1, tries: Mapping[str, int] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self.random, self.schema, self.capacity, self.root_groups = Random(seed), schema, capacity, root_groups
        self.tries = tries
        self.loss, self.duplicates = loss, duplicates
        self.now_ms = 1_000_000
        self.names = [f"node-{seed}-{number:03d}".encode().ljust(26, b"\0") for number in range(nodes)]
        self.ids = {name: int.from_bytes(sha256(name).digest()[:20], "big") for name in self.names}
        self.adverts: dict[bytes, Point] = {}
        self.current: dict[bytes, bytes] = {}  # contact -> the server's current advert
        self.holders: dict[tuple[bytes, str], Holder] = {}
        self.down: set[bytes] = set()
        self.ahead_ms: dict[bytes, int] = {}  # by which a node's wall clock is wrong
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.count = self.messages = self.requests = 0
        self.waiting: dict[int, Callable[[Message | None], None]] = {}
        self._nearest: dict[tuple[str, Prefix, int], list[bytes]] = {}
        for name in self.names:
            for trie in self.labels():
                self.start(name, trie)
        self._ticking()

    def labels(self) -> list[str]:
        """Every trie: a dimension's name, and for its further ones their number behind it."""
        names = [one.name for one in self.schema.dimensions]
        return names + [label(name, salt) for name, count in self.tries.items() for salt in range(1, count)]

    def start(self, name: bytes, trie: str) -> None:
        dimension, _ = parted(trie)
        self.holders[name, trie] = Holder(
            self.schema, dimension, name, self.verify, incarnation=self.now_ms, capacity=self.capacity,
            ahead_ms=lambda: self.ahead_ms.get(name, 0),
            root_groups=1 if dimension in self.tries else self.root_groups,
        )  # fmt: skip

    def restart(self, name: bytes) -> None:
        for trie in self.labels():
            self.start(name, trie)

    def _ticking(self) -> None:
        for (name, dimension), holder in self.holders.items():
            if name not in self.down:
                self.act(name, dimension, holder.tick(self.now_ms))
        self.later(1_000, self._ticking)

    # ----- adverts

    def advert(self, id: int, seq: int, values: dict[str, object], *, gone: bool = False, ttl_s: int = 450) -> bytes:
        contact = f"server-{id}".encode().ljust(26, b".")
        expires_s = self.now_ms // 1000 + ttl_s
        point = Point.from_attributes(
            self.schema, id=id, seq=seq, expires_s=expires_s, attributes=values, contact=contact, gone=gone
        )
        raw = sha256(repr((id, seq, gone, sorted(values.items()))).encode()).digest() * 26
        self.adverts[raw] = point
        self.current[contact] = raw
        return raw

    def verify(self, advert: bytes, now_ms: int) -> Point | None:
        point = self.adverts.get(advert)
        return point if point is not None and point.expires_s > now_ms // 1000 else None

    # ----- time and messages

    def later(self, delay_ms: int, what: Callable[[], None]) -> None:
        self.count += 1
        heappush(self.queue, (self.now_ms + delay_ms, self.count, what))

    def run(self, duration_ms: int = 0, until: Callable[[], bool] | None = None) -> None:
        end = self.now_ms + duration_ms
        while self.queue and not (until and until()):
            if duration_ms and self.queue[0][0] > end:
                self.now_ms = end
                return
            self.now_ms, _, what = heappop(self.queue)
            what()

    def carry(self, message: Message, deliver: Callable[[Message], None]) -> None:
        data = to_fields(message)
        assert packed_size(data) <= MAX_MESSAGE_BYTES, (packed_size(data), message)
        copies = 0 if self.random.random() < self.loss else 2 if self.random.random() < self.duplicates else 1
        for _ in range(copies):
            self.messages += 1
            self.later(self.random.randrange(5, 60), lambda: deliver(from_fields(data)))

    def rpc(
        self, source: bytes, target: bytes, dimension: str, message: Message, done: Callable[[Message | None], None]
    ) -> None:
        self.requests += 1
        request = self.requests
        self.waiting[request] = done

        def arrive(received: Message) -> None:
            trie = dimension
            if isinstance(received, Salted):
                trie, received = label(dimension, received.salt), received.question
            if target not in self.down:
                holder = self.holders[target, trie]
                self.act(target, trie, holder.received(received, source, request, self.now_ms))

        def give_up() -> None:
            waiting = self.waiting.pop(request, None)
            if waiting is not None:
                waiting(None)

        self.carry(message, arrive)
        self.later(TIMEOUT_MS, give_up)

    def act(self, name: bytes, trie: str, actions: list[Reply | Push]) -> None:
        dimension, salt = parted(trie)
        for action in actions:
            if isinstance(action, Reply):
                request = action.request

                def finish(message: Message, request: object = request) -> None:
                    waiting = self.waiting.pop(request, None)  # type: ignore[call-overload]
                    if waiting is not None:
                        waiting(message)

                self.carry(action.message, finish)
            else:
                targets = [action.to] if action.to else self.nearest(dimension, action.prefix, salt or action.group)[:3]
                for target in targets:

                    def conclude(
                        reply: Message | None, target: bytes = target, push: Push = action, asked: int = len(targets)
                    ) -> None:
                        if name not in self.down:
                            holder = self.holders[name, trie]
                            self.act(
                                name, trie, holder.answered(push.token, asked, target, reply, self.now_ms)
                            )

                    if target in action.have:
                        self.later(0, lambda conclude=conclude: conclude(Accepted()))
                        continue
                    sent = Salted(salt, action.message) if salt else action.message
                    self.rpc(name, target, dimension, sent, conclude)

    def nearest(self, dimension: str, prefix: Prefix, group: int = 0) -> list[bytes]:
        found = self._nearest.get((dimension, prefix, group))
        if found is None:
            key = int.from_bytes(trie_key(b"test", self.schema.epoch, dimension, prefix, group), "big")
            found = sorted(self.names, key=lambda name: self.ids[name] ^ key)
            self._nearest[dimension, prefix, group] = found
        return found

    # ----- driving the state machines

    def ask(self, ask: Ask, done: Callable[[Outcome], None]) -> None:
        target = ask.holder
        if target is None:
            nearest = self.nearest(ask.dimension, ask.prefix, ask.key)[:3]
            near = [name for name in nearest if name not in ask.exclude]
            if ask.replica >= len(near):
                done(ABSENT)
                return
            target = near[ask.replica]
        target_name = target
        if ask.after_ms:
            later = replace(ask, after_ms=0, holder=target_name)
            self.later(ask.after_ms, lambda: self.ask(later, done))
            return
        self.rpc(b"searcher", target_name, ask.dimension, ask.sent, done)

    def publish(
        self, dimension: str, raw: bytes, previous: tuple[Posting, ...] = (), before: Before | None = None,
        salt: int = 0,
    ) -> Publication:  # fmt: skip
        publication = Publication(self.schema, dimension, self.adverts[raw], raw, previous, before=before, salt=salt)

        def send(asks: list[Ask]) -> None:
            for ask in asks:
                self.ask(ask, lambda reply, ask=ask: send(publication.answered(ask, reply)))  # type: ignore[misc]

        send(publication.start())
        return publication

    def search(self, query: Query, *, slow_ms: Callable[[], int] | None = None, **options: object) -> SearchResult:
        """Run a search; `slow_ms`: after how long what was not answered is called slow."""
        search = Search(self.schema, query, self.verify, **options)  # type: ignore[arg-type]

        def send(asks: list[Ask | Probe]) -> None:
            for ask in asks:
                if isinstance(ask, Probe):
                    took_ms = TIMEOUT_MS if ask.contact in self.down else 20
                    self.later(took_ms, lambda ask=ask: send(search.probed(ask, self.probe(ask), self.now_ms)))  # type: ignore[misc]
                else:
                    self.ask(ask, lambda reply, ask=ask: send(search.answered(ask, reply, self.now_ms)))  # type: ignore[misc]
                if slow_ms is not None:
                    self.later(slow_ms(), lambda ask=ask: send(search.slow(ask, self.now_ms)))  # type: ignore[misc]

        send(search.start(self.now_ms))
        self.run(until=lambda: search.finished)
        assert search.finished
        return search.result

    def census(self, query: Query, *, slow_ms: Callable[[], int] | None = None, **options: object) -> CensusResult:
        census = Census(self.schema, query, **options)  # type: ignore[arg-type]

        def send(asks: list[Ask]) -> None:
            for ask in asks:
                self.ask(ask, lambda reply, ask=ask: send(census.answered(ask, reply)))  # type: ignore[misc]
                if slow_ms is not None:
                    self.later(slow_ms(), lambda ask=ask: send(census.slow(ask)))  # type: ignore[misc]

        send(census.start())
        self.run(until=lambda: census.finished)
        assert census.finished
        return census.result

    def probe(self, ask: Probe) -> bytes | None:
        return None if ask.contact in self.down else self.current.get(ask.contact)

    def publish_all(self, raws: list[bytes], dimensions: list[str], at_once: int = 40) -> list[Publication]:
        """Publish every advert in these dimensions, some at a time, and wait for all."""
        work = [(dimension, raw) for raw in raws for dimension in dimensions]
        made: list[Publication] = []
        for start in range(0, len(work), at_once):
            batch = [self.publish(dimension, raw) for dimension, raw in work[start : start + at_once]]
            self.run(until=lambda batch=batch: all(one.finished for one in batch))  # type: ignore[misc]
            made += batch
        return made
