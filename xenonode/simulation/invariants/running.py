"""What holds at every moment of a run, whatever goes wrong meanwhile. Each check returns what is wrong with it.

Decides the bounds, for worlds of every kind and size. Adverts are judged anew here, by what they are signed with, not
by what the nodes remember of them. Leaves money and what is sold to `money`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dht.errors import RemoteError
from dht.metrics import LOOKUP_QUESTIONS
from dht.routing import K
from summaries.asks import REPLICAS
from xenonode.model.advert import Advert, verify_advert
from xenonode.model.entity import CLOCK_TOLERANCE_MS
from xenonode.search.searching import SearchAnswer
from xenonode.simulation.loop import Incarnation

if TYPE_CHECKING:
    from xenonode.simulation.node_host import NodeHost
    from xenonode.simulation.stage import Stage

WAIT_MAX_S = 20.0
"""The longest that anything may be in flight: three times what a holder gives a push, ten times a call's time-out."""
SEARCH_RPCS_LEAST = 1_500
"""What one search may ask in a small world: three replicas of each leaf of eleven tries, and a probe of each server,
doubled. In a large one as much as that comes to there."""
NODES_A_LEAF = 4
"""Of a trie, for each leaf that were full: leaves are half full in the mean, and a binary trie has a node a leaf."""
HOSTS_A_TIME = 500
"""Of a larger world others are looked at each time, in turn, so that looking costs less than what is looked at."""
CALLS_PER_S_MAX = 2_000
"""Questions of one node: a start of eleven overlays makes about 1,500 in its first seconds; ten times what else is."""
STALE_MAX_MS = CLOCK_TOLERANCE_MS + 60_000
"""A row may be held so long after its end: by a clock as wrong as is tolerated, and swept four times a minute."""


