"""A client's credential lets its holder ask, and nobody serves by it, whatever it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dht.contact import Contact, pack_contacts
from dht.errors import JoinError, LocalError, PeerIdentityError
from dht.handshake import Member
from dht.record import seal_record
from dht.walk import FIND

Run = Callable[[Any], None]
KEY = bytes(20)


async def impostor(world: Any) -> Any:
    """A node with a client's credential that was altered to take part like a server."""
    signer = world.signer()

    def gullible(raw: bytes, now_ms: int) -> Member:
        return replace(world.member_check(raw, now_ms), serves=True)

    return await world.open(
        signer=signer, credential=world.credential_for(signer, role="client"), member_check=gullible
    )


def test_an_endpoint_refuses_to_serve_by_a_clients_credential(run: Run) -> None:
    async def scenario(world: Any) -> None:
        signer = world.signer()
        credential = world.credential_for(signer, role="client")
        with pytest.raises(LocalError, match="open the endpoint as a client"):
            await world.open(signer=signer, credential=credential)
        assert (await world.open(signer=signer, credential=credential, client=True)).is_client

    run(scenario)


def test_nobody_takes_in_a_client_that_says_it_serves(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(8, ["cpu"])
        posing = await impostor(world)
        await posing.overlay("cpu").join([nodes[0].address])
        own_id = posing.overlay("cpu").node_id
        for node in nodes:
            await posing.ping(node.address)
            await node.ping(posing.address)
            assert node.peer(posing.address).is_client
            assert own_id not in node.overlay("cpu").table.by_id
        # It is heard as a client is: what it asks is answered.
        assert len(await posing.overlay("cpu").find(own_id)) == 9

    run(scenario)


def test_a_client_that_is_named_as_a_server_is_neither_found_nor_given_records(run: Run) -> None:
    async def scenario(world: Any) -> None:
        nodes = await world.grow(8, ["cpu"])
        posing = await impostor(world)
        await posing.overlay("cpu").join([nodes[0].address])
        named = posing.overlay("cpu").contact
        for node in nodes[:4]:  # accomplices, whose own credentials are a server's
            overlay = node.overlay("cpu")
            honest = overlay.requested

            def requested(
                peer: Any, kind: int, body: bytes, reply: Any, honest: Any = honest, node: Any = node
            ) -> None:
                if kind == FIND:
                    reply(node.vitals() + pack_contacts([named]))
                else:
                    honest(peer, kind, body, reply)

            overlay.requested = requested
        asker = nodes[7].overlay("cpu")
        assert named.node_id not in {contact.node_id for contact in await asker.find(named.node_id)}
        expires_ms = world.wall_ms() + 60_000
        raw = seal_record(nodes[7].signer, "cpu", named.node_id, 1, expires_ms, b"value")
        assert await asker.records.put(named.node_id, raw, expires_ms, republish=False)
        assert not len(posing.overlay("cpu").records.shelf)
        with pytest.raises(PeerIdentityError, match="clients serve nothing"):
            await asker.ask(Contact(named.node_id, posing.address), 1, b"")

    run(scenario)


def test_a_client_is_no_seed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: Any) -> None:
        monkeypatch.setattr("dht.joining.JOIN_ATTEMPTS", 1)
        posing, node = await impostor(world), await world.open()
        with pytest.raises(JoinError, match="clients serve nothing"):
            await node.overlay("cpu").join([posing.address])

    run(scenario)
