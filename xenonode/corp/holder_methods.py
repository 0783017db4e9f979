"""Control methods about holders: what servers saw of them, and whom all members shun.

Servers tell once a period; what they tell is judged by `court`, in memory. The answer to both methods is the list of
those who are shunned now, each by its key and the issuer's nonce, from which its places in all overlays follow.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial

from xenonode.corp.books import Books
from xenonode.corp.court import Court
from xenonode.corp.desk import Desk, proved_key
from xenonode.corp.errors import RefusedError
from xenonode.corp.members import find, need
from xenonode.corp.requests import Body, Caller, Method, words

SEEN_MAX = 256
"""Holders in one report: three for each of the few levels of a trie are usual."""
Shun = Callable[[Sequence[tuple[bytes, bytes]]], None]
Dimensions = Callable[[], Container[str]]


class HolderMethods:
    """Answers for the court. `shun` is called where the list has changed; `dimensions` are those that the schema has.

    In a dimension that they invented liars would be the only ones who speak.
    """

    def __init__(self, desk: Desk, shun: Shun, dimensions: Dimensions) -> None:
        self._desk, self._shun, self._dimensions = desk, shun, dimensions
        self.court = Court()
        self._shunned: list[bytes] = []
        self._members: list[tuple[bytes, bytes]] = []

    @property
    def methods(self) -> Mapping[str, Method]:
        """Each method by name."""
        return {"holders.testify": self._testify, "holders.shunned": self._list}

    async def _testify(self, caller: Caller, body: Body) -> Body:
        key, dimension, seen = proved_key(caller), words(body, "dimension"), body.get("seen")
        if not isinstance(seen, list) or len(seen) > SEEN_MAX:
            raise RefusedError("bad_request", f"the request needs seen, a list of at most {SEEN_MAX}", "send it")
        if dimension not in self._dimensions():
            raise RefusedError("no_dimension", "the schema has no dimension of this name", "name one that it has")
        told: dict[bytes, bool] = {}
        for one in seen:
            match one:
                case [bytes(holder), bool(shows)] if len(holder) == len(key) and holder != key:
                    told[holder] = shows
                case _:
                    raise RefusedError("bad_request", "seen has pairs of a key and whether it shows", "send those")
        entity = await self._desk.store.run(partial(_server, key))
        self.court.testify(entity, dimension, told, self._desk.now_ms())
        return await self._answer()

    async def _list(self, caller: Caller, body: Body) -> Body:
        proved_key(caller)
        return await self._answer()

    async def _answer(self) -> Body:
        shunned = self.court.shunned(self._desk.now_ms())
        if shunned != self._shunned:
            self._members = await self._desk.store.run(partial(_nonces, shunned))
            self._shunned = shunned
            self._shun(self._members)
        return {"shunned": [[key, nonce] for key, nonce in self._members]}


def _server(key: bytes, books: Books) -> str:
    return need(books, key, "server").entity


def _nonces(keys: Sequence[bytes], books: Books) -> list[tuple[bytes, bytes]]:
    found = (find(books, key) for key in keys)
    return [(member.key, member.issuer_nonce) for member in found if member is not None and member.role == "server"]
