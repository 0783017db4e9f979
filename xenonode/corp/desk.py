"""The desk: what every control method needs, and who may stand at it.

A message is taken from its signer's own connection only, so that nobody replays another's; some methods are the
operator's. Work goes to the store with the time at which it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dht.envelope import Envelope
from dht.identity import Scheme
from xenonode.corp.books import Books
from xenonode.corp.errors import RefusedError
from xenonode.corp.founding import CorpKeys
from xenonode.corp.requests import Body, Caller
from xenonode.corp.store import Store
from xenonode.corp.terms import Terms
from xenonode.model.entity import Network

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Desk:
    """Keys, papers, clock, terms and ledger of one XenoCorp."""

    keys: CorpKeys
    network: Network
    network_raw: bytes
    schema: bytes
    authority_pem: bytes
    store: Store
    scheme: Scheme
    now_ms: Callable[[], int]
    terms: Terms

    async def at_now(self, work: Callable[[Books, int], T]) -> T:
        """Run work on the books as of now; its result once it is durable."""
        now_ms = self.now_ms()
        return await self.store.run(lambda books: work(books, now_ms))

    def operator_only(self, caller: Caller) -> None:
        """Raise RefusedError for everybody but XenoCorp's operator."""
        if caller.public_key != self.keys.operator.public_key:
            raise RefusedError("not_operator", "only XenoCorp's operator may do this", "use the operator's key")

    @property
    def papers(self) -> Body:
        """What a member needs beside its credential."""
        return {"network": self.network_raw, "schema": self.schema, "authority": self.authority_pem}


def proved_key(caller: Caller) -> bytes:
    """The key that the connection proved. Raises RefusedError when it proved none."""
    if caller.public_key is None:
        raise RefusedError(
            "not_identified", "this needs a connection that proves a key", "connect with your certificate"
        )
    return caller.public_key


def same_key(caller: Caller, envelope: Envelope, *, optional: bool = False) -> None:
    """Raise RefusedError unless the connection proved the key that signed (or, if `optional`, proved none)."""
    if optional and caller.public_key is None:
        return
    if proved_key(caller) != envelope.key:
        message = f"the {envelope.type} is signed by another key than the connection's"
        raise RefusedError("not_yours", message, "send it over a connection of your own")


def kept(result: T | RefusedError) -> T:
    """Raise a refusal that had to be stored; give anything else back."""
    if isinstance(result, RefusedError):
        raise result
    return result
