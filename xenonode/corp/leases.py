"""How long XenoCorp holds money for a session.

Decides deadlines: lease + 7 days, extended by XenoCorp's own downtime (I9). The exposure, which bounds how much
of it may be captured without the client's signature, is `xenonode.model.session.exposure_limit_nano`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HOUR_MS = 3_600_000
CLAIM_GRACE_MS = 7 * 24 * HOUR_MS
"""A server can claim this long after the lease: longer than its own or XenoCorp's likely outage."""
TAIL_WAIT_MS = 72 * HOUR_MS
"""An unsigned tail waits three days, so that a client who was away can still object."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which XenoCorp did not answer."""

    began_ms: int
    ended_ms: int


def deadline_ms(made_ms: int, lease_until_ms: int, grace_ms: int, outages: Iterable[Outage]) -> int:
    """When an unclaimed reservation ends, each outage since it was made postponing that by its own length."""
    deadline = lease_until_ms + grace_ms
    for outage in sorted(outages, key=lambda each: each.began_ms):
        if outage.ended_ms > made_ms and outage.began_ms < deadline:
            deadline += outage.ended_ms - max(made_ms, outage.began_ms)
    return deadline
