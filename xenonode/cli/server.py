"""`xenonode server`: what a server's owner sees of the sessions on it and may end, and what it publishes from there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
