"""Quantities as people write them, with their unit, to the platform's integers, and back.

'250 ms/s' is CPU, '512 MiB' memory or disk, '100 Mbps' network, '60 s' a time, '0.02 USD/h' a price. Decides what
is accepted in configuration files and on the command line; the query language has a grammar of its own.
A number without a unit is refused rather than guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from xenonode.model.message import INT64_MAX
from xenonode.model.money import format_amount
from xenonode.model.resources import CURRENCIES, NANO

_QUANTITY = re.compile(r"\s*([0-9]{1,19}(?:\.[0-9]{1,9})?)\s*([A-Za-z/%-]+)\s*\Z")
_PRICE = re.compile(r"\s*([0-9]{1,19}(?:\.[0-9]+)?)\s*([A-Za-z]{3})\s*/\s*([A-Za-z/-]+)\s*\Z")
_CPU = {"ms/s": 1, "cpu": 1000, "cpus": 1000, "core": 1000, "cores": 1000}
_BINARY = {"b": 1, "bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_BYTES = _BINARY | {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_RATE = {"bps": 1, "kbps": 10**3, "mbps": 10**6, "gbps": 10**9}
_RATE |= {"bit/s": 1, "kbit/s": 10**3, "mbit/s": 10**6, "gbit/s": 10**9}
_DURATION = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
CPU_HOUR = ("h", "cpu-h", "cpu/h")
GIB_HOUR = ("gib/h", "gib-h")
GIB = ("gib",)


class UnitError(ValueError):
    """A quantity cannot be read; the message says how it is written."""


def parse_cpu(text: str) -> int:
    """'250 ms/s' or '1.5 cores' as milliseconds of CPU per wall-clock second."""
    return _parse(text, _CPU, "250 ms/s")


def parse_bytes(text: str) -> int:
    """'512 MiB' or '20 GB' as bytes."""
    return _parse(text, _BYTES, "512 MiB")


def parse_rate(text: str) -> int:
    """'100 Mbps' as bit/s."""
    return _parse(text, _RATE, "100 Mbps")


def parse_duration_ms(text: str) -> int:
    """'60 s', '5 min' or '1 h' as milliseconds."""
    return _parse(text, _DURATION, "60 s")


def parse_price(text: str, per: tuple[str, ...]) -> tuple[int, str]:
    """'0.02 USD/h' as (nano-units, currency); `per` lists the accepted words after the first slash."""
    found = _PRICE.match(text)
    example = f"0.02 USD/{'h' if per is CPU_HOUR else 'GiB/h' if per is GIB_HOUR else 'GiB'}"
    if not found:
        raise UnitError(f"{text!r} is no price; write e.g. '{example}'")
    number, currency, unit = found[1], found[2].upper(), found[3].lower()
    if currency not in CURRENCIES:
        raise UnitError(f"currency {currency} is not one of {', '.join(CURRENCIES)}")
    if unit not in per:
        raise UnitError(f"{text!r} is not a price per {per[0]}; write e.g. '{example}'")
    nano = Decimal(number) * NANO
    if nano != nano.to_integral_value():
        raise UnitError(f"{text!r} has more than nine decimals")
    if nano > INT64_MAX:
        raise UnitError(f"{text!r} is more than an account can hold")
    return int(nano), currency


def format_cpu(cpu_ms_per_s: int) -> str:
    """As `parse_cpu` reads it."""
    return f"{cpu_ms_per_s} ms/s"


def format_bytes(amount_bytes: int) -> str:
    """As `parse_bytes` reads it; exact when the amount is whole in the unit, else two decimals."""
    return _format(amount_bytes, (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1)))


def format_rate(net_bit_per_s: int) -> str:
    """As `parse_rate` reads it."""
    return _format(net_bit_per_s, (("Gbps", 10**9), ("Mbps", 10**6), ("kbps", 10**3), ("bps", 1)))


def format_duration(duration_ms: int) -> str:
    """As `parse_duration_ms` reads it, in the largest unit that keeps it exact."""
    for unit in ("d", "h", "min", "s"):
        if duration_ms and duration_ms % _DURATION[unit] == 0:
            return f"{duration_ms // _DURATION[unit]} {unit}"
    return f"{duration_ms} ms"


def format_price(price_nano: int, currency: str, per: str) -> str:
    """As `parse_price` reads it, e.g. format_price(20_000_000, 'USD', 'h') is '0.02 USD/h'."""
    return f"{format_amount(price_nano, currency)}/{per}"


def _parse(text: str, units: Mapping[str, int], example: str) -> int:
    found = _QUANTITY.match(text)
    if not found:
        raise UnitError(f"{text!r} is no quantity with a unit; write e.g. '{example}'")
    scale = units.get(found[2].lower())
    if scale is None:
        raise UnitError(f"unit {found[2]!r} in {text!r} is not one of {', '.join(units)}; write e.g. '{example}'")
    amount = Decimal(found[1]) * scale
    if amount != amount.to_integral_value():
        raise UnitError(f"{text!r} is not a whole number of the smallest unit")
    if amount > INT64_MAX:
        raise UnitError(f"{text!r} is too large")
    return int(amount)


def _format(amount: int, units: tuple[tuple[str, int], ...]) -> str:
    for name, scale in units:
        if amount >= scale and amount % scale == 0:
            return f"{amount // scale} {name}" if amount < 10_000 * scale else _rounded(amount, units)
    return f"{amount} {units[-1][0]}"


def _rounded(amount: int, units: tuple[tuple[str, int], ...]) -> str:
    name, scale = next((each for each in units if amount >= each[1]), units[-1])
    return f"{amount / scale:.2f} {name}"
