"""The same seed is the same run on every supported Python: each is held to the traces of one file."""

from __future__ import annotations

import json

from .golden_traces import PATH, catalogue, record


def test_worlds_have_the_traces_that_they_had_on_every_python() -> None:
    kept = PATH.read_text(encoding="ascii")
    assert json.loads(kept)["catalogue"] == catalogue(), "another catalogue: record traces before a change"
    assert record() == kept, "nodes do something else than before; if it is meant, scripts/record_golden traces"
