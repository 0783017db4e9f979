"""Addresses as people write them."""

from __future__ import annotations

import pytest

from xenonode.model.entity import Address


@pytest.mark.parametrize("text", ["127.0.0.1:7400", "[::1]:65535"])
def test_an_address_is_read_as_it_is_shown(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["", "7400", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "a.b:80", "127.0.0.1:²"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert Address.parse(text) is None
