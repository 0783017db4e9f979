"""Why a search cost what it did, and why it found nothing: from what was read, and from roots' zones and counts.

Decides bounds on how many adverts meet one constraint alone, and how far each constraint would have to give way before
any range lets all of them through. Nothing is listed for that: a zone says what may be below it, not what is, so a
relaxation is where matches may begin, and the counts are bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from summaries.attributes import LARGEST
from summaries.cost import CostTest
from summaries.filter import Comparison, CompiledFilter, Filter, Term, Test, Within
from summaries.inside import surely_meets
from summaries.messages import Outlined
from summaries.query import AllOf, Query, print_query
from summaries.roots import RootView
from summaries.schema import Schema
from summaries.trie import Prefix


@dataclass(frozen=True, slots=True)
class NodeRead:
    """One trie node that a search read. `round` is when; `matched` rows matched there, `pruned` children did not."""

    dimension: str
    prefix: Prefix
    round: int
    replicas: int
    children: int
    pruned: int
    matched: int


@dataclass(frozen=True, slots=True)
class ConstraintCount:
    """How many adverts meet one constraint alone: at least and at most."""

    constraint: str
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Relaxation:
    """With the constraint changed to `to` ("": dropped), at most `most` adverts may match."""

    constraint: str
    to: str
    most: int
    share: float  # of the bound, that it moves by: less is cheaper; 1 for what is dropped


@dataclass(frozen=True, slots=True)
class Explanation:
    """`bytes_out` and `bytes_in` are of questions and answers, without the transport's own."""

    plan: tuple[tuple[str, str], ...]  # dimension, and what is looked for in it
    nodes: tuple[NodeRead, ...]
    bytes_out: int = 0
    bytes_in: int = 0
    constraints: tuple[ConstraintCount, ...] = ()
    relaxations: tuple[Relaxation, ...] = ()


MAX_EXPLAINED = 16  # alternatives of a query of which each constraint is counted, and each relaxation looked for


def why_empty(
    schema: Schema, terms: Sequence[Term], views: Mapping[str, RootView]
) -> tuple[tuple[ConstraintCount, ...], tuple[Relaxation, ...]]:
    """Each constraint's own count, and the relaxations after which something may match, cheapest first.

    Of several alternatives one that is relaxed is enough; a constraint that stands in more than one is relaxed in each.
    """
    counts: dict[str, ConstraintCount] = {}
    relaxed: dict[tuple[str, str], Relaxation] = {}
    for term in terms[:MAX_EXPLAINED]:
        of_term, found = _why_empty(schema, term, views)
        counts.update((one.constraint, one) for one in of_term)
        for one in found:
            same = relaxed.get((one.constraint, one.to))
            relaxed[one.constraint, one.to] = one if same is None else replace(one, most=one.most + same.most)
    return tuple(counts.values()), tuple(sorted(relaxed.values(), key=lambda one: (one.share, one.constraint)))


def _why_empty(
    schema: Schema, term: Term, views: Mapping[str, RootView]
) -> tuple[list[ConstraintCount], list[Relaxation]]:
    counts, found = [], []
    for place, test in enumerate(term):
        view = _view_for(test, views)
        if view is None:
            continue
        alone, without = Filter(((test,),)), term[:place] + term[place + 1 :]
        condition = CompiledFilter(schema, alone)
        passing = [one for one in view.children if condition.passes(one.zone)]
        inside = [one for one in passing if surely_meets(schema, test, one.zone)]
        text = describe(alone)
        counts.append(ConstraintCount(text, sum(map(_count, inside)), sum(map(_count, passing))))
        others = CompiledFilter(schema, Filter((without,)))
        near = [one for one in view.children if others.passes(one.zone)]
        relaxed = _relaxed(schema, test, near)
        if relaxed is not None:
            found.append(relaxed)
        elif near:
            found.append(Relaxation(text, "", sum(map(_count, near)), 1.0))
    return counts, found


def describe(filter_: Filter) -> str:
    """The filter in the query language."""
    terms = []
    for term in filter_.terms:
        parts = [_text(test) for test in term]
        terms.append(" and ".join(parts) or "anything")
    return " or ".join(terms) or "nothing"


def _text(test: Test) -> str:
    if isinstance(test, Within):
        return f"{'not ' if test.negated else ''}within {test.limit_us / 1000:g} ms of {len(test.hosts)} hosts"
    return print_query(Query(AllOf((test,))))


def _view_for(test: Test, views: Mapping[str, RootView]) -> RootView | None:
    """The root that tells this constraint's values apart; any root will do for one that none does."""
    if isinstance(test, Within):
        name = "location"
    elif isinstance(test, CostTest):
        name = "price.cpu"
    else:
        name = "environment" if test.attribute.split(".")[0] in ("os", "platform") else test.attribute
    return views.get(name) or next(iter(views.values()), None)


def _relaxed(schema: Schema, test: Test, near: list[Outlined]) -> Relaxation | None:
    """The least change of a bound that lets some range through that meets all other constraints.

    The range's whole end bin: what is told can be asked, and meets whoever made the range end there.
    """
    bounds = test.bounds() if isinstance(test, Comparison) and not (test.negated or test.is_text) else None
    if bounds is None or not isinstance(test, Comparison) or test.attribute not in schema.column or not near:
        return None
    place = schema.column[test.attribute]
    axis = schema.ordered[place]
    if any(place >= len(one.zone.lows) for one in near):
        return None  # a trie of before this dimension was added
    low, high = bounds
    if high is None and low is not None:
        value = min(max(axis.greatest(one.zone.highs[place]) for one in near), low)
        operator, old = ">=", low
    elif low is None and high is not None:
        value = max(min(axis.least(one.zone.lows[place]) for one in near), high)
        operator, old = "<=", high
    else:
        return None
    if value == old:
        return None  # ranges already overlap here: what is empty is finer than zones
    end = axis.bin(value)
    if operator == ">=":
        value = axis.least(end)
    elif axis.greatest(end) < LARGEST:
        value = axis.greatest(end)
    changed = replace(test, operator=operator, value=value)
    condition = CompiledFilter(schema, Filter(((changed,),)))
    most = sum(_count(one) for one in near if condition.passes(one.zone))
    return Relaxation(_text(test), _text(changed), most, abs(value - old) / max(abs(old), 1))


def _count(one: Outlined) -> int:
    return one.zone.count


