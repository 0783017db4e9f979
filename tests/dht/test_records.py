"""Records in a network under virtual time: large ones, sets, copies on the path, repair, newcomers, outages."""

from __future__ import annotations

import asyncio
import random

import pytest

from dht.copies import COPY_LIFE_MS, MAX_COPIES, Copies, copy_life_ms
from dht.errors import LocalError, PeerRefusedError
from dht.identity import ED25519
from dht.publishing import MAX_TRANSFER_RECORDS, REPLICAS
from dht.record import open_record, owned_key, seal_record
from dht.walk import CACHE, PUT
from xenonode.simulation.network import Conditions
from xenonode.simulation.overlays import HOUR_MS, OverlayNode, OverlayWorld

OVERLAY = "cores"


def holders(world: OverlayWorld, key: bytes) -> list[OverlayNode]:
    return [node for node in world.living() if key in node.overlay(OVERLAY).records.shelf.all_keys()]


def put_value(
    world: OverlayWorld, node: OverlayNode, key: bytes, payload: bytes, seq: int = 1, name: str | None = None
) -> int:
    expires_ms = node.node.env.now_ms() + HOUR_MS
    work = node.overlay(OVERLAY).records.put_value(key, payload, expires_ms, seq=seq, name=name)
    return world.simulation.run(_on(node, work))


def get_value(world: OverlayWorld, node: OverlayNode, key: bytes, owner: bytes, **options: int) -> bytes | None:
    return world.simulation.run(_on(node, node.overlay(OVERLAY).records.get_value(key, owner, **options)))


async def _on(node: OverlayNode, work):  # type: ignore[no-untyped-def]
    return await node.node.start(work, "work")


def wait(world: OverlayWorld, seconds: float) -> None:
    world.simulation.run(asyncio.sleep(seconds))


def test_a_read_whose_nearest_contacts_are_gone_but_for_one_goes_on_to_that_one() -> None:
    with OverlayWorld(4, 60) as world:
        world.begin()
        key, writer, reader = world.random_key(), world.nodes[0], world.nodes[1]
        assert put_value(world, writer, key, b"value") == REPLICAS
        near = [contact.address for contact in reader.overlay(OVERLAY).known(key, REPLICAS)]
        gone = [node for node in world.living() if node.endpoint.address in near[:-1] and node is not reader]
        assert len(gone) >= REPLICAS - 2
        for node in gone:
            node.crash()
        began_s = reader.endpoint.time()
        assert get_value(world, reader, key, writer.endpoint.signer.public_key) == b"value"
        # One after the other they are overtaken (`Pace.hedge_ms`), and none is waited for.
        assert reader.endpoint.time() - began_s < 0.5 * len(gone)


def test_a_record_that_is_stored_again_is_not_verified_again_and_an_altered_one_is() -> None:
    with OverlayWorld(9, 20) as world:
        world.begin()
        key, writer, holder = world.random_key(), world.nodes[0], world.nodes[1]
        verified: list[bytes] = []

        class Counting:
            name = holder.endpoint.scheme.name
            generate = holder.endpoint.scheme.generate
            verify_truly = holder.endpoint.scheme.verify

            def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
                verified.append(signature)
                return Counting.verify_truly(public_key, message, signature)

        holder.endpoint.scheme = Counting()
        raw = seal_record(writer.endpoint.signer, OVERLAY, key, 1, writer.node.env.now_ms() + HOUR_MS, b"v")

        def put(record: bytes) -> bool:
            async def asked() -> bool:
                call = asyncio.get_running_loop().create_future()
                to, tag = holder.contact(OVERLAY), writer.overlay(OVERLAY).tag
                writer.endpoint.call(to.address, tag, PUT, key + record, lambda _, error, body: call.set_result(error))
                return await call is None

            return bool(world.simulation.run(_on(writer, asked())))

        assert put(raw) and put(raw) and put(raw)
        assert len(verified) == 1
        assert not put(raw[:-1] + bytes([raw[-1] ^ 1])) and len(verified) == 2


