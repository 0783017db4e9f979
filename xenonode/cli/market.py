"""`xenonode market`: what all servers that match come to, without listing them: counts, free capacity, prices."""

from __future__ import annotations

from typing import Annotated

import typer

from summaries.attributes import NANO
from summaries.census import CensusResult
from summaries.schema import Schema
from summaries.sums import FREE, PRICES, Aggregate, Quantile
from xenonode import units
from xenonode.cli.command import Run, command, usage_error
from xenonode.search.counting import Counted

SHARES = (0.1, 0.5, 0.9)
_PER = {"price.cpu": "h", "price.memory": "GiB/h", "price.disk": "GiB/h", "price.net": "GiB"}
_FORMATS = (units.format_cpu, units.format_bytes, units.format_bytes, units.format_rate)


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    command(app, "market", example="xenonode market 'cpu.available >= 1000 ms/s' --by region")(market)


async def market(
    run: Run,
    query: Annotated[str, typer.Argument(help="Which servers, as for 'search', without order and limit.")] = "",
    by: Annotated[str, typer.Option("--by", metavar="ATTRIBUTE", help="Apart by country, region or owner.")] = "",
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Read every leaf from two replicas; list up to 500 where they differ."),
    ] = False,
) -> None:
    """Count servers, add up what they have free, and tell the spread of their prices (p10, p50, p90)."""
    if by not in ("", "country", "region", "owner", "currency"):
        raise usage_error(f"cannot tell servers apart by {by!r}", "use --by country, --by region or --by owner")
    async with run.client() as client:
        with run.waiting():
            found = await client.finding.market(query, by=by, exact=exact)
        schema = await client.finding.schema()
    result = found.result
    told = {
        "query": query,
        "count": {"least": result.least, "most": result.most, "exact": result.exact},
        "total": _as_json(schema, result.total),
        "groups": {name: _as_json(schema, one) for name, one in result.groups.items()} if by else {},
        "summaries": {"oldest_age_ms": result.age_ms, "leaves": result.summarised_leaves},
        "read": {"leaves": result.leaves, "aggregation_points": result.aggregation_points, "rpcs": result.rpcs},
        "unreachable": [f"{result.dimension} {prefix}" for prefix in result.unreachable],
        "disputed": [f"{result.dimension} {prefix}" for prefix in result.disputed],
        "duration_ms": round(found.duration_ms, 1),
        "bytes_in": found.bytes_in,
    }
    groups = [*result.groups.items(), ("all", result.total)] if by else [("all", result.total)]
    priced = [f"{price} p10/p50/p90" for price in PRICES[:3]]
    columns = (by or "servers", "count", "cpu free", "memory free", "disk free", "net free", *priced)
    rows = [
        (name or "-", one.count, *(shown(amount) for shown, amount in zip(_FORMATS, one.free)), *_prices(schema, one))
        for name, one in groups
        if one.count or not by
    ]
    run.output.rows(told, columns, rows, "No server matches.")
    run.output.note(_worth(found, result))


def _worth(found: Counted, result: CensusResult) -> str:
    """What the figures are worth, in a line."""
    took = f"{result.rpcs} questions, {found.duration_ms:.0f} ms"
    if result.listed:
        return f"exact: replicas differed, so that a search listed all that match ({took})"
    if result.exact:
        return f"exact: every leaf was read from replicas that agree ({took}); prices are within the ranges of --json"
    parts = []
    if result.age_ms:
        parts.append(
            f"{result.summarised_leaves} leaves from summaries up to {units.format_duration(result.age_ms)} old"
            " (--exact reads them)"
        )
    if result.unreachable:
        parts.append(f"{len(result.unreachable)} ranges could not be read")
    if found.late:
        parts.append("there was no time for the rest")
    if result.disputed:
        parts.append(f"{len(result.disputed)} ranges in which replicas differ")
    return f"BOUNDS, {result.least} to {result.most} servers: {'; '.join(parts)} ({took})"


def _prices(schema: Schema, one: Aggregate) -> list[str]:
    """Three quantiles of three prices, for each currency."""
    cells = []
    for price in PRICES[:3]:
        texts = []
        for priced in one.priced:
            found = [priced.quantile(schema, price, share) for share in SHARES]
            values = [f"{each.value / NANO:.3g}" for each in found if each]
            texts.append(f"{' / '.join(values)} {priced.currency}/{_PER[price]}" if values else "-")
        cells.append("; ".join(texts) or "-")
    return cells


def _as_json(schema: Schema, one: Aggregate) -> dict[str, object]:
    return {
        "count": one.count,
        "free": dict(zip(FREE, one.free)),
        "prices": {
            priced.currency: {
                "count": priced.count,
                **{price: _quantiles([priced.quantile(schema, price, share) for share in SHARES]) for price in PRICES},
            }
            for priced in one.priced
        },
    }


def _quantiles(found: list[Quantile | None]) -> dict[str, object]:
    return {
        f"p{round(each.share * 100)}": {"nano": each.value, "least_nano": each.least, "most_nano": each.most}
        for each in found
        if each is not None
    }
