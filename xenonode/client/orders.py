"""A client's money: purchase orders, and the account as XenoCorp signs it.

Decides nothing about money, which is XenoCorp's; signs what the client commits, and lets ids be shortened.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from dht.identity import Signer
from xenonode.client.opening import CallCorp
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.model.entity import Trust
from xenonode.model.errors import ModelError
from xenonode.model.money import ID_BYTES, OrderRelease, PurchaseOrder, Statement, parse_amount
from xenonode.model.resources import Prices

ORDER_LIFE_MS = 86_400_000


class Orders:
    """See the module. `recover` has given back what a killed process left reserved, before orders are looked at."""

    def __init__(
        self, signer: Signer, env: Env, trust: Trust, call_corp: CallCorp, recover: Callable[[], Awaitable[None]]
    ) -> None:
        self._signer, self._env, self._trust = signer, env, trust
        self._call_corp, self._recover = call_corp, recover

    def sign(
        self,
        amount: str,
        *,
        expires_in_ms: int = ORDER_LIFE_MS,
        allowed_servers: tuple[bytes, ...] = (),
        price_caps: Prices | None = None,
        rate_cap: int | None = None,
        server_cap: int | None = None,
        sessions_max: int = 8,
    ) -> bytes:
        """Sign a commitment of money to sessions, for `place`. Raises XenoError."""
        now_ms = self._env.now_ms()
        try:
            nano, currency = parse_amount(amount)
            nonce = self._env.rng("client.nonce").randbytes(16)
            order = PurchaseOrder(
                nonce, nano, currency, now_ms, now_ms + expires_in_ms, allowed_servers, price_caps, rate_cap,
                server_cap, sessions_max,
            )  # fmt: skip
        except ModelError as error:
            raise XenoError(str(error), "write an amount and its currency, e.g. '5 USD'", "bad_order") from error
        return order.seal(self._signer).raw

    async def place(self, order: bytes) -> dict[str, Any]:
        """XenoCorp checks the credit and ring-fences it. The order's state; a repeat makes no second order."""
        return _state(await self._call_corp("order.create", {"order": order}))

    async def show(self, order: str) -> dict[str, Any]:
        """What became of an order's money."""
        await self._recover()
        return _state(await self._call_corp("order.show", {"order": await self.id_of(order)}))

    async def list_all(self) -> list[dict[str, Any]]:
        """This client's orders, the newest first."""
        await self._recover()
        return [_state(each) for each in (await self._call_corp("order.list", {}))["orders"]]

    async def release(self, order: str) -> dict[str, Any]:
        """End an order: what no session holds comes back at once."""
        await self._recover()
        release = OrderRelease(await self.id_of(order), self._env.now_ms()).seal(self._signer)
        return _state(await self._call_corp("order.release", {"release": release.raw}))

    async def statement(self, currency: str) -> Statement:
        """This client's account, as XenoCorp signs it."""
        raw = (await self._call_corp("statement", {"currency": currency}))["statement"]
        found, envelope = Statement.open(raw, self._trust.scheme)
        self._trust.issued(envelope, self._env.now_ms())
        return found

    async def id_of(self, text: str) -> bytes:
        """An order by its whole id, or by its first digits. Raises XenoError."""
        wanted = text.strip().lower()
        if len(wanted) == 2 * ID_BYTES and all(letter in "0123456789abcdef" for letter in wanted):
            return bytes.fromhex(wanted)
        ids = [str(each["order"]) for each in await self.list_all()]
        found = [id for id in ids if wanted and id.startswith(wanted)]
        if len(found) != 1:
            message = f"{len(found) or 'no'} orders begin with {text!r}"
            raise XenoError(message, "see yours with 'xenonode order list'", "unknown_order")
        return bytes.fromhex(found[0])


def _state(answer: dict[str, Any]) -> dict[str, Any]:
    """An order's state with ids as text, for people and JSON."""
    reservations = [
        {name: value.hex() if isinstance(value, bytes) else value for name, value in each.items()}
        for each in answer.get("reservations", [])
    ]
    plain = {name: value for name, value in answer.items() if name != "raw"}
    return {**plain, "order": answer["order"].hex(), "reservations": reservations}
