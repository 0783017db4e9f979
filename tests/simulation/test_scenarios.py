"""The scenarios that ship with the package: each loads, says what it shows in a page, and runs at a small size."""

from __future__ import annotations

import configparser
from itertools import pairwise
from pathlib import Path

import pytest

from xenonode.simulation.campaign.jobs import jobs_of
from xenonode.simulation.experiment import run
from xenonode.simulation.faults import plan
from xenonode.simulation.scenario_file import SHIPPED, load, shipped

ROOT = Path(__file__).parents[2]
LINES_MAX = 40
SMALL = {
    "nodes.servers": "6",
    "nodes.clients": "2",
    "duration_s": "40",
    "sample_every_s": "10",
    "checks.quiet_s": "180",
}
"""What the small runs have in common: seconds of processor time instead of minutes or hours."""
OWN: dict[str, dict[str, str]] = {
    "all-faults-1k": {"nodes.servers": "12"} | {f"fault.{n}.count": "2" for n in range(38)},
    "byzantine-20": {
        f"fault.{n}.{key}": value for n in range(3) for key, value in (("at_s", f"{12 * n}"), ("for_s", "11"))
    },
    "eclipse": {"fault.0.at_s": "5", "fault.0.for_s": "20"},
    "churn": {"churn.lifetime_mean_s": "60", "churn.downtime_mean_s": "10"},
    "corp-away": {"fault.0.at_s": "5", "fault.0.for_s": "20", "checks.recall_least": "0.5"},
    "flash-crowd": {"workload.surge_at_s": "10", "workload.surge_for_s": "10", "workload.session_mean_s": "10"},
    "partition-and-heal": {"fault.0.at_s": "10", "fault.0.for_s": "20"},
    "price-war": {"workload.reprice_every_s": "10", "workload.session_mean_s": "10"},
    "search-time": {"nodes.fleet": "12"},
}


def test_every_scenario_is_a_page_and_says_what_it_shows() -> None:
    names = shipped()
    assert len(names) >= 10 and set(OWN) <= set(names)
    for name in names:
        text = (SHIPPED / f"{name}.toml").read_text(encoding="utf-8")
        assert len(text.splitlines()) < LINES_MAX, name
        for job in jobs_of(name, {}, (0,)):
            assert job.scenario.shows.endswith("."), name


def test_a_fifth_of_the_servers_lies_in_all_where_the_scenario_says_so() -> None:
    scenario = load("byzantine-20")
    for seed in range(3):
        planned = plan(scenario.faults, seed, scenario.names(), scenario.duration_s)
        assert len({name for one in planned for name in one.targets}) == scenario.nodes.servers // 5
        assert all(one.at_ms + one.for_ms < later.at_ms for one, later in pairwise(planned))


def test_every_file_that_is_no_source_goes_into_an_installed_package() -> None:
    """A wheel has what setup.cfg names for the package that a file lies in; a checkout has it anyway."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = {package: text.replace(",", " ").split() for package, text in config["options.package_data"].items()}
    for top in ("dht", "summaries", "hypervisor", "xenonode"):
        for path in (ROOT / top).rglob("*"):
            if path.is_dir() or path.suffix in (".py", ".pyc"):
                continue
            package = next(folder for folder in path.parents if (folder / "__init__.py").exists())
            patterns = named["*"] + named.get(".".join(package.relative_to(ROOT).parts), [])
            assert any(path in package.glob(pattern) for pattern in patterns), path


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_scenario_runs_at_a_small_size(name: str) -> None:
    result = run(load(name, SMALL | OWN.get(name, {})), 1)
    print(result.row)
    assert result.verdict.passed, result.verdict
    assert result.row["queries"] > 2 and result.row["recall_mean"] > 0.5
    assert result.row["fault_bites"] > 0 or not result.faults


def test_a_leaf_that_one_replica_alone_split_while_prices_moved_is_whole_and_its_rows_are_found() -> None:
    """A replica that saw a row come before another left has split for ever; the two others rightly go on as a leaf."""
    result = run(load("price-war", SMALL | OWN["price-war"] | {"nodes.leaf_capacity": "4", "duration_s": "60"}), 6)
    assert result.verdict.passed, result.verdict
