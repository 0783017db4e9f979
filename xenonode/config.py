"""The settings of each role, as frozen values: one TOML file a role, `version = 1`, units written out, no secret in it.

Decides what cannot be true of settings together. Which there are stands in `xenonode.setting_tables`, how they are
found in `xenonode.settings`. Keys never stand here: they are files of their own in the state folder. Home of tomli-w.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, overload

import tomli_w

from hypervisor.guest_image import default_cache
from xenonode.errors import ConfigError
from xenonode.folder import default_config, write_atomically
from xenonode.model.entity import Address
from xenonode.model.resources import Prices, Resources
from xenonode.setting_tables import AUTO, EXAMPLES, ROLES, Role, settings_of
from xenonode.settings import CONFIG_VERSION, EffectiveValue, gather


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpConfig:
    """XenoCorp's settings."""

    folder: Path
    udp: Address
    control: Address
    profile: str = "local"
    public_name: str = "XenoCorp"
    fee_basis_points: int = 100
    leaf_capacity: int = 64
    root_groups: int = 1
    tries: tuple[tuple[str, int], ...] = ()
    credential_days: int = 7
    keys_per_entity: int = 8
    max_balance_usd: int = 1_000_000
    effective: tuple[EffectiveValue, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_addresses(self.udp, self.control)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """A XenoServer's settings: who owns it, what it offers of its host, and at which prices."""

    folder: Path
    network: Path
    udp: Address
    control: Address
    legal_name: str
    country: str
    email: str
    proof_reference: str
    region: str
    share: Resources
    cores: int
    prices: Prices
    advertise: str = ""
    advertise_control: Address | None = None
    features: tuple[str, ...] = ()
    hypervisor: str = "embed"
    images: Path = field(default_factory=default_cache)
    receipt_period_ms: int = 1_000
    advert_period_ms: int = 150_000
    effective: tuple[EffectiveValue, ...] = field(default=(), compare=False, repr=False)

    @property
    def follows(self) -> bool:
        """Whether the server follows its address when it changes, instead of keeping to what is written here."""
        return self.advertise == AUTO

    @property
    def host(self) -> str:
        """Where others reach guests, and control connections unless these have an address of their own."""
        return self.control.host if self.follows else self.advertise or self.control.host

    @property
    def shown_control(self) -> Address:
        """Where others reach control connections."""
        return self.advertise_control or Address(self.host, self.control.port)

    def __post_init__(self) -> None:
        _check_addresses(self.udp, self.control)
        if self.share.cpu_ms_per_s == 0 or self.share.memory_bytes == 0:
            raise ConfigError("share.cpu and share.memory must be more than zero", "a session needs both")
        if not 1 <= self.cores <= 4096:
            raise ConfigError(f"share.cores must be in 1..4096, not {self.cores}")
        if self.share.cpu_ms_per_s > self.cores * 1000:
            raise ConfigError(
                f"share.cpu of {self.share.cpu_ms_per_s} ms/s is more than {self.cores} cores give",
                f"write at most '{self.cores * 1000} ms/s', or raise share.cores",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """A client's settings. The identity may stay empty until `xenonode register` asks for it."""

    folder: Path
    network: Path
    legal_name: str = ""
    country: str = ""
    email: str = ""
    proof_reference: str = ""
    ssh_key: Path = Path("ssh_ed25519")
    udp: Address | None = None
    effective: tuple[EffectiveValue, ...] = field(default=(), compare=False, repr=False)


Config = CorpConfig | ServerConfig | ClientConfig


@overload
def load(
    path: Path | None, role: Literal["corp"], flags: Mapping[str, object] = ..., environ: Mapping[str, str] = ...
) -> CorpConfig: ...
@overload
def load(
    path: Path | None, role: Literal["server"], flags: Mapping[str, object] = ..., environ: Mapping[str, str] = ...
) -> ServerConfig: ...
@overload
def load(
    path: Path | None, role: Literal["client"], flags: Mapping[str, object] = ..., environ: Mapping[str, str] = ...
) -> ClientConfig: ...
@overload
def load(
    path: Path | None, role: Role, flags: Mapping[str, object] = ..., environ: Mapping[str, str] = ...
) -> Config: ...
def load(
    path: Path | None, role: Role, flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """Read a role's configuration: `flags` by setting name over the environment over the file. Raises ConfigError.

    Without a path, the role's usual place is read if there is a file.
    """
    if path is None and default_config(role).is_file():
        path = default_config(role)
    others = tuple(setting.variable for each in ROLES for setting in settings_of(each))
    found = gather(settings_of(role), path, flags or {}, os.environ if environ is None else environ, others)
    return _BUILD[role](found.values, found.effective)


def effective(config: Config) -> tuple[EffectiveValue, ...]:
    """Every setting with its value and where it came from: what `xenonode config show` prints."""
    return config.effective


def save(path: Path, values: Mapping[str, object]) -> None:
    """Write a configuration file from setting names ('share.cpu') and values as a file has them ('250 ms/s')."""
    document: dict[str, object] = {"version": CONFIG_VERSION}
    for name, value in values.items():
        table: dict[str, object] = document
        *parents, key = name.split(".")
        for parent in parents:
            inner = table.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"setting {name} is both a value and a table")
            table = inner
        table[key] = str(value) if isinstance(value, (Path, Address)) else value
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, tomli_w.dumps(document).encode())


def example(role: Role) -> str:
    """A configuration file to start from: every setting with its meaning; what has a default is commented out."""
    lines = [f"# XenoNode: configuration of a {role}", f"version = {CONFIG_VERSION}"]
    table = ""
    for setting in sorted(settings_of(role), key=lambda each: "." in each.name):
        section, _, key = setting.name.rpartition(".")
        if section != table:
            lines += ["", f"[{section}]"]
            table = section
        value = EXAMPLES.get(setting.name, setting.default)
        mark = "" if setting.default is None else "# "
        lines += [f"# {setting.about}", mark + tomli_w.dumps({key: value if value is not None else "..."}).strip()]
    return "\n".join(lines) + "\n"


def _check_addresses(udp: Address, control: Address) -> None:
    _check_literal("udp", udp)
    _check_literal("control", control)
    if udp.port == control.port:
        raise ConfigError(
            f"port {udp.port} is used twice: by udp and by control",
            'give each a port of its own, e.g. udp = "127.0.0.1:7400" and control = "127.0.0.1:7401"',
            "port_twice",
        )


def _check_literal(name: str, address: Address) -> None:
    """What is bound is also what others are told, so that it must mean this machine to them."""
    try:
        if not ip_address(address.host).is_unspecified:
            return
        what = "is every address of this machine, and tells nobody how to reach it"
    except ValueError:
        what = "is no IP address"
    next_step = f'write the address of this machine that others reach, e.g. {name} = "192.0.2.7:{address.port}"'
    raise ConfigError(f"{name}: {address.host} {what}", next_step, "address")


def _build_corp(values: Mapping[str, object], shown: tuple[EffectiveValue, ...]) -> Config:
    return CorpConfig(**values, effective=shown)  # type: ignore[arg-type]  # names and types are those of _CORP


def _build_client(values: Mapping[str, object], shown: tuple[EffectiveValue, ...]) -> Config:
    named = {name.removeprefix("owner."): value for name, value in values.items()}
    return ClientConfig(**named, effective=shown)  # type: ignore[arg-type]  # names and types are those of _CLIENT


def _build_server(values: Mapping[str, object], shown: tuple[EffectiveValue, ...]) -> Config:
    named = {name.removeprefix("owner."): value for name, value in values.items()}
    share = {name: named.pop(f"share.{name}") for name in ("cpu", "memory", "disk", "net")}
    priced = [_priced(named.pop(f"prices.{name}")) for name in ("cpu", "memory", "disk", "net")]
    currencies = sorted({currency for nano, currency in priced if nano} or {priced[0][1]})
    if len(currencies) > 1:
        raise ConfigError(
            f"prices are in {' and '.join(currencies)}; a server's prices are in one currency", "choose one of them"
        )
    return ServerConfig(
        share=Resources(*share.values()),  # type: ignore[arg-type]  # four whole numbers, by _amount
        cores=named.pop("share.cores"),  # type: ignore[arg-type]
        prices=Prices(currencies[0], *(nano for nano, _ in priced)),
        receipt_period_ms=named.pop("receipt_period"),  # type: ignore[arg-type]
        advert_period_ms=named.pop("advert_period"),  # type: ignore[arg-type]
        effective=shown,
        **named,  # type: ignore[arg-type]
    )


def _priced(value: object) -> tuple[int, str]:
    if not isinstance(value, tuple):
        raise ConfigError("a price must be an amount and a currency")
    return value


_BUILD: dict[Role, Callable[[Mapping[str, object], tuple[EffectiveValue, ...]], Config]] = {
    "corp": _build_corp,
    "server": _build_server,
    "client": _build_client,
}
