"""How good an answer was: a search held against a look at every advert in force.

Decides what counts while adverts change under a search: a server had to be found if it matched before and after; it
may be found if it matched at either time. What an advert matches is `summaries.query.matches`, exactly; what is
checked is that summaries, tries, replicas and the network lead to all of it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from summaries.attributes import Attributes
from summaries.query import Query, matches

Offers = Mapping[int, Attributes]
"""What every advert in force says, by the server's row id."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer: how many it had to have, how many of those it has, and how many that it should not have."""

    expected: int
    found: int
    hits: int
    stale: int  # found, but no living server says so (any more)

    @property
    def recall(self) -> float:
        """The share that was found of what had to be; 1 where there was nothing to find."""
        return self.hits / self.expected if self.expected else 1.0


def judge(query: Query, found: Sequence[int], before: Offers, after: Offers) -> Judged:
    """Compare the row ids of an answer with the adverts; `query` has its hosts resolved.

    With a limit any of equally good servers will do: a hit is a server at least as good as the last that had to be
    found.
    """
    due = {id: after[id] for id in before if id in after and matches(query, before[id]) and matches(query, after[id])}
    allowed = {id for id, attributes in (*before.items(), *after.items()) if matches(query, attributes)}
    stale = sum(id not in allowed for id in found)
    if query.limit is None or len(due) <= query.limit:
        return Judged(len(due), len(found), len(due.keys() & set(found)), stale)
    ranks = sorted(query.order.rank(attributes) for attributes in due.values())
    worst = ranks[query.limit - 1]
    best = [min(query.order.rank(each[id]) for each in (before, after) if id in each) for id in found if id in allowed]
    hits = sum(rank <= worst for rank in best)
    return Judged(query.limit, len(found), min(hits, query.limit), stale)
