"""Audits: do the books balance?

Recomputes everything from the transfers, in Python integers (SQLite's SUM overflows), and compares it with the
balances that the accounts carry. Pure. Checks I1 (debits = credits), I2 (nobody but the world below zero),
I3 (captures + holds + free = order) and that no balance drifted from its transfers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xenonode.corp import accounts
from xenonode.corp.accounts import Balance
from xenonode.corp.orders import OrderState
from xenonode.corp.transfers import CAPTURE, FEE, Transfer
from xenonode.model.money import format_amount


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Debits and credits of each currency as the accounts carry them, and every fault found."""

    debits_nano: Mapping[str, int]
    credits_nano: Mapping[str, int]
    accounts: int
    transfers: int
    orders: int
    faults: tuple[str, ...]

    @property
    def balanced(self) -> bool:
        """Whether nothing at all is wrong."""
        return not self.faults


def audit(balances: Iterable[Balance], transfers: Iterable[Transfer], orders: Iterable[OrderState]) -> AuditReport:
    """Check the whole ledger."""
    books = {balance.account.id: balance for balance in balances}
    debits: dict[str, int] = defaultdict(int)
    credits: dict[str, int] = defaultdict(int)
    moved: dict[str, list[int]] = {name: [0, 0] for name in books}
    faults: list[str] = []
    paid: dict[str, int] = defaultdict(int)
    count = 0
    for transfer in transfers:
        count += 1
        if transfer.kind in (CAPTURE, FEE):
            paid[transfer.debit.id] += transfer.amount_nano
        for side, account in enumerate((transfer.debit, transfer.credit)):
            if account.id not in moved:
                faults.append(f"transfer {transfer.id} names {account.id}, which is no account")
                continue
            moved[account.id][side] += transfer.amount_nano
    for name, balance in books.items():
        currency = balance.account.currency
        debits[currency] += balance.debits_nano
        credits[currency] += balance.credits_nano
        if [balance.debits_nano, balance.credits_nano] != moved[name]:
            faults.append(
                f"{name} carries {balance.debits_nano}/{balance.credits_nano}, its transfers make {moved[name]}"
            )
        if balance.nano < 0 and balance.account.kind != accounts.EXTERNAL:
            faults.append(f"{name} is below zero: {format_amount(balance.nano, currency)}")
    faults += [f"debits and credits differ in {name}" for name in sorted(debits) if debits[name] != credits[name]]
    states = list(orders)
    for state in states:
        faults += order_faults(state, books, paid)
    return AuditReport(dict(debits), dict(credits), len(books), count, len(states), tuple(faults))


def order_faults(state: OrderState, books: Mapping[str, Balance], paid: Mapping[str, int]) -> list[str]:
    """What is wrong with one order: I3, and its holds and captures against accounts and transfers."""
    name, amount = state.id.hex(), state.order.amount_nano
    faults = []
    if state.captured_nano > amount:
        faults.append(f"order {name}: captured {state.captured_nano} of {amount}")
    if min(state.free_nano, state.reserved_nano, state.captured_nano, state.released_nano) < 0:
        faults.append(f"order {name}: free, reserved, captured and released do not add up to {amount}")
    for each in state.reservations:
        if each.captured_nano > each.amount_nano:
            faults.append(f"reservation {each.id.hex()}: captured {each.captured_nano} of {each.amount_nano}")
        account = f"reservation:{each.id.hex()}"
        if paid.get(account, 0) != each.captured_nano:
            faults.append(f"{account}: captured {each.captured_nano}, its transfers make {paid.get(account, 0)}")
        if account not in books or books[account].nano != each.held_nano:
            faults.append(f"reservation {each.id.hex()}: holds {each.held_nano}, its account says otherwise")
    return faults
