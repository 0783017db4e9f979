"""Environments on one machine: CPU and memory, not agreements."""
