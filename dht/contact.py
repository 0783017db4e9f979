"""A contact: a node id and the address where it answers; and which addresses a network lets in.

Decides how contacts look on the wire (id 20, address 4 or 16, port 2; packed binary, because
a reply carries 20 of them) and how addresses are grouped for all caps. Contacts are interned: the same
26 bytes give the same object, since a lookup sees each of them many times.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field
from functools import lru_cache

from .errors import LocalError, WireError
from .identity import NODE_ID_BYTES

Address = tuple[str, int]

PACKED_V4_BYTES = NODE_ID_BYTES + 6
PACKED_V6_BYTES = NODE_ID_BYTES + 18
# Interned contacts and parsed hosts: 8 overlays of 10,000 simulated nodes fit.
REMEMBERED = 1 << 17
# A datagram has no room for more than 44 in its 1,163 bytes; how a list of so many IPv4 ones is cut into its parts.
_MAX_CONTACTS = 44
_CUTS = [struct.Struct(f"{PACKED_V4_BYTES}s" * count) for count in range(_MAX_CONTACTS + 1)]


@dataclass(frozen=True, slots=True)
class Contact:
    """One node of one overlay; `packed` is its wire form, `number` its id as an integer."""

    node_id: bytes
    address: Address
    number: int = field(init=False, compare=False, repr=False)
    packed: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.node_id) != NODE_ID_BYTES:
            raise LocalError("a node id is 20 bytes")
        object.__setattr__(self, "number", int.from_bytes(self.node_id, "big"))
        object.__setattr__(self, "packed", self.node_id + pack_address(self.address))

    @property
    def id(self) -> bytes:
        """The name that `kademlia` has for the node id."""
        return self.node_id

    @property
    def long_id(self) -> int:
        """The name that `kademlia` has for the id as an integer."""
        return self.number

    @staticmethod
    def unpack(packed: bytes) -> Contact:
        """The contact in 26 or 38 bytes."""
        return _contacts.get(packed) or _unpack(packed)


_contacts: dict[bytes, Contact] = {}


def pack_address(address: Address) -> bytes:
    """Address and port as 6 or 18 bytes."""
    host, port = address
    if not 0 < port < 65_536:
        raise LocalError(f"not a port: {port}")
    return _host_bytes(host) + port.to_bytes(2, "big")


def unpack_address(packed: bytes) -> Address:
    """The address in 6 or 18 bytes."""
    if len(packed) not in (PACKED_V4_BYTES - NODE_ID_BYTES, PACKED_V6_BYTES - NODE_ID_BYTES):
        raise WireError(f"an address is 6 or 18 bytes, not {len(packed)}")
    return _address(packed)


def intern_address(address: Address) -> Address:
    """The one object that stands for this address in all contacts, peers and sessions."""
    return _address(pack_address(address))


def address_text(address: Address) -> str:
    """For people: `10.0.0.1:7410`, `[fd00::1]:7410`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def pack_contacts(contacts: list[Contact]) -> bytes:
    """How many IPv4 contacts follow (1 byte), those, and then the IPv6 ones."""
    return join_contacts([contact.packed for contact in contacts])


def join_contacts(packed: list[bytes]) -> bytes:
    """`pack_contacts` of contacts that are in their wire forms already."""
    joined = b"".join(packed)
    if len(joined) == len(packed) * PACKED_V4_BYTES:
        return bytes((len(packed),)) + joined
    four = [each for each in packed if len(each) == PACKED_V4_BYTES]
    six = [each for each in packed if len(each) == PACKED_V6_BYTES]
    return bytes((len(four),)) + b"".join(four) + b"".join(six)


def unpack_contacts(data: bytes, most: int) -> list[Contact]:
    """The contacts in a reply; more than `most` of them, or a rest, is refused."""
    if not data:
        raise WireError("no count of contacts")
    four_end = 1 + data[0] * PACKED_V4_BYTES
    six, rest = divmod(len(data) - four_end, PACKED_V6_BYTES)
    if rest or six < 0 or data[0] + six > min(most, _MAX_CONTACTS):
        raise WireError(f"{len(data)} bytes are not at most {most} contacts")
    known, cut = _contacts, _CUTS[data[0]]
    found = [known.get(packed) or _unpack(packed) for packed in cut.unpack_from(data, 1)]
    if six:
        found += [Contact.unpack(data[at : at + PACKED_V6_BYTES]) for at in range(four_end, len(data), PACKED_V6_BYTES)]
    return found


def group(address: Address, profile: str) -> object:
    """What counts as one place for caps: /24 and /48 in public, address and port in a local network."""
    if profile == "local":
        return address
    packed = _host_bytes(address[0])
    return packed[:3] if len(packed) == 4 else packed[:6]


@lru_cache(maxsize=REMEMBERED)
def admits(host: str, profile: str) -> bool:
    """Whether a network of this profile speaks to this host: local ones to private hosts, public ones to others."""
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return False
    if parsed.is_multicast or parsed.is_unspecified or host == "255.255.255.255":
        return False
    near = parsed.is_private or parsed.is_loopback or parsed.is_link_local
    return near if profile == "local" else parsed.is_global and not near


def may_be_translated(host: str) -> bool:
    """Whether this is an address of a network of its own, before which there may be a translator."""
    return admits(host, "local") and not ipaddress.ip_address(host).is_loopback


def plain_host(host: str) -> str:
    """The one way in which we write an address: `::1` for `0:0:0:0:0:0:0:1`."""
    return str(ipaddress.ip_address(_host_bytes(host)))


@lru_cache(maxsize=REMEMBERED)
def _host_bytes(host: str) -> bytes:
    try:
        return ipaddress.ip_address(host).packed
    except ValueError:
        raise LocalError(f"not an IP address: {host!r}") from None


def _unpack(packed: bytes) -> Contact:
    if len(packed) not in (PACKED_V4_BYTES, PACKED_V6_BYTES):
        raise WireError(f"a contact is 26 or 38 bytes, not {len(packed)}")
    contact = Contact(packed[:NODE_ID_BYTES], _address(packed[NODE_ID_BYTES:]))
    if len(_contacts) >= REMEMBERED:
        # Who is in use lives on where it is used; all others are read anew.
        _contacts.clear()
    _contacts[contact.packed] = contact
    return contact


@lru_cache(maxsize=REMEMBERED)
def _address(packed: bytes) -> Address:
    port = int.from_bytes(packed[-2:], "big")
    if not port:
        raise WireError("a contact with port 0")
    return (str(ipaddress.ip_address(packed[:-2])), port)
