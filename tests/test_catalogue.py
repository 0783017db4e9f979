"""The catalogue: real rows, and servers made from them that one host can really carry."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("libcloud", reason="the catalogue is an extra: pip install 'xenonode[catalogue]'")

from summaries.attributes import check_attributes
from xenonode import catalogue
from xenonode.catalogue import LEAST_SHARE, REGIONS
from xenonode.catalogue.shapes import split_price
from xenonode.errors import XenoError
from xenonode.model.resources import GIB, NO_RESOURCES, Resources

HOST = Resources(2000, 8 * GIB, 20 * GIB, 10**9)


def test_there_are_thousands_of_rows_with_positive_figures_in_a_fixed_order() -> None:
    rows = catalogue.catalogue_rows()
    assert len(rows) >= 11_000
    assert list(rows) == sorted(rows, key=lambda row: (row.region, row.name))
    assert len({(row.name, row.region) for row in rows}) == len(rows)
    for row in rows:
        assert min(row.cores, row.memory_bytes, row.net_bit_per_s, row.price_nano_per_hour) > 0
        assert row.disk_bytes >= 0
        assert len(row.country) == 2 and row.region in REGIONS and len(row.region) <= 24


def test_a_fully_leased_machine_earns_its_price() -> None:
    for row in catalogue.catalogue_rows():
        prices = split_price(row)
        disk_bytes = row.disk_bytes or row.cores * 20 * GIB
        earned = (
            row.cores * prices.cpu_nano_per_hour
            + row.memory_bytes * prices.memory_nano_per_gib_hour // GIB
            + disk_bytes * prices.disk_nano_per_gib_hour // GIB
        )
        assert abs(earned - row.price_nano_per_hour) <= max(row.price_nano_per_hour // 1000, 100_000)
        assert min(prices.amounts) > 0


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 40),
    slack=st.tuples(*[st.integers(0, 10**12)] * 4),
)
def test_shares_add_up_to_no_more_than_the_host_and_each_suffices(
    seed: int, count: int, slack: tuple[int, int, int, int]
) -> None:
    host = Resources(*(least * count + more for least, more in zip(LEAST_SHARE.amounts, slack)))
    shapes = catalogue.server_shapes(Random(seed), count, host)
    assert len(shapes) == count
    total = NO_RESOURCES
    for shape in shapes:
        total += shape.share
        assert not shape.share.lacks(LEAST_SHARE)
        assert shape.share.cpu_ms_per_s <= shape.cores * 1000
    assert not host.lacks(total)


def test_one_seed_gives_one_set_of_servers() -> None:
    assert catalogue.server_shapes(Random(7), 6, HOST) == catalogue.server_shapes(Random(7), 6, HOST)
    assert catalogue.server_shapes(Random(7), 6, HOST) != catalogue.server_shapes(Random(8), 6, HOST)
    assert catalogue.schema_samples(Random(7), 50) == catalogue.schema_samples(Random(7), 50)


def test_too_many_servers_are_refused_with_the_number_that_fits() -> None:
    with pytest.raises(XenoError) as caught:
        catalogue.server_shapes(Random(1), 11, HOST)
    assert caught.value.next_step == "ask for at most 10"
    assert len(catalogue.server_shapes(Random(1), 10, HOST)) == 10
    with pytest.raises(XenoError):
        catalogue.server_shapes(Random(1), 0, HOST)


def test_more_adverts_than_rows_can_be_had() -> None:
    assert len(catalogue.adverts(Random(1), 30_000)) == 30_000


def test_samples_are_what_summaries_accept() -> None:
    for sample in catalogue.schema_samples(Random(3), 2_000, (("os", "linux", "6.1"), ("platform", "jvm", "17"))):
        check_attributes(sample)
        for name in ("cpu", "memory", "disk", "net"):
            free, total = sample[f"{name}.available"], sample[f"{name}.total"]
            assert isinstance(free, int) and isinstance(total, int) and free <= total
