"""The first schema of a new network: dimensions whose breakpoints are those of real machines at real prices.

Decides the sample that the breakpoints are drawn from: every row of the catalogue, whole and in shares, and the
environments that are common today. A network may open a later epoch; drift costs balance, never correctness.
"""

from __future__ import annotations

from random import Random

from summaries.schema import Schema
from xenonode import catalogue

SAMPLE_SEED = 2003
ENVIRONMENTS = tuple(
    (kind, name, "1")
    for kind, names in (
        ("os", "linux debian ubuntu alpine fedora rocky suse freebsd openbsd netbsd windows"),
        ("platform", "jvm python node wasm dotnet"),
    )
    for name in names.split()
)
"""What the environment dimension tells apart by name; any other one is found too, under 'other'."""


def first_schema() -> Schema:
    """The schema of epoch 1; the same on every machine. Raises XenoError where the catalogue is not installed."""
    count = len(catalogue.catalogue_rows())
    return Schema.from_sample(catalogue.schema_samples(Random(SAMPLE_SEED), count, ENVIRONMENTS))
