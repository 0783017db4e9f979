"""`python -m xenonode`: the command line."""

from xenonode.cli.__main__ import main

main()
