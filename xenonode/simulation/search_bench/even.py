"""How busy the busiest node would be if every search had fallen on nodes drawn by lot: what no spreading gets below.

Decides the two floors that stand beside a benchmark's busiest share. Searches that ask q of n nodes each give the mean
node q / n of them, however they are spread; and where there are few, chance alone makes some node busier than that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

LOTS = 20  # of which the mean is told


def even_share(asked: Sequence[int], nodes: int) -> float:
    """The share of the searches that ask a node in the mean, where search by search `asked` different ones were."""
    return sum(asked) / max(len(asked), 1) / nodes


def drawn_share(asked: Sequence[int], nodes: int, seed: int = 2003) -> float:
    """The share of the searches that ask the busiest, in the mean of several draws by lot."""
    rng = Random(seed)
    busiest = 0
    for _ in range(LOTS):
        touched: Counter[int] = Counter()
        for count in asked:
            touched.update(rng.sample(range(nodes), min(count, nodes)))
        busiest += max(touched.values(), default=0)
    return busiest / LOTS / max(len(asked), 1)
