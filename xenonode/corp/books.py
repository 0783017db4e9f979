"""The books: one unit of work on the ledger's tables, as seen inside a transaction.

Decides whether a transfer can be posted; everything else that XenoCorp stores goes through `Books.connection`.
Balances are checked here for a clear refusal, and once more by the database (CHECK constraints).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, insert, select, update

from dht import wire
from xenonode.corp import accounts, schema
from xenonode.corp.accounts import Account, Balance
from xenonode.corp.errors import RefusedError
from xenonode.corp.transfers import Transfer
from xenonode.model.message import INT64_MAX
from xenonode.model.money import format_amount

_ACCOUNT, _TRANSFER, _REPLY = schema.account, schema.transfer, schema.reply
_FIND_ACCOUNT = select(_ACCOUNT).where(_ACCOUNT.c.id == bindparam("wanted"))
_FIND_TRANSFER = select(_TRANSFER).where(_TRANSFER.c.id == bindparam("wanted"))
_FIND_REPLY = select(_REPLY).where(_REPLY.c.id == bindparam("wanted"))
_INSERT_ACCOUNT, _INSERT_TRANSFER, _INSERT_REPLY = insert(_ACCOUNT), insert(_TRANSFER), insert(_REPLY)
_DEBIT = update(_ACCOUNT).where(_ACCOUNT.c.id == bindparam("which")).values(debits_nano=bindparam("sum_nano"))
_CREDIT = update(_ACCOUNT).where(_ACCOUNT.c.id == bindparam("which")).values(credits_nano=bindparam("sum_nano"))


class Books:
    """Read and write the ledger within one transaction; `posted` is what this unit of work added."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.posted: list[Transfer] = []

    def balance(self, account: Account) -> Balance:
        """What was posted to an account; nothing when it was never used."""
        row = self.connection.execute(_FIND_ACCOUNT, {"wanted": account.id}).one_or_none()
        return Balance(account, 0, 0) if row is None else _balance(row)

    def post(self, transfers: Iterable[Transfer]) -> None:
        """Book transfers in order, all or none. One that is booked already is left as it is; raises RefusedError."""
        for transfer in transfers:
            if not self._is_posted(transfer):
                self._post(transfer)

    def _is_posted(self, transfer: Transfer) -> bool:
        row = self.connection.execute(_FIND_TRANSFER, {"wanted": transfer.id}).one_or_none()
        if row is None:
            return False
        same = (row.kind, row.debit, row.credit, row.currency, row.amount_nano, row.reference) == (
            transfer.kind,
            transfer.debit.id,
            transfer.credit.id,
            transfer.currency,
            transfer.amount_nano,
            transfer.reference,
        )
        if not same:
            raise RefusedError("other_body", f"transfer {transfer.id} was booked with other contents", "use a new id")
        return True

    def _post(self, transfer: Transfer) -> None:
        source, target = self._opened(transfer.debit), self._opened(transfer.credit)
        amount, currency = transfer.amount_nano, transfer.currency
        for balance in (source, target):
            if balance.account.currency != currency:
                raise RefusedError("currency", f"{balance.account.id} is no account in {currency}", "use one currency")
        if source.account.kind != accounts.EXTERNAL and amount > source.nano:
            wanted, there = format_amount(amount, currency), format_amount(source.nano, currency)
            raise RefusedError("no_funds", f"{source.account.id} has {there}, not {wanted}", f"use at most {there}")
        if max(source.debits_nano, target.credits_nano) + amount > INT64_MAX:
            raise RefusedError("overflow", "an account cannot count that far", "use a smaller amount")
        self.connection.execute(
            _INSERT_TRANSFER,
            {
                "id": transfer.id,
                "kind": transfer.kind,
                "debit": transfer.debit.id,
                "credit": transfer.credit.id,
                "currency": currency,
                "amount_nano": amount,
                "reference": transfer.reference,
                "posted_ms": transfer.posted_ms,
            },
        )
        self.connection.execute(_DEBIT, {"which": source.account.id, "sum_nano": source.debits_nano + amount})
        self.connection.execute(_CREDIT, {"which": target.account.id, "sum_nano": target.credits_nano + amount})
        self.posted.append(transfer)

    def _opened(self, account: Account) -> Balance:
        row = self.connection.execute(_FIND_ACCOUNT, {"wanted": account.id}).one_or_none()
        if row is not None:
            return _balance(row)
        values = {"id": account.id, "kind": account.kind, "currency": account.currency, "entity": account.entity}
        self.connection.execute(_INSERT_ACCOUNT, {**values, "debits_nano": 0, "credits_nano": 0})
        return Balance(account, 0, 0)

    def balances(self, *, entity: str | None = None) -> Iterator[Balance]:
        """Every account, or those held for one entity, by id."""
        query = select(_ACCOUNT).order_by(_ACCOUNT.c.id)
        if entity is not None:
            query = query.where(_ACCOUNT.c.entity == entity)
        return (_balance(row) for row in self.connection.execute(query))

    def transfers(self, *, touching: str | None = None, newest: int | None = None) -> list[Transfer]:
        """Transfers in the order of booking; of one account, or only the newest, when asked."""
        debit, credit = _ACCOUNT.alias("debited"), _ACCOUNT.alias("credited")
        columns: list[Any] = [_TRANSFER]
        columns += [
            side.c[name].label(f"{side.name}_{name}") for side in (debit, credit) for name in ("kind", "entity")
        ]
        query = select(*columns).where(and_(_TRANSFER.c.debit == debit.c.id, _TRANSFER.c.credit == credit.c.id))
        if touching is not None:
            query = query.where((_TRANSFER.c.debit == touching) | (_TRANSFER.c.credit == touching))
        query = query.order_by(_TRANSFER.c.sequence.desc() if newest else _TRANSFER.c.sequence)
        rows = self.connection.execute(query.limit(newest) if newest else query)
        found = [_transfer(row) for row in rows]
        return found[::-1] if newest else found

    def answered(self, request: str, digest: bytes) -> bytes | None:
        """The stored reply to a request id; None when it is new. Raises RefusedError for an id with another body."""
        row = self.connection.execute(_FIND_REPLY, {"wanted": request}).one_or_none()
        if row is None:
            return None
        if row.digest != digest:
            raise RefusedError("other_body", "this id was used before with other contents", "use a fresh nonce")
        return bytes(row.body)

    def answer(self, request: str, digest: bytes, body: bytes, now_ms: int) -> None:
        """Store the reply to a request id, in the transaction that makes it true."""
        self.connection.execute(_INSERT_REPLY, {"id": request, "digest": digest, "body": body, "made_ms": now_ms})

    def forget_replies(self, before_ms: int) -> None:
        """Drop replies to requests of clients that are refused for their age by now; the operator's credits stay."""
        old = delete(_REPLY).where(_REPLY.c.made_ms < before_ms, _REPLY.c.id.not_like("credit:%"))
        self.connection.execute(old)


def stored_body(raw: bytes) -> dict[str, Any]:
    """The body of an envelope that was verified before it was stored."""
    fields: Any = wire.decode(raw)
    return dict(fields[3])


def _balance(row: Row[Any]) -> Balance:
    return Balance(Account(row.id, row.kind, row.currency, row.entity), row.debits_nano, row.credits_nano)


def _transfer(row: Row[Any]) -> Transfer:
    return Transfer(
        row.id,
        row.kind,
        Account(row.debit, row.debited_kind, row.currency, row.debited_entity),
        Account(row.credit, row.credited_kind, row.currency, row.credited_entity),
        row.amount_nano,
        row.reference,
        row.posted_ms,
    )
