"""The client as a member: its papers, fresh for as long as it runs, and proved connections by them.

Decides when papers are renewed and what a client without any is told. What is registered, and how papers are checked,
is `xenonode.membership`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from dht.errors import RemoteError
from xenonode import membership
from xenonode.config import ClientConfig
from xenonode.control.client import Connection, connect
from xenonode.control.errors import ControlError
from xenonode.control.pool import ConnectionPool
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.home import Home
from xenonode.membership import Membership, corp_away
from xenonode.model.entity import Credential, Registration, Trust
from xenonode.model.errors import ModelError

LOGGER = logging.getLogger("xenonode.client")


class Member:
    """See the module. `on_renewal` is told of a new credential."""

    def __init__(self, config: ClientConfig, env: Env, home: Home, trust: Trust) -> None:
        self._config, self._env, self._home, self._trust = config, env, home, trust
        self._held: Membership | None = None
        self._pool: ConnectionPool | None = None
        self._renew_again_ms = 0
        self.on_renewal: Callable[[bytes], None] = lambda credential: None

    @property
    def held(self) -> Membership:
        """Our checked papers. Raises XenoError where there are none, or they have expired."""
        if self._held is None:
            papers = membership.stored(self._home)
            if papers is None:
                raise XenoError("this client is not registered yet", "run: xenonode register", "not_registered")
            try:
                key, scheme = self._home.signer.public_key, self._env.scheme
                self._accept(membership.check(papers, key, scheme, self._env.now_ms()))
            except RemoteError as error:
                raise XenoError(str(error), "run: xenonode register", "credential") from error
        assert self._held is not None
        return self._held

    async def register(self) -> Credential:
        """Register with XenoCorp, or fetch the grant again."""
        lacking = [name for name in ("legal_name", "country", "email", "proof_reference") if not self._identity(name)]
        if lacking:
            settings = ", ".join(f"owner.{name}" for name in lacking)
            raise XenoError(f"not known yet: {settings}", "write them into the configuration, or use --set", "identity")
        self._accept(await membership.register(self._home, self._env, self._trust, self._registration))
        return self.held.credential

    async def call_corp(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask XenoCorp. Raises ControlError, which says so where it does not answer."""
        network = self._trust.network
        try:
            return await self.call_server(network.corp_key, network.corp_control.pair, method, body)
        except ControlError as error:
            raise corp_away(error, network) from error

    async def call_server(
        self, key: bytes, address: tuple[str, int], method: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        """Ask whoever has this key, at this address. Raises ControlError."""
        pool = await self._stay_member()
        return await pool.call(address, key, method, body)

    async def connect(self, address: tuple[str, int], key: bytes | None) -> Connection:
        """A connection of its own to an address, whoever is there if `key` is None. Raises ControlError."""
        papers = self.held.papers
        transport = self._home.transport(papers.certificate, [papers.authority])
        return await connect(*address, key, transport=transport)

    async def close(self) -> None:
        """Hang up."""
        if self._pool is not None:
            await self._pool.close()

    def _identity(self, name: str) -> str:
        return str(getattr(self._config, name)).strip()

    def _registration(self, network_id: bytes, now_ms: int) -> Registration:
        config = self._config
        try:
            return Registration(
                "client", config.legal_name, config.country, config.email, config.proof_reference, network_id, now_ms
            )
        except ModelError as error:
            raise XenoError(str(error), "correct the [owner] part of the configuration", "identity") from error

    def _accept(self, held: Membership) -> None:
        self._held = held
        self._transport = self._home.transport(held.papers.certificate, [held.papers.authority])
        self._pool = ConnectionPool(self._transport)

    async def _stay_member(self) -> ConnectionPool:
        """Fresh papers once half of their life is over, since an agent may run for weeks; the way to others."""
        held, now_ms = self.held, self._env.now_ms()
        pool = self._pool
        assert pool is not None  # made together with the membership
        if held.half_spent(now_ms) and now_ms >= self._renew_again_ms:
            self._renew_again_ms = now_ms + int(membership.RENEW_CHECK_S * 1000)
            corp = held.network
            call = partial(pool.call, corp.corp_control.pair, corp.corp_key)
            try:
                held = await membership.refresh(self._home, self._env, held, call, self._registration)
            except (ControlError, XenoError) as error:
                LOGGER.warning("the credential could not be renewed, and is tried again: %s", error)
            else:
                self._held = held
                self._home.renew(self._transport, held.papers.certificate)
                self.on_renewal(held.papers.credential)
        return pool
