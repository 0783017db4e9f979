"""Statements: what the ledger says of one entity, and of itself as a whole.

An entity sees the lines of its own account: money in and out, each with what it was for; for a client, what its
orders ring-fence is shown beside the balance. The audit recomputes every balance from the transfers.
"""

from __future__ import annotations

from xenonode.corp import accounts, orderbook
from xenonode.corp.audit import AuditReport, audit
from xenonode.corp.books import Books
from xenonode.corp.members import Member
from xenonode.model.money import Statement, StatementLine

LINES_MAX = 200
"""Newest lines in a statement; a message's list holds at most 256."""
_HOLDS = (accounts.ORDER, accounts.RESERVATION)


def account_of(member: Member, currency: str) -> accounts.Account:
    """The account that a member's money arrives in; XenoCorp's own keys see its fees."""
    if member.role == "corp":
        return accounts.fee(currency)
    make = accounts.server if member.role == "server" else accounts.client
    return make(member.entity, currency)


def statement(books: Books, member: Member, currency: str, now_ms: int) -> Statement:
    """An entity's newest lines, its balance, and what is ring-fenced of its money."""
    account = account_of(member, currency)
    lines = tuple(
        StatementLine(
            each.id,
            each.kind,
            each.amount_nano if each.credit.id == account.id else -each.amount_nano,
            each.reference,
            each.posted_ms,
        )
        for each in books.transfers(touching=account.id, newest=LINES_MAX)
    )
    held = (each for each in books.balances(entity=member.entity) if each.account.kind in _HOLDS)
    ringfenced_nano = sum(each.nano for each in held if each.account.currency == currency)
    return Statement(member.entity, currency, books.balance(account).nano, ringfenced_nano, lines, now_ms)


def audit_books(books: Books) -> AuditReport:
    """Check the whole ledger; reads everything."""
    return audit(books.balances(), books.transfers(), orderbook.listed(books))
