"""Where somebody is who takes no part: a network coordinate from round trips that landmarks measured.

Decides the place (and height) whose distances to the landmarks fit the measured times best, by damped least squares
from several starts, and how far off those distances are. Four unknowns want four landmarks; fewer give a guess, whose
error says little. Times are relative: a millisecond wrong matters more at five than at a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from summaries.attributes import MAX_COORDINATE_US
from summaries.errors import LocalError
from summaries.filter import Coordinate

Floats = NDArray[np.float64]
LEAST_LANDMARKS = 3
_STEPS = 60  # of each start; most end after ten
_FLOOR_US = 500.0  # times below this are weighed alike: they are mostly processing


@dataclass(frozen=True, slots=True)
class Estimate:
    """`error_us` is the mean by which distances to the landmarks miss what was measured."""

    place: Coordinate
    error_us: int


def locate(measured: Sequence[tuple[Coordinate, int]]) -> Estimate:
    """The coordinate that fits (landmark, round trip in us) best. LocalError for too few."""
    if len(measured) < LEAST_LANDMARKS:
        raise LocalError(f"{len(measured)} landmarks do not tell a place; {LEAST_LANDMARKS} are the least")
    places = np.array([place[:3] for place, _ in measured], dtype=np.float64)
    heights = np.array([place[3] for place, _ in measured], dtype=np.float64)
    times = np.array([time for _, time in measured], dtype=np.float64)
    weights = 1.0 / np.maximum(times, _FLOOR_US)
    nearest = places[np.argsort(times, kind="stable")]
    starts = [nearest[0] + 1.0, places.mean(axis=0), nearest[:2].mean(axis=0)]
    # On either side of the plane that the landmarks may nearly lie in.
    starts += [places.mean(axis=0) + shift * times.mean() for shift in np.vstack([np.eye(3), -np.eye(3)])]
    fits = [_descend(np.append(start, 0.0), places, heights, times, weights) for start in starts]
    best = min(fits, key=lambda one: one[1])[0]
    error = float(np.abs(_distances(best, places, heights) - times).mean())
    x, y, z, height = (round(min(max(value, -MAX_COORDINATE_US), MAX_COORDINATE_US)) for value in best.tolist())
    return Estimate((x, y, z, max(height, 0)), round(error))


def _distances(at: Floats, places: Floats, heights: Floats) -> Floats:
    found: Floats = np.sqrt(((places - at[:3]) ** 2).sum(axis=1)) + heights + at[3]
    return found


def _descend(
    at: Floats,
    places: Floats,
    heights: Floats,
    times: Floats,
    weights: Floats,
) -> tuple[Floats, float]:
    """Levenberg and Marquardt's method, with a height that is not below zero."""
    damping = 1e-2
    missed = (_distances(at, places, heights) - times) * weights
    cost = float(missed @ missed)
    for _ in range(_STEPS):
        away = at[:3] - places
        length = np.maximum(np.sqrt((away**2).sum(axis=1)), 1.0)
        slope = np.hstack([away / length[:, None], np.ones((len(places), 1))]) * weights[:, None]
        square = slope.T @ slope
        step = np.linalg.solve(square + damping * (np.diag(np.diag(square)) + 1e-18 * np.eye(4)), slope.T @ missed)
        moved = at - step
        moved[3] = max(moved[3], 0.0)
        missed_there = (_distances(moved, places, heights) - times) * weights
        cost_there = float(missed_there @ missed_there)
        if cost_there < cost:
            small = cost - cost_there < 1e-12 * cost
            at, missed, cost, damping = moved, missed_there, cost_there, max(damping / 4, 1e-12)
            if small:
                break
        elif damping > 1e8:
            break
        else:
            damping *= 8
    return at, cost
