"""Questions with what they mean, each as a text for the search and as a mask over plain columns.

Decides the classes and the mix. Shares nothing with the search: no parser, no filter, no rank; values come straight
from what the catalogue says of a machine. A mask is numpy over every advert, so ten thousand are quickly judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

NANO = 1_000_000_000
MANY = 1_000
DRAWS_MAX = 40  # of one question with 1 to 1,000 answers, for the share of questions that should have so many
FEW_SHARE = 0.75  # of questions; the others may match nothing or nearly everything
_AMOUNTS = {"cpu.available": "ms/s", "memory.available": "B", "disk.available": "B", "net.available": "bit/s"}
_AMOUNTS |= {"cores": "", "cpu.total": "ms/s", "memory.total": "B", "disk.total": "B", "net.total": "bit/s"}
_AMOUNTS |= {"uptime": "s"}
_PRICES = {"price.cpu": "h", "price.memory": "GiB/h", "price.disk": "GiB/h", "price.net": "GiB"}

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]


class Columns:
    """Every advert's values, by attribute."""

    def __init__(self, ids: Sequence[int], values: Sequence[Mapping[str, Any]]) -> None:
        self.ids, self.values = list(ids), list(values)
        self.number: dict[str, Numbers] = {
            name: np.array([each[name] for each in values], dtype=np.int64) for name in (*_AMOUNTS, *_PRICES)
        }
        self.place: NDArray[np.int64] = np.array([each["location"] for each in values], dtype=np.int64)
        self.dollars = np.array([each["currency"] == "USD" for each in values])

    def word(self, name: str, wanted: str) -> Mask:
        """Who has this word."""
        return np.array([wanted == each[name] or wanted in _set(each[name]) for each in self.values])

    def offers(self, kind: str, name: str) -> Mask:
        """Who offers an environment."""
        return np.array([any(one[:2] == (kind, name) for one in each["environments"]) for each in self.values])

    def distance(self, host: tuple[int, int, int, int]) -> Numbers:
        """Microseconds to a host: Euclid's distance, whole, plus both heights."""
        squares = ((self.place[:, :3] - np.array(host[:3])) ** 2).sum(axis=1)
        root = np.sqrt(squares.astype(np.float64)).astype(np.int64)
        root -= root * root > squares  # where the float was rounded up
        root += (root + 1) ** 2 <= squares
        return np.asarray(root + self.place[:, 3] + host[3], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Part:
    """A condition: its text, and who meets it."""

    text: str
    mask: Mask


@dataclass(frozen=True, slots=True)
class Question:
    """A whole question; with a limit, `ranks` says who comes first, or nothing does."""

    kind: str
    text: str
    mask: Mask
    limit: int | None = None
    ranks: Numbers | None = None

    def verdict(self, found: Sequence[int], columns: Columns) -> tuple[int, int, int]:
        """How many were due, how many of these were found, and how many were found that must not be."""
        place = {id: number for number, id in enumerate(columns.ids)}
        places = [place[id] for id in found]
        right = [one for one in places if self.mask[one]]
        wrong = len(places) - len(set(right))
        matching = np.flatnonzero(self.mask)
        if self.limit is None:
            return len(matching), len(set(right)), wrong
        due = min(self.limit, len(matching))
        wrong += max(len(places) - due, 0)
        if self.ranks is None:
            return due, min(len(set(right)), due), wrong
        # Equal ranks may come in any order: the ranks themselves must be the least there are.
        best = sorted(self.ranks[matching].tolist())[:due]
        mine = [int(self.ranks[one]) for one in right]
        return due, sum(one == two for one, two in zip(best, mine)), wrong


def _set(value: Any) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else ()


class Drawing:
    """Draws questions around adverts that exist."""

    def __init__(self, rng: Random, columns: Columns) -> None:
        self._rng, self._columns = rng, columns
        self._classes: dict[str, Callable[[], Question]] = {
            "amounts": lambda: self._all("amounts", self._amount, self._rng.randint(1, 4)),
            "between": lambda: self._all("between", self._between, self._rng.randint(1, 3)),
            "prices": lambda: self._all("prices", self._price, self._rng.randint(1, 3)),
            "words": lambda: self._all("words", self._word, self._rng.randint(1, 3)),
            "environments": lambda: self._all("environments", self._environment, self._rng.randint(1, 2)),
            "mixed": lambda: self._all("mixed", self._any, self._rng.randint(2, 5)),
            "either": self._either,
            "not": self._not,
            "near": lambda: self._all("near", self._near, 1),
            "cheapest": self._cheapest,
            "cheapest within": self._cheapest_within,
            "nearest": self._nearest,
            "some": self._some,
        }

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self._classes)

    def begin(self, seed: str) -> Random:
        """Draw from here on what this seed draws, whatever was drawn before."""
        self._rng.seed(seed)
        return self._rng

    def draw(self, kind: str) -> Question:
        """One question of a class."""
        drawn = self._classes[kind]()
        if self._rng.random() < FEW_SHARE:
            for _ in range(DRAWS_MAX):
                if 1 <= int(drawn.mask.sum()) <= MANY:
                    break
                drawn = self._classes[kind]()
        return drawn

    # ----- conditions

    def _one(self) -> Mapping[str, Any]:
        return self._rng.choice(self._columns.values)

    def _amount(self) -> Part:
        name = self._rng.choice(list(_AMOUNTS))
        column, value, sign = self._columns.number[name], int(self._one()[name]), self._rng.choice((">=", ">=", "<="))
        return Part(f"{name} {sign} {value} {_AMOUNTS[name]}", column >= value if sign == ">=" else column <= value)

    def _between(self) -> Part:
        name = self._rng.choice(list(_AMOUNTS))
        low, high = sorted(int(self._one()[name]) for _ in range(2))
        column, unit = self._columns.number[name], _AMOUNTS[name]
        word = self._rng.choice(("in", "between"))
        return Part(f"{name} {word} [{low} {unit}, {high} {unit}]", (column >= low) & (column <= high))

    def _price(self) -> Part:
        name = self._rng.choice(list(_PRICES))
        value, sign = int(self._one()[name]), self._rng.choice(("<=", "<=", "<", ">="))
        column = self._columns.number[name]
        mask = {"<=": column <= value, "<": column < value, ">=": column >= value}[sign] & self._columns.dollars
        return Part(f"{name} {sign} {value // NANO}.{value % NANO:09} USD/{_PRICES[name]}", mask)

    def _word(self) -> Part:
        name, one = self._rng.choice(("country", "region", "owner", "feature")), self._one()
        words = _set(one[name]) if name == "feature" else (str(one[name]),)
        if not words:
            return self._word()
        word = self._rng.choice(words)
        if self._rng.random() < 0.2:
            return Part(f'{name} != "{word}"', ~self._columns.word(name, word))
        if name in ("country", "region") and self._rng.random() < 0.4:
            other = str(self._one()[name])
            either = self._columns.word(name, word) | self._columns.word(name, other)
            return Part(f'{name} in ("{word}", "{other}")', either)
        return Part(f'{name} = "{word}"', self._columns.word(name, word))

    def _environment(self) -> Part:
        kind, name, _ = self._rng.choice(self._one()["environments"])
        mask = self._columns.offers(kind, name)
        if self._rng.random() < 0.5:
            return Part(f'{kind} = "{name}"', mask)
        least = self._rng.choice((0, 1, 1, 1, 2))  # all that are offered are of version 1
        return Part(f"{kind}.{name} >= {least}", mask if least <= 1 else np.zeros_like(mask))

    def _near(self) -> Part:
        x, y, z, height = (int(part) for part in self._one()["location"])
        within = self._rng.choice((5, 20, 40, 80, 160))
        mask = self._columns.distance((x, y, z, height)) <= within * 1_000
        spelt = ", ".join(f"{part / 1000:.3f}" for part in (x, y, z, height))
        return Part(f"near(coord({spelt}), {within} ms)", mask)

    def _any(self) -> Part:
        return self._rng.choice((self._amount, self._amount, self._price, self._word, self._environment))()

    # ----- questions

    def _all(self, kind: str, part: Callable[[], Part], parts: int) -> Question:
        return _joined(kind, [part() for _ in range(parts)])

    def _either(self) -> Question:
        terms = [self._all("either", self._any, self._rng.randint(1, 3)) for _ in range(self._rng.randint(2, 3))]
        mask = terms[0].mask
        for one in terms[1:]:
            mask = mask | one.mask
        return Question("either", " or ".join(f"({one.text})" for one in terms), mask)

    def _not(self) -> Question:
        kept, left = self._any(), self._rng.choice((self._amount, self._word, self._environment))()
        return Question("not", f"{kept.text} and not {left.text}", kept.mask & ~left.mask)

    def _cheapest(self) -> Question:
        return self._by_price(self._all("cheapest", self._any, self._rng.randint(1, 3)))

    def _cheapest_within(self) -> Question:
        return self._by_price(_joined("cheapest within", [self._near(), self._any()][: self._rng.randint(1, 2)]))

    def _by_price(self, where: Question) -> Question:
        name, limit = self._rng.choice(list(_PRICES)), self._rng.randint(1, 40)
        # What is priced in another currency cannot be compared, and comes last.
        ranks = np.where(self._columns.dollars, self._columns.number[name], np.int64(1) << 62)
        return Question(where.kind, f"{where.text} order by {name} limit {limit}", where.mask, limit, ranks)

    def _nearest(self) -> Question:
        where = self._all("nearest", self._any, self._rng.randint(1, 2))
        x, y, z, height = (int(part) for part in self._one()["location"])
        spelt = ", ".join(f"{part / 1000:.3f}" for part in (x, y, z, height))
        distance, within, limit = self._columns.distance((x, y, z, height)), 120, self._rng.randint(1, 40)
        text = f"near(coord({spelt}), {within} ms) and {where.text} order by latency limit {limit}"
        return Question("nearest", text, where.mask & (distance <= within * 1_000), limit, distance)

    def _some(self) -> Question:
        where, limit = self._all("some", self._any, self._rng.randint(1, 3)), self._rng.randint(1, 100)
        return Question("some", f"{where.text} limit {limit}", where.mask, limit)


def _joined(kind: str, parts: Sequence[Part]) -> Question:
    """All of them must be met."""
    mask = parts[0].mask
    for one in parts[1:]:
        mask = mask & one.mask
    return Question(kind, " and ".join(one.text for one in parts), mask)
