"""Seeds of small platforms where prices and places have two tries each: all invariants hold in each of them."""

from __future__ import annotations

import pytest

from xenonode.simulation.seeds import SALTED, run_seed


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [3, 7])
def test_every_invariant_holds_in_every_trie(seed: int) -> None:
    assert run_seed(seed, size=SALTED).broken == ""
