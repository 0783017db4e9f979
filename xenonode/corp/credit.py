"""Crediting a client's account: how money comes into the platform, at the operator's word."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dht import wire
from xenonode.corp import accounts, members, transfers
from xenonode.corp.books import Books
from xenonode.corp.errors import RefusedError
from xenonode.model.message import INT64_MAX, require
from xenonode.model.money import ID_BYTES, format_amount
from xenonode.model.resources import CURRENCIES


@dataclass(frozen=True, slots=True)
class Credit:
    """One credit; its nonce makes a repeat harmless."""

    entity: str
    amount_nano: int
    currency: str
    nonce: bytes

    def __post_init__(self) -> None:
        require(0 < self.amount_nano <= INT64_MAX, f"an amount must be in 1..{INT64_MAX} nano-units")
        require(self.currency in CURRENCIES, f"currency {self.currency!r} is not one of {', '.join(CURRENCIES)}")
        require(len(self.nonce) == ID_BYTES, "nonce must have 16 bytes")

    def book(self, books: Books, limit_nano: int, now_ms: int) -> int:
        """Book it once; the balance right after. Raises RefusedError."""
        request = f"credit:{self.nonce.hex()}"
        digest = hashlib.sha256(wire.encode([self.entity, self.amount_nano, self.currency])).digest()
        stored = books.answered(request, digest)
        if stored is not None:
            return int.from_bytes(stored, "big")
        if not members.exists(books, self.entity, "client"):
            raise RefusedError("unknown_entity", f"no client is called {self.entity}", "see 'xenonode status' there")
        balance = books.balance(accounts.client(self.entity, self.currency)).nano + self.amount_nano
        if balance > limit_nano:
            most = format_amount(limit_nano, self.currency)
            raise RefusedError("too_much", f"an account may hold at most {most}", "credit less")
        books.post([transfers.credited(self.entity, self.currency, self.amount_nano, request, now_ms)])
        books.answer(request, digest, balance.to_bytes(8, "big"), now_ms)
        return balance
