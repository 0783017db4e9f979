"""`xenonode corp` and `audit`: found a network and keep it, credit accounts, and check that the books balance."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xenonode import audit_check
from xenonode.cli.command import Run, command, group
from xenonode.cli.orders import amount_text, duration, key
from xenonode.cli.output import moment
from xenonode.cli.service import serve_until_stopped
from xenonode.errors import XenoError
from xenonode.model.money import format_amount, parse_amount

if TYPE_CHECKING:
    from xenonode.client.operator import Operator

ApplicantArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="The first digits of its key, as 'corp members' shows it.")
]


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    corps = group("corp", "XenoCorp: the trusted third party of a network.", app)
    command(corps, "init", example="xenonode corp init --set folder=./corp --set public_name='Example Corp'")(init)
    command(corps, "serve", example="xenonode corp serve --config corp.toml")(serve)
    credit_example = "xenonode corp credit e4f1 100 USD --config corp.toml"
    command(corps, "credit", example=credit_example, takes_negative=True)(credit)
    command(corps, "members", example="xenonode corp members --config corp.toml")(members)
    command(corps, "approve", example="xenonode corp approve 9c41e0 --config corp.toml")(approve)
    command(corps, "refuse", example="xenonode corp refuse 9c41e0 --config corp.toml")(refuse)
    command(corps, "audit", example="xenonode corp audit --config corp.toml")(audit)
    command(corps, "upgrade", example="xenonode corp upgrade --config corp.toml")(upgrade)
    schema = group("schema", "The dimensions by which servers are searched.", corps)
    command(schema, "show", example="xenonode corp schema show --config corp.toml")(schema_show)
    command(schema, "add-dimension", example="xenonode corp schema add-dimension uptime --config corp.toml")(
        add_dimension
    )
    audits = group("audit", "Records that nobody can change unseen.", app)
    command(audits, "verify", example="xenonode audit verify /var/lib/xenonode/server/state 5f2c...")(verify)


async def init(run: Run) -> None:
    """Found a network: make its keys, its books and its network file. Doing it twice changes nothing."""
    from xenonode.corp_node import CorpNode
    from xenonode.env import LiveEnv

    path = await CorpNode.found(run.corp_config(), LiveEnv())
    run.output.facts({"network": path}, (("network file", path),), "Network founded")
    run.output.note("hand the network file to servers and clients, and keep the key files of the folder safe")


async def serve(run: Run) -> None:
    """Run XenoCorp in the foreground: registrations, orders, claims, statements, and a seed of the search network."""
    from xenonode.corp_node import CorpNode
    from xenonode.env import LiveEnv

    config = run.corp_config()
    await serve_until_stopped(run, config.folder, "XenoCorp", lambda: CorpNode.start(config, LiveEnv()))


async def credit(
    run: Run,
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="Whose account, as 'register' printed it.")],
    amount: Annotated[list[str], typer.Argument(metavar="AMOUNT CURRENCY", help="How much, e.g. 100 USD.")],
) -> None:
    """Put money that was received outside into an entity's account (only with XenoCorp's own operator key)."""
    nano, currency = parse_amount(amount_text(amount))
    async with _operator(run) as operator:
        balance_nano = await operator.credit(entity, amount_text(amount))
    found = {"entity": entity, "credited_nano": nano, "balance_nano": balance_nano, "currency": currency}
    facts = (("entity", entity), ("balance", format_amount(balance_nano, currency)))
    run.output.facts(found, facts, "Credited")


async def members(run: Run) -> None:
    """Who waits to be admitted to a public network. Nobody has checked what they say of themselves: do that first."""
    async with _operator(run) as operator:
        waiting = await operator.waiting()
    rows = [
        [
            each["key"][:16], each["role"], each["legal_name"], each["country"], each["email"],
            each["proof_reference"], moment(each["asked_ms"]),
        ]
        for each in waiting
    ]  # fmt: skip
    columns = ("key", "role", "legal name", "country", "e-mail", "proof", "asked")
    run.output.rows(waiting, columns, rows, "nobody waits (on a local network nobody has to)")


async def approve(run: Run, applicant: ApplicantArgument) -> None:
    """Admit an applicant: its next 'xenonode register' (or the next start of its server) brings its credential."""
    async with _operator(run) as operator:
        found = await operator.approve(applicant)
    run.output.facts(found, found.items(), "Approved")


async def refuse(run: Run, applicant: ApplicantArgument) -> None:
    """Turn an applicant away; it may ask again after a month."""
    async with _operator(run) as operator:
        found = {"key": await operator.refuse(applicant)}
    run.output.facts(found, found.items(), "Refused")


@contextlib.asynccontextmanager
async def _operator(run: Run) -> AsyncIterator[Operator]:
    from xenonode.client import Client
    from xenonode.env import LiveEnv

    client = await Client.open_operator(run.corp_config(), LiveEnv())
    try:
        yield client
    finally:
        await client.close()


async def schema_show(run: Run) -> None:
    """Show the dimensions: each has a DHT and a trie of its own, and the epoch in which that was opened."""
    async with _operator(run) as operator:
        found = await operator.schema()
    _show_schema(run, found)


async def add_dimension(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A numeric attribute of adverts, e.g. uptime.")],
    search_in: Annotated[
        str, typer.Option("--search-in", metavar="TIME", help="When searches begin to read it (22 min 30 s).")
    ] = "",
) -> None:
    """Add a dimension while the network runs: nodes hear of it within minutes, join its DHT and publish to it."""
    async with _operator(run) as operator:
        found = await operator.add_dimension(name, duration(search_in) if search_in else None)
    _show_schema(run, found)


def _show_schema(run: Run, found: dict[str, Any]) -> None:
    rows = [
        (each["name"], each["kind"], each["epoch"], each["breakpoints"],
         moment(each["search_from_ms"]) if each["search_from_ms"] else "the beginning")
        for each in found["dimensions"]
    ]  # fmt: skip
    run.output.rows(found, ("dimension", "kind", "epoch", "breakpoints", "searched since"), rows, "")
    run.output.note(f"epoch {found['epoch']}")


async def audit(run: Run) -> None:
    """Check the ledger: debits equal credits, no account below zero, every order adds up."""
    async with _operator(run) as operator:
        found = await operator.audit()
    run.output.facts(found, found.items())
    if not found.get("balanced"):
        raise XenoError("the ledger does not balance", "stop XenoCorp and restore the last good backup", "unbalanced")


def upgrade(run: Run) -> None:
    """Bring a ledger that an older program wrote to this one's version: back up, migrate, check that it balances."""
    from xenonode.corp.upgrading import upgrade as upgrade_ledger

    found = upgrade_ledger(run.corp_config().folder)
    run.output.facts(found, (("before", found.before), ("now", found.after), ("backup", found.backup or "none needed")))


def verify(
    run: Run,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of audit.log and audit.checkpoints.")],
    server: Annotated[str, typer.Argument(metavar="KEY", help="The server's public key (hex), which signed the log.")],
    head: Annotated[
        list[str] | None, typer.Option(help="A log head from a usage record that you hold (hex); may be repeated.")
    ] = None,
) -> None:
    """Check a copy of an audit log: finds edits, deletions, reordering and truncation before its last checkpoint."""
    verdict = audit_check.verify_folder(folder, key(server), [key(each) for each in head or ()])
    facts = (("entries", verdict.length), ("head", verdict.head.hex()), ("fault", verdict.fault or "none"))
    run.output.facts(verdict, facts)
    if verdict.fault:
        raise XenoError(f"the log is not sound: {verdict.fault}", "keep the files as evidence", "audit")
