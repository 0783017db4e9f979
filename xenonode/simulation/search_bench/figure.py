"""The poster's figure, drawn anew: how search time varies with the number of items; as PNG and as CSV.

Decides what a search's time is here: rounds by a mean round trip, plus bytes by a home's download rate, plus the
client's processor time. What was measured is in the CSV, so that other round trips can be put in.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from xenonode.errors import XenoError
from xenonode.simulation.search_bench.bench import Row


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


def draw_png(rows: Sequence[Row], path: Path, kind: str = "conjunction") -> None:
    """One line a method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for method in dict.fromkeys(row.method for row in rows):
        line = sorted((row.adverts, row.time_ms_mean) for row in rows if row.method == method and row.kind == kind)
        if line:
            axes.plot([one[0] for one in line], [one[1] for one in line], marker="o", label=method)
    axes.set(xscale="log", yscale="log", xlabel="number of items", ylabel="search time [ms], modelled")
    axes.set_title(f"How search time varies with the number of items ({kind})")
    axes.grid(True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
