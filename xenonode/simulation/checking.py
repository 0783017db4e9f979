"""Whether a run did what its scenario demands: recall once all is quiet, shares answered and settled, the books.

Decides each check, in an order in which the most telling fails first. Invariants of the code, whatever the scenario,
are not here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from xenonode.client import Operator
from xenonode.corp.transfers import CAPTURE, FEE, RESERVE, Transfer
from xenonode.simulation.asking import Asking
from xenonode.simulation.faults import LOSING_FILES, Injection
from xenonode.simulation.leases import AGAIN_S, Leases
from xenonode.simulation.scenario import Scenario
from xenonode.simulation.stand import EXPECTED
from xenonode.simulation.world import World

SETTLING_S = 600.0
"""Until sessions must have been settled once all is quiet: clients wait a minute, servers claim again within five."""


class CheckError(Exception):
    """A check of the scenario did not hold."""

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(detail)
        self.check, self.detail = check, detail


async def check_quiet(scenario: Scenario, asking: Asking, rng: Random) -> None:
    """Queries of every class in turn must be answered whole. Raises CheckError."""
    checks, names = scenario.checks, sorted(scenario.workload.mix)
    for number in range(checks.quiet_queries):
        row = await asking.ask(rng, number % scenario.nodes.clients, names[number % len(names)], quiet=True)
        if row is None:
            raise CheckError("quiet_recall", "no server is left that advertises")
        if row["recall"] < checks.quiet_recall_least:
            told = f"recall {row['recall']:.4f} is below {checks.quiet_recall_least}"
            raise CheckError("quiet_recall", f"{told} after {checks.quiet_s:g} s of quiet: {row['query']}")


async def check_ledger(world: World, note: Callable[[str], None]) -> None:
    """XenoCorp's own audit finds nothing. Raises CheckError."""
    while True:
        try:
            audit = await world.corp.operate(Operator.audit)
            break
        except EXPECTED as error:
            note(f"XenoCorp does not answer its operator: {error}")
            await asyncio.sleep(AGAIN_S)
    if not audit["balanced"]:
        raise CheckError("ledger", f"the books do not balance: {audit['faults']}")


def check_settled(world: World, leases: Leases, injections: Sequence[Injection]) -> None:
    """Every session has ended, paid what its client was told, and left nothing set aside. Raises CheckError.

    But for those on a server that is gone for good, or lost its files: nobody is there any more who would claim. An
    order's own rest is free only where its client has signed the final claim, and so is not looked at.
    """
    lost = {name for each in injections if each.kind in LOSING_FILES for name in each.targets}
    claiming = {host.node.host.name for host in world.servers if host.running is not None} - lost
    for lease in leases.all:
        if lease.state == "asking" or (lease.state in ("running", "stopping") and lease.server in claiming):
            told = f"session {lease.number} of {lease.client} on {lease.server or 'no server yet'}"
            raise CheckError("settled", f"{told} is still {lease.state} {SETTLING_S:g} s after the quiet")
    sums = paid_and_held(world.transfers)
    for number, (order, told_nano) in leases.paid.items():
        paid_nano, held_nano = sums.get(f"order:{order}", (0, 0))
        if leases.all[number].server in claiming and (paid_nano != told_nano or held_nano):
            told = f"session {number}: its client was told of {told_nano} nano, {paid_nano} were paid"
            raise CheckError("settled", f"{told}, {held_nano} are set aside still")


def paid_and_held(transfers: Sequence[Transfer]) -> dict[str, tuple[int, int]]:
    """By order's account: what its reservations paid, and what they still hold, in nano-units."""
    orders: dict[str, str] = {}
    found: dict[str, tuple[int, int]] = {}
    for each in transfers:
        if each.kind == RESERVE:
            orders[each.credit.id] = each.debit.id
        order, is_in = orders.get(each.credit.id), True
        if order is None:
            order, is_in = orders.get(each.debit.id), False
        if order is not None:
            paid, held = found.get(order, (0, 0))
            paid += each.amount_nano * (each.kind in (CAPTURE, FEE))
            found[order] = paid, held + (each.amount_nano if is_in else -each.amount_nano)
    return found


def check_shares(scenario: Scenario, asking: Asking, leases: Leases) -> None:
    """Bars on the whole run. Raises CheckError."""
    checks, figures = scenario.checks, asking.figures()
    if figures["queries"]:
        _above("recall", "mean recall", figures["recall_mean"] or 0.0, checks.recall_least)
        _above("answered", "share of queries answered", figures["answered"] / figures["queries"], checks.answered_least)
    if leases.all:
        share = leases.count("settled") / len(leases.all)
        _above("sessions", "share of sessions settled", share, checks.sessions_least)


def _above(check: str, what: str, value: float, least: float) -> None:
    if value < least:
        raise CheckError(check, f"{what} {value:.4f} is below {least}")
