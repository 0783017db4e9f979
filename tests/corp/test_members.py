"""Registration: one key, one entity; credentials; what is kept of real-world identities."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import select

from dht.identity import ED25519
from dht.record import seal_record
from xenonode.control.errors import ControlError
from xenonode.corp import schema
from xenonode.corp.errors import CorpLocalError
from xenonode.corp.terms import Terms
from xenonode.corp.vault import Vault

from .world import World, seed

DAY_MS = 86_400_000


@pytest.fixture
def world() -> World:
    return World()


def test_a_credential_verifies_and_names_a_pseudonym(world: World) -> None:
    signer = ED25519.generate(seed("alice"))
    reply = world.do(None, "register", registration=world.registration("alice", "client").seal(signer).raw)
    credential = world.trust.credential(reply["credential"], world.now_ms, roles=("client",))
    assert credential.key == signer.public_key
    assert credential.entity == reply["entity"] and reply["entity"].startswith("client-")
    assert credential.expires_ms - credential.not_before_ms == 7 * DAY_MS
    assert reply["network"] == world.network and reply["schema"] == b"schema"


def test_the_same_registration_again_gets_the_same_grant(world: World) -> None:
    signer = ED25519.generate(seed("alice"))
    first = world.do(None, "register", registration=world.registration("alice", "client").seal(signer).raw)
    world.now_ms += 1000
    again = world.do(signer, "register", registration=world.registration("alice", "client").seal(signer).raw)
    assert again == first


def test_a_key_in_use_with_other_details_is_refused_and_reported(world: World) -> None:
    signer = world.member("alice", "client")
    other = world.registration("eve", "client").seal(signer).raw
    with pytest.raises(ControlError) as caught:
        world.do(None, "register", registration=other)
    assert caught.value.code == "key_in_use"
    (proof,) = world.do(world.keys.operator, "fraud.list")["proofs"]
    assert (proof["kind"], proof["suspect"]) == ("key_in_use", signer.public_key)


def test_renewal_keeps_entity_and_nonce_and_moves_the_expiry(world: World) -> None:
    signer = world.member("bob", "server")
    old = world.trust.credential(world.do(None, "member", key=signer.public_key)["credential"], world.now_ms)
    world.now_ms += 4 * DAY_MS
    new = world.trust.credential(world.do(signer, "renew")["credential"], world.now_ms)
    assert (new.entity, new.issuer_nonce, new.role) == (old.entity, old.issuer_nonce, old.role)
    assert new.expires_ms == old.expires_ms + 4 * DAY_MS and new.serial > old.serial


def test_registering_again_after_half_a_life_brings_a_fresh_credential(world: World) -> None:
    signer = world.member("bob", "server")
    world.now_ms += 6 * DAY_MS
    reply = world.do(None, "register", registration=world.registration("bob", "server").seal(signer).raw)
    assert world.trust.credential(reply["credential"], world.now_ms).expires_ms == world.now_ms + 7 * DAY_MS


def test_one_person_registers_a_bounded_number_of_keys() -> None:
    world = World(terms=Terms(keys_per_entity=2))
    for number in range(2):
        signer = ED25519.generate(seed(f"key{number}"))
        world.do(None, "register", registration=world.registration("alice", "server").seal(signer).raw)
    third = world.registration("alice", "server", legal_name="  ALICE ").seal(ED25519.generate(seed("key3"))).raw
    with pytest.raises(ControlError, match="2 keys"):
        world.do(None, "register", registration=third)


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"network_id": bytes(16)}, "other_network"), ({"role": "corp"}, "role"), ({"requested_ms": 10**14}, "clock")],
)
def test_a_registration_that_cannot_be_is_refused(world: World, changes: dict[str, object], code: str) -> None:
    signer = ED25519.generate(seed("eve"))
    with pytest.raises(ControlError) as caught:
        world.do(None, "register", registration=world.registration("eve", "client", **changes).seal(signer).raw)
    assert caught.value.code == code


def test_no_personal_detail_is_readable_in_the_database(world: World) -> None:
    world.member("Zebedee-Quux", "client")
    tables = schema.metadata.sorted_tables
    dump = world.store.run_inline(
        lambda books: repr([books.connection.execute(select(table)).all() for table in tables])
    )
    assert "Zebedee" not in dump and "zebedee" not in dump and "passport" not in dump


def test_the_operator_can_reveal_and_erase_an_identity(world: World) -> None:
    signer = world.member("alice", "client")
    entity = world.entity(signer)
    assert world.do(world.keys.operator, "member.reveal", entity=entity)["legal_name"] == "alice"
    with pytest.raises(ControlError, match="only XenoCorp's operator"):
        world.do(signer, "member.reveal", entity=entity)
    world.do(world.keys.operator, "member.erase", entity=entity)
    with pytest.raises(ControlError, match="no details"):
        world.do(world.keys.operator, "member.erase", entity=entity)
    assert world.do(None, "member", key=signer.public_key)["credential"]


def test_a_sealed_registration_opens_for_its_entity_and_key_only(world: World) -> None:
    vault, other = (Vault(ED25519.generate(seed(name))) for name in ("one", "two"))
    sealed = vault.seal(world.registration("alice", "client"), "client-1", random.Random(1))
    assert vault.open(sealed, "client-1").legal_name == "alice"
    for opener, entity in ((other, "client-1"), (vault, "client-2")):
        with pytest.raises(CorpLocalError, match="does not open"):
            opener.open(sealed, entity)


def test_xenocorps_own_keys_are_enrolled_and_no_other(world: World) -> None:
    member = asyncio.run(world.service.enrol(world.keys.node.public_key))
    assert world.trust.credential(member.credential, world.now_ms).role == "corp"
    assert asyncio.run(world.service.enrol(world.keys.node.public_key)) == member
    with pytest.raises(Exception, match="none of XenoCorp's own"):
        asyncio.run(world.service.enrol(bytes(32)))


def test_certificates_come_from_the_callable_that_is_handed_in() -> None:
    asked = []

    def certify(*grant: object) -> bytes:
        asked.append(grant)
        return b"PEM"

    world = World(certify=certify)
    signer = ED25519.generate(seed("alice"))
    reply = world.do(None, "register", registration=world.registration("alice", "client").seal(signer).raw)
    assert reply["certificate"] == b"PEM"
    assert asked == [(signer.public_key, reply["entity"], "client", world.now_ms, world.now_ms + 7 * DAY_MS)]


def test_a_proof_that_a_member_contradicts_itself_is_kept_whoever_brings_it() -> None:
    world = World()
    liar, witness = world.member("liar", "server"), world.member("witness", "client")
    key = bytes(20)
    expires_ms = world.now_ms + 60_000
    one, other = (seal_record(liar, "cores", key, 1, expires_ms, text) for text in (b"yes", b"no"))
    elsewhere = seal_record(liar, "cores", bytes(range(20)), 1, expires_ms, b"no")
    stranger = ED25519.generate(seed("stranger"))
    two = [seal_record(stranger, "cores", key, 1, expires_ms, text) for text in (b"yes", b"no")]
    for first, second in ((one, one), (one, elsewhere), (one, one[:-1]), two):
        with pytest.raises(ControlError):
            world.do(witness, "fraud.report", first=first, second=second)
    with pytest.raises(ControlError):
        world.do(None, "fraud.report", first=one, second=other)
    for pair in ((one, other), (other, one)):
        assert world.do(witness, "fraud.report", first=pair[0], second=pair[1]) == {}
    (proof,) = world.do(world.keys.operator, "fraud.list")["proofs"]
    assert (proof["suspect"], proof["kind"]) == (liar.public_key, "equivocation")
