"""Recall while holders come and go and datagrams are lost, and while a fifth of the holders lie.

Decides the worlds: who publishes when (every server once a period, spread over it), who crashes or lies, what is asked
of whom, and what was due: adverts that were first published at least two periods ago, in the answer of a search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from summaries.canary import Canary, way
from summaries.execute import Search
from summaries.parse import parse
from summaries.point import Point
from summaries.publish import Posting, Publication
from summaries.schema import Schema
from summaries.trie import ROOT
from xenonode.corp.court import Court
from xenonode.first_schema import first_schema
from xenonode.simulation.recall_bench.lies import KINDS, Liar
from xenonode.simulation.recall_bench.network import FaultyNetwork, Trie
from xenonode.simulation.recall_bench.questions import Columns, Drawing, Question
from xenonode.simulation.search_bench.adverts import NOW_MS, AdvertSet

PERIOD_MS = 150_000  # search.md: a heartbeat of 150 s, three of which an advert lives
LIVES_S = 450
DIMENSIONS = (
    "cores", "memory.available", "disk.available", "net.available", "price.cpu", "environment", "location",
)  # fmt: skip
"""As few as a schema may have: each costs every server as much."""
QUESTION_KINDS = ("amounts", "between", "prices", "words", "mixed", "either", "not", "near")
ASKED_EVERY_MS = 3_000
CRASHED_SHARE = 0.10  # of all holders, in each period
AWAY_MS = (20_000, 120_000)
LYING_SHARE = 0.20
HEARS_MS = 30_000  # how often a server asks whom to shun: a fifth of a period, as live
AGAIN_MS = 2_000  # between the looks of a server that looks everywhere
PUBLISHED_MS = 4_000  # by then a publication that meets nobody silent was acknowledged
LOOKS_AFTER_MS = 30_000  # a publisher looks for itself when its advert is that old, or as old as up to a period


@dataclass(slots=True)
class Score:
    """What a number of searches found."""

    questions: int = 0
    due: int = 0
    found: int = 0
    wrong: int = 0
    partial: int = 0
    missed_complete: int = 0  # adverts missing from answers that were called complete
    rpcs: int = 0
    rounds: int = 0

    @property
    def recall(self) -> float:
        return self.found / self.due if self.due else 1.0


@dataclass(slots=True)
class _Server:
    point: Point
    postings: dict[Trie, tuple[Posting, ...]]
    first_ms: int = 0
    durable: dict[Trie, int] = field(default_factory=dict)  # the newest advert that was acknowledged
    shunned: frozenset[bytes] = frozenset()  # when it last heard
    looks: int = 0  # times that it began to look everywhere: only the latest goes on


class Fleet:
    """Servers with one advert each, in a network whose holders are not to be relied on."""

    def __init__(
        self, seed: int, adverts: int, nodes: int, replicas: int = 3, capacity: int = 64, loss: float = 0.0,
        root_groups: int = 1, tries: int = 1,
    ) -> None:  # fmt: skip
        self.random = Random(seed)
        every = first_schema()
        schema = Schema(every.epoch, tuple(each for each in every.dimensions if each.name in DIMENSIONS))
        drawn = AdvertSet(schema, seed, adverts)
        self._by_raw: dict[bytes, Point] = {}
        self.network = FaultyNetwork(
            schema, DIMENSIONS, seed, nodes, replicas, capacity, self.verify, NOW_MS, loss, root_groups, tries
        )
        self.court: Court | None = None  # with one, servers look for their adverts
        self.servers = [_Server(point, {}) for point, _ in drawn.adverts]
        points = [one.point for one in self.servers]
        self.columns = Columns([point.id for point in points], [point.attributes for point in points])
        self.drawing = Drawing(Random(seed + 1), self.columns)
        for server in self.servers:
            self.network.later(self.random.randrange(PERIOD_MS), lambda server=server: self._publish(server))  # type: ignore[misc]

    def verify(self, raw: bytes, now_ms: int) -> Point | None:
        """What holders and readers ask of an advert; signatures are not what is measured."""
        point = self._by_raw.get(raw)
        return point if point is not None and point.expires_s > now_ms // 1000 else None

    def _publish(self, server: _Server) -> None:
        self._renew(server)
        wait_ms = LOOKS_AFTER_MS + self.random.randrange(PERIOD_MS - 2 * LOOKS_AFTER_MS)
        self.network.later(wait_ms, lambda: self._look_somewhere(server))
        for times in range(1, PERIOD_MS // HEARS_MS):
            self.network.later(times * HEARS_MS, lambda: self._told(server))
        self.network.later(PERIOD_MS, lambda: self._publish(server))

    def _renew(self, server: _Server) -> None:
        network, old = self.network, server.point
        now_ms = network.now_ms
        point = Point.from_attributes(
            network.schema,
            id=old.id,
            seq=now_ms,
            expires_s=now_ms // 1000 + LIVES_S,
            attributes=old.attributes,
            contact=old.contact,
        )
        raw = old.id.to_bytes(8, "big") + now_ms.to_bytes(8, "big") + bytes(600)
        self._by_raw[raw] = server.point = point
        server.first_ms = server.first_ms or now_ms
        network.current[point.contact] = raw
        for trie in network.each:
            publication = network.publish(point, raw, trie, server.postings.get(trie, ()))
            # A publication is over long before the next one: its tries end within half a minute.
            network.later(PERIOD_MS - 1, lambda one=publication, name=trie: server.postings.update({name: one.postings}))  # type: ignore[misc]  # noqa: E501
            network.later(PUBLISHED_MS, lambda one=publication, name=trie: self._stands(server, one, name))  # type: ignore[misc]
            network.later(LOOKS_AFTER_MS, lambda one=publication, name=trie: self._stands(server, one, name))  # type: ignore[misc]

    def _stands(self, server: _Server, publication: Publication, trie: Trie) -> None:
        """Note where an advert stands by now."""
        if publication.durable and publication.point.seq >= server.durable.get(trie, 0):
            server.postings[trie] = publication.postings
            server.durable[trie] = publication.point.seq

    def _look_somewhere(self, server: _Server) -> None:
        """Once a period, in one trie."""
        if self.court is not None:
            self._look(server, self.random.choice(self.network.each))

    def _look_everywhere(self, server: _Server, after_ms: int) -> None:
        """Where somebody hides it, or somebody was convicted, there may be more of them."""
        server.looks += 1
        turn = server.looks

        def look(trie: Trie) -> None:
            if turn == server.looks:
                self._look(server, trie, first=False)

        for place, trie in enumerate(self.network.each):
            self.network.later(after_ms + place * AGAIN_MS, partial(look, trie))

    def _look(self, server: _Server, trie: Trie, *, first: bool = True) -> None:
        """A canary, and what its server tells XenoCorp of it; of servers, too, as many lie as of holders."""
        network, court = self.network, self.court
        if court is None or not server.durable.get(trie):
            return
        if self._hears(server):  # before those are accused who took the places of the shunned
            return
        dimension, salt = trie
        posting = self.random.choice(server.postings[trie])
        holders = {prefix: network.nearest(dimension, prefix, salt) for prefix in way(posting.leaf)}
        copies = network.root_groups > 1 and not network.tries
        group = self.random.randrange(1, network.root_groups) if copies else 0
        copied = network.nearest(dimension, ROOT, group) if group else []
        seq = server.durable[trie]
        canary = Canary(dimension, server.point, posting, seq, holders, self.random, copied, group, salt)
        entity = server.point.contact.hex()
        lies = Random(entity).random() < LYING_SHARE

        def told() -> None:
            seen = {name: shows != lies for name, shows in canary.seen.items()}
            court.testify(entity, dimension, seen, network.now_ms)
            network.shun(court.shunned(network.now_ms))
            if first and not all(canary.seen.values()):
                self._look_everywhere(server, AGAIN_MS)

        network.look(server.point.contact, canary, told)

    def _told(self, server: _Server) -> None:
        self._hears(server)

    def _hears(self, server: _Server) -> bool:
        """Learn whom to shun: what only they had is put into other hands. Whether there was news."""
        news = self.network.shunned != server.shunned
        if news:
            server.shunned = self.network.shunned
            self._renew(server)
            self._look_everywhere(server, PUBLISHED_MS + AGAIN_MS)
        return news

    def ask(self, question: Question, score: Score, *, doubting: bool = False) -> None:
        """Search once, and count what was due and what came."""
        network = self.network
        old_ms = network.now_ms - 2 * PERIOD_MS
        due = {
            one.point.id
            for one, matches in zip(self.servers, question.mask)
            if matches and one.first_ms and one.first_ms <= old_ms
        }
        search = Search(
            network.schema, parse(question.text, currency="USD").resolve({}, (0, 0, 0, 0)), self.verify,
            turn=self.random.randrange(network.replicas), replicas=network.replicas, doubting=doubting,
            group=self.random.randrange(network.root_groups) if network.root_groups > 1 else 0,
            salts={name: self.random.randrange(count) for name, count in network.tries.items()},
        )  # fmt: skip
        network.search(search)
        result = search.result
        found = {match.id for match in result.matches}
        right = {one for one, matches in zip(self.columns.ids, question.mask) if matches}
        score.questions += 1
        score.due += len(due)
        score.found += len(due & found)
        score.wrong += len(found - right)
        score.partial += not result.complete
        score.missed_complete += len(due - found) if result.complete else 0
        score.rpcs += result.counts.rpcs - result.counts.probes
        score.rounds += result.counts.rounds

    def asked(self, questions: Sequence[Question], *, doubting: bool = False) -> Score:
        """The same, for several."""
        score = Score()
        for question in questions:
            self.ask(question, score, doubting=doubting)
        return score

    def question(self) -> Question:
        """One of any class."""
        return self.drawing.draw(self.random.choice(QUESTION_KINDS))

    def lie(self, share: float = LYING_SHARE) -> None:
        """So many of the holders lie from now on, each kind as many."""
        chosen = self.random.sample(self.network.nodes, round(len(self.network.nodes) * share))
        for number, name in enumerate(chosen):
            liar = self.network.liars[name] = Liar(KINDS[number % len(KINDS)], Random(number))
            for trie in self.network.each:
                liar.freeze(self.network.holders[name, trie])

    def churn(self, share: float = CRASHED_SHARE) -> None:
        """From now on, holders crash at this rate a period, and come back with nothing."""
        network, every_ms = self.network, round(PERIOD_MS / (share * len(self.network.nodes)))

        def crash() -> None:
            name = self.random.choice([one for one in network.nodes if one not in network.down])
            network.crash(name)
            network.later(self.random.randrange(*AWAY_MS), lambda: network.restart(name))
            network.later(every_ms, crash)

        network.later(every_ms, crash)


def under_churn(
    seed: int, adverts: int, nodes: int, questions: int, loss: float = 0.05, root_groups: int = 1, tries: int = 1
) -> Score:
    """Strict searches, one every three seconds, while holders come and go."""
    fleet, score = Fleet(seed, adverts, nodes, loss=loss, root_groups=root_groups, tries=tries), Score()
    fleet.network.run(PERIOD_MS)
    fleet.churn()
    fleet.network.run(2 * PERIOD_MS)
    for _ in range(questions):
        fleet.network.run(ASKED_EVERY_MS)
        fleet.ask(fleet.question(), score)
    return score


def with_liars(
    seed: int, adverts: int, nodes: int, replicas: int, questions: int, root_groups: int = 1, tries: int = 1
) -> Iterator[tuple[str, Score]]:
    """The same questions by a strict and by a doubting search, two periods after a fifth began to lie.

    Then servers begin to look for their adverts, and the strict search asks again one and two periods later: what only
    liars had comes back with the next advert.
    """
    fleet = Fleet(seed, adverts, nodes, replicas, root_groups=root_groups, tries=tries)
    fleet.network.run(PERIOD_MS + 30_000)
    fleet.lie()
    fleet.network.run(2 * PERIOD_MS)
    drawn = [fleet.question() for _ in range(questions)]
    yield "strict", fleet.asked(drawn)
    yield "doubting", fleet.asked(drawn, doubting=True)
    fleet.court = Court()
    for mode in ("canaries, one period", "canaries, two periods"):
        fleet.network.run(PERIOD_MS)
        yield mode, fleet.asked(drawn)
