"""Text to Query: reads what a person wrote, and says precisely what is wrong with it.

The grammar is query.lark (LALR, so parsing is linear). Lengths and nesting are bounded before the
parser sees the text: a hostile query costs one scan. Every QueryError has the position, what was
expected and, for a misspelt name or unit, the nearest right one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fractions import Fraction
from functools import cache
from importlib.resources import files
from math import ceil, floor
from typing import Any, cast

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken, VisitError

from summaries.attributes import (
    ATTRIBUTES,
    BARE_LEAST,
    DURATION_UNITS_US,
    ENVIRONMENT_KINDS,
    LARGEST,
    MAX_COORDINATE_US,
    NANO,
    version_tuple,
)
from summaries.cost import Bundle, CostTest
from summaries.errors import LocalError
from summaries.filter import MAX_HOSTS, Comparison, Coordinate
from summaries.query import AllOf, AnyOf, Condition, Near, Not, Query, conjunction, disjunction, negation
from summaries.rank import MAX_WEIGHT, WEIGHTED, Order, weighable

MAX_TEXT_LENGTH = 4_096  # thirty times a long query written by hand; bounds parsing to milliseconds
MAX_NESTING = 32
MAX_TESTS_IN_QUERY = 256
MAX_LIMIT = 100_000


class QueryError(LocalError):
    """A query that cannot be understood. `position` counts characters from 0."""

    def __init__(self, message: str, position: int = 0, expected: tuple[str, ...] = ()) -> None:
        super().__init__(f"at position {position}: {message}")
        self.message, self.position, self.expected = message, position, expected


def parse(text: str, *, currency: str = "") -> Query:
    """The query that a text means; QueryError says where and why there is none.

    `currency` is what a price without one is in, and what prices are ordered in when the query
    names none.
    """
    _check_bounds(text)
    try:
        query = cast(Query, _parser(currency).parse(text))
    except VisitError as error:
        if isinstance(error.orig_exc, QueryError):
            raise error.orig_exc from None
        raise
    except UnexpectedInput as error:
        raise _explain(text, error) from None
    return query


@cache
def _parser(currency: str) -> Lark:
    grammar = (files("summaries") / "query.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Builder(currency), maybe_placeholders=True)


_NESTING = re.compile(r'"[^"\n]*"|[()]')


def _check_bounds(text: str) -> None:
    depth = 0
    for found in _NESTING.finditer(text):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if depth > MAX_NESTING:
            raise QueryError(f"parentheses are nested deeper than {MAX_NESTING}", found.start(), (")",))
    if len(text) > MAX_TEXT_LENGTH:
        raise QueryError(f"a query has at most {MAX_TEXT_LENGTH} characters", MAX_TEXT_LENGTH)


class _Quantity:
    def __init__(self, number: Token, unit: Token | None) -> None:
        self.number, self.unit, self.at = str(number), str(unit or ""), number.start_pos or 0
        self.unit_at = unit.start_pos or 0 if unit is not None else self.at
        if len(self.number) > 40:
            raise QueryError("a number has at most 40 digits", self.at)
        self.exact = Fraction(0) if self.number.count(".") > 1 else Fraction(self.number)


@dataclass(frozen=True, slots=True)
class _Amount:
    """One part of a bundle: by name, or by what its unit means."""

    name: str | None
    meant: str
    value: int
    at: int


@dataclass(frozen=True, slots=True)
class _Key:
    """One thing to order by, perhaps weighted in thousandths; `bundle` is of a cost that names one."""

    by: str
    at: int
    bundle: Bundle | None = None
    weight: int | None = None


@dataclass(frozen=True, slots=True)
class _Ordering:
    keys: tuple[_Key, ...]
    descending: bool


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    def __init__(self, currency: str) -> None:
        super().__init__()
        self._currency = currency

    def start(self, where: Condition | None, order: _Ordering | None, limit: int | None) -> Query:
        where = where or AllOf()
        tests = list(_tests(where))
        if len(tests) > MAX_TESTS_IN_QUERY:
            raise QueryError(f"a query has at most {MAX_TESTS_IN_QUERY} tests")
        named = sorted({test.currency for test in tests if test.currency})
        plain = [test for test in tests if isinstance(test, Comparison)]
        named += [str(test.value) for test in plain if test.attribute == "currency" and test.operator == "="]
        chosen = named[0] if len(set(named)) == 1 else self._currency
        return Query(where, Order() if order is None else _ordered(order, where, chosen), limit)

    def either(self, *parts: Condition) -> Condition:
        return disjunction(*parts)

    def both(self, *parts: Condition) -> Condition:
        return conjunction(*parts)

    def negate(self, part: Condition) -> Condition:
        return negation(part)

    def group(self, part: Condition) -> Condition:
        return part

    def compare(self, name: Token, operator: Token, value: Any) -> Condition:
        return _test(name, str(operator), value, self._currency)

    def within(self, name: Token, low: Any, high: Any) -> Condition:
        least, most = _test(name, ">=", low, self._currency), _test(name, "<=", high, self._currency)
        if least.value > most.value:  # type: ignore[operator]
            raise QueryError(f"the range of {name} is empty: its least is above its most", _at(low))
        return conjunction(least, most)

    def one_of(self, name: Token, *values: Any) -> Condition:
        return disjunction(*(_test(name, "=", value, self._currency) for value in values))

    def near(self, word: Token, *parts: Any) -> Condition:
        *hosts, limit = parts
        if len(hosts) > MAX_HOSTS:
            raise QueryError(f"near takes at most {MAX_HOSTS} hosts", word.start_pos or 0)
        if isinstance(limit, Token) or limit.unit not in DURATION_UNITS_US:
            units = tuple(DURATION_UNITS_US)
            raise QueryError("near ends with a time such as 30 ms", _at(limit), units)
        within_us = floor(limit.exact * DURATION_UNITS_US[limit.unit])
        if not 0 <= within_us <= 10 * MAX_COORDINATE_US:
            raise QueryError("near's time must be from 0 to 20 s", _at(limit))
        return Near(tuple(hosts), within_us)

    def host_name(self, name: Token) -> str:
        return str(name).strip('"')

    def coordinate(self, word: Token, *parts: Token) -> Coordinate:
        x, y, z, height = (round(Fraction(str(part)) * 1000) for part in parts)
        if max(map(abs, (x, y, z, height))) > MAX_COORDINATE_US or height < 0:
            raise QueryError("a coordinate is within 2000 ms, its height not below 0", word.start_pos or 0)
        return x, y, z, height

    def quantity(self, number: Token, unit: Token | None) -> _Quantity:
        return _Quantity(number, unit)

    def version(self, number: Token) -> _Quantity:
        return _Quantity(number, None)

    def ordering(self, *parts: Any) -> _Ordering:
        *keys, direction = parts
        return _Ordering(tuple(keys), direction == "desc")

    def weighted(self, weight: Token | None, key: _Key) -> _Key:
        if weight is None:
            return key
        thousandths = Fraction(str(weight)) * 1000
        if thousandths.denominator != 1 or not 0 <= thousandths <= MAX_WEIGHT:
            raise QueryError("a weight is from 0 to 1000, with at most three decimals", weight.start_pos or 0)
        return _Key(key.by, key.at, key.bundle, int(thousandths))

    def by_attribute(self, name: Token) -> _Key:
        if name != "latency":
            _known(name, [one for one, known in ATTRIBUTES.items() if known.kind in ("number", "price")])
        return _Key(str(name), name.start_pos or 0)

    def by_cost(self, word: Token, *amounts: _Amount) -> _Key:
        return _Key("cost", word.start_pos or 0, _bundle(amounts) if amounts else None)

    def compare_cost(self, word: Token, *parts: Any) -> CostTest:
        *amounts, operator, limit = parts
        money = _number(Token("NAME", "price.cpu"), str(operator), limit, self._currency)
        if not isinstance(money.value, int) or not money.currency:
            raise QueryError("a cost is compared with an amount such as 0.05 USD/h", limit.at)
        return CostTest(_bundle(amounts), str(operator), money.value, money.currency)

    def amount(self, name: Token | None, quantity: _Quantity) -> _Amount:
        if name is not None:
            _known(name, ["cpu", "memory", "disk"])
        test = _number(Token("NAME", f"{name or _meant(quantity)}.total"), "=", quantity, "")
        if not isinstance(test.value, int) or test.value <= 0:
            raise QueryError("a cost is of more than nothing", quantity.at)
        return _Amount(None if name is None else str(name), _meant(quantity), test.value, quantity.at)

    def limit(self, number: Token) -> int:
        if not str(number).isdigit() or not 1 <= int(str(number)[:20]) <= MAX_LIMIT:
            raise QueryError(f"limit is a whole number from 1 to {MAX_LIMIT}", number.start_pos or 0)
        return int(number)


def _meant(quantity: _Quantity) -> str:
    """What an amount without a name is of, by its unit: CPU, else memory (a second one is disk)."""
    return "cpu" if quantity.unit in ATTRIBUTES["cpu.total"].units else "memory"


def _bundle(amounts: Sequence[_Amount]) -> Bundle:
    found = {"cpu": 0, "memory": 0, "disk": 0}
    for one in amounts:
        name = one.name or ("disk" if one.meant == "memory" and found["memory"] else one.meant)
        if found[name]:
            raise QueryError(f"cost names {name} twice", one.at)
        found[name] = one.value
    return found["cpu"], found["memory"], found["disk"]


def _ordered(order: _Ordering, where: Condition, chosen: str) -> Order:
    """The order that was written; a cost of nothing in particular is that of what the query asks for."""
    if len(order.keys) == 1 and order.keys[0].weight is None:
        [key] = order.keys
        bundle = _asked(key, where) if key.by == "cost" else (0, 0, 0)
        found = Order(key.by, order.descending, "", bundle)
    else:
        weights = tuple((key.by, 1000 if key.weight is None else key.weight) for key in order.keys)
        for at, key in enumerate(order.keys):
            if not weighable(key.by):
                raise QueryError(f"an order adds up costs, prices and latency, and {key.by} is none", key.at)
            if key.by in [name for name, _ in weights[:at]]:
                raise QueryError(f"an order adds up {key.by} once", key.at)
        bundles = [_asked(key, where) for key in order.keys if key.by == "cost"]
        found = Order(WEIGHTED, order.descending, "", bundles[0] if bundles else (0, 0, 0), (), weights)
    return replace(found, currency=chosen) if found.is_priced else found


def _asked(key: _Key, where: Condition) -> Bundle:
    """The bundle of a cost: as written, or that of the query's own cost(...), or what it wants to be available."""
    if key.bundle is not None:
        return key.bundle
    tests = list(_tests(where))
    costs = [test.bundle for test in tests if isinstance(test, CostTest)]
    if costs:
        return costs[0]
    wanted = {
        test.attribute: test.value
        for test in tests
        if isinstance(test, Comparison) and test.operator in (">=", "=") and isinstance(test.value, int)
    }
    names = ("cpu.available", "memory.available", "disk.available")
    bundle = (wanted.get(names[0], 0), wanted.get(names[1], 0), wanted.get(names[2], 0))
    if not any(bundle):
        example = "cost(2000 ms/s, 4 GiB, 20 GiB)"
        raise QueryError(f"the cost of what? write {example}, or ask for cpu.available >= ...", key.at, (example,))
    return bundle


