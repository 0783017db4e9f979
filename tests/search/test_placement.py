"""Where a prefix's holders are: looked up once, then confirmed by themselves, and looked up again when one is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dht.contact import Contact
from dht.errors import PeerTimeoutError
from dht.lookup import ALPHA
from summaries.trie import ROOT
from xenonode.search.kinds import TRIE
from xenonode.search.placement import DOUBTED_S, LATELY_S, REMEMBERED_MOST_S, REPLICAS, Placement
from xenonode.simulation.network import Conditions
from xenonode.simulation.overlays import OverlayNode, OverlayWorld

KEY = bytes(range(20))


@contextmanager
def placed() -> Iterator[tuple[OverlayWorld, OverlayNode, Placement]]:
    with OverlayWorld(1, 60) as world:
        world.begin()
        node = max(world.nodes, key=lambda each: each.contact("cores").number ^ int.from_bytes(KEY, "big"))
        placement = node.node.call(lambda: Placement(node.overlay("cores"), lambda *place: KEY))
        yield world, node, placement


def find(world: OverlayWorld, node: OverlayNode, placement: Placement) -> tuple[bool, int]:
    """Whether the holders are right, and how many questions that cost."""
    before = node.endpoint.calls.begun
    found = world.simulation.run(node.node.start(placement.find(ROOT)))  # type: ignore[arg-type]
    return found == world.nearest("cores", KEY, REPLICAS), node.endpoint.calls.begun - before


def test_old_holders_are_confirmed_by_one_question_to_one_of_them() -> None:
    with placed() as (world, node, placement):
        right, questions = find(world, node, placement)
        assert right and questions > REPLICAS
        assert find(world, node, placement) == (True, 0)
        for _ in range(3):
            world.simulation.run(asyncio.sleep(REMEMBERED_MOST_S + 1))
            assert node.node.call(lambda: world.simulation.run(_remembered(placement))) is None
            assert find(world, node, placement) == (True, 1)


def test_all_holders_are_asked_where_one_names_others_and_they_stay_though_it_lies() -> None:
    with placed() as (world, node, placement):
        find(world, node, placement)
        for liar in world.nodes:
            if liar.contact("cores") in world.nearest("cores", KEY, REPLICAS):
                liar.overlay("cores").table.around = lambda target, count: []  # type: ignore[method-assign]
        world.simulation.run(asyncio.sleep(REMEMBERED_MOST_S + 1))
        right, questions = find(world, node, placement)
        assert right and 1 + REPLICAS <= questions <= 1 + ALPHA


def test_what_one_holder_hides_another_tells_the_next_time() -> None:
    with placed() as (world, node, placement):
        find(world, node, placement)
        target = int.from_bytes(KEY, "big")
        liar = next(one for one in world.nodes if one.contact("cores") == world.nearest("cores", KEY, 1)[0])
        third = world.nearest("cores", KEY, REPLICAS)[-1].number ^ target
        while (newcomer := world.add()).contact("cores").number ^ target > third:
            pass
        world.simulation.run(world.join(newcomer, world.nodes[:3]))
        hidden, honest = newcomer.contact("cores"), liar.overlay("cores").table.around
        liar.overlay("cores").table.around = (  # type: ignore[method-assign]
            lambda target, count: [each for each in honest(target, count) if each != hidden]
        )
        node.node.call(node.overlay("cores").drop, hidden)  # as if it had never come by
        for _ in range(4):
            world.simulation.run(asyncio.sleep(REMEMBERED_MOST_S + 1))
            right, _ = find(world, node, placement)
        assert right


def test_a_holder_that_is_gone_is_not_confirmed() -> None:
    with placed() as (world, node, placement):
        find(world, node, placement)
        holders = world.nearest("cores", KEY, REPLICAS)
        next(each for each in world.nodes if each.contact("cores") == holders[0]).crash()
        world.simulation.run(asyncio.sleep(REMEMBERED_MOST_S + 1))
        _ask_in_vain(world, node, holders[0], placement)
        counted = world.simulation.run(node.node.start(placement.find(ROOT)))  # type: ignore[arg-type]
        assert counted == holders  # it may be there all the same: a moment's silence makes nobody else a holder
        world.simulation.run(asyncio.sleep(LATELY_S + 2 * DOUBTED_S))
        find(world, node, placement)
        world.simulation.run(asyncio.sleep(LATELY_S + 2 * DOUBTED_S))
        right, questions = find(world, node, placement)
        assert right and questions > REPLICAS


def test_whom_nobody_met_is_no_holder_whoever_names_them() -> None:
    with placed() as (world, node, placement):
        key = int.from_bytes(KEY, "big")
        made_up = [Contact((key ^ number).to_bytes(20, "big"), ("10.99.0.1", 9_000 + number)) for number in (1, 2, 3)]
        for liar in world.nodes:
            if liar is not node:
                honest = liar.overlay("cores").table.around
                liar.overlay("cores").table.around = (  # type: ignore[method-assign]
                    lambda target, count, honest=honest: [*made_up, *honest(target, count)][:count]  # type: ignore[misc]
                )
        found = world.simulation.run(node.node.start(placement.find(ROOT)))  # type: ignore[arg-type]
        assert found == world.nearest("cores", KEY, REPLICAS)


def test_a_newcomer_takes_its_place() -> None:
    with placed() as (world, node, placement):
        find(world, node, placement)
        world.simulation.run(asyncio.sleep(REMEMBERED_MOST_S + 1))
        target = int.from_bytes(KEY, "big")
        third = world.nearest("cores", KEY, REPLICAS)[-1].number ^ target
        while (newcomer := world.add()).contact("cores").number ^ target > third:
            pass
        world.simulation.run(world.join(newcomer, world.nodes[:3]))
        right, _ = find(world, node, placement)
        assert right


def test_a_fifth_of_all_nodes_who_name_only_one_another_take_hardly_a_lookup_over() -> None:
    with OverlayWorld(5, 300) as world:
        world.begin()
        liars = world.rng.sample(world.nodes, 60)
        theirs = [liar.contact("cores") for liar in liars]

        def accomplices(target: int, count: int) -> list[Contact]:
            return sorted(theirs, key=lambda contact: contact.number ^ target)[:count]

        for liar in liars:
            liar.overlay("cores").table.around = accomplices  # type: ignore[method-assign]
        taken = 0
        for node in [node for node in world.nodes if node not in liars]:
            key = world.random_key()
            placement = node.node.call(lambda node=node, key=key: Placement(node.overlay("cores"), lambda *place: key))  # type: ignore[misc]
            found = world.simulation.run(node.node.start(placement.find(ROOT)))  # type: ignore[arg-type]
            honest = [one for one in world.nearest("cores", key, REPLICAS) if one not in theirs]
            taken += any(one not in found for one in honest)
        assert taken <= 2  # of 240


def test_named_holders_are_believed_unless_too_few_are_named_or_somebody_nearer_is_known() -> None:
    with placed() as (world, node, placement):
        named = [contact.packed for contact in world.nearest("cores", KEY, REPLICAS + 2)]

        async def told(named: list[bytes]) -> object:
            return placement.told(ROOT, named)

        def ask(named: list[bytes]) -> object:
            return node.node.call(lambda: world.simulation.run(told(named)))

        assert ask(named[:2]) is ask([named[0], named[0], named[1]]) is None
        assert ask([*named[:2], b"nobody"]) is None
        assert ask(named[2:]) is None  # in a network of 60 everybody knows the two who are nearer
        assert ask(named[::-1]) == world.nearest("cores", KEY, REPLICAS)
        assert find(world, node, placement) == (True, 0)


async def _remembered(placement: Placement) -> object:
    return placement.remembered(ROOT)


def _ask_in_vain(world: OverlayWorld, node: OverlayNode, holder: Contact, placement: Placement) -> None:
    """What whoever looked the holders up meets: no answer."""

    async def ask() -> None:
        with pytest.raises(PeerTimeoutError):
            await node.overlay("cores").ask(holder, TRIE, b"")
        placement.forget(ROOT)

    world.simulation.run(node.node.start(ask(), "ask"))


def test_holders_are_found_among_many_nodes_though_datagrams_are_lost() -> None:
    with OverlayWorld(1, 250, conditions=Conditions(loss_ppm=20_000)) as world:
        world.begin()
        keys = [world.random_key() for _ in range(40)]
        right, questions = 0, 0
        for key, node in zip(keys, world.nodes):
            placement = node.node.call(lambda node=node, key=key: Placement(node.overlay("cores"), lambda *place: key))  # type: ignore[misc]
            before = node.endpoint.calls.begun
            found = world.simulation.run(node.node.start(placement.find(ROOT)))  # type: ignore[arg-type]
            right += found == world.nearest("cores", key, REPLICAS)
            questions += node.endpoint.calls.begun - before
        assert right == len(keys)
        assert questions < 9 * len(keys)
