"""A campaign's figures: distributions of searches, series with bands over seeds, loads, a sweep.

Decides which figures there are and what each shows; a figure without data is left out, and one whose value never
changes, but for recall: that nothing was missed is an answer. Leaves the rows to `results`, the page to `page`.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
BINS = 40
"""Spans of time that recall is shown for: each query stands in one, so that none is lost between samples."""
LONG_TAIL = 10.0
"""Where the longest is so many times the median, half of a figure would be empty: its axis is logarithmic."""
POINTS_MARKED = 60
"""Few points are marked: a line alone would not show that there is one, or how few there are."""
DPI = 110


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture: its file's name, what it is called, what a reader has to know, and how it is drawn on axes."""

    name: str
    title: str
    caption: str
    plot: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The same as PNG."""

    name: str
    title: str
    caption: str
    png: bytes


def draw(tables: Tables, point_keys: Sequence[str]) -> list[Drawn]:
    """Every figure that there is data for. Raises XenoError without matplotlib."""
    pyplot = load_pyplot()
    drawn = []
    for each in _figures(tables, point_keys):
        figure, axes = pyplot.subplots(figsize=(7, 4.4))
        each.plot(axes)
        axes.set_title(each.title, fontsize=10)
        axes.grid(True, alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8)
        figure.tight_layout()
        image = io.BytesIO()
        figure.savefig(image, dpi=DPI, metadata={"Software": None})
        pyplot.close(figure)
        drawn.append(Drawn(each.name, each.title, each.caption, image.getvalue()))
    return drawn


def _figures(tables: Tables, keys: Sequence[str]) -> Iterator[Figure]:
    runs, series = tables["runs"], tables["series"]
    answered = [row for row in tables["queries"] if row.get("answered")]
    seeds = len({row["seed"] for row in runs})
    over = f"mean of {seeds} seeds; the band holds {BAND[1] - BAND[0]:.0%} of them" if seeds > 1 else "one seed"
    if len(_groups(runs, keys, None)) > LINES_MAX:
        over += f"; the first {LINES_MAX} points of the sweep"
    spans = _Spans.of(tables["faults"])
    if answered:
        many = f"{len(answered)} answered searches of {len(runs)} runs"
        for name, column, what in (
            ("search-time", "duration_ms", "search time [ms]"),
            ("search-rounds", "rounds", "rounds of questions that a search waits for (hops)"),
            ("search-questions", "rpcs", "questions that a search asks"),
        ):
            plot = _plot(_cdf, answered, keys, column, what)
            yield Figure(name, f"{what.partition(' [')[0]}: {many}", "Distribution of all searches.", plot)
    opened = [row for row in tables["sessions"] if row.get("open_s") is not None]
    if opened:
        plot = _plot(_cdf, opened, keys, "open_s", "from wish to login [s]")
        yield Figure("session-opening", f"opening a session: {len(opened)} sessions", "Search, order, boot.", plot)
    asked = _in_bins(tables["queries"], keys)
    if asked:
        told = "Mean of the queries begun in each span of time; an unanswered one counts as 0."
        plot = _plot(_series, asked, keys, "recall", "recall", spans)
        yield Figure("recall", f"recall: {over}", told, plot)
    for name, column, label in (
        ("price", "price_mean_usd", "mean price of a core-hour [USD]"),
        ("sessions", "sessions_open", "sessions that run"),
        ("free-cores", "free_cores", "cores that adverts in force offer"),
        ("paid", "paid_usd", "paid so far [USD]"),
        ("servers-up", "servers_up", "servers that are up"),
        ("rate", "rpcs_per_s", "questions a virtual second, of all nodes"),
    ):
        rows = _with_rates(series, keys) if column == "rpcs_per_s" else series
        if len({row.get(column) for row in rows} - {None}) > 1:
            plot = _plot(_series, rows, keys, column, label, spans)
            yield Figure(name, f"{label.partition(' [')[0]}: {over}", "At each sample.", plot)
    if tables["nodes"]:
        plot = _plot(_cdf, tables["nodes"], keys, "sent", "datagrams that a host sent in the whole run")
        yield Figure("load", f"load: {len(tables['nodes'])} hosts of {len(runs)} runs", "Clients are hosts, too.", plot)
    for key in keys:
        values = [row[key] for row in runs]
        if answered and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            plot = _plot(_sweep, answered, key)
            yield Figure(f"sweep-{key}", f"search time by {key}", "Of all searches at each point of the sweep.", plot)


def _plot(function: Callable[..., None], *arguments: Any) -> Callable[[Any], None]:
    return lambda axes: function(axes, *arguments)


@dataclass(frozen=True, slots=True)
class _Spans:
    """When any run had faults, in virtual seconds since all had joined."""

    all: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, faults: Sequence[Row]) -> _Spans:
        ends = sorted((row["at_ms"] / 1_000, (row["at_ms"] + row["for_ms"]) / 1_000) for row in faults)
        merged: list[tuple[float, float]] = []
        for begin, end in ends:
            if merged and begin <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((begin, end))
        return cls(tuple(merged))

    def shade(self, axes: Any) -> None:
        for number, (begin, end) in enumerate(self.all):
            label = None if number else "faults"
            axes.axvspan(begin, end, color="black", alpha=0.07, linewidth=0, label=label)


def _groups(rows: Sequence[Row], keys: Sequence[str], most: int | None = LINES_MAX) -> list[tuple[str, list[Row]]]:
    """The rows of each point of the sweep, under its name."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[", ".join(f"{key}={row[key]}" for key in keys)].append(row)
    return list(found.items())[:most]


