"""The demonstration's entry point; see xenonode/demo."""

from xenonode.demo.main import main

main()
