"""`xenonode search`: find servers; once, saved under a name, or watched for changes."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Annotated

import typer

from summaries.execute import Counts
from summaries.explain import Explanation
from xenonode import units
from xenonode.cli.command import EndedByUser, Run, command, usage_error
from xenonode.cli.looking import KEY_SHOWN
from xenonode.search.searching import FoundServer, SearchAnswer
from xenonode.search.watching import Change, Look

OFFER = ("server", "owner", "country", "region", "cpu free", "memory free", "disk free", "cpu price")
COLUMNS = (*OFFER, "rtt", "seq", "age")
EVERY_LEAST_S = 1.0
QUERY_HELP = (
    "What you need: conditions with 'and', 'or', 'not', then perhaps an order and a limit, such as"
    " 'os.debian >= 12 and memory.available between [512 MiB, 8 GiB] order by price.memory limit 5',"
    " 'region in (\"eu\", \"us\") and feature = \"ssd\"',"
    " 'near(HOST:PORT, 30 ms) order by cost(cpu 250 ms/s, memory 256 MiB)'."
)
ASK_AGAIN = "others take the place of who was lost within a minute: ask again then"
_MARKS = {"appeared": "+", "changed": "~", "gone": "-", "silent": "?", "answering": "!"}


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    command(app, "search", example="xenonode search 'cpu.available >= 250 ms/s and price.cpu <= 0.05 USD/h'")(search)


async def search(
    run: Run,
    query: Annotated[str, typer.Argument(help=QUERY_HELP)] = "",
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept an answer from which unreachable ranges are missing.")
    ] = False,
    doubt: Annotated[
        bool, typer.Option("--doubt", help="Read all replicas of two tries, lest liars hide a server: costs threefold.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the plan, what was read, and what an empty answer fails on.")
    ] = False,
    save: Annotated[str, typer.Option("--save", metavar="NAME", help="Keep the query and what it found.")] = "",
    saved: Annotated[str, typer.Option("--saved", metavar="NAME", help="Run a saved query again.")] = "",
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="NAME", help="Without the servers of a saved search.")
    ] = None,
    within: Annotated[
        list[str] | None, typer.Option("--within", metavar="NAME", help="Only among the servers of a saved search.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and tell what changes, until Ctrl-C.")] = False,
    every: Annotated[str, typer.Option("--every", metavar="TIME", help="With --watch: how often to look.")] = "10s",
) -> None:
    """Find XenoServers. Every row is checked against the server's own signed, current advert."""
    if bool(query) == bool(saved):
        raise usage_error("give either a query or --saved NAME", "e.g. xenonode search 'cores >= 1'")
    async with run.client() as client:
        text = client.saved.find(saved).query if saved else query
        if saved and not text:
            raise usage_error(f"{saved!r} is a combined set, not a search", "use it with --within or --exclude")
        if watch:
            if save or explain or doubt:
                raise usage_error("--watch goes with none of --save, --explain and --doubt", "leave them out")
            looks = client.finding.watch(
                text, every_s=_seconds(every), strict=not partial, exclude=exclude or (), within=within or ()
            )
            await _watch(run, looks)
            return
        with run.waiting():
            answer = await client.finding.search(
                text, strict=not partial, doubting=doubt, explain=explain, exclude=exclude or (), within=within or ()
            )
        if save:
            client.finding.save(save, text, answer)
    told = {name: getattr(answer, name) for name in answer.__slots__ if name not in ("query", "explanation")}
    if answer.explanation is not None:
        told["explanation"] = answer.explanation
    rows = [_row(found) for found in answer.servers]
    run.output.rows({"query": text, **told}, COLUMNS, rows, _nothing(answer))
    run.output.note(_worth(answer))
    if answer.explanation is not None:
        for line in explained(answer.explanation, answer.counts):
            run.output.note(line)


def _nothing(answer: SearchAnswer) -> str:
    """What to say where nobody was found."""
    if not answer.counts.rpcs and answer.complete:
        return "No server can offer that: its conditions contradict one another."
    if answer.explanation is None:
        return "No server offers that; --explain counts who meets each condition, and says what to relax."
    return "No server offers that."


