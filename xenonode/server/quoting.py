"""Quotes and refusals: admission control's answer, signed, with capacity held for a yes.

Decides what a quote names; whether it is given is `admission`'s decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dht.envelope import Envelope
from dht.identity import Scheme, Signer
from xenonode.model.entity import CLOCK_TOLERANCE_MS
from xenonode.model.session import QUOTE_HOLD_MS, Quote, QuoteRequest, Refusal
from xenonode.server.admission import Admission, Hold
from xenonode.server.audit_log import AuditLog
from xenonode.server.errors import RefusedError
from xenonode.server.refusals import NO_SESSION, Refusals


@dataclass(frozen=True, slots=True)
class Answer:
    """A signed quote, or a signed refusal."""

    quote: bytes | None
    refusal: bytes | None


class QuoteDesk:
    """Answers quote requests. `advert` gives the envelope of the advert in force, None before there is one."""

    def __init__(
        self,
        signer: Signer,
        scheme: Scheme,
        admission: Admission,
        audit: AuditLog,
        advert: Callable[[], Envelope | None],
        wall_ms: Callable[[], int],
    ) -> None:
        self._signer, self._scheme, self._admission = signer, scheme, admission
        self._audit, self._advert, self._wall_ms = audit, advert, wall_ms
        self._refusals = Refusals(audit, "refused")

    def quote(self, client: bytes, raw: bytes) -> Answer:
        """Answer a client's request. Raises RemoteError for one that is no request of this client to this server."""
        request, envelope = QuoteRequest.open(raw, self._scheme, signed_by=client)
        now_ms = self._wall_ms()
        if request.server != self._signer.public_key:
            raise RefusedError("the request is for another server", "ask the server that it names", "wrong_server")
        if abs(request.made_ms - now_ms) > CLOCK_TOLERANCE_MS:
            raise RefusedError(f"the request was made {now_ms - request.made_ms} ms ago", "check both clocks", "clock")
        held = self._admission.repeated(envelope.id, now_ms)
        if held is not None:
            return Answer(held.raw, None)
        reasons = self._admission.refusals(request, client, now_ms)
        advert = self._advert()
        if advert is None:
            reasons = (*reasons, "this server is starting and advertises nothing yet; ask again in a few seconds")
        if reasons or advert is None:
            return self._refuse(client, envelope.id, reasons, now_ms)
        return self._accept(client, envelope.id, request, advert, now_ms)

    def decline(self, client: bytes, raw: bytes) -> None:
        """A client will not use its quote; of another's, or of none, nothing is said."""
        self._admission.release(raw, client)

    def _refuse(self, client: bytes, request: bytes, reasons: tuple[str, ...], now_ms: int) -> Answer:
        refusal = Refusal(request, client, reasons, now_ms).seal(self._signer)
        self._refusals.note(NO_SESSION, client, reasons, now_ms)
        return Answer(None, refusal.raw)

    def _accept(self, client: bytes, id: bytes, request: QuoteRequest, advert: Envelope, now_ms: int) -> Answer:
        offered = self._admission.offer.find(request.environment)
        if offered is None:
            raise RefusedError(f"{request.environment} is not offered", "ask for another environment", "environment")
        until_ms = now_ms + QUOTE_HOLD_MS
        quote = Quote(
            request=id,
            client=client,
            advert=advert.id,
            advert_seq=advert.seq,
            resources=request.resources,
            environment=request.environment,
            image_sha256=offered.image_sha256,
            prices=self._admission.offer.prices,
            held_until_ms=until_ms,
        ).seal(self._signer)
        self._audit.add("quoted", NO_SESSION, {"client": client, "quote": quote.id}, now_ms)
        self._admission.hold(Hold(quote.id, id, client, request.resources, until_ms, quote.raw))
        return Answer(quote.raw, None)