def _tests(where: Condition) -> list[Comparison | CostTest]:
    if isinstance(where, (Comparison, CostTest)):
        return [where]
    if isinstance(where, Not):
        return _tests(where.part)
    if isinstance(where, (AllOf, AnyOf)):
        return [test for part in where.parts for test in _tests(part)]
    return []


def _test(name: Token, operator: str, value: Any, currency: str) -> Comparison:
    kind, _, rest = name.partition(".")
    if kind in ENVIRONMENT_KINDS:
        return _environment(name, operator, value, rest)
    _known(name, [*ATTRIBUTES, "os", "platform"])
    known = ATTRIBUTES[name]
    if known.kind in ("text", "set"):
        if not isinstance(value, Token):
            raise QueryError(f'{name} is compared with a text such as "x"', _at(value), ('"',))
        if operator not in ("=", "!="):
            raise QueryError(f"{name} can only be = or !=", name.start_pos or 0, ("=", "!="))
        return Comparison(str(name), operator, _text(value))
    if isinstance(value, Token):
        raise QueryError(f"{name} is compared with a number", _at(value), ("a number",))
    return _number(name, operator, value, currency)


def _environment(name: Token, operator: str, value: Any, rest: str) -> Comparison:
    if not rest:
        if not isinstance(value, Token) or operator not in ("=", "!="):
            raise QueryError(f'{name} is compared with a name: {name} = "linux", {name}.linux >= 6.1', _at(value))
        return Comparison(str(name), operator, _text(value))
    if len(rest) > 32:
        raise QueryError("an environment's name has at most 32 characters", name.start_pos or 0)
    text = _text(value) if isinstance(value, Token) else value.number
    if not re.search(r"\d", text) or text.startswith("-") or (not isinstance(value, Token) and value.unit):
        raise QueryError(f"{name} is compared with a version such as 6.1", _at(value), ("a version",))
    return Comparison(str(name), operator, version_tuple(text))


