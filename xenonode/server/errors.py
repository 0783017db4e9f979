"""What can go wrong in a XenoServer: our own trouble, or a request that is refused."""

from __future__ import annotations

from dht.errors import RemoteError
from xenonode.errors import XenoError


class ServerError(XenoError):
    """Root of the tree."""


class LocalError(ServerError):
    """This program was used wrongly, or its own machine fails it."""


class DamagedError(LocalError):
    """A file of ours was changed by something else than a crash; nothing is guessed from it."""


class RefusedError(ServerError, RemoteError):
    """What somebody asked for is not allowed, or not possible; it never stops a node."""


class NotKeptError(RefusedError):
    """The disk took no write, so that what was decided does not hold: it is decided anew when it is asked for again."""

    def __init__(self, reason: OSError) -> None:
        told = f"the server's disk takes no writes: {reason.strerror or reason}"
        super().__init__(told, "try again later; its owner has to make room", "disk")


class CorpAwayError(ServerError):
    """XenoCorp does not answer at the moment: ask again later. Raised by implementations of `CorpPort`."""


class CorpAnswerError(ServerError, RemoteError):
    """XenoCorp failed at this one request: ask for it again, and for others at once. Raised as the other two are."""


class CorpRefusedError(ServerError):
    """XenoCorp answered no: asking again would not help. Raised by implementations of `CorpPort`."""
