"""A query: its condition as a tree, its meaning on an advert, its text, and its travelling form.

Decides what a query means (`matches`: exact integers, versions as tuples, prices only in the
advert's own currency) and how it is printed so that parsing gives the same query back. parse.py
reads text; plan.py decides where to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from summaries.attributes import ATTRIBUTES, ENVIRONMENT_KINDS, NANO, Attributes
from summaries.cost import Bundle, CostTest
from summaries.errors import LocalError
from summaries.filter import MAX_TERMS, MAX_TESTS, Comparison, Coordinate, Filter, Term, Within, prepared
from summaries.rank import Order
from summaries.size import packed_size

MAX_FILTER_BYTES = 640  # leaves room in a 1,100-byte question for its order, cursor and addresses


@dataclass(frozen=True, slots=True)
class Near:
    """Within `limit_us` of every host. A host is a name to resolve, or a coordinate already."""

    hosts: tuple[str | Coordinate, ...]
    limit_us: int


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds (a conjunction). Without parts: everything matches."""

    parts: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds (a disjunction)."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Condition


Condition = Comparison | CostTest | Near | AllOf | AnyOf | Not
Matcher = Callable[[Attributes], bool]


@dataclass(frozen=True, slots=True)
class Query:
    where: Condition = AllOf()
    order: Order = field(default_factory=Order)
    limit: int | None = None

    def hosts(self) -> tuple[str, ...]:
        """The names that the driver must resolve to coordinates before the query can run."""
        return tuple(dict.fromkeys(name for near in _nears(self.where) for name in near.hosts if isinstance(name, str)))

    def resolve(self, places: Mapping[str, Coordinate], origin: Coordinate | None = None) -> Query:
        """The query with names replaced by coordinates; latency is to near's hosts, else to `origin`, for good."""
        where = _resolve(self.where, places)
        order = self.order
        if "latency" in order.keys and not order.hosts:
            found = [host for near in _nears(where) for host in near.hosts if not isinstance(host, str)]
            if not found and origin is None:
                raise LocalError("order by latency needs near(...) or a coordinate of our own")
            order = replace(order, hosts=tuple(dict.fromkeys(found)) or (origin or (0, 0, 0, 0),))
        return Query(where, order, self.limit)


def conjunction(*parts: Condition) -> Condition:
    """All of these, flattened: what `and` means."""
    flat = [one for part in parts for one in (part.parts if isinstance(part, AllOf) else (part,))]
    return flat[0] if len(flat) == 1 else AllOf(tuple(flat))


def disjunction(*parts: Condition) -> Condition:
    """Any of these, flattened: what `or` means."""
    flat = [one for part in parts for one in (part.parts if isinstance(part, AnyOf) else (part,))]
    return flat[0] if len(flat) == 1 else AnyOf(tuple(flat))


def negation(part: Condition) -> Condition:
    return part.part if isinstance(part, Not) else Not(part)


def matches(query: Query | Condition, attributes: Attributes) -> bool:
    """Whether an advert matches, exactly."""
    return matcher(query.where if isinstance(query, Query) else query)(attributes)


def matcher(where: Condition) -> Matcher:
    """The same as a function, for who matches many adverts with one condition."""
    if isinstance(where, (Comparison, CostTest)):
        return prepared((where,))
    if isinstance(where, Near):
        return _within(where).holds
    if isinstance(where, Not):
        inner = matcher(where.part)
        return lambda attributes: not inner(attributes)
    every = isinstance(where, AllOf)
    tests = [part for part in where.parts if every and isinstance(part, (Comparison, CostTest))]
    parts = [prepared(tests)] if tests else []
    parts += [matcher(part) for part in where.parts if not (every and isinstance(part, (Comparison, CostTest)))]

    def holds(attributes: Attributes) -> bool:
        for part in parts:
            if part(attributes) is not every:
                return not every
        return every

    return parts[0] if len(parts) == 1 else holds


def filter_of(query: Query, budget_bytes: int = MAX_FILTER_BYTES) -> tuple[Filter, bool]:
    """The condition in disjunctive form, small enough to send; and whether it is exact.

    What is too large is weakened (a test dropped, a disjunction replaced by "anything"), never
    strengthened: the searcher matches exactly at the end anyway.
    """
    terms, exact = _normal(query.where, False)
    unique: list[Term] = []
    for term in terms:
        shorter = tuple(dict.fromkeys(term))
        exact = exact and len(shorter) <= MAX_TESTS
        unique.append(shorter[:MAX_TESTS])
    unique = list(dict.fromkeys(unique))
    if () in unique:
        unique = [()]
    while unique != [()] and packed_size(Filter(tuple(unique)).to_fields()) > budget_bytes:
        exact = False
        # The largest test of the largest term: the one that costs most to carry.
        place = max(range(len(unique)), key=lambda at: packed_size([one.to_fields() for one in unique[at]]))
        worst = max(unique[place], key=lambda test: packed_size(test.to_fields()))
        unique[place] = tuple(test for test in unique[place] if test is not worst)
        if not unique[place]:
            unique = [()]
    return Filter(tuple(unique)), exact


def print_query(query: Query) -> str:
    """The query's text: parse(print_query(q)) == q."""
    words = []
    if query.where != AllOf():
        words.append(_print(query.where))
    order = query.order
    if order.by:
        words.append("order by " + _print_order(order))
        words.append("desc" if order.descending else "asc")
    if query.limit is not None:
        words.append(f"limit {query.limit}")
    return " ".join(words)


