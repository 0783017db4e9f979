"""What the demonstration is made of: who takes part, on which ports, in which folders, with which configuration.

Each server is made from a real catalogue row and offers its share of this machine, so that all of them together
could really deliver what they advertise at the same time.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from xenonode import catalogue, units
from xenonode.catalogue import ServerShape
from xenonode.config import save
from xenonode.errors import XenoError
from xenonode.model.resources import Resources

LOOPBACK = "127.0.0.1"
LEAF_CAPACITY = 2
"""So that the tries of so few adverts have levels; a real network takes hundreds."""
KEPT_PERMILLE = 200
"""What the servers leave of this machine's CPU for XenoCorp, for themselves, and for emulation's own work."""
MEMORY_PER_SERVER_BYTES = 512 * 2**20
DISK_PER_SERVER_BYTES = 1024 * 2**20
NET_PER_SERVER_BIT_PER_S = 20_000_000
LEAST_SHARE = Resources(160, 384 * 2**20, 64 * 2**20, 2_000_000)
"""Every server can host the demonstration's session, and let it grow."""
RECEIPT_PERIOD_S = 5
COMPANIES = (
    "Alder",
    "Birch",
    "Cedar",
    "Dogwood",
    "Elm",
    "Fir",
    "Ginkgo",
    "Hazel",
    "Ironwood",
    "Juniper",
    "Larch",
    "Maple",
)


@dataclass(frozen=True, slots=True)
class Place:
    """One role's folder, configuration file, and ports."""

    name: str
    folder: Path
    config: Path
    udp_port: int
    control_port: int

    @property
    def udp(self) -> str:
        """Where search traffic is received."""
        return f"{LOOPBACK}:{self.udp_port}"

    @property
    def control(self) -> str:
        """Where control connections are accepted."""
        return f"{LOOPBACK}:{self.control_port}"


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """The whole network."""

    corp: Place
    servers: tuple[Place, ...]
    shapes: tuple[ServerShape, ...]
    client: Place


def make_plan(folder: Path, servers: int, seed: int) -> DemoPlan:
    """Choose rows and ports, and write every configuration file. Raises XenoError where this machine is too small."""
    shapes = tuple(catalogue.server_shapes(Random(seed), servers, machine_share(servers), LEAST_SHARE))
    ports = free_ports(2 * servers + 2)
    corp = _place(folder, "corp", ports[0], ports[1])
    network = corp.folder / "network.xeno"
    save(
        corp.config,
        {
            "folder": corp.folder,
            "udp": corp.udp,
            "control": corp.control,
            "public_name": "Demo XenoCorp",
            "leaf_capacity": LEAF_CAPACITY,
        },
    )
    places = []
    for number, shape in enumerate(shapes):
        place = _place(folder, f"server-{number + 1}", *ports[2 * number + 2 : 2 * number + 4])
        save(place.config, {**_server(shape, COMPANIES[number % len(COMPANIES)]), **_where(place), "network": network})
        places.append(place)
    client = _place(folder, "client", 0, 0)
    save(
        client.config,
        {
            "folder": client.folder,
            "network": network,
            "ssh_key": client.folder / "ssh_ed25519",
            "udp": f"{LOOPBACK}:{free_ports(1)[0]}",
            **_owner("Ada Lovelace", "GB", "ada@example.org"),
        },
    )
    return DemoPlan(corp, tuple(places), shapes, client)


def machine_share(servers: int) -> Resources:
    """What all servers together may offer: this machine's CPU less what is kept, and a fixed piece of the rest each."""
    cpu_ms_per_s = len(os.sched_getaffinity(0)) * 1000 * (1000 - KEPT_PERMILLE) // 1000
    return Resources(
        cpu_ms_per_s,
        servers * MEMORY_PER_SERVER_BYTES,
        servers * DISK_PER_SERVER_BYTES,
        servers * NET_PER_SERVER_BIT_PER_S,
    )


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are free now for UDP and for TCP alike. Raises XenoError where there are not enough."""
    found: list[int] = []
    with ExitStack() as held:
        for _ in range(20 * count):
            if len(found) == count:
                return found
            tcp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            udp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            tcp.bind((LOOPBACK, 0))
            port = tcp.getsockname()[1]
            try:
                udp.bind((LOOPBACK, port))
            except OSError:
                continue
            found.append(port)
    if len(found) == count:
        return found
    raise XenoError(f"only {len(found)} of {count} ports are free", "stop other programs, then run this again", "ports")


def _place(folder: Path, name: str, udp_port: int, control_port: int) -> Place:
    return Place(name, folder / name, folder / f"{name}.toml", udp_port, control_port)


def _where(place: Place) -> dict[str, object]:
    return {"folder": place.folder, "udp": place.udp, "control": place.control}


def _owner(legal_name: str, country: str, email: str) -> dict[str, object]:
    return {
        "owner.legal_name": legal_name,
        "owner.country": country,
        "owner.email": email,
        "owner.proof_reference": "demonstration: no proof was shown",
    }


def _server(shape: ServerShape, company: str) -> dict[str, object]:
    share, prices = shape.share, shape.prices
    values: dict[str, object] = {
        **_owner(f"{company} Hosting Ltd", shape.country, f"ops@{company.lower()}.example"),
        "region": shape.region[:24],
        "features": list(shape.features),
        "advert_period": "60 s",
        "share.cores": shape.cores,
        "share.cpu": units.format_cpu(share.cpu_ms_per_s),
        "share.memory": f"{share.memory_bytes} B",
        "share.disk": f"{share.disk_bytes} B",
        "share.net": f"{share.net_bit_per_s} bps",
    }
    for name, nano, per in zip(("cpu", "memory", "disk", "net"), prices.amounts, ("h", "GiB/h", "GiB/h", "GiB")):
        values[f"prices.{name}"] = units.format_price(nano, prices.currency, per)
    return values


def total(shares: Sequence[Resources]) -> Resources:
    """The sum of what servers offer."""
    return Resources(*(sum(amounts) for amounts in zip(*(share.amounts for share in shares))))
