"""`xenonode config`: every effective setting and where it came from, and a file to start from."""

from __future__ import annotations

from typing import Annotated

import typer

from xenonode import config
from xenonode.cli.command import Run, command, group, usage_error
from xenonode.setting_tables import ROLES, Role

RoleArgument = Annotated[str, typer.Argument(metavar="ROLE", help="client, server or corp.")]


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    configs = group("config", "Settings: flag over environment (XENONODE_...) over file over default.", app)
    command(configs, "show", example="xenonode config show server --config server.toml")(show)
    command(configs, "example", example="xenonode config example server > server.toml")(example)


def show(run: Run, role: RoleArgument = "client") -> None:
    """Print every effective setting of a role and where it came from."""
    rows = config.effective(run.config(role_named(role)))
    run.output.rows(rows, ("setting", "value", "from"), ((row.name, row.value, row.origin) for row in rows), "")


def example(run: Run, role: RoleArgument = "client") -> None:
    """Print a configuration file to start from, with the meaning of every setting."""
    text = config.example(role_named(role))
    run.output.text({"role": role, "toml": text}, text)


def role_named(text: str) -> Role:
    """A role, as a wrong argument if there is no such role."""
    if text not in ROLES:
        raise usage_error(f"role {text!r} is not one of {', '.join(ROLES)}", "e.g. 'xenonode config show server'")
    return text
