"""The demonstration's entry point; see xenonode/demo."""

from xenonode.cli.demonstration import main

main()
