"""A place is found again from its distances to landmarks, as well as those were measured."""

from __future__ import annotations

from random import Random

import pytest

from summaries.errors import LocalError
from summaries.filter import Coordinate, furthest
from summaries.trilateration import locate


def landmarks(random: Random, count: int) -> list[Coordinate]:
    places = [[round(random.uniform(-120_000, 120_000)) for _ in range(3)] for _ in range(count)]
    return [(x, y, z, random.randrange(4_000)) for x, y, z in places]


def test_exact_times_tell_the_place() -> None:
    random = Random(1)
    for _ in range(30):
        [host, *others] = landmarks(random, 11)
        found = locate([(one, furthest((host,), one)) for one in others])
        assert found.error_us < 100 and furthest(((*host[:3], 0),), (*found.place[:3], 0)) < 2_000


def test_noise_of_a_tenth_moves_it_by_about_that_much() -> None:
    random, missed = Random(2), []
    for _ in range(40):
        [host, *others] = landmarks(random, 11)
        found = locate([(one, round(furthest((host,), one) * random.uniform(1.0, 1.2))) for one in others])
        target = landmarks(random, 1)[0]
        true, told = furthest((host,), target), furthest((found.place,), target)
        missed.append(abs(told - true) / true)
    missed.sort()
    assert missed[20] < 0.15 and missed[35] < 0.5


def test_too_few_and_degenerate_landmarks_end_well() -> None:
    with pytest.raises(LocalError):
        locate([((0, 0, 0, 0), 5)] * 2)
    same = locate([((5, 5, 5, 0), 1_000)] * 4)
    assert abs(same.error_us) < 1_000 and same.place[3] >= 0
    assert locate([((0, 0, 0, 0), 1)] * 3).place[3] >= 0
