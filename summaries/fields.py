"""Codecs of message fields: pairs of (write, read), of which reading checks type and bounds, or raises MessageError.

Decides nothing about messages; messages.py puts these together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from summaries.errors import MessageError

Codec = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def same(value: Any) -> Any:
    return value


def integer(least: int, most: int) -> Codec:
    def read(value: object) -> int:
        if type(value) is not int or not least <= value <= most:
            raise MessageError(f"not an integer from {least} to {most}")
        return value

    return same, read


def octets(most: int) -> Codec:
    def read(value: object) -> bytes:
        if not isinstance(value, bytes) or len(value) > most:
            raise MessageError(f"not at most {most} bytes")
        return value

    return same, read


def text(most: int) -> Codec:
    def read(value: object) -> str:
        if not isinstance(value, str) or len(value) > most:
            raise MessageError(f"not a text of at most {most} characters")
        return value

    return same, read


def boolean() -> Codec:
    def read(value: object) -> bool:
        if type(value) is not bool:
            raise MessageError("not a boolean")
        return value

    return same, read


def many(codec: Codec, most: int) -> Codec:
    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise MessageError(f"not a list of at most {most}")
        return tuple(codec[1](one) for one in value)

    return (lambda values: [codec[0](value) for value in values]), read


def record(kind: Any, *codecs: Codec) -> Codec:
    """The fields of a dataclass or named tuple, in their order."""
    names = kind._fields if issubclass(kind, tuple) else [field.name for field in fields(kind)]
    pairs = list(zip(names, codecs))
    readers = [read for _, read in codecs]

    def write(value: Any) -> list[Any]:
        return [codec[0](getattr(value, name)) for name, codec in pairs]

    def read(value: object) -> Any:
        if not isinstance(value, list) or len(value) != len(pairs):
            raise MessageError(f"{kind.__name__} has {len(pairs)} fields")
        return kind(*[read(one) for read, one in zip(readers, value)])

    return write, read
