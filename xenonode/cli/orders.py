"""`xenonode order`: commit money to sessions, see what became of it, and take back what is free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from xenonode.cli.command import Run, command, group, usage_error
from xenonode.model.errors import ModelError
from xenonode.model.money import format_amount, parse_amount
from xenonode.units import UnitError, parse_duration_ms

OrderArgument = Annotated[str, typer.Argument(metavar="ORDER", help="The order's id (hex), as 'order list' shows it.")]
_COLUMNS = ("order", "status", "amount", "free", "reserved", "paid", "released")


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    orders = group("order", "Purchase orders: money committed to sessions.", app)
    command(orders, "create", example="xenonode order create 5 USD --expires-in 1h", takes_negative=True)(create)
    command(orders, "show", example="xenonode order show 5f2c...")(show)
    command(orders, "list", example="xenonode order list --json")(list_)
    command(orders, "release", example="xenonode order release 5f2c...")(release)


async def create(
    run: Run,
    amount: Annotated[list[str], typer.Argument(metavar="AMOUNT CURRENCY", help="How much at most, e.g. 5 USD.")],
    expires_in: Annotated[str, typer.Option(help="How long the order stands, e.g. 1h or 7d.")] = "1d",
    server: Annotated[
        list[str] | None, typer.Option("--server", help="Allow only this server (its key in hex); may be repeated.")
    ] = None,
    sessions: Annotated[int, typer.Option(help="Most sessions at a time that it may pay.")] = 8,
) -> None:
    """Create a purchase order: XenoCorp sets the whole amount aside at once."""
    text = amount_text(amount)
    expires_in_ms = duration(expires_in)
    servers = tuple(key(each) for each in server or ())
    async with run.client() as client:
        order = client.orders.sign(text, expires_in_ms=expires_in_ms, allowed_servers=servers, sessions_max=sessions)
        state = await client.orders.place(order)
    _print(run, state)


async def show(run: Run, order: OrderArgument) -> None:
    """Show what became of an order's money, reservation by reservation."""
    async with run.client() as client:
        state = await client.orders.show(order)
    _print(run, state)


async def list_(run: Run) -> None:
    """List your orders."""
    async with run.client() as client:
        states = await client.orders.list_all()
    rows = [_row(state) for state in states]
    run.output.rows(states, _COLUMNS, rows, "No orders yet. Create one: xenonode order create 5 USD")


async def release(run: Run, order: OrderArgument) -> None:
    """End an order: what no session holds returns to your account at once."""
    async with run.client() as client:
        state = await client.orders.release(order)
    _print(run, state)


def amount_text(words: list[str]) -> str:
    """The words of an amount as one text, checked before anything is opened or sent."""
    text = " ".join(words)
    if any(word.startswith("--") for word in words):
        unknown = next(word for word in words if word.startswith("--"))
        raise usage_error(f"no such option: {unknown}", "see the command's --help")
    try:
        parse_amount(text)
    except ModelError as error:
        raise usage_error(str(error), "write an amount and its currency, e.g. 5 USD or 12.50 EUR") from error
    return text


def duration(text: str) -> int:
    """A time such as '1h', in milliseconds, as a wrong argument if it cannot be read."""
    try:
        return parse_duration_ms(text)
    except UnitError as error:
        raise usage_error(str(error), "write e.g. '60 s', '5 min', '1 h' or '7 d'") from error


def key(text: str) -> bytes:
    """A server's whole key, in hex."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise usage_error(f"{text!r} is no key of 64 hex digits", "copy it from 'xenonode search --json'")
    return found


def money(state: Mapping[str, object], name: str) -> str:
    """One amount of a state, with its currency."""
    nano = state.get(name)
    return format_amount(nano, str(state.get("currency", ""))) if isinstance(nano, int) else "-"


def _row(state: Mapping[str, object]) -> tuple[object, ...]:
    amounts = (money(state, f"{name}_nano") for name in ("amount", "free", "reserved", "captured", "released"))
    return (state.get("order"), state.get("status"), *amounts)


def _print(run: Run, state: Mapping[str, object]) -> None:
    run.output.facts(state, zip(_COLUMNS, _row(state)))