def _worth(answer: SearchAnswer) -> str:
    """Whether that is all, and what it cost."""
    took = f"{len(answer.servers)} servers in {answer.duration_ms:.0f} ms, {answer.counts.rpcs} questions"
    missing = ", ".join(answer.missing)
    worth = f"complete: {took}"
    if not answer.complete:
        worth = f"PARTIAL ({took}); could not be reached: {missing}\n{ASK_AGAIN}"
    silent = sum(each.rtt_ms is None for each in answer.servers)
    if not silent:
        return worth
    who = "1 server has" if silent == 1 else f"{silent} servers have"
    return f"{worth}\n{who} not answered (rtt -): what stands there is the last advert that others keep"


def _row(found: FoundServer) -> tuple[str, ...]:
    advert = found.advert.advert
    free = advert.available
    return (
        found.advert.server_key.hex()[:KEY_SHOWN],
        found.advert.credential.entity,
        advert.country,
        advert.region,
        units.format_cpu(free.cpu_ms_per_s),
        units.format_bytes(free.memory_bytes),
        units.format_bytes(free.disk_bytes),
        units.format_price(advert.prices.cpu_nano_per_hour, advert.prices.currency, "h"),
        "-" if found.rtt_ms is None else f"{found.rtt_ms:.1f} ms",
        str(found.advert.advert.seq),
        f"{found.age_ms // 1000} s",
    )


async def _watch(run: Run, looks: AsyncIterator[Look]) -> None:
    """A line a change; a line on stderr for each look that was not complete. Ctrl-C is how it ends."""
    try:
        async for look in looks:
            now = datetime.datetime.now(datetime.UTC)
            for change in look.changes:
                run.output.line(_as_json(change, look, now), _line(change, now))
            if not look.answer.complete:
                run.output.note(_worth(look.answer))
    except asyncio.CancelledError as error:
        raise EndedByUser from error


def _line(change: Change, now: datetime.datetime) -> str:
    place = f"{change.place:>4}" if change.place else "    "
    cells = "  ".join(_row(change.server))
    said = {"silent": "does not answer", "answering": "answers again", "gone": "gone"}.get(change.event, "")
    if change.event == "gone" and change.changed:
        said = "fell silent: its last advert ended"
    said = said or ", ".join(change.changed)
    return f"{now:%H:%M:%S} {_MARKS[change.event]} {place}  {cells}" + (f"  ({said})" if said else "")


def _as_json(change: Change, look: Look, now: datetime.datetime) -> dict[str, object]:
    return {
        "time": now.isoformat(timespec="milliseconds"),
        "event": change.event,
        "place": change.place,
        "changed": list(change.changed),
        "server": change.server,
        "look": {
            "complete": look.answer.complete,
            "rpcs": look.answer.counts.rpcs - look.spared,
            "spared": look.spared,
            "bytes_in": look.bytes_in,
            "duration_ms": round(look.answer.duration_ms, 1),
        },
    }


def _seconds(text: str) -> float:
    try:
        seconds = units.parse_duration_ms(text) / 1000
    except units.UnitError as error:
        raise usage_error(str(error), "e.g. --every 10s") from error
    if seconds < EVERY_LEAST_S:
        raise usage_error("--every is at least a second", "e.g. --every 10s")
    return seconds


def explained(found: Explanation, counts: Counts) -> list[str]:
    """An explanation as lines of text."""
    lines = [f"plan: read {dimension} for {wanted}" for dimension, wanted in found.plan]
    lines += [
        f"round {node.round}: {node.dimension} {node.prefix}, {node.replicas} replicas: "
        + (f"{node.children} ranges pass, {node.pruned} ruled out" if node.children else f"{node.matched} match")
        for node in found.nodes
    ]
    lines.append(
        f"{counts.rpcs} questions ({counts.probes} to servers themselves) in {counts.rounds} rounds,"
        f" {found.bytes_out} bytes out, {found.bytes_in} in, {counts.pruned} ranges ruled out by their zones"
    )
    lines += [f"alone, {one.constraint}: {one.least} to {one.most} servers" for one in found.constraints]
    lines += [
        f"at most {one.most} servers could match " + (f"with {one.to}" if one.to else f"without {one.constraint}")
        for one in found.relaxations
    ]
    return lines
