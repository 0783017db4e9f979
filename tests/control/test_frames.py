"""Frames and messages: split wherever the bytes are cut, bounded, and strict."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenonode.control.errors import ControlError, FrameError, LocalError
from xenonode.control.frames import MAX_FRAME_BYTES, Splitter, join
from xenonode.control.messages import Reply, Request, check_welcome, welcome_fields

keys = st.text("abcdef", max_size=5)
bodies = st.dictionaries(
    keys, st.integers(-(2**63), 2**63) | st.binary(max_size=50) | st.booleans() | st.none(), max_size=5
)


def split(data: bytes, cuts: list[int]) -> list[dict[str, object]]:
    splitter, found = Splitter(), []
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        splitter.feed(data[start:end])
        while (message := splitter.next()) is not None:
            found.append(message)
    assert not splitter.partial
    return found


@given(st.lists(bodies, min_size=1, max_size=4), st.lists(st.integers(0, 10_000), max_size=10))
def test_messages_come_out_as_they_went_in_wherever_the_bytes_are_cut(
    messages: list[dict[str, object]], cuts: list[int]
) -> None:
    assert split(b"".join(join(message) for message in messages), cuts) == messages


@given(st.binary(max_size=200))
def test_any_bytes_give_messages_or_a_frame_error_and_nothing_else(data: bytes) -> None:
    splitter = Splitter()
    splitter.feed(data)
    try:
        while splitter.next() is not None:
            pass
    except FrameError:
        pass


@pytest.mark.parametrize("length", [0, MAX_FRAME_BYTES + 1, 2**32 - 1])
def test_a_length_out_of_bounds_is_refused_before_the_body_comes(length: int) -> None:
    splitter = Splitter()
    splitter.feed(length.to_bytes(4))
    with pytest.raises(FrameError, match=str(length)):
        splitter.next()


def test_what_no_frame_can_carry_is_our_own_mistake() -> None:
    for value in ({"x": 1.5}, {"x": bytes(MAX_FRAME_BYTES)}):
        with pytest.raises(LocalError):
            join(value)


def test_a_body_that_is_not_canonical_or_no_map_is_refused() -> None:
    for body in (b"\x82\xa1a\x01\xa1a\x02", b"\x81\xa1a\xcd\x00\x01", b"\x91\x01", b"\xc1"):
        splitter = Splitter()
        splitter.feed(len(body).to_bytes(4) + body)
        with pytest.raises(FrameError):
            splitter.next()


@given(st.integers(0, 2**63 - 1), st.text(min_size=1, max_size=100), bodies)
def test_requests_and_replies_survive_their_fields(number: int, text: str, body: dict[str, object]) -> None:
    request = Request(number, text, body)
    assert Request.from_fields(request.to_fields()) == request
    reply = Reply(number, body, None)
    assert Reply.from_fields(reply.to_fields()) == reply
    error = Reply.from_fields(Reply(number, None, ControlError("code", text, "next")).to_fields()).error
    assert error is not None
    assert (error.code, error.message, error.next_step) == ("code", text, "next")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"id": 1},
        {"id": True, "method": "m", "body": {}},
        {"id": -1, "method": "m", "body": {}},
        {"id": 2**63, "method": "m", "body": {}},
        {"id": 1, "method": "", "body": {}},
        {"id": 1, "method": "m" * 101, "body": {}},
        {"id": 1, "method": b"m", "body": {}},
        {"id": 1, "method": "m", "body": []},
        {"id": 1, "method": "m", "body": {}, "more": 1},
        {"id": 1, "ok": 1},
        {"id": 1, "error": "no"},
        {"id": 1, "error": {"code": 1, "message": "", "next_step": ""}},
    ],
)
def test_fields_that_are_no_message_are_refused(fields: dict[str, object]) -> None:
    for kind in (Request, Reply):
        with pytest.raises(FrameError):
            kind.from_fields(fields)


def test_a_welcome_is_this_version_or_an_error() -> None:
    check_welcome(welcome_fields())
    with pytest.raises(FrameError, match="version"):
        check_welcome({"welcome": 2})
    with pytest.raises(ControlError, match="full"):
        check_welcome(welcome_fields(ControlError("busy", "full", "later")))
