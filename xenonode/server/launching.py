"""From an agreement to a guest that answers: its specification, its ssh host key, its signed start record.

Decides what the hypervisor is asked for; how a guest's readiness is seen is the hypervisor package's business.
"""

from __future__ import annotations

from hypervisor import hostkeys
from hypervisor.adapter import Ability, Capabilities, Handle
from hypervisor.environment import EnvironmentSpec
from xenonode.model.session import Start
from xenonode.server.session_state import Session

MEMORY_CEILING_FACTOR = 2
"""A guest may later grow to twice the memory it begins with. A higher ceiling would cost each guest page tables for
memory that it mostly never gets."""
BOOT_CPU_MS_PER_S = 1000
"""A guest boots with a whole CPU, and is held to its share once it answers: at 10 % a boot would take half a minute."""
NAME_PREFIX = "xs-"


def guest_name(session: bytes) -> str:
    """The name of a session's guest; a restarted server finds the session by it."""
    return NAME_PREFIX + session.hex()


def specification(session: Session, capabilities: Capabilities, memory_most_bytes: int, seed: bytes) -> EnvironmentSpec:
    """What the hypervisor is asked for; `seed` makes the ssh host key, `memory_most_bytes` bounds later growth."""
    agreement, wanted = session.agreement, session.resources
    ceiling, boot_cpu = wanted.memory_bytes, wanted.cpu_ms_per_s
    if Ability.CPU_QUOTA in capabilities.abilities:
        boot_cpu = max(boot_cpu, BOOT_CPU_MS_PER_S)
    if Ability.RESIZE_MEMORY in capabilities.abilities:
        ceiling = max(ceiling, min(MEMORY_CEILING_FACTOR * wanted.memory_bytes, memory_most_bytes))
    return EnvironmentSpec(
        name=guest_name(session.id),
        image=session.image,
        cpu_ms_per_s=wanted.cpu_ms_per_s,
        memory_bytes=wanted.memory_bytes,
        memory_max_bytes=ceiling,
        disk_bytes=wanted.disk_bytes,
        net_bit_per_s=wanted.net_bit_per_s,
        authorized_keys=agreement.authorized_keys,
        ssh_host_key=hostkeys.host_key(seed),
        hostname=agreement.hostname,
        boot_cpu_ms_per_s=boot_cpu,
    )


def start_record(session: Session, handle: Handle, now_ms: int) -> Start:
    """The server's word on where the environment is reached."""
    return Start(
        agreement=session.id,
        environment_id=handle.id,
        ssh_host=handle.ssh_host,
        ssh_port=handle.ssh_port,
        ssh_host_key=handle.ssh_host_key,
        started_ms=now_ms,
    )
