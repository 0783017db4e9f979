"""`xenonode session`: open environments on servers, log in, change them, and end them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from xenonode.agent import LOCK_NAME, sign_for_all, start_in_background
from xenonode.cli import looking
from xenonode.cli.command import Run, command, group, usage_error
from xenonode.cli.orders import duration
from xenonode.cli.output import moment
from xenonode.folder import StateFolder
from xenonode.model.money import format_amount
from xenonode.model.session import Refusal

if TYPE_CHECKING:
    from xenonode.client.records import SessionView

SessionArgument = Annotated[
    str, typer.Argument(metavar="SESSION", help="The session's id, as 'session list' shows it.")
]


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    sessions = group("session", "Sessions: environments that you lease.", app)
    example = "xenonode session create 5f2c --order 9ab1... --cpu '250 ms/s' --memory '256 MiB' --lease 1h"
    command(sessions, "create", example=example)(create)
    command(sessions, "list", example="xenonode session list")(list_)
    command(sessions, "show", example="xenonode session show 7c1d...")(show)
    command(sessions, "ssh", example="xenonode session ssh 7c1d... -- uname -a")(ssh)
    command(sessions, "resize", example="xenonode session resize 7c1d... --cpu '400 ms/s'")(resize)
    command(sessions, "pause", example="xenonode session pause 7c1d...")(pause)
    command(sessions, "resume", example="xenonode session resume 7c1d...")(resume)
    command(sessions, "stop", example="xenonode session stop 7c1d...")(stop)
    command(sessions, "console", example="xenonode session console 7c1d...")(console)
    command(sessions, "agent", example="xenonode session agent")(agent)


async def create(
    run: Run,
    server: looking.ServerArgument,
    order: Annotated[str, typer.Option(help="The purchase order that pays (hex).")],
    cpu: looking.CpuOption = looking.DEFAULT_CPU,
    memory: looking.MemoryOption = looking.DEFAULT_MEMORY,
    disk: looking.DiskOption = looking.DEFAULT_DISK,
    net: looking.NetOption = looking.DEFAULT_NET,
    environment: looking.EnvironmentOption = "os.linux",
    lease: looking.LeaseOption = "1h",
    hostname: Annotated[str, typer.Option(help="Host name inside the environment.")] = "xenonode",
    authorized_key: Annotated[
        list[str] | None, typer.Option(help="Another ssh public key that may log in; may be repeated.")
    ] = None,
) -> None:
    """Lease an environment: quote, reservation, agreement, boot. Prints how to log in."""
    wanted = looking.resources(cpu, memory, disk, net)
    lease_ms = duration(lease)
    async with run.client() as client:
        offer = await client.servers.advert(server)
        chosen = looking.choose_environment(offer.advert, environment)
        quote = await client.servers.quote(offer.server_key, wanted, chosen, lease_ms)
        if isinstance(quote, Refusal):
            looking.raise_refusal(quote)
        view = await client.lease(
            order, quote, authorized_keys=tuple(authorized_key or ()), hostname=hostname, progress=run.output.note
        )
    start_in_background(run.client_config().folder, run.arguments())
    _print(run, view)
    run.output.note(f"log in: xenonode session ssh {view.session[:12]}")


async def list_(run: Run) -> None:
    """List your sessions on all servers."""
    async with run.client() as client:
        views = await client.sessions.list_all()
    rows = [(view.session, view.state, view.server.hex()[: looking.KEY_SHOWN], view.reason) for view in views]
    run.output.rows(views, ("session", "state", "server", "reason"), rows, "No sessions.")


async def show(run: Run, session: SessionArgument) -> None:
    """Show a session: state, resources, where to log in, what it used and what that costs."""
    async with run.client() as client:
        _print(run, await client.sessions.show(session))


async def ssh(
    run: Run,
    session: SessionArgument,
    words: Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="What to run there.")] = None,
) -> None:
    """Log in to a session's environment; the host key must be the one in the server's signed start record."""
    async with run.client() as client:
        arguments = list(await client.ssh_command(session)) + list(words or ())
    if run.output.as_json:
        run.output.json({"argv": arguments})
    else:
        os.execvp(arguments[0], arguments)


async def resize(
    run: Run,
    session: SessionArgument,
    cpu: Annotated[str, typer.Option(help="CPU time per wall-clock second; unchanged if not given.")] = "",
    memory: Annotated[str, typer.Option(help="Memory; unchanged if not given.")] = "",
) -> None:
    """Change a running session's CPU or memory; prints what took effect."""
    if not cpu and not memory:
        raise usage_error("nothing to change", "give --cpu, --memory or both")
    async with run.client() as client:
        has = (await client.sessions.show(session)).resources
        wanted = looking.resources(
            cpu or f"{has.cpu_ms_per_s} ms/s",
            memory or f"{has.memory_bytes} B",
            f"{has.disk_bytes} B",
            f"{has.net_bit_per_s} bps",
        )
        _print(run, await client.sessions.command(session, "resize", wanted))


async def pause(run: Run, session: SessionArgument) -> None:
    """Stop a session's clock and CPU; its memory stays, and stays billed."""
    async with run.client() as client:
        _print(run, await client.sessions.command(session, "pause"))


async def resume(run: Run, session: SessionArgument) -> None:
    """Let a paused session go on."""
    async with run.client() as client:
        _print(run, await client.sessions.command(session, "resume"))


async def stop(run: Run, session: SessionArgument) -> None:
    """End a session: final usage, receipt and settlement; what was reserved beyond that is released."""
    async with run.client() as client:
        _print(run, await client.sessions.end(session, run.output.note))


async def console(run: Run, session: SessionArgument) -> None:
    """Print what the environment wrote to its console."""
    async with run.client() as client:
        text = await client.sessions.console(session)
    run.output.text({"session": session, "text": text}, text)


async def agent(run: Run) -> None:
    """Check and sign usage of all your sessions until the last one ends; 'session create' starts it by itself."""
    with StateFolder(run.client_config().folder).lock(LOCK_NAME):
        async with run.client() as client:
            await sign_for_all(client, run.output.note)


def _print(run: Run, view: SessionView) -> None:
    facts: list[tuple[str, object]] = [("session", view.session), ("state", view.state)]
    facts += [("reason", view.reason)] if view.reason else []
    facts += [("server", view.server.hex()), ("environment", view.environment)]
    facts += looking.resource_facts(view.resources)
    facts += [("ssh", view.ssh)] if view.ssh else []
    facts += [("due", format_amount(view.due_nano, view.currency))]
    facts += [("settled", format_amount(view.settled_nano, view.currency))]
    facts += [("lease until", moment(view.lease_until_ms))] if view.lease_until_ms else []
    run.output.facts(view, facts)
