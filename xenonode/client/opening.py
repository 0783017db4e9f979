"""How a client's session begins: money set aside, an agreement that both sign, and no money left behind if it fails.

Decides what to reserve, how often an agreement is sent, and what to say of a session that never ran. A server that
refuses returns the reservation by itself; of one that never answered, the client asks for it back later. So it does
with what was reserved by a process that ended before it could keep the answer: the same request, sent again, gives the
same reservation, and the server that it names gives it up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from dht.envelope import Envelope
from dht.errors import RemoteError
from dht.identity import Signer
from xenonode.client.records import Records, Reserving, SessionRecord
from xenonode.control.errors import ControlError
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.model.entity import Address, Trust
from xenonode.model.money import Reservation, ReservationRequest, format_amount
from xenonode.model.resources import rate_nano_per_hour
from xenonode.model.session import Quote
from xenonode.server.ports import LATER

LOGGER = logging.getLogger("xenonode.client")
POLL_S = 0.25
TRIES = 3
"""How often an agreement is sent to a server that does not answer; the same one again is harmless."""
RETURN_TIMEOUT_S = 3.0
"""A server that refuses hands the reservation back at once; longer than this means that XenoCorp is away."""
GROWTH_PERMILLE = 2_000
"""The rate that is reserved, so that a session can be resized up to twice its size without a new agreement."""
HOUR_MS = 3_600_000

CallCorp = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
CallServer = Callable[[bytes, tuple[str, int], str, dict[str, Any]], Awaitable[dict[str, Any]]]
Progress = Callable[[str], None]


class Opening:
    """See the module. `call_corp` and `call_server` carry methods over proved connections."""

    def __init__(
        self, signer: Signer, env: Env, trust: Trust, records: Records, call_corp: CallCorp, call_server: CallServer
    ) -> None:
        self._signer, self._env, self._trust, self._records = signer, env, trust, records
        self._call_corp, self._call_server = call_corp, call_server

    async def wanted(self, order: bytes, quote: Quote, server: bytes, lease_ms: int) -> Envelope:
        """The signed request to set aside what the session may cost at most. Raises XenoError."""
        state = await self._call_corp("order.show", {"order": order})
        currency = str(state["currency"])
        if currency != quote.prices.currency:
            message = f"the order is in {currency}, the server's prices are in {quote.prices.currency}"
            raise XenoError(message, "create an order in that currency", "currency")
        rate = rate_nano_per_hour(quote.resources, quote.prices) * GROWTH_PERMILLE // 1000
        needed = max(1, -(-rate * lease_ms // HOUR_MS))
        free = int(state["free_nano"])
        if needed > free:
            fits_min = free * HOUR_MS // max(1, rate) // 60_000
            shorter = f"a lease of at most {fits_min} min, " if fits_min else ""
            raise XenoError(
                f"a session of this size and length could cost up to {format_amount(needed, currency)} "
                f"(resized to twice its size); the order has {format_amount(free, currency)} free",
                f"take {shorter}a smaller session, or a larger order",
                "order_too_small",
            )
        nonce = self._env.rng("client.nonce").randbytes(16)
        return ReservationRequest(nonce, order, server, needed, rate, lease_ms, self._env.now_ms()).seal(self._signer)

    async def reserve(self, request: bytes) -> tuple[Reservation, Envelope]:
        """XenoCorp's reservation for this request, and again the same for the same. Raises ControlError."""
        raw = (await self._call_corp("reserve", {"request": request}))["reservation"]
        reservation, envelope = Reservation.open(raw, self._trust.scheme)
        self._trust.issued(envelope, self._env.now_ms())
        return reservation, envelope

    async def recover(self) -> None:
        """Have given back what processes reserved that ended before they had the answer; where that is not possible
        now, the next time."""
        with self._records.abandoned() as abandoned:
            for noted, forget in abandoned:
                try:
                    if await self._gave_back(noted):
                        forget()
                except (ControlError, XenoError, RemoteError, TimeoutError) as error:
                    LOGGER.warning("what was reserved for a session that never began is asked for later: %s", error)

    async def _gave_back(self, noted: Reserving) -> bool:
        """Whether nothing of this reservation is open any more, or a session has it."""
        try:
            reservation, envelope = await self.reserve(noted.request)
        except ControlError as error:
            if error.code in LATER:
                raise
            return True  # refused: it was never made, or its order has ended since
        ours = self._records.sessions()
        if any(each.agreement(self._trust.scheme).reservation == envelope.id for each in ours):
            return True
        if self._env.now_ms() > reservation.lease_until_ms + reservation.claim_grace_ms:
            return True  # XenoCorp has ended it by itself
        async with asyncio.timeout(RETURN_TIMEOUT_S):
            body = {"reservation": envelope.raw}
            await self._call_server(reservation.server, noted.control.pair, "session.withdraw", body)
        amount = format_amount(reservation.amount_nano, reservation.currency)
        LOGGER.info("%s that was reserved for a session that never began returns to its order", amount)
        return True

    async def agree(self, record: SessionRecord, quote_raw: bytes, progress: Progress) -> dict[str, Any]:
        """The server's answer to the agreement; a refused one leaves nothing open."""
        body = {"agreement": record.client_agreement, "reservation": record.reservation, "quote": quote_raw}
        for left in reversed(range(TRIES)):
            try:
                return await self._ask(record, "session.create", body)
            except ControlError as error:
                if error.code not in LATER:
                    money = await self.ended_unused(record)
                    next_step = error.next_step or "take another server"
                    raise XenoError(f"the server refused: {error.message}; {money}", next_step, error.code) from error
                if not left:
                    id = record.id.hex()[:12]
                    raise XenoError(
                        f"the server does not answer ({error.message}); whether session {id} begins is not known yet",
                        f"see 'xenonode session show {id}'; if it never began, that gives its money back",
                        "unknown",
                    ) from error
                progress("the server does not answer; asking again")
                await asyncio.sleep(POLL_S)
        raise AssertionError("the last try returns or raises")

    async def decline(self, server: bytes, control: Address, quote_raw: bytes) -> None:
        """Let a server know that a quote will not be used, so that it holds nothing for it; it runs out anyway."""
        try:
            async with asyncio.timeout(RETURN_TIMEOUT_S):
                await self._call_server(server, control.pair, "quote.decline", {"quote": quote_raw})
        except (ControlError, XenoError, TimeoutError) as error:
            LOGGER.info("a quote was not declined, and runs out by itself: %s", error)

    async def never_began(self, record: SessionRecord) -> XenoError:
        """What to say of a session that its server does not know; one that never began is withdrawn."""
        if not record.reservation:
            self._records.change(record.id, lambda now: replace(now, closed=True))
            message = f"session {record.id.hex()[:12]} ended long ago, and its server has forgotten it"
            return XenoError(message, "see 'xenonode statement' for what it cost", "unknown_session")
        await self._ask(record, "session.withdraw", {"reservation": record.reservation})
        money = await self.ended_unused(record)
        message = f"session {record.id.hex()[:12]} never began; {money}"
        return XenoError(message, "take another server, or try again", "unknown_session")

    async def ended_unused(self, record: SessionRecord) -> str:
        """Close a session of which nothing was used; where its money is now."""
        self._records.change(record.id, lambda now: replace(now, closed=True, reservation=b""))
        reservation = record.agreement(self._trust.scheme).reservation
        later = "what was reserved returns to the order as soon as the server reaches XenoCorp"
        try:
            async with asyncio.timeout(RETURN_TIMEOUT_S):
                while True:
                    state = await self._call_corp("order.show", {"order": record.order})
                    ours = [each for each in state["reservations"] if each["reservation"] == reservation]
                    if ours and ours[0]["status"] != "live":
                        amount = format_amount(int(ours[0]["amount_nano"]), str(state["currency"]))
                        return f"the {amount} reserved for it are back in the order"
                    await asyncio.sleep(POLL_S)
        except (TimeoutError, ControlError, XenoError):
            return later

    async def _ask(self, record: SessionRecord, method: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._call_server(record.server, record.control.pair, method, body)
