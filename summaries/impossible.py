"""Conditions that contradict themselves: answered at once, without asking anybody.

Decides whether no advert can meet all tests of one term. Errs on the side of asking: what it does not see through, such
as two versions of one environment (a server may offer both), is left to the holders.
"""

from __future__ import annotations

from math import isqrt

from summaries.attributes import LARGEST
from summaries.filter import Comparison, Term, Within


def is_impossible(term: Term) -> bool:
    """Whether these tests together rule every advert out."""
    tests = [test for test in term if isinstance(test, Comparison)]
    told = {(test.attribute, test.operator, test.value, test.currency, test.negated) for test in tests}
    return (
        any((*one[:4], not one[4]) in told for one in told)
        or _no_number_is_left(tests)
        or _no_word_is_left(tests)
        or _too_far_apart([test for test in term if isinstance(test, Within) and not test.negated])
    )


def _no_number_is_left(tests: list[Comparison]) -> bool:
    ranges: dict[str, tuple[int, int]] = {}
    left_out: dict[str, set[int]] = {}
    for test in tests:
        if not isinstance(test.value, int):
            continue
        bounds = test.bounds()
        if bounds is None:
            if (test.operator == "!=") is not test.negated and not test.currency:
                left_out.setdefault(test.attribute, set()).add(test.value)
            continue
        low, high = ranges.get(test.attribute, (0, LARGEST))
        least, most = bounds
        ranges[test.attribute] = (low if least is None else max(low, least), high if most is None else min(high, most))
    return any(low > high or (low == high and low in left_out.get(name, ())) for name, (low, high) in ranges.items())


def _no_word_is_left(tests: list[Comparison]) -> bool:
    words: dict[str, set[str]] = {}
    for test in tests:
        if test.currency and not test.negated:
            words.setdefault("currency", set()).add(test.currency)
        elif test.is_text and test.operator == "=" and not test.negated:
            words.setdefault(test.attribute, set()).add(str(test.value))
    no = [test for test in tests if test.is_text and (test.operator == "!=") is not test.negated]
    excluded = {(test.attribute, str(test.value)) for test in no}
    return any(len(some) > 1 or any((name, word) in excluded for word in some) for name, some in words.items())


def _too_far_apart(tests: list[Within]) -> bool:
    places = [(host, test.limit_us) for test in tests for host in test.hosts]
    for place, (one, within) in enumerate(places):
        for other, also_within in places[place + 1 :]:
            apart = isqrt(sum((a - b) ** 2 for a, b in zip(one[:3], other[:3])))
            # Whoever is near both is no further from either than its limit, less the host's own height; 2 for rounding.
            if apart > within - one[3] + also_within - other[3] + 2:
                return True
    return False
