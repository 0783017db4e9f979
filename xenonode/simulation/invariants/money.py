"""What holds of money and of what is sold, at every moment of a run. Each check returns what is wrong with it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from xenonode.corp.statements import audit_books
from xenonode.corp.transfers import CAPTURE, CREDIT, FEE, RESERVE, RING_FENCE
from xenonode.model.resources import NO_RESOURCES
from xenonode.server.session_state import HOLDING

if TYPE_CHECKING:
    from xenonode.simulation.world import World


class MoneyChecks:
    """The checks of one world that has XenoCorp, with what they remember from one time to the next."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._checked_transfers = 0
        self._transfer_ids: set[str] = set()
        self._moved: dict[tuple[str, str], int] = defaultdict(int)

    def transfers(self) -> str:
        """Every transfer is made once; no order pays more than it is for, no reservation more than was set aside."""
        fresh = self._world.transfers[self._checked_transfers :]
        self._checked_transfers = len(self._world.transfers)
        for each in fresh:
            if each.id in self._transfer_ids:
                return f"transfer {each.id} ({each.kind}) was made twice"
            self._transfer_ids.add(each.id)
            self._moved[each.kind, each.debit.id] += each.amount_nano
            self._moved[each.kind, each.credit.id] += each.amount_nano
            if each.kind in (CAPTURE, FEE):
                account = each.debit.id
                paid, set_aside = (
                    self._moved[CAPTURE, account] + self._moved[FEE, account],
                    self._moved[RESERVE, account],
                )
                if paid > set_aside:
                    return f"{account}: {paid} captured of {set_aside}"
        fenced = sum(each.amount_nano for each in self._world.transfers if each.kind == RING_FENCE)
        credited = sum(each.amount_nano for each in self._world.transfers if each.kind == CREDIT)
        return f"{fenced} ring-fenced of {credited} credited" if fenced > credited else ""

    def books(self) -> str:
        """Debits equal credits, and every balance is what its transfers make."""
        corp = self._world.corp
        if corp.running is None:
            return ""
        report = corp.store.run_inline(audit_books)
        if report.debits_nano != report.credits_nano:
            return f"debits {report.debits_nano}, credits {report.credits_nano}"
        return "; ".join(report.faults)

    def capacity(self) -> str:
        """What sessions hold is never more than the server offers."""
        for host in self._world.servers:
            if host.running is None:
                continue
            held = NO_RESOURCES
            for session in host.running.sessions.sessions.values():
                if session.state in HOLDING:
                    held = held + session.resources
            lacking = host.running.admission.offer.total.lacks(held)
            if lacking:
                return f"{host.node.host.name} sold more {', '.join(lacking)} than it has"
        return ""
