"""Whom all members shun, by what publishers say of holders."""

from __future__ import annotations

import pytest

from xenonode.control.errors import ControlError
from xenonode.corp.court import HEARD_MS, SHUNNED_MS, VOICES_AHEAD, Court

from .world import World

LIAR, HONEST = b"liar", b"honest"


def tell(court: Court, entities: range, shows: bool, now_ms: int = 0, holder: bytes = LIAR) -> None:
    for entity in entities:
        court.testify(f"entity-{entity}", "cores", {holder: shows}, now_ms)


def test_a_holder_that_hides_from_most_is_shunned_for_a_day() -> None:
    court = Court()
    tell(court, range(VOICES_AHEAD - 1), False)
    assert court.shunned(0) == []
    tell(court, range(VOICES_AHEAD - 1, VOICES_AHEAD), False)
    assert court.shunned(0) == [LIAR] == court.shunned(SHUNNED_MS - 1)
    assert court.shunned(SHUNNED_MS) == []


def test_one_entity_has_one_voice_however_often_it_speaks() -> None:
    court = Court()
    for _ in range(100):
        court.testify("enemy", "cores", {HONEST: False}, 0)
    assert court.shunned(0) == []


def test_a_fifth_of_liars_convicts_nobody_whom_the_others_see() -> None:
    court = Court()
    for fifth in range(12):
        tell(court, range(5 * fifth, 5 * fifth + 4), True, holder=HONEST)
        tell(court, range(5 * fifth + 4, 5 * fifth + 5), False, holder=HONEST)
    assert court.shunned(0) == []


def test_liars_who_happen_to_speak_first_convict_nobody() -> None:
    """As seen: nine of thirteen voices about an honest holder, where 15 of its 56 rows were liars'."""
    court = Court()
    for number, shows in enumerate((0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0)):
        tell(court, range(number, number + 1), bool(shows), holder=HONEST)
    assert court.shunned(0) == []


def test_old_voices_do_not_count() -> None:
    court = Court()
    tell(court, range(VOICES_AHEAD - 1), False)
    tell(court, range(VOICES_AHEAD - 1, VOICES_AHEAD), False, HEARD_MS)
    assert court.shunned(HEARD_MS) == []


def test_who_hides_in_one_dimension_alone_is_shunned_all_the_same() -> None:
    court = Court()
    for entity in range(60):
        court.testify(f"entity-{entity}", "memory.available", {LIAR: True}, 0)
    tell(court, range(VOICES_AHEAD), False)
    assert court.shunned(0) == [LIAR]


def test_servers_testify_and_every_member_learns_whom_to_shun() -> None:
    world = World()
    told: list[list[tuple[bytes, bytes]]] = []
    world.service.shun = lambda members: told.append(list(members))
    liar, client = world.member("liar", "server"), world.member("client", "client")
    servers = [world.member(f"server-{number}", "server") for number in range(VOICES_AHEAD)]
    for server in servers:
        assert world.do(client, "holders.shunned") == {"shunned": []}
        seen = [[liar.public_key, False], [servers[0].public_key, True]][: 1 if server is servers[0] else 2]
        answer = world.do(server, "holders.testify", dimension="cores", seen=seen)
    raw = world.do(None, "member", key=liar.public_key)["credential"]
    nonce = world.trust.credential(raw, world.now_ms).issuer_nonce
    assert answer == world.do(client, "holders.shunned") == {"shunned": [[liar.public_key, nonce]]}
    assert told == [[(liar.public_key, nonce)]]


def test_testimony_that_nobody_may_give_is_refused() -> None:
    world = World()
    server, client = world.member("server", "server"), world.member("client", "client")
    good = [[client.public_key, False]]
    for who, seen in (
        (client, good),
        (None, good),
        (server, [[b"short", False]]),
        (server, "all"),
        (server, good * 999),
    ):
        with pytest.raises(ControlError):
            world.do(who, "holders.testify", dimension="cores", seen=seen)
    with pytest.raises(ControlError):
        world.do(server, "holders.testify", dimension="cores", seen=[[server.public_key, False]])


def test_a_dimension_that_the_schema_does_not_have_is_nobodys_to_speak_of() -> None:
    world = World()
    accused = world.member("accused", "server")
    for number in range(VOICES_AHEAD):
        liar = world.member(f"liar-{number}", "server")
        for invented in ("invented", "Cores", "cores ", ""):
            with pytest.raises(ControlError):
                world.do(liar, "holders.testify", dimension=invented, seen=[[accused.public_key, False]])
    assert world.do(accused, "holders.shunned") == {"shunned": []}


def test_thirty_six_that_agree_outvote_any_number() -> None:
    """What voices in a chosen order can do: the bound that court.py names."""
    for liars in (35, 36):
        court = Court()
        tell(court, range(300), True, holder=HONEST)
        tell(court, range(300, 300 + liars), False, holder=HONEST)
        assert bool(court.shunned(0)) == (liars == 36)
