"""The simulated signature scheme."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xenonode.simulation.scheme import SimulatedKeyExchange, SimulatedScheme

SCHEME = SimulatedScheme(b"world")


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300), st.integers(0, 511))
def test_a_signature_verifies_for_its_message_and_key_only(seed: bytes, message: bytes, bit: int) -> None:
    signer = SCHEME.generate(seed)
    signature = signer.sign(message)
    assert len(signer.public_key) == 32
    assert SCHEME.verify(signer.public_key, message, signature)
    assert not SCHEME.verify(signer.public_key, message + b".", signature)
    assert not SCHEME.verify(SCHEME.generate(bytes(31) + b"?").public_key, message, signature)
    broken = bytearray(signature)
    broken[bit // 8] ^= 1 << bit % 8
    assert not SCHEME.verify(signer.public_key, message, bytes(broken))


def test_keys_come_from_the_seed_and_other_worlds_do_not_believe_them() -> None:
    signer = SCHEME.generate(bytes(32))
    assert SimulatedScheme(b"world").verify(signer.public_key, b"m", signer.sign(b"m"))
    assert not SimulatedScheme(b"elsewhere").verify(signer.public_key, b"m", signer.sign(b"m"))


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=80))
def test_any_bytes_are_refused_quietly(key: bytes, message: bytes, signature: bytes) -> None:
    assert not SCHEME.verify(key, message, signature)


def test_both_ends_of_a_key_exchange_agree() -> None:
    exchange = SimulatedKeyExchange()
    left, right = bytes(32), bytes(31) + b"r"
    assert exchange.shared(left, exchange.public(right)) == exchange.shared(right, exchange.public(left)) is not None
    assert exchange.shared(left, b"short") is None
