"""What XenoCorp acknowledged survives: kill -9 in mid-claim, and a disk that takes no more."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from xenonode.control.errors import ControlError
from xenonode.corp.database import create_database
from xenonode.model.money import Settlement
from xenonode.model.resources import NANO

from .corp_process import Corp
from .world import ED25519, Meter, World, seed

MILLI = NANO // 1000
KILLS = 20
SESSIONS = 5
CLAIMS_A_ROUND = 25


class Away(World):
    """Makes the messages of a XenoCorp that runs in another process."""

    corp: Corp

    def do(self, signer: Any, method: str, **body: Any) -> dict[str, Any]:
        return self.corp.do(signer, method, **body)


@pytest.fixture
def away(tmp_path: Path) -> Away:
    create_database(tmp_path / "ledger.sqlite")
    world = Away(name="away")
    world.corp = Corp(tmp_path / "ledger.sqlite", name="away")
    yield world
    world.corp.kill()


def test_nothing_acknowledged_is_lost_and_each_claim_settles_once_through_kills(away: Away, tmp_path: Path) -> None:
    rng = random.Random(20)
    client, server = away.member("alice", "client"), away.member("bob", "server")
    away.credit(client, 100 * NANO)
    order = away.ordered(client, 50 * NANO)
    meters = [away.session(client, server, away.reserved(client, order, server, 9 * NANO)) for _ in range(SESSIONS)]
    used = dict.fromkeys(range(SESSIONS), 0)
    replies: dict[bytes, bytes] = {}
    waiting: list[bytes] = []
    for _ in range(KILLS):
        waiting += [_next_claim(meters, used, rng) for _ in range(CLAIMS_A_ROUND)]
        numbers = {away.corp.ask(server, "claim", claim=claim): claim for claim in waiting}
        if rng.random() < 0.5:  # while replies come in, or at any moment of the first groups
            read = [away.corp.read() for _ in range(rng.randrange(len(waiting)))]
        else:
            read = []
            time.sleep(rng.random() * 0.08)
        for reply in read + away.corp.kill():
            claim = numbers[reply["id"]]
            replies.setdefault(claim, reply["ok"]["settlement"])
            assert replies[claim] == reply["ok"]["settlement"]
        waiting = [claim for claim in waiting if claim not in replies]
        away.corp = Corp(tmp_path / "ledger.sqlite", name="away")
    for claim, settlement in replies.items():
        assert away.do(server, "claim", claim=claim)["settlement"] == settlement
    for claim in waiting:
        replies[claim] = away.do(server, "claim", claim=claim)["settlement"]
    captured = sum(Settlement.open(raw, ED25519)[0].captured_nano for raw in replies.values())
    assert captured == sum(used.values()) * MILLI == away.statement(server).balance_nano
    assert len(replies) == KILLS * CLAIMS_A_ROUND
    audit = away.audit()
    assert audit["balanced"], audit["faults"]


def _next_claim(meters: list[Meter], used: dict[int, int], rng: random.Random) -> bytes:
    which = rng.randrange(SESSIONS)
    used[which] += 1
    usage = meters[which].usage(used[which])
    return meters[which].claim(usage, meters[which].receipt(usage))


def test_a_full_disk_is_refused_clearly_and_loses_nothing_acknowledged(away: Away, tmp_path: Path) -> None:
    client = away.member("alice", "client")
    entity, balance = away.entity(client), away.credit(client, NANO)
    operator, refused = away.keys.operator, 0
    for room in range(0, 200_000, 10_000):
        size = max(path.stat().st_size for path in tmp_path.iterdir())
        away.do(None, "test.limit", bytes=size + room)
        body: dict[str, Any] = {}
        for _ in range(40):
            body = {"entity": entity, "amount_nano": 1, "currency": "USD", "nonce": away.nonce()}
            try:
                balance = away.do(operator, "credit", **body)["balance_nano"]
            except ControlError as error:
                assert error.code == "unavailable" and "nothing was changed" in error.message
                refused += 1
                break
        away.do(None, "test.limit", bytes=0)
        balance = away.do(operator, "credit", **body)["balance_nano"]  # the same request again, whether refused or not
        assert away.statement(client).balance_nano == balance
    assert refused > 3
    assert away.audit()["balanced"]
    away.corp.kill()
    away.corp = Corp(tmp_path / "ledger.sqlite", name="away")
    assert away.statement(client).balance_nano == balance


def test_requests_that_come_together_are_committed_together_and_answered_each(away: Away) -> None:
    signers = [ED25519.generate(seed(f"member{number}")) for number in range(60)]
    registrations = [away.registration(f"member{n}", "client").seal(signer).raw for n, signer in enumerate(signers)]
    numbers = [away.corp.ask(None, "register", registration=raw) for raw in registrations]
    replies = {reply["id"]: reply for reply in (away.corp.read() for _ in numbers)}
    assert len({replies[number]["ok"]["entity"] for number in numbers}) == len(signers)
