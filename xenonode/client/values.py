"""A client's way to values under writers' names: its own to 64 KiB, and everybody's."""

from __future__ import annotations

from functools import partial

from xenonode.client.member import Member
from xenonode.client.presence import Presence
from xenonode.client.records import Records
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.model.entity import Address, Trust
from xenonode.store import values

KEY_DIGITS = 64


class Values:
    """See the module."""

    def __init__(
        self, env: Env, trust: Trust, own_key: bytes, records: Records, presence: Presence, member: Member
    ) -> None:
        self._env, self._trust, self._own_key = env, trust, own_key
        self._records, self._presence, self._member = records, presence, member

    async def put(self, name: str, value: bytes, life_ms: int) -> int:
        """Publish our value of this name, of up to 64 KiB; how many nodes hold it. Raises XenoError."""
        values.check(name, value, life_ms, is_server=False)
        peer = await self._presence.joined()
        placement = await peer.placement(values.dimension(peer.schema))
        return await values.publish(placement.overlay, name, value, now_ms=self._env.now_ms(), life_ms=life_ms)

    async def get(self, owner: str, name: str) -> bytes:
        """The value of this name that a writer published, whole and checked. Raises XenoError, or ControlError."""
        key = self.key_of(owner)
        peer = await self._presence.joined()
        placement = await peer.placement(values.dimension(peer.schema))

        def call(control: Address) -> values.Call:
            return partial(self._member.call_server, key, control.pair)

        return await values.read(placement.overlay, key, name, self._trust.network.profile, call)

    def key_of(self, owner: str) -> bytes:
        """A writer's key: 64 digits, the first digits of a server's that was found, or 'me'. Raises XenoError."""
        if owner == "me":
            return self._own_key
        if len(owner) == KEY_DIGITS:
            try:
                return bytes.fromhex(owner)
            except ValueError:
                raise XenoError(f"{owner!r} is no key", "a key is 64 hex digits", "bad_request") from None
        return self._records.found(owner)[0]
