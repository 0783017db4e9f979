"""What a node makes of the adverts that it meets: each checked once, contradictions told with their proof."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from dht.contradictions import Contradiction
from xenonode import catalogue
from xenonode.corp.errors import RefusedError
from xenonode.corp.fraud import equivocator
from xenonode.model.advert import Advert
from xenonode.model.entity import Address
from xenonode.model.resources import Resources
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
