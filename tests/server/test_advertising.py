"""Adverts: when one is due, what it says, and that its number never falls."""

from __future__ import annotations

from dataclasses import replace

from dht.identity import ED25519
from hypervisor.adapter import Capabilities
from hypervisor.simulated import ALL_ABILITIES, MICRO
from xenonode.model.advert import Advert
from xenonode.model.entity import Address
from xenonode.model.resources import NO_RESOURCES, Resources
from xenonode.server.admission import Admission, Offer, environment_offers
from xenonode.server.advertising import AdvertFacts, Advertiser
from xenonode.server.journal import Journal

from .world import EPOCH_MS, GIB, LOCATION, MACHINE, PRICES, SERVER, Files, MemoryDisk

ADDRESS = Address("127.0.0.1", 7001)
FACTS = AdvertFacts("GB", "eu-west", ADDRESS, ADDRESS, ("ssd",), EPOCH_MS, 3, period_ms=60_000)


def advertiser(files: Files, overcommit_permille: int = 1000) -> tuple[Advertiser, Admission]:
    able = Capabilities("simulated:///", "simulated", 4, 8 * GIB, ALL_ABILITIES, (MICRO,))
    offers = environment_offers(able, lambda id: bytes(32))
    books = Admission(Offer(MACHINE, NO_RESOURCES, 4, PRICES, offers, overcommit_permille), able)
    return Advertiser(SERVER, Journal(MemoryDisk(files)), books, FACTS), books


def test_an_advert_says_what_is_offered_and_available() -> None:
    adverts, books = advertiser(Files(), 1500)
    books.keep(b"s", Resources(1000, GIB, 0, 0))
    advert, envelope = Advert.open(adverts.issue(EPOCH_MS, LOCATION, b"credential").raw, ED25519)
    assert envelope.key == SERVER.public_key and adverts.current is not None
    assert advert.total.cpu_ms_per_s == 6000 and advert.available.cpu_ms_per_s == 5000
    assert advert.features == ("simulated", "overcommit-1500", "ssd")
    assert [str(each) for each in advert.environments] == ["os.linux 6.1", "os.debian 12"]
    assert advert.expires_ms - advert.issued_ms == 3 * FACTS.period_ms


def test_an_advert_is_due_at_first_each_period_and_when_something_changed() -> None:
    adverts, books = advertiser(Files())
    now = EPOCH_MS
    assert adverts.due(now, LOCATION)
    adverts.issue(now, LOCATION, b"c")
    adverts.acknowledged()
    assert not adverts.due(now + 30_000, LOCATION)
    assert adverts.due(now + 60_000, LOCATION) and adverts.due(now - 60_000, LOCATION)
    books.keep(b"s", Resources(MACHINE.cpu_ms_per_s * 4 // 256, 0, 0, 0))
    assert not adverts.due(now + 2_000, LOCATION), "too little to tell before the heartbeat"
    books.keep(b"s", Resources(MACHINE.cpu_ms_per_s * 5 // 256, 0, 0, 0))
    assert adverts.due(now + 2_000, LOCATION) and not adverts.due(now + 999, LOCATION)
    adverts.issue(now + 2_000, LOCATION, b"c")
    assert not adverts.due(now + 4_000, LOCATION)
    adverts.changed()
    assert adverts.due(now + 4_000, LOCATION)


def test_an_advert_that_was_not_acknowledged_is_due_soon_and_then_ever_less_often() -> None:
    adverts, _ = advertiser(Files())
    now = EPOCH_MS
    for wait_ms in (5_000, 10_000, 20_000, 40_000, 60_000, 60_000):
        adverts.issue(now, LOCATION, b"c")
        assert not adverts.due(now + wait_ms - 1, LOCATION) and adverts.due(now + wait_ms, LOCATION)
        now += wait_ms
    adverts.acknowledged()
    assert not adverts.due(now - 1, LOCATION), "acknowledged, the last one holds for a period"


def test_an_advert_is_due_when_the_server_finds_itself_elsewhere_but_not_while_it_settles() -> None:
    adverts, _ = advertiser(Files())
    adverts.issue(EPOCH_MS, LOCATION, b"c")
    adverts.acknowledged()
    near, far = (replace(LOCATION, height_us=LOCATION.height_us + by) for by in (5_000, 5_001))
    assert not adverts.due(EPOCH_MS + 9_999, far)
    assert adverts.due(EPOCH_MS + 10_000, far) and not adverts.due(EPOCH_MS + 10_000, near)


def test_numbers_never_fall_even_over_restarts_and_a_clock_set_back() -> None:
    files = Files()
    adverts, _ = advertiser(files)
    numbers = [adverts.issue(EPOCH_MS + each, LOCATION, b"c").seq for each in (0, 0, 5)]
    adverts, _ = advertiser(files)
    numbers += [adverts.issue(EPOCH_MS - 3_600_000, LOCATION, b"c").seq for _ in range(2)]
    numbers.append(adverts.issue(EPOCH_MS, LOCATION, b"c", gone=True).seq)
    assert numbers == sorted(set(numbers))
    assert adverts.current is not None and adverts.current.body["gone"] is True
