"""`xenonode saved`: searches and their results under names; results combine as sets."""

from __future__ import annotations

from typing import Annotated

import typer

from xenonode.cli.command import Run, command, group, usage_error
from xenonode.cli.output import moment

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name it is saved under.")]


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    saved = group("saved", "Saved searches, and sets of the servers that they found.", app)
    command(saved, "list", example="xenonode saved list")(saved_list)
    command(saved, "remove", example="xenonode saved remove cheap")(saved_remove)
    command(saved, "combine", example="xenonode saved combine new difference today yesterday")(saved_combine)


async def saved_list(run: Run) -> None:
    """List the saved searches."""
    async with run.client() as client:
        found = [client.saved.find(name) for name in client.saved.names()]
    told = [
        {
            "name": each.name,
            "query": each.query,
            "servers": [f"{id:016x}" for id in each.servers],
            "complete": each.complete,
            "saved_ms": each.saved_ms,
        }
        for each in found
    ]
    rows = [
        (each.name, len(each.servers), "yes" if each.complete else "PARTIAL", moment(each.saved_ms), each.query)
        for each in found
    ]
    run.output.rows(told, ("name", "servers", "complete", "saved", "query"), rows, "Nothing is saved.")


async def saved_remove(run: Run, name: NameArgument) -> None:
    """Forget a saved search."""
    async with run.client() as client:
        client.saved.remove(name)
    run.output.facts({"removed": name}, [("removed", name)])


async def saved_combine(
    run: Run,
    name: NameArgument,
    operation: Annotated[str, typer.Argument(metavar="OPERATION", help="union, intersection or difference.")],
    first: Annotated[str, typer.Argument(metavar="FIRST", help="One saved set.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="The other one.")],
) -> None:
    """Save the union, intersection or difference of two saved sets of servers."""
    from xenonode.client.saved import OPERATIONS

    if operation not in OPERATIONS:
        raise usage_error(f"{operation!r} is no operation on sets", f"use one of {', '.join(OPERATIONS)}")
    async with run.client() as client:
        made = client.finding.combine(name, operation, first, second)
    run.output.facts(
        {"name": name, "servers": len(made.servers), "complete": made.complete},
        [("name", name), ("servers", len(made.servers)), ("complete", made.complete)],
    )
