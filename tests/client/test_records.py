"""What a client remembers: whole, by any unique beginning of an id, and in spite of a damaged file."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht import wire
from xenonode.client.checking import Share
from xenonode.client.records import Records, SessionRecord
from xenonode.errors import XenoError
from xenonode.model.entity import Address

from ..server.world import SMALL, Files, MemoryDisk

CONTROL = Address("127.0.0.1", 7001)


def record(first: int, **changes: object) -> SessionRecord:
    fields: dict[str, object] = {
        "id": bytes([first]) * 16,
        "server": b"s" * 32,
        "control": CONTROL,
        "order": b"o" * 16,
        "client_agreement": b"agreement",
        "server_agreement": b"",
        "start": b"",
        "shares": (Share(1, SMALL),),
        "accepted_usage": b"",
        "closed": False,
        "reservation": b"r",
    }
    return SessionRecord(**{**fields, **changes})  # type: ignore[arg-type]  # names of its own fields


def test_what_is_kept_is_found_by_any_beginning_that_names_one() -> None:
    records = Records(MemoryDisk(Files()))
    records.keep(record(0xAB))
    records.keep(record(0xAC))
    assert records.find("ab") == records.find("ABABAB ") == record(0xAB)
    for ambiguous, count in (("a", "2 sessions"), ("", "no session"), ("f", "no session")):
        with pytest.raises(XenoError, match=count):
            records.find(ambiguous)
    assert records.sessions() == [record(0xAB), record(0xAC)]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_record_is_named_and_the_others_go_on(data: st.DataObject) -> None:
    files = Files()
    records = Records(MemoryDisk(files))
    records.keep(record(1))
    records.keep(record(2))
    name = "session-" + record(1).id.hex()
    whole = files.content[name]
    cut = data.draw(st.integers(0, len(whole) - 1))
    files.content[name] = data.draw(
        st.sampled_from([whole[:cut], whole + b"\0", b"", wire.encode([1]), whole[:cut] + b"\xc1" + whole[cut + 1 :]])
    )
    try:
        found = records.find("01")
    except XenoError as error:
        assert error.code == "damaged" and "session-01" in error.message
        assert records.sessions() == [record(2)]
    else:
        assert isinstance(found, SessionRecord)  # a byte within a text or an id: another record, but a whole one


def test_a_record_of_the_first_form_is_still_read() -> None:
    files = Files()
    records = Records(MemoryDisk(files))
    records.keep(record(1))
    name = "session-" + record(1).id.hex()
    fields = wire.decode(files.content[name])
    assert isinstance(fields, dict)
    shares, _ = fields.pop("shares"), fields.pop("reservation")
    files.content[name] = wire.encode({**fields, "most": shares[0][1]})  # type: ignore[index]
    assert records.find("01") == record(1, shares=(Share(0, SMALL),), reservation=b"")


def test_a_record_of_a_newer_program_is_refused_by_name() -> None:
    files = Files()
    records = Records(MemoryDisk(files))
    records.keep(record(1))
    name = "session-" + record(1).id.hex()
    fields = wire.decode(files.content[name])
    assert isinstance(fields, dict)
    files.content[name] = wire.encode({**fields, "version": 99})
    with pytest.raises(XenoError, match="version 99 is newer"):
        records.find("01")


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xc1",
        wire.encode([1]),
        wire.encode({"ab": 1}),
        wire.encode({"zz": ["h", 1]}),
        wire.encode({"ab" * 32: ["h"]}),
    ],
)
def test_a_damaged_list_of_found_servers_is_only_a_lost_convenience(junk: bytes) -> None:
    files = Files()
    files.content["found"] = junk
    records = Records(MemoryDisk(files))
    for prefix in ("ab", "zz"):
        with pytest.raises(XenoError, match="known server keys"):
            records.found(prefix)
    records.keep_found([])
