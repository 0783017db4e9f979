"""`python -m xenonode`: the command line."""

from xenonode.cli.main import main

main()
