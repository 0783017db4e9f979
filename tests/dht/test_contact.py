"""Contacts as bytes, and which addresses a network lets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht.contact import Contact, admits, group, pack_contacts, unpack_contacts
from dht.errors import LocalError, WireError

addresses = st.tuples(st.ip_addresses().map(str), st.integers(1, 65_535))
contacts = st.builds(Contact, st.binary(min_size=20, max_size=20), addresses)


@given(contacts)
def test_a_contact_unpacks_to_itself_and_to_one_object(contact: Contact) -> None:
    assert len(contact.packed) in (26, 38)
    assert Contact.unpack(contact.packed) == contact
    assert Contact.unpack(contact.packed) is Contact.unpack(bytes(bytearray(contact.packed)))


@given(st.lists(contacts, max_size=20))
def test_a_list_of_contacts_survives_in_families(found: list[Contact]) -> None:
    packed = pack_contacts(found)
    assert sorted(unpack_contacts(packed, 20), key=repr) == sorted(found, key=repr)
    assert len(packed) <= 1 + 20 * 38


@given(st.binary(max_size=600))
def test_any_bytes_are_at_most_k_contacts_or_refused(data: bytes) -> None:
    try:
        assert len(unpack_contacts(data, 20)) <= 20
    except WireError:
        return


def test_more_than_k_contacts_are_refused() -> None:
    many = [Contact(bytes([n]) * 20, ("10.0.0.1", n + 1)) for n in range(21)]
    with pytest.raises(WireError):
        unpack_contacts(pack_contacts(many), 20)


def test_impossible_contacts_are_refused() -> None:
    for node_id, address in ((b"short", ("10.0.0.1", 1)), (bytes(20), ("no address", 1)), (bytes(20), ("10.0.0.1", 0))):
        with pytest.raises(LocalError):
            Contact(node_id, address)


@pytest.mark.parametrize(
    ("host", "local", "public"),
    [
        ("127.0.0.1", True, False),
        ("10.1.2.3", True, False),
        ("192.168.0.9", True, False),
        ("::1", True, False),
        ("fd00::1", True, False),
        ("8.8.8.8", False, True),
        ("2606:4700::1", False, True),
        ("224.0.0.1", False, False),
        ("255.255.255.255", False, False),
        ("0.0.0.0", False, False),
        ("localhost", False, False),
    ],
)
def test_networks_speak_to_their_own_kind_of_address(host: str, local: bool, public: bool) -> None:
    assert (admits(host, "local"), admits(host, "public")) == (local, public)


def test_places_are_blocks_in_public_and_sockets_locally() -> None:
    assert group(("8.8.8.8", 1), "public") == group(("8.8.8.9", 2), "public")
    assert group(("2606:4700::1", 1), "public") == group(("2606:4700:0:9::1", 1), "public")
    assert group(("127.0.0.1", 1), "local") != group(("127.0.0.1", 2), "local")