def _number(name: Token, operator: str, value: _Quantity, currency: str) -> Comparison:
    known = ATTRIBUTES[name]
    if value.number.count(".") > 1:
        raise QueryError(f"{name} is compared with a number, not a version", value.at)
    if known.kind == "price":
        scale, money = NANO, currency
        money, slash, rest = value.unit.partition("/") if value.unit else (currency, "/", known.unit)
        if not money or not slash or rest != known.unit or not re.fullmatch(r"[A-Z]{3,8}", money):
            example = f"0.02 {currency or 'USD'}/{known.unit}"
            raise QueryError(f"{name} is compared with a price such as {example}", value.unit_at, (example,))
        if (value.exact * NANO).denominator != 1:
            raise QueryError("a price has at most nine decimals", value.at)
    else:
        money = ""
        if value.unit and value.unit not in known.units:
            raise QueryError(_unknown_unit(name, value.unit, list(known.units)), value.unit_at, tuple(known.units))
        scale = known.units[value.unit] if value.unit else 1
    exact = value.exact * scale
    if not value.unit and known.unit in BARE_LEAST and known.kind == "number":
        least, times, unit = BARE_LEAST[known.unit]
        if 0 < exact < least:
            number = value.number if times == 1 else f"{float(value.exact * times):g}"
            meant, said = f"{number} {unit}", f"{value.number} {known.unit}"
            hint = f"{value.number} alone is {said}; write {meant}, or {said} if that is meant"
            raise QueryError(f"{name} needs a unit: {hint}", value.at, (meant, said))
    if not 0 <= exact <= LARGEST:
        raise QueryError(f"{name} is from 0 to 2^63-1", value.at)
    if exact.denominator != 1 and operator in ("=", "!="):
        raise QueryError(f"{value.number} {value.unit} is not a whole number of {known.unit or 'pieces'}", value.at)
    # An attribute is whole, so x >= 5.4 is x >= 6 and x > 5.4 is x > 5: rounding changes no answer.
    whole = ceil(exact) if operator in (">=", "<") else floor(exact)
    return Comparison(str(name), operator, whole, money)


