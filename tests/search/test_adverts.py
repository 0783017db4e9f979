"""What a node makes of the adverts that it meets: each checked once, contradictions told with their proof."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from dht.contradictions import Contradiction
from dht.envelope import seal
from summaries.holder import Reply
from summaries.messages import Insert, Refused
from summaries.renewal import changed, changes_of
from summaries.trie import ROOT, keys_of
from xenonode import catalogue
from xenonode.corp.errors import RefusedError
from xenonode.corp.fraud import equivocator
from xenonode.model.advert import Advert
from xenonode.model.entity import Address
from xenonode.model.resources import Resources
from xenonode.search.holding import monotonic_ms
from xenonode.simulation.run import Simulation

from .network import Issuing, advert_of


def test_two_adverts_with_one_number_are_told_once_with_a_proof_that_convinces_xenocorp() -> None:
    with Simulation(seed=3) as simulation:
        node = simulation.add_node("node")
        issuing = Issuing(simulation.scheme, node.env.now_ms(), Address(node.host.address, 7000))
        peer, signer, credential = node.call(issuing.peer, node.env, 0)
        told: list[Contradiction] = []

        async def meet() -> list[bytes]:
            await peer.start(Address(node.host.address, 7000).pair)
            peer.endpoint.contradictions.listen(told.append)
            now_ms = node.env.now_ms()
            shape = catalogue.adverts(Random(3), 1)[0]
            one = advert_of(shape, credential, peer, Random(3), now_ms)
            other = replace(one, available=Resources(1, 1, 1, 1))
            later = replace(other, seq=one.seq + 1)
            raws = [each.seal(signer).raw for each in (one, later, other)]
            for raw in (raws[0], raws[1], raws[0]):
                assert peer.adverts.point(raw, now_ms) is not None
            assert not told
            for _ in range(3):
                peer.adverts.point(raws[2], now_ms)
            await peer.close()
            return raws

        raws = simulation.run(node.start(meet()))  # type: ignore[arg-type]
        (proof,) = told
        assert proof.owner == signer.public_key and {proof.first, proof.second} == {raws[0], raws[2]}
        assert equivocator(proof.first, proof.second, simulation.scheme) == signer.public_key
        with pytest.raises(RefusedError):
            equivocator(raws[0], raws[1], simulation.scheme)
        assert Advert.open(raws[1], simulation.scheme)[0].seq == proof.seq + 1


def test_what_was_signed_by_a_clock_far_ahead_is_refused_whoever_else_has_verified_it() -> None:
    """The nodes of a simulation share what they verified; each believes it by its own clock alone."""
    with Simulation(seed=3) as simulation:
        node = simulation.add_node("node")
        issuing = Issuing(simulation.scheme, node.env.now_ms(), Address(node.host.address, 7000))
        peer, signer, credential = node.call(issuing.peer, node.env, 0)

        async def meet() -> None:
            await peer.start(Address(node.host.address, 7000).pair)
            now_ms = node.env.now_ms()
            ahead_ms = now_ms + 600_000
            advert = advert_of(catalogue.adverts(Random(3), 1)[0], credential, peer, Random(3), ahead_ms)
            raw = advert.seal(signer).raw
            assert peer.adverts.point(raw, now_ms) is None
            assert peer.adverts.point(raw, ahead_ms) is not None
            assert peer.adverts.point(raw, now_ms) is None
            assert peer.adverts.point(raw, ahead_ms - 60_000) is not None  # within what clocks may differ
            await peer.close()

        simulation.run(node.start(meet()))


def test_a_heartbeat_of_a_real_advert_is_a_fifth_of_it() -> None:
    with Simulation(seed=3) as simulation:
        node = simulation.add_node("node")
        issuing = Issuing(simulation.scheme, node.env.now_ms(), Address(node.host.address, 7000))
        peer, signer, credential = node.call(issuing.peer, node.env, 0)

        async def heartbeat() -> tuple[bytes, bytes]:
            await peer.start(Address(node.host.address, 7000).pair)
            now_ms = node.env.now_ms()
            advert = advert_of(catalogue.adverts(Random(3), 1)[0], credential, peer, Random(3), now_ms)
            later = now_ms + 150_000
            await peer.close()
            renewed = replace(advert, seq=later, issued_ms=later, expires_ms=later + 180_000)
            return advert.seal(signer).raw, renewed.seal(signer).raw

        old, new = simulation.run(node.start(heartbeat()))  # type: ignore[arg-type]
        changes = changes_of(old, new)
        assert changed(old, changes) == new
        assert 64 < sum(len(one.data) + 6 for one in changes) < len(new) // 5


def _spoilt(fields: dict[str, Any], name: str, place: int, value: int) -> dict[str, Any]:
    """The same advert with one number changed, as only a hand-made one can have it."""
    if isinstance(fields[name], list):
        return fields | {name: [*fields[name][:place], value, *fields[name][place + 1 :]]}
    return fields | {name: value}


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("available", 1, 2**50),  # more memory free than there is
        ("prices", 0, -1),
        ("seq", 0, 2**64 - 1),
        ("location", 0, 91_000_000),  # further away than anything on Earth
        ("cores", 0, 0),
        ("expires_ms", 0, 2**62),
    ],
)
def test_a_holder_refuses_a_well_signed_advert_that_cannot_be_true(name: str, place: int, value: int) -> None:
    with Simulation(seed=4) as simulation:
        node = simulation.add_node("node")
        issuing = Issuing(simulation.scheme, node.env.now_ms(), Address(node.host.address, 7000))
        peer, signer, credential = node.call(issuing.peer, node.env, 0)

        async def offer() -> tuple[object, object]:
            await peer.start(Address(node.host.address, 7000).pair)
            now_ms = node.env.now_ms()
            advert = advert_of(catalogue.adverts(Random(4), 1)[0], credential, peer, Random(4), now_ms)
            fields = dict(advert.to_fields())
            assert name in fields
            holder = peer.holdings["cores"].holder
            said: list[object] = []
            for each in (fields, _spoilt(fields, name, place, value)):
                raw = seal(signer, Advert.TYPE, each).raw
                point = peer.adverts.point(raw, now_ms)
                key = 0 if point is None else keys_of(peer.schema, "cores", point)[0]
                actions = holder.received(Insert(ROOT, key, raw), b"somebody", "request", monotonic_ms())
                replies = [one.message for one in actions if isinstance(one, Reply)]
                said.append(replies[0] if replies else None)
            await peer.close()
            return said[0], said[1]

        honest, spoilt = simulation.run(node.start(offer()))  # type: ignore[arg-type]
        assert not isinstance(honest, Refused)
        assert isinstance(spoilt, Refused) and "verify" in spoilt.reason
