"""XenoCorp's operator: admits members, credits accounts, audits the ledger, with a key only XenoCorp's folder holds."""

from __future__ import annotations

from typing import Any

from xenonode.control.client import Connection, connect
from xenonode.control.stream import Transport
from xenonode.env import Env
from xenonode.model.entity import Network
from xenonode.model.money import parse_amount


class Operator:
    """A connection to XenoCorp that proves the operator's key."""

    def __init__(self, env: Env, connection: Connection) -> None:
        self._env, self._connection = env, connection

    @classmethod
    async def open(cls, env: Env, network: Network, transport: Transport) -> Operator:
        """Connect. Raises ControlError where XenoCorp does not answer."""
        return cls(env, await connect(*network.corp_control.pair, network.corp_key, transport=transport))

    async def credit(self, entity: str, amount: str) -> int:
        """Put money into a client's account; the new balance in nano-units. Raises ModelError or ControlError."""
        nano, currency = parse_amount(amount)
        nonce = self._env.rng("operator.nonce").randbytes(16)
        body = {"entity": entity, "amount_nano": nano, "currency": currency, "nonce": nonce}
        return int((await self._connection.call("credit", body))["balance_nano"])

    async def waiting(self) -> list[dict[str, Any]]:
        """Who asks to become a member of this public network, the longest first; nobody has checked what they say."""
        found = (await self._connection.call("member.waiting", {}))["applicants"]
        return [{**each, "key": each["key"].hex()} for each in found]

    async def approve(self, key: str) -> dict[str, str]:
        """Admit the applicant whose key begins so: the key, and the entity that it now is."""
        answer = await self._connection.call("member.approve", {"key": key})
        return {"key": answer["key"].hex(), "entity": str(answer["entity"])}

    async def refuse(self, key: str) -> str:
        """Turn the applicant away whose key begins so: the whole key."""
        return str((await self._connection.call("member.refuse", {"key": key}))["key"].hex())

    async def schema(self) -> dict[str, Any]:
        """The dimensions of the network, each with the epoch of its trie."""
        return await self._connection.call("schema.show", {})

    async def add_dimension(self, name: str, search_in_ms: int | None = None) -> dict[str, Any]:
        """Let the schema grow by an attribute; searches read its trie after three lives of an advert, or as told."""
        body: dict[str, Any] = {"name": name}
        if search_in_ms is not None:
            body["search_in_ms"] = search_in_ms
        return await self._connection.call("schema.extend", body)

    async def audit(self) -> dict[str, Any]:
        """What the ledger's own check finds."""
        return await self._connection.call("ledger.audit", {})

    async def close(self) -> None:
        """Hang up."""
        await self._connection.close()
