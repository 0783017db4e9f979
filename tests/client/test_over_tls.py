"""A whole session over mutual TLS on loopback: client, server and XenoCorp each behind their own certificates."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from dht.identity import Signer
from xenonode.control.pool import ConnectionPool
from xenonode.control.server import serve
from xenonode.server.service import ANONYMOUS

from ..corp.test_over_tls import TlsWorld
from ..corp.world import seed
from .world import World


class LiveCorp(TlsWorld):
    """XenoCorp at the real time, which TLS checks."""

    @property
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    @now_ms.setter
    def now_ms(self, value: int) -> None:
        """The real time cannot be set."""

    async def papers(self, name: str, signer: Signer) -> Any:
        """A member's end of a connection."""
        grant = await self.ask(signer, "renew")
        return self.transport(seed(name), grant["certificate"], grant["authority"])


def test_a_whole_session_over_tls_agrees_to_the_last_nano_unit() -> None:
    async def scenario() -> None:
        corp = LiveCorp()
        world = World(corp, receipt_period_ms=1_000)
        own = await corp.service.enrol(corp.keys.node.public_key)
        papers = corp.transport(seed("wcorp.node"), own.certificate, (await corp.ask(None, "info"))["authority"])
        at_corp = await serve("127.0.0.1", 0, corp.service.handlers, transport=papers, anonymous=("info",))
        server_papers = await corp.papers("bob", world.server)
        server_pool = ConnectionPool(server_papers)
        client_pool = ConnectionPool(await corp.papers("alice", world.client))
        to_corp = partial(server_pool.call, at_corp.address, corp.keys.node.public_key)
        await world.boot(call_corp=to_corp)
        at_server = await serve("127.0.0.1", 0, world.handlers, transport=server_papers, anonymous=ANONYMOUS)

        async def to_server(key: bytes, address: tuple[str, int], method: str, body: dict[str, Any]) -> dict[str, Any]:
            return await client_pool.call(at_server.address, key, method, body)

        sessions = world.client_of(
            call_corp=partial(client_pool.call, at_corp.address, corp.keys.node.public_key), call_server=to_server
        )
        try:
            view = await world.begin(sessions, quoted=await world.quote(call=to_server))
            assert view.state == "running"
            signing = asyncio.create_task(sessions.cosign(view.session))
            await asyncio.sleep(3)
            ended = await sessions.end(view.session)
            await signing
            assert ended.closed and 0 < ended.due_nano == ended.settled_nano == world.state()["captured_nano"]
            settlement = (await sessions.settlements(view.session))[-1]
            assert settlement.final and settlement.cumulative_nano == ended.due_nano
            assert world.balance(world.client) == 100 * 10**9 - ended.due_nano
            assert corp.audit()["balanced"]
        finally:
            await world.manager.close()
            for pool in (client_pool, server_pool):
                await pool.close()
            for at in (at_server, at_corp):
                await at.close()

    asyncio.run(scenario())
