"""The command line: reads arguments, calls `xenonode.client` and the nodes, prints what they answer. No logic."""
