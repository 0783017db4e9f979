"""The control methods: a member's whole conversation, and who is shown nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dht.identity import ED25519, Signer
from xenonode.control.errors import ControlError
from xenonode.control.server import Caller
from xenonode.model.session import (
    Agreement,
    Amendment,
    Quote,
    QuoteRequest,
    Receipt,
    Refusal,
    SessionCommand,
    UsageRecord,
)
from xenonode.server.audit_log import NAME
from xenonode.server.errors import CorpAnswerError, CorpAwayError, CorpRefusedError
from xenonode.server.ports import ControlCorp
from xenonode.server.service import ANONYMOUS, ServerService
from xenonode.server.session_state import RUNNING

from .test_sessions import until
from .world import CLIENT, LINUX, MACHINE, SERVER, SMALL, STRANGER, Server, World, agreement_for, run_virtually

METHODS = {
    "advert",
    "quote",
    "quote.decline",
    "session.create",
    "session.withdraw",
    "session.show",
    "session.list",
    "session.command",
    "session.console",
    "usage",
    "receipt",
    "settlement",
    "audit.head",
    "status",
    "owner.sessions",
    "owner.stop",
}

PENDING = ("price.cpu",)


class Member:
    """Somebody who calls the server's methods."""

    def __init__(self, server: Server, signer: Signer | None) -> None:
        advert, pending = lambda: server.advertiser.current, lambda: PENDING
        parts = (server.manager, server.desk, server.admission, server.audit)
        service = ServerService(*parts, advert, pending, SERVER.public_key)
        self.handlers = service.handlers()
        self.caller = Caller(None if signer is None else signer.public_key, ("127.0.0.1", 1), "1-1")

    async def call(self, method: str, **body: Any) -> dict[str, Any]:
        return await self.handlers[method](self.caller, body)


def test_a_member_can_do_everything_from_quote_to_settlement_over_the_methods() -> None:
    async def scenario() -> None:
        world = World()
        server = await world.boot()
        member, other, nobody = (Member(server, each) for each in (CLIENT, STRANGER, None))
        assert set(member.handlers) == METHODS and set(ANONYMOUS) <= METHODS
        shown = await nobody.call("advert")
        assert shown == {"advert": server.advertiser.current.raw, "pending": list(PENDING)}  # type: ignore[union-attr]
        assert (await nobody.call("audit.head"))["length"] == server.audit.length
        with pytest.raises(ControlError, match="members only"):
            await nobody.call("session.list")

        request = QuoteRequest(bytes(16), SERVER.public_key, SMALL, LINUX, 600_000, world.now_ms()).seal(CLIENT)
        quote = (await member.call("quote", request=request.raw))["quote"]
        assert (await member.call("quote", request=request.raw))["quote"] == quote, "a repeat holds nothing more"
        Quote.open(quote, ED25519, signed_by=SERVER.public_key)
        with pytest.raises(ControlError, match="signed by"):
            await other.call("quote", request=request.raw)
        much = QuoteRequest(bytes(16), SERVER.public_key, MACHINE, LINUX, 600_000, world.now_ms()).seal(STRANGER)
        refusal, _ = Refusal.open((await other.call("quote", request=much.raw))["refusal"], ED25519)
        assert any(reason.startswith("would fit") for reason in refusal.reasons)

        reservation = world.reservation()
        agreement = agreement_for(quote, reservation, world.now_ms()).seal(CLIENT)
        created = await member.call("session.create", agreement=agreement.raw, reservation=reservation, quote=quote)
        _, signed = Agreement.open(created["agreement"], ED25519, signed_by=SERVER.public_key)
        id = created["session"]
        assert signed.id == agreement.id and id == agreement.id.hex()
        with pytest.raises(ControlError) as early:
            await member.call("usage", session=id)
        assert early.value.code == "not_yet"
        await asyncio.sleep(7)
        shown = await member.call("session.show", session=id)
        assert shown["state"] == "running" and shown["start"] and shown["resources"]["cpu_ms_per_s"] == 250
        assert "login" in (await member.call("session.console", session=id))["text"]
        for method in ("session.show", "session.console", "usage", "settlement"):
            with pytest.raises(ControlError, match="no such session"):
                await other.call(method, session=id)
        assert (await other.call("session.list")) == {"sessions": []}

        command = SessionCommand(agreement.id, shown["command_seq"] + 1, "stop", None, world.now_ms())
        with pytest.raises(ControlError, match="signed by"):
            await other.call("session.command", command=command.seal(CLIENT).raw)
        with pytest.raises(ControlError, match="no such session"):
            await other.call("session.command", command=command.seal(STRANGER).raw)
        amendment = (await member.call("session.command", command=command.seal(CLIENT).raw))["amendment"]
        assert Amendment.open(amendment, ED25519)[0].state == "stopping"
        assert (await member.call("session.command", command=command.seal(CLIENT).raw))["amendment"] == amendment
        await asyncio.sleep(3)
        record, envelope = UsageRecord.open((await member.call("usage", session=id))["usage"], ED25519)
        assert record.final
        receipt = Receipt(agreement.id, envelope.id, record.seq, True, "", world.now_ms())
        assert await member.call("receipt", receipt=receipt.seal(CLIENT).raw) == {}
        await asyncio.sleep(2)
        assert len((await member.call("settlement", session=id))["settlements"]) == 1
        assert (await member.call("session.list"))["sessions"][0]["closed"]
        assert (await member.call("status"))["running"] == 0
        await server.manager.close()

    run_virtually(scenario())


