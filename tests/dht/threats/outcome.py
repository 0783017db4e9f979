"""What an attack came to: a figure beside its bar."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attack's result; `detail` holds what else was counted."""

    attack: str
    bar: str
    figure: str
    holds: bool
    detail: dict[str, object] = field(default_factory=dict)
