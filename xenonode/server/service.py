"""What a XenoServer answers on control connections.

Decides who may ask what, and how values travel. Everybody may see the advert and the audit log's head; a session is
seen and commanded by its own client only, and to others it does not exist. The owner, who has the server's own key,
sees all sessions and may stop them. What the methods do is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from dht.envelope import Envelope
from dht.errors import RemoteError
from hypervisor.errors import HypervisorError
from xenonode.control.errors import ControlError
from xenonode.control.server import Caller, Handler
from xenonode.model.resources import Resources
from xenonode.server.admission import Admission
from xenonode.server.audit_log import AuditLog
from xenonode.server.errors import RefusedError
from xenonode.server.quoting import QuoteDesk
from xenonode.server.session_state import LIVE, Session
from xenonode.server.sessions import SessionManager

ANONYMOUS = ("advert", "audit.head")
"""Methods that need no credential."""
SESSIONS_LISTED_MAX = 256
REASON_MAX = 200
_Answer = Callable[[bytes, dict[str, Any]], Awaitable[dict[str, Any]]]


class ServerService:
    """Handlers for every method of a XenoServer. `pending` tells where searches may still miss its current advert."""

    def __init__(
        self,
        manager: SessionManager,
        desk: QuoteDesk,
        admission: Admission,
        audit: AuditLog,
        advert: Callable[[], Envelope | None],
        pending: Callable[[], Sequence[str]],
        own_key: bytes,
    ) -> None:
        self._own_key = own_key
        self._pending = pending
        self._manager, self._desk, self._admission = manager, desk, admission
        self._audit, self._advert = audit, advert

    def handlers(self) -> Mapping[str, Handler]:
        """Each method's handler, for `xenonode.control.server.serve`."""
        members: dict[str, _Answer] = {
            "quote": self._quote,
            "quote.decline": self._decline,
            "session.create": self._create,
            "session.withdraw": self._withdraw,
            "session.show": self._show,
            "session.list": self._list,
            "session.command": self._command,
            "session.console": self._console,
            "usage": self._usage,
            "receipt": self._receipt,
            "settlement": self._settlement,
            "status": self._status,
            "owner.sessions": self._owner_sessions,
            "owner.stop": self._owner_stop,
        }
        handlers = {name: _members_only(answer) for name, answer in members.items()}
        return {**handlers, "advert": self._show_advert, "audit.head": self._audit_head}

    async def _show_advert(self, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
        advert = self._advert()
        if advert is None:
            raise ControlError("starting", "this server advertises nothing yet", "ask again in a few seconds")
        return {"advert": advert.raw, "pending": list(self._pending())}

    async def _audit_head(self, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
        return {"head": self._audit.head, "length": self._audit.length, "checkpoint": self._audit.checkpoint}

    async def _quote(self, client: bytes, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._desk.quote(client, _raw(body, "request"))
        return {"refusal": answer.refusal} if answer.quote is None else {"quote": answer.quote}

    async def _decline(self, client: bytes, body: dict[str, Any]) -> dict[str, Any]:
        self._desk.decline(client, _raw(body, "quote"))
        return {}

    async def _create(self, client: bytes, body: dict[str, Any]) -> dict[str, Any]:
        session = await self._manager.create(
            client, _raw(body, "agreement"), _raw(body, "reservation"), _raw(body, "quote")
        )
        return {"agreement": session.server_agreement, "session": session.id.hex(), "state": session.state}

    async def _withdraw(self, client: bytes, body: dict[str, Any]) -> dict[str, Any]:
        self._manager.withdraw(client, _raw(body, "reservation"))
        return {}

    async def _show(self, client: bytes, body: dict[str, Any]) -> dict[str, Any]:
        return view(self._manager.session(client, _id(body)))

    async def _list(self, client: bytes, body: dict[str, Any]) -> dict[str, Any]:
        own = [each for each in self._manager.sessions.values() if each.agreement.client == client]
        return {"sessions": [summary(session) for session in own[-SESSIONS_LISTED_MAX:]]}

    async def _owner_sessions(self, caller: bytes, body: dict[str, Any]) -> dict[str, Any]:
        self._owner_only(caller)
        newest = list(self._manager.sessions.values())[-SESSIONS_LISTED_MAX:]
        return {"sessions": [{**summary(each), "client": each.agreement.client.hex()} for each in newest]}

    async def _owner_stop(self, caller: bytes, body: dict[str, Any]) -> dict[str, Any]:
        self._owner_only(caller)
        reason = body.get("reason")
        if not isinstance(reason, str) or not 0 < len(reason) <= REASON_MAX or not reason.isprintable():
            message = f"a reason has 1 to {REASON_MAX} printable characters"
            raise RefusedError(message, "the session's client reads it", "bad_request")
        return summary(await self._manager.stop(_id(body), reason))

    def _owner_only(self, caller: bytes) -> None:
        if caller != self._own_key:
            raise RefusedError("only this server's owner may do this", "use the server's own key", "not_owner")

    async def _command(self, client: bytes, body: dict[str, Any]) -> dict[str, Any]:
        return {"amendment": await self._manager.command(client, _raw(body, "command"))}

    async def _console(self, client: bytes, body: dict[str, Any]) -> dict[str, Any]:
        return {"text": await self._manager.console(client, _id(body))}

    async def _usage(self, client: bytes, body: dict[str, Any]) -> dict[str, Any]:
        last = self._manager.session(client, _id(body)).last_issued
        if last is None:
            raise ControlError("not_yet", "there is no usage record yet", "ask again after a receipt period")
        return {"usage": last.raw}

    async def _receipt(self, client: bytes, body: dict[str, Any]) -> dict[str, Any]:
        await self._manager.receipt(client, _raw(body, "receipt"))
        return {}

    async def _settlement(self, client: bytes, body: dict[str, Any]) -> dict[str, Any]:
        return {"settlements": list(self._manager.session(client, _id(body)).settlements)}

    async def _status(self, client: bytes, body: dict[str, Any]) -> dict[str, Any]:
        capabilities, sessions = self._admission.capabilities, self._manager.sessions.values()
        return {
            "total": amounts(self._admission.offer.total),
            "available": amounts(self._admission.available),
            "sessions": len([each for each in sessions if not each.closed]),
            "running": len([each for each in sessions if each.state in LIVE]),
            "claims_pending": len([each for each in sessions if each.claim is not None]),
            "claims_wait_ms": self._manager.claims_wait_ms,
            "hypervisor": capabilities.uri,
            "virtualisation": capabilities.virtualisation,
            "notices": list(capabilities.notices),
            "audit_length": self._audit.length,
        }


def view(session: Session) -> dict[str, Any]:
    """A session as its client sees it."""
    last = session.last_issued
    return {
        **summary(session),
        "agreement": session.server_agreement,
        "start": session.start,
        "usage": None if last is None else last.raw,
        "amendment": session.amendment,
        "command_seq": session.command_seq,
        "note": session.note,
        "paused_by_client": session.paused_by_client,
        "receipt_missing": session.exposed_ms is not None,
    }


def summary(session: Session) -> dict[str, Any]:
    """A session in a list."""
    last = session.last_issued
    return {
        "session": session.id.hex(),
        "state": session.state,
        "reason": session.reason,
        "environment": str(session.agreement.environment),
        "resources": amounts(session.resources),
        "agreed_ms": session.agreed_ms,
        "lease_until_ms": session.reservation.lease_until_ms,
        "currency": session.agreement.prices.currency,
        "due_nano": session.due_nano,
        "usage_seq": 0 if last is None else last.seq,
        "usage_final": session.final_signed,
        "receipt_seq": session.receipt_seq,
        "receipt_due_nano": session.receipt_due_nano,
        "settled_nano": session.settled_nano,
        "closed": session.closed,
    }


def amounts(resources: Resources) -> dict[str, int]:
    """Resources as a body carries them."""
    return {
        "cpu_ms_per_s": resources.cpu_ms_per_s,
        "memory_bytes": resources.memory_bytes,
        "disk_bytes": resources.disk_bytes,
        "net_bit_per_s": resources.net_bit_per_s,
    }


def _members_only(answer: _Answer) -> Handler:
    async def handler(caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
        if caller.public_key is None:
            raise ControlError("certificate_required", "this is for members only", "register with XenoCorp first")
        try:
            return await answer(caller.public_key, body)
        except RefusedError as refusal:
            raise ControlError(refusal.code, refusal.message, refusal.next_step) from refusal
        except HypervisorError as error:
            raise ControlError(error.code, error.message, error.next_step) from error
        except RemoteError as error:
            raise ControlError("bad_request", str(error), "compare the versions of both sides") from error

    return handler


def _raw(body: dict[str, Any], name: str) -> bytes:
    value = body.get(name)
    if not isinstance(value, bytes):
        raise RefusedError(f"the body's {name} must be a signed message", "compare the versions", "bad_request")
    return value


def _id(body: dict[str, Any]) -> bytes:
    value = body.get("session")
    if isinstance(value, bytes):
        return value
    try:
        return bytes.fromhex(value if isinstance(value, str) else "-")
    except ValueError:
        raise RefusedError("the body's session must be an id in hex", "see 'session list'", "bad_request") from None
