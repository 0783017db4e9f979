"""Real machines and their real prices, for demonstrations, simulations, benchmarks and the first schema.

Nothing here is invented: rows are what a public cloud publishes; what is derived says by which rule.
"""

from __future__ import annotations

from xenonode.catalogue.regions import REGIONS, Region
from xenonode.catalogue.rows import CatalogueRow, catalogue_rows
from xenonode.catalogue.shapes import (
    LEAST_SHARE,
    ServerShape,
    adverts,
    sample_attributes,
    schema_samples,
    server_shapes,
)

__all__ = [
    "LEAST_SHARE",
    "REGIONS",
    "CatalogueRow",
    "Region",
    "ServerShape",
    "adverts",
    "catalogue_rows",
    "sample_attributes",
    "schema_samples",
    "server_shapes",
]
