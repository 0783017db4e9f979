"""Whether everything in a zone certainly meets a condition: the other side of a filter, which says what may.

Decides it from bounds alone, and never wrongly yes. A price is certain only where the caller knows that all adverts
below are in its currency. What zones keep as a union (environments, words, places) is never certain.
"""

from __future__ import annotations

from summaries.filter import Comparison, Filter, Test
from summaries.schema import Schema
from summaries.zone import Zone


def surely_meets(schema: Schema, test: Test, zone: Zone, currency: str = "") -> bool:
    """Whether every advert in a zone meets one test; `currency` is what all of them are priced in, if they are."""
    if not isinstance(test, Comparison) or test.is_text or (test.currency and test.currency != currency):
        return False
    bounds = test.bounds()
    place = schema.column.get(test.attribute)
    if bounds is None or place is None or place >= len(zone.lows):
        return False
    axis = schema.ordered[place]
    low, high = bounds
    return (low is None or axis.least(zone.lows[place]) >= low) and (
        high is None or axis.greatest(zone.highs[place]) <= high
    )


def surely_passes(schema: Schema, filter_: Filter, zone: Zone, currency: str = "") -> bool:
    """Whether every advert in a zone passes a filter: all tests of one of its terms are met by all."""
    return any(all(surely_meets(schema, test, zone, currency) for test in term) for term in filter_.terms)
