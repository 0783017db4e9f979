"""A holder skips ticks at which nothing is due: a whole tick at such a time would change nothing and send nothing."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from summaries_world import World, attributes

from summaries.holder import Holder
from summaries.schema import Schema

SCHEMA = Schema.from_sample([attributes(Random(seed)) for seed in range(300)], most=128)  # type: ignore[arg-type]
NAMES = ("price.cpu", "location")


class Watched(World):
    """Where a holder would skip a tick it is carried out all the same, and looked at."""

    quiet = busy = 0

    def _ticking(self) -> None:
        for holder in self.holders.values():
            if self.now_ms >= holder._quiet_until_ms:
                self.busy += 1
                continue
            self.quiet += 1
            before = shown(holder)
            holder._quiet_until_ms = 0
            assert holder.tick(self.now_ms) == []
            assert shown(holder) == before
        super()._ticking()


def shown(holder: Holder) -> str:
    state, handing, tallying = holder._state, holder._handing, holder._tallying
    told = sorted(tallying._telling.items()), sorted(tallying._children.items())
    return repr((sorted(state.nodes.items()), sorted(state.pushes), handing._wanted, handing._kept, told))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1]), st.booleans())
def test_a_tick_that_is_skipped_would_have_changed_nothing(seed: int, loss: float, restarts: bool) -> None:
    world, random = Watched(seed, 6, SCHEMA, capacity=4, loss=loss), Random(seed)
    for id in range(12):
        raw = world.advert(id, 1, attributes(random), ttl_s=random.choice([30, 450]))
        for dimension in NAMES:
            world.publish(dimension, raw)
        world.run(random.randrange(1, 3_000))
    if restarts:
        world.restart(world.names[0])
    world.run(60_000)
    assert world.quiet > world.busy / 4
