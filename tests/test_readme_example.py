"""The README's example of a simulated world runs and prints what it says, but for how many questions are asked."""

from __future__ import annotations

import asyncio
import re
import textwrap
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.rst"


async def in_a_cell(code: str) -> None:
    """As a notebook does: its loop runs while a cell is carried out."""
    exec(compile(code, str(README), "exec"), {})


def test_the_example_for_notebooks_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = README.read_text(encoding="utf-8").partition(".. code-block:: python\n")[2]
    code = textwrap.dedent(re.split(r"\n(?=\S)", text, maxsplit=1)[0])
    asyncio.run(in_a_cell(code))
    asked, without_half, again, moment = capsys.readouterr().out.splitlines()
    assert asked.startswith("(10, True, ") and "# (10, True, " in code
    assert without_half.startswith("(5, True, ") and "# (5, True, " in code
    assert again.startswith("(10, True, ") and "(120.0, 10)" in moment
