"""`xenonode place`: the cheapest servers for a group that a plan describes."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from summaries.group import Group
from summaries.query import print_query
from summaries.rank import Order
from xenonode import units
from xenonode.cli.command import Run, command, usage_error
from xenonode.cli.looking import KEY_SHOWN
from xenonode.errors import XenoError
from xenonode.model.money import format_amount
from xenonode.search.placing import PlacedGroup

COLUMNS = ("member", "server", "owner", "country", "region", "cost", "ms to each (estimated)")


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    command(app, "place", example="xenonode place --example > plan.toml; xenonode place plan.toml")(place)


async def place(
    run: Run,
    plan: Annotated[Path | None, typer.Argument(metavar="PLAN", help="What is needed, in TOML; see --example.")] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a whole plan, with every setting's meaning.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept candidates from a search that could not reach everything.")
    ] = False,
) -> None:
    """Find servers for several purposes at once, apart or together, for the least money an hour in all."""
    from xenonode.client.plan import EXAMPLE, read_plan

    if example:
        run.output.text({"plan": EXAMPLE}, EXAMPLE)
        return
    if plan is None:
        raise usage_error("no plan is named", "write one: xenonode place --example > plan.toml")
    try:
        raw = plan.read_bytes()
    except OSError as error:
        next_step = "name a file that can be read; a whole plan: xenonode place --example > plan.toml"
        raise usage_error(f"{plan}: {error.strerror}", next_step) from error
    group = read_plan(raw, str(plan))
    async with run.client() as client:
        with run.waiting():
            found = await client.finding.place(group, strict=not partial)
    if not found.result.placed:
        raise _impossible(group, found)
    run.output.rows(_told(plan, group, found), COLUMNS, _rows(group, found), "")
    run.output.note(_worth(group, found))
    if found.missing:
        run.output.note(f"PARTIAL; could not be reached: {', '.join(found.missing)}")


def _rows(group: Group, found: PlacedGroup) -> list[Sequence[object]]:
    """The table: a server a line, numbered where a member has several."""
    copies = Counter(one.member for one in found.result.placed)
    rows: list[Sequence[object]] = []
    for one, distances in zip(found.result.placed, found.result.distances_us):
        advert = found.servers[one.id].advert
        rows.append(
            (
                one.member if copies[one.member] == 1 else f"{one.member} {one.copy}",
                advert.server_key.hex()[:KEY_SHOWN],
                advert.credential.entity,
                advert.advert.country,
                advert.advert.region,
                f"{format_amount(one.cost, group.currency)}/h",
                " ".join(f"{distance / 1000:.1f}" for distance in distances),
            )
        )
    return rows


def _told(plan: Path, group: Group, found: PlacedGroup) -> dict[str, object]:
    """The same for programs, with all that is known of it."""
    result = found.result
    return {
        "plan": str(plan),
        "total_nano_per_hour": result.total,
        "currency": group.currency,
        "proved": result.proved,
        "servers": [
            {
                "member": one.member,
                "copy": one.copy,
                "cost_nano_per_hour": one.cost,
                "distances_us": list(distances),
                "advert": found.servers[one.id].advert,
            }
            for one, distances in zip(result.placed, result.distances_us)
        ],
        "looked_at": list(result.looked_at),
        "missing": list(found.missing),
        "rpcs": found.rpcs,
        "searches": found.searches,
        "steps": result.steps,
        "duration_ms": round(found.duration_ms, 1),
    }


def _worth(group: Group, found: PlacedGroup) -> str:
    """Whether anything could cost less, and what the answer cost."""
    result = found.result
    total = units.format_price(result.total, group.currency, "h")
    worth = "no other choice costs less" if result.proved else "the cheapest of those looked at"
    took = f"{sum(result.looked_at)} candidates, {found.rpcs} questions, {found.duration_ms:.0f} ms"
    return f"{total} in all: {worth} ({took})"


def _impossible(group: Group, found: PlacedGroup) -> XenoError:
    """Why there is no choice, as far as is known."""
    result = found.result
    next_step = "relax at_least or at_most, or place fewer at once"
    if result.scarce:
        why = f"too few servers match {', '.join(repr(one) for one in result.scarce)} alone"
        scarce = next(one for one in group.members if one.name in result.scarce)
        asked = print_query(replace(scarce.query(group.currency, None), order=Order()))
        next_step = f"relax the plan; what {scarce.name!r} fails on: xenonode search --explain {shlex.quote(asked)}"
    else:
        why = "servers match each member, but none are as far apart, or as near together, as is asked"
    how = "" if result.proved else " among those that could be looked at"
    return XenoError(f"no placement: {why}{how}", next_step, "no_placement")