def test_a_node_that_knows_nobody_and_has_no_place_itself_keeps_no_copy_and_puts_nothing_into_other_hands() -> None:
    with OverlayWorld(9, 5) as world:
        world.begin()
        key, writer, holder = world.random_key(), world.nodes[0], world.nodes[1]
        put_value(world, writer, key, b"value")
        assert holder in holders(world, key)
        members = [node.endpoint.member for node in world.nodes]
        holder.endpoint.shun([(each.public_key, each.issuer_nonce) for each in members])
        overlay, records = holder.overlay(OVERLAY), holder.overlay(OVERLAY).records
        assert overlay.known(key, REPLICAS) == []
        other = world.random_key()
        raw = seal_record(writer.endpoint.signer, OVERLAY, other, 1, writer.node.env.now_ms() + HOUR_MS, b"v")

        async def asked() -> Exception | None:
            call = asyncio.get_running_loop().create_future()
            to, tag = holder.contact(OVERLAY), writer.overlay(OVERLAY).tag
            writer.endpoint.call(to.address, tag, CACHE, other + raw, lambda _, error, body: call.set_result(error))
            return await call  # type: ignore[no-any-return]

        with pytest.raises(PeerRefusedError, match="no copy of this is needed here"):
            raise world.simulation.run(_on(writer, asked())) or AssertionError("it was taken")
        records.publishing.replace_gone()
        assert not holder.endpoint.counters["fault"]


def test_64_kib_are_stored_and_read_whole_in_spite_of_loss() -> None:
    with OverlayWorld(1, 30, conditions=Conditions(latency_us=20_000, jitter_us=5_000, loss_ppm=10_000)) as world:
        world.begin()
        key, payload = world.random_key(), random.Random(1).randbytes(65_536)
        writer, owner = world.nodes[3], world.nodes[3].endpoint.signer.public_key
        assert put_value(world, writer, key, payload) == REPLICAS
        for reader in world.nodes[::7]:
            assert get_value(world, reader, key, owner) == payload
        newer = payload[::-1][:30_000]
        assert put_value(world, writer, key, newer, seq=2) == REPLICAS
        assert get_value(world, world.nodes[9], key, owner, holders=3) == newer
        assert put_value(world, writer, key, payload, seq=1) == 0
        with pytest.raises(LocalError, match="control connection"):
            put_value(world, writer, key, payload + b"x", seq=3)


