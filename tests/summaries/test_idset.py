from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summaries.errors import MessageError
from summaries.idset import IdSet

ids = st.sets(st.integers(0, 2**64 - 1) | st.integers(0, 30), max_size=60)


@given(ids, ids)
def test_the_algebra_is_that_of_sets(a: set[int], b: set[int]) -> None:
    one, two = IdSet(a), IdSet(b)
    assert list(one | two) == sorted(a | b)
    assert list(one & two) == sorted(a & b)
    assert list(one - two) == sorted(a - b)
    assert len(one) == len(a)
    assert all(member in one for member in a)
    assert all((member in two) == (member in b) for member in a)


@given(ids)
def test_bytes_come_back_as_the_same_set(a: set[int]) -> None:
    assert IdSet.from_bytes(IdSet(a).to_bytes()) == IdSet(a)


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(MessageError):
        assert IdSet.from_bytes(data).to_bytes() == data


def test_unsorted_or_repeated_ids_are_refused() -> None:
    for data in (bytes(16), (2).to_bytes(8, "big") + (1).to_bytes(8, "big"), b"123"):
        with pytest.raises(MessageError):
            IdSet.from_bytes(data)
