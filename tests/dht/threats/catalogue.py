"""Every attack of this folder, at the size that the design names and at one that a test suite can afford."""

from __future__ import annotations

from collections.abc import Callable

from . import amplification, capture, eclipse, equivocation, flooding, replay, silence, sybil
from .outcome import Outcome

FULL: dict[str, Callable[[], Outcome]] = {
    "sybil": lambda: sybil.attack(10_000),
    "eclipse": lambda: eclipse.attack(5_000, 50, 500),
    "early": lambda: eclipse.early(50, 500, 8),
    "replay": lambda: replay.attack(10_000),
    "equivocation": lambda: equivocation.attack(1_000),
    "amplification": lambda: amplification.attack(100_000),
    "flooding": lambda: flooding.attack(20_000),
    "tarpit": lambda: silence.attack(200, 400),
    "capture": lambda: capture.attack(1_000, 10_000),
}
SMALL: dict[str, Callable[[], Outcome]] = {
    "sybil": lambda: sybil.attack(1_000),
    "eclipse": lambda: eclipse.attack(500, 50, 250),
    "early": lambda: eclipse.early(40, 400, 8),
    "replay": lambda: replay.attack(1_000),
    "equivocation": lambda: equivocation.attack(100),
    "amplification": lambda: amplification.attack(6_000),
    "flooding": lambda: flooding.attack(5_000),
    "tarpit": lambda: silence.attack(60, 80),
    "capture": lambda: capture.attack(300, 2_000),
}
