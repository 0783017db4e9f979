"""`python -m xenonode.cli`: the program, where its script is not on the path."""

from __future__ import annotations

from xenonode.cli.main import main

if __name__ == "__main__":
    main()
