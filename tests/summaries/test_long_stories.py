"""Long stories of one dimension, drawn by seed: servers come, go and change, while messages are lost and holders fail.

In the end, periods after the last trouble, every server that is up is found, none else, and nothing is left over. While
never more than one holder is away, no answer that is called complete misses anybody who was acknowledged before.
"""

from __future__ import annotations

from random import Random

import pytest
from summaries_world import World, attributes

from summaries.parse import parse
from summaries.point import Point
from summaries.publish import Before, Posting, Publication
from summaries.schema import Schema

SAMPLE = [attributes(Random(seed)) for seed in range(300)]
SCHEMA = Schema.from_sample(SAMPLE, most=128)  # type: ignore[arg-type]
EVERYBODY = parse("cores >= 0")
PERIOD_MS, LIFE_S = 60_000, 180
TROUBLE_MS, CALM_MS = 200_000, 500_000
STALE_PUSH_MS = 20_000
RECOVERED_MS = 120_000
"""A holder that was away for a minute has learnt from the others by then."""
LATER_MS = 7_000
"""What moves at the moment of a search may be missed by it: whatever is wrong has to be so four times."""


class Story(World):
    """Holders of one dimension, of which any may begin anew."""

    lives = 0
    whole_ms = 0  # from when on all holders have what they should have

    def __init__(self, seed: int, nodes: int, capacity: int, dimension: str) -> None:
        self.dimension = dimension
        super().__init__(seed, nodes, SCHEMA, capacity=capacity)

    def start(self, name: bytes, dimension: str) -> None:
        if dimension == self.dimension:
            super().start(name, dimension)
            self.lives += 1  # or an answer to one life would be taken for an answer to the next
            self.holders[name, dimension]._state._next_token = self.lives * 1_000_000

    def verify(self, advert: bytes, now_ms: int) -> Point | None:
        point = super().verify(advert, now_ms)
        early = point is not None and point.expires_s - LIFE_S > now_ms // 1000 + 120
        return None if early else point


class Server:
    """Advertises once a period while it is up; what it did before a crash it does not remember."""

    def __init__(self, world: Story, id: int, random: Random, restless: float) -> None:
        self.world, self.id, self.random, self.restless = world, id, random, restless
        self.values = dict(random.choice(SAMPLE))
        self.up, self.seq, self.began_ms = True, 0, 0
        self.publication: Publication | None = None
        self._raw = b""
        world.later(random.randrange(PERIOD_MS), self._period)

    def _period(self) -> None:
        if self.up and (self.publication is None or self.publication.finished):
            if self.random.random() < self.restless:
                self.values = dict(self.random.choice(SAMPLE))
            self.publish()
        self.world.later(PERIOD_MS + self.random.randrange(-2_000, 2_000), self._period)

    def publish(self, gone: bool = False) -> None:
        postings: tuple[Posting, ...] = ()
        before: Before | None = None
        if self.publication is not None:
            postings, before = self.publication.postings, Before(self.seq, self._raw)
        self.began_ms = self.world.now_ms
        self.seq = max(self.world.now_ms, self.seq + 1)
        self._raw = self.world.advert(self.id, self.seq, self.values, gone=gone, ttl_s=LIFE_S)
        self.publication = self.world.publish(self.world.dimension, self._raw, postings, before)

    @property
    def stands(self) -> bool:
        """Whether what it published last is acknowledged, and will not expire while somebody searches."""
        if not self.up or self.publication is None or not (self.publication.finished and self.publication.durable):
            return False
        return self.publication.point.expires_s > self.world.now_ms // 1000 + 10

    def go(self, orderly: bool) -> None:
        if orderly and self.up and self.publication is not None and self.publication.finished:
            self.publish(gone=True)
        self.up = False

    def come_back(self) -> None:
        if not self.up:
            self.up, self.publication = True, None
            self.publish()


