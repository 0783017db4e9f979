"""The typed calls between a server and the small process that talks to its hypervisor, as bounded JSON frames.

A frame is a 4-byte length and an object: {"id", "method", "parameters"} one way, {"id", "result"} or {"id",
"error"} the other. Only the calls named here exist, and only their fields: no XML and no path crosses.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

from hypervisor.adapter import Ability, Capabilities, Effect, Handle, OfferedImage, Running
from hypervisor.environment import EnvironmentSpec, State, Usage
from hypervisor.errors import HypervisorError, InvalidSpecError, RemoteError, from_code

# A console's tail of 1 MiB in base64 is the largest answer; 250 guests' usage takes some 60 kB.
FRAME_MAX_BYTES = 4 << 20
IDS_MAX = 1024
LIFE = ("create", "resize", "pause", "resume", "save", "restore", "stop", "destroy")
METHODS = frozenset({"probe", *LIFE, "usage", "console", "reconcile"})  # what host_process answers


def encode_frame(fields: dict[str, Any]) -> bytes:
    body = json.dumps(fields, separators=(",", ":")).encode()
    if len(body) > FRAME_MAX_BYTES:
        raise InvalidSpecError("a call or answer is too large", "ask for less at once")
    return len(body).to_bytes(4, "big") + body


def frame_length(head: bytes) -> int:
    length = int.from_bytes(head, "big")
    if length > FRAME_MAX_BYTES:
        raise RemoteError("a frame is too large", "end this process; guests go on running")
    return length


def decode_frame(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except ValueError:
        raise RemoteError("a frame is not JSON", "end this process; guests go on running") from None
    if not isinstance(fields, dict) or type(fields.get("id")) is not int:
        raise RemoteError("a frame is not a call", "end this process; guests go on running")
    return fields


def spec_to_fields(spec: EnvironmentSpec) -> dict[str, Any]:
    return dataclasses.asdict(spec)


def spec_from_fields(fields: dict[str, Any]) -> EnvironmentSpec:
    """Validates all over again: this side trusts no caller."""
    try:
        keys = fields["authorized_keys"]
        if not isinstance(keys, list):
            raise TypeError("authorized_keys is no list")
        return EnvironmentSpec(**{**fields, "authorized_keys": tuple(keys)})
    except (TypeError, KeyError) as error:
        raise InvalidSpecError(f"this is no specification ({error})", "use EnvironmentSpec") from None


def capabilities_to_fields(value: Capabilities) -> dict[str, Any]:
    return {**dataclasses.asdict(value), "abilities": sorted(value.abilities)}


def capabilities_from_fields(fields: dict[str, Any]) -> Capabilities:
    images = tuple(
        OfferedImage(image["id"], tuple((k, n, v) for k, n, v in image["environments"]), image["memory_min_bytes"])
        for image in fields["images"]
    )
    abilities = frozenset(Ability(ability) for ability in fields["abilities"])
    notices = tuple(fields["notices"])
    return Capabilities(**{**fields, "images": images, "abilities": abilities, "notices": notices})


def usage_to_fields(value: Usage) -> dict[str, Any]:
    return dataclasses.asdict(value)


def usage_from_fields(fields: dict[str, Any]) -> Usage:
    return Usage(**{**fields, "state": State(fields["state"])})


def running_to_fields(value: Running) -> dict[str, Any]:
    return dataclasses.asdict(value)


def running_from_fields(fields: dict[str, Any]) -> Running:
    return Running(Handle(**fields["handle"]), State(fields["state"]), fields["cpu_ms_per_s"], fields["memory_bytes"])


def effect_from_fields(fields: dict[str, Any]) -> Effect:
    return Effect(**fields)


def bytes_to_text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def bytes_from_text(value: str) -> bytes:
    return base64.b64decode(value)


def error_to_fields(error: HypervisorError) -> dict[str, str]:
    return {"code": error.code, "message": error.message, "next_step": error.next_step}


def error_from_fields(fields: dict[str, str]) -> HypervisorError:
    return from_code(fields["code"], fields["message"], fields["next_step"])
