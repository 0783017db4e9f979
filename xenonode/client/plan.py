"""A deployment plan in TOML: which servers a group needs, and how far apart they may be.

Decides the file's form and what is wrong with one: the table, the key, the nearest right name. What a group means is
`summaries.group`; EXAMPLE is a whole plan with every setting's meaning.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from summaries.errors import SummariesError
from summaries.filter import MAX_HOSTS
from summaries.group import Between, Group, Member
from summaries.parse import parse
from summaries.query import Near
from xenonode import units
from xenonode.errors import XenoError

EXAMPLE = """\
version = 1                         # of the form of this file (1, if it is left out)

# Two web servers near the users and apart from each other, and a database close to both.
currency = "USD"

[[member]]
name = "web"
count = 2                           # servers, each a different one (default 1)
cpu = "500 ms/s"                    # what each must have free, and is paid for
memory = "512 MiB"
disk = "1 GiB"
query = "os.linux >= 6.1"           # any condition of 'xenonode search' (default: none)
near = ["127.0.0.1:7410"]           # members of the network, by UDP address, or coord(x, y, z, height) in ms
within = "200 ms"                   # round trip to the furthest of them

[[member]]
name = "db"
cpu = "1000 ms/s"
memory = "2 GiB"

[[apart]]                           # every server of one from every server of the other
members = ["web", "web"]
at_least = "1 ms"

[[together]]
members = ["web", "db"]
at_most = "100 ms"
"""
VERSION = 1
_TOP = ("version", "currency", "member", "apart", "together")
_MEMBER = ("name", "count", "cpu", "memory", "disk", "query", "near", "within")


def read_plan(raw: bytes, name: str = "the plan") -> Group:
    """The group that a plan asks for. Raises XenoError, which says where the plan is wrong."""
    try:
        data = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(name, f"is no TOML: {error}") from error
    version = data.get("version", VERSION)
    if type(version) is not int or version != VERSION:
        raise _wrong(name, f"version = {version!r}: plans of version {VERSION} are understood here")
    _known(name, "", data, _TOP)
    currency = _text(name, "currency", data.get("currency", "USD"))
    members = tuple(_member(name, at, each, currency) for at, each in enumerate(_tables(name, data, "member"), 1))
    between = [_between(name, "apart", at, each) for at, each in enumerate(_tables(name, data, "apart"), 1)]
    between += [_between(name, "together", at, each) for at, each in enumerate(_tables(name, data, "together"), 1)]
    if not members:
        raise _wrong(name, "names no [[member]]")
    for which, one in between:
        for each in (one.first, one.second):
            if each not in [member.name for member in members]:
                raise _wrong(name, f"{which}: no member is called {each!r}{_hint(each, [one.name for one in members])}")
    try:
        return Group(members, tuple(one for _, one in between), currency)
    except SummariesError as error:
        raise _wrong(name, str(error)) from error


def _member(name: str, at: int, table: Mapping[str, Any], currency: str) -> Member:
    where = f"member {at}"
    _known(name, where, table, _MEMBER)
    if "name" not in table:
        raise _wrong(name, f"{where} has no name")
    label = _text(name, f"{where}: name", table["name"])
    where = f"member {label!r}"
    count = table.get("count", 1)
    if type(count) is not int or count < 1:
        raise _wrong(name, f"{where}: count must be a whole number from 1, not {count!r}")
    cpu = _amount(name, f"{where}: cpu", table.get("cpu", "0 ms/s"), units.parse_cpu)
    memory = _amount(name, f"{where}: memory", table.get("memory", "0 B"), units.parse_bytes)
    disk = _amount(name, f"{where}: disk", table.get("disk", "0 B"), units.parse_bytes)
    if not cpu and not memory and not disk:
        raise _wrong(name, f"{where} asks for nothing: give it cpu, memory or disk")
    text = _text(name, f"{where}: query", table.get("query", ""))
    try:
        query = parse(text, currency=currency)
    except SummariesError as error:
        raise _wrong(name, f"{where}: query: {error}") from error
    if query.order.by or query.limit is not None:
        raise _wrong(name, f"{where}: query: a condition only; the cheapest are taken, as many as count says")
    near = _near(name, where, table, currency)
    return Member(label, query.where, (cpu, memory, disk), near, count)


def _near(name: str, where: str, table: Mapping[str, Any], currency: str) -> Near | None:
    hosts = table.get("near", [])
    if not isinstance(hosts, list) or not all(isinstance(one, str) for one in hosts) or len(hosts) > MAX_HOSTS:
        raise _wrong(name, f"{where}: near must be a list of at most {MAX_HOSTS} addresses")
    if bool(hosts) != ("within" in table):
        raise _wrong(name, f'{where}: near and within belong together, e.g. near = ["HOST:PORT"], within = "30 ms"')
    if not hosts:
        return None
    within_ms = _amount(name, f"{where}: within", table["within"], units.parse_duration_ms)
    try:
        found = parse(f"near({', '.join(hosts)}, {within_ms} ms)", currency=currency).where
    except SummariesError as error:
        raise _wrong(name, f"{where}: near: {error}") from error
    return found if isinstance(found, Near) else None


def _between(name: str, kind: str, at: int, table: Mapping[str, Any]) -> tuple[str, Between]:
    where, key = f"{kind} {at}", "at_least" if kind == "apart" else "at_most"
    _known(name, where, table, ("members", key))
    pair = table.get("members")
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
        raise _wrong(name, f'{where}: members must name two, e.g. members = ["web", "db"] (or one twice)')
    if key not in table:
        raise _wrong(name, f'{where} has no {key}, e.g. {key} = "20 ms"')
    amount_us = 1_000 * _amount(name, f"{where}: {key}", table[key], units.parse_duration_ms)
    bounds = (amount_us, None) if kind == "apart" else (0, amount_us)
    return where, Between(pair[0], pair[1], *bounds)


def _tables(name: str, data: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = data.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _wrong(name, f"write [[{key}]] for each, in double brackets")
    return found


def _known(name: str, where: str, table: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in table:
        if key not in keys:
            prefix = f"{where}: " if where else ""
            raise _wrong(name, f"{prefix}unknown setting {key!r}{_hint(key, list(keys))}")


def _amount(name: str, where: str, value: object, read: Callable[[str], int]) -> int:
    try:
        return read(_text(name, where, value))
    except units.UnitError as error:
        raise _wrong(name, f"{where}: {error}") from error


def _text(name: str, where: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(name, f"{where} must be a text in quotes, not {value!r}")
    return value


def _hint(word: str, words: list[str]) -> str:
    close = get_close_matches(word, words, 1, 0.5)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(words)}"


def _wrong(name: str, what: str) -> XenoError:
    return XenoError(f"{name}: {what}", "see a whole plan with 'xenonode place --example'", "plan")
