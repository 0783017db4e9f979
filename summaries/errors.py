"""The package's error tree: what we got wrong, and what a peer got wrong.

Only a RemoteError may come from a datagram, and it never stops a node.
"""

from __future__ import annotations


class SummariesError(Exception):
    """Anything that this package raises on purpose."""


class LocalError(SummariesError):
    """Our caller misused the package, or a person wrote a query that cannot be understood."""


class RemoteError(SummariesError):
    """A peer sent what no honest peer sends: refuse it and carry on."""


class MessageError(RemoteError):
    """A message, advert or summary that does not have the form it must have."""
