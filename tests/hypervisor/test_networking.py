from __future__ import annotations

import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.errors import CapacityError
from hypervisor.networking import POOL, choose_subnet, mac_address, taken_networks

TAGS = st.text("0123456789abcdef", min_size=8, max_size=8)


@given(TAGS, st.lists(st.integers(0, 16383), max_size=20))
def test_a_subnet_is_one_of_the_pool_that_nothing_uses(owner: str, used: list[int]) -> None:
    taken = [ipaddress.IPv4Network((int(POOL.network_address) + (number << 8), 24)) for number in used]
    chosen = choose_subnet(owner, taken)
    assert chosen.subnet_of(POOL)
    assert not any(chosen.overlaps(other) for other in taken)


def test_when_the_whole_pool_is_routed_elsewhere_there_is_no_subnet() -> None:
    with pytest.raises(CapacityError):
        choose_subnet("0123abcd", [ipaddress.IPv4Network("10.0.0.0/8")])


def test_addresses_and_routes_of_others_count_as_taken_and_our_own_bridge_does_not() -> None:
    addresses = [
        {"ifname": "eth0", "addr_info": [{"family": "inet", "local": "10.70.1.5", "prefixlen": 16}]},
        {"ifname": "xb0123abcd", "addr_info": [{"family": "inet", "local": "10.80.1.1", "prefixlen": 24}]},
        {"ifname": "lo", "addr_info": [{"family": "inet6", "local": "::1", "prefixlen": 128}]},
    ]
    routes = [{"dst": "default", "dev": "eth0"}, {"dst": "10.90.0.0/16", "dev": "tun0"}, {"dst": "10.99.1.1"}]
    taken = taken_networks(json.dumps(addresses), json.dumps(routes), "xb0123abcd")
    assert [str(network) for network in taken] == ["10.70.0.0/16", "10.90.0.0/16", "10.99.1.1/32"]


@given(TAGS, st.integers(1, 250))
def test_interface_names_and_addresses_have_the_form_that_the_kernel_takes(owner: str, index: int) -> None:
    mac = mac_address(owner, index)
    assert len(mac) == 17
    assert int(mac[:2], 16) & 3 == 2  # local, unicast
