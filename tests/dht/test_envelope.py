"""Signed envelopes: what opens is what was sealed, and nothing else opens."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht import wire
from dht.envelope import Envelope, contradicts, open_envelope, seal, supersedes
from dht.errors import EnvelopeError, LocalError
from dht.identity import ED25519

SIGNER = ED25519.generate(b"s" * 32)
OTHER = ED25519.generate(b"o" * 32)
bodies = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4),
    st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=9) | st.lists(st.integers(0, 9), max_size=3),
    max_size=5,
)


@given(bodies)
@settings(max_examples=60)
def test_what_is_sealed_opens_to_the_same(body: dict[str, Any]) -> None:
    sealed = seal(SIGNER, "advert", body)
    opened = open_envelope(sealed.raw, ED25519, "advert")
    assert opened == sealed and opened.id == sealed.id and len(opened.id) == 16
    assert dict(opened.body) == body and opened.key == SIGNER.public_key
    kept = opened.compact()
    assert kept == opened and dict(kept.body) == body and kept.seq == opened.seq and kept.id == opened.id


def test_one_flipped_bit_spoils_an_envelope() -> None:
    raw = seal(SIGNER, "advert", {"seq": 3, "price": 10**9, "name": "köln"}).raw
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(EnvelopeError):
            open_envelope(bytes(flipped), ED25519)


def test_a_right_signature_on_another_type_is_refused() -> None:
    sealed = seal(SIGNER, "quote", {"price": 1})
    with pytest.raises(EnvelopeError, match="expected"):
        open_envelope(sealed.raw, ED25519, "receipt")
    moved = wire.encode([1, "receipt", sealed.key, dict(sealed.body), sealed.signature])
    with pytest.raises(EnvelopeError, match="signature"):
        open_envelope(moved, ED25519, "receipt")


def variants(sealed: Envelope) -> list[Any]:
    key, body, signature = sealed.key, dict(sealed.body), sealed.signature
    return [
        [2, "a", key, body, signature],
        [True, "a", key, body, signature],
        [1, "", key, body, signature],
        [1, "a\0b", key, body, signature],
        [1, "A", key, body, signature],
        [1, "a" * 60, key, body, signature],
        [1, "a", OTHER.public_key, body, signature],
        [1, "a", bytes(32), body, signature],
        [1, "a", bytes(32), body, bytes(64)],
        [1, "a", key[:31], body, signature],
        [1, "a", key, [], signature],
        [1, "a", key, body, signature[:63]],
        [1, "a", key, body],
        [1, "a", key, body, signature, 0],
        {"a": 1},
        7,
    ]


@pytest.mark.parametrize("fields", variants(seal(SIGNER, "a", {"n": 1})), ids=str)
def test_malformed_envelopes_are_refused(fields: Any) -> None:
    with pytest.raises(EnvelopeError):
        open_envelope(wire.encode(fields), ED25519)


@given(st.binary(max_size=120))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        open_envelope(data, ED25519)


def test_a_type_or_body_that_cannot_be_signed_is_our_misuse() -> None:
    for type, body in (("Bad type", {}), ("a", {"x": 1.5}), ("a", {"x": "e\u0301"})):
        with pytest.raises(LocalError):
            seal(SIGNER, type, body)


def test_the_id_does_not_depend_on_how_the_body_was_ordered() -> None:
    keys = [f"k{n}" for n in range(9)]
    shuffled = random.Random(1).sample(keys, 9)
    assert seal(SIGNER, "a", dict.fromkeys(keys, 1)).id == seal(SIGNER, "a", dict.fromkeys(shuffled, 1)).id


def test_higher_sequence_supersedes_and_equal_sequence_with_another_body_contradicts() -> None:
    first, second = seal(SIGNER, "a", {"seq": 1}), seal(SIGNER, "a", {"seq": 2})
    twin = seal(SIGNER, "a", {"seq": 2, "x": 1})
    assert supersedes(second, first) and not supersedes(first, second) and not supersedes(twin, second)
    assert contradicts(twin, second) and not contradicts(second, second) and not contradicts(first, second)
    assert not supersedes(seal(OTHER, "a", {"seq": 9}), first)
