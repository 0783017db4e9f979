"""Imports go down only, the libraries do not know one another, and each third-party package has one home."""

from __future__ import annotations

import ast
import pathlib
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
LIBRARIES = ("dht", "summaries", "hypervisor")
OURS = frozenset({*LIBRARIES, "xenonode"})

# Parts of xenonode by floor. A part imports from lower floors, and from its own name; on the shared floors also from
# its neighbours. A part that is missing here joins others (floor 4), so nothing below may know it.
FLOORS = {
    "errors": 1,
    "units": 1,
    "env": 1,
    "model": 1,
    "catalogue": 1,
    "folder": 1,
    "settings": 1,
    "setting_tables": 1,
    "config": 1,
    "control": 2,
    "corp": 3,
    "server": 3,
    "search": 3,
    "store": 3,
    "trust": 3,
    "client": 4,
    "node": 4,
    "simulation": 5,
    "cli": 6,  # `xenonode simulate` runs the simulator; nothing else may
}
JOINING_FLOOR = 4
SHARED_FLOORS = {1, JOINING_FLOOR}  # the vocabulary; and a node is also a client

# Where each third-party package may be imported: a file, or a folder ending in "/".
HOMES = {
    "kademlia": ("dht/routing.py",),
    "asyncio_dgram": ("dht/udp.py",),
    "msgpack": ("dht/wire.py",),
    "nacl": ("dht/",),
    "numpy": ("summaries/", "xenonode/simulation/"),
    "xxhash": ("summaries/",),
    "lark": ("summaries/",),
    "libvirt": ("hypervisor/libvirt_driver.py", "xenonode/doctor.py"),  # the doctor only asks whether it loads
    "sqlalchemy": ("xenonode/corp/",),
    "alembic": ("xenonode/corp/",),
    # TLS; a guest's ssh host key; XenoCorp's identity records, encrypted at rest.
    "cryptography": ("xenonode/control/tls.py", "hypervisor/hostkeys.py", "xenonode/corp/vault.py"),
    "typer": ("xenonode/cli/",),
    "rich": ("xenonode/cli/",),
    "platformdirs": ("xenonode/folder.py",),
    "tomli_w": ("xenonode/config.py",),
    "libcloud": ("xenonode/catalogue/",),
    "apsw": ("xenonode/simulation/ledger/",),
    "matplotlib": ("xenonode/simulation/search_bench/figure.py", "xenonode/simulation/campaign/plots.py"),
    "distributed": ("xenonode/simulation/campaign/cluster.py",),
    "pyarrow": ("xenonode/simulation/campaign/results.py",),
}

# What benchmarks measure us against, and measure with: a benchmark may import these, the product may not.
PEERS = frozenset({"kademlia", "libtorrent", "libp2p", "multiaddr", "opendht", "psutil", "rpcudp", "trio"})
BENCHMARKS = ("scripts/dht_benchmark/", "scripts/simulator_benchmark/")


def sources() -> Iterator[tuple[str, str]]:
    """Yield (path, text) of every module that is held to the floors."""
    for package in sorted({*OURS, "scripts"}):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def imports(path: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute module) of every import in a module, wherever it stands in the text."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse(text, path)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for name in node.names:  # "from xenonode import corp" imports xenonode.corp
                yield node.lineno, f"{module}.{name.name}" if module in OURS else module


def part_of(module: str) -> str | None:
    """Return the part of xenonode that a dotted module belongs to; None for the package itself."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else None


def complaint(path: str, module: str) -> str | None:
    """Say what is wrong with an import, or None."""
    top, importer = module.split(".")[0], path.split("/")[0]
    if top in sys.stdlib_module_names:
        return None
    if top not in OURS:
        if path.startswith(BENCHMARKS) and (top in PEERS or top in HOMES):
            return None
        if top == importer == "scripts":
            return None
        if top not in HOMES:
            return f"{top} has no home yet: name it in HOMES and in setup.cfg"
        if not any(path == home or (home.endswith("/") and path.startswith(home)) for home in HOMES[top]):
            return f"{top} is at home in {', '.join(HOMES[top])} only"
        return None
    if importer in LIBRARIES and top != importer:
        return f"{importer} must not know {top}"
    if importer != "xenonode" or top != "xenonode":
        return None  # scripts stand on top; libraries are below
    return floor_complaint(path, module)


def floor_complaint(path: str, module: str) -> str | None:
    """Say what is wrong with an import from one part of xenonode to another, or None."""
    own, other = part_of(path.removesuffix(".py").replace("/", ".")), part_of(module)
    if own == other or own in (None, "__init__", "__main__") or other is None or other.startswith("__"):
        return None
    below, above = FLOORS.get(str(own), JOINING_FLOOR), FLOORS.get(other, JOINING_FLOOR)
    if above > below or (above == below and below not in SHARED_FLOORS):
        return f"{own} (floor {below}) must not know {other} (floor {above})"
    return None


def complaints(files: Iterator[tuple[str, str]]) -> list[str]:
    found = []
    for path, text in files:
        for line, module in imports(path, text):
            said = complaint(path, module)
            if said is not None:
                found.append(f"{path}:{line}: {module}: {said}")
    return found


def test_imports_go_down_and_each_package_stays_at_home() -> None:
    files = list(sources())
    assert len(files) > 50  # it looks at something
    assert complaints(iter(files)) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("dht/wire.py", "import summaries.point"),
        ("summaries/point.py", "from dht import wire"),
        ("hypervisor/adapter.py", "from xenonode.env import Env"),
        ("dht/lookup.py", "def f():\n    import msgpack"),
        ("xenonode/model/advert.py", "from xenonode.control.client import connect"),
        ("xenonode/model/advert.py", "from xenonode import corp"),
        ("xenonode/model/advert.py", "from ..corp import ledger"),
        ("xenonode/control/server.py", "from xenonode.corp.ledger import Ledger"),
        ("xenonode/corp/ledger.py", "from xenonode.server.metering import x"),
        ("xenonode/node.py", "import xenonode.simulation.loop"),
        ("xenonode/client.py", "if TYPE_CHECKING:\n    from xenonode.cli.main import main"),
        ("xenonode/server/admission.py", "import typer"),
        ("xenonode/server/admission.py", "import requests"),
        ("xenonode/model/money.py", "from xenonode.novelty import Thing"),
        ("scripts/benchmark.py", "import kademlia"),
    ],
)
def test_a_planted_import_is_found(path: str, text: str) -> None:
    assert len(complaints(iter([(path, text)]))) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("dht/overlay.py", "from . import wire\nfrom .errors import DhtError\nimport asyncio"),
        (
            "xenonode/corp/ledger.py",
            "import sqlalchemy as sa\nfrom xenonode.control import server\nimport dht.wire",
        ),
        (
            "xenonode/cli/main.py",
            "import typer\nfrom xenonode import simulation, __version__",
        ),
        ("xenonode/node.py", "from xenonode.client import Client\nimport hypervisor, summaries.point"),
        ("scripts/demo.py", "import xenonode.node, dht.wire"),
    ],
)
def test_what_goes_down_is_left_alone(path: str, text: str) -> None:
    assert complaints(iter([(path, text)])) == []
