"""`xenonode server`: what a server's owner sees of the sessions on it and may end, and what it publishes from there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xenonode.cli.command import Run, command, group
from xenonode.cli.orders import duration
from xenonode.cli.output import moment
from xenonode.cli.values import content
from xenonode.model.money import format_amount

if TYPE_CHECKING:
    from xenonode.client.owner import Owner


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    servers = group("server", "Your own XenoServer, while it runs on this machine.", app)
    command(servers, "sessions", example="xenonode server sessions --config server.toml")(sessions)
    stop_example = "xenonode server stop 7c1d... --reason 'maintenance' --config server.toml"
    command(servers, "stop", example=stop_example)(stop)
    publish_example = "xenonode server publish prices prices.csv --expires-in 1d --config server.toml"
    command(servers, "publish", example=publish_example)(publish)
    command(servers, "dimensions", example="xenonode server dimensions --config server.toml")(dimensions)
    command(servers, "leave", example="xenonode server leave price.net --config server.toml")(leave)
    command(servers, "enter", example="xenonode server enter price.net --config server.toml")(enter)


@contextlib.asynccontextmanager
async def _owner(run: Run) -> AsyncIterator[Owner]:
    from xenonode.client.owner import Owner
    from xenonode.env import LiveEnv

    owner = await Owner.open(run.server_config(), LiveEnv())
    try:
        yield owner
    finally:
        await owner.close()


async def sessions(run: Run) -> None:
    """List the sessions that this server hosts or hosted lately, whoever's they are."""
    async with _owner(run) as owner:
        found = await owner.sessions()
    rows = [
        (
            each["session"][:16], each["state"], each["client"][:16], moment(each["lease_until_ms"]),
            format_amount(each["due_nano"], each["currency"]), each["reason"],
        )
        for each in found
    ]  # fmt: skip
    columns = ("session", "state", "client", "lease until", "due", "reason")
    run.output.rows(found, columns, rows, "No sessions.")


async def stop(
    run: Run,
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Its id, as 'server sessions' shows it.")],
    reason: Annotated[str, typer.Option(help="Why; the session's client reads it.")] = "stopped by the server's owner",
) -> None:
    """End a session by the owner's order. It is signed for and paid until now; the audit log keeps the reason."""
    async with _owner(run) as owner:
        found = await owner.stop(session, reason)
    shown = {name: found[name] for name in ("session", "state", "reason")}
    run.output.facts(found, shown.items(), "Stopping")


async def publish(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The value's name; a newer one takes its place.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What is published, at most 16 MiB.")],
    expires_in: Annotated[str, typer.Option("--expires-in", help="How long it lives, at most 7 d.")] = "1h",
) -> None:
    """Publish a file under this server's key: 'xenonode value get' reads it. Above 64 KiB readers get it from here."""
    life_ms, value = duration(expires_in), content(file)
    async with _owner(run) as owner:
        holders = await owner.publish(name, value, life_ms)
    fields = {"name": name, "size_bytes": len(value), "holders": holders}
    run.output.facts(fields, fields.items(), "Published")


DimensionArgument = Annotated[
    str, typer.Argument(metavar="DIMENSION", help="Its name, as 'server dimensions' shows it.")
]


async def dimensions(run: Run) -> None:
    """List the dimensions of the search: in which this server holds a part of the index, and how much of it.

    Each dimension has an overlay of its own, whose servers hold the adverts of all in it. A server takes part in all,
    until its owner takes it out of one with 'server leave'.
    """
    async with _owner(run) as owner:
        found = await owner.dimensions()
    columns = ("dimension", "part", "contacts", "trie nodes", "adverts", "records")
    rows = [
        (
            each["dimension"], "holds" if each["joined"] else "left", each["contacts"], each["trie_nodes"],
            each["adverts"], each["records"],
        )
        for each in found
    ]  # fmt: skip
    run.output.rows(found, columns, rows, "There is no dimension.")


async def leave(run: Run, dimension: DimensionArgument) -> None:
    """Take this server out of one dimension's overlay while it runs, also for later starts.

    What it holds there is handed on first: members' values, and others' adverts, each acknowledged by a quorum of those
    who hold it now. The server is still found through this dimension, since its own advert stays there: it only
    holds nothing for others any more, and asks there as clients do. 'server enter' takes it in again.
    """
    async with _owner(run) as owner:
        found = await owner.leave(dimension)
    run.output.facts(found, _handed(found), f"{dimension} is left")
    if found["adverts_not_taken"] or found["records_not_taken"]:
        run.output.note("what was not taken is held by others already, or comes again when its owner publishes it next")


async def enter(run: Run, dimension: DimensionArgument) -> None:
    """Let this server hold a part of a dimension again that it had left."""
    async with _owner(run) as owner:
        found = await owner.enter(dimension)
    run.output.facts(found, [("dimension", dimension), ("contacts", found["contacts"])], "Joined")


def _handed(found: dict[str, Any]) -> list[tuple[str, object]]:
    names = ("adverts_handed_on", "adverts_not_taken", "records_handed_on", "records_not_taken")
    return [(name.replace("_", " "), found[name]) for name in names]
