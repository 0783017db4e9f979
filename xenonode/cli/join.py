"""`xenonode join`: put this machine into the platform as a XenoServer."""

from __future__ import annotations

import typer

from xenonode.cli.command import Run, command
from xenonode.cli.service import serve_until_stopped


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    command(app, "join", example="xenonode config example server > server.toml; xenonode join --config server.toml")(
        join
    )


async def join(run: Run) -> None:
    """Run a XenoServer in the foreground: register, advertise what it offers, host sessions, claim payment."""
    from xenonode.env import LiveEnv
    from xenonode.server_node import ServerNode

    config = run.server_config()
    await serve_until_stopped(run, config.folder, "XenoServer", lambda: ServerNode.start(config, LiveEnv()))
