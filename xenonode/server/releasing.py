"""Reservations that this server gives up, since no session will use them: their money returns to the client at once.

Decides what may be given up, and that what was is never used again: an agreement on it would launch an environment
that nobody pays for. The signed release is durable before anybody is told; `claiming` carries it to XenoCorp.
"""

from __future__ import annotations

from collections.abc import Callable

from dht.identity import Signer
from xenonode.model.money import Reservation, ReservationRelease
from xenonode.server.errors import RefusedError
from xenonode.server.journal import Journal, Spent

KEPT_MAX = 4_096
"""Given-up reservations are remembered until their leases end; at some 200 bytes each, this is less than a MiB."""
KEPT_MAX_A_CLIENT = 64
"""So that one client cannot use up the memory that makes refusals cheap for all others."""


class Releases:
    """One server's spent reservations. `wall_ms` is the time that leases are written in."""

    def __init__(self, journal: Journal, signer: Signer, wall_ms: Callable[[], int]) -> None:
        self._journal, self._signer, self._wall_ms = journal, signer, wall_ms

    def is_spent(self, reservation: bytes) -> bool:
        """Whether no agreement may use this reservation."""
        return reservation in self._journal.spent

    def give_up(self, id: bytes, reservation: Reservation) -> None:
        """Sign that XenoCorp may return it, durably; again is nothing new. Raises RefusedError where too many are."""
        if self.is_spent(id):
            return
        now_ms = self._wall_ms()
        kept = [each.client for each in self._journal.spent.values() if each.until_ms >= now_ms or each.release]
        if len(kept) >= KEPT_MAX or kept.count(reservation.client) >= KEPT_MAX_A_CLIENT:
            next_step = "the money returns a week after its lease; later refusals return it at once again"
            raise RefusedError("too many reservations were given up lately", next_step, "too_much")
        release = ReservationRelease(id, now_ms).seal(self._signer).raw
        self._journal.spend(id, Spent(reservation.client, reservation.lease_until_ms, release), now_ms)

    def use_up(self, id: bytes, reservation: Reservation) -> None:
        """Remember the reservation of a session that is about to be forgotten."""
        now_ms = self._wall_ms()
        if not self.is_spent(id) and reservation.lease_until_ms >= now_ms:
            self._journal.spend(id, Spent(reservation.client, reservation.lease_until_ms, b""), now_ms)

    def pending(self) -> list[tuple[bytes, bytes]]:
        """Reservations and their signed releases that XenoCorp has not answered, the oldest first."""
        return [(id, spent.release) for id, spent in self._journal.spent.items() if spent.release]

    def answered(self, id: bytes) -> None:
        """XenoCorp answered a release, so that it is not sent again."""
        spent = self._journal.spent[id]
        self._journal.spend(id, Spent(spent.client, spent.until_ms, b""), self._wall_ms())
