"""Public networks: the operator approves; nobody uses up another's name, and applicants take bounded room."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from dht.identity import ED25519, Signer
from dht.limits import Allowance
from xenonode.config import CorpConfig
from xenonode.control.errors import ControlError
from xenonode.corp import applicants, members, schema
from xenonode.corp.member_methods import _place
from xenonode.corp.terms import Terms
from xenonode.model.entity import Address

from .world import Asker, World, seed

DAY_MS = 86_400_000


@pytest.fixture
def world() -> World:
    return World(terms=Terms(approval=True, keys_per_entity=2))


def ask(world: World, name: str, key: str, host: str = "127.0.0.1", **changes: Any) -> tuple[Signer, Any]:
    """One registration from a host: the key, and the answer or the refusal's code."""
    signer = ED25519.generate(seed(key))
    raw = world.registration(name, "client", **changes).seal(signer).raw
    handler = world.service.handlers["register"](Asker(None, (host, 1)), {"registration": raw})
    try:
        handler.send(None)
    except StopIteration as answered:
        return signer, answered.value
    except ControlError as refusal:
        return signer, refusal.code
    raise AssertionError("an inline ledger waited")


def rows(world: World, table: Any) -> int:
    query = select(func.count()).select_from(table)
    return int(world.store.run_inline(lambda books: books.connection.execute(query).scalar_one()))


def operate(world: World, method: str, **body: Any) -> dict[str, Any]:
    return world.do(world.keys.operator, method, **body)


def test_an_applicant_is_a_member_once_the_operator_approves(world: World) -> None:
    signer, answer = ask(world, "alice", "a")
    assert answer == "pending" and rows(world, schema.member) == 0
    with pytest.raises(ControlError, match="not registered"):
        world.do(signer, "renew")
    (shown,) = operate(world, "member.waiting")["applicants"]
    assert (shown["key"], shown["legal_name"]) == (signer.public_key, "alice")
    entity = operate(world, "member.approve", key=signer.public_key.hex()[:8])["entity"]
    _, granted = ask(world, "alice", "a")
    assert granted["entity"] == entity
    assert world.trust.credential(granted["credential"], world.now_ms).key == signer.public_key
    assert not operate(world, "member.waiting")["applicants"]


def test_nobody_uses_up_the_keys_of_anothers_name(world: World) -> None:
    for number in range(8):
        assert ask(world, "alice", f"impostor{number}", f"10.0.0.{number}")[1] == "pending"
    signer, answer = ask(world, "alice", "the real one", "10.9.9.9")
    assert answer == "pending"
    operate(world, "member.approve", key=signer.public_key.hex())
    assert isinstance(ask(world, "alice", "the real one")[1], dict)


def test_the_bound_of_keys_holds_at_approval(world: World) -> None:
    signers = [ask(world, "alice", f"key{number}")[0] for number in range(3)]
    for signer in signers[:2]:
        operate(world, "member.approve", key=signer.public_key.hex())
    with pytest.raises(ControlError, match="2 keys"):
        operate(world, "member.approve", key=signers[2].public_key.hex())
    assert len(operate(world, "member.waiting")["applicants"]) == 1


def test_a_refused_applicant_stays_refused_for_a_month_and_may_be_approved_after_all(world: World) -> None:
    signer, _ = ask(world, "eve", "e")
    assert operate(world, "member.refuse", key=signer.public_key.hex()[:6])["key"] == signer.public_key
    assert ask(world, "eve", "e")[1] == "refused" and not operate(world, "member.waiting")["applicants"]
    world.now_ms += 31 * DAY_MS
    world.store.run_inline(lambda books: applicants.forget_old(books, world.now_ms))
    assert rows(world, schema.applicant) == 0
    assert ask(world, "eve", "e")[1] == "pending"
    operate(world, "member.refuse", key=signer.public_key.hex())
    operate(world, "member.approve", key=signer.public_key.hex())
    assert isinstance(ask(world, "eve", "e")[1], dict)


def test_the_last_details_that_an_applicant_gave_count_and_asking_again_takes_no_room(world: World) -> None:
    for name in ("eve", "mallory", "mallory"):
        assert ask(world, name, "e")[1] == "pending"
    (shown,) = operate(world, "member.waiting")["applicants"]
    assert shown["legal_name"] == "mallory" and rows(world, schema.applicant) == 1


def test_one_place_cannot_fill_the_waiting_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applicants, "WAITING_MAX", 12)
    for number in range(applicants.PLACE_MAX):
        assert ask(world, f"m{number}", f"crowd{number}", "10.0.0.1")[1] == "pending"
        world.now_ms += 1
    assert ask(world, "m", "one more", "10.0.0.1")[1] == "too_many"
    for number in range(8):
        assert ask(world, f"h{number}", f"honest{number}", f"10.1.{number}.1")[1] == "pending"
    names = [each["legal_name"] for each in operate(world, "member.waiting")["applicants"]]
    assert len(names) == 12 and {f"h{number}" for number in range(8)} < set(names)


def test_what_applicants_say_is_not_readable_in_the_database(world: World) -> None:
    ask(world, "Zebedee-Quux", "z")
    query = select(schema.applicant)
    assert "Zebedee" not in world.store.run_inline(lambda books: repr(books.connection.execute(query).all()))


def test_only_the_operator_sees_and_decides(world: World) -> None:
    signer, _ = ask(world, "alice", "a")
    for method in ("member.waiting", "member.approve", "member.refuse"):
        with pytest.raises(ControlError, match="only XenoCorp's operator"):
            world.do(signer, method, key=signer.public_key.hex())
    for prefix in ("", "zz"):
        with pytest.raises(ControlError, match="no applicants"):
            operate(world, "member.approve", key=prefix)


def test_on_a_local_network_everybody_is_a_member_at_once_and_one_place_registers_so_many_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(members, "LOCAL_KEYS", Allowance(1 / 60, 20))
    world = World(terms=Terms(keys_per_entity=1_000))
    answers = [ask(world, f"n{number}", f"key{number}")[1] for number in range(21)]
    assert all(isinstance(answer, dict) for answer in answers[:-1]) and answers[-1] == "too_many"
    assert isinstance(ask(world, "other", "other", "127.0.0.2")[1], dict)
    assert isinstance(ask(world, "n0", "key0")[1], dict)  # what is granted already costs nothing
    world.now_ms += 60_000
    assert isinstance(ask(world, "later", "later")[1], dict)


def test_public_networks_approve_by_their_profile() -> None:
    config = CorpConfig(folder=None, udp=Address("192.0.2.1", 1), control=Address("192.0.2.1", 2), profile="public")  # type: ignore[arg-type]
    assert Terms.of(config).approval
    assert _place("192.0.2.77", "public") == "192.0.2.0/24" and _place("192.0.2.77", "local") == "192.0.2.77"
    assert _place("2001:db8:1:2::3", "public") == "2001:db8:1::/48"
