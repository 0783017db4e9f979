"""A campaign's figures and one page about it: distributions of searches, series with bands over seeds, loads, a sweep.

Decides which figures there are and what each shows; a figure without data is left out. Leaves the rows to `results`.
The page is self-contained: its figures are inside it.
"""

from __future__ import annotations

import base64
import html
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from xenonode.errors import XenoError
from xenonode.simulation.sampling import quantile
from xenonode.simulation.verdict import Row

Tables = Mapping[str, Sequence[Row]]
BAND = (0.1, 0.9)
"""Of the seeds at one time: eight of ten lie within."""
LINES_MAX = 8
"""Points of a sweep that a figure can tell apart by colour."""
DPI = 110
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}img{{max-width:100%}}
table{{border-collapse:collapse;font-size:85%}}td,th{{padding:.2em .6em;text-align:right;border-bottom:1px solid #ccc}}
</style></head><body><h1>{title}</h1><p>{shows}</p>{table}{figures}</body></html>
"""
SHOWN = ("seed", "status", "virtual_s", "rpcs", "queries", "recall_mean", "search_ms_median", "search_ms_p95",
         "sessions", "sessions_settled", "paid_usd", "cpu_s", "trace")  # fmt: skip


def draw(tables: Tables, point_keys: Sequence[str]) -> dict[str, bytes]:
    """Every figure that there is data for, as PNG, by its file's name. Raises XenoError without matplotlib."""
    pyplot = load_pyplot()
    drawn = {}
    for name, plot in _figures(tables, point_keys):
        figure, axes = pyplot.subplots(figsize=(7, 4.2))
        plot(axes)
        axes.grid(True, alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8)
        figure.tight_layout()
        image = io.BytesIO()
        figure.savefig(image, dpi=DPI, metadata={"Software": None})
        pyplot.close(figure)
        drawn[f"{name}.png"] = image.getvalue()
    return drawn


def page(title: str, shows: str, tables: Tables, point_keys: Sequence[str], figures: Mapping[str, bytes]) -> bytes:
    """One page with the runs and all figures."""
    columns = [*point_keys, *SHOWN]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(_cell(row.get(name)))}</td>' for name in columns)}</tr>"
        for row in tables["runs"]
    )
    images = "".join(
        f'<p><img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(data).decode()}"></p>'
        for name, data in figures.items()
    )
    table = f"<table><tr>{head}</tr>{body}</table>"
    return _PAGE.format(title=html.escape(title), shows=html.escape(shows), table=table, figures=images).encode()


def _figures(tables: Tables, keys: Sequence[str]) -> Iterator[tuple[str, Callable[[Any], None]]]:
    answered = [row for row in tables["queries"] if row.get("answered")]
    if answered:
        yield "search-time", lambda axes: _cdf(axes, answered, keys, "duration_ms", "search time [ms]")
        yield "search-rounds", lambda axes: _cdf(axes, answered, keys, "rounds", "rounds of questions (hops)")
        yield "search-questions", lambda axes: _cdf(axes, answered, keys, "rpcs", "questions of a search")
    opened = [row for row in tables["sessions"] if row.get("open_s") is not None]
    if opened:
        yield "session-opening", lambda axes: _cdf(axes, opened, keys, "open_s", "from wish to login [s]")
    for name, column, label in (
        ("recall", "recall", "recall"),
        ("price", "price_mean_usd", "mean price of a core-hour [USD]"),
        ("sessions", "sessions_open", "sessions that run"),
        ("paid", "paid_usd", "paid so far [USD]"),
        ("servers-up", "servers_up", "servers that are up"),
        ("rate", "rpcs_per_s", "questions a virtual second"),
    ):
        rows = _with_rates(tables["series"], keys) if column == "rpcs_per_s" else tables["series"]
        if len({row.get(column) for row in rows} - {None}) > 1:
            yield name, lambda axes, rows=rows, column=column, label=label: _series(axes, rows, keys, column, label)  # type: ignore[misc]
    if tables["nodes"]:
        yield "load", lambda axes: _cdf(axes, tables["nodes"], keys, "sent", "datagrams that a node sent")
    for key in keys:
        values = [row[key] for row in tables["runs"]]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            yield f"sweep-{key}", lambda axes, key=key: _sweep(axes, answered, key)  # type: ignore[misc]


def _groups(rows: Sequence[Row], keys: Sequence[str]) -> list[tuple[str, list[Row]]]:
    """The rows of each point of the sweep, under its name."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[", ".join(f"{key}={row[key]}" for key in keys)].append(row)
    return list(found.items())[:LINES_MAX]


def _cdf(axes: Any, rows: Sequence[Row], keys: Sequence[str], column: str, label: str) -> None:
    for name, group in _groups(rows, keys):
        values = sorted(row[column] for row in group)
        shares = [(number + 1) / len(values) for number in range(len(values))]
        axes.step([values[0], *values], [0, *shares], where="post", label=name or None)
    axes.set(xlabel=label, ylabel="share that is at most this", ylim=(0, 1.02))


def _series(axes: Any, rows: Sequence[Row], keys: Sequence[str], column: str, label: str) -> None:
    """The mean over seeds, and a band that most of them lie in."""
    for name, group in _groups(rows, keys):
        by_time: dict[float, list[float]] = defaultdict(list)
        for row in group:
            if row.get(column) is not None:
                by_time[round(row["t_s"], 3)].append(row[column])
        most = max((len(values) for values in by_time.values()), default=0)
        times = [time for time in sorted(by_time) if len(by_time[time]) == most]  # ends differ between seeds
        axes.plot(times, [fmean(by_time[time]) for time in times], label=name or None)
        if most > 1:
            low, high = ([quantile(by_time[time], share) for time in times] for share in BAND)
            axes.fill_between(times, low, high, alpha=0.2)
    axes.set(xlabel="virtual time [s]", ylabel=label)
    axes.set_ylim(bottom=0)


def _with_rates(rows: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """Questions a second between each sample and the one before it of the same run."""
    found, last = [], dict[str, Row]()
    for row in rows:
        run = " ".join(str(row[key]) for key in (*keys, "seed"))
        before = last.get(run)
        if before is not None and row["t_s"] - before["t_s"] >= 1:
            rate = (row["rpcs"] - before["rpcs"]) / (row["t_s"] - before["t_s"])
            found.append({**row, "rpcs_per_s": rate})
        last[run] = row
    return found


def _sweep(axes: Any, answered: Sequence[Row], key: str) -> None:
    """Search time against the swept key: median, and where most lie."""
    by_value: dict[float, list[float]] = defaultdict(list)
    for row in answered:
        by_value[row[key]].append(row["duration_ms"])
    values = sorted(by_value)
    axes.plot(values, [quantile(by_value[value], 0.5) for value in values], marker="o", label="median")
    low, high = ([quantile(by_value[value], share) for value in values] for share in BAND)
    axes.fill_between(values, low, high, alpha=0.2, label=f"{BAND[0]:.0%} to {BAND[1]:.0%}")
    axes.set(xlabel=key, ylabel="search time [ms]")
    axes.set_ylim(bottom=0)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def load_pyplot() -> Any:
    """The module `matplotlib.pyplot`, drawing to memory. Raises XenoError without it."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        step = "pip install 'xenonode[plots]'"
        raise XenoError("figures need the package matplotlib", step, "missing_package") from error
    return pyplot
