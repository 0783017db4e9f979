"""`xenonode value`: publish and read values under their writers' names."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from xenonode.cli.command import Run, command, group
from xenonode.cli.orders import duration
from xenonode.errors import XenoError

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The value's name; each writer has one of a name.")]


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    values = group("value", "Values that members publish in the overlays, each under its own key and a name.", app)
    command(values, "put", example="xenonode value put card card.json --expires-in 1d")(put)
    command(values, "get", example="xenonode value get 5f2c prices prices.csv")(get)


def content(file: Path) -> bytes:
    """What is to be published, of which no more is read than can be. Raises XenoError."""
    from xenonode.store.values import LARGEST_BYTES

    with file.open("rb") as opened:
        value = opened.read(LARGEST_BYTES + 1)
    if len(value) > LARGEST_BYTES:
        raise XenoError(f"{file} has more than {LARGEST_BYTES} bytes", "publish where it can be had", "value_size")
    return value


async def put(
    run: Run,
    name: NameArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What is published, at most 64 KiB.")],
    expires_in: Annotated[str, typer.Option("--expires-in", help="How long it lives, at most 7 d.")] = "1h",
) -> None:
    """Publish a file under this client's key. For up to 16 MiB: 'xenonode server publish', on a server of yours."""
    life_ms, value = duration(expires_in), content(file)
    async with run.client() as client:
        holders = await client.values.put(name, value, life_ms)
        owner = client.values.key_of("me").hex()
    fields = {"owner": owner, "name": name, "size_bytes": len(value), "holders": holders}
    run.output.facts(fields, fields.items(), "Published")


async def get(
    run: Run,
    owner: Annotated[
        str, typer.Argument(metavar="OWNER", help="The writer's key, a found server's first digits, or 'me'.")
    ],
    name: NameArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where it is written.")],
) -> None:
    """Read a value, whole and checked against its writer's signature, into a file."""
    async with run.client() as client:
        value = await client.values.get(owner, name)
    file.write_bytes(value)
    fields = {"file": str(file), "size_bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    run.output.facts(fields, fields.items())
