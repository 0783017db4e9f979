"""What every command has: --config, --set, --json and --debug; and how a handler is run and stopped.

A handler takes a `Run` first and its own arguments after it. One that is `async` runs in a loop that Ctrl-C and
SIGTERM cancel, so that its own clean-up runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
import typing
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xenonode import config as configuration
from xenonode.cli.output import Output
from xenonode.errors import XenoError
from xenonode.setting_tables import Role

if TYPE_CHECKING:
    from xenonode.client import Client
    from xenonode.config import ClientConfig, Config, CorpConfig, ServerConfig

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="XENONODE_CONFIG",
        help="Configuration file (TOML); see 'xenonode config show'.",
    ),
]
SETTING = "share.memory='1 GiB'"
"""What is set, for example, where a command has no other settings than those of a configuration file."""
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value; errors as JSON on stderr.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")]


WAITING_SAID_S = 4.0
"""Longer than an answer takes from a network that is whole, and shorter than people wait without a word."""
WAITING = "still asking: nobody who knows has answered yet; Ctrl-C gives up"


class InterruptedByUser(XenoError):
    """Ctrl-C or SIGTERM ended a command; its clean-up has run. (typer would swallow a KeyboardInterrupt.)"""

    def __init__(self) -> None:
        super().__init__("interrupted; nothing was left behind", "", "interrupted")


class EndedByUser(InterruptedByUser):
    """The same of what goes on until then: nothing is to be said, since that is how it ends."""


@dataclass(frozen=True, slots=True)
class Run:
    """One command at work: its output, and the configuration that it was told to use."""

    output: Output
    config_path: Path | None
    overrides: dict[str, str]

    def arguments(self) -> list[str]:
        """Options that give another process the same configuration."""
        config = [] if self.config_path is None else ["--config", str(self.config_path)]
        return config + [word for name, value in self.overrides.items() for word in ("--set", f"{name}={value}")]

    def client_config(self) -> ClientConfig:
        """The client's settings."""
        return configuration.load(self.config_path, "client", self.overrides)

    def server_config(self) -> ServerConfig:
        """The server's settings."""
        return configuration.load(self.config_path, "server", self.overrides)

    def corp_config(self) -> CorpConfig:
        """XenoCorp's settings."""
        return configuration.load(self.config_path, "corp", self.overrides)

    def config(self, role: Role) -> Config:
        """The settings of a role that an argument names."""
        return configuration.load(self.config_path, role, self.overrides)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Say so, once, when the network lets somebody wait who asked it something."""
        said = asyncio.get_running_loop().call_later(WAITING_SAID_S, self.output.note, WAITING)
        try:
            yield
        finally:
            said.cancel()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """An open client; closed whatever happens."""
        from xenonode.client import Client
        from xenonode.env import LiveEnv

        client = await Client.open(self.client_config(), LiveEnv())
        try:
            yield client
        finally:
            await client.close()


Handler = Callable[..., Coroutine[Any, Any, None] | None]


def command(
    group: typer.Typer, name: str, *, example: str, setting: str = SETTING, takes_negative: bool = False
) -> Callable[[Handler], Handler]:
    """Add a handler to a group of commands; `example` ends its help, and `setting` is what --set takes, for example.

    `takes_negative` lets '-1 USD' be an argument.
    """

    def add(handler: Handler) -> Handler:
        hints = typing.get_type_hints(handler, include_extras=True)
        own = [each for each in inspect.signature(handler).parameters.values() if each.name != "run"]

        def call(**arguments: Any) -> None:
            overrides = dict(_override(text, setting) for text in arguments.pop("overrides") or [])
            run = Run(Output(arguments.pop("as_json")), arguments.pop("config"), overrides)
            arguments.pop("debug")  # the caller of the whole program reads it, since it handles the errors
            result = handler(run, **arguments)
            if result is not None:
                run_until_stopped(result)

        parameters = [each.replace(annotation=hints[each.name]) for each in own]
        parameters += [
            inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
            for each, (hint, default) in _common(setting).items()
        ]
        keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        call.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]  # typer reads it
        call.__annotations__ = {each.name: each.annotation for each in parameters}
        call.__doc__ = handler.__doc__
        settings = {"ignore_unknown_options": takes_negative}
        group.command(name, epilog=f"Example: {example}", context_settings=settings)(call)
        return handler

    return add


def run_until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end; Ctrl-C or SIGTERM cancels the work, whose clean-up then runs, and ends as an interruption."""

    async def guarded() -> None:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await work

    try:
        asyncio.run(guarded())
    except (asyncio.CancelledError, KeyboardInterrupt) as error:
        raise InterruptedByUser from error


def group(name: str, about: str, parent: typer.Typer) -> typer.Typer:
    """A group of commands below another."""
    made = typer.Typer(name=name, help=about, no_args_is_help=True, rich_markup_mode=None)
    parent.add_typer(made)
    return made


def usage_error(message: str, next_step: str) -> XenoError:
    """An argument that no part below would understand."""
    return XenoError(message, next_step, "usage")


def _common(setting: str) -> dict[str, tuple[Any, object]]:
    about = f"Override one setting, e.g. --set {setting}."
    set_option = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=about)]
    return {
        "config": (ConfigOption, None),
        "overrides": (set_option, None),
        "as_json": (JsonOption, False),
        "debug": (DebugOption, False),
    }


def _override(text: str, setting: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise usage_error(f"--set {text!r} names no value", f"write --set NAME=VALUE, e.g. --set {setting}")
    return name.strip(), value.strip()
