"""What can be wrong with a value of the model: one tree, no behaviour."""

from __future__ import annotations

from dht.errors import RemoteError


class ModelError(ValueError):
    """A value breaks an invariant of its type; the message names the field and the limit."""


class MessageError(ModelError, RemoteError):
    """Received fields are no valid message: missing, of a wrong type, out of bounds, or of a newer version."""
