"""`xenonode register`, `statement` and `status`: who you are here, and how your account stands."""

from __future__ import annotations

from typing import Annotated

import typer

from xenonode.cli.command import Run, command, usage_error
from xenonode.model.money import format_amount
from xenonode.model.resources import CURRENCIES


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    example = (
        "xenonode register --set network=network.xeno --set owner.legal_name='Ada Lovelace' "
        "--set owner.country=GB --set owner.email=ada@example.org --set owner.proof_reference='passport 123'"
    )
    command(app, "register", example=example)(register)
    command(app, "statement", example="xenonode statement --currency USD")(statement)
    command(app, "status", example="xenonode status --json")(status)


async def register(run: Run) -> None:
    """Register with XenoCorp: bind your key to a real-world identity and receive a credential.

    Doing it again renews the credential.
    """
    async with run.client() as client:
        credential = await client.member.register()
    facts = (("entity", credential.entity), ("role", credential.role), ("key", credential.key.hex()))
    run.output.facts(credential, facts, "Registered")


async def statement(run: Run, currency: Annotated[str, typer.Option(help="Currency of the account.")] = "USD") -> None:
    """Print your account's statement, as XenoCorp signs it."""
    wanted = currency.upper()
    if wanted not in CURRENCIES:
        raise usage_error(f"currency {wanted} is not one of {', '.join(CURRENCIES)}", "e.g. --currency USD")
    async with run.client() as client:
        found = await client.orders.statement(wanted)
    if not run.output.as_json:
        facts = (
            ("entity", found.entity),
            ("balance", format_amount(found.balance_nano, found.currency)),
            ("ring-fenced", format_amount(found.ringfenced_nano, found.currency)),
        )
        run.output.facts(found, facts)
    rows = ((line.kind, format_amount(line.amount_nano, found.currency), line.reference) for line in found.lines)
    run.output.rows(found, ("kind", "amount", "reference"), rows, "No transfers yet.")


async def status(run: Run) -> None:
    """Show whether this client is registered, which network it belongs to, and what it has open."""
    async with run.client() as client:
        found = await client.status()
    run.output.facts(found, found.items())
