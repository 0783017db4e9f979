"""`xenonode lookup` and `metrics`: what the network under the search does, for those who keep it running."""

from __future__ import annotations

import hashlib
from typing import Annotated

import typer

from dht.contact import address_text
from dht.identity import NODE_ID_BYTES
from xenonode.cli.command import Run, command, usage_error
from xenonode.cli.output import shown

HEX_DIGITS = 2 * NODE_ID_BYTES
ID_SHOWN = 12
"""Hex digits of a node id in tables: enough to tell two apart; --json has them whole."""


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    command(app, "lookup", example="xenonode lookup 'any text' --trace")(lookup)
    command(app, "metrics", example="xenonode metrics 127.0.0.1:7411")(metrics)


async def lookup(
    run: Run,
    key: Annotated[str, typer.Argument(metavar="KEY", help="40 hex digits, or any text, which is hashed.")],
    dimension: Annotated[str, typer.Option("--dimension", help="Whose overlay; the first of the schema if none.")] = "",
    trace: Annotated[bool, typer.Option("--trace", help="Show each question, how long it took, the answer.")] = False,
) -> None:
    """Look up which nodes are nearest to a key."""
    target = key_of(key)
    async with run.client() as client:
        hops, found = await client.presence.lookup(target, dimension)
    contacts = [{"node_id": each.node_id, "address": address_text(each.address)} for each in found]
    asked = [
        {
            "node_id": hop.contact.node_id,
            "address": address_text(hop.contact.address),
            "asked_ms": round(hop.asked_ms, 2),
            "took_ms": None if hop.took_ms is None else round(hop.took_ms, 2),
            "answer": hop.answer,
            "distance_bits": hop.distance_bits,
        }
        for hop in hops
    ]
    answer: dict[str, object] = {"key": target, "found": contacts, "asked": len(hops)}
    if trace:
        answer["hops"] = asked
        rows = [
            (
                f"{hop.asked_ms:.1f} ms",
                hop.contact.node_id.hex()[:ID_SHOWN],
                address_text(hop.contact.address),
                hop.distance_bits,
                "-" if hop.took_ms is None else f"{hop.took_ms:.1f} ms",
                hop.answer,
            )
            for hop in hops
        ]
        columns: tuple[str, ...] = ("asked at", "node", "address", "distance bits", "took", "answer")
        run.output.rows(answer, columns, rows, "Nobody was asked: no node is known.")
    else:
        nodes = [(each.node_id.hex()[:ID_SHOWN], address_text(each.address)) for each in found]
        run.output.rows(answer, ("node", "address"), nodes, "No node is known.")
    run.output.note(f"{len(found)} nodes found, {len(hops)} asked, key {target.hex()}")


async def metrics(
    run: Run,
    server: Annotated[
        str, typer.Argument(metavar="SERVER", help="A server's key or HOST:PORT of its control; XenoCorp if none.")
    ] = "",
) -> None:
    """Show what a node counts and measures, as Prometheus text."""
    async with run.client() as client:
        found = await client.servers.metrics(server)
    run.output.text(found, shown(found["text"]))
    if found["alarm"]:
        run.output.note(f"ALARM: {found['alarm']}")


def key_of(text: str) -> bytes:
    """The key that 40 hex digits are, or that any other text hashes to. Raises XenoError for no text."""
    if not text.strip():
        raise usage_error("no key is given", "give 40 hex digits, or any text")
    if len(text) == HEX_DIGITS:
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass  # a text of forty letters
    return hashlib.sha256(text.encode()).digest()[:NODE_ID_BYTES]
