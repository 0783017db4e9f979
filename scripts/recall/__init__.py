"""What a long run of scripts/bench_recall needs to be split, and to be taken up again."""
