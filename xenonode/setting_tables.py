"""Which settings each role has: name, how it is read, default, and what it means.

Decides the settings one by one; what cannot be true of several together stands in `xenonode.config`.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from hypervisor.guest_image import default_cache
from summaries.copying import MAX_GROUPS
from summaries.trie import MAX_TRIES
from xenonode.folder import default_config, default_folder
from xenonode.model.entity import PROFILES, Address
from xenonode.settings import Setting
from xenonode.units import CPU_HOUR, GIB, GIB_HOUR, parse_bytes, parse_cpu, parse_duration_ms, parse_price, parse_rate

Role = Literal["corp", "server", "client"]
ROLES: tuple[Role, ...] = ("corp", "server", "client")
NO_ADDRESS = "any"
AUTO = "auto"
"""Where others reach a server: at whatever address it has and they see it at."""


def settings_of(role: Role) -> tuple[Setting, ...]:
    """The settings of a role, in the order in which they are shown."""
    folder = Setting("folder", _path, str(default_folder(role)), "where state and keys are kept; mode 0700")
    if role == "corp":
        return (folder, *_addresses("127.0.0.1:7400", "127.0.0.1:7401"), *_CORP)
    beside = default_config(role).with_name("network.xeno")
    network = Setting("network", _path, str(beside), "the network file that XenoCorp hands out")
    if role == "server":
        return (folder, network, *_addresses("127.0.0.1:7410", "127.0.0.1:7411"), *_OWNER, *_SERVER)
    identity = tuple(Setting(each.name, _text(0, 254), "", each.about) for each in _OWNER)
    return (folder, network, *identity, *_CLIENT)


def _path(raw: object, base: Path) -> Path:
    if not isinstance(raw, (str, Path)) or not str(raw):
        raise ValueError("must be a path")
    return base / Path(raw).expanduser()


def _address(raw: object, base: Path) -> Address:
    host, _, port = _string(raw).rpartition(":")
    if not port.isdecimal() or not host:
        raise ValueError(f"{raw!r} is no address; write e.g. '127.0.0.1:7400'")
    return Address(host.strip("[]"), int(port))


def _address_or_any(raw: object, base: Path) -> Address | None:
    return None if raw == NO_ADDRESS else _address(raw, base)


def _host_or_none(raw: object, base: Path) -> str:
    host = _string(raw)
    if host and ip_address(host).is_unspecified:
        raise ValueError("is every address of this machine, and tells nobody how to reach it")
    return host


def _advertised(raw: object, base: Path) -> str:
    return AUTO if raw == AUTO else _host_or_none(raw, base)


def _forwarded_or_none(raw: object, base: Path) -> Address | None:
    if raw == "":
        return None
    address = _address(raw, base)
    _host_or_none(address.host, base)
    return address


def _string(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"must be a text in quotes, not {raw!r}")
    return raw


def _text(least: int, most: int) -> Callable[[object, Path], str]:
    def parse(raw: object, base: Path) -> str:
        text = _string(raw)
        if not least <= len(text) <= most or not (text.isprintable() or not text):
            raise ValueError(f"must have {least} to {most} printable characters")
        return text

    return parse


def _choice(*choices: str) -> Callable[[object, Path], str]:
    def parse(raw: object, base: Path) -> str:
        if raw not in choices:
            raise ValueError(f"{raw!r} is not one of {', '.join(choices)}")
        return str(raw)

    return parse


def _whole(least: int, most: int) -> Callable[[object, Path], int]:
    def parse(raw: object, base: Path) -> int:
        if isinstance(raw, bool) or not (isinstance(raw, int) or (isinstance(raw, str) and raw.isdecimal())):
            raise ValueError(f"must be a whole number, not {raw!r}")
        if len(str(raw)) > 20 or not least <= int(raw) <= most:
            raise ValueError(f"must be in {least}..{most}")
        return int(raw)

    return parse


def _amount(read: Callable[[str], int], least: int = 0, most: int = 2**63 - 1) -> Callable[[object, Path], int]:
    def parse(raw: object, base: Path) -> int:
        value = read(_string(raw))
        if not least <= value <= most:
            raise ValueError(f"{raw!r} is out of bounds")
        return value

    return parse


def _price(per: tuple[str, ...]) -> Callable[[object, Path], tuple[int, str]]:
    return lambda raw, base: parse_price(_string(raw), per)


def _features(raw: object, base: Path) -> tuple[str, ...]:
    items = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(items, (list, tuple)):
        raise ValueError("must be a list of words")
    words = sorted({_string(each).strip() for each in items} - {""})
    if len(words) > 8 or any(len(word) > 16 for word in words):
        raise ValueError("at most 8 features of at most 16 characters")
    return tuple(words)


def _tries(raw: object, base: Path) -> tuple[tuple[str, int], ...]:
    items = [each.strip() for each in raw.split(",") if each.strip()] if isinstance(raw, str) else raw
    if not isinstance(items, (list, tuple)):
        raise ValueError("must be a list of texts, each a dimension and a number: 'price.cpu 4'")
    found: dict[str, int] = {}
    for each in items:
        name, _, number = _string(each).partition(" ")
        if not name or name in found or not number.strip().isdecimal():
            raise ValueError(f"{each!r} is no dimension and number, as 'price.cpu 4', or names one twice")
        found[name] = _whole(2, MAX_TRIES)(number.strip(), base)
    return tuple(sorted(found.items()))


def _addresses(udp: str, control: str) -> tuple[Setting, Setting]:
    return (
        Setting("udp", _address, udp, "where search traffic is received (UDP)"),
        Setting("control", _address, control, "where control connections are accepted (TCP, mutual TLS)"),
    )


_OWNER = (
    Setting("owner.legal_name", _text(1, 200), None, "legal name of the entity that registers"),
    Setting("owner.country", _text(2, 2), None, "ISO 3166 code of its country, e.g. GB"),
    Setting("owner.email", _text(3, 254), None, "its e-mail address"),
    Setting("owner.proof_reference", _text(1, 200), None, "reference of the proof of identity that XenoCorp was shown"),
)
_CORP = (
    Setting("profile", _choice(*PROFILES), "local", "local (loopback and private addresses allowed) or public"),
    Setting("public_name", _text(1, 64), "XenoCorp", "name under which this XenoCorp appears"),
    Setting("fee_basis_points", _whole(0, 5000), 100, "XenoCorp's share of each captured payment; 100 is 1 %"),
    Setting("leaf_capacity", _whole(2, 4096), 64, "rows that a leaf of the summaries holds before it splits"),
    Setting(
        "root_groups",
        _whole(1, MAX_GROUPS),
        1,
        "groups of three nodes, each of which holds the root of a dimension's summaries; 8 where thousands of servers "
        "are searched by many",
    ),
    Setting(
        "tries",
        _tries,
        (),
        "dimensions of which there are several tries, since they are searched most, and how many: "
        "['price.cpu 4', 'location 4']; a server publishes to each",
    ),
    Setting("credential_days", _whole(1, 30), 7, "how long a credential lives; it renews at half of that"),
    Setting("keys_per_entity", _whole(1, 1000), 8, "keys that one entity may register"),
    Setting("max_balance_usd", _whole(1, 10**9), 1_000_000, "most that an entity may hold, in whole units"),
)
_SERVER = (
    Setting(
        "advertise",
        _advertised,
        "",
        "where others reach this machine when a router forwards the ports of udp, control and guests (20000 to 20999) "
        "to it under the same numbers, e.g. '192.0.2.7'; empty: at udp's and control's own addresses; 'auto': where "
        "others see it, and when its address changes the running server goes on at the new one",
    ),
    Setting(
        "advertise_control",
        _forwarded_or_none,
        "",
        "address and port that a router forwards to control where the port is another, e.g. '192.0.2.7:17411'; udp "
        "must keep its number, since others know a server by where its datagrams come from, and so must guests",
    ),
    Setting("region", _text(1, 24), "local", "region as searches see it, e.g. eu-west-2"),
    Setting("features", _features, [], 'words that searches can ask for, e.g. ["ecc", "ssd"]'),
    Setting("hypervisor", _text(1, 200), "embed", "embed, or a libvirt URI such as qemu:///system"),
    Setting("images", _path, str(default_cache()), "cache folder of the guest images"),
    Setting(
        "receipt_period",
        _amount(parse_duration_ms, 1000, 3_600_000),
        "1 s",
        "the shortest time between the receipts that clients sign; each costs two writes to disk",
    ),
    Setting("advert_period", _amount(parse_duration_ms, 1000, 300_000), "150 s", "how often the advert is renewed"),
    Setting("share.cores", _whole(1, 4096), 1, "cores that a session sees at most"),
    Setting("share.cpu", _amount(parse_cpu, 1), None, "CPU time offered per wall-clock second, e.g. '1000 ms/s'"),
    Setting("share.memory", _amount(parse_bytes, 1), None, "memory offered, e.g. '2 GiB'"),
    Setting("share.disk", _amount(parse_bytes), "1 GiB", "disk offered, e.g. '20 GiB'"),
    Setting("share.net", _amount(parse_rate), "10 Mbps", "network offered, e.g. '100 Mbps'"),
    Setting("prices.cpu", _price(CPU_HOUR), None, "price of an hour of a whole CPU, e.g. '0.02 USD/h'"),
    Setting("prices.memory", _price(GIB_HOUR), None, "price of a GiB of memory for an hour, e.g. '0.004 USD/GiB/h'"),
    Setting("prices.disk", _price(GIB_HOUR), "0 USD/GiB/h", "price of a GiB of disk for an hour"),
    Setting("prices.net", _price(GIB), "0 USD/GiB", "price of a GiB moved, either way, e.g. '0.01 USD/GiB'"),
)
_CLIENT = (
    Setting("ssh_key", _path, str(default_folder("client") / "ssh_ed25519"), "private ssh key; created if absent"),
    Setting("udp", _address_or_any, NO_ADDRESS, "address that searches are sent from; 'any' takes a free port"),
)
EXAMPLES: dict[str, object] = {
    "network": "network.xeno",
    "owner.legal_name": "Example Ltd",
    "owner.country": "GB",
    "owner.email": "ops@example.org",
    "owner.proof_reference": "companies register 01234567",
    "share.cpu": "1000 ms/s",
    "share.memory": "2 GiB",
    "prices.cpu": "0.02 USD/h",
    "prices.memory": "0.004 USD/GiB/h",
}
