"""What holds of money and of what is sold, at every moment of a run. Each check returns what is wrong with it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from xenonode.corp.accounts import EXTERNAL
from xenonode.corp.statements import audit_books
from xenonode.model.resources import NO_RESOURCES
from xenonode.server.session_state import HOLDING

if TYPE_CHECKING:
    from xenonode.simulation.world import World


class MoneyChecks:
    """The checks of one world that has XenoCorp, with what they remember from one time to the next."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._transfer_ids: set[str] = set()
        self._balances: dict[str, int] = defaultdict(int)  # by account, in nano-units

    def transfers(self) -> str:
        """Every transfer is made once, from what its account holds at that moment.

        So no client orders for more than it was credited and got back, no order sets aside more than it is for, and no
        reservation pays more than was set aside.
        """
        for each in self._world.transfers[len(self._transfer_ids) :]:
            if each.id in self._transfer_ids:
                return f"transfer {each.id} ({each.kind}) was made twice"
            self._transfer_ids.add(each.id)
            held = self._balances[each.debit.id]
            if each.amount_nano > held and each.debit.kind != EXTERNAL:
                return f"{each.debit.id}: {each.kind} of {each.amount_nano} nano, where {held} are held"
            self._balances[each.debit.id] -= each.amount_nano
            self._balances[each.credit.id] += each.amount_nano
        return ""

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