def _cdf(axes: Any, rows: Sequence[Row], keys: Sequence[str], column: str, label: str) -> None:
    everything = sorted(row[column] for row in rows)
    logarithmic = everything[0] > 0 and everything[-1] > LONG_TAIL * everything[len(everything) // 2]
    for name, group in _groups(rows, keys):
        values = sorted(row[column] for row in group)
        shares = [(number + 1) / len(values) for number in range(len(values))]
        axes.step([values[0], *values], [0, *shares], where="post", label=name or None)
    axes.set(xlabel=label, ylabel="share that is at most this", ylim=(0, 1.02))
    if logarithmic:
        axes.set_xscale("log")
    elif everything[0] == everything[-1]:
        axes.set(xlim=(0, 2 * everything[0] or 1))
    elif isinstance(everything[0], int):
        axes.xaxis.get_major_locator().set_params(integer=True)


def _series(axes: Any, rows: Sequence[Row], keys: Sequence[str], column: str, label: str, spans: _Spans) -> None:
    """The mean over seeds, and a band that most of them lie in."""
    spans.shade(axes)
    for name, group in _groups(rows, keys):
        by_time: dict[float, list[float]] = defaultdict(list)
        for row in group:
            if row.get(column) is not None:
                by_time[round(row["t_s"], 3)].append(row[column])
        most = max((len(values) for values in by_time.values()), default=0)
        # Runs end at different moments; only of recall any seed may have asked nothing in a span.
        times = [time for time in sorted(by_time) if column == "recall" or len(by_time[time]) == most]
        marker = "." if len(times) <= POINTS_MARKED else None
        axes.plot(times, [fmean(by_time[time]) for time in times], label=name or None, marker=marker)
        if most > 1:
            low, high = ([quantile(by_time[time], share) for time in times] for share in BAND)
            axes.fill_between(times, low, high, alpha=0.2)
    axes.set(xlabel="virtual time since all had joined [s]", ylabel=label)
    axes.set_ylim(bottom=0, top=1.05 if column == "recall" else None)


def _in_bins(queries: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """The mean recall of each run's queries in each span of time, at the span's middle."""
    last_s = max((row["t_s"] for row in queries), default=0.0)
    width_s = max(1.0, last_s / BINS)
    found: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in queries:
        if row.get("recall") is not None:
            run = " ".join(str(row[key]) for key in (*keys, "seed"))
            found[run, int(row["t_s"] / width_s)].append(row)
    return [
        {**rows[0], "t_s": (number + 0.5) * width_s, "recall": fmean(row["recall"] for row in rows)}
        for (_, number), rows in found.items()
    ]


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
    axes.fill_between(values, low, high, alpha=0.2, label=f"{BAND[0]:.0%} to {BAND[1]:.0%} of the searches")
    axes.set(xlabel=key, ylabel="search time [ms]")
    axes.set_ylim(bottom=0)


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
