"""The benchmark of the simulator; `scripts/bench_simulator` is its command."""
