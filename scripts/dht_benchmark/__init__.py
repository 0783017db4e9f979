"""The benchmark of `dht` against its peers; `scripts/bench_dht` is its command."""
