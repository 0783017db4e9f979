"""A central index of all adverts, twice: tables of SQLite with an index a column, and numpy columns.

Decides how a query becomes SQL, independently of the filters that holders use, so that it can judge them. One server
answers one question; what its answer is too large for counts as pages, as everywhere.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from summaries.cost import CostTest, cost_of
from summaries.filter import Comparison, CompiledFilter, furthest
from summaries.point import Point, Rows
from summaries.query import AllOf, AnyOf, Condition, Near, Not, Query, filter_of, matcher
from summaries.rank import Order
from summaries.schema import Schema
from summaries.zone import WORD_BITS, words_of
from xenonode.simulation.search_bench.adverts import AdvertSet

_NUMBERS = (
    "cpu.total", "cpu.available", "cores", "memory.total", "memory.available", "disk.total", "disk.available",
    "net.total", "net.available", "price.cpu", "price.memory", "price.disk", "price.net", "uptime",
)  # fmt: skip
_TEXTS = ("currency", "country", "region", "owner")

FIRST_ROWS = 8_192  # that are counted at first


class SqliteIndex:
    """All adverts in one table."""

    def __init__(self, adverts: AdvertSet) -> None:
        self._base = sqlite3.connect(":memory:")
        self._base.create_function("furthest", -1, _furthest, deterministic=True)
        self._base.create_function("bundle_cost", 6, _bundle_cost, deterministic=True)
        columns = [f'"{name}" INTEGER' for name in _NUMBERS] + [f'"{name}" TEXT' for name in _TEXTS]
        columns += ["features TEXT", "environments TEXT", "x INTEGER", "y INTEGER", "z INTEGER", "height INTEGER"]
        self._base.execute(f"CREATE TABLE advert (id INTEGER PRIMARY KEY, {', '.join(columns)})")
        marks = ", ".join("?" * (len(columns) + 1))
        self._base.executemany(f"INSERT INTO advert VALUES ({marks})", (_row(point) for point, _ in adverts.adverts))
        for name in (*_NUMBERS, "country"):
            self._base.execute(f'CREATE INDEX "by {name}" ON advert ("{name}")')
        self._base.execute("ANALYZE")

    def ids(self, query: Query) -> list[int]:
        """The ids that match, best first, as far as the limit."""
        values: list[Any] = []
        where = _sql(query.where, values)
        order = query.order
        text = f"SELECT id FROM advert WHERE {where}"
        if order.by == "latency":
            text += f" ORDER BY furthest(x, y, z, height, {_numbers(order)}), id"
        elif order.by == "cost":
            prices = '"price.cpu", "price.memory", "price.disk"'
            text += f" ORDER BY bundle_cost({prices}, {', '.join(map(str, order.amounts))}), id"
        elif order.by:
            text += f' ORDER BY "{order.by}" {"DESC" if order.descending else "ASC"}, id'
        if query.limit is not None and order.by:
            text += " LIMIT ?"
            values.append(query.limit * 50)  # equal ranks: ids break ties as unsigned numbers, which SQL has not
        found = [one[0] & (1 << 64) - 1 for one in self._base.execute(text, values)]
        return found if order.by else found[: query.limit]


class NumpyIndex:
    """All adverts as the columns of one large leaf."""

    def __init__(self, schema: Schema, adverts: AdvertSet) -> None:
        self._schema = schema
        self._rows = Rows(schema)
        for point, raw in adverts.adverts:
            self._rows.put(point, 0, raw)
        masks = b"".join(words_of(point).to_bytes(WORD_BITS // 8, "little") for point, _ in adverts.adverts)
        self._words = np.frombuffer(masks, dtype=np.uint64).reshape(-1, WORD_BITS // 64)

    def points(self, query: Query) -> list[Point]:
        """The adverts that match, best first, as far as the limit."""
        holds = matcher(query.where)
        found = [self._rows.points[place] for place in self._places(query)]
        found = [point for point in found if holds(point.attributes)]
        ordered = sorted((query.order.rank(point.attributes), point.id) for point in found)
        by_id = {point.id: point for point in found}
        return [by_id[id] for _, id in ordered[: query.limit]]

    def count(self, query: Query, most: int) -> int:
        """How many adverts match, limit or not; beyond `most`, one more than that."""
        holds = matcher(query.where)
        found = begin = 0
        while begin < len(self._rows):
            end = max(FIRST_ROWS, 4 * begin)  # what matches many is told by the first rows of a million
            for place in self._places(query, begin, end):
                found += holds(self._rows.points[place].attributes)
                if found > most:
                    return found
            begin = end
        return found

    def _places(self, query: Query, begin: int = 0, end: int | None = None) -> list[int]:
        """Where what matches is among some rows, and perhaps more: by columns of numbers and of words."""
        rows, words = self._rows.array[begin:end], self._words[begin:end]
        chosen = np.zeros(len(rows), dtype=np.bool_)
        for term in CompiledFilter(self._schema, filter_of(query)[0]).terms:
            mask = term.select(rows)
            if term.words:
                wanted = np.frombuffer(term.words.to_bytes(WORD_BITS // 8, "little"), dtype=np.uint64)
                mask &= ((words & wanted) == wanted).all(axis=1)
            chosen |= mask
        return (np.flatnonzero(chosen) + begin).tolist()


def best(query: Query, adverts: AdvertSet, ids: Sequence[int]) -> list[int]:
    """Ids in the platform's order: by rank, equal ones by id; as far as the limit."""
    ordered = sorted((query.order.rank(adverts.by_id[id].attributes), id) for id in ids)
    return [id for _, id in ordered[: query.limit]]


