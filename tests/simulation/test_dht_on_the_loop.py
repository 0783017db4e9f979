"""The real `dht`, unmodified, over the simulated network."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("dht_world.py")


@pytest.mark.parametrize("seed", ["1", "2"])
def test_overlays_find_every_record_after_a_crash_and_repeat_exactly(seed: str) -> None:
    outputs = []
    for hash_seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, str(SCRIPT), seed]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert outputs[0].split()[1] == "12"