@pytest.mark.parametrize("method", sorted(METHODS - {"advert", "audit.head", "status", "session.list"}))
@pytest.mark.parametrize(
    "body", [{}, {"session": 3}, {"session": "zz"}, {"request": b"\x93", "command": b"", "receipt": b"x"}]
)
def test_any_nonsense_gets_an_error_that_can_be_read(method: str, body: dict[str, Any]) -> None:
    async def scenario() -> None:
        server = await World().boot()
        with pytest.raises(ControlError) as error:
            await Member(server, CLIENT).handlers[method](Member(server, CLIENT).caller, body)
        assert error.value.code and error.value.message and error.value.next_step
        await server.manager.close()

    run_virtually(scenario())


def test_the_owner_sees_every_session_and_stops_one_and_nobody_else_does() -> None:
    async def scenario() -> None:
        world = World()
        server = await world.boot()
        id = await server.open_session()
        await until(server, id, RUNNING)
        owner, client, nobody = (Member(server, each) for each in (SERVER, CLIENT, None))
        for other in (client, nobody):
            for method in ("owner.sessions", "owner.stop"):
                with pytest.raises(ControlError, match=r"owner may do this|members only"):
                    await other.call(method, session=id.hex(), reason="envy")
        (seen,) = (await owner.call("owner.sessions"))["sessions"]
        assert (seen["session"], seen["client"]) == (id.hex(), CLIENT.public_key.hex())
        for wrong in ({"session": id.hex(), "reason": "a\nb"}, {"session": "00", "reason": "x"}, {"reason": "x"}):
            with pytest.raises(ControlError):
                await owner.call("owner.stop", **wrong)
        assert (await owner.call("owner.stop", session=id.hex(), reason="the machine is sold"))["state"] == "stopping"
        shown = await client.call("session.show", session=id)
        assert shown["reason"] == "the machine is sold"
        assert b"operator_stop" in world.files.content[NAME]
        await server.manager.close()

    run_virtually(scenario())


def test_the_port_to_xenocorp_tells_away_from_no() -> None:
    async def scenario() -> None:
        async def call(method: str, body: dict[str, Any]) -> dict[str, Any]:
            assert method == "claim"
            if body["claim"] == b"settled":
                return {"settlement": b"raw"}
            if body["claim"] == b"nothing":
                return {}
            raise ControlError(body["claim"].decode(), "text", "step")

        corp = ControlCorp(call)
        assert await corp.claim(b"settled") == b"raw"
        for later in (b"unreachable", b"unavailable", b"ledger_damaged"):  # the last two: its disk, not the claim
            with pytest.raises(CorpAwayError):
                await corp.claim(later)
        for wrong in (b"internal", b"bad_peer", b"nothing"):
            with pytest.raises(CorpAnswerError):
                await corp.claim(wrong)
        with pytest.raises(CorpRefusedError):
            await corp.claim(b"falling_counters")

    run_virtually(scenario())
