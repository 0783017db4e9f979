"""`xenonode doctor`: what this machine still lacks for a role, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from xenonode import doctor
from xenonode.cli.command import Run, command
from xenonode.cli.configs import role_named
from xenonode.config import ClientConfig, Config, ServerConfig
from xenonode.errors import ConfigError, XenoError


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    command(app, "doctor", example="xenonode doctor server --config server.toml")(check)


async def check(
    run: Run, role: Annotated[str, typer.Argument(metavar="ROLE", help="client, server or corp.")] = "client"
) -> None:
    """Check this machine for a role: software, virtualisation, folders, keys, ports, network file, clock."""
    from xenonode.env import LiveEnv

    env = LiveEnv()
    wanted = role_named(role)
    settings: Config | ConfigError
    try:
        settings = run.config(wanted)
    except ConfigError as error:
        settings = error
    findings = doctor.examine(settings, wanted, env.scheme)
    if isinstance(settings, ClientConfig | ServerConfig):
        findings.append(await doctor.ask_clock(settings.network, env))
    rows = ((run.output.mark(each.level), each.check, each.message, each.next_step) for each in findings)
    run.output.rows(findings, ("", "check", "finding", "next step"), rows, "")
    wrong = [each.check for each in findings if each.level == "fail"]
    if wrong:
        text = f"{len(wrong)} of {len(findings)} checks failed: {', '.join(wrong)}"
        raise XenoError(text, "do what the next step of each line says, then run this again", "doctor")
