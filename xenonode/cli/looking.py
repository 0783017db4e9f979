"""`xenonode quote`, `advert` and `peers`: look at servers, and ask what they would do."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from xenonode import units
from xenonode.cli.command import Run, command, group, usage_error
from xenonode.cli.orders import duration
from xenonode.cli.output import plain
from xenonode.errors import XenoError
from xenonode.model.advert import Advert, OfferedEnvironment, VerifiedAdvert
from xenonode.model.money import format_amount
from xenonode.model.resources import Prices, Resources, rate_nano_per_hour
from xenonode.model.session import Refusal

KEY_SHOWN = 16
"""Hex digits of a key in tables: enough to name a server; --json has the whole key."""
CpuOption = Annotated[str, typer.Option("--cpu", help="CPU time per wall-clock second.")]
MemoryOption = Annotated[str, typer.Option("--memory", help="Memory.")]
DiskOption = Annotated[str, typer.Option("--disk", help="Disk.")]
NetOption = Annotated[str, typer.Option("--net", help="Network bandwidth.")]
EnvironmentOption = Annotated[
    str, typer.Option("--environment", help="Operating system or platform, e.g. os.linux or 'platform.jvm 17'.")
]
LeaseOption = Annotated[str, typer.Option("--lease", help="How long, at most.")]
ServerArgument = Annotated[
    str, typer.Argument(metavar="SERVER", help="The server: the first digits of its key, or HOST:PORT of its control.")
]
DEFAULT_CPU, DEFAULT_MEMORY, DEFAULT_DISK, DEFAULT_NET = "200 ms/s", "160 MiB", "64 MiB", "1 Mbps"


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    command(app, "quote", example="xenonode quote 5f2c --cpu '250 ms/s' --memory '256 MiB' --lease 1h")(quote)
    command(app, "peers", example="xenonode peers --json")(peers)
    adverts = group("advert", "Advertisements: what servers offer.", app)
    command(adverts, "show", example="xenonode advert show 127.0.0.1:7411")(advert_show)


async def quote(
    run: Run,
    server: ServerArgument,
    cpu: CpuOption = DEFAULT_CPU,
    memory: MemoryOption = DEFAULT_MEMORY,
    disk: DiskOption = DEFAULT_DISK,
    net: NetOption = DEFAULT_NET,
    environment: EnvironmentOption = "os.linux",
    lease: LeaseOption = "1h",
) -> None:
    """Ask a server whether it would host this, and at what price; nothing is held: 'session create' asks again."""
    wanted = resources(cpu, memory, disk, net)
    lease_ms = duration(lease)
    async with run.client() as client:
        offer = await client.servers.advert(server)
        chosen = choose_environment(offer.advert, environment)
        found = await client.servers.quote(offer.server_key, wanted, chosen, lease_ms)
        if isinstance(found, Refusal):
            raise_refusal(found)
        await client.sessions.decline(found.server, found.control, found.raw)
    offer_ = found.quote
    at_most = format_amount(rate_nano_per_hour(offer_.resources, offer_.prices), offer_.prices.currency)
    facts = [*resource_facts(offer_.resources), *price_facts(offer_.prices)]
    facts += [("environment", offer_.environment), ("at most per hour", at_most)]
    run.output.facts({"server": found.server, "lease_ms": found.lease_ms, "quote": offer_}, facts, "Quote")


async def advert_show(run: Run, server: ServerArgument) -> None:
    """Show a server's own current advert, checked whole."""
    async with run.client() as client:
        shown = await client.servers.shown_advert(server)
    facts = [*advert_facts(shown.advert), ("pending in", shown.pending)]
    fields = plain(shown.advert)
    assert isinstance(fields, dict)
    run.output.facts({**fields, "pending": shown.pending}, facts)


async def peers(run: Run) -> None:
    """Join the search network of every dimension, and list whom that meets."""
    async with run.client() as client:
        found = await client.presence.peers()
    rows = [tuple(each.values()) for each in found]
    run.output.rows(found, tuple(found[0]) if found else (), rows, "No peers answered.")


def resources(cpu: str, memory: str, disk: str, net: str) -> Resources:
    """The four amounts of an order to a server, as a wrong argument if one cannot be read."""
    try:
        return Resources(
            units.parse_cpu(cpu), units.parse_bytes(memory), units.parse_bytes(disk), units.parse_rate(net)
        )
    except units.UnitError as error:
        next_step = "e.g. --cpu '250 ms/s' --memory '256 MiB' --disk '64 MiB' --net '1 Mbps'"
        raise usage_error(str(error), next_step) from error


def choose_environment(advert: Advert, text: str) -> OfferedEnvironment:
    """The offered environment that was named, as 'os.linux' or with its version."""
    for offered in advert.environments:
        if text in (str(offered), f"{offered.kind}.{offered.name}"):
            return offered
    offers = ", ".join(str(each) for each in advert.environments) or "none"
    raise usage_error(f"this server does not offer {text!r}", f"it offers: {offers}")


def raise_refusal(refusal: Refusal) -> NoReturn:
    """A server's no, with its reasons, as an expected failure."""
    reasons = "; ".join(refusal.reasons)
    raise XenoError(f"the server refuses: {reasons}", "ask for less, or another server", "refused")


def resource_facts(amounts: Resources) -> list[tuple[str, object]]:
    """Resources for people."""
    return [
        ("cpu", units.format_cpu(amounts.cpu_ms_per_s)),
        ("memory", units.format_bytes(amounts.memory_bytes)),
        ("disk", units.format_bytes(amounts.disk_bytes)),
        ("net", units.format_rate(amounts.net_bit_per_s)),
    ]


def price_facts(prices: Prices) -> list[tuple[str, object]]:
    """Prices for people."""
    return [
        ("price.cpu", units.format_price(prices.cpu_nano_per_hour, prices.currency, "h")),
        ("price.memory", units.format_price(prices.memory_nano_per_gib_hour, prices.currency, "GiB/h")),
        ("price.disk", units.format_price(prices.disk_nano_per_gib_hour, prices.currency, "GiB/h")),
        ("price.net", units.format_price(prices.net_nano_per_gib, prices.currency, "GiB")),
    ]


def advert_facts(found: VerifiedAdvert) -> list[tuple[str, object]]:
    """An advert for people."""
    advert = found.advert
    return [
        ("server", found.server_key.hex()),
        ("owner", found.credential.entity),
        ("place", f"{advert.country} {advert.region}"),
        ("control", advert.control),
        ("cores", advert.cores),
        *((f"{name} free", value) for name, value in resource_facts(advert.available)),
        *((f"{name} total", value) for name, value in resource_facts(advert.total)),
        *price_facts(advert.prices),
        ("environments", ", ".join(str(each) for each in advert.environments)),
        ("features", ", ".join(advert.features)),
    ]
