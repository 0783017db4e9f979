"""Every decoder either gives a value or says that the bytes are bad: it raises nothing else, and takes no time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht import datagram, wire
from dht.chunking import unpack_missing
from dht.contact import Contact, pack_contacts, unpack_address, unpack_contacts
from dht.coordinates import Coordinate
from dht.early import Question, padding, question_in
from dht.envelope import open_envelope, seal
from dht.errors import RemoteError
from dht.handshake import Handshaker, Member
from dht.identity import ED25519, X25519_EXCHANGE
from dht.record import open_record, seal_record
from dht.vitals import Vitals, unpack_vitals
from summaries.errors import MessageError
from summaries.forms import from_fields
from xenonode.model.entity import Address
from xenonode.store.values import Elsewhere

from .mutator import Mutator

SIGNER = ED25519.generate(bytes(range(32)))
NOW_MS = 1_800_000_000_000
KEY = bytes(20)
CREDENTIAL = seal(SIGNER, "credential", {"key": SIGNER.public_key}).raw
MUTATIONS = 1_500


def _member(raw: bytes, now_ms: int) -> Member:
    key = open_envelope(raw, ED25519, "credential").key
    return Member(key, key[:8], "", NOW_MS + 1, serves=True)


def _shaker() -> Handshaker:
    return Handshaker(
        SIGNER,
        CREDENTIAL,
        _member,
        ED25519,
        X25519_EXCHANGE,
        network_id=b"n",
        rng=random.Random(3),
        client=False,
    )


SHAKER = _shaker()
QUESTION = Question(1, -2, bytes(20)).packed()
OUTGOING = SHAKER.hello(7, QUESTION)
HELLO = SHAKER.hello_datagram(OUTGOING)[datagram.HEADER_BYTES : -datagram.MAC_BYTES]


def _read(member: Member, question: bytes, room: int) -> bytes:
    Question.unpack(question)
    return b"answer"


WELCOME, _ = SHAKER.answer(7, HELLO, 9, ("127.0.0.1", 1), NOW_MS, demand_cookie=False, read=_read)
COOKIE, _ = SHAKER.answer(7, HELLO, 9, ("127.0.0.1", 1), NOW_MS, demand_cookie=True)
BODY = slice(datagram.HEADER_BYTES, -datagram.MAC_BYTES)
CONTACTS = [Contact(bytes([n]) * 20, ("10.0.0.1" if n % 2 else "fd00::1", 5)) for n in range(1, 9)]


def _message(data: bytes) -> object:
    return from_fields(wire.unpack(data))


# A name, what decodes, and a good example to spoil.
DECODERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "value": (lambda data: wire.decode(data), wire.encode({"a": [1, "x", b"y", {"b": None}]})),
    "body": (lambda data: wire.unpack(data), wire.pack([1, 2, b"x", ["y", [True]]])),
    "envelope": (lambda data: open_envelope(data, ED25519), CREDENTIAL),
    "record": (
        lambda data: open_record(data, ED25519, "cores", KEY, NOW_MS),
        seal_record(SIGNER, "cores", KEY, 1, NOW_MS + 1_000, b"value"),
    ),
    "contact": (Contact.unpack, CONTACTS[0].packed),
    "address": (unpack_address, CONTACTS[1].packed[20:]),
    "contacts": (lambda data: unpack_contacts(data, 20), pack_contacts(CONTACTS)),
    "vitals": (unpack_vitals, Vitals(random.Random(1)).pack(NOW_MS)),
    "hello": (
        lambda data: SHAKER.answer(7, data, 9, ("127.0.0.1", 1), NOW_MS, demand_cookie=False, read=_read),
        HELLO,
    ),
    "early question": (Question.unpack, QUESTION),
    "padding": (lambda data: Question.unpack(question_in(data)), padding(QUESTION, 700)),
    "welcome": (lambda data: SHAKER.finish(OUTGOING, data, NOW_MS), WELCOME[BODY]),
    "cookie": (SHAKER.cookie_in, COOKIE[BODY]),
    "parts asked for": (unpack_missing, wire.pack([0, 3, 64])),
    "where a value is": (Elsewhere.of, Elsewhere(70_000, bytes(32), Address("10.0.0.7", 7_411)).packed()),
    "trie message": (_message, wire.pack([2, [1, 2], 7, b"advert"])),
}


def _survives(decode: Callable[[bytes], object], data: bytes) -> object:
    try:
        return decode(data)
    except (RemoteError, MessageError):
        return None


@pytest.mark.parametrize("name", DECODERS)
def test_a_good_example_is_decoded(name: str) -> None:
    decode, example = DECODERS[name]
    if name != "trie message":
        assert decode(example) is not None


@pytest.mark.parametrize("name", DECODERS)
def test_a_spoiled_example_raises_nothing_but_a_refusal(name: str) -> None:
    decode, example = DECODERS[name]
    mutator = Mutator(5)
    for _ in range(MUTATIONS):
        _survives(decode, mutator.bytes_of(example))


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=1_300))
@settings(max_examples=60, deadline=None)
def test_any_bytes_raise_nothing_but_a_refusal(name: str, data: bytes) -> None:
    _survives(DECODERS[name][0], data)


FIELD = st.one_of(st.integers(-(2**63), 2**64 - 1), st.binary(max_size=80), st.text(max_size=8))


@given(fields=st.lists(FIELD, max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_handshake_of_the_right_shape_raises_nothing_but_a_refusal(fields: list[Any]) -> None:
    data = wire.pack(fields)
    for name in ("hello", "welcome", "cookie", "trie message"):
        _survives(DECODERS[name][0], data)


@given(fields=st.lists(st.integers(-(2**40), 2**40), max_size=6))
@settings(max_examples=200, deadline=None)
def test_any_coordinate_is_sane_or_refused(fields: list[int]) -> None:
    try:
        coordinate = Coordinate.from_fields(fields)
    except (ValueError, RemoteError):
        return
    assert coordinate.distance_ms(coordinate) >= 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\xa1a\x01" + b"\xa1a\x02",  # a key twice, and a rest
        b"\x82\xa1a\x01\xa1a\x02",
        b"\xcd\x00\x01",  # a long form
        b"\xcb\x7f\xf8\0\0\0\0\0\0",  # NaN
        b"\xc7\x01\x01\0",  # an ext type
        b"\x91" * 5_000 + b"\x90",  # depth 5,000
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32-1
        b"\x01\x00",  # a trailing byte
        b"\xa2\xff\xfe",  # bad UTF-8
    ],
)
def test_the_wire_refuses_what_has_two_readings(data: bytes) -> None:
    with pytest.raises(RemoteError):
        wire.decode(data)
    with pytest.raises(RemoteError):
        wire.unpack(data[:1_163])