def test_a_holder_that_lies_about_a_part_is_passed_over() -> None:
    with OverlayWorld(2, 30) as world:
        world.begin()
        key, payload = world.random_key(), random.Random(2).randbytes(20_000)
        owner = world.nodes[3].endpoint.signer.public_key
        put_value(world, world.nodes[3], key, payload)
        liars = holders(world, key)[: REPLICAS // 2]
        for liar in liars:
            record = liar.overlay(OVERLAY).records.shelf.get_of(key, owner, liar.node.env.now_ms())
            assert record is not None
            object.__setattr__(record, "blob", record.blob[:1_500] + bytes(1) + record.blob[1_501:])
        for reader in world.nodes:
            if reader not in holders(world, key):
                assert get_value(world, reader, key, owner) == payload


def test_a_set_keeps_every_owners_newest_value_large_or_small() -> None:
    with OverlayWorld(3, 25) as world:
        world.begin()
        key, written = world.random_key(), {}
        for n, node in enumerate(world.nodes[:6]):
            for seq in (1, 2):
                payload = bytes([n, seq]) * (40 if n % 2 else 4_000)
                assert put_value(world, node, key, payload, seq=seq) == REPLICAS
                written[node.endpoint.signer.public_key] = payload
        reader = world.nodes[20]
        assert world.simulation.run(_on(reader, reader.overlay(OVERLAY).records.get_set(key))) == written


def test_a_value_of_one_writer_is_found_by_its_name() -> None:
    with OverlayWorld(4, 25) as world:
        world.begin()
        owner = world.nodes[5].endpoint.signer.public_key
        key = owned_key(OVERLAY, owner, "profile")
        assert put_value(world, world.nodes[5], key, b"me", name="profile") == REPLICAS
        assert get_value(world, world.nodes[11], key, owner) == b"me"
        with pytest.raises(LocalError):
            put_value(world, world.nodes[6], key, b"not me", name="profile")


def test_a_copy_lives_half_as_long_for_each_doubling_of_distance_and_never_past_the_expiry() -> None:
    assert [copy_life_ms(1 << (150 + bits), 1 << 150) for bits in range(3)] == [
        COPY_LIFE_MS,
        COPY_LIFE_MS // 2,
        COPY_LIFE_MS // 4,
    ]
    assert copy_life_ms(1, 1 << 150) == COPY_LIFE_MS and copy_life_ms(1 << 159, 1) == 0
    signer, key, copies = ED25519.generate(bytes(32)), bytes(20), Copies()

    def record(seq: int, at: bytes = key, expires_ms: int = 1_000):  # type: ignore[no-untyped-def]
        return open_record(seal_record(signer, OVERLAY, at, seq, expires_ms, b""), ED25519, OVERLAY, at, 0)

    owner = signer.public_key
    assert copies.put(key, record(2), COPY_LIFE_MS, 0)
    assert copies.get(key, owner, 999) and not copies.get(key, owner, 1_000)
    assert copies.put(key, record(2), 500, 0)
    assert not copies.put(key, record(2), COPY_LIFE_MS, 100) and not copies.put(key, record(1), COPY_LIFE_MS, 100)
    assert copies.get(key, owner, 499) and not copies.get(key, owner, 500)
    for n in range(MAX_COPIES + 50):
        at = n.to_bytes(20, "big")
        copies.put(at, record(1, at), COPY_LIFE_MS, 0)
    assert len(copies) == MAX_COPIES


def test_readers_leave_copies_that_run_out_and_do_not_hide_a_newer_value_from_two_holders() -> None:
    with OverlayWorld(5, 300) as world:
        world.begin()
        key, owner = world.random_key(), world.nodes[0].endpoint.signer.public_key
        put_value(world, world.nodes[0], key, b"one")
        for reader in world.nodes[1:]:
            assert get_value(world, reader, key, owner) == b"one"
        copies = sum(len(node.overlay(OVERLAY).serving.copies) for node in world.nodes)
        assert copies > 0
        put_value(world, world.nodes[0], key, b"two", seq=2)
        for reader in world.nodes[1::10]:
            assert get_value(world, reader, key, owner, holders=2) == b"two"
        wait(world, COPY_LIFE_MS / 1_000 + 1)
        for reader in world.nodes[1::10]:
            assert get_value(world, reader, key, owner) == b"two"


def test_a_record_outlives_all_of_its_first_holders_when_they_go_one_by_one() -> None:
    with OverlayWorld(6, 60) as world:
        world.begin()
        small, large = world.random_key(), world.random_key()
        writer, owner = world.nodes[0], world.nodes[0].endpoint.signer.public_key
        for key, size_bytes in ((small, 50), (large, 5_000)):
            expires_ms = writer.node.env.now_ms() + 10 * HOUR_MS
            work = writer.overlay(OVERLAY).records.put_value(key, bytes(size_bytes), expires_ms, seq=1, republish=False)
            assert world.simulation.run(_on(writer, work)) == REPLICAS
        first = {node.node.host.name: node for key in (small, large) for node in holders(world, key)}
        for node in first.values():
            node.crash()
            # Whoever asks finds that it is gone; then its neighbours put another in its place.
            reader = world.rng.choice(world.living())
            world.simulation.run(_on(reader, reader.overlay(OVERLAY).find(node.contact(OVERLAY).node_id)))
            wait(world, 1_000)
        reader = world.living()[-1]
        assert get_value(world, reader, small, owner) == bytes(50)
        assert get_value(world, reader, large, owner) == bytes(5_000)


def test_a_newcomer_is_given_once_what_it_should_hold_and_no_more_than_the_bound() -> None:
    with OverlayWorld(7, 30) as world:
        world.begin()
        keys = [world.random_key() for _ in range(40)]
        for n, key in enumerate(keys):
            put_value(world, world.nodes[n % 20], key, bytes(100))
        newcomer = world.add()
        world.simulation.run(world.join(newcomer, world.nodes[:2]))
        wait(world, 60)
        own = newcomer.contact(OVERLAY).node_id
        due = [key for key in keys if own in [each.node_id for each in world.nearest(OVERLAY, key, REPLICAS)]]
        held = newcomer.overlay(OVERLAY).records.shelf.all_keys()
        assert due and set(due) <= set(held)
        sent = sum(node.endpoint.counters["records-transferred"] for node in world.nodes)
        assert 0 < sent <= len(held) + 2 and sent <= MAX_TRANSFER_RECORDS * len(world.nodes)
        wait(world, 120)
        assert sum(node.endpoint.counters["records-transferred"] for node in world.nodes) == sent


def test_a_node_comes_back_by_itself_after_an_outage_of_everybody_even_without_its_seed() -> None:
    with OverlayWorld(8, 12) as world:
        world.begin()
        late = world.add()
        world.simulation.run(world.join(late, world.nodes[:1]))
        wait(world, 40)
        others = [node.node.host.name for node in world.nodes if node is not late]
        world.simulation.network.partition("outage", [late.node.host.name], others)
        for _ in range(6):
            world.simulation.run(_on(late, late.overlay(OVERLAY).find(world.random_key())))
            wait(world, 60)
        assert len(late.overlay(OVERLAY).table) == 0
        assert len(late.endpoint.known_addresses()) >= 8
        world.nodes[0].crash()
        world.simulation.network.heal("outage")
        wait(world, 90)
        found = world.simulation.run(_on(late, late.overlay(OVERLAY).find(world.random_key())))
        assert len(found) == len(world.living()) == 12
