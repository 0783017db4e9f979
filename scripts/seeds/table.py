"""What many seeds came to: which faults struck in which of them, and what is wrong with all of them together. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from scripts.seeds.pool import Outcome

PLANNED_LEAST = 4
"""A fault of a few seconds may meet nothing in one seed, or in two."""
SEEDS_SHOWN = 10
"""In each line of the table."""


def table(outcomes: Sequence[Outcome], kinds: Sequence[str]) -> Iterator[str]:
    """For each kind of fault: how many seeds planned it, in how many it struck, how often in all, and in which seeds.

    Of those each is shown with how often; one that planned the kind and never met it has a dash.
    """
    yield f"{'fault':20}{'planned':>8}{'struck':>7}{'times':>9}  seed: times"
    for kind in kinds:
        planned = [one for one in outcomes if any(each["kind"] == kind for each in one.injections)]
        struck = {one.seed: one.bites.get(kind, 0) for one in planned}
        shown = [f"{seed}: {times or '-'}" for seed, times in list(struck.items())[:SEEDS_SHOWN]]
        more = ", ..." if len(struck) > SEEDS_SHOWN else ""
        counted = f"{len(struck):8}{sum(times > 0 for times in struck.values()):7}{sum(struck.values()):9}"
        yield f"{kind:20}{counted}  {', '.join(shown)}{more}".rstrip()
    cpu_s = sorted(outcome.cpu_s for outcome in outcomes) or [0.0]
    yield (
        f"{len(outcomes)} seeds, {sum(bool(outcome.broken) for outcome in outcomes)} broken; CPU seconds a seed: "
        f"median {cpu_s[len(cpu_s) // 2]:.1f}, most {cpu_s[-1]:.1f}; "
        f"{sum(outcome.datagrams for outcome in outcomes)} datagrams, "
        f"{sum(outcome.virtual_s for outcome in outcomes) / 3_600:.1f} virtual hours"
    )


def never_struck(outcomes: Sequence[Outcome]) -> list[str]:
    """Kinds that enough seeds planned for one to strike, and that struck in none: such a fault tests nothing."""
    planned = Counter(kind for outcome in outcomes for kind in sorted({one["kind"] for one in outcome.injections}))
    return [
        kind for kind, seeds in sorted(planned.items())
        if seeds >= PLANNED_LEAST and not any(outcome.bites.get(kind) for outcome in outcomes)
    ]  # fmt: skip


def not_repeatable(outcomes: Sequence[Outcome]) -> list[int]:
    """Seeds that gave two traces. One whose process died gave none."""
    traces: dict[tuple[str, int], set[str]] = {}
    for outcome in filter(lambda one: one.ran, outcomes):
        traces.setdefault((outcome.size, outcome.seed), set()).add(outcome.trace)
    return sorted({seed for (_, seed), found in traces.items() if len(found) > 1})
