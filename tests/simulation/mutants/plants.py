"""Bugs, each put in the place of one function of the platform. Run as a program: one seed with one of them.

    python -m tests.simulation.mutants.plants SEED SIZE NAME
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from dht.envelope import open_envelope
from scripts.seeds.one import outcome_of
from summaries.climbing import Climbing
from summaries.handing import Handing
from summaries.holder_state import HolderState
from summaries.messages import Accepted, Offer
from summaries.node import TrieNode
from summaries.point import Point
from xenonode.corp.books import Books
from xenonode.corp.transfers import CAPTURE, Transfer
from xenonode.model.advert import Advert, VerifiedAdvert
from xenonode.model.entity import Credential
from xenonode.search.adverts import Adverts
from xenonode.search.searching import SearchAnswer, Searcher


def lost_acknowledgement() -> None:
    """Holders in one of the tries keep what they are told and forget to say so."""
    reply = HolderState.reply
    settle = Climbing.settle

    def settled(self: Climbing, node: TrieNode, now_ms: int) -> None:
        def forgetful(state: HolderState, request: object, message: Any) -> None:
            if state.dimension != "cores" or not isinstance(message, Accepted):
                reply(state, request, message)

        HolderState.reply = forgetful  # type: ignore[method-assign]
        try:
            settle(self, node, now_ms)
        finally:
            HolderState.reply = reply  # type: ignore[method-assign]

    Climbing.settle = settled  # type: ignore[method-assign]


def double_capture() -> None:
    """A settled claim is booked once more, under another id."""
    post = Books.post

    def posted(self: Books, transfers: Iterable[Transfer]) -> None:
        for transfer in transfers:
            post(self, [transfer])
            if transfer.kind == CAPTURE:
                post(self, [replace(transfer, id=transfer.id[::-1])])

    Books.post = posted  # type: ignore[method-assign]


def narrow_zone() -> None:
    """A rebuilt zone forgets its highest bins."""
    rebuild = TrieNode.rebuild

    def rebuilt(self: TrieNode, now_ms: int, wall_ms: int) -> None:
        rebuild(self, now_ms, wall_ms)
        if self.zone.count > 1:
            self.zone = replace(self.zone, highs=self.zone.lows)

    TrieNode.rebuild = rebuilt  # type: ignore[method-assign]


def unverified_advert() -> None:
    """An advert whose signature is wrong is taken for what it says."""
    verify = Adverts.verify

    def trusting(self: Adverts, raw: bytes, now_ms: int) -> tuple[VerifiedAdvert, Point]:
        scheme = self._trust.scheme

        class Gullible:
            def __getattr__(self, name: str) -> Any:
                return getattr(scheme, name)

            def verify(self, *proof: Any) -> bool:
                return True

        try:
            return verify(self, raw, now_ms)
        except Exception:
            envelope = open_envelope(raw, Gullible(), max_bytes=Advert.MAX_BYTES)  # type: ignore[arg-type]
            advert = Advert.from_fields(envelope.body)
            credential, _ = Credential.open(advert.credential, scheme)
            verified = VerifiedAdvert(advert, credential, envelope)
            return verified, self._point(verified)

    Adverts.verify = trusting  # type: ignore[method-assign]


def leaked_entry() -> None:
    """Rows whose offer is over stay noted as under way."""
    free = Handing.free

    def freed(self: Handing, pending: Any) -> None:
        if isinstance(pending.message, Offer):
            self._offering -= 1
        else:
            free(self, pending)

    Handing.free = freed  # type: ignore[method-assign]


def server_twice() -> None:
    """Answers name one of the servers twice."""
    search = Searcher.search

    async def searched(self: Searcher, *query: Any, **how: Any) -> SearchAnswer:
        answer = await search(self, *query, **how)
        return replace(answer, servers=(*answer.servers, *answer.servers[:1]))

    Searcher.search = searched  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    "lost_acknowledgement": lost_acknowledgement,
    "double_capture": double_capture,
    "narrow_zone": narrow_zone,
    "unverified_advert": unverified_advert,
    "leaked_entry": leaked_entry,
    "server_twice": server_twice,
}

if __name__ == "__main__":
    PLANTS[sys.argv[3]]()
    print(outcome_of(int(sys.argv[1]), sys.argv[2]).text)
