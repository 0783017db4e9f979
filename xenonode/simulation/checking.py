"""Whether a run did what its scenario demands: recall once all is quiet, shares answered and settled, the books.

Decides each check, in an order in which the most telling fails first. Invariants of the code, whatever the scenario,
are not here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from xenonode.client import Operator
from xenonode.corp.transfers import CAPTURE, FEE, RESERVE
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
    """Every session has ended and is paid for as its client was told, and its order's rest is free. Raises CheckError.

    But for those on a server that is gone for good, or lost its files: nobody is there any more who would claim.
    """
    lost = {name for each in injections if each.kind in LOSING_FILES for name in each.targets}
    claiming = {host.node.host.name for host in world.servers if host.running is not None} - lost
    for lease in leases.all:
        if lease.state in ("running", "stopping") and lease.server in claiming:
            told = f"session {lease.number} of {lease.client} on {lease.server} is still {lease.state}"
            raise CheckError("settled", f"{told} {SETTLING_S:g} s after the quiet")
    for number, (order, told_nano) in leases.paid.items():
        paid_nano, held_nano = _paid_and_held(world, f"order:{order}")
        if leases.all[number].server in claiming and (paid_nano != told_nano or held_nano):
            told = f"session {number}: its client was told of {told_nano} nano, {paid_nano} were paid"
            raise CheckError("settled", f"{told}, {held_nano} of its order are held still")


def _paid_and_held(world: World, order: str) -> tuple[int, int]:
    """What reservations of an order paid, and what it and they still hold, in nano-units."""
    reservations = {each.credit.id for each in world.transfers if each.kind == RESERVE and each.debit.id == order}
    paid = held = 0
    for each in world.transfers:
        enters, leaves = (account.id == order or account.id in reservations for account in (each.credit, each.debit))
        held += each.amount_nano * (enters - leaves)
        paid += each.amount_nano * (each.kind in (CAPTURE, FEE) and leaves)
    return paid, held


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
