"""A client's sessions: agree, launch, command, check usage and sign for it, end.

Decides in which order messages go, and keeps what was signed before anything else depends on it. Every call may be
repeated after a failure: the same ids lead to the same answers.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

from dht.errors import RemoteError
from dht.identity import Signer
from xenonode.client.checking import Accepted, Share, faults, resized
from xenonode.client.opening import POLL_S, CallCorp, CallServer, Opening, Progress
from xenonode.client.records import Records, Reserving, SessionRecord, SessionView, view
from xenonode.control.errors import UNREACHABLE, ControlError
from xenonode.env import Env
from xenonode.errors import XenoError
from xenonode.model.entity import CLOCK_TOLERANCE_MS, Address, Trust
from xenonode.model.errors import ModelError
from xenonode.model.money import ID_BYTES, Settlement, format_amount
from xenonode.model.resources import Resources
from xenonode.model.session import (
    RECEIPT_PERIOD_MS,
    Agreement,
    Amendment,
    Quote,
    Receipt,
    SessionCommand,
    Start,
    UsageRecord,
    exposure_limit_nano,
)
from xenonode.server.ports import LATER

START_TIMEOUT_S = 180.0
"""An emulated environment boots in seconds, a full distribution on a busy host in a minute or two."""
END_TIMEOUT_S = 60.0


class Sessions:
    """See the module. `call_corp` and `call_server` carry methods over proved connections."""

    def __init__(
        self, signer: Signer, env: Env, trust: Trust, records: Records, call_corp: CallCorp, call_server: CallServer
    ) -> None:
        self._signer, self._env, self._trust, self._records = signer, env, trust, records
        self._call_server = call_server
        self._opening = Opening(signer, env, trust, records, call_corp, call_server)

    async def create(
        self,
        order: bytes,
        quote: Quote,
        quote_raw: bytes,
        server: bytes,
        control: Address,
        *,
        lease_ms: int,
        authorized_keys: tuple[str, ...],
        hostname: str,
        receipt_period_ms: int = RECEIPT_PERIOD_MS,
        progress: Progress = lambda text: None,
    ) -> SessionView:
        """Reserve, agree, launch, and wait until the environment can be used. Raises XenoError or ControlError."""
        _, quote_envelope = Quote.open(quote_raw, self._trust.scheme, signed_by=server)
        try:
            draft = Agreement(  # before any money is set aside: what cannot be agreed must not keep it
                client=self._signer.public_key,
                server=server,
                reservation=bytes(ID_BYTES),
                quote=quote_envelope.id,
                advert=quote.advert,
                advert_seq=quote.advert_seq,
                resources=quote.resources,
                environment=quote.environment,
                image_sha256=quote.image_sha256,
                prices=quote.prices,
                receipt_period_ms=receipt_period_ms,
                exposure_nano=0,
                audit_policy="standard",
                authorized_keys=authorized_keys,
                hostname=hostname,
                made_ms=0,
            )
            draft.seal(self._signer)
            record = await self._reserved(draft, order, quote, server, control, lease_ms, progress)
        except (XenoError, ControlError, ModelError):
            await self._opening.decline(server, control, quote_raw)
            raise
        answer = await self._opening.agree(record, quote_raw, progress)
        signed, _ = Agreement.open(answer["agreement"], self._trust.scheme, signed_by=server)
        if signed != record.agreement(self._trust.scheme):
            raise XenoError("the server signed another agreement than ours", "do not use this server", "bad_peer")
        self._records.change(record.id, lambda now: replace(now, server_agreement=answer["agreement"], reservation=b""))
        progress("both signed the agreement; the environment starts")
        return await self._until_started(record.id.hex(), progress)

    async def _reserved(
        self,
        draft: Agreement,
        order: bytes,
        quote: Quote,
        server: bytes,
        control: Address,
        lease_ms: int,
        progress: Progress,
    ) -> SessionRecord:
        """The session as it is kept once money is set aside for it, and before its server hears of it."""
        request = await self._opening.wanted(order, quote, server, lease_ms)
        with self._records.reserving(Reserving(request.id, request.raw, control)) as forget:
            try:
                reservation, reserved = await self._opening.reserve(request.raw)
            except ControlError as error:
                if error.code not in LATER:
                    forget()
                raise
            agreement = replace(
                draft,
                reservation=reserved.id,
                exposure_nano=exposure_limit_nano(reservation.amount_nano, reservation.rate_cap_nano_per_hour),
                made_ms=self._env.now_ms(),
            )
            sealed = agreement.seal(self._signer)
            shares = (Share(agreement.made_ms, quote.resources),)
            record = SessionRecord(
                sealed.id, server, control, order, sealed.raw, b"", b"", shares, b"", False, reserved.raw
            )
            self._records.keep(record)
            forget()
        amount = format_amount(reservation.amount_nano, reservation.currency)
        progress(f"XenoCorp reserved {amount} for this server")
        return record

    async def decline(self, server: bytes, control: Address, quote_raw: bytes) -> None:
        """Give back what a server holds for a quote that will not be used."""
        await self._opening.decline(server, control, quote_raw)

    async def recover(self) -> None:
        """Have given back what was reserved by a process that was killed before its session was agreed on."""
        await self._opening.recover()

    async def list_all(self) -> list[SessionView]:
        """Every remembered session; of one whose server does not answer, what is known here."""
        await self.recover()
        found = []
        for record in self._records.sessions():
            try:
                found.append(await self.show(record.id.hex()))
            except (XenoError, ControlError) as error:
                found.append(self._unreachable(record, str(error)))
        return found

    async def show(self, id: str) -> SessionView:
        """One session, as its server tells it now."""
        record, told = await self._told(id)
        return view(record, told, self._trust.scheme)

    async def command(self, id: str, action: str, resources: Resources | None = None) -> SessionView:
        """Resize, pause, resume or stop; the view after it took effect."""
        record, told = await self._told(id)
        seq = int(told["command_seq"]) + 1
        now_ms = self._env.now_ms()
        command = SessionCommand(record.id, seq, action, resources, now_ms).seal(self._signer)
        if resources is not None:  # the answer may be lost: until it is there, the larger of the two counts
            most = Resources(*map(max, record.shares[-1].resources.amounts, resources.amounts))
            self._keep_shares(record.id, resized(record.shares, most, now_ms - CLOCK_TOLERANCE_MS))
        try:
            answer = await self._ask(record, "session.command", {"command": command.raw})
        except ControlError as error:
            if resources is not None and error.code not in LATER:
                self._keep_shares(record.id, record.shares)
            raise
        amendment, _ = Amendment.open(answer["amendment"], self._trust.scheme, signed_by=record.server)
        if amendment.agreement != record.id or amendment.command != command.id:
            raise XenoError("the server's answer is to another command", "do not use this server", "bad_peer")
        if resources is not None:
            if amendment.resources != resources:
                raise XenoError("the server signed another size than ours", "do not use this server", "bad_peer")
            self._keep_shares(
                record.id, resized(record.shares, resources, max(amendment.effective_ms, now_ms - CLOCK_TOLERANCE_MS))
            )
        return await self.show(id)

    def _keep_shares(self, id: bytes, shares: tuple[Share, ...]) -> None:
        """Remember what a session may use; the agent may have changed the rest of its record meanwhile."""
        self._records.change(id, lambda now: replace(now, shares=shares))

    async def end(self, id: str, progress: Progress = lambda text: None) -> SessionView:
        """Stop a session, sign its final usage, and wait until XenoCorp has settled it."""
        view_ = await self.show(id)
        if not view_.closed and view_.state in ("running", "paused", "starting"):
            await self.command(id, "stop")
        progress("the environment stops; its final usage is checked and signed")
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self.cosign(id)
                while not (view_ := await self.show(id)).closed:  # noqa: ASYNC110  # another process changes it
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            progress("XenoCorp has not settled it yet; the server goes on claiming by itself")
        return view_

    async def console(self, id: str) -> str:
        """The end of what the environment wrote to its console."""
        record = self._records.find(id)
        return str((await self._ask(record, "session.console", {"session": record.id}))["text"])

    async def start_record(self, id: str) -> Start:
        """Where to log in, and which host key to expect there: the server's signed word. Raises XenoError."""
        record = self._records.find(id)
        if not record.start:  # once it is kept, a server that is away for a moment is not in the way of its guest
            record, _ = await self._told(id)
        start = record.started(self._trust.scheme)
        if start is None:
            raise XenoError("the session has not started yet", "look at it with 'xenonode session show'", "starting")
        return start

    async def usage(self, id: str) -> UsageRecord | None:
        """The last usage record that the server signed; None before the first."""
        record, told = await self._told(id)
        raw = told.get("usage")
        return None if raw is None else UsageRecord.open(raw, self._trust.scheme, signed_by=record.server)[0]

    async def settlements(self, id: str) -> list[Settlement]:
        """What XenoCorp settled for a session: the server shows them, XenoCorp's signature proves them."""
        record = self._records.find(id)
        found = []
        for raw in (await self._ask(record, "settlement", {"session": record.id}))["settlements"]:
            settlement, envelope = Settlement.open(raw, self._trust.scheme)
            self._trust.issued(envelope, self._env.now_ms())
            found.append(settlement)
        return found

    # -- checking and signing ----------------------------------------------------------------------------

    async def cosign(self, id: str, tell: Progress = lambda text: None) -> None:
        """Check and sign each usage record until the final one. What is wrong is refused, and told once."""
        refused: bytes | None = None
        while True:
            if self._records.find(id).closed:
                return  # another command saw its end; its server may be gone for good
            record, told = await self._told(id)
            if record.closed:
                return
            if told.get("usage") is not None:
                if told["usage"] != refused:
                    usage, id_, reason = self._check(record, told["usage"])
                    if reason:
                        tell(f"usage record {usage.seq} is refused: {reason}")
                    await self._sign(record, usage, id_, told["usage"], reason)
                    refused = told["usage"] if reason else None
                    if usage.final:
                        return
            elif told["closed"]:
                return
            period_ms = record.agreement(self._trust.scheme).receipt_period_ms
            ending = told["state"] in ("stopping", "stopped", "failed")
            await asyncio.sleep(POLL_S if ending else min(period_ms / 4_000, 15.0))

    def _check(self, record: SessionRecord, raw: bytes) -> tuple[UsageRecord, bytes, str]:
        """A usage record, its id, and why it must not be signed for, empty when it may."""
        scheme = self._trust.scheme
        usage, envelope = UsageRecord.open(raw, scheme, signed_by=record.server)
        start = record.started(scheme)
        if usage.agreement != record.id:
            raise XenoError("the usage record is of another agreement", "do not use this server", "bad_peer")
        last = None
        if record.accepted_usage:
            before, before_envelope = UsageRecord.open(record.accepted_usage, scheme)
            last = Accepted(before, before_envelope.id)
        agreement = record.agreement(scheme)
        started_ms = None if start is None else start.started_ms
        found = faults(usage, envelope.id, agreement, record.shares, started_ms, self._env.now_ms(), last)
        return usage, envelope.id, "; ".join(found)[:500]

    async def _sign(self, record: SessionRecord, usage: UsageRecord, id: bytes, raw: bytes, reason: str) -> None:
        if not reason and raw == record.accepted_usage and not usage.final:
            return  # signed for already
        receipt = Receipt(record.id, id, usage.seq, not reason, reason, self._env.now_ms()).seal(self._signer)
        if not reason:
            self._records.change(record.id, lambda now: self._accepted(now, usage.seq, raw))
        await self._ask(record, "receipt", {"receipt": receipt.raw})

    def _accepted(self, record: SessionRecord, seq: int, raw: bytes) -> SessionRecord:
        """The record with this usage as the last one, unless another process signed for a later one meanwhile."""
        if record.accepted_usage and UsageRecord.open(record.accepted_usage, self._trust.scheme)[0].seq > seq:
            return record
        return replace(record, accepted_usage=raw)

    # -- helpers -----------------------------------------------------------------------------------------

    async def _until_started(self, id: str, progress: Progress) -> SessionView:
        state = ""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while True:
                    record, told = await self._told(id)
                    now = view(record, told, self._trust.scheme)
                    if now.state != state:
                        state = now.state
                        progress(f"session {id[:12]} is {state}")
                    if state in ("running", "paused") and record.start:
                        return now
                    if state in ("failed", "stopped"):
                        money = "its final usage is yet to be signed"
                        if not record.start:
                            money = await self._opening.ended_unused(record)
                        raise XenoError(
                            f"the session did not start: {now.reason or state}; {money}",
                            "take another server, or ask for something else",
                            "not_started",
                        )
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise XenoError(
                f"session {id[:12]} is still {state} after {START_TIMEOUT_S:.0f} s",
                f"wait with 'xenonode session show {id[:12]}', or end it with 'xenonode session stop {id[:12]}'",
                "slow_start",
            ) from None

    async def _told(self, id: str) -> tuple[SessionRecord, dict[str, Any]]:
        """What the server tells of a session now; a start record is kept when it is first seen. Raises XenoError."""
        try:
            return await self._taken_in(self._records.find(id))
        except (RemoteError, KeyError, TypeError) as error:
            message = f"the server's answer cannot be read: {error}"
            raise XenoError(message, "do not use this server", "bad_peer") from error

    async def _taken_in(self, record: SessionRecord) -> tuple[SessionRecord, dict[str, Any]]:
        try:
            told = await self._ask(record, "session.show", {"session": record.id})
        except ControlError as error:
            if error.code != "unknown_session" or record.closed:
                raise
            raise await self._opening.never_began(record) from error
        if not isinstance(told["closed"], bool) or type(told["command_seq"]) is not int:
            raise TypeError("a session's state is told in other words")
        if record.reservation:  # it did begin, though its server's answer was lost
            server_agreement = told["agreement"]
            signed, _ = Agreement.open(server_agreement, self._trust.scheme, signed_by=record.server)
            if signed != record.agreement(self._trust.scheme):
                raise XenoError("the server signed another agreement than ours", "do not use this server", "bad_peer")
            record = self._records.change(
                record.id, lambda now: replace(now, server_agreement=server_agreement, reservation=b"")
            )
        if told.get("start") and told["start"] != record.start:  # a server that moved says anew where it leads to it
            start, _ = Start.open(told["start"], self._trust.scheme, signed_by=record.server)
            if start.agreement != record.id:
                raise XenoError("the start record is of another agreement", "do not use this server", "bad_peer")
            before = record.started(self._trust.scheme)
            if before is not None and replace(start, ssh_host=before.ssh_host, ssh_port=before.ssh_port) != before:
                raise XenoError("the start record is of another environment", "do not use this server", "bad_peer")
            record = self._records.change(record.id, lambda now: replace(now, start=told["start"]))
        if told.get("closed") and not record.closed:
            record = self._records.change(record.id, lambda now: replace(now, closed=True))
        return record, told

    async def _ask(self, record: SessionRecord, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask a session's server; one that moved, where a search has found it since.

        A connection to where it was may stand for a long time, and nothing comes over it.
        """
        moved = self._records.address_of(record.server)
        if moved is not None and moved != record.control:
            try:
                answer = await self._call_server(record.server, moved.pair, method, body)
            except ControlError as error:
                if error.code != UNREACHABLE:
                    raise
            else:
                self._records.change(record.id, partial(replace, control=moved))
                return answer
        return await self._call_server(record.server, record.control.pair, method, body)

    def _unreachable(self, record: SessionRecord, reason: str) -> SessionView:
        try:
            agreement = record.agreement(self._trust.scheme)
        except RemoteError as error:
            raise XenoError(f"session {record.id.hex()} is damaged: {error}", "restore it from a backup") from error
        start = record.started(self._trust.scheme)
        return SessionView(
            record.id.hex(),
            "ended" if record.closed else "unreachable",
            "" if record.closed else reason,
            record.server,
            str(agreement.environment),
            agreement.resources,
            "" if start is None else f"{start.ssh_host}:{start.ssh_port}",
            agreement.prices.currency,
            0,
            0,
            0,
            record.closed,
        )
