"""The rows: each instance type in each region where it has a published price. Home of apache-libcloud.

Decides how the provider's words become the platform's integers. Source: libcloud's `ec2_instance_types` and the
`ec2_linux` on-demand prices of its `pricing.json` (USD per hour): 808 types, 35 regions, 11,568 rows in 3.9.1.
A price of zero there means "not published", so such a row is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from xenonode.catalogue.regions import REGIONS
from xenonode.errors import XenoError
from xenonode.model.resources import NANO

MIB = 2**20
GB = 10**9
_NETWORK = re.compile(r"(?:Up to )?([0-9.]+) (Gigabit|Megabit)\Z")
_NETWORK_SCALE = {"Gigabit": 10**9, "Megabit": 10**6}
_NETWORK_WORDS = {
    "Very Low": 50 * 10**6,
    "Low": 100 * 10**6,
    "Low to Moderate": 300 * 10**6,
    "Moderate": 500 * 10**6,
    "High": 10**9,
}
"""Old types say a word instead of a rate; these are the orders of magnitude that users measured and published."""
_FAMILIES = {
    "General purpose": "general",
    "Compute optimized": "compute",
    "Memory optimized": "memory",
    "Storage optimized": "storage",
    "Micro instances": "general",
}


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """One machine that can be leased in one region, as published."""

    provider: str
    name: str
    region: str
    country: str
    cores: int
    memory_bytes: int
    disk_bytes: int
    net_bit_per_s: int
    price_nano_per_hour: int
    architecture: str
    family: str


@cache
def catalogue_rows() -> tuple[CatalogueRow, ...]:
    """Every row, by region and name. Raises XenoError when apache-libcloud is not installed."""
    try:
        import libcloud
        from libcloud.compute.constants.ec2_instance_types import INSTANCE_TYPES
    except ImportError as error:
        raise XenoError(
            "the catalogue of machines needs the package apache-libcloud",
            "pip install 'xenonode[catalogue]'",
            "missing_package",
        ) from error
    pricing = Path(libcloud.__file__).parent / "data" / "pricing.json"
    prices = json.loads(pricing.read_text(), parse_float=Decimal)["compute"]["ec2_linux"]
    types: Mapping[str, Mapping[str, Any]] = dict(INSTANCE_TYPES)  # type: ignore[arg-type]  # libcloud has no types
    rows = []
    for name, by_region in prices.items():
        machine = types.get(name)
        if machine is None:
            continue
        for region, price in by_region.items():
            price_nano = int(Decimal(price) * NANO)
            if price_nano > 0 and region in REGIONS:
                rows.append(_row(machine, name, region, price_nano))
    return tuple(sorted(rows, key=lambda row: (row.region, row.name)))


def _row(machine: Mapping[str, Any], name: str, region: str, price_nano: int) -> CatalogueRow:
    extra = machine["extra"]
    return CatalogueRow(
        provider="ec2",
        name=name,
        region=region,
        country=REGIONS[region].country,
        cores=int(extra["vcpu"]),
        memory_bytes=machine["ram"] * MIB,
        disk_bytes=machine["disk"] * GB,
        net_bit_per_s=_network(extra["networkPerformance"]),
        price_nano_per_hour=price_nano,
        architecture="arm64" if "Graviton" in extra["physicalProcessor"] else "x86_64",
        family=_FAMILIES.get(extra["instanceFamily"], "accelerated"),
    )


def _network(text: str) -> int:
    found = _NETWORK.match(text)
    if found:
        return int(Decimal(found[1]) * _NETWORK_SCALE[found[2]])
    return _NETWORK_WORDS[text]
