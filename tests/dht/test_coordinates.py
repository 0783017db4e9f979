"""Network coordinates: they learn distances, and no liar can break them."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured import Study, measured_ms

from dht.coordinates import MAX_EXTENT_MS, MAX_LINKS, Coordinate, Locator


def test_coordinates_learn_the_distances_of_a_plane_with_access_links() -> None:
    rng = random.Random(1)
    places = [(rng.uniform(0, 120), rng.uniform(0, 120), rng.uniform(1, 15)) for _ in range(40)]
    nodes = [Locator(random.Random(n)) for n in range(40)]

    def true_ms(one: int, other: int) -> float:
        return math.dist(places[one][:2], places[other][:2]) + places[one][2] + places[other][2]

    for _ in range(400):
        for one in range(40):
            other = rng.randrange(40)
            if other != one:
                jitter = rng.expovariate(1) * 3 if rng.random() < 0.2 else 0
                nodes[one].observe(other, true_ms(one, other) + jitter, nodes[other].coordinate)
    errors = [
        abs(nodes[a].coordinate.distance_ms(nodes[b].coordinate) - true_ms(a, b)) / true_ms(a, b)
        for a in range(40)
        for b in range(a)
    ]
    assert sorted(errors)[len(errors) // 2] < 0.12
    assert all(node.coordinate.error < 0.5 for node in nodes)


coordinates = st.builds(
    Coordinate,
    st.floats(-MAX_EXTENT_MS, MAX_EXTENT_MS),
    st.floats(-MAX_EXTENT_MS, MAX_EXTENT_MS),
    st.floats(-MAX_EXTENT_MS, MAX_EXTENT_MS),
    st.floats(0, MAX_EXTENT_MS),
    st.floats(0, 1.5),
)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(), coordinates), max_size=30))
def test_any_samples_leave_a_coordinate_on_the_map(samples: list[tuple[int, float, Coordinate]]) -> None:
    locator = Locator(random.Random(0))
    for link, rtt_ms, peer in samples:
        before = locator.coordinate
        after = locator.observe(link, rtt_ms, peer)
        moved = math.dist((before.x_ms, before.y_ms, before.z_ms), (after.x_ms, after.y_ms, after.z_ms))
        assert math.isfinite(after.distance_ms(peer)) and moved <= 2 * MAX_EXTENT_MS


@given(coordinates, coordinates)
def test_distance_is_symmetric_and_fields_survive(one: Coordinate, other: Coordinate) -> None:
    assert one.distance_ms(other) == pytest.approx(other.distance_ms(one))
    again = Coordinate.from_fields(one.to_fields())
    assert again.distance_ms(other) == pytest.approx(one.distance_ms(other), abs=0.01)


@pytest.mark.parametrize(
    "fields", [[2**31, 0, 0, 0, 0], [0, 0, 0, -1, 0], [0, 0, 0, 0, 2_000_000], [6_000_000, 0, 0, 0, 0]]
)
def test_places_off_the_map_are_refused(fields: list[int]) -> None:
    with pytest.raises(ValueError, match="coordinate"):
        Coordinate.from_fields(fields)


def test_one_outlier_in_three_samples_changes_nothing() -> None:
    calm, shaken = Locator(random.Random(2)), Locator(random.Random(2))
    peer = Coordinate(10, 0, 0, 1, 0.2)
    for n in range(60):
        calm.observe("link", 30, peer)
        shaken.observe("link", 900 if n % 3 == 2 else 30, peer)
    assert shaken.coordinate.distance_ms(peer) == pytest.approx(calm.coordinate.distance_ms(peer), rel=0.1)


def test_the_links_remembered_are_bounded() -> None:
    locator = Locator(random.Random(0))
    for link in range(3 * MAX_LINKS):
        locator.observe(link, 10, Coordinate(5, 5, 5, 1, 1))
    assert len(locator._links) == MAX_LINKS


def test_coordinates_of_measured_hosts_are_right_to_a_tenth_after_200_samples() -> None:
    """Half of the hosts and two seeds here; scripts/bench_coordinates has all of them and ten."""
    matrix = measured_ms(245)
    medians = []
    for seed in range(2):
        study = Study(matrix, seed)
        study.sample(200)
        medians.append(study.accuracy().median)
    assert sum(medians) / len(medians) <= 0.105


def test_coordinates_do_not_drift_away_in_a_day_of_noisy_samples() -> None:
    """A sample each 15 s; of 30 hosts here, of all in scripts/bench_coordinates."""
    study = Study(measured_ms(30), 1, noisy=True)
    study.sample(500)
    begun = study.accuracy()
    for _ in range(6):
        study.sample(4 * 3_600 // 15)
        assert math.hypot(*study.accuracy().centre_ms) < 50
    assert study.accuracy().median <= 1.1 * begun.median