def trouble(world: Story, servers: list[Server], random: Random, gentle: bool) -> None:
    """One trouble of chance, and when it is over."""
    lasts_ms = random.randrange(5_000, 60_000)
    name, server = random.choice(world.names), random.choice(servers)
    kinds = ["loss", "down", "crash", "crash", "long crash", "leave", "forgets", "clock"]
    kind = random.choice(kinds[:6] if gentle else kinds)
    if gentle and kind == "down" and world.now_ms < world.whole_ms:
        kind = "loss"
    elif gentle and kind == "down":
        world.whole_ms = world.now_ms + RECOVERED_MS
    if kind == "loss":

        def calm() -> None:
            world.loss = world.duplicates = 0.0

        world.loss, world.duplicates = random.choice([0.05, 0.2]), 0.1
        world.later(lasts_ms, calm)
    elif kind == "down" and name not in world.down:

        def back() -> None:
            world.start(name, world.dimension)
            world.down.discard(name)

        world.down.add(name)
        world.later(lasts_ms, back)
    elif kind == "forgets":
        world.start(name, world.dimension)
    elif kind == "clock" and name not in world.ahead_ms:
        world.ahead_ms[name] = random.choice([600_000, -600_000, 50_000, -50_000])
        world.later(lasts_ms, lambda: world.ahead_ms.pop(name))
    elif server.up:
        server.go(orderly=kind == "leave")
        world.later(lasts_ms * (5 if kind == "long crash" else 1), server.come_back)


def wrong(world: Story, servers: list[Server]) -> list[str]:
    """What does not hold, though all has been calm for long."""
    result, up = world.search(EVERYBODY, dimension=world.dimension), {server.id for server in servers if server.up}
    found = [] if result.complete else [f"partial: {result.unreachable} {result.unverified}"]
    if set(result.ids()) != up:
        found.append(f"missing {sorted(up - set(result.ids()))}, too many {sorted(set(result.ids()) - up)}")
    for server in servers:
        publication = server.publication
        if server.up and publication is not None and publication.finished and not publication.durable:
            found.append(f"server {server.id} is not durable")
    for (name, _), holder in world.holders.items():
        flying = holder.in_flight()
        if flying.rows_noted != flying.rows_pushed:
            found.append(f"{name!r} notes {flying.rows_noted} rows on their way, of {flying.rows_pushed}")
        if flying.oldest_ms is not None and flying.oldest_ms < world.now_ms - STALE_PUSH_MS:
            found.append(f"{name!r} waits for an answer since {flying.oldest_ms}")
        for prefix, node in holder.nodes().items():
            late = [point.id for point in node.rows.points if point.expires_s + 60 < world.now_ms // 1000]
            found += [f"{name!r} {prefix} holds what has expired: {late}"] * bool(late)
            found += [f"{name!r} {prefix} is not ready"] * (not node.ready)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_after_all_troubles_exactly_who_is_up_is_found_and_nothing_is_left_over(seed: int) -> None:
    random = Random(seed)
    dimension = ("price.cpu", "cores", "environment", "location")[seed // 2 % 4]
    world = Story(seed, random.choice([4, 6, 9]), random.choice([3, 8, 16]), dimension)
    restless = random.choice([0.0, 0.1, 0.5])
    count = random.choice([6, 20, 30])
    servers = [Server(world, 1 + number, Random(random.random()), restless) for number in range(count)]
    ends_ms = world.now_ms + TROUBLE_MS
    world.run(30_000)
    while world.now_ms < ends_ms:
        trouble(world, servers, random, gentle=bool(seed % 2))
        world.run(random.randrange(2_000, 20_000))
        if seed % 2:
            began_ms, due = world.now_ms, [server for server in servers if server.stands]
            result = world.search(EVERYBODY, dimension=world.dimension)
            still = {server.id for server in due if server.up and server.began_ms < began_ms}
            assert not result.complete or still <= set(result.ids()), world.now_ms
    world.run(CALM_MS)
    for server in servers:
        server.restless = 0.0
    world.run(3 * PERIOD_MS)
    assert not world.down and not world.ahead_ms and not world.loss
    for _ in range(4):
        found = wrong(world, servers)
        if not found:
            break
        world.run(LATER_MS)
    assert not found
