"""The command line: reads arguments, calls `xenonode.client` and `xenonode.node`, prints what they answer. No logic."""
