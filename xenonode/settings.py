"""How settings are found and read: flag over environment over file over default; nothing unknown passes.

Decides where a value comes from and how it is refused; which settings there are is `xenonode.config`'s to say.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xenonode.errors import ConfigError
from xenonode.model.errors import ModelError
from xenonode.units import UnitError

CONFIG_VERSION = 1
ENVIRONMENT_PREFIX = "XENONODE_"
RESERVED_VARIABLES = ("XENONODE_CONFIG", "XENONODE_DEBUG")
"""Variables of the command line itself, no settings."""
FILE_MAX_BYTES = 65_536
"""A configuration is a page of text; what is larger was named by mistake."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: `parse(raw, base)` makes its value from TOML's value or a text; `base` is where paths start from.

    `default` is None for a setting that must be given, else what a file would say.
    """

    name: str
    parse: Callable[[object, Path], object]
    default: object
    about: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace(".", "_")


@dataclass(frozen=True, slots=True)
class EffectiveValue:
    """One line of `xenonode config show`: a setting, what it is, and who said so."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Gathered:
    """Every setting's value, and where each came from."""

    values: Mapping[str, object]
    effective: tuple[EffectiveValue, ...]


def gather(
    settings: Sequence[Setting],
    path: Path | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    other_variables: Sequence[str] = (),
) -> Gathered:
    """Read every setting from the strongest place that gives it. Raises ConfigError naming both."""
    known = {setting.name: setting for setting in settings}
    from_file = _read_file(path, known) if path else {}
    for name in flags:
        if name not in known:
            raise _unknown(name, known, "flag --set", "=")
    _refuse_variables(environ, settings, other_variables)
    here = Path.cwd()
    values: dict[str, object] = {}
    effective = []
    for setting in settings:
        raw, origin, base = setting.default, "default", here
        if setting.name in flags:
            raw, origin = flags[setting.name], "flag"
        elif setting.variable in environ:
            raw, origin = environ[setting.variable], f"environment {setting.variable}"
        elif setting.name in from_file and path:
            raw, origin, base = from_file[setting.name], f"file {path}", path.resolve().parent
        if raw is None:
            raise ConfigError(
                f"{setting.name} is not set: {setting.about}",
                f"add {_example(setting.name)} to {path or 'a configuration file'}, or set {setting.variable}",
            )
        try:
            values[setting.name] = setting.parse(raw, base)
        except (UnitError, ModelError, ValueError, TypeError) as error:
            raise ConfigError(f"{setting.name} ({origin}): {error}", f"it is: {setting.about}") from error
        effective.append(EffectiveValue(setting.name, _shown(raw, values[setting.name]), origin))
    return Gathered(values, tuple(effective))


def _read_file(path: Path, known: Mapping[str, Setting]) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"configuration file {path} cannot be read: {error.strerror}", "name another with --config FILE"
        ) from error
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError(f"{path} is larger than {FILE_MAX_BYTES} bytes, so it is no configuration file")
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        next_step = "see 'xenonode config example' for one that is"
        raise ConfigError(f"{path} is no TOML file: {error}", next_step) from error
    version = document.pop("version", None)
    if version is None:
        raise ConfigError(f"{path} does not say its version", "make 'version = 1' its first line")
    if isinstance(version, bool) or version != CONFIG_VERSION:
        raise ConfigError(
            f"{path} has version {version!r}; this program reads version {CONFIG_VERSION}",
            "use the xenonode that wrote it, or write the file anew from 'xenonode config example'",
        )
    found = dict(_flatten(document))
    for name in found:
        if name not in known:
            raise _unknown(name, known, str(path), " = ")
    return found


def _flatten(table: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            rows.extend(_flatten(value, f"{prefix}{key}."))
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def _refuse_variables(environ: Mapping[str, str], settings: Sequence[Setting], others: Sequence[str]) -> None:
    known = {setting.variable: setting for setting in settings}
    accepted = {*known, *others, *RESERVED_VARIABLES}
    for name in environ:
        if name.startswith(ENVIRONMENT_PREFIX) and name not in accepted:
            raise _unknown(name, known, "the environment", "=")


def _unknown(name: str, known: Mapping[str, object], place: str, equals: str) -> ConfigError:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return ConfigError(
        f"unknown setting {name!r} in {place}",
        f"did you mean {near[0]}{equals}...?" if near else f"known are: {', '.join(known)}",
        "unknown_setting",
    )


def _example(name: str) -> str:
    table, _, key = name.rpartition(".")
    return f"[{table}] {key} = ..." if table else f"{key} = ..."


def _shown(raw: object, value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    if isinstance(raw, (list, tuple)):
        return ", ".join(str(each) for each in raw)
    return "yes" if value is True else "no" if value is False else str(raw)
