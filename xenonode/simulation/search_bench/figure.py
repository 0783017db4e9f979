"""The poster's figure, drawn anew: how search time varies with the number of items; as PNG and as CSV.

Decides what is drawn; what a search's time is stands in bench.py, and below the figure: rounds by a mean round trip,
plus bytes by a home's download rate, plus the client's processor time, until the answers are known. What was measured
is in the CSV, so that other round trips can be put in.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from xenonode.errors import XenoError
from xenonode.simulation.search_bench.bench import DOWNLOAD_BYTE_PER_MS, ROUND_TRIP_MS, Row

LINEAR_MAX = 20
"""Where the slowest takes so many times as long as the fastest, a linear axis would show that line alone."""
TIME_MARKS_MS = tuple(factor * 10**power for power in range(1, 7) for factor in (1, 2, 5))


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Every row, one a line."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0].to_fields()))
        writer.writeheader()
        writer.writerows(row.to_fields() for row in rows)


def need_package() -> None:
    """Raise XenoError when matplotlib is not installed: before the runs, which take long."""
    if find_spec("matplotlib") is None:
        raise XenoError("the figure needs the package matplotlib", "pip install 'xenonode[plots]'", "missing_package")


_LINES = {
    "bloom-2003": ("2003: a Bloom filter per aggregation point", "tab:red", "s-"),
    "driver-scan": ("scan of the most selective dimension", "tab:orange", "^-"),
    "xenosearch-strict": ("XenoSearch, strict: two replicas", "tab:blue", "o-"),
    "xenosearch": ("XenoSearch, one replica", "tab:cyan", "o--"),
    "central-sqlite": ("one central index, SQLite", "tab:gray", "v-"),
    "central-numpy": ("one central index, all in memory", "black", "v:"),
}
"""Label, colour and form of each method's line, slowest first as the lines lie."""


def draw_png(rows: Sequence[Row], path: Path, kind: str = "conjunction") -> None:
    """One line a method; what the time is made of stands below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chosen = [row for row in rows if row.kind == kind]
    sizes = sorted({row.adverts for row in chosen})
    figure, axes = pyplot.subplots(figsize=(8, 5.2))
    for method, (label, colour, form) in _LINES.items():
        line = sorted((row.adverts, row.time_ms_mean) for row in chosen if row.method == method)
        if line:
            axes.plot([one[0] for one in line], [one[1] for one in line], form, color=colour, label=label)
    axes.set(xscale="log", xlabel="number of advertisements", ylabel="mean search time [ms], modelled")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    times = [row.time_ms_mean for row in chosen]
    if max(times) > LINEAR_MAX * min(times):
        marks = [mark for mark in TIME_MARKS_MS if min(times) / 2 <= mark <= 2 * max(times)]
        axes.set(yscale="log", ylabel="mean search time [ms], modelled, logarithmic")
        axes.set_yticks(marks, [f"{mark:,}" for mark in marks])
    else:
        axes.set_ylim(bottom=0)
    axes.minorticks_off()
    axes.set_title(f"How search time varies with the number of items\n({kind}s with 1 to 1,000 matches, all listed)")
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize="small")
    rate = DOWNLOAD_BYTE_PER_MS * 8 // 1000
    asked = {row.method: row.queries for row in chosen}
    most, least = max(asked.values()), min(asked.values())
    few = [label.partition(":")[0] for method, (label, _, _) in _LINES.items() if asked.get(method, most) < most]
    counted = f"means of {most} searches" + (f" ({' and '.join(few)}: {least})" if few else "")
    made = (
        f"{counted}: rounds at {ROUND_TRIP_MS:.0f} ms, bytes at {rate} Mbit/s, and the client's processor time,\n"
        "until the answers are known; to ask each server found for its advert comes after, and is the same for all"
    )
    figure.text(0.5, 0.01, made, ha="center", fontsize="x-small")
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
