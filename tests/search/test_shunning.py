"""Holders that hide adverts are seen by who looks as readers do, and have no place in overlays once shunned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from dht import wire
from summaries.forms import to_fields
from summaries.messages import Answer, Read
from xenonode.search.looking import look, members_of
from xenonode.simulation.crowd import NEEDED, Crowd, CrowdPeer

PEERS = 6


@contextmanager
def with_a_liar() -> Iterator[tuple[Crowd, CrowdPeer]]:
    """A small network in which one holder shows nothing of any price."""
    with Crowd(seed=5, peers=PEERS, clients=1, dimensions=NEEDED, leaf_capacity=4) as crowd:
        crowd.run(until=120)
        held = {server: _rows(server) for server in crowd.servers}
        liar = max(held, key=lambda server: held[server])
        assert liar.peer is not None and held[liar]
        holder = liar.peer.holdings["price.cpu"].holder
        honest = holder.received

        def lie(message, sender, request, now_ms):  # type: ignore[no-untyped-def]
            if isinstance(message, Read):
                request(_packed(Answer(message.prefix, (), (), 0, 0, 0, 0)))
                return []
            return honest(message, sender, request, now_ms)

        holder.received = lie  # type: ignore[method-assign]
        yield crowd, liar


def test_who_hides_is_seen_by_publishers_and_nobody_else_is_blamed() -> None:
    with with_a_liar() as (crowd, liar):
        hidden = 0
        for server in crowd.servers:
            if server is liar:
                continue
            seen = crowd.run(server.call(lambda each: _looked(each)))
            assert all(shows for key, shows in seen.items() if key != liar.signer.public_key)
            hidden += seen.get(liar.signer.public_key, True) is False
        assert hidden


def test_who_is_shunned_is_asked_by_nobody_and_may_ask_all_the_same() -> None:
    with with_a_liar() as (crowd, liar):
        for host in [*crowd.servers, *crowd.clients]:
            assert host.peer is not None
            host.node.call(host.peer.endpoint.shun, [(liar.signer.public_key, liar.nonce)])
        assert liar.peer is not None
        for server in crowd.servers:
            assert server.peer is not None
            found = crowd.run(server.node.start(server.peer.endpoint.overlay("price.cpu").find(bytes(20)), "find"))
            assert liar.udp.pair not in [contact.address for contact in found]
        crowd.run(until=crowd.now_s + 2 * crowd.period_ms / 1_000)
        answer = crowd.run(crowd.clients[0].call(lambda each: each.search("price.cpu >= 0 USD/h")))
        assert answer.complete and len(answer.servers) == PEERS
        assert not any(one.pending for one in crowd.durable.values())


def test_an_answer_of_another_form_shuns_nobody() -> None:
    pair = [b"key", b"nonce"]
    assert members_of({"shunned": [pair, [b"key"], "key", [b"key", 7]]}) == [(b"key", b"nonce")]
    assert members_of({}) == members_of({"shunned": b"all"}) == []


async def _looked(host: CrowdPeer) -> dict[bytes, bool]:
    assert host.peer is not None and host.running is not None
    peer = host.peer
    standing = host.running.publisher.standing["price.cpu"]
    return await look(peer, peer.asker, peer.endpoint, "price.cpu", standing, Random(1))


def _rows(server: CrowdPeer) -> int:
    assert server.peer is not None
    return sum(len(node.rows) for node in server.peer.holdings["price.cpu"].holder.nodes().values())


def _packed(answer: Answer) -> bytes:
    return wire.pack(to_fields(answer))
