"""A second opinion on a search: a plain filter over all adverts, which shares no code with `summaries`.

Written from the query's meaning, by hand, for the demonstration's one query; if the search and this disagree, one of
them is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from xenonode.model.advert import Location, VerifiedAdvert
from xenonode.model.resources import GIB, Resources


@dataclass(frozen=True, slots=True)
class Wish:
    """What the demonstration looks for; `text` is the same wish as a query."""

    session: Resources
    memory_most_bytes: int
    regions: tuple[str, ...]
    price_cpu_most_nano: int
    linux_least: tuple[int, int]
    debian_or_ubuntu: str
    near: tuple[str, str]
    near_ms: int
    limit: int

    @property
    def text(self) -> str:
        """The query."""
        mib = 2**20
        regions = ", ".join(f'"{region}"' for region in self.regions)
        price = f"{self.price_cpu_most_nano / 1e9:.9f}"
        memory = self.session.memory_bytes // mib
        return (
            f"cpu.available >= {self.session.cpu_ms_per_s} ms/s"
            f" and memory.available between [{memory} MiB, {self.memory_most_bytes // mib} MiB]"
            f" and (region in ({regions}) or price.cpu <= {price} USD/h)"
            f" and os.linux >= {self.linux_least[0]}.{self.linux_least[1]}"
            f' and os = "{self.debian_or_ubuntu}"'
            f" and near({self.near[0]}, {self.near[1]}, {self.near_ms} ms)"
            f" order by cost(cpu {self.session.cpu_ms_per_s} ms/s, memory {memory} MiB) limit {self.limit}"
        )


def expected(adverts: Sequence[VerifiedAdvert], wish: Wish, hosts: Sequence[Location]) -> list[bytes]:
    """The keys of the servers that the wish describes, cheapest first."""
    right = [each for each in adverts if _fits(each, wish, hosts)]
    right.sort(key=lambda each: (_cost(each, wish.session), each.row_id))
    return [each.server_key for each in right[: wish.limit]]


def _fits(each: VerifiedAdvert, wish: Wish, hosts: Sequence[Location]) -> bool:
    advert = each.advert
    free, prices = advert.available, advert.prices
    versions = {(offer.kind, offer.name): offer.version for offer in advert.environments}
    linux = versions.get(("os", "linux"), "")
    numbers = [int(part) for part in linux.split("-")[0].split(".") if part.isdigit()]
    return (
        free.cpu_ms_per_s >= wish.session.cpu_ms_per_s
        and wish.session.memory_bytes <= free.memory_bytes <= wish.memory_most_bytes
        and (advert.region in wish.regions or prices.cpu_nano_per_hour <= wish.price_cpu_most_nano)
        and prices.currency == "USD"
        and tuple(numbers[:2]) >= wish.linux_least
        and ("os", wish.debian_or_ubuntu) in versions
        and all(_distance_ms(each, host) <= wish.near_ms for host in hosts)
    )


def _distance_ms(each: VerifiedAdvert, host: Location) -> float:
    place = each.advert.location
    across = math.dist((place.x_us, place.y_us, place.z_us), (host.x_us, host.y_us, host.z_us))
    return (across + place.height_us + host.height_us) / 1e3


def _cost(each: VerifiedAdvert, session: Resources) -> Fraction:
    prices = each.advert.prices
    return Fraction(session.cpu_ms_per_s * prices.cpu_nano_per_hour, 1000) + Fraction(
        session.memory_bytes * prices.memory_nano_per_gib_hour, GIB
    )