# ----- normal form


def _normal(where: Condition, negated: bool) -> tuple[list[Term], bool]:
    if isinstance(where, Not):
        return _normal(where.part, not negated)
    if isinstance(where, (Comparison, CostTest)):
        return [(replace(where, negated=not where.negated) if negated else where,)], True
    if isinstance(where, Near):
        return [(replace(_within(where), negated=negated),)], True
    parts = [_normal(part, negated) for part in where.parts]
    exact = all(part[1] for part in parts)
    if isinstance(where, AllOf) is negated:  # a disjunction, or a negated conjunction
        terms = [term for part, _ in parts for term in part]
        return (terms, exact) if len(terms) <= MAX_TERMS else ([()], False)
    terms = [()]
    # Small parts first, so that what has to be left out is the largest disjunction.
    for part, _ in sorted(parts, key=lambda one: len(one[0])):
        if len(terms) * len(part) > MAX_TERMS:
            exact = False
            continue
        terms = [one + two for one in terms for two in part]
    return terms, exact


def _within(near: Near) -> Within:
    places = [host for host in near.hosts if not isinstance(host, str)]
    if len(places) != len(near.hosts):
        raise LocalError("resolve the query's hosts to coordinates first")
    return Within(tuple(places), near.limit_us)


def _nears(where: Condition) -> Iterator[Near]:
    if isinstance(where, Near):
        yield where
    elif isinstance(where, Not):
        yield from _nears(where.part)
    elif isinstance(where, (AllOf, AnyOf)):
        for part in where.parts:
            yield from _nears(part)


def _resolve(where: Condition, places: Mapping[str, Coordinate]) -> Condition:
    if isinstance(where, Near):
        missing = [host for host in where.hosts if isinstance(host, str) and host not in places]
        if missing:
            raise LocalError(f"no coordinate is known for {', '.join(missing)}")
        return Near(tuple(places[host] if isinstance(host, str) else host for host in where.hosts), where.limit_us)
    if isinstance(where, Not):
        return Not(_resolve(where.part, places))
    if isinstance(where, AllOf):
        return AllOf(tuple(_resolve(part, places) for part in where.parts))
    if isinstance(where, AnyOf):
        return AnyOf(tuple(_resolve(part, places) for part in where.parts))
    return where


# ----- text


def _print(where: Condition) -> str:
    if isinstance(where, Comparison):
        text = f"{where.attribute} {where.operator} {_print_value(where)}"
        return f"not {text}" if where.negated else text
    if isinstance(where, CostTest):
        limit = f"{decimal(where.limit, NANO, 9)} {where.currency}/h"
        text = f"{_print_cost(where.bundle)} {where.operator} {limit}"
        return f"not {text}" if where.negated else text
    if isinstance(where, Near):
        hosts = [f'"{host}"' if isinstance(host, str) else _print_place(host) for host in where.hosts]
        return f"near({', '.join(hosts)}, {where.limit_us} us)"
    if isinstance(where, Not):
        return f"not ({_print(where.part)})"
    word = " and " if isinstance(where, AllOf) else " or "
    return word.join(f"({_print(part)})" if isinstance(part, (AllOf, AnyOf)) else _print(part) for part in where.parts)


def _print_place(place: Coordinate) -> str:
    return "coord(" + ", ".join(decimal(part, 1000, 3) for part in place) + ")"


def _print_value(test: Comparison) -> str:
    if isinstance(test.value, tuple):
        return f'"{".".join(map(str, test.value)) or "0"}"'
    if isinstance(test.value, str):
        return f'"{test.value}"'
    if test.attribute in ENVIRONMENT_KINDS:
        return f'"{test.value}"'
    return print_number(test.attribute, test.value, test.currency)


_PRINTED = {
    "B": [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)],
    "bit/s": [("Gbps", 10**9), ("Mbps", 10**6), ("kbps", 10**3), ("bit/s", 1)],
}


def print_number(attribute: str, value: int, currency: str = "") -> str:
    """A number with its unit, exactly: `256 MiB`, `0.02 USD/h`. The largest unit of which it is a whole number."""
    known = ATTRIBUTES[attribute]
    if value and known.unit in _PRINTED:
        unit, scale = next(one for one in _PRINTED[known.unit] if not value % one[1])
        return f"{value // scale} {unit}"
    if known.kind == "price":
        return f"{decimal(value, NANO, 9)} {currency}/{known.unit}"
    return f"{value} {known.unit}".rstrip()


def decimal(value: int, scale: int, digits: int) -> str:
    """value / scale as an exact decimal."""
    sign, value = ("-", -value) if value < 0 else ("", value)
    rest = f"{value % scale:0{digits}d}".rstrip("0")
    return f"{sign}{value // scale}" + (f".{rest}" if rest else "")


def _print_order(order: Order) -> str:
    names = {"cost": _print_cost(order.amounts)}
    if not order.weights:
        return names.get(order.by, order.by)
    return " + ".join(f"{decimal(weight, 1000, 3)}*{names.get(name, name)}" for name, weight in order.weights)


def _print_cost(bundle: Bundle) -> str:
    names = ("cpu", "memory", "disk")
    parts = [f"{name} {print_number(f'{name}.total', amount)}" for name, amount in zip(names, bundle) if amount]
    return f"cost({', '.join(parts)})"
