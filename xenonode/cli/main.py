"""The program `xenonode`: its commands, and how every failure ends: two clear lines and a status that is not zero.

Status 1: an expected failure. 2: wrong arguments. 70: an unexpected one, its traceback in the log file.
130: interrupted. 141: nobody reads the output any more.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import logging.handlers
import os
import sys
import traceback
from typing import Annotated

import typer

from dht.errors import DhtError
from hypervisor.errors import HypervisorError
from summaries.errors import SummariesError
from xenonode.cli import (
    account,
    configs,
    corp,
    doctor,
    join,
    looking,
    market,
    network,
    orders,
    placing,
    saved,
    searching,
    server,
    sessions,
    simulate,
    values,
)
from xenonode.cli.__main__ import INTERRUPTED
from xenonode.cli.command import EndedByUser, InterruptedByUser
from xenonode.cli.output import shown
from xenonode.control.errors import ControlError
from xenonode.errors import XenoError
from xenonode.folder import default_folder
from xenonode.model.errors import ModelError

FAILED, USAGE, UNEXPECTED, NO_READER = 1, 2, 70, 141
STATUSES = {"usage": USAGE, "interrupted": INTERRUPTED, "no_reader": NO_READER}
EXPECTED = (ControlError, ModelError, DhtError, SummariesError, HypervisorError)
"""What the parts below raise when something is refused, missing or wrong, as opposed to a mistake of ours."""
LOG_MAX_BYTES = 2**20
LOG_FILES = 3
_CLICK_ERROR = typer.BadParameter.__mro__[2]  # typer brings click's errors under a name that differs by release

app = typer.Typer(
    name="xenonode",
    help="The XenoServer Open Platform: host, find, lease and pay for virtual machines anywhere.",
    epilog="Begin with 'xenonode doctor'. Each command's --help ends with an example.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"xenonode {importlib.metadata.version('xenonode')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """The XenoServer Open Platform: host, find, lease and pay for virtual machines anywhere."""


PARTS = (
    corp, join, account, orders, searching, saved, looking, market, placing,
    network, values, sessions, server, configs, doctor, simulate,
)  # fmt: skip
for part in PARTS:
    part.add_to(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the program and end the process with its status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command and return its status; never raises."""
    as_json = "--json" in arguments
    try:
        result = app(arguments, standalone_mode=False)
        status = result if isinstance(result, int) else 0
        return _report(InterruptedByUser().to_fields(), as_json, status) if status == INTERRUPTED else status
    except EndedByUser:
        return INTERRUPTED
    except XenoError as error:
        return _report(error.to_fields(), as_json, STATUSES.get(error.code, FAILED))
    except EXPECTED as error:
        return _report(_told(error), as_json, FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return _report(InterruptedByUser().to_fields(), as_json, INTERRUPTED)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        fields = {"code": "system", "message": f"{name}{error.strerror or error}", "next_step": ""}
        return _report(fields, as_json, FAILED)
    except Exception as error:
        if isinstance(error, typer.Exit):
            return error.exit_code
        if isinstance(error, _CLICK_ERROR):
            return _wrong_arguments(error, as_json)
        return _unexpected(error, arguments, as_json)


def _told(error: Exception) -> dict[str, str]:
    """An error of a part below; many carry a code, a message and a next step of their own."""
    return {
        "code": str(getattr(error, "code", "") or "refused"),
        "message": str(getattr(error, "message", "") or error),
        "next_step": str(getattr(error, "next_step", "")),
    }


def _wrong_arguments(error: Exception, as_json: bool) -> int:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "xenonode"
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message, file=sys.stderr)
        return USAGE
    fields = {"code": "usage", "message": message.rstrip("."), "next_step": f"see '{path} --help'"}
    return _report(fields, as_json, USAGE)


def _unexpected(error: Exception, arguments: list[str], as_json: bool) -> int:
    if "--debug" in arguments or os.environ.get("XENONODE_DEBUG"):
        traceback.print_exc()
    where = "run it again with --debug"
    try:
        folder = default_folder("client")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "errors.log"
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_MAX_BYTES, backupCount=LOG_FILES)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        record = logging.LogRecord("xenonode", logging.ERROR, __file__, 0, "unexpected error", (), sys.exc_info())
        handler.emit(record)
        handler.close()
        where = f"the traceback is in {path}; please report it, or run it again with --debug"
    except OSError:
        pass  # the one line below still says what happened
    message = f"unexpected error: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(
        ": "
    )
    return _report({"code": "unexpected", "message": message, "next_step": where}, as_json, UNEXPECTED)


def _report(fields: dict[str, str], as_json: bool, status: int) -> int:
    if sys.stderr is None:
        return status
    try:
        if as_json:
            print(json.dumps(fields, ensure_ascii=False), file=sys.stderr)
        else:
            print(shown(f"error: {fields['message']}"), file=sys.stderr)
            if fields["next_step"]:
                print(shown(f"next:  {fields['next_step']}"), file=sys.stderr)
        sys.stderr.flush()
    except OSError:
        pass  # nobody listens; the status still tells
    return status
