"""The same seed is the same run on every supported Python: each is held to the traces of one file."""

from __future__ import annotations

from .golden_traces import PATH, record


def test_worlds_have_the_traces_that_they_had_on_every_python() -> None:
    kept = PATH.read_text(encoding="ascii")
    assert record() == kept, "nodes do something else than before; if it is meant, scripts/record_golden traces"
