"""Coordinates on a measured network: real `Locator`s sample a matrix of round trips, and are compared with it."""

from __future__ import annotations

import gzip
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dht.coordinates import Locator

MATRIX = Path(__file__).parent.parent / "data" / "planetlab-490-rtt-ms.csv.gz"

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Relative errors over all pairs, and where the middle of all nodes lies."""

    median: float
    p90: float
    centre_ms: tuple[float, float, float]


def measured_ms(nodes: int | None = None, seed: int = 0) -> Matrix:
    """Round trips between the measured nodes, or between so many of them drawn by chance."""
    with gzip.open(MATRIX, "rt") as file:
        whole = np.loadtxt(file, delimiter=",")
    if nodes is None:
        return whole
    chosen = sorted(random.Random(seed).sample(range(len(whole)), nodes))
    return whole[np.ix_(chosen, chosen)]


class Study:
    """One run: every node takes samples of random others."""

    def __init__(self, matrix: Matrix, seed: int, *, noisy: bool = False) -> None:
        self._matrix = matrix
        self._rtt_ms = matrix.tolist()
        self._rng = random.Random(seed)
        self._noisy = noisy
        self.nodes = [Locator(random.Random(self._rng.random())) for _ in self._rtt_ms]

    def sample(self, rounds: int) -> None:
        """Every node measures one random other in each round; noise adds queues to a tenth of the samples."""
        rng, count = self._rng, len(self.nodes)
        order = list(range(count))
        for _ in range(rounds):
            rng.shuffle(order)
            for own in order:
                other = rng.randrange(count)
                rtt_ms = self._rtt_ms[own][other]
                while rtt_ms <= 0:
                    other = rng.randrange(count)
                    rtt_ms = self._rtt_ms[own][other]
                if self._noisy and rng.random() < 0.1:
                    rtt_ms += rng.expovariate(1 / 100)
                self.nodes[own].observe(other, rtt_ms, self.nodes[other].coordinate)

    def accuracy(self) -> Accuracy:
        """All pairs compared with what was measured."""
        places = [node.coordinate for node in self.nodes]
        flat = np.array([[each.x_ms, each.y_ms, each.z_ms] for each in places])
        heights = np.array([each.height_ms for each in places])
        predicted = np.sqrt(((flat[:, None] - flat[None]) ** 2).sum(axis=2)) + heights[:, None] + heights[None]
        one, other = np.triu_indices(len(places), 1)
        true = self._matrix[one, other]
        errors = np.abs(predicted[one, other] - true)[true > 0] / true[true > 0]
        x, y, z = (float(part) for part in flat.mean(axis=0))
        return Accuracy(float(np.median(errors)), float(np.percentile(errors, 90)), (x, y, z))
