"""The errors of `dht`: whose fault it is decides the class.

`LocalError` is this program's misuse of the package and may reach a user. `RemoteError` is another
node's misbehaviour or absence: it may come from a datagram, and it never stops a node.
"""

from __future__ import annotations


class DhtError(Exception):
    """Anything that `dht` refuses."""


class LocalError(DhtError):
    """We were used wrongly: a value too large, a name unknown, an endpoint not open."""


class RemoteError(DhtError):
    """Somebody else sent what they should not have, or nothing at all."""


class WireError(RemoteError):
    """Bytes that are not what the wire format allows."""


class EnvelopeError(RemoteError):
    """An envelope that is malformed, of another type, or not signed by the key it names."""


class KeyFileError(LocalError):
    """A key file that cannot be used; the message says what to do about it."""


class JoinError(LocalError):
    """No seed let us in; the message lists what was tried."""


class PeerError(RemoteError):
    """A peer did not do what it was asked."""


class PeerTimeoutError(PeerError):
    """The peer did not answer in time."""


class PeerRefusedError(PeerError):
    """The peer answered that it will not; the reason is its own text."""


class PeerBusyError(PeerRefusedError):
    """The peer asks to be asked again later."""

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(f"busy, ask again in {retry_after_ms} ms")
        self.retry_after_ms = retry_after_ms


class PeerIdentityError(PeerError):
    """Who answers at this address is not who was asked for, or cannot prove who it is."""
