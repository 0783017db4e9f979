"""Logging in: the client's ssh key, and an ssh command that trusts only the host key in the signed start record."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hypervisor.hostkeys import host_key, public_line
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.folder import write_atomically
from xenonode.model.session import Start

USER = "root"
CONNECT_TIMEOUT_S = 30
"""Under emulation and a small CPU share a key exchange takes some seconds."""


LoginKey = Callable[[Path, Env], str]
"""Gives the public line of a client's ssh key: `own_key`, or the simulator's, which writes no file."""


def own_key(path: Path, env: Env) -> str:
    """The public line of the client's ssh key, which is made at the first use. Raises XenoError."""
    public = path.with_name(path.name + ".pub")
    try:
        if not path.exists():
            private = host_key(env.seed("ssh"))
            # The private key comes last: a crash between the two leaves nothing that looks like a whole pair.
            write_atomically(public, (public_line(private) + " xenonode\n").encode(), 0o644)
            write_atomically(path, private.encode(), 0o600)
        if not path.is_file():
            raise XenoError(f"{path} is no file", 'set ssh_key = "..." in the configuration', "key_file")
        if os.stat(path).st_mode & 0o077:
            raise XenoError(f"{path} can be read by others", f"chmod 600 {path}", "key_file")
        return public.read_text().strip()
    except OSError as error:
        raise XenoError(
            f"ssh key {path} cannot be used: {error.strerror}", 'set ssh_key = "..." in the configuration', "key_file"
        ) from error


def ssh_argv(start: Start, key: Path, known_hosts: Path) -> list[str]:
    """The command that logs in; it fails if another host key answers. Writes `known_hosts`. Raises XenoError."""
    if not start.ssh_host:
        raise XenoError("this environment has no ssh to log in with", "look at its console instead", "no_ssh")
    port = f"[{start.ssh_host}]:{start.ssh_port}" if start.ssh_port != 22 else start.ssh_host
    write_atomically(known_hosts, f"{port} {start.ssh_host_key}\n".encode())
    options = {
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": str(CONNECT_TIMEOUT_S),
        "LogLevel": "ERROR",
    }
    argv = ["ssh", "-F", "/dev/null", "-i", str(key), "-p", str(start.ssh_port)]
    for name, value in options.items():
        argv += ["-o", f"{name}={value}"]
    return [*argv, f"{USER}@{start.ssh_host}"]
