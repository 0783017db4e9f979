"""What a XenoServer made from a catalogue row offers: its resources, and its price split into four prices.

Decides two rules. **Prices**: a row has one price for the whole machine; it is divided over cores, memory and disk in
the proportions in which another provider sells them apart (`gce_instances` n1 and `gce_disks` Local SSD, us-central1,
in the same pricing file: 0.031611 a core-hour, 0.004237 a GiB-hour, 0.000111 a GiB-hour of disk), so that a fully
leased machine earns what the row costs. A GiB moved costs five GiB-hours of memory (0.02 USD where memory costs
0.004). **Shares**: servers that stand on one host divide it; each gets the least share, and the rest goes by the
logarithm of the row's size, so that a large machine stays larger and every share can really be delivered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from random import Random

from xenonode.catalogue.regions import REGIONS
from xenonode.catalogue.rows import CatalogueRow, catalogue_rows
from xenonode.errors import XenoError
from xenonode.model.advert import AdvertAttribute
from xenonode.model.resources import GIB, Prices, Resources

CORE_WEIGHT = 31_611
MEMORY_WEIGHT = 4_237
DISK_WEIGHT = 111
"""Proportions of a core-hour, a GiB-hour of memory and one of disk: see the module."""
NET_IN_MEMORY = 5
BLOCK_DISK_PER_CORE_BYTES = 20 * GIB
"""Most rows have no disk of their own ("EBS only"): their block storage is offered as a disk of this size a core."""
LEAST_SHARE = Resources(200, 256 * 2**20, 256 * 2**20, 1_000_000)
"""A micro guest boots in 128-256 MiB with 2-3 s of CPU time: at 200 ms/s that is about 15 s."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class ServerShape:
    """A server to be: which row it is made from, and what it offers."""

    row: CatalogueRow
    cores: int
    share: Resources
    prices: Prices
    features: tuple[str, ...]

    @property
    def region(self) -> str:
        """The row's region."""
        return self.row.region

    @property
    def country(self) -> str:
        """The row's country."""
        return self.row.country