def _text(token: Token) -> str:
    text = str(token)[1:-1]
    if len(text) > 128:
        raise QueryError("a text has at most 128 characters", token.start_pos or 0)
    return text


def _at(value: Any) -> int:
    return (value.start_pos or 0) if isinstance(value, Token) else int(getattr(value, "at", 0))


def _known(name: Token, names: list[str]) -> None:
    if str(name) in names:
        return
    if str(name) == "trust":
        raise QueryError("nobody's word about servers can be ranked by: no trust is published yet", name.start_pos or 0)
    close = get_close_matches(str(name)[:64], names, 1, 0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise QueryError(f"unknown attribute {str(name)[:64]!r}{hint}", name.start_pos or 0, tuple(sorted(names)))


def _unknown_unit(name: str, unit: str, units: list[str]) -> str:
    if not units:
        return f"{name} has no unit, {unit[:32]!r} was given"
    folded = {one.lower(): one for one in reversed(units)}
    close = [folded[one] for one in get_close_matches(unit[:32].lower(), list(folded), 1, 0.5)]
    return f"unknown unit {unit[:32]!r} of {name}" + (f"; did you mean {close[0]}?" if close else "")


_WORDS = {
    "NAME": "an attribute",
    "NUMBER": "a number",
    "VERSION": "a version",
    "STRING": 'a text in "quotes"',
    "UNIT": "a unit",
    "HOST": "a host:port",
    "OPERATOR": "a comparison (= != < <= > >=)",
    "NEAR": "near(...)",
    "COORD": "coord(x, y, z, height)",
    "COST": "cost(...)",
    "PLUS": "'+'",
    "STAR": "'*'",
    "ASCENDING": "'asc'",
    "DESCENDING": "'desc'",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "'['",
    "RSQB": "']'",
    "COMMA": "','",
    "$END": "the end",
}


def _explain(text: str, error: UnexpectedInput) -> QueryError:
    names: set[str] = set()
    position = error.pos_in_stream if error.pos_in_stream is not None else len(text)
    found = "the end of the query"
    if isinstance(error, UnexpectedToken):
        names = set(error.accepts or error.expected)
        if error.token.type != "$END":
            found, position = repr(str(error.token)[:32]), error.token.start_pos or 0
        else:
            position = len(text)
    elif isinstance(error, UnexpectedCharacters):
        names, found = set(error.allowed or ()), repr(text[position : position + 16])
    elif isinstance(error, UnexpectedEOF):
        names, position = set(error.expected), len(text)
    expected = tuple(sorted({_WORDS.get(name, repr(name.lower())) for name in names}))
    *others, last = expected or ("nothing more",)
    wanted = f"{', '.join(others)} or {last}" if others else last
    word = _WORD.match(text, _start(text, position)) if "STRING" in names else None
    hint = f'; write a text as "{word[0]}"' if word else ""
    return QueryError(f"found {found}, expected {wanted}{hint}", position, expected)


_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


def _start(text: str, position: int) -> int:
    """Where the word at a position begins, behind a quotation mark of another kind."""
    return position + text.startswith("'", position)
