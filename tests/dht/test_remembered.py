"""Signatures that need not be computed twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dht.identity import ED25519
from dht.remembered import MAX_REMEMBERED, Remembered

SIGNER = ED25519.generate(bytes(range(32)))


class Counting:
    """Ed25519, and how often it was asked."""

    name = ED25519.name
    generate = staticmethod(ED25519.generate)

    def __init__(self) -> None:
        self.asked = 0

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        self.asked += 1
        return ED25519.verify(public_key, message, signature)


def test_a_genuine_signature_is_computed_once_and_a_wrong_one_each_time() -> None:
    counting = Counting()
    scheme = Remembered(counting)
    signature = SIGNER.sign(b"message")
    assert all(scheme.verify(SIGNER.public_key, b"message", signature) for _ in range(5)) and counting.asked == 1
    assert not any(scheme.verify(SIGNER.public_key, b"massage", signature) for _ in range(5)) and counting.asked == 6


@given(st.integers(0, 32 + 64 + 7 - 1), st.integers(0, 7))
def test_after_the_right_one_every_changed_bit_of_all_three_is_still_found_out(at: int, bit: int) -> None:
    scheme, message = Remembered(ED25519), b"message"
    signature = SIGNER.sign(message)
    assert scheme.verify(SIGNER.public_key, message, signature)
    whole = bytearray(SIGNER.public_key + signature + message)
    whole[at] ^= 1 << bit
    assert not scheme.verify(bytes(whole[:32]), bytes(whole[96:]), bytes(whole[32:96]))


@given(st.integers(1, 40))
def test_bytes_moved_between_key_signature_and_message_are_another_case(shift: int) -> None:
    scheme, message = Remembered(ED25519), bytes(50)
    signature = SIGNER.sign(message)
    assert scheme.verify(SIGNER.public_key, message, signature)
    whole = SIGNER.public_key + signature + message
    assert not scheme.verify(whole[: 32 - shift % 32], whole[96 - shift :], whole[32 - shift % 32 : 96 - shift])
    assert not scheme.verify(whole[:32], whole[96 + shift :], whole[32 : 96 + shift])


def test_what_is_remembered_is_bounded() -> None:
    counting = Counting()
    scheme = Remembered(counting)
    signed = [(bytes([n % 256, n // 256]), SIGNER.sign(bytes([n % 256, n // 256]))) for n in range(MAX_REMEMBERED + 1)]
    for message, signature in signed:
        assert scheme.verify(SIGNER.public_key, message, signature)
    assert scheme.verify(SIGNER.public_key, *signed[-1]) and counting.asked == len(signed)
    assert scheme.verify(SIGNER.public_key, *signed[0]) and counting.asked == len(signed) + 1
