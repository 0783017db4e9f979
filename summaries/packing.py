"""Rows of an answer, packed: columns as narrow as the largest difference in them, since a datagram holds few rows.

Decides the form only: a header, then one fixed-width record a row. Ids are random and stay whole; sequence numbers
and ranks are kept as differences from the least; contacts (6 or 18 bytes, mostly equal in length) behind their length.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from summaries.attributes import LARGEST
from summaries.errors import MessageError
from summaries.point import LARGEST_SEQUENCE, MAX_CONTACT_BYTES

Packable = tuple[int, int, int, bytes]
"""id, sequence number, rank, contact."""

HEADER_BYTES = 19  # three widths, the least sequence number and the least rank


def row_width(rows: Sequence[Packable]) -> int:
    """The bytes that each of these rows takes, or fewer when only some of them are packed together."""
    if not rows:
        return 0
    return 9 + sum(_widths(rows))


def pack_rows(rows: Sequence[Packable]) -> bytes:
    """The rows in their order; no rows are no bytes."""
    if not rows:
        return b""
    seq_width, rank_width, contact_width = _widths(rows)
    least_seq, least_rank = min(row[1] for row in rows), min(row[2] for row in rows)
    parts = [bytes((seq_width, rank_width, contact_width)), least_seq.to_bytes(8), least_rank.to_bytes(8, signed=True)]
    for id, seq, rank, contact in rows:
        parts.append(id.to_bytes(8) + (seq - least_seq).to_bytes(seq_width) + (rank - least_rank).to_bytes(rank_width))
        parts.append(bytes((len(contact),)) + contact.ljust(contact_width, b"\0"))
    return b"".join(parts)


def unpack_rows(data: object, most: int) -> list[Packable]:
    """What pack_rows packed, at most `most` rows; anything else raises MessageError."""
    if not isinstance(data, bytes):
        raise MessageError("rows are packed in bytes")
    if not data:
        return []
    if len(data) < HEADER_BYTES:
        raise MessageError("packed rows have a header")
    seq_width, rank_width, contact_width = data[0], data[1], data[2]
    if seq_width > 8 or rank_width > 8 or contact_width > MAX_CONTACT_BYTES:
        raise MessageError("a column of packed rows is too wide")
    layout = Struct(f">Q{seq_width}s{rank_width}sB{contact_width}s")
    count, rest = divmod(len(data) - HEADER_BYTES, layout.size)
    if rest or not 0 < count <= most:
        raise MessageError("packed rows have a fixed width, and a page has not so many")
    least_seq = int.from_bytes(data[3:11])
    least_rank = int.from_bytes(data[11:19], signed=True)
    number = int.from_bytes
    found = []
    for id, seq, rank, length, contact in layout.iter_unpack(data[HEADER_BYTES:]):
        if length != contact_width:
            if length > contact_width or any(contact[length:]):
                raise MessageError("a packed contact is longer than its column, or followed by more")
            contact = contact[:length]
        found.append((id, least_seq + number(seq), least_rank + number(rank), contact))
    seqs, ranks = [row[1] for row in found], [row[2] for row in found]
    if max(seqs) > LARGEST_SEQUENCE or min(ranks) < -LARGEST or max(ranks) > LARGEST:
        raise MessageError("a packed row is out of range")
    if (min(seqs), min(ranks), _widths(found)) != (least_seq, least_rank, (seq_width, rank_width, contact_width)):
        raise MessageError("packed rows are not in their shortest form")
    return found


def _widths(rows: Sequence[Packable]) -> tuple[int, int, int]:
    seqs, ranks = [row[1] for row in rows], [row[2] for row in rows]
    return (
        -(-(max(seqs) - min(seqs)).bit_length() // 8),
        -(-(max(ranks) - min(ranks)).bit_length() // 8),
        max(len(row[3]) for row in rows),
    )
