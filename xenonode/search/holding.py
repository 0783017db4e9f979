"""Holding the trie nodes of one dimension: carries messages between an overlay and a `summaries.holder.Holder`.

Decides nothing: the holder does. No task is made for a message; only a lookup of new holders gets one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from dht import wire
from dht.contact import Contact
from dht.errors import DhtError, WireError
from dht.overlay import Overlay
from dht.reply import Reply as WireReply
from summaries.asks import REPLICAS
from summaries.errors import MessageError
from summaries.forms import from_fields, to_fields
from summaries.holder import Action, Holder, Push, Reply
from summaries.messages import Accepted, Message, Pull, Refused, Salted
from summaries.trie import ROOT
from xenonode.env import Env
from xenonode.search.kinds import TRIE
from xenonode.search.placement import Placement

TICK_S = 1.0
RETIRE_S, RETIRE_LOOK_S = 5.0, 0.05
"""Two hard time-outs: who is not told by then names a node that holds nothing for 90 s more, and readers find out."""
LOGGER = logging.getLogger("xenonode.search")


def monotonic_ms() -> int:
    """The running loop's time: what is timed by it does not go wrong when a wall clock is set."""
    return int(asyncio.get_running_loop().time() * 1_000)


class TrieHolding:
    """One node's part in one dimension's trie.

    Where the dimension has several tries (salting.py), this is the part in the first, and `salted` has the others: one
    overlay carries the questions to all.
    """

    # __dict__ is made only where it is used: a simulated liar puts a method of its own in another's place.
    __slots__ = (
        "__dict__", "_env", "_holder", "_make", "_overlay", "_placement", "_salt", "_stopped", "_timer", "_told",
        "salted",
    )  # fmt: skip

    def __init__(
        self, overlay: Overlay, make: Callable[[Overlay, Placement, int], Holder], placement: Placement, env: Env,
        tries: int = 1, salt: int = 0,
    ) -> None:  # fmt: skip
        self._make = make
        self._holder: Holder | None = None
        self._overlay, self._placement, self._env = overlay, placement, env
        self._timer: asyncio.TimerHandle | None = None
        self._stopped, self._salt = False, salt
        self._told: dict[Contact, None] | None = None
        self.salted = tuple(TrieHolding(overlay, make, placement, env, salt=other) for other in range(1, tries))
        if not salt:
            overlay.handle(TRIE, self._asked)

    @property
    def holder(self) -> Holder:
        """The holder; it is made when it is first needed, since of many nodes few are near any prefix."""
        if self._holder is None:
            self._holder = self._make(self._overlay, self._placement, self._salt)
        return self._holder

    def of(self, salt: int) -> TrieHolding:
        """The part in the dimension's trie of this number."""
        return self.salted[salt - 1] if salt else self

    def wake(self) -> None:
        """Begin to tick, if there is anything to do it with; called when something may have come in."""
        if self._timer is None and not self._stopped and not self.holder.is_empty:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """Stop; what is held is soft state, and others hold it too."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for other in self.salted:
            other.stop()

    def settle_up(self) -> None:
        """Before the overlay is left: begin nothing any more, and note whom something is still said to."""
        self.stop()
        self._told = {}
        for other in self.salted:
            other._told = self._told

    async def retire(self, placement: Placement) -> list[Contact]:
        """Hold nothing any more, and say so to those who name this node to readers; whom that was said to.

        The overlay is left by now, so `placement` is another one's of the same dimension.
        """
        ends_s = asyncio.get_running_loop().time() + RETIRE_S
        for one in (self, *self.salted):
            one._placement = placement
            one._perform(one.holder.retire(monotonic_ms()))
        while asyncio.get_running_loop().time() < ends_s:
            if not any(one.holder.statistics()["pushes"] for one in (self, *self.salted)):
                break
            await asyncio.sleep(RETIRE_LOOK_S)
        return list(self._told or ())

    def _tick(self) -> None:
        """Expire, tighten and retry, once a second while there is anything to do it with."""
        self._timer = None
        self._perform(self.holder.tick(monotonic_ms()))
        self.wake()

    def _asked(self, contact: Contact, body: bytes, reply: WireReply) -> None:
        try:
            question = from_fields(wire.unpack(body))
        except (WireError, MessageError) as error:
            reply(wire.pack(to_fields(Refused(str(error)[:200]))))
            return
        holding = self
        if isinstance(question, Salted):
            if question.salt > len(self.salted):
                reply(wire.pack(to_fields(Refused("this dimension has not so many tries"))))
                return
            holding, question = self.of(question.salt), question.question
        holding.take(question, contact, reply)

    def take(self, question: Message, contact: Contact, reply: WireReply) -> None:
        """Answer a question to this trie."""
        self._perform(self.holder.received(question, contact.packed, reply, monotonic_ms()))
        self.wake()

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Reply):
                assert isinstance(action.request, WireReply)
                action.request(wire.pack(to_fields(action.message)))
            else:
                self._push(action)

    def _push(self, push: Push) -> None:
        if push.to is not None:
            self._ask(push, [Contact.unpack(push.to)])
            return
        holders = self._placement.remembered(push.prefix, self._key(push))
        if holders is not None:
            self._ask(push, self._with_former(push, holders))
        else:
            self._env.spawn(self._locate(push), f"holders of {self._overlay.dimension} {push.prefix}")

    async def _locate(self, push: Push) -> None:
        self._ask(push, self._with_former(push, await self._placement.find(push.prefix, self._key(push))))

    def _with_former(self, push: Push, holders: list[Contact]) -> list[Contact]:
        """Who may have been holders of a root before several came that are nearer are asked for what was there."""
        if not isinstance(push.message, Pull) or push.prefix != ROOT:
            return holders
        if self._placement.rank(ROOT, self._salt) >= REPLICAS:
            return holders
        return list(dict.fromkeys(holders + self._placement.near(ROOT, self._salt)))

    def _ask(self, push: Push, holders: Sequence[Contact]) -> None:
        if not holders:
            self._answered(push, 1, b"", None)
        message = Salted(self._salt, push.message) if self._salt else push.message  # type: ignore[arg-type]
        body = wire.pack(to_fields(message))
        for contact in holders:
            if contact.packed in push.have:
                has = partial(self._answered, push, len(holders), contact.packed, Accepted())
                asyncio.get_running_loop().call_soon(has)
                continue
            if self._told is not None:
                self._told[contact] = None
            try:
                self._overlay.ask_then(contact, TRIE, body, partial(self._heard, push, len(holders), contact))
            except DhtError as error:
                LOGGER.info("could not ask %s: %s", contact.address, error)
                self._answered(push, len(holders), contact.packed, None)

    def _heard(self, push: Push, asked: int, contact: Contact, answer: bytes | None, error: DhtError | None) -> None:
        message: Message | None = None
        if answer is None:
            self._placement.forget(push.prefix, self._key(push))
        else:
            try:
                message = from_fields(wire.unpack(answer))
            except (WireError, MessageError) as bad:
                LOGGER.info("nonsense from %s: %s", contact.address, bad)
        if isinstance(message, Refused) and push.prefix == ROOT:
            self._placement.forget(push.prefix, self._key(push))  # others are nearer, perhaps
        self._answered(push, asked, contact.packed, message)

    def _key(self, push: Push) -> int:
        """Which of the prefix's keys its holders are nearest to."""
        return self._salt or push.group

    def _answered(self, push: Push, asked: int, sender: bytes, message: Message | None) -> None:
        self._perform(self.holder.answered(push.token, asked, sender, message, monotonic_ms()))