def _row(point: Point) -> tuple[Any, ...]:
    values = cast("dict[str, Any]", point.attributes)
    numbers = [values[name] for name in _NUMBERS] + [values[name] for name in _TEXTS]
    features = "|" + "|".join(values["feature"]) + "|"
    environments = "|" + "|".join(f"{kind}={name}" for kind, name, _ in point.environments) + "|"
    signed = point.id - (1 << 64) if point.id >> 63 else point.id
    return (signed, *numbers, features, environments, *point.location)


def _sql(where: Condition, values: list[Any]) -> str:
    if isinstance(where, (AllOf, AnyOf)):
        word = " AND " if isinstance(where, AllOf) else " OR "
        return "(" + (word.join(_sql(part, values) for part in where.parts) or "1") + ")"
    if isinstance(where, Not):
        return f"NOT {_sql(where.part, values)}"
    if isinstance(where, Near):
        hosts = ", ".join(str(part) for host in where.hosts for part in host)
        values.append(where.limit_us)
        return f"furthest(x, y, z, height, {hosts}) <= ?"
    if isinstance(where, CostTest):
        values += [where.limit, where.currency]
        prices = '"price.cpu", "price.memory", "price.disk"'
        cost = f"bundle_cost({prices}, {', '.join(map(str, where.bundle))})"
        text = f'({cost} {where.operator} ? AND "currency" = ?)'
        return f"NOT {text}" if where.negated else text
    return _comparison(where, values)


def _comparison(test: Comparison, values: list[Any]) -> str:
    if test.attribute in ("feature", "os", "platform"):
        column, word = ("features", test.value) if test.attribute == "feature" else (
            "environments", f"{test.attribute}={test.value}")  # fmt: skip
        values.append(f"%|{word}|%")
        return f"{column} {'LIKE' if test.operator == '=' else 'NOT LIKE'} ?"
    values.append(test.value)
    text = f'"{test.attribute}" {test.operator} ?'
    if test.currency:
        values.append(test.currency)
        text = f'({text} AND "currency" = ?)'
    return f"NOT {text}" if test.negated else text


def _numbers(order: Order) -> str:
    return ", ".join(str(part) for host in order.hosts for part in host)


def _bundle_cost(cpu: int, memory: int, disk: int, *bundle: int) -> int:
    return cost_of((bundle[0], bundle[1], bundle[2]), (cpu, memory, disk))


def _furthest(x: int, y: int, z: int, height: int, *hosts: int) -> int:
    places = [(hosts[at], hosts[at + 1], hosts[at + 2], hosts[at + 3]) for at in range(0, len(hosts), 4)]
    return furthest(places, (x, y, z, height))
