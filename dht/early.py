"""The one read that a HELLO may carry, and the answer to it in the WELCOME: a cold peer costs no further round.

Decides how the question lies in HELLO's padding, which nodes of before do not look at, and how the answer is bound to
it. Leaves which questions may be asked so to `walk.EARLY`, and the handshake to `handshake`. Pure.

    padding   [1, length 2, question, zeros]        question   msgpack [overlay tag, kind, body]

    REPLY     to the question THANKS, the first datagram of the session when there is nothing else to ask

Nobody has proved an address when the question is answered. So it is one whose answer anybody may have and that
changes nothing; HELLO's length pays for the answer, as for the rest of the WELCOME; and whoever sends a HELLO again
has the same read once more, or another, within the limits of HELLOs. WELCOME's signature and the session's keys cover
question and answer: if either was altered on its way there is no session, or no answer (as in RFC 8446, section 2.3,
without its secrets).
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from . import wire
from .errors import WireError

# The number of no question: a reply to it says that the early one was answered, and proves the asker's address.
THANKS = 0
# How padding begins that holds a question; all zeros hold none, and nobody knows other beginnings yet.
_QUESTION = 1
_HEAD_BYTES = 3
# What msgpack puts before bytes of any length that fits a datagram.
ANSWER_HEAD_BYTES = 3


class Question(NamedTuple):
    """What is read early."""

    tag: int
    kind: int
    body: bytes

    def packed(self) -> bytes:
        """Its wire form."""
        return wire.pack([self.tag, self.kind, self.body])

    @staticmethod
    def unpack(data: bytes) -> Question:
        """The question in these bytes; WireError when there is none."""
        fields = wire.unpack_flat(data)
        if len(fields) != 3:
            raise WireError("an early question has three fields")
        tag, kind, body = fields
        if type(tag) is not int or type(kind) is not int or type(body) is not bytes:
            raise WireError("an early question is two integers and bytes")
        return Question(tag, kind, body)


def padding(question: bytes, room: int) -> bytes:
    """So many bytes that end a HELLO; without the question where it does not fit."""
    if not question or _HEAD_BYTES + len(question) > room:
        return bytes(room)
    return (bytes((_QUESTION,)) + len(question).to_bytes(2, "big") + question).ljust(room, b"\0")


def question_in(padded: object) -> bytes:
    """The question in a HELLO's padding, or nothing."""
    if type(padded) is not bytes or padded[:1] != bytes((_QUESTION,)):
        return b""
    end = _HEAD_BYTES + int.from_bytes(padded[1:_HEAD_BYTES], "big")
    return padded[_HEAD_BYTES:end] if end <= len(padded) else b""


def bound(digest: bytes, question: bytes, answer: bytes) -> bytes:
    """A WELCOME's digest with an answer, and with the question that it is an answer to."""
    head = b"xeno-early1\0" + digest + len(question).to_bytes(2, "big")
    return hashlib.sha256(head + question + answer).digest()
