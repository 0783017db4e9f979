"""Whom all members shun, by what publishers say of holders."""

from __future__ import annotations

from xenonode.corp.court import HEARD_MS, SHUNNED_MS, VOICES_LEAST, Court

LIAR, HONEST = b"liar", b"honest"


def tell(court: Court, entities: range, shows: bool, now_ms: int = 0, holder: bytes = LIAR) -> None:
    for entity in entities:
        court.testify(f"entity-{entity}", "cores", {holder: shows}, now_ms)


def test_a_holder_that_hides_from_most_is_shunned_for_a_day() -> None:
    court = Court()
    tell(court, range(VOICES_LEAST - 1), False)
    assert court.shunned(0) == []
    tell(court, range(VOICES_LEAST - 1, VOICES_LEAST), False)
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


def test_old_voices_do_not_count() -> None:
    court = Court()
    tell(court, range(VOICES_LEAST - 1), False)
    tell(court, range(VOICES_LEAST - 1, VOICES_LEAST), False, HEARD_MS)
    assert court.shunned(HEARD_MS) == []


def test_who_hides_in_one_dimension_alone_is_shunned_all_the_same() -> None:
    court = Court()
    for entity in range(60):
        court.testify(f"entity-{entity}", "memory.available", {LIAR: True}, 0)
    tell(court, range(VOICES_LEAST), False)
    assert court.shunned(0) == [LIAR]