class Checks:
    """The checks of one world, with what they remember from one time to the next."""

    def __init__(self, world: Stage) -> None:
        self._world = world
        self._expiry: dict[bytes, int] = {}  # of adverts that are good
        self._seen: dict[str, list[tuple[float, Incarnation, int]]] = {}
        self._first = 0

    def begin(self) -> None:
        """Begin anew with the first, whoever's turn it was."""
        self._first = 0

    def turn(self) -> bool:
        """Look at others from now on; True where everybody was looked at since the last time."""
        self._first += HOSTS_A_TIME
        if self._first >= len(self._world.holders()):
            self._first = 0
        return self._first == 0

    def hosts(self) -> Iterator[NodeHost]:
        """Those whose turn it is, and whose node is up and has all its parts."""
        for host in self._world.holders()[self._first : self._first + HOSTS_A_TIME]:
            if host.running is not None:
                yield host

    # -- the network

    def buckets(self) -> str:
        """No bucket holds more than k contacts."""
        for host in self.hosts():
            for overlay in host.running.peer.overlays():
                worst = max(len(bucket.nodes) for bucket in overlay.table.buckets)
                if worst > K:
                    return f"{host.node.host.name}, {overlay.dimension}: {worst} contacts in one bucket"
        return ""

    def questions(self) -> str:
        """No lookup, and no node, asks without end."""
        for host in self.hosts():
            for overlay in host.running.peer.overlays():
                if overlay.measures.lookup_questions.counts[-1]:
                    return f"{host.node.host.name}: a lookup asked more than {LOOKUP_QUESTIONS[-1]} questions"
            history = self._seen.get(host.node.host.name, [])
            if len(history) >= 2:
                (before_s, _, before), (now_s, _, now) = history[-2:]
                if now - before > CALLS_PER_S_MAX * max(1.0, now_s - before_s):
                    return f"{host.node.host.name}: {now - before} questions in {now_s - before_s:.0f} s"
        return ""

    def drains(self) -> str:
        """What a node waits for ends, by an answer or by time."""
        now_s = self._world.simulation.loop.time()
        for host in self.hosts():
            name, life, peer = host.node.host.name, host.node.host.incarnation, host.running.peer
            assert life is not None
            history = self._seen.setdefault(name, [])
            if not life.runs or (history and history[-1][1] is not life):
                history.clear()  # its processor stopped, and so did its timers
                if not life.runs:
                    continue
            history.append((now_s, life, peer.endpoint.calls.begun))
            while len(history) > 2 and history[1][0] < now_s - WAIT_MAX_S:
                del history[0]
            if now_s - history[0][0] < WAIT_MAX_S:
                continue
            oldest = min(peer.endpoint.calls.open, default=None)
            if oldest is not None and oldest <= history[0][2]:
                return f"{name}: question {oldest} waits for more than {WAIT_MAX_S:.0f} s"
            told = self._holdings(name, host)
            if told:
                return told
        return ""

    def _holdings(self, name: str, host: NodeHost) -> str:
        now_ms = int(self._world.simulation.loop.time() * 1_000)
        for dimension, _, holding in host.running.peer.held():
            flight = holding.holder.in_flight()
            if flight.rows_noted != flight.rows_pushed:
                detail = f"{flight.rows_noted} rows noted as under way, {flight.rows_pushed} are"
                return f"{name}, {dimension}: {detail}"
            if flight.oldest_ms is not None and now_ms - flight.oldest_ms > 1_000 * WAIT_MAX_S:
                return f"{name}, {dimension}: a push waits for {(now_ms - flight.oldest_ms) // 1000} s"
        return ""

    # -- adverts

    def stored(self) -> str:
        """Nobody holds a row that its signature does not prove, or one that ran out long ago."""
        now_ms = self._world.now_ms()
        for host in self.hosts():
            on_time = abs(host.node.env.skew_ms) <= CLOCK_TOLERANCE_MS
            for dimension, _, holding in host.running.peer.held():
                for node in holding.holder.nodes().values():
                    for raw in node.rows.raw:
                        expires_ms = self._expiry.get(raw) or self._judge(raw)
                        if isinstance(expires_ms, str):
                            return f"{host.node.host.name}, {dimension}: a row proves nothing: {expires_ms}"
                        if expires_ms + STALE_MAX_MS < now_ms and on_time and node.ready:
                            late_s = (now_ms - expires_ms) // 1_000
                            return f"{host.node.host.name}, {dimension}: a row expired {late_s} s ago"
        return ""

    def _judge(self, raw: bytes) -> int | str:
        """When an advert expires, or what is wrong with it."""
        trust = self._world.trust
        try:
            advert, envelope = Advert.open(raw, trust.scheme)
            credential = trust.credential(advert.credential, advert.issued_ms, roles=("server",))
        except RemoteError as error:
            return str(error)
        if credential.key != envelope.key:
            return "signed by another key than its credential names"
        self._expiry[raw] = advert.expires_ms
        return advert.expires_ms

    def answered(self, answer: SearchAnswer, now_ms: int) -> str:
        """A search returns signed adverts in force, each server once, at a bounded price."""
        keys = [found.advert.server_key for found in answer.servers]
        if len(set(keys)) != len(keys):
            return "one server is in an answer twice"
        for found in answer.servers:
            advert = found.advert.advert
            try:
                verify_advert(found.advert.envelope.raw, self._world.trust, now_ms)
            except RemoteError as error:
                return f"a search returned an advert (seq {advert.seq}) that proves nothing: {error}"
        most = self._questions_most()
        if answer.counts.rpcs > most:
            return f"a search asked {answer.counts.rpcs} questions, more than {most}"
        return ""

    def _questions_most(self) -> int:
        adverts, world = len(self._world.adverts()), self._world
        dimensions = next((len(host.running.peer.schema.dimensions) for host in self.hosts()), 1)
        nodes = dimensions * (1 + NODES_A_LEAF * adverts // world.leaf_capacity)
        return max(SEARCH_RPCS_LEAST, 2 * (REPLICAS * nodes + adverts))
