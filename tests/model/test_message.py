"""Messages: what is written is what is read, and nothing else is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht import wire
from dht.errors import EnvelopeError, RemoteError
from dht.identity import ED25519
from xenonode.model.errors import MessageError
from xenonode.model.message import INT64_MAX, ITEMS_MAX, Message, require


@dataclass(frozen=True, slots=True)
class Part:
    low: int
    name: str

    def __post_init__(self) -> None:
        require(self.low >= 0, "low must not be negative")


@dataclass(frozen=True, slots=True)
class Sample(Message):
    TYPE: ClassVar[str] = "sample"
    number: int
    text: str
    raw: bytes
    flag: bool
    maybe: int | None
    part: Part
    parts: tuple[Part, ...]
    pair: tuple[int, str]


SIGNER = ED25519.generate(bytes(range(32)))
integers = st.integers(-INT64_MAX, INT64_MAX)
words = st.text(alphabet=st.characters(codec="ascii"), max_size=20)
part = st.builds(Part, st.integers(0, INT64_MAX), words)
samples = st.builds(
    Sample,
    integers,
    words,
    st.binary(max_size=40),
    st.booleans(),
    st.none() | integers,
    part,
    st.lists(part, max_size=5).map(tuple),
    st.tuples(integers, words),
)
SAMPLE = Sample(7, "seven", b"\x07", True, None, Part(1, "a"), (Part(2, "b"),), (3, "c"))


@given(samples)
def test_a_sealed_message_opens_as_itself(sample: Sample) -> None:
    opened, envelope = Sample.open(sample.seal(SIGNER).raw, ED25519, signed_by=SIGNER.public_key)
    assert opened == sample
    assert envelope.key == SIGNER.public_key


@given(samples, st.data())
def test_one_flipped_bit_is_never_accepted(sample: Sample, data: st.DataObject) -> None:
    raw = bytearray(sample.seal(SIGNER).raw)
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(RemoteError):
        Sample.open(bytes(raw), ED25519, signed_by=SIGNER.public_key)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", True),
        ("number", "7"),
        ("number", 2**63),
        ("text", b"seven"),
        ("flag", 1),
        ("maybe", "x"),
        ("part", [1]),
        ("part", [-1, "a"]),
        ("parts", [[1, "a"], "b"]),
        ("parts", [[1, "a"]] * (ITEMS_MAX + 1)),
        ("pair", [1, "a", 2]),
        ("version", 2),
        ("version", 0),
        ("version", True),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused_by_name(field: str, value: Any) -> None:
    fields = {**SAMPLE.to_fields(), field: value}
    with pytest.raises(MessageError, match=field):
        Sample.from_fields(fields)


@pytest.mark.parametrize("field", [*SAMPLE.to_fields()])
def test_a_missing_field_is_refused_by_name(field: str) -> None:
    fields = SAMPLE.to_fields()
    del fields[field]
    with pytest.raises(MessageError, match=field):
        Sample.from_fields(fields)


def test_an_unknown_field_is_survived() -> None:
    assert Sample.from_fields({**SAMPLE.to_fields(), "later": 1}) == SAMPLE


def test_another_type_and_another_signer_are_refused() -> None:
    other = ED25519.generate(bytes(32 * [9]))
    with pytest.raises(MessageError, match="signed by"):
        Sample.open(SAMPLE.seal(other).raw, ED25519, signed_by=SIGNER.public_key)

    @dataclass(frozen=True, slots=True)
    class Other(Message):
        TYPE: ClassVar[str] = "other"

    with pytest.raises(EnvelopeError, match="sample"):
        Other.open(SAMPLE.seal(SIGNER).raw, ED25519)


def test_fields_are_what_the_wire_carries() -> None:
    assert wire.decode(wire.encode(SAMPLE.to_fields())) == SAMPLE.to_fields()
