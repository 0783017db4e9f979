"""The simulator: the node's real coroutines under a virtual clock, on a network made from a seed.

This package imports everything below it, and nothing imports it but worlds, tests and the command line.
"""