def server_shapes(rng: Random, count: int, host: Resources, least: Resources = LEAST_SHARE) -> list[ServerShape]:
    """`count` servers that together offer at most `host`. Raises XenoError when each would get less than `least`."""
    if count < 1:
        raise XenoError(f"{count} servers cannot be made", "ask for at least one", "bad_count")
    needed = Resources(*(amount * count for amount in least.amounts))
    lacking = host.lacks(needed)
    if lacking:
        fit = min(have // each for have, each in zip(host.amounts, least.amounts) if each)
        raise XenoError(
            f"this machine cannot carry {count} servers: too little {', '.join(lacking)}",
            f"ask for at most {fit}",
            "host_too_small",
        )
    rows = _choose(rng, [row for row in catalogue_rows() if _runs_here(row)], count)
    totals = [_whole(row) for row in rows]
    columns = [
        _divide(have, each, [total.amounts[place] for total in totals])
        for place, (have, each) in enumerate(zip(host.amounts, least.amounts))
    ]
    shapes = []
    for row, amounts in zip(rows, zip(*columns)):
        share = Resources(amounts[0], amounts[1] // MIB * MIB, amounts[2] // MIB * MIB, amounts[3])
        shapes.append(ServerShape(row, -(-share.cpu_ms_per_s // 1000), share, split_price(row), (row.family,)))
    return shapes


def adverts(rng: Random, count: int) -> list[ServerShape]:
    """`count` servers that offer whole rows, for simulation and benchmarks; beyond the catalogue's size rows repeat."""
    shapes = []
    for row in _choose(rng, catalogue_rows(), count):
        words = {row.family, row.architecture} | ({"local-disk"} if row.disk_bytes else set())
        shapes.append(ServerShape(row, row.cores, _whole(row), split_price(row), tuple(sorted(words))))
    return shapes


def split_price(row: CatalogueRow) -> Prices:
    """The row's price as prices per CPU-hour, GiB-hour of memory, GiB-hour of disk, and GiB moved."""
    whole = _whole(row)
    weight = (
        row.cores * CORE_WEIGHT * GIB + whole.memory_bytes * MEMORY_WEIGHT + whole.disk_bytes * DISK_WEIGHT
    )  # in weights times bytes, so that nothing is rounded before the last division
    price = row.price_nano_per_hour * GIB
    memory_nano = max(1, price * MEMORY_WEIGHT // weight)
    return Prices(
        "USD",
        max(1, price * CORE_WEIGHT // weight),
        memory_nano,
        max(1, price * DISK_WEIGHT // weight),
        memory_nano * NET_IN_MEMORY,
    )


def sample_attributes(
    rng: Random, shape: ServerShape, owner: str, environments: Sequence[tuple[str, str, str]]
) -> Mapping[str, AdvertAttribute]:
    """The attributes of an advert that such a server would publish, partly leased and somewhere in its region."""
    free = rng.choice((0, 1, 2, 3, 4, 4, 4))  # quarters: lessees take whole fractions of machines, many are idle
    available = Resources(*(amount * free // 4 for amount in shape.share.amounts))
    place = REGIONS[shape.region].location
    amounts: dict[str, AdvertAttribute] = {}
    for name, field in zip(("cpu", "memory", "disk", "net"), fields(Resources)):
        amounts[f"{name}.total"] = getattr(shape.share, field.name)
        amounts[f"{name}.available"] = getattr(available, field.name)
    for name, price in zip(("cpu", "memory", "disk", "net"), shape.prices.amounts):
        amounts[f"price.{name}"] = price
    amounts |= {
        "cores": shape.cores,
        "currency": shape.prices.currency,
        "country": shape.country,
        "region": shape.region,
        "owner": owner,
        "feature": shape.features,
        "uptime": rng.randrange(90 * 86_400),
        "environments": tuple(environments),
        "location": (
            place.x_us + round(rng.gauss(0, 2_000)),
            place.y_us + round(rng.gauss(0, 2_000)),
            place.z_us + round(rng.gauss(0, 2_000)),
            rng.randrange(200, 10_000),
        ),
    }
    return amounts


def schema_samples(
    rng: Random, count: int, environments: Sequence[tuple[str, str, str]] = (("os", "linux", "6.1"),)
) -> list[Mapping[str, AdvertAttribute]]:
    """Attributes to draw a schema's breakpoints from: half whole machines, half small shares of machines.

    Owners offer anything from a sliver of a desktop to a rack server: a share is a power of two, down to 1/4096.
    """
    samples = []
    for number, shape in enumerate(adverts(rng, count)):
        offered = shape
        if number % 2:
            part = 2 ** rng.randrange(1, 13)
            share = Resources(*(max(1, amount // part) for amount in shape.share.amounts))
            cores = max(1, shape.cores // part)
            offered = ServerShape(shape.row, cores, share, shape.prices, shape.features)
        samples.append(sample_attributes(rng, offered, f"owner-{number}", environments))
    return samples


def _whole(row: CatalogueRow) -> Resources:
    disk_bytes = row.disk_bytes or row.cores * BLOCK_DISK_PER_CORE_BYTES
    return Resources(row.cores * 1000, row.memory_bytes, disk_bytes, row.net_bit_per_s)


def _runs_here(row: CatalogueRow) -> bool:
    """Whether a share of this host can stand in for the row: not for a graphics card or another processor."""
    return row.architecture == "x86_64" and row.family != "accelerated"


def _choose(rng: Random, rows: Sequence[CatalogueRow], count: int) -> list[CatalogueRow]:
    chosen: list[CatalogueRow] = []
    while len(chosen) < count:
        chosen.extend(rng.sample(rows, min(len(rows), count - len(chosen))))
    return chosen


def _divide(have: int, each: int, sizes: Sequence[int]) -> list[int]:
    """`each` for everyone and the rest by the logarithm of the size; the sum never exceeds `have`."""
    spare = have - each * len(sizes)
    weights = [round(1000 * math.log2(1 + size)) for size in sizes]
    return [each + spare * weight // max(1, sum(weights)) for weight in weights]
